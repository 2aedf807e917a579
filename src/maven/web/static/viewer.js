// One clip: video, circumplex, time course, transcript, moments, in step. For the report and the
// page of a result; `view` is what maven.render.view makes.
//
//   const viewer = maven.viewer(element, view)
//   viewer.seek(time_s), viewer.time_s(), viewer.person(k), viewer.media, viewer.destroy()
//   viewer.on("time", (time_s) => ...), viewer.on("person", (k) => ...)
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const FIELDS = "input, select, textarea, [contenteditable]";
  const PRESSED = "button, summary, a, [role=button]"; // Space is theirs

  function layout(element) {
    const root = maven.html(element, "div", "viewer");
    const head = maven.html(root, "div", "viewer-head");
    const bar = maven.html(root, "div", "viewer-bar");
    const stage = maven.html(root, "div", "viewer-stage");
    const middle = maven.html(root, "div", "viewer-middle");
    const lower = maven.html(root, "div", "viewer-lower");
    return { root, head, bar, stage, middle, lower };
  }

  maven.viewer = function (element, view) {
    const { root, head, bar, stage, middle, lower } = layout(element);
    const listeners = { time: [], person: [] };
    const tell = (name, value) => listeners[name].forEach((listener) => listener(value));
    const all = view.people.map(() => null); // series, made when a person is first shown
    let chosen = 0;

    maven.reading(head, view);
    maven.notes(head, view);
    const choice = maven.choice(bar, view, person);
    const keys = maven.keys(root);
    const player = maven.player(stage, view, follow);
    const help = maven.html(player.tools, "button", "viewer-help", "?");
    help.type = "button";
    help.title = "Keys";
    help.setAttribute("aria-label", "Keys");
    help.addEventListener("click", keys);
    const readout = maven.readout(stage, view);
    const course = maven.course(middle, view, player.seek);
    lower.classList.toggle("viewer-wordless", !view.words.length);
    const transcript = maven.transcript(lower, view, player.seek);
    const moments = maven.moments(lower, view, player.seek);
    const summaries = maven.summaries(lower, view);
    const provenance = maven.provenance(root, view);

    const series = () => all[chosen];

    function follow(time_s) {
      readout.time(time_s);
      course.time(time_s);
      transcript.time(time_s);
      const box_px = series() ? series().box_px(time_s) : null;
      player.box(box_px, box_px ? view.people[chosen].name : "");
      tell("time", time_s);
    }

    function person(k) {
      if (!view.people[k]) return;
      chosen = k;
      all[k] = all[k] || maven.series(view.people[k]);
      for (const part of [choice, moments, summaries]) part.show(k);
      readout.person(all[k], view.people[k].name);
      course.show(all[k], view.people.length > 1 ? view.people[k].name : "");
      follow(player.time_s());
      tell("person", k);
    }

    const go = (seconds) => player.seek(player.time_s() + seconds);
    const actions = {
      " ": player.toggle,
      k: player.toggle,
      ArrowLeft: (event) => go(event.shiftKey ? -5 : -1),
      ArrowRight: (event) => go(event.shiftKey ? 5 : 1),
      ",": () => player.step(-1),
      ".": () => player.step(1),
      Home: () => player.seek(view.start_s),
      End: () => player.seek(view.end_s),
      n: () => moments.next(player.time_s(), 1),
      p: () => moments.next(player.time_s(), -1),
      "+": () => course.zoom(2),
      "=": () => course.zoom(2),
      "-": () => course.zoom(0.5),
      0: () => course.whole(),
      "[": () => course.pan(-0.5),
      "]": () => course.pan(0.5),
      b: player.boxes,
      m: player.mute,
      "?": keys,
    };

    function pressed(event) {
      const { key, target } = event;
      if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
      const first = document.querySelector(".viewer") === root;
      if (!root.contains(target) && !(first && target.contains(root))) return;
      if (target.matches(FIELDS) || target.closest("dialog")) return;
      if (key === " " && target.closest(PRESSED)) return;
      const action = /^[1-9]$/.test(key) ? () => person(Number(key) - 1) : actions[key];
      if (!action) return;
      event.preventDefault();
      action(event);
    }
    document.addEventListener("keydown", pressed);

    // On paper, how it was made is open.
    const was = { open: false };
    const before = () => {
      was.open = provenance.open;
      provenance.open = true;
    };
    const after = () => (provenance.open = was.open);
    window.addEventListener("beforeprint", before);
    window.addEventListener("afterprint", after);

    if (view.people.length) person(0);
    else follow(view.start_s);
    performance.mark("maven-drawn");

    return {
      media: player.media,
      seek: player.seek,
      time_s: player.time_s,
      person,
      on: (name, listener) => listeners[name].push(listener),
      destroy() {
        document.removeEventListener("keydown", pressed);
        window.removeEventListener("beforeprint", before);
        window.removeEventListener("afterprint", after);
        course.destroy();
        player.destroy();
        root.remove();
      },
    };
  };
})(window.maven);
