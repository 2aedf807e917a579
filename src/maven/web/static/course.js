// The time course: curves, shares, speech and words over one axis, a cursor, zoom and an overview.
//
//   const course = maven.course(element, view, (time_s) => ...)   called where somebody clicks
//   course.show(series, name)   the rows of one person (maven.series); "" for the only one
//   course.time(time_s)         the cursor
//   course.zoom(factor), course.pan(share), course.whole()
//   course.field                what takes the focus: a slider over the whole clip
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const LEFT_PX = 62; // names and numbers
  const PAPER_PX = 700; // width of the graph on paper
  const SHORTEST_S = 0.5;
  const JUMP_S = 0.5; // more at once than playing moves the cursor
  const SWIPE_PX = 8; // a finger that moves less taps
  const BOXES = {
    valence: { top: 6, height: 86 },
    arousal: { top: 98, height: 86 },
    face: { top: 194, height: 22 },
    voice: { top: 220, height: 22 },
    words: { top: 246, height: 22 },
    speech: { top: 278, height: 8 },
    said: { top: 294, height: 34 },
  };
  const UNDER = 22; // for the times
  const LABELS = {
    valence: ["Valence", 54],
    arousal: ["Arousal", 146],
    face: ["Face", 209],
    voice: ["Voice", 235],
    words: ["Words", 261],
    speech: ["Speech", 287],
    said: ["Said", 305],
  };
  let courses = 0;

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const percent = (share) => (Number.isFinite(share) ? `${Math.round(share * 100)} %` : "\u2013");

  function legend(view) {
    const share = view.interval ? `${Math.round(view.interval * 100)} % interval` : null;
    return [
      "Solid line: valence; dashed: arousal.",
      share ? `Shaded: ${share}.` : "",
      view.step_s ? `Each value is the mean of ${view.step_s} s.` : "",
      "Lanes: weight of face, voice and words in the answer.",
      "Hatched: not observed.",
    ]
      .filter(Boolean)
      .join(" ");
  }

  function heading(panel) {
    const head = maven.html(panel, "div", "course-head");
    const title = maven.html(head, "h2", "", "Time course");
    const range = maven.html(head, "span", "number muted course-shown");
    const tools = maven.html(head, "div", "viewer-tools");
    const button = (text, label) => {
      const made = maven.html(tools, "button", "", text);
      made.type = "button";
      made.setAttribute("aria-label", label);
      made.title = label;
      return made;
    };
    return {
      title,
      range,
      out: button("\u2212", "Zoom out"),
      in: button("+", "Zoom in"),
      whole: button("Whole clip", "Show the whole clip"),
    };
  }

  function slider(plot, view) {
    plot.tabIndex = 0;
    const attributes = {
      role: "slider",
      "aria-label": "Position in the clip",
      "aria-valuemin": view.start_s,
      "aria-valuemax": view.end_s,
    };
    for (const [name, value] of Object.entries(attributes)) plot.setAttribute(name, value);
  }

  function hatching(svg, id) {
    const pattern = maven.svg(maven.svg(svg, "defs"), "pattern", {
      id,
      width: 6,
      height: 6,
      patternUnits: "userSpaceOnUse",
      patternTransform: "rotate(45)",
    });
    maven.svg(pattern, "rect", { width: 6, height: 6, class: "course-hatch-ground" });
    maven.svg(pattern, "path", { d: "M0 0V6", class: "course-hatch" });
    return `url(#${id})`;
  }

  maven.course = function (element, view, asked) {
    const words = view.words.length > 0;
    const bottom = words ? BOXES.said.top + BOXES.said.height + 2 : BOXES.said.top;
    const panel = maven.html(element, "section", "panel course");
    panel.setAttribute("aria-label", "Time course");
    const head = heading(panel);
    const plot = maven.html(panel, "div", "course-plot");
    slider(plot, view);
    const svg = maven.svg(plot, "svg", { class: "course-graph", "aria-hidden": "true" });
    courses += 1;
    const hatch = hatching(svg, `course-hatch-${courses}`);
    const drawn = maven.svg(svg, "g");
    const pointer = maven.svg(svg, "path", { class: "course-pointer", hidden: "" });
    const cursor = maven.svg(svg, "g", { class: "course-cursor" });
    maven.svg(cursor, "path", { d: `M0 2V${bottom}` });
    maven.svg(cursor, "path", { d: "M-6 0H6L0 8Z", class: "course-handle" });
    const dots = ["valence", "arousal"].map((name) =>
      maven.svg(cursor, "circle", { r: 4.5, class: `course-dot course-${name}` }),
    );
    const hover = maven.html(plot, "div", "course-hover number");
    hover.hidden = true;
    const overview = maven.overview(panel, view, (time_s) => move(time_s));
    const key = maven.html(panel, "p", "muted course-legend", `${legend(view)} `);
    maven.html(key, "span", "viewer-hint", "Click or drag to go there, Ctrl and the wheel to zoom.");

    const end_s = Math.max(view.end_s, view.start_s + SHORTEST_S);
    let [from_s, to_s] = [view.start_s, end_s];
    let width = 0;
    let paper = false;
    let series = null;
    let at_s = view.start_s;
    let ys = {};

    const x = (time_s) => LEFT_PX + ((time_s - from_s) / (to_s - from_s)) * (width - LEFT_PX - 2);
    const time_at = (px) =>
      clamp(from_s + ((px - LEFT_PX) / (width - LEFT_PX - 2)) * (to_s - from_s), from_s, to_s);

    function draw() {
      if (!series || width < LEFT_PX + 20) return;
      svg.setAttribute("viewBox", `0 0 ${width} ${bottom + UNDER}`);
      drawn.replaceChildren();
      const add = (tag, attributes, text) => maven.svg(drawn, tag, attributes, text);
      const frame = { x, from_s, to_s, left: LEFT_PX, width: width - LEFT_PX - 2 };
      const cut = series.sample(from_s, to_s, Math.round(frame.width));
      const { curve, share, bars, said, axis } = maven.lanes;
      const clip = maven.svg(drawn, "clipPath", { id: `course-clip-${courses}` });
      maven.svg(clip, "rect", { x: LEFT_PX, y: 0, width: frame.width, height: bottom + UNDER });
      const ends = { valence: ["unpleasant", "pleasant"], arousal: ["calm", "excited"] };
      for (const name of ["valence", "arousal"]) {
        ys[name] = curve(frame, add, cut, name, BOXES[name], ends[name]);
        const d = bars(frame, series.unanswered, BOXES[name].top, BOXES[name].height);
        add("path", { d, class: "course-missing", fill: hatch });
      }
      drawn.append(...drawn.querySelectorAll(".course-end")); // over the hatching
      share(frame, add, cut, cut.visual_weight, BOXES.face, "face", series.unseen, hatch);
      share(frame, add, cut, cut.audio_weight, BOXES.voice, "voice", series.unheard, hatch);
      share(frame, add, cut, cut.text_weight, BOXES.words, "words", series.unsaid, hatch);
      const { top, height } = BOXES.speech;
      add("path", { d: `M${LEFT_PX} ${top + height / 2}h${frame.width}`, class: "course-zero" });
      add("path", { d: bars(frame, view.speech, top, height), class: "course-speech" });
      if (words) said(frame, add, view.words, BOXES.said);
      axis(frame, add, BOXES.valence.top, bottom);
      // What reaches over the edge of the frame is cut, names and numbers are not.
      for (const part of drawn.querySelectorAll("path")) {
        part.setAttribute("clip-path", `url(#course-clip-${courses})`);
      }
      for (const [name, [text, y]] of Object.entries(LABELS)) {
        if (name === "said" && !words) continue;
        add("text", { x: 0, y, class: `course-label course-${name}-ink` }, text);
      }
      const whole = from_s <= view.start_s && to_s >= end_s;
      head.range.textContent = `${maven.clock(from_s, 1)} \u2013 ${maven.clock(to_s, 1)}`;
      head.out.disabled = head.whole.disabled = whole;
      overview.show(series, from_s, to_s, whole || paper, width);
      place();
    }

    function place() {
      const inside = at_s >= from_s && at_s <= to_s;
      cursor.toggleAttribute("hidden", !inside);
      if (!inside || !series || !width) return;
      cursor.setAttribute("transform", `translate(${x(at_s).toFixed(2)} 0)`);
      const reading = series.reading(at_s);
      ["valence", "arousal"].forEach((name, k) => {
        dots[k].toggleAttribute("hidden", !reading);
        if (reading) dots[k].setAttribute("cy", ys[name](reading[name]).toFixed(1));
      });
    }

    function window_s(from, length) {
      leave(); // what it says is no longer below the pointer
      const kept = clamp(length, Math.min(SHORTEST_S, end_s - view.start_s), end_s - view.start_s);
      from_s = clamp(from, view.start_s, end_s - kept);
      to_s = from_s + kept;
      draw();
    }

    const move = (middle_s) => window_s(middle_s - (to_s - from_s) / 2, to_s - from_s);

    // Around a time that keeps its place, or around the cursor, which comes into the middle.
    function zoom(factor, about_s = null) {
      const length = (to_s - from_s) / factor;
      const share = about_s === null ? 0.5 : (about_s - from_s) / (to_s - from_s);
      window_s((about_s === null ? at_s : about_s) - share * length, length);
    }

    function time(time_s) {
      const seen = (at_s >= from_s && at_s <= to_s) || Math.abs(time_s - at_s) > JUMP_S;
      at_s = time_s;
      const reading = series && series.reading(time_s);
      plot.setAttribute("aria-valuenow", time_s.toFixed(3));
      const values = reading
        ? `valence ${maven.signed(reading.valence)}, arousal ${maven.signed(reading.arousal)}`
        : "nothing observed";
      plot.setAttribute("aria-valuetext", `${maven.clock(time_s)}, ${values}`);
      const length = to_s - from_s;
      // Whoever looks elsewhere while it plays is not taken back.
      if (seen && (time_s < from_s || time_s > to_s)) window_s(time_s - length / 10, length);
      else place();
    }

    function word_at(time_s) {
      return view.words.find((word) => word.start_s <= time_s && time_s < word.end_s);
    }

    function read(event) {
      const box = plot.getBoundingClientRect();
      const px = event.clientX - box.left;
      const time_s = time_at(px);
      const reading = series.reading(time_s);
      const word = word_at(time_s);
      const both = (name) =>
        `${maven.signed(reading[name])}` +
        (reading.box
          ? ` (${maven.signed(reading[`${name}_low`])} to ${maven.signed(reading[`${name}_high`])})`
          : "");
      const lines = reading
        ? [
            `valence ${both("valence")}`,
            `arousal ${both("arousal")}`,
            `face ${percent(reading.visual_weight)}, voice ${percent(reading.audio_weight)}, ` +
              `words ${percent(reading.text_weight)}`,
          ]
        : ["nothing observed"];
      if (word) lines.push(`\u201c${word.text}\u201d`);
      hover.replaceChildren();
      for (const line of [maven.clock(time_s), ...lines]) maven.html(hover, "div", "", line);
      hover.hidden = false;
      pointer.toggleAttribute("hidden", false);
      pointer.setAttribute("d", `M${x(time_s).toFixed(1)} 2V${bottom}`);
      const wide = hover.offsetWidth;
      hover.style.left = `${px + 14 + wide > box.width ? Math.max(0, px - 14 - wide) : px + 14}px`;
    }

    function leave() {
      hover.hidden = true;
      pointer.toggleAttribute("hidden", true);
    }

    function seek(event, exact) {
      const box = plot.getBoundingClientRect();
      const time_s = time_at(event.clientX - box.left);
      const said = event.clientY - box.top >= BOXES.said.top;
      const word = said && !exact ? word_at(time_s) : null;
      asked(word ? word.start_s : time_s);
    }

    function wheel(event) {
      const turn = event.deltaY || event.deltaX;
      if (event.ctrlKey || event.metaKey) {
        const px = event.clientX - plot.getBoundingClientRect().left;
        zoom(2 ** (-clamp(turn, -100, 100) / 150), time_at(px));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        window_s(from_s + ((event.deltaX || turn) / width) * (to_s - from_s), to_s - from_s);
      } else return;
      event.preventDefault();
    }

    let finger_px = null; // where a finger came down that may want to scroll the page
    plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      plot.setPointerCapture(event.pointerId);
      finger_px = event.pointerType === "touch" ? event.clientX : null;
      if (finger_px === null) seek(event, false);
    });
    plot.addEventListener("pointermove", (event) => {
      if (Math.abs(event.clientX - (finger_px ?? event.clientX)) > SWIPE_PX) finger_px = null;
      if (finger_px === null && plot.hasPointerCapture(event.pointerId)) seek(event, true);
      if (series && event.pointerType !== "touch") read(event);
    });
    plot.addEventListener("pointerup", (event) => {
      if (finger_px !== null) seek(event, false);
      finger_px = null;
    });
    plot.addEventListener("pointercancel", () => (finger_px = null));
    plot.addEventListener("pointerleave", leave);
    plot.addEventListener("wheel", wheel, { passive: false });
    head.in.addEventListener("click", () => zoom(2));
    head.out.addEventListener("click", () => zoom(0.5));
    head.whole.addEventListener("click", () => window_s(view.start_s, end_s));

    function size() {
      const now = paper ? PAPER_PX : Math.round(plot.clientWidth);
      if (!now || now === width) return;
      width = now;
      draw();
    }
    let kept = null; // the window on the screen, while the whole goes on paper
    function print(on) {
      if (on === paper) return;
      if (on) kept = [from_s, to_s];
      paper = on;
      size();
      if (on) window_s(view.start_s, end_s);
      else window_s(kept[0], kept[1] - kept[0]);
    }
    const watch = new ResizeObserver(size);
    watch.observe(plot);
    const media = window.matchMedia("print");
    const printing = (event) => print(event.matches);
    const [before, after] = [() => print(true), () => print(false)];
    media.addEventListener("change", printing);
    window.addEventListener("beforeprint", before);
    window.addEventListener("afterprint", after);

    return {
      field: plot,
      time,
      zoom,
      pan: (share) => window_s(from_s + share * (to_s - from_s), to_s - from_s),
      whole: () => window_s(view.start_s, end_s),
      show(shown, name) {
        series = shown;
        head.title.textContent = name ? `Time course: ${name}` : "Time course";
        width = width || Math.round(plot.clientWidth);
        draw();
      },
      destroy() {
        watch.disconnect();
        media.removeEventListener("change", printing);
        window.removeEventListener("beforeprint", before);
        window.removeEventListener("afterprint", after);
      },
    };
  };
})(window.maven);
