// The circumplex and the numbers of one moment.
//
//   const readout = maven.readout(element, view)
//   readout.person(series, name)   whose rows
//   readout.time(time_s)           which moment
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const TRAIL_S = 3;
  const PATH_POINTS = 600;
  const SHARES = { face: "visual_weight", voice: "audio_weight", words: "text_weight" };
  const TITLES = { face: "Face", voice: "Voice", words: "Words" };

  function value(list, title, name) {
    const row = maven.html(list, "div", `readout-value readout-${name}`);
    const term = maven.html(row, "dt", "", title);
    if (name === "valence" || name === "arousal") {
      const swatch = maven.svg(null, "svg", { viewBox: "0 0 26 8", class: "readout-swatch" });
      maven.svg(swatch, "path", { d: "M1 4H25", class: `course-line course-${name}` });
      term.prepend(swatch);
    }
    const number = maven.html(row, "dd");
    return {
      main: maven.html(number, "span", "number readout-number"),
      more: maven.html(number, "span", "number muted readout-more"),
    };
  }

  function share(list, name) {
    const row = maven.html(list, "div", `readout-share readout-${name}`);
    maven.html(row, "dt", "", TITLES[name]);
    const number = maven.html(row, "dd");
    const bar = maven.html(maven.html(number, "span", "bar"), "span", `bar-fill bar-${name}`);
    return { bar, text: maven.html(number, "span", "share-number") };
  }

  maven.readout = function (element, view) {
    const where = maven.html(element, "section", "panel viewer-dial");
    where.setAttribute("aria-label", "Circumplex");
    const dial = maven.dial(where, view.circle);
    const panel = maven.html(element, "section", "panel readout");
    panel.setAttribute("aria-label", "At this moment");
    const head = maven.html(panel, "div", "readout-head");
    const clock = maven.html(head, "span", "number readout-clock");
    const emotion = maven.html(head, "span", "readout-emotion");
    const list = maven.html(panel, "dl", "readout-values");
    const values = {
      valence: value(list, "Valence", "valence"),
      arousal: value(list, "Arousal", "arousal"),
      intensity: value(list, "Intensity", "intensity"),
    };
    const from = maven.html(panel, "div", "readout-from");
    maven.html(from, "h2", "readout-title", "Share in the answer");
    const weights = maven.html(from, "dl", "readout-shares");
    const shares = Object.fromEntries(
      Object.keys(SHARES).map((name) => [name, share(weights, name)]),
    );
    let series = null;
    let name = "";

    function numbers(reading) {
      for (const axis of ["valence", "arousal"]) {
        values[axis].main.textContent = maven.signed(reading ? reading[axis] : NaN);
        values[axis].more.textContent =
          reading && reading.box
            ? `${maven.signed(reading[`${axis}_low`])} to ${maven.signed(reading[`${axis}_high`])}`
            : "";
      }
      values.intensity.main.textContent = reading ? reading.intensity.toFixed(2) : "\u2013";
      for (const [kind, column] of Object.entries(SHARES)) {
        const weight = reading && Number.isFinite(reading[column]) ? reading[column] : null;
        shares[kind].bar.style.width = `${100 * (weight || 0)}%`;
        shares[kind].text.textContent = weight === null ? "\u2013" : `${Math.round(100 * weight)}\u00a0%`;
      }
    }

    function time(time_s) {
      const reading = series ? series.reading(time_s) : null;
      const point = reading && [reading.valence, reading.arousal];
      const trail = reading ? series.trail(time_s, TRAIL_S) : [];
      dial.show(trail, point, reading ? reading.box : null);
      clock.textContent = maven.clock(time_s, 2);
      const named = reading ? dial.name(...point) : "No answer";
      emotion.textContent = named;
      emotion.classList.toggle("muted", !reading);
      const said = reading
        ? `valence ${maven.signed(point[0])}, arousal ${maven.signed(point[1])}, ${named}`
        : named;
      dial.svg.setAttribute("aria-label", `Circumplex, ${name}: ${said}`);
      numbers(reading);
    }

    return {
      time,
      person(shown, named) {
        [series, name] = [shown, named];
        dial.path(shown.course(PATH_POINTS));
      },
    };
  };
})(window.maven);
