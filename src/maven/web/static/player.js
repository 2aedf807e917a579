// The video (or the sound, or a picture where there is nothing to play), the face box over it, the
// controls, and the clock that everything else follows.
//
//   const player = maven.player(element, view, (time_s) => ...)   called whenever the time changes
//   player.media          the <video> or <audio>, or null; player.tools: the bar of its buttons
//   player.time_s()       on the clock of the clip; with a picture, that of the frame shown
//   player.seek(time_s), player.toggle(), player.step(frames), player.mute(), player.boxes()
//   player.box(box_px, name)   where the chosen person's face is in this frame, or null
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const INSIDE_S = 0.001; // seeks go just inside a frame: times come rounded
  const LABEL_PX = 13;
  const STEPS = 3; // fewer say little of how long a picture lasts
  const SPEEDS = [0.25, 0.5, 0.75, 1, 1.5, 2];

  // A data: URL as a blob: seeking in it costs no decoding of base64, in any browser.
  function source(url) {
    const head = /^data:([\w/+.-]+);base64,/.exec(url);
    if (!head) return url;
    const text = atob(url.slice(head[0].length));
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return URL.createObjectURL(new Blob([bytes], { type: head[1] }));
  }

  // How long a picture lasts: a row belongs to each. What a file declares is a guess where pictures
  // come at uneven times, or nothing.
  function picture_s(view) {
    if (!view.video) return 0.04;
    const times_s = (!view.step_s && view.people[0]?.time_s) || [];
    const steps_s = times_s.slice(1).map((t, i) => t - times_s[i]).sort((a, b) => a - b);
    if (steps_s.length >= STEPS) return steps_s[steps_s.length >> 1];
    return view.video.rate_hz ? 1 / view.video.rate_hz : 0.04;
  }

  function screen(panel, view) {
    const { src, poster } = view.media;
    const made = maven.html(panel, "div", "player-screen");
    const say = (text) => maven.html(made, "p", "player-note", text);
    if (view.video) {
      made.style.setProperty("--aspect", `${view.video.width_px} / ${view.video.height_px}`);
    } else {
      made.classList.add("player-blind");
    }
    if (!src && poster) {
      const image = maven.html(made, "img");
      image.src = poster;
      image.alt = "One frame of the video";
    }
    if (!src) {
      const kind = view.video ? "video" : "sound";
      say(`The ${kind} is not in this page${poster ? ": the picture is one frame of it" : ""}.`);
      return { made, media: null };
    }
    const media = maven.html(made, view.video ? "video" : "audio");
    media.preload = "auto";
    media.playsInline = true;
    if (view.video) media.setAttribute("aria-label", `Video: ${view.file}`);
    else say("Sound only: there is no picture.");
    media.addEventListener("error", () => say("This browser cannot play the file."));
    return { made, media };
  }

  function overlay(made, view) {
    if (!view.video) return () => {};
    const { width_px, height_px } = view.video;
    const svg = maven.svg(made, "svg", {
      viewBox: `0 0 ${width_px} ${height_px}`,
      class: "player-overlay",
      "aria-hidden": "true",
    });
    const under = maven.svg(svg, "rect", { class: "player-under" });
    const box = maven.svg(svg, "rect", { class: "player-box" });
    const name = maven.svg(svg, "text", { class: "player-name" });
    return (box_px, text) => {
      svg.toggleAttribute("hidden", !box_px);
      if (!box_px) return;
      const scale = Math.min(made.clientWidth / width_px, made.clientHeight / height_px) || 1;
      const [x, y, width, height] = box_px;
      for (const rect of [under, box]) {
        for (const [key, value] of Object.entries({ x, y, width, height })) {
          rect.setAttribute(key, value);
        }
        rect.setAttribute("rx", 4 / scale);
      }
      name.textContent = text;
      const type_px = LABEL_PX / scale;
      name.setAttribute("font-size", type_px);
      name.setAttribute("stroke-width", 4 / scale);
      name.setAttribute("x", x);
      const above = y - type_px * 0.5;
      name.setAttribute("y", above > type_px ? above : y + height + type_px * 1.2);
    };
  }

  function controls(panel) {
    const bar = maven.html(panel, "div", "player-controls viewer-tools");
    const button = (text, label, name = "") => {
      const made = maven.html(bar, "button", name, text);
      made.type = "button";
      made.title = label;
      made.setAttribute("aria-label", label);
      return made;
    };
    const play = button("\u25b6\ufe0e", "Play", "primary player-play");
    const back = button("\u2039", "One frame back");
    const on = button("\u203a", "One frame on");
    const speed = maven.html(bar, "select", "player-speed");
    speed.title = "Speed";
    speed.setAttribute("aria-label", "Speed");
    for (const value of SPEEDS) {
      const option = maven.html(speed, "option", "", `${value}\u00d7`);
      option.value = value;
      option.selected = value === 1;
    }
    const mute = button("Sound", "Sound on");
    const boxes = button("Face box", "Draw the face box");
    for (const toggle of [mute, boxes]) toggle.setAttribute("aria-pressed", "true");
    return { bar, play, back, on, speed, mute, boxes };
  }

  maven.player = function (element, view, changed) {
    const panel = maven.html(element, "section", "panel player");
    panel.setAttribute("aria-label", view.video ? "Video" : "Sound");
    const { made, media } = screen(panel, view);
    const draw_box = overlay(made, view);
    const tools = controls(panel);
    const frame_s = picture_s(view);
    const offset_s = view.media.offset_s || 0;
    let now_s = view.start_s;
    let asked_s = null; // where a seek went, as long as nothing was played since
    let boxed = [null, ""];
    let callback = 0;
    let address = null;

    function set(time_s) {
      now_s = time_s;
      changed(now_s);
    }

    // A frame came onto the screen. After a seek the time asked for stands, if the frame holds then.
    function shown(frame_time_s) {
      const behind_s = asked_s === null ? NaN : asked_s - frame_time_s;
      const holds = behind_s >= -2 * INSIDE_S && behind_s < frame_s;
      if (media.seeking && !holds) return; // still the frame before the seek
      if (!media.paused || !holds) asked_s = null;
      set(asked_s === null ? frame_time_s : asked_s);
    }

    // Something else than this viewer went there: a key of the keyboard's, the browser's own menu.
    function moved() {
      const time_s = media.currentTime + offset_s;
      if (asked_s !== null && Math.abs(time_s - asked_s) < 2 * INSIDE_S) return;
      asked_s = null;
      set(Math.min(time_s, view.end_s));
    }

    function follow() {
      media.addEventListener("seeked", moved);
      if (media.requestVideoFrameCallback) {
        const next = (_, frame) => {
          callback = media.requestVideoFrameCallback(next);
          shown(frame.mediaTime + offset_s);
        };
        callback = media.requestVideoFrameCallback(next);
        return;
      }
      const tick = () => {
        if (!media.seeking) shown(media.currentTime + offset_s);
        if (!media.paused) callback = requestAnimationFrame(tick);
      };
      for (const name of ["play", "pause", "seeked"]) {
        media.addEventListener(name, () => {
          cancelAnimationFrame(callback);
          tick();
        });
      }
    }

    function seek(time_s) {
      const last_s = Math.max(view.start_s, view.end_s - frame_s / 2);
      const wanted_s = Math.min(last_s, Math.max(view.start_s, time_s));
      if (media) {
        asked_s = wanted_s;
        media.currentTime = Math.max(0, wanted_s - offset_s + INSIDE_S);
      }
      set(wanted_s);
    }

    function toggle() {
      if (!media) return;
      if (media.paused) media.play().catch(() => {}); // refused or cut short: it stays paused
      else media.pause();
    }

    function playing() {
      const label = media.paused ? "Play" : "Pause";
      tools.play.textContent = media.paused ? "\u25b6\ufe0e" : "\u275a\u275a";
      tools.play.title = label;
      tools.play.setAttribute("aria-label", label);
    }

    function mute() {
      if (!media) return;
      media.muted = !media.muted;
      tools.mute.setAttribute("aria-pressed", String(!media.muted));
    }

    function boxes() {
      const on = tools.boxes.getAttribute("aria-pressed") !== "true";
      tools.boxes.setAttribute("aria-pressed", String(on));
      box(...boxed);
    }

    function box(box_px, name) {
      boxed = [box_px, name];
      const on = tools.boxes.getAttribute("aria-pressed") === "true";
      draw_box(on && media ? box_px : null, name);
    }

    const step = (frames) => {
      if (media) media.pause();
      seek(now_s + frames * frame_s);
    };

    tools.play.addEventListener("click", toggle);
    tools.back.addEventListener("click", () => step(-1));
    tools.on.addEventListener("click", () => step(1));
    tools.mute.addEventListener("click", mute);
    tools.boxes.addEventListener("click", boxes);
    tools.mute.hidden = !view.sound || !media;
    tools.boxes.hidden = !view.video || !media; // a still picture is of one moment only
    tools.play.disabled = tools.speed.disabled = !media;
    const watch = new ResizeObserver(() => box(...boxed));
    watch.observe(made);
    if (media) {
      follow();
      media.addEventListener("play", playing);
      media.addEventListener("pause", playing);
      media.addEventListener("click", toggle);
      tools.speed.addEventListener("change", () => (media.playbackRate = Number(tools.speed.value)));
      // After the first drawing: what is embedded takes a moment to unpack.
      requestAnimationFrame(() =>
        setTimeout(() => {
          if (address === "") return;
          address = media.src = source(view.media.src);
          if (asked_s !== null) seek(asked_s);
        }),
      );
    }

    return {
      media,
      tools: tools.bar,
      time_s: () => now_s,
      seek,
      toggle,
      step,
      mute,
      boxes,
      box,
      destroy() {
        watch.disconnect();
        if (!media) return;
        if (media.cancelVideoFrameCallback) media.cancelVideoFrameCallback(callback);
        else cancelAnimationFrame(callback);
        media.pause();
        if (address && address.startsWith("blob:")) URL.revokeObjectURL(address);
        address = "";
        media.removeAttribute("src");
        media.load();
      },
    };
  };
})(window.maven);
