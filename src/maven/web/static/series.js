// The rows of one person as columns of numbers: what holds at a time, and what a graph of so many
// pixels shows of them. NaN stands for "nothing observed".
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const VALUES = ["valence", "arousal"];
  const ENDS = ["valence_low", "valence_high", "arousal_low", "arousal_high"];
  const WEIGHTS = ["visual_weight", "audio_weight", "text_weight"];
  const ROUNDED_S = 5e-4; // times come rounded

  // "+0.31", with a true minus; "–" for nothing.
  maven.signed = (value) =>
    Number.isFinite(value)
      ? `${value < -0.004999 ? "\u2212" : "+"}${Math.abs(value).toFixed(2)}`
      : "\u2013";

  // "1:02.35", "2:00:00" with no digits after the point.
  maven.clock = function (time_s, digits = 2) {
    const scale = 10 ** digits;
    const ticks = Math.round(Math.abs(time_s) * scale);
    const seconds = (ticks % (60 * scale)) / scale;
    const minutes = Math.floor(ticks / (60 * scale));
    const padded = seconds.toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
    const head = minutes < 60 ? `${minutes}` : hours(minutes);
    return `${time_s < 0 && ticks ? "\u2212" : ""}${head}:${padded}`;
  };
  const hours = (minutes) => `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}`;

  function middle(values) {
    const sorted = Float64Array.from(values).sort();
    return sorted.length ? sorted[sorted.length >> 1] : NaN;
  }

  maven.series = function (person) {
    const column = {};
    for (const name of [...VALUES, ...ENDS, ...WEIGHTS]) {
      column[name] = Float64Array.from(person[name] || [], (value) => value ?? NaN);
    }
    const time_s = Float64Array.from(person.time_s);
    const rows = time_s.length;
    const step_s = middle(time_s.subarray(1).map((t, i) => t - time_s[i])) || 0.04;

    // How many rows begin at or before a time.
    function before(t_s) {
      let [low, high] = [0, rows];
      while (low < high) {
        const half = (low + high) >> 1;
        if (time_s[half] <= t_s + ROUNDED_S) low = half + 1;
        else high = half;
      }
      return low;
    }

    const end_s = (i) =>
      i + 1 < rows ? Math.min(time_s[i + 1], time_s[i] + 3 * step_s) : time_s[i] + step_s;

    // The row that holds at a time, -1 for none.
    function index(t_s) {
      const i = before(t_s) - 1;
      return i >= 0 && t_s <= end_s(i) + step_s ? i : -1;
    }

    function reading(t_s) {
      const i = index(t_s);
      if (i < 0 || !Number.isFinite(column.valence[i])) return null;
      const at = { i };
      for (const name of Object.keys(column)) at[name] = column[name][i];
      at.intensity = Math.hypot(at.valence, at.arousal);
      at.box = ENDS.every((name) => Number.isFinite(at[name])) ? ENDS.map((name) => at[name]) : null;
      return at;
    }

    const point = (i) =>
      Number.isFinite(column.valence[i]) ? [column.valence[i], column.arousal[i]] : null;

    // The points of the last seconds before a time, oldest first.
    function trail(t_s, length_s) {
      const points = [];
      for (let i = Math.max(0, before(t_s - length_s) - 1); i <= index(t_s); i++) {
        points.push(point(i));
      }
      return points;
    }

    // The whole course, as means where it has more than so many points.
    function course(most) {
      const stride = Math.max(1, Math.ceil(rows / most));
      return Array.from({ length: Math.ceil(rows / stride) }, (_, k) => {
        const last = Math.min(rows, (k + 1) * stride);
        let [valence, arousal] = [0, 0];
        for (let i = k * stride; i < last; i++) {
          valence += column.valence[i] / (last - k * stride);
          arousal += column.arousal[i] / (last - k * stride);
        }
        return Number.isFinite(valence + arousal) ? [valence, arousal] : null;
      });
    }

    // Spans of time [from_s, to_s] in which a test of the row's number holds.
    function spans(test) {
      const found = [];
      for (let i = 0; i < rows; i++) {
        if (!test(i)) continue;
        const last = found[found.length - 1];
        if (last && time_s[i] - last[1] < step_s / 2) last[1] = end_s(i);
        else found.push([time_s[i], end_s(i)]);
      }
      return found;
    }

    // What a graph of so many columns of pixels shows between two times: rows as they are, or,
    // where there are more than two a column, their means, with the least and greatest value.
    function sample(from_s, to_s, columns) {
      const first = Math.max(0, before(from_s) - 2);
      const last = Math.min(rows, before(to_s) + 2);
      if (last - first <= 2 * columns) {
        const cut = { time_s: time_s.subarray(first, last), gap_s: 3 * step_s };
        for (const name of Object.keys(column)) cut[name] = column[name].subarray(first, last);
        return cut;
      }
      return thinned(first, last, (to_s - from_s) / columns);
    }

    function thinned(first, last, width_s) {
      const bins = Math.ceil((time_s[last - 1] - time_s[first]) / width_s) + 1;
      const bin = (i) => Math.floor((time_s[i] - time_s[first]) / width_s);
      const made = { gap_s: 2.5 * width_s };
      made.time_s = Float64Array.from({ length: bins }, (_, k) => time_s[first] + (k + 0.5) * width_s);
      for (const [name, values] of Object.entries(column)) {
        const [sum, count] = [new Float64Array(bins), new Float64Array(bins)];
        const least = new Float64Array(bins).fill(NaN);
        const greatest = new Float64Array(bins).fill(NaN);
        for (let i = first; i < last; i++) {
          const [k, value] = [bin(i), values[i]];
          if (!Number.isFinite(value)) continue;
          sum[k] += value;
          count[k] += 1;
          if (!(least[k] <= value)) least[k] = value;
          if (!(greatest[k] >= value)) greatest[k] = value;
        }
        made[name] = sum.map((total, k) => (count[k] ? total / count[k] : NaN));
        if (VALUES.includes(name)) made[`${name}_range`] = [least, greatest];
      }
      return made;
    }

    const flags = (name) => person[name] || "";
    return {
      step_s,
      rows,
      reading,
      trail,
      course,
      sample,
      box_px: (t_s) => (person.box_px || [])[index(t_s)] || null,
      unanswered: spans((i) => !Number.isFinite(column.valence[i])),
      unseen: spans((i) => flags("has_face")[i] === "0"),
      unheard: spans((i) => flags("has_speech")[i] === "0"),
      unsaid: spans((i) => flags("has_text")[i] === "0"),
    };
  };
})(window.maven);
