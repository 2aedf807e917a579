// Camera and microphone of the live page, as messages for the WebSocket /api/live.
//
//   const senses = await maven.senses({video, send, room, note});
//   senses.stream        the MediaStream of what could be had
//   senses.camera, senses.microphone    null, or why there is none, as a line
//   senses.frameBack()   the picture in flight came back: the next one may go
//   senses.close()       camera and microphone are off
//
// `video` is the <video> that shows the camera, `send(message)` takes an ArrayBuffer,
// `room()` tells whether there is room for a picture, `note(kind, line)` that a device stopped.
// Times are seconds of performance.now().
"use strict";

(() => {
  const maven = (window.maven = window.maven || {});

  const LONGEST_PX = 640;
  const STEP_MS = 60; // between pictures, at least: one for every answer, with some to spare
  const QUALITY = 0.85; // of the JPEGs
  const STALE_MS = 1000; // a capture time further back is none
  const RATE_HZ = 16000;
  const DRIFT = 5e-4; // of the sound's clock, at most
  const [PICTURE, SOUND] = [1, 2];

  const CAMERA = {
    width: { ideal: 640 },
    height: { ideal: 480 },
    frameRate: { ideal: 30 },
    facingMode: "user",
  };
  // As it is: how loud somebody speaks is part of the answer.
  const MICROPHONE = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

  function why(name, error) {
    if (error.name === "NotAllowedError") {
      return `The ${name} was refused. To allow it, use the symbol beside the page's address.`;
    }
    if (error.name === "NotFoundError" || error.name === "OverconstrainedError") {
      return `No ${name} was found.`;
    }
    if (error.name === "NotReadableError") return `The ${name} is in use by another program.`;
    return `The ${name} cannot be opened: ${error.message}`;
  }

  async function device(name, constraints) {
    if (!navigator.mediaDevices) {
      const only = "browsers give it only to pages of this computer (localhost) or over https";
      return { track: null, reason: `No ${name}: ${only}.` };
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia(constraints);
      return { track: stream.getTracks()[0], reason: null };
    } catch (error) {
      return { track: null, reason: why(name, error) };
    }
  }

  function message(kind, time_s, bytes) {
    const content = new Uint8Array(9 + bytes.byteLength);
    const view = new DataView(content.buffer);
    view.setUint8(0, kind);
    view.setFloat64(1, time_s, true);
    content.set(bytes, 9);
    return content.buffer;
  }

  // Pictures of a video, each when it was taken; one is in flight at a time.
  function pictures(video, { send, room }) {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d", { alpha: false });
    let [inFlight, closed, last_ms] = [false, false, -Infinity];

    function size() {
      const scale = Math.min(1, LONGEST_PX / Math.max(video.videoWidth, video.videoHeight));
      const sides = [video.videoWidth, video.videoHeight].map((px) => Math.round(px * scale));
      [canvas.width, canvas.height] = sides;
    }

    function take(taken_ms) {
      last_ms = taken_ms;
      inFlight = true;
      size();
      context.drawImage(video, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(
        async (blob) => {
          const bytes = blob && new Uint8Array(await blob.arrayBuffer());
          if (bytes && !closed) send(message(PICTURE, taken_ms / 1000, bytes));
          else inFlight = false;
        },
        "image/jpeg",
        QUALITY,
      );
    }

    function look(now_ms, frame = {}) {
      if (closed) return;
      const taken_ms = frame.captureTime;
      const known = taken_ms <= now_ms && taken_ms > now_ms - STALE_MS;
      const time_ms = known ? taken_ms : now_ms;
      const due = time_ms >= last_ms + STEP_MS;
      if (due && !inFlight && video.videoWidth && room()) take(time_ms);
      wait();
    }

    function wait() {
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(look);
      else setTimeout(() => look(performance.now()), STEP_MS / 2);
    }

    wait();
    return {
      back: () => (inFlight = false),
      close: () => (closed = true),
    };
  }

  async function listening(track) {
    const stream = new MediaStream([track]);
    for (const options of [{ sampleRate: RATE_HZ }, {}]) {
      const context = new AudioContext(options);
      try {
        return [context, context.createMediaStreamSource(stream)];
      } catch (error) {
        await context.close(); // this browser does not resample a microphone: microphone.js does
        if (!options.sampleRate) throw error;
      }
    }
    return null;
  }

  // Pieces of sound, on the clock of the pictures: the quickest piece tells how the clocks lie.
  async function sound(track, send) {
    const [context, source] = await listening(track);
    await context.audioWorklet.addModule("/static/microphone.js");
    const node = new AudioWorkletNode(context, "microphone", { numberOfInputs: 1 });
    let [offset_s, then_s] = [Infinity, 0];
    node.port.onmessage = ({ data: { start_s, samples } }) => {
      const now_s = performance.now() / 1000;
      const end_s = start_s + samples.length / RATE_HZ;
      offset_s = Math.min(now_s - end_s, offset_s + DRIFT * (now_s - then_s));
      then_s = now_s;
      send(message(SOUND, start_s + offset_s, new Uint8Array(samples.buffer)));
    };
    source.connect(node).connect(context.destination); // silent; without, nothing runs
    await context.resume();
    return context;
  }

  maven.senses = async ({ video, send, room, note }) => {
    const stopped = (kind, source) => () => {
      source.reason = `The ${kind} stopped.`;
      note(kind, source.reason);
    };
    const camera = await device("camera", { video: CAMERA });
    const microphone = await device("microphone", { audio: MICROPHONE });
    const tracks = [camera.track, microphone.track].filter(Boolean);
    const stream = new MediaStream(tracks);
    let [context, frames] = [null, null];
    if (camera.track) {
      video.srcObject = new MediaStream([camera.track]);
      await video.play();
      camera.track.onended = stopped("camera", camera);
    }
    if (microphone.track) {
      try {
        context = await sound(microphone.track, send);
        microphone.track.onended = stopped("microphone", microphone);
      } catch (error) {
        microphone.track.stop();
        stream.removeTrack(microphone.track);
        microphone.reason = why("microphone", error);
      }
    }
    if (camera.track) frames = pictures(video, { send, room }); // last: it answers to frameBack()
    return {
      stream,
      camera: camera.reason,
      microphone: microphone.reason,
      frameBack: () => frames && frames.back(),
      close() {
        if (frames) frames.close();
        if (context) context.close();
        for (const track of tracks) {
          track.onended = null;
          track.stop();
        }
        video.srcObject = null;
      },
    };
  };
})();
