/* Valence and arousal of several people over one axis: seconds from the start, or share of length.

     const curves = maven.compareCurves(element, (position) => ...)   called where somebody clicks
     curves.show(columns, {axis: "time" | "share", band})   columns: {letter, look, series, start_s,
                                                            length_s}; draws anew
     curves.move(columns)        the cursors, from each column's time_s()
     curves.end                  the last position of the axis: seconds, or 1 */
"use strict";

(() => {
  const { maven } = window;
  const [LEFT_PX, RIGHT_PX, TOP_PX, HEIGHT_PX, BETWEEN_PX] = [40, 24, 22, 150, 14];
  const ROOM_PX = 14; // between the letters at the ends of lines
  const TAB_PX = 18; // from one letter over the cursors to the next
  const SLOP_PX = 8; // that a finger moves sideways before it moves the clips: it may be scrolling
  const PLOTS = ["valence", "arousal"];
  const ENDS = { valence: ["unpleasant", "pleasant"], arousal: ["calm", "excited"] };
  const bottom = TOP_PX + 2 * HEIGHT_PX + BETWEEN_PX;

  const top = (k) => TOP_PX + k * (HEIGHT_PX + BETWEEN_PX);
  const height = (k) => (value) => top(k) + ((1 - value) / 2) * HEIGHT_PX;

  // The area between two columns of numbers; it breaks where rows are missing or far apart.
  function band(frame, { time_s, gap_s }, low, high, y) {
    const corner = (i, values) => `${frame.x(time_s[i]).toFixed(1)} ${y(values[i]).toFixed(1)}`;
    const there = (i) => Number.isFinite(low[i]) && Number.isFinite(high[i]);
    let path = "";
    let from = 0;
    for (let i = 0; i < time_s.length; i++) {
      if (!there(i)) from = i + 1;
      const next = i + 1 < time_s.length && there(i + 1) && time_s[i + 1] - time_s[i] <= gap_s;
      if (from > i || next) continue;
      const rows = Array.from({ length: i - from + 1 }, (_, k) => from + k);
      const over = rows.map((k) => corner(k, high)).join("L");
      const under = rows.reverse().map((k) => corner(k, low)).join("L");
      path += `M${over}L${under}Z`;
      from = i + 1;
    }
    return path;
  }

  maven.compareCurves = function (element, asked) {
    const svg = maven.svg(element, "svg", { class: "curves", "aria-hidden": "true" });
    const drawn = maven.svg(svg, "g");
    const cursors = maven.svg(svg, "g");
    let shown = [];
    let options = { axis: "time", band: false };
    let width = 0;
    const curves = { show, move, end: 1 };

    const add = (tag, attributes, text) => maven.svg(drawn, tag, attributes, text);
    const position = (column, time_s) =>
      (time_s - column.start_s) / (options.axis === "share" ? column.length_s : 1);
    const x = (at) => LEFT_PX + (at / curves.end) * width;

    function grid(name, k) {
      const y = height(k);
      const right = LEFT_PX + width;
      add("rect", { x: LEFT_PX, y: top(k), width, height: HEIGHT_PX, class: "curves-field" });
      add("path", { d: `M${LEFT_PX} ${y(0.5)}H${right}M${LEFT_PX} ${y(-0.5)}H${right}`, class: "curves-half" });
      add("path", { d: `M${LEFT_PX} ${y(0)}H${right}`, class: "curves-zero" });
      for (const [value, text, shift] of [[1, "+1", 10], [0, "0", 4], [-1, "\u22121", 0]]) {
        const at = { x: LEFT_PX - 6, y: y(value) + shift, class: "curves-tick curves-end" };
        add("text", at, text);
      }
      const title = `${name[0].toUpperCase()}${name.slice(1)}`;
      add("text", { x: LEFT_PX + 6, y: top(k) + 14, class: "curves-name" }, `${title}: ${ENDS[name][1]}`);
      add("text", { x: LEFT_PX + 6, y: top(k) + HEIGHT_PX - 6, class: "curves-name" }, ENDS[name][0]);
    }

    function axis() {
      if (options.axis === "time") {
        const frame = { x, from_s: 0, to_s: curves.end, left: LEFT_PX, width };
        maven.lanes.axis(frame, add, TOP_PX, bottom);
        return;
      }
      for (const share of [0, 0.25, 0.5, 0.75, 1]) {
        add("path", { d: `M${x(share)} ${TOP_PX}V${bottom + 4}`, class: "course-grid" });
        const end = share === 1 ? " course-before" : "";
        const at = { x: x(share), y: bottom + 17, class: `course-tick${end}` };
        add("text", at, `${Math.round(100 * share)} %`);
      }
    }

    function lines(name, k) {
      const y = height(k);
      const letters = [];
      for (const column of shown) {
        const { series, look, start_s, length_s } = column;
        const frame = { x: (time_s) => x(position(column, time_s)) };
        const share = options.axis === "share" ? 1 : length_s / curves.end;
        const columns = Math.max(50, Math.round(width * share));
        const cut = series.sample(start_s, start_s + length_s, columns);
        const { time_s, gap_s } = cut;
        if (options.band) {
          const d = band(frame, cut, cut[`${name}_low`], cut[`${name}_high`], y);
          add("path", { d, class: `curves-band ${look}` });
        }
        const d = maven.lanes.line(frame, time_s, gap_s, cut[name], y);
        add("path", { d, class: `curves-line ${look}` });
        const last = cut[name].findLastIndex(Number.isFinite);
        if (last >= 0) letters.push([column.letter, frame.x(time_s[last]), y(cut[name][last])]);
      }
      ends(letters);
    }

    // A letter where each line ends, moved apart where they would cover each other.
    function ends(letters) {
      letters.sort((a, b) => a[2] - b[2]);
      const placed = [];
      for (const [letter, at_px, y_px] of letters) {
        const near = placed.filter(([other_px]) => Math.abs(other_px - at_px) < ROOM_PX);
        const lowest = near.length ? near[near.length - 1][1] + ROOM_PX : -Infinity;
        const down = Math.max(y_px + 4, lowest);
        placed.push([at_px, down]);
        add("text", { x: at_px + 5, y: down, class: "curves-letter" }, letter);
      }
    }

    function draw() {
      width = Math.max(100, element.clientWidth - LEFT_PX - RIGHT_PX);
      svg.setAttribute("width", width + LEFT_PX + RIGHT_PX);
      svg.setAttribute("height", bottom + 24);
      curves.end =
        options.axis === "share" ? 1 : Math.max(...shown.map((column) => column.length_s), 0.1);
      drawn.replaceChildren();
      PLOTS.forEach(grid);
      axis();
      PLOTS.forEach(lines);
      move(shown);
    }

    function show(columns, how) {
      shown = columns;
      options = how;
      cursors.replaceChildren();
      for (const column of shown) {
        const group = maven.svg(cursors, "g", { class: `curves-cursor ${column.look}` });
        maven.svg(group, "path", { d: `M0 ${TOP_PX}V${bottom}` });
        const tab = maven.svg(group, "g", { class: "curves-tab" });
        maven.svg(tab, "rect", { x: -8, y: TOP_PX - 18, width: 16, height: 17, rx: 4 });
        maven.svg(tab, "text", { y: TOP_PX - 5 }, column.letter);
        for (const name of PLOTS) maven.svg(group, "circle", { r: 4.5, class: name });
      }
      draw();
    }

    // Cursors that stand on each other keep their letters side by side.
    function tabs(places) {
      let free = -Infinity;
      for (const [at_px, group] of places.sort((a, b) => a[0] - b[0])) {
        const shift = Math.max(0, free - at_px);
        const tab = group.querySelector(".curves-tab");
        tab.setAttribute("transform", `translate(${shift.toFixed(1)} 0)`);
        free = at_px + shift + TAB_PX;
      }
    }

    function move(columns) {
      const places = [];
      columns.forEach((column, i) => {
        const group = cursors.children[i];
        const time_s = column.time_s();
        const at = column.series.reading(time_s);
        const at_px = x(Math.min(curves.end, Math.max(0, position(column, time_s))));
        places.push([at_px, group]);
        group.setAttribute("transform", `translate(${at_px.toFixed(1)} 0)`);
        PLOTS.forEach((name, k) => {
          const dot = group.querySelector(`.${name}`);
          dot.toggleAttribute("hidden", !at);
          if (at) dot.setAttribute("cy", height(k)(at[name]).toFixed(1));
        });
      });
      tabs(places);
    }

    let held = false;
    let moves = false; // whether it moves the clips: a finger only once it goes sideways
    let down_px = 0;
    const point = (event) => {
      const at_px = event.clientX - svg.getBoundingClientRect().left;
      asked(Math.min(1, Math.max(0, (at_px - LEFT_PX) / width)) * curves.end);
    };
    svg.addEventListener("pointerdown", (event) => {
      held = true;
      moves = event.pointerType !== "touch";
      down_px = event.clientX;
      svg.setPointerCapture(event.pointerId);
      if (moves) point(event);
    });
    svg.addEventListener("pointermove", (event) => {
      moves ||= Math.abs(event.clientX - down_px) > SLOP_PX;
      if (held && moves) point(event);
    });
    svg.addEventListener("pointerup", (event) => held && !moves && point(event));
    svg.addEventListener("lostpointercapture", () => (held = false));
    new ResizeObserver(() => shown.length && draw()).observe(element);
    return curves;
  };
})();
