// The live page: camera and microphone to /api/live, its answers to the circumplex and the curves.
"use strict";

(() => {
  const { page, dial, senses, running, recording, saveTrace, signed } = window.maven;
  const find = (id) => document.getElementById(id);

  const TRAIL_S = 4;
  const DELAYS = 20; // answers over which the delay is a median
  const LATE_MS = 600;
  const SLOW = `Answers come late, and some without a face: ${page.COMPUTER} is too busy to keep up.`;
  const KEPT = 200_000; // answers, five hours
  const ROOM_BYTES = 200_000; // that may wait in the socket
  const SOURCES = [
    ["visual_weight", "has_face", "Face", "face", "no face"],
    ["audio_weight", "has_speech", "Voice", "voice", "no voice"],
    ["text_weight", "has_text", "Words", "words", "no words"],
  ];
  const BUSY = 1013;

  const course = running(find("course"));
  const keep = recording(find("main"));
  let circumplex = null;
  let session = null; // {socket, senses}
  let answers = [];
  let delays = [];

  const sources = SOURCES.map(([weight, has, name, key, none]) => {
    const fill = page.make("span", { class: "fill", "data-source": key });
    const text = page.make("span", { class: "number" }, none);
    const bar = page.make("span", { class: "track", "aria-hidden": "true" }, fill);
    const row = page.make("li", {}, page.make("span", {}, name), bar, text);
    find("sources").append(row);
    return { weight, has, none, fill, text, row };
  });

  function state(name, text) {
    find("main").dataset.state = name;
    page.put(find("state"), text);
    const off = name === "idle";
    page.put(find("start"), off ? "Start" : "Stop");
    find("start").classList.toggle("primary", off);
    page.say(text);
  }

  /** What went wrong, and that Start tries again. */
  function problem(text) {
    page.put(find("problem"), text);
    if (text) page.put(find("start"), "Try again");
  }

  function lacking(kind, text) {
    const id = `lacking-${kind}`;
    const line = find(id) || page.make("li", { id });
    page.put(line, text);
    if (text) find("lacking").append(line);
    else line.remove();
  }

  // -- one answer ---------------------------------------------------------------------------------

  const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
  const pair = (answer) => (answer.valence === null ? null : [answer.valence, answer.arousal]);

  function interval({ valence_low, valence_high, arousal_low, arousal_high }) {
    const ends = [valence_low, valence_high, arousal_low, arousal_high];
    return ends.includes(null) ? null : ends;
  }

  function showBox(answer) {
    const box = find("box");
    const seen = answer !== null && answer.box_px !== null && answer.size_px[0] > 0;
    box.hidden = !seen;
    if (!seen) return;
    const [x, y, width, height] = answer.box_px;
    const [across, down] = answer.size_px;
    box.style.left = `${100 * (1 - (x + width) / across)}%`; // mirrored, as the picture is
    box.style.top = `${(100 * y) / down}%`;
    box.style.width = `${(100 * width) / across}%`;
    box.style.height = `${(100 * height) / down}%`;
  }

  function showSources(answer) {
    for (const { weight, has, none, fill, text, row } of sources) {
      const there = answer !== null && answer[has] && answer[weight] !== null;
      row.classList.toggle("missing", !there);
      fill.style.width = there ? `${100 * answer[weight]}%` : "0";
      const share = there && `${Math.round(100 * answer[weight])} %`;
      page.put(text, answer === null ? "–" : share || none);
    }
  }

  function showNow(answer) {
    const known = answer !== null && answer.valence !== null;
    page.put(find("emotion"), known ? answer.emotion : "–");
    page.put(find("valence"), known ? signed(answer.valence) : "–");
    page.put(find("arousal"), known ? signed(answer.arousal) : "–");
    find("main").classList.toggle("unknown", !known);
    if (!circumplex) return;
    const recent = known ? answers.filter((each) => each.time_s > answer.time_s - TRAIL_S) : [];
    circumplex.show(recent.map(pair), known ? pair(answer) : null, known ? interval(answer) : null);
  }

  /** How old the answer is by the time it is on the screen. */
  function measure(answer) {
    requestAnimationFrame(() => {
      if (!session) return;
      delays = [...delays, performance.now() - 1000 * answer.time_s].slice(-DELAYS);
      const delay_ms = Math.round(median(delays));
      page.put(find("delay"), `${delay_ms} ms`);
      lacking("time", delays.length === DELAYS && delay_ms > LATE_MS ? SLOW : null);
    });
  }

  function show(answer) {
    answers.push(answer);
    if (answers.length > KEPT) answers = answers.slice(-KEPT / 2);
    find("trace").disabled = false;
    showNow(answer);
    showBox(answer);
    showSources(answer);
    course.show(answers);
    measure(answer);
  }

  function clear() {
    [answers, delays] = [[], []];
    find("trace").disabled = true;
    course.clear();
    rest();
  }

  /** Nothing is seen or heard. */
  function rest() {
    showNow(null);
    showBox(null);
    showSources(null);
    page.put(find("delay"), "–");
    find("dark").hidden = false;
  }

  // -- a session ----------------------------------------------------------------------------------

  function heard(event) {
    const told = JSON.parse(event.data);
    if (told.type === "answer") show(told);
    else if (told.type === "frame") session?.senses?.frameBack();
    else if (told.type === "ready") begin();
  }

  /** The model is there: open what shall be sent to it. */
  async function begin() {
    const { socket } = session;
    state("asking", "Asking for camera and microphone …");
    const opened = await senses({
      video: find("video"),
      send: (message) => socket.readyState === WebSocket.OPEN && socket.send(message),
      room: () => socket.bufferedAmount < ROOM_BYTES,
      note: lost,
    });
    if (!session || session.socket !== socket) {
      opened.close(); // stopped in the meantime
      return;
    }
    session.senses = opened;
    if (opened.camera && opened.microphone) {
      end(`${opened.camera} ${opened.microphone}`);
      return;
    }
    lacking("camera", opened.camera);
    lacking("microphone", opened.microphone);
    find("dark").hidden = !opened.camera;
    page.put(find("dark"), "There is no camera.");
    keep.ready(opened.stream);
    const both = !opened.camera && !opened.microphone;
    const one = opened.camera ? "The microphone is on." : "The camera is on.";
    state("running", both ? "Camera and microphone are on." : one);
  }

  function lost(kind, line) {
    lacking(kind, line);
    if (!session?.senses) return;
    const alive = session.senses.stream.getTracks().some((track) => track.readyState === "live");
    if (!alive) end("Camera and microphone stopped.");
  }

  function closed(event) {
    if (!session || session.socket !== event.target) return;
    if (event.code === BUSY) end(`maven is busy: ${event.reason}.`);
    else if (event.reason) end(`maven ended the session: ${event.reason}.`);
    else end("The connection to maven was lost. Is it still running?");
  }

  function end(why = "") {
    const { socket, senses: opened } = session;
    session = null;
    keep.stop();
    if (opened) opened.close();
    socket.close();
    rest();
    page.put(find("dark"), "The camera is off.");
    state("idle", "Camera and microphone are off.");
    problem(why);
  }

  function start() {
    problem("");
    lacking("camera", null);
    lacking("microphone", null);
    lacking("time", null);
    clear();
    drawDial();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/api/live`);
    socket.onmessage = heard;
    socket.onclose = closed;
    session = { socket, senses: null };
    state("starting", "The model is loading …");
  }

  async function drawDial() {
    if (circumplex) return;
    try {
      const { circle } = await page.ask("/api/live");
      const label = "The answer in the circumplex";
      circumplex = circumplex || dial(find("dial"), circle, { label });
    } catch (error) {
      if (!(error instanceof page.Refused)) throw error;
      problem(error.message);
    }
  }

  find("video").addEventListener("resize", () => {
    const { videoWidth, videoHeight } = find("video");
    if (videoWidth) find("mirror").style.aspectRatio = `${videoWidth} / ${videoHeight}`;
  });
  find("start").addEventListener("click", () => (session ? end() : start()));
  find("trace").addEventListener("click", () => saveTrace(answers));
  page.put(find("where"), page.COMPUTER);
  rest();
  drawDial();
})();
