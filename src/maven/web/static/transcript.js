// What was said, in lines with their times; the word at the cursor is marked, a word takes the
// video there. One word is in the order of tabs, the arrow keys go to the others.
//
//   const transcript = maven.transcript(element, view, (time_s) => ...)
//   transcript.time(time_s)
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const PAUSE_S = 1; // begins a line
  const LONGEST = 30; // words a line
  const ENDS = /[.?!\u2026\u3002]["\u201d')]*$/;

  // Numbers [first, last] of the words of each line.
  maven.phrases = function (words) {
    const found = [];
    let first = 0;
    words.forEach((word, i) => {
      const next = words[i + 1];
      const length = i - first + 1;
      const ended = ENDS.test(word.text.trim()) && length > 2;
      if (!next || ended || length >= LONGEST || next.start_s - word.end_s > PAUSE_S) {
        found.push([first, i]);
        first = i + 1;
      }
    });
    return found;
  };

  maven.transcript = function (element, view, asked) {
    const { words } = view;
    if (!words.length) return { time() {} };
    const panel = maven.html(element, "section", "panel transcript");
    maven.html(panel, "h2", "", "Transcript");
    const box = maven.html(panel, "div", "transcript-lines");
    const spans = [];
    for (const [first, last] of maven.phrases(words)) {
      const line = maven.html(box, "p", "transcript-line");
      maven.html(line, "span", "number muted transcript-time", maven.clock(words[first].start_s, 1));
      const said = maven.html(line, "span");
      for (let i = first; i <= last; i++) {
        const span = maven.html(said, "span", "transcript-word", words[i].text.trim());
        span.tabIndex = -1;
        span.setAttribute("role", "button");
        span.dataset.word = i;
        spans.push(span);
        said.append(" ");
      }
    }
    let stop = 0; // the word that a tab reaches
    let here = -1; // the word at the cursor
    spans[stop].tabIndex = 0;

    function reach(i) {
      spans[stop].tabIndex = -1;
      stop = i;
      spans[stop].tabIndex = 0;
    }

    // The word that is said at a time, or was said last.
    function before(time_s) {
      let [low, high] = [0, words.length];
      while (low < high) {
        const half = (low + high) >> 1;
        if (words[half].start_s <= time_s + 5e-4) low = half + 1;
        else high = half;
      }
      return low - 1;
    }

    function into_view(span) {
      const line = span.closest(".transcript-line");
      const [top, bottom] = [line.offsetTop, line.offsetTop + line.offsetHeight];
      if (top < box.scrollTop) box.scrollTop = top - 8;
      if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight + 8;
    }

    function time(time_s) {
      const last = before(time_s);
      const i = last >= 0 && time_s < words[last].end_s ? last : -1;
      if (i === here) return;
      if (here >= 0) spans[here].removeAttribute("aria-current");
      here = i;
      if (here < 0) return;
      spans[here].setAttribute("aria-current", "true");
      if (!box.contains(document.activeElement)) reach(here);
      into_view(spans[here]);
    }

    const ask = (i) => asked(words[i].start_s);
    box.addEventListener("click", (event) => {
      const span = event.target.closest(".transcript-word");
      if (!span) return;
      reach(Number(span.dataset.word));
      ask(stop);
    });
    box.addEventListener("keydown", (event) => {
      const to = {
        ArrowRight: stop + 1,
        ArrowLeft: stop - 1,
        Home: 0,
        End: words.length - 1,
      }[event.key];
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "Enter" || event.key === " ") ask(stop);
      else if (to === undefined) return;
      else if (spans[to]) {
        reach(to);
        spans[to].focus();
      }
      event.preventDefault();
      event.stopPropagation();
    });
    return { time };
  };
})(window.maven);
