// What was rated over what was predicted, and the frame around the face that is rated.
//
//   maven.ratedCurves(element, person, traces, span_s)
//     person: of the view; traces: [{label, kind: "chosen" | "other", time_s, valence, arousal}]
//   maven.frameFace(element, view, k, time_s)
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const GAP_S = 0.5;
  const HEIGHT = 110; // of one graph
  const LEFT = 34;
  const RIGHT = 16;
  const FOOT = 22;

  function path(times, values, x, y, width) {
    let d = "";
    let pen = false;
    const every = Math.max(1, Math.floor(times.length / (3 * width)));
    let last_s = -Infinity;
    for (let i = 0; i < times.length; i += every) {
      const value = values[i];
      if (value === null || value === undefined) {
        pen = false;
        continue;
      }
      if (times[i] - last_s > Math.max(GAP_S, 3 * every * 0.04)) pen = false;
      d += `${pen ? "L" : "M"}${x(times[i]).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = true;
      last_s = times[i];
    }
    return d;
  }

  function ticks(length_s) {
    const steps = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600];
    return steps.find((step_s) => length_s / step_s <= 9) || 7200;
  }

  function graph(element, name, person, traces, [from_s, to_s], width, foot) {
    const { svg: add } = maven;
    const height = HEIGHT + (foot ? FOOT : 6);
    const svg = add(element, "svg", {
      viewBox: `0 0 ${width} ${height}`,
      class: "curves",
      role: "img",
      "aria-label": `Rated and predicted ${name} over time`,
    });
    const x = (time_s) => LEFT + ((time_s - from_s) / (to_s - from_s || 1)) * (width - LEFT - RIGHT);
    const y = (value) => 6 + ((1 - value) / 2) * (HEIGHT - 12);
    for (const [value, text] of [[1, "+1"], [0, "0"], [-1, "−1"]]) {
      add(svg, "path", { d: `M${LEFT} ${y(value)}H${width - RIGHT}`, class: "curves-grid" });
      add(svg, "text", { x: LEFT - 6, y: y(value) + 4, class: "curves-value" }, text);
    }
    if (foot) {
      const step_s = ticks(to_s - from_s);
      for (let t = Math.ceil(from_s / step_s) * step_s; t <= to_s; t += step_s) {
        const text = `${Number(t.toFixed(1))} s`;
        add(svg, "text", { x: x(t), y: height - 4, class: "curves-time" }, text);
        add(svg, "path", { d: `M${x(t)} ${HEIGHT - 4}v6`, class: "curves-grid" });
      }
    }
    const draw = (times, values, kind) =>
      add(svg, "path", { d: path(times, values, x, y, width), class: `curves-${kind}` });
    draw(person.time_s, person[name], "predicted");
    for (const trace of traces) draw(trace.time_s, trace[name], `${trace.kind} curves-${name}`);
  }

  maven.ratedCurves = function (element, person, traces, span_s) {
    const width = Math.max(element.clientWidth, 240);
    element.replaceChildren();
    const make = maven.page.make;
    const firsts_s = traces.map(({ time_s }) => time_s[0]);
    const lasts_s = traces.map(({ time_s }) => time_s[time_s.length - 1]);
    const span = [Math.min(span_s[0], ...firsts_s), Math.max(span_s[1], ...lasts_s)];
    const legend = make("p", { class: "curves-legend" });
    const key = (kind, text) => {
      const item = make("span", {});
      const sample = maven.svg(item, "svg", { viewBox: "0 0 30 10", class: "curves-key" });
      sample.setAttribute("aria-hidden", "true");
      maven.svg(sample, "path", { d: "M0 5H30", class: `curves-${kind}` });
      item.append(text);
      legend.append(item);
    };
    key("predicted", "predicted");
    const chosen = traces.find(({ kind }) => kind === "chosen");
    if (chosen) key("chosen curves-valence", `valence by ${chosen.label}`);
    if (chosen) key("chosen curves-arousal", `arousal by ${chosen.label}`);
    if (traces.some(({ kind }) => kind === "other")) key("other", "other raters");
    element.append(legend);
    for (const name of ["valence", "arousal"]) {
      element.append(make("h4", {}, name[0].toUpperCase() + name.slice(1)));
      const ordered = [...traces].sort((one, two) => (one.kind === "chosen") - (two.kind === "chosen"));
      graph(element, name, person, ordered, span, width, name === "arousal");
    }
  };

  // Where several people are in the picture, a frame shows whom to rate.
  maven.frameFace = function (element, view, k, time_s) {
    const person = view.people[k];
    if (!view.video || view.people.length < 2) return;
    let frame = element.querySelector(".whom");
    if (!frame) {
      frame = maven.page.make("div", { class: "whom", "aria-hidden": "true" });
      element.append(frame);
    }
    let [low, high] = [0, person.time_s.length];
    while (low < high) {
      const half = (low + high) >> 1;
      if (person.time_s[half] <= time_s + 1e-3) low = half + 1;
      else high = half;
    }
    const box = person.box_px[low - 1];
    frame.hidden = !box;
    if (!box) return;
    const { width_px, height_px } = view.video;
    const percent = (part, whole) => `${((100 * part) / whole).toFixed(2)}%`;
    frame.style.left = percent(box[0], width_px);
    frame.style.top = percent(box[1], height_px);
    frame.style.width = percent(box[2], width_px);
    frame.style.height = percent(box[3], height_px);
  };
})(window.maven);
