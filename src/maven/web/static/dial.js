// The circumplex as SVG: twelve named sectors, a neutral disc, a point with a fading trail.
//
//   const dial = maven.dial(element, circle, {label: "Where the answer lies"});
//   dial.path([[v, a] | null, ...])             the whole course, faint (null: a gap)
//   dial.show(trail, point, box)                trail: [[v, a] | null, ...], oldest first;
//                                               point: [v, a] | null;
//                                               box: [v_low, v_high, a_low, a_high] | null | absent
//   dial.at(event) -> [v, a]                    where a pointer event lies, kept inside the disc
//   dial.name(v, a) -> "Happy"                  the named region
//   dial.svg                                    the <svg>, for listeners and attributes
//
// `element` is a block that the dial fills (square, as wide as the block); `circle` is the view's
// {neutral, sector_rad, names}. Valence runs to the right, arousal upwards, both from -1 to 1.
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const RADIUS = 160;
  const RIM = 186; // outer edge of the ring with the names
  const NAMES = 168; // base line of the names
  const STEPS = 16; // of a trail's fading
  const SPACE = "http://www.w3.org/2000/svg";

  // An SVG element with attributes, put into its parent.
  maven.svg = function (parent, tag, attributes = {}, text = null) {
    const element = document.createElementNS(SPACE, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== null) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  // An HTML element with a class and a text, put into its parent: never through innerHTML.
  maven.html = function (parent, tag, name = "", text = null) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== null) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  let dials = 0;

  const x = (valence) => (valence * RADIUS).toFixed(1);
  const y = (arousal) => (-arousal * RADIUS).toFixed(1);
  const polar = (radius, rad) =>
    `${(radius * Math.cos(rad)).toFixed(2)} ${(-radius * Math.sin(rad)).toFixed(2)}`;

  // The path of a line through points; null breaks it.
  function line(points) {
    let path = "";
    let pen = "M";
    for (const point of points) {
      if (point) path += `${pen}${x(point[0])} ${y(point[1])}`;
      pen = point ? "L" : "M";
    }
    return path;
  }

  function sector(k, width_rad) {
    const [from, to] = [k * width_rad, (k + 1) * width_rad];
    return (
      `M${polar(RIM, from)}A${RIM} ${RIM} 0 0 0 ${polar(RIM, to)}L${polar(RADIUS, to)}` +
      `A${RADIUS} ${RADIUS} 0 0 1 ${polar(RADIUS, from)}Z`
    );
  }

  // The base line of a name: turned round below, so that no name stands on its head.
  function baseline(k, width_rad) {
    const [from, to] = [k * width_rad, (k + 1) * width_rad];
    const below = Math.sin((from + to) / 2) < 0;
    const radius = below ? NAMES + 10.5 : NAMES;
    return below
      ? `M${polar(radius, from)}A${radius} ${radius} 0 0 0 ${polar(radius, to)}`
      : `M${polar(radius, to)}A${radius} ${radius} 0 0 1 ${polar(radius, from)}`;
  }

  function face(svg, circle, prefix) {
    const { svg: add } = maven;
    add(svg, "circle", { r: RIM, class: "dial-rim" });
    const sectors = circle.names.map((_, k) =>
      add(svg, "path", { d: sector(k, circle.sector_rad), class: "dial-sector" }),
    );
    add(svg, "circle", { r: RADIUS, class: "dial-disc" });
    circle.names.forEach((_, k) => {
      const rad = k * circle.sector_rad;
      const [from, to] = [polar(circle.neutral * RADIUS, rad), polar(RIM, rad)];
      add(svg, "path", { d: `M${from}L${to}`, class: "dial-spoke" });
    });
    add(svg, "circle", { r: RADIUS / 2, class: "dial-ring" });
    add(svg, "path", { d: `M${-RADIUS} 0H${RADIUS}M0 ${-RADIUS}V${RADIUS}`, class: "dial-axis" });
    add(svg, "circle", { r: circle.neutral * RADIUS, class: "dial-neutral" });
    const definitions = add(svg, "defs");
    const names = circle.names.map((name, k) => {
      const id = `${prefix}-${k}`;
      add(definitions, "path", { id, d: baseline(k, circle.sector_rad) });
      const text = add(svg, "text", { class: "dial-name" });
      const run = { href: `#${id}`, startOffset: "50%" };
      add(text, "textPath", run, name);
      return text;
    });
    const edge = RADIUS - 6;
    add(svg, "text", { x: -edge, y: -5, class: "dial-end" }, "unpleasant");
    add(svg, "text", { x: edge, y: -5, class: "dial-end dial-right" }, "pleasant");
    add(svg, "text", { x: 6, y: -edge + 15, class: "dial-end" }, "excited");
    add(svg, "text", { x: 6, y: edge - 7, class: "dial-end" }, "calm");
    const neutral = { y: circle.neutral * RADIUS + 12, class: "dial-end dial-middle" };
    add(svg, "text", neutral, "neutral");
    return { sectors, names };
  }

  maven.dial = function (element, circle, options = {}) {
    const { svg: add } = maven;
    const label = options.label || "Circumplex of valence and arousal";
    const svg = add(element, "svg", {
      viewBox: "-190 -190 380 380",
      class: "dial",
      role: "img",
      "aria-label": label,
    });
    dials += 1;
    const { sectors, names } = face(svg, circle, `dial-${dials}`);
    const whole = add(svg, "path", { class: "dial-whole" });
    const interval = add(svg, "rect", { class: "dial-interval", rx: 10 });
    const steps = Array.from({ length: STEPS }, (_, k) =>
      add(svg, "path", {
        class: "dial-trail",
        "stroke-opacity": ((k + 1) / STEPS) ** 1.5,
        "stroke-width": 1 + (2.5 * (k + 1)) / STEPS,
      }),
    );
    const dot = add(svg, "circle", { class: "dial-point", r: 8 });
    let named = -1;

    const number = (valence, arousal) => {
      if (Math.hypot(valence, arousal) < circle.neutral) return -1;
      const turn = 2 * Math.PI;
      const rad = (Math.atan2(arousal, valence) + turn) % turn;
      return Math.floor(rad / circle.sector_rad) % circle.names.length;
    };

    function mark(k) {
      if (k === named) return;
      for (const [set, name] of [[sectors, "dial-here"], [names, "dial-here"]]) {
        if (set[named]) set[named].classList.remove(name);
        if (set[k]) set[k].classList.add(name);
      }
      named = k;
    }

    function place(box) {
      interval.toggleAttribute("hidden", !box);
      if (!box) return;
      const [v_low, v_high, a_low, a_high] = box;
      interval.setAttribute("x", x(v_low));
      interval.setAttribute("y", y(a_high));
      interval.setAttribute("width", Math.max(0, (v_high - v_low) * RADIUS).toFixed(1));
      interval.setAttribute("height", Math.max(0, (a_high - a_low) * RADIUS).toFixed(1));
    }

    function show(trail, point, box = null) {
      const each = trail.length / STEPS;
      steps.forEach((step, k) => {
        const [from, to] = [Math.floor(k * each), Math.floor((k + 1) * each)];
        step.setAttribute("d", line(trail.slice(from, to + 1)));
      });
      place(point ? box : null);
      dot.toggleAttribute("hidden", !point);
      if (point) dot.setAttribute("cx", x(point[0]));
      if (point) dot.setAttribute("cy", y(point[1]));
      mark(point ? number(point[0], point[1]) : -1);
    }

    function at(event) {
      const here = new DOMPoint(event.clientX, event.clientY);
      const point = here.matrixTransform(svg.getScreenCTM().inverse());
      const [valence, arousal] = [point.x / RADIUS, -point.y / RADIUS];
      const length = Math.max(1, Math.hypot(valence, arousal));
      return [valence / length, arousal / length];
    }

    show([], null);
    return {
      svg,
      show,
      at,
      path: (points) => whole.setAttribute("d", line(points)),
      name: (valence, arousal) => circle.names[number(valence, arousal)] || "Neutral",
    };
  };
})(window.maven);
