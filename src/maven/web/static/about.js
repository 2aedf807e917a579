// What surrounds the numbers: how to read them and what they are not, what was missing, the keys,
// and how the answer was made.
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const KEYS = [
    ["Space, k", "play, pause"],
    ["\u2190 \u2192", "1 second back, on (with Shift: 5 seconds)"],
    [", .", "1 frame back, on"],
    ["Home, End", "start, end"],
    ["p, n", "strongest moment before, after"],
    ["+ \u2212 0", "zoom in, out, whole clip"],
    ["[ ]", "move the zoomed part back, on"],
    ["1 \u2026 9", "choose a person"],
    ["b", "face box on, off"],
    ["m", "sound on, off"],
    ["?", "this list"],
  ];

  maven.reading = function (element, view) {
    const text = maven.html(element, "p", "muted viewer-reading");
    text.append(
      "Valence runs from unpleasant (\u22121) to pleasant (+1), arousal from calm (\u22121) to excited (+1). ",
      "The point estimates what face, voice and words express at a moment",
      view.interval
        ? `; the shaded interval held ${Math.round(view.interval * 100)} % of the labels of the videos it was calibrated on. `
        : ". ",
      "It does not tell what somebody feels, and is no basis for a diagnosis or a decision about a person.",
    );
  };

  maven.notes = function (element, view) {
    if (!view.notes.length) return;
    const box = maven.html(element, "section", "viewer-notes");
    maven.html(box, "h2", "viewer-notes-title", "What was missing or damaged");
    const list = maven.html(box, "ul");
    for (const note of view.notes) maven.html(list, "li", "", note);
  };

  maven.keys = function (element) {
    const dialog = maven.html(element, "dialog", "panel keys");
    dialog.setAttribute("aria-label", "Keys");
    maven.html(dialog, "h2", "", "Keys");
    const list = maven.html(dialog, "dl");
    for (const [key, meaning] of KEYS) {
      maven.html(list, "dt", "number", key);
      maven.html(list, "dd", "", meaning);
    }
    const mouse = "In the time course: click or drag to go there; Ctrl and the wheel zoom, Shift and the wheel move.";
    maven.html(dialog, "p", "muted", mouse);
    const close = maven.html(dialog, "button", "", "Close");
    close.type = "button";
    close.addEventListener("click", () => dialog.close());
    return () => (dialog.open ? dialog.close() : dialog.showModal());
  };

  // {a: {b: 1}} as rows "a / b", "1".
  function rows(value, path = []) {
    if (value === null || typeof value !== "object") {
      return [[path.join(" / ").replaceAll("_", " "), value === null ? "\u2013" : String(value)]];
    }
    return Object.entries(value).flatMap(([key, inner]) => rows(inner, [...path, key]));
  }

  maven.provenance = function (element, view) {
    const details = maven.html(element, "details", "panel provenance");
    const { maven: version, model } = view.provenance;
    const made = [
      version ? `maven ${version}` : "maven",
      model && model.name ? `model ${model.name}` : "",
    ].filter(Boolean);
    maven.html(details, "summary", "", `How this was made: ${made.join(", ")}`);
    const list = maven.html(details, "dl", "provenance-rows");
    for (const [name, value] of rows(view.provenance)) {
      maven.html(list, "dt", "muted", name);
      maven.html(list, "dd", "number", value);
    }
    return details;
  };
})(window.maven);
