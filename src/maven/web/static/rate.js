/* The page on which a person rates a clip: the clip plays, the point is followed, the rating is
   kept here until it is saved. What was predicted is not shown before that. */
"use strict";

(() => {
  const { maven } = window;
  const { page } = maven;
  const { make, put } = page;
  const at = (id) => document.getElementById(id);
  const id = location.pathname.split("/")[2];
  const path = `/api/clips/${id}`;

  const COUNT = 3; // seconds before the clip runs
  const BACK_S = 5;
  const TRAIL_S = 1.5;
  const KEEP_MS = 5000; // how often the rating is kept while it is made
  const LOOK_MS = 4000; // how often, while there is no result
  const NAMES = ["valence", "arousal"];

  let view, media, dial, input, results;
  let state = "ready"; // "counting", "rating", "paused"
  let trace = maven.trace();
  let unsaved = false;
  let trail = []; // [time_s, valence, arousal]
  let lifted = true; // nothing was rated at the moment before
  let kept_ms = 0;
  let drawn = "";
  let counting = 0; // timer
  let clear = true; // whether the browser keeps what is not saved yet

  const person = () => Number(at("person").value);
  const names = () => at("mode").value.split(" ");
  const start_s = () => view.media.offset_s;
  const end_s = () => start_s() + (Number.isFinite(media.duration) ? media.duration : 0);
  const now_s = () => media.currentTime + start_s();
  const clock = (time_s) => page.length(Math.max(0, Math.round(time_s * 10) / 10));

  // -- what is not saved yet ---------------------------------------------------------------------

  const shelf = () => `maven.rating.${id}.${person()}`;

  function keep() {
    kept_ms = performance.now();
    try {
      if (unsaved) {
        const draft = { rater: at("rater").value, mode: at("mode").value, trace: trace.keep() };
        localStorage.setItem(shelf(), JSON.stringify(draft));
      } else localStorage.removeItem(shelf());
      clear = true;
    } catch {
      clear = false; // no room, or storage is switched off
    }
  }

  /** Of a clip that is no more, nothing is kept. */
  function forget() {
    try {
      const kept = Object.keys(localStorage).filter((key) => key.startsWith(`maven.rating.${id}.`));
      for (const key of kept) localStorage.removeItem(key);
    } catch {
      // storage is switched off
    }
  }

  function fetchKept() {
    let draft = null;
    try {
      draft = JSON.parse(localStorage.getItem(shelf()));
    } catch {
      // nothing that can be read
    }
    trace = maven.trace(draft?.trace);
    unsaved = Boolean(draft);
    if (!draft) return tell("");
    at("rater").value = draft.rater || at("rater").value;
    at("mode").value = draft.mode;
    tell("Your rating that was not saved is here again. Go on, save it, or start over.");
  }

  // -- the course of rating ----------------------------------------------------------------------

  function tell(text, isError = false) {
    put(at("status"), text);
    at("status").classList.toggle("error", isError);
  }

  function show(next) {
    state = next;
    const busy = state === "rating" || state === "counting";
    const labels = { ready: "Start", counting: "Cancel", rating: "Pause", paused: "Go on" };
    put(at("play"), labels[state]);
    at("work").dataset.state = state;
    for (const name of ["rater", "person", "mode", "hold"]) at(name).disabled = busy;
    at("save").disabled = busy || !unsaved;
    at("over").disabled = busy || trace.isEmpty();
    if (busy) results.hide();
    drawRated();
  }

  /** Whether there is a name; asks for one where there is none. */
  function named() {
    at("rater").value = at("rater").value.trim();
    return at("rater").reportValidity();
  }

  function begin() {
    if (!named()) return;
    if (media.ended) return tell("This is the end of the clip. Go back to rate a part again.");
    tell("");
    const { top, bottom } = at("stage").getBoundingClientRect();
    if (top < 0 || bottom > innerHeight) at("stage").scrollIntoView({ block: "start" });
    at("surface").focus({ preventScroll: true });
    show("counting");
    countDown(COUNT);
  }

  function countDown(left) {
    put(at("count"), left ? String(left) : "");
    if (left) counting = setTimeout(countDown, 1000, left - 1);
    else run();
  }

  async function run() {
    lifted = true;
    trail = [];
    show("rating");
    sample();
    try {
      await media.play();
    } catch (error) {
      if (state === "rating") stop(`The browser does not play this clip: ${error.message}`, true);
    }
  }

  function stop(text = "", isError = false) {
    clearTimeout(counting);
    put(at("count"), "");
    media.pause();
    if (state === "rating") sample(true);
    keep();
    show(trace.isEmpty() ? "ready" : "paused");
    if (!clear) tell("This browser keeps nothing: save before you leave the page.", true);
    else tell(text || left(), isError);
  }

  function left() {
    if (trace.isEmpty()) return "";
    const missing = NAMES.find((name) => !trace.spans(name).length);
    if (missing) return `Now rate ${missing}: choose it above and go to the start.`;
    return media.ended ? "That was the end. Save, or go back and rate a part again." : "";
  }

  const toggle = () => (state === "rating" || state === "counting" ? stop() : begin());

  function sample(isLast = false) {
    if (at("hold").checked && !input.isHeld()) {
      lifted = true;
      return;
    }
    const time_s = now_s();
    if (lifted) trace.begin(time_s, names());
    lifted = false;
    if (!(isLast ? trace.end : trace.add)(time_s, input.point)) return;
    unsaved = true;
    trail.push([time_s, input.point.valence, input.point.arousal]);
    while (trail[0][0] < time_s - TRAIL_S) trail.shift();
  }

  function seek(time_s) {
    if (state === "rating" || state === "counting") stop();
    media.currentTime = Math.min(Math.max(time_s, start_s()), end_s()) - start_s();
    trail = [];
    const rated = NAMES.map((name) => trace.at(name, time_s));
    if (!rated.includes(null)) input.put({ valence: rated[0], arousal: rated[1] });
  }

  function turn(now_ms) {
    requestAnimationFrame(turn);
    input.tick(now_ms);
    if (state === "rating") {
      sample();
      if (now_ms - kept_ms > KEEP_MS) keep();
    }
    draw();
  }

  // -- what is seen ------------------------------------------------------------------------------

  function draw() {
    const { valence, arousal } = input.point;
    const time_s = now_s();
    const now = `${valence} ${arousal} ${time_s.toFixed(2)} ${trail.length}`;
    if (now === drawn) return;
    drawn = now;
    dial.show(trail.map(([, v, a]) => [v, a]), [valence, arousal]);
    const reading = `valence ${maven.signed(valence)}, arousal ${maven.signed(arousal)}`;
    put(at("reading"), `${reading} · ${dial.name(valence, arousal)}`);
    put(at("clock"), `${clock(time_s)} of ${clock(end_s())}`);
    at("seek").value = time_s;
    at("seek").setAttribute("aria-valuetext", clock(time_s));
    const said = view.words.filter((word) => Math.abs(word.start_s - time_s) < 2.5);
    put(at("words"), said.map((word) => word.text).join(" "));
    maven.frameFace(at("screen"), view, person(), time_s);
  }

  function drawRated() {
    const [from, length] = [start_s(), Math.max(end_s() - start_s(), 1e-3)];
    at("rated").setAttribute("viewBox", "0 0 1000 12");
    at("rated").replaceChildren();
    at("rated-key").hidden = names().length > 1;
    NAMES.forEach((name, k) => {
      for (const [first, last] of trace.spans(name)) {
        const x = (1000 * (first - from)) / length;
        const width = Math.max((1000 * (last - first)) / length, 1);
        maven.svg(at("rated"), "rect", { x, width, y: 7 * k, height: 5, class: `rated-${name}` });
      }
    });
  }

  // -- saving ------------------------------------------------------------------------------------

  async function save() {
    if (!named()) return;
    const rating = trace.both();
    if (rating.time_s.length < 2) {
      tell(left() || "There is nothing to save yet: valence and arousal must both be rated.", true);
      return;
    }
    at("save").disabled = true;
    try {
      const saved = await page.ask(`${path}/ratings`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ rater: at("rater").value, person: person(), ...rating }),
      });
      unsaved = false;
      keep();
      tell(`Saved: ${clock(saved.rated_s)} by ${saved.rater}.`);
      await results.show(saved.id);
    } catch (error) {
      if (!(error instanceof page.Refused)) throw error;
      tell(`Not saved: ${error.message}`, true);
    }
    at("save").disabled = !unsaved;
  }

  async function startOver() {
    const text = "What you have rated and not saved is lost.";
    if (unsaved && !(await page.sure("Start over?", text, "Start over"))) return;
    trace = maven.trace();
    unsaved = false;
    keep();
    show("ready");
    seek(start_s());
    tell("");
  }

  // -- beginning ---------------------------------------------------------------------------------

  function onKey(event) {
    if (!event.key) return; // a browser that fills in a field
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog")) return;
    const { target } = event;
    const writes = target.closest("select, input:not([type=checkbox]), [role=slider], .wide");
    const presses = target.closest("button, a, summary, input, select");
    if (event.key === " " && !presses) {
      if (!event.repeat) toggle();
    } else if (writes) return;
    else if (event.key.toLowerCase() === "b") seek(now_s() - BACK_S);
    else if (!input.key(event, true)) return;
    event.preventDefault();
  }

  function listen() {
    document.addEventListener("keydown", onKey);
    document.addEventListener("keyup", (event) => event.key && input.key(event, false));
    document.addEventListener("visibilitychange", () => document.hidden && pauseIfBusy());
    window.addEventListener("pagehide", pauseIfBusy);
    window.addEventListener("beforeunload", (event) => {
      pauseIfBusy();
      if (unsaved && !clear) event.preventDefault();
    });
    at("play").addEventListener("click", toggle);
    at("back").addEventListener("click", () => seek(now_s() - BACK_S));
    at("first").addEventListener("click", () => seek(start_s()));
    at("seek").addEventListener("input", () => seek(Number(at("seek").value)));
    at("save").addEventListener("click", save);
    at("over").addEventListener("click", startOver);
    at("mode").addEventListener("change", () => {
      input.allow(names());
      if (unsaved) keep();
      drawRated();
    });
    at("person").addEventListener("change", choose);
    at("rater").addEventListener("change", () => {
      if (unsaved) keep();
      else fetchKept();
      show(trace.isEmpty() ? "ready" : "paused");
    });
    media.addEventListener("ended", () => state === "rating" && stop());
    media.addEventListener("loadedmetadata", size);
  }

  const removed = () => unsaved || tell(""); // "Saved" may not be true any more
  const pauseIfBusy = () => (state === "rating" || state === "counting") && stop();

  function choose() {
    fetchKept();
    input.allow(names());
    drawn = "";
    results.person(person());
    show(trace.isEmpty() ? "ready" : "paused");
  }

  function size() {
    at("seek").min = start_s();
    at("seek").max = end_s();
    drawn = "";
    drawRated();
  }

  function screen() {
    const seen = view.video;
    media = make(seen ? "video" : "audio", { preload: "auto", playsinline: true });
    if (view.media.poster && seen) media.poster = view.media.poster;
    media.src = view.media.src;
    at("screen").append(media);
    if (seen) {
      const shape = seen.width_px / seen.height_px;
      at("screen").style.aspectRatio = String(shape);
      at("screen").style.width = `min(100%, calc(var(--screen-height) * ${shape}))`;
    }
    if (!seen) at("screen").append(make("p", { class: "muted" }, "This clip has sound only."));
  }

  function open(clip) {
    put(at("name"), `Rate ${clip.name}`);
    document.title = `Rate ${clip.name} · maven`;
    at("person").append(...view.people.map(({ name }, k) => make("option", { value: k }, name)));
    at("person").hidden = at("person-label").hidden = view.people.length < 2;
    at("work").hidden = false;
    screen();
    dial = maven.dial(at("surface"), view.circle, { label: "Circumplex" });
    input = maven.rater(at("surface"), dial, { toggle });
    results = maven.ratings(at("results"), { path, view, at, clock, removed });
    listen();
    choose();
    size();
    requestAnimationFrame(turn);
  }

  at("result").href = `/clips/${id}`;
  page.poll(async () => {
    try {
      const clip = await page.ask(path);
      if (clip.state !== "done") throw new page.Refused(409, "This clip has no result yet.");
      view = await page.ask(`${path}/view`);
      if (!view.media.src) throw new page.Refused(415, "A browser cannot play this clip.");
      put(at("trouble"), "");
      open(clip);
    } catch (error) {
      if (![404, 409, 415].includes(error.status)) throw error;
      put(at("trouble"), error.status === 404 ? "There is no such clip." : error.message);
      if (error.status === 404) forget();
      if (error.status === 409) return LOOK_MS;
    }
    return null;
  });
})();
