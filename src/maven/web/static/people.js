// Whom the view is about: the choice of a person, a summary each, and the strongest moments.
//
//   const choice = maven.choice(element, view, (k) => ...)      choice.show(k)
//   const summaries = maven.summaries(element, view)            summaries.show(k)
//   const moments = maven.moments(element, view, (time_s) => ...)
//   moments.show(k), moments.next(time_s, 1 or -1)
// All people are in the page, those not chosen are only on paper.
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const MOST_BUTTONS = 6;

  const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

  function blocks(parent, view, fill) {
    const made = view.people.map((person) => {
      const block = maven.html(parent, "div", "viewer-person");
      if (view.people.length > 1) maven.html(block, "h3", "viewer-person-name", person.name);
      fill(block, person);
      return block;
    });
    return (k) => made.forEach((block, i) => block.classList.toggle("viewer-other", i !== k));
  }

  maven.choice = function (element, view, chosen) {
    if (view.people.length < 2) return { show() {} };
    const label = maven.html(element, "div", "choice");
    if (view.people.length > MOST_BUTTONS) {
      const select = maven.html(label, "select");
      select.setAttribute("aria-label", "Person");
      view.people.forEach((person, k) => {
        const option = maven.html(select, "option", "", person.name);
        option.value = k;
      });
      select.addEventListener("change", () => chosen(Number(select.value)));
      return { show: (k) => (select.value = k) };
    }
    label.setAttribute("role", "group");
    label.setAttribute("aria-label", "Person");
    const buttons = view.people.map((person, k) => {
      const button = maven.html(label, "button", "", person.name);
      button.type = "button";
      button.addEventListener("click", () => chosen(k));
      return button;
    });
    return {
      show: (k) => buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === k))),
    };
  };

  function bar(list, name, share, kind = "") {
    const row = maven.html(list, "div", "summary-row");
    maven.html(row, "dt", "", name);
    const cell = maven.html(row, "dd");
    const fill = maven.html(maven.html(cell, "span", "bar"), "span", `bar-fill ${kind}`);
    fill.style.width = `${100 * share}%`;
    maven.html(cell, "span", "share-number", percent(share));
  }

  function table(block, summary) {
    const made = maven.html(block, "table", "summary-table");
    const head = maven.html(maven.html(made, "thead"), "tr");
    maven.html(head, "td");
    for (const title of ["mean", "lowest", "highest"]) {
      maven.html(head, "th", "", title).scope = "col";
    }
    const body = maven.html(made, "tbody");
    for (const [name, title] of [["valence", "Valence"], ["arousal", "Arousal"]]) {
      const row = maven.html(body, "tr");
      maven.html(row, "th", "", title).scope = "row";
      for (const key of ["mean", "low", "high"]) {
        maven.html(row, "td", "number", maven.signed(summary[name][key]));
      }
    }
  }

  maven.summaries = function (element, view) {
    const panel = maven.html(element, "section", "panel summary");
    maven.html(panel, "h2", "", "Summary");
    const show = blocks(panel, view, (block, { summary }) => {
      const numbers = maven.html(block, "div");
      if (summary.valence && summary.arousal) table(numbers, summary);
      else maven.html(numbers, "p", "", "No answer: neither face, voice nor words were found.");
      const length = `${summary.seconds.toFixed(1)} s`;
      maven.html(numbers, "h3", "summary-title", `What was observed in ${length}`);
      const observed = maven.html(numbers, "dl", "summary-bars");
      bar(observed, "Face", summary.face, "bar-face");
      bar(observed, "Speech", summary.speech, "bar-voice");
      bar(observed, "Words", summary.words, "bar-words");
      const regions = Object.entries(summary.regions);
      if (!regions.length) return;
      const named = maven.html(block, "div");
      maven.html(named, "h3", "summary-title", "Share of the time in each region");
      const list = maven.html(named, "dl", "summary-bars");
      for (const [name, share] of regions) bar(list, name, share);
    });
    return { show };
  };

  function moment(list, found, asked) {
    const button = maven.html(maven.html(list, "li"), "button", "moment");
    button.type = "button";
    if (found.still) {
      const image = maven.html(button, "img", "moment-still");
      image.src = found.still;
      image.alt = "";
    }
    const text = maven.html(button, "span", "moment-text");
    const head = maven.html(text, "span", "moment-head");
    maven.html(head, "span", "number", maven.clock(found.time_s));
    maven.html(head, "strong", "", ` ${found.emotion}`);
    const numbers = `valence ${maven.signed(found.valence)}, arousal ${maven.signed(found.arousal)}`;
    maven.html(text, "span", "muted moment-numbers", numbers);
    if (found.words) maven.html(text, "span", "moment-words", `\u201c${found.words}\u201d`);
    button.addEventListener("click", () => asked(found.time_s));
  }

  maven.moments = function (element, view, asked) {
    const panel = maven.html(element, "section", "panel moments");
    maven.html(panel, "h2", "", "Strongest moments");
    const show = blocks(panel, view, (block, person) => {
      if (!person.moments.length) maven.html(block, "p", "muted", "None.");
      const list = maven.html(block, "ol", "moment-list");
      for (const found of person.moments) moment(list, found, asked);
    });
    let times_s = [];
    return {
      show(k) {
        show(k);
        times_s = view.people[k].moments.map((found) => found.time_s).sort((a, b) => a - b);
      },
      next(time_s, way) {
        const ahead = times_s.filter((t) => (t - time_s) * way > 0.01);
        if (ahead.length) asked(way > 0 ? ahead[0] : ahead[ahead.length - 1]);
      },
    };
  };
})(window.maven);
