// What is being rated: valence and arousal over the media's clock, each rated together or alone.
//
//   const trace = maven.trace(kept)       kept: what `keep()` gave, or nothing
//   trace.begin(time_s, names)            rating goes on here: what is passed over is replaced
//   trace.add(time_s, {valence, arousal}) one moment; of those closer than 20 ms the first counts
//   trace.end(time_s, {valence, arousal}) the last moment, which counts however close it is
//   trace.at(name, time_s)                what was rated there, null for nothing
//   trace.spans(name)                     [[start_s, end_s], ...] that are rated
//   trace.both()                          {time_s, valence, arousal} where both are rated
//   trace.keep()                          plain lists, for storage
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const GAP_S = 0.5; // between two points further apart nothing was rated (maven.ratings)
  const LEAST_STEP_S = 0.02;
  const TICK_S = 1e-4; // times are kept to this
  const NAMES = ["valence", "arousal"];
  const rounded = (value) => Math.round(value * 1e4) / 1e4;

  // How many of the rising times lie before one.
  function before(times, time_s) {
    let [low, high] = [0, times.length];
    while (low < high) {
      const half = (low + high) >> 1;
      if (times[half] < time_s) low = half + 1;
      else high = half;
    }
    return low;
  }

  function line(kept) {
    const times = [...(kept?.time_s || [])];
    const values = [...(kept?.value || [])];
    let next = 0; // where the next point goes
    let last_s = -Infinity;

    return {
      times,
      values,
      begin(time_s) {
        next = before(times, rounded(time_s));
        last_s = -Infinity;
      },
      add(time_s, value, least_s) {
        const at_s = rounded(time_s);
        if (at_s < last_s + least_s) return false;
        let passed = 0;
        while (times[next + passed] <= at_s) passed += 1;
        times.splice(next, passed, at_s);
        values.splice(next, passed, rounded(value));
        next += 1;
        last_s = at_s;
        return true;
      },
      at(time_s) {
        const right = before(times, time_s);
        if (times[right] === time_s) return values[right];
        if (right === 0 || right === times.length) return null;
        const step_s = times[right] - times[right - 1];
        if (step_s > GAP_S) return null;
        const share = (time_s - times[right - 1]) / step_s;
        return values[right - 1] + share * (values[right] - values[right - 1]);
      },
      spans() {
        const found = [];
        times.forEach((time_s, i) => {
          if (i && time_s - times[i - 1] <= GAP_S) found[found.length - 1][1] = time_s;
          else found.push([time_s, time_s]);
        });
        return found;
      },
    };
  }

  maven.trace = function (kept = null) {
    const lines = Object.fromEntries(NAMES.map((name) => [name, line(kept?.[name])]));
    let rated = NAMES;

    function both() {
      const all = NAMES.flatMap((name) => lines[name].times);
      const times = [...new Set(all)].sort((one, other) => one - other);
      const out = { time_s: [], valence: [], arousal: [] };
      for (const time_s of times) {
        const pair = NAMES.map((name) => lines[name].at(time_s));
        if (pair.includes(null)) continue;
        out.time_s.push(time_s);
        NAMES.forEach((name, k) => out[name].push(rounded(pair[k])));
      }
      return out;
    }

    const add = (time_s, point, least_s) =>
      rated.map((name) => lines[name].add(time_s, point[name], least_s)).some(Boolean);

    return {
      both,
      begin(time_s, names) {
        rated = names;
        for (const name of rated) lines[name].begin(time_s);
      },
      add: (time_s, point) => add(time_s, point, LEAST_STEP_S),
      end: (time_s, point) => add(time_s, point, TICK_S),
      at: (name, time_s) => lines[name].at(time_s),
      spans: (name) => lines[name].spans(),
      isEmpty: () => NAMES.every((name) => !lines[name].times.length),
      keep: () =>
        Object.fromEntries(
          NAMES.map((name) => [name, { time_s: lines[name].times, value: lines[name].values }]),
        ),
    };
  };
})(window.maven);
