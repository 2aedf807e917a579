// The whole clip in a strip below a course that was zoomed: where its window lies.
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const LEFT_PX = 62;
  const HEIGHT = 44;

  // moved(time_s): the middle of the window that somebody asks for.
  maven.overview = function (element, view, moved) {
    const svg = maven.svg(element, "svg", { class: "course-overview", "aria-hidden": "true" });
    const drawn = maven.svg(svg, "g");
    const outside = maven.svg(svg, "path", { class: "course-outside" });
    const frame_box = maven.svg(svg, "rect", { y: 1, height: HEIGHT - 2, class: "course-window" });
    let drawn_for = null; // series and width that the lines were drawn for
    let frame = null;

    function lines(series, width) {
      const { start_s, end_s } = view;
      const inner = width - LEFT_PX - 2;
      const x = (time_s) => LEFT_PX + ((time_s - start_s) / (end_s - start_s)) * inner;
      frame = { x, from_s: start_s, to_s: end_s, left: LEFT_PX, width: inner };
      svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      drawn.replaceChildren();
      maven.svg(drawn, "text", { x: 0, y: 26, class: "course-label" }, "Whole");
      const box = { x: LEFT_PX, y: 1, width: inner, height: HEIGHT - 2, class: "course-field" };
      maven.svg(drawn, "rect", box);
      const cut = series.sample(start_s, end_s, Math.round(inner / 2));
      const y = (value) => 1 + ((1 - value) / 2) * (HEIGHT - 2);
      for (const name of ["valence", "arousal"]) {
        const d = maven.lanes.line(frame, cut.time_s, cut.gap_s, cut[name], y);
        maven.svg(drawn, "path", { d, class: `course-line course-thin course-${name}` });
      }
    }

    function show(series, from_s, to_s, hidden, width) {
      svg.toggleAttribute("hidden", hidden);
      if (hidden) return;
      if (!drawn_for || drawn_for[0] !== series || drawn_for[1] !== width) {
        drawn_for = [series, width];
        lines(series, width);
      }
      const [left, right] = [frame.x(from_s), frame.x(to_s)];
      const wide = Math.max(6, right - left);
      frame_box.setAttribute("x", left.toFixed(1));
      frame_box.setAttribute("width", wide.toFixed(1));
      const end = LEFT_PX + frame.width;
      const d = `M${LEFT_PX} 1H${left}V${HEIGHT - 1}H${LEFT_PX}ZM${left + wide} 1H${end}V${HEIGHT - 1}H${left + wide}Z`;
      outside.setAttribute("d", d);
    }

    function point(event) {
      const px = event.clientX - svg.getBoundingClientRect().left - LEFT_PX;
      moved(view.start_s + (px / frame.width) * (view.end_s - view.start_s));
    }
    svg.addEventListener("pointerdown", (event) => {
      svg.setPointerCapture(event.pointerId);
      point(event);
    });
    svg.addEventListener("pointermove", (event) => {
      if (svg.hasPointerCapture(event.pointerId)) point(event);
    });
    return { show };
  };
})(window.maven);
