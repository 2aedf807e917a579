// What course.js draws below each other over one axis of time: the two curves with their intervals,
// the shares of face, voice and words, speech and words as they are said, and the axis.
// `frame` is {x(time_s) -> px, from_s, to_s, left, width, ...}, `add` puts an SVG element in place.
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const LETTER_PX = 7; // of the words' type, on average
  const ROWS = 2; // of words
  const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

  // Runs [first, last] of indices where all columns have numbers and time does not jump.
  function runs(time_s, gap_s, ...columns) {
    const found = [];
    let open = null;
    for (let i = 0; i < time_s.length; i++) {
      const there = columns.every((column) => Number.isFinite(column[i]));
      if (open && there && time_s[i] - time_s[open[1]] <= gap_s) open[1] = i;
      else if (there) found.push((open = [i, i]));
      if (!there) open = null;
    }
    return found;
  }

  const corner = (x, y) => `${x.toFixed(1)} ${y.toFixed(1)}`;

  function line(frame, time_s, gap_s, values, y) {
    let path = "";
    for (const [first, last] of runs(time_s, gap_s, values)) {
      path += `M${corner(frame.x(time_s[first]), y(values[first]))}`;
      for (let i = first + 1; i <= last; i++) {
        path += `L${corner(frame.x(time_s[i]), y(values[i]))}`;
      }
      if (first === last) path += "h1.5";
    }
    return path;
  }

  function area(frame, time_s, gap_s, low, high, y) {
    let path = "";
    for (const [first, last] of runs(time_s, gap_s, low, high)) {
      const at = (values) => (i) => corner(frame.x(time_s[i]), y(values[i]));
      const rows = Array.from({ length: last - first + 1 }, (_, k) => first + k);
      path += `M${rows.map(at(high)).join("L")}L${rows.reverse().map(at(low)).join("L")}Z`;
    }
    return path;
  }

  // Rectangles over spans of time, as one path: what is narrower than a pixel is still seen, what
  // lies within the last pixel drawn is not drawn again.
  function bars(frame, spans, top, height) {
    let path = "";
    let drawn = -Infinity;
    for (const [from_s, to_s] of spans) {
      if (to_s <= frame.from_s || from_s >= frame.to_s) continue;
      const left = Math.max(frame.left, frame.x(from_s));
      const right = Math.min(frame.left + frame.width, Math.max(frame.x(to_s), left + 1));
      if (right < drawn + 0.5) continue;
      path += `M${corner(left, top)}H${right.toFixed(1)}v${height}H${left.toFixed(1)}Z`;
      drawn = right;
    }
    return path;
  }

  // One curve: grid, interval, range where rows were put together, the line itself.
  function curve(frame, add, cut, name, box, ends) {
    const y = (value) => box.top + ((1 - value) / 2) * box.height;
    const { left, width } = frame;
    const right = left + width;
    add("rect", { x: left, y: box.top, width, height: box.height, class: "course-field" });
    add("path", { d: `M${left} ${y(0.5)}H${right}M${left} ${y(-0.5)}H${right}`, class: "course-half" });
    add("path", { d: `M${left} ${y(0)}H${right}`, class: "course-zero" });
    const { time_s, gap_s } = cut;
    const band = area(frame, time_s, gap_s, cut[`${name}_low`], cut[`${name}_high`], y);
    add("path", { d: band, class: `course-band course-${name}` });
    const range = cut[`${name}_range`];
    if (range) {
      const d = area(frame, time_s, gap_s, range[0], range[1], y);
      add("path", { d, class: `course-range course-${name}` });
    }
    add("path", { d: line(frame, time_s, gap_s, cut[name], y), class: `course-line course-${name}` });
    add("text", { x: left + 5, y: box.top + 13, class: "course-end" }, ends[1]);
    add("text", { x: left + 5, y: box.top + box.height - 5, class: "course-end" }, ends[0]);
    const tick = { x: left - 6, class: "course-tick course-before" };
    add("text", { ...tick, y: box.top + 10 }, "+1");
    add("text", { ...tick, y: box.top + box.height }, "\u22121");
    return y;
  }

  // One share: as high as it weighs, hatched where its source was missing.
  function share(frame, add, cut, column, box, kind, missing, hatch) {
    const y = (value) => box.top + (1 - value) * box.height;
    const { left, width } = frame;
    add("rect", { x: left, y: box.top, width, height: box.height, class: "course-field" });
    const d = bars(frame, missing, box.top, box.height);
    add("path", { d, class: "course-missing", fill: hatch });
    const none = cut.time_s.map((_, i) => (Number.isFinite(column[i]) ? 0 : NaN));
    const shape = area(frame, cut.time_s, cut.gap_s, none, column, y);
    add("path", { d: shape, class: `course-share course-${kind}` });
  }

  // Where each word can stand in one of `ROWS` rows; null where one finds no room.
  function placed(frame, words) {
    const free = new Array(ROWS).fill(frame.left);
    const texts = [];
    for (const word of words) {
      const x = Math.max(frame.left, frame.x(word.start_s));
      const text = word.text.trim();
      const wide = (text.length + 0.6) * LETTER_PX;
      if (x + wide > frame.left + frame.width + 4) continue;
      const row = free.findIndex((from) => from <= x);
      if (row < 0) return null;
      free[row] = x + wide;
      texts.push([text, x, row]);
    }
    return texts;
  }

  // The beginnings of phrases, as far as they have room before the next in their row.
  function begun(frame, words) {
    const phrases = maven.phrases(words);
    return phrases.flatMap(([first, last], k) => {
      const next = phrases[k + ROWS];
      const x = Math.max(frame.left, frame.x(words[first].start_s));
      const end = next ? frame.x(words[next[0]].start_s) : frame.left + frame.width;
      const letters = Math.floor((end - x) / LETTER_PX - 1);
      const text = words.slice(first, last + 1).map((word) => word.text.trim()).join(" ");
      if (letters < 4) return [];
      const cut = text.length > letters ? `${text.slice(0, letters - 1).trimEnd()}\u2026` : text;
      return [[cut, x, k % ROWS]];
    });
  }

  // What is said: a mark a word, and the words, or where they have no room, how phrases begin.
  function said(frame, add, words, box) {
    const seen = words.filter((word) => word.end_s > frame.from_s && word.start_s < frame.to_s);
    const between_s = (frame.to_s - frame.from_s) / frame.width;
    const spans = seen.map((word) => [word.start_s, word.end_s - between_s]);
    add("path", { d: bars(frame, spans, box.top, 4), class: "course-word" });
    for (const [text, x, row] of placed(frame, seen) || begun(frame, seen)) {
      const y = box.top + 17 + 14 * row;
      add("text", { x: x.toFixed(1), y, class: "course-said" }, text);
    }
  }

  function axis(frame, add, top, bottom) {
    const wanted = Math.max(2, Math.floor(frame.width / 90));
    const length_s = frame.to_s - frame.from_s;
    const step_s = STEPS_S.find((step) => length_s / step <= wanted) || 7200;
    const digits = step_s < 1 ? 1 : 0;
    for (let k = Math.ceil(frame.from_s / step_s - 1e-6); k * step_s <= frame.to_s + 1e-6; k++) {
      const x = frame.x(k * step_s);
      add("path", { d: `M${x.toFixed(1)} ${top}V${bottom + 4}`, class: "course-grid" });
      const end = x > frame.left + frame.width - 16 ? " course-before" : "";
      const text = maven.clock(k * step_s, digits);
      add("text", { x: x.toFixed(1), y: bottom + 17, class: `course-tick${end}` }, text);
    }
  }

  maven.lanes = { curve, share, bars, said, axis, line };
})(window.maven);
