// What the live page keeps, and only when it is told to: a recording, and the answers as a table.
//
//   const recording = maven.recording(element);   its parts are named by data-part
//   recording.ready(stream)   the button works; null: there is nothing to record
//   recording.stop()          ends one that runs, and offers what can be done with it
//   maven.saveTrace(answers)  the answers as CSV, columns as in maven's long table
"use strict";

(() => {
  const maven = window.maven;
  const { page } = maven;

  const TYPES = [
    "video/webm;codecs=vp8,opus",
    "audio/webm;codecs=opus",
    "video/mp4",
    "audio/mp4",
  ];
  const PIECE_MS = 1000;
  const BITS_PER_S = { videoBitsPerSecond: 2_500_000, audioBitsPerSecond: 128_000 };
  const COLUMNS = [
    ...["time_s", "valence", "arousal", "theta", "intensity"],
    ...["valence_low", "valence_high", "arousal_low", "arousal_high"],
    ...["visual_weight", "audio_weight", "text_weight", "has_face", "has_speech", "has_text"],
    ...["face_x", "face_y", "face_w", "face_h", "emotion"],
  ];

  const two = (n) => String(n).padStart(2, "0");

  /** Seconds as "0:07". */
  maven.timer = (seconds) => `${Math.floor(seconds / 60)}:${two(Math.floor(seconds % 60))}`;

  function stamped(suffix) {
    const now = new Date();
    const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-");
    const clock = [now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join("-");
    return `live-${day}-${clock}.${suffix}`;
  }

  function save(blob, name) {
    const link = page.make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  function cell(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "boolean") return value ? "True" : "False"; // as the long table's CSV
    return typeof value === "number" ? String(Number(value.toPrecision(8))) : value;
  }

  maven.saveTrace = (answers) => {
    const start_s = answers[0].time_s;
    const rows = answers.map((answer) => {
      const [face_x, face_y, face_w, face_h] = answer.box_px || [];
      const time_s = (answer.time_s - start_s).toFixed(3);
      const row = { ...answer, time_s, face_x, face_y, face_w, face_h };
      return COLUMNS.map((name) => cell(row[name])).join(",");
    });
    const text = [COLUMNS.join(","), ...rows, ""].join("\n");
    save(new Blob([text], { type: "text/csv" }), stamped("csv"));
  };

  maven.recording = function (element) {
    const part = (name) => element.querySelector(`[data-part="${name}"]`);
    const [button, lamp, time, offer, text, result] = [
      ...["record", "lamp", "time", "offer", "text", "result"],
    ].map(part);
    let [stream, recorder, blob, name, timer] = [null, null, null, "", 0];

    function type() {
      const kind = stream.getVideoTracks().length ? "video/" : "audio/";
      return TYPES.find((each) => each.startsWith(kind) && MediaRecorder.isTypeSupported(each));
    }

    function show() {
      const on = recorder !== null;
      page.put(button, on ? "Stop recording" : "Record");
      button.disabled = !on && (!stream || blob !== null);
      lamp.hidden = !on;
      offer.hidden = on || blob === null;
    }

    function start() {
      const pieces = [];
      const since_ms = performance.now();
      const seconds = () => (performance.now() - since_ms) / 1000;
      recorder = new MediaRecorder(stream, { mimeType: type(), ...BITS_PER_S });
      const suffix = recorder.mimeType.includes("mp4") ? "mp4" : "webm";
      name = stamped(suffix);
      recorder.ondataavailable = ({ data }) => pieces.push(data);
      recorder.onstop = () => {
        clearInterval(timer);
        blob = new Blob(pieces, { type: recorder.mimeType.split(";")[0] });
        const size = `${page.length(seconds())}, ${page.size(blob.size)}`;
        page.put(text, `${name}: ${size}. Only this page holds it.`);
        recorder = null;
        show();
        offer.querySelector("button").focus();
        page.say("The recording ended. Analyse it, save it, or discard it.");
      };
      page.put(result, "");
      page.put(time, maven.timer(0));
      timer = setInterval(() => page.put(time, maven.timer(seconds())), 250);
      recorder.start(PIECE_MS);
      page.say("Recording.");
      show();
    }

    function forget() {
      blob = null;
      show();
      (button.disabled ? element.querySelector("#start") : button).focus();
    }

    async function analyse(event) {
      const pressed = event.target;
      pressed.disabled = true;
      page.put(result, `Sending it to maven on ${page.COMPUTER} …`);
      try {
        const clip = await page.ask(`/api/clips?name=${encodeURIComponent(name)}`, {
          method: "POST",
          headers: { "Content-Type": "application/octet-stream" },
          body: blob,
        });
        const href = `/clips/${encodeURIComponent(clip.id)}`;
        forget();
        result.replaceChildren("In the queue: ", page.make("a", { href }, clip.name || name));
      } catch (error) {
        if (!(error instanceof page.Refused)) throw error;
        page.put(result, `It could not be sent: ${error.message}`);
      } finally {
        pressed.disabled = false;
      }
    }

    async function discard() {
      forget();
      page.put(result, "The recording was discarded.");
    }

    button.addEventListener("click", () => (recorder ? recorder.stop() : start()));
    part("analyse").addEventListener("click", analyse);
    part("save").addEventListener("click", () => save(blob, name));
    part("discard").addEventListener("click", discard);
    addEventListener("beforeunload", (event) => {
      if (recorder || blob) event.preventDefault();
    });
    show();

    return {
      ready(next) {
        stream = next && next.getTracks().length ? next : null;
        show();
      },
      stop() {
        if (recorder) recorder.stop();
        stream = null;
        show();
      },
    };
  };
})();
