/* What every page of the server shares: its header and footer, asking the server, looking again
   and again, progress, questions. Published as `maven.page`. */
"use strict";

(() => {
  const maven = (window.maven = window.maven || {});
  const page = (maven.page = {});

  const LOCAL = ["localhost", "127.0.0.1", "[::1]"];
  const COMPUTER = LOCAL.includes(location.hostname) ? "this computer" : "the computer that runs maven";
  page.COMPUTER = COMPUTER;
  const RETRY_MS = [1000, 2000, 4000, 5000];
  const STAGES = [
    ["checking", "Check", "checking the file"],
    ["faces", "Faces", "looking for faces"],
    ["voice", "Voice", "listening to the voice"],
    ["words", "Words", "finding the words"],
    ["answers", "Answers", "working out valence and arousal"],
    ["writing", "Files", "writing the results"],
  ];

  /** An element with attributes (`onclick` and the like are listeners) and children (text or
      elements; null is left out). Text never becomes markup. */
  page.make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const make = page.make;

  /** Set a text only where it changes, so that nothing is read out twice. */
  page.put = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  /** What the server answered instead of what was asked; `status` is 0 where it did not answer. */
  class Refused extends Error {
    constructor(status, message) {
      super(message);
      this.status = status;
    }
  }
  page.Refused = Refused;
  page.NO_CONNECTION = "No connection to maven. Trying again; is it still running?";

  /** The one line of why from an answer's body. */
  page.reason = (status, body) => {
    try {
      const { detail } = JSON.parse(body);
      if (typeof detail === "string") return detail;
      if (Array.isArray(detail) && detail.length) return String(detail[0].msg);
    } catch {
      // not JSON: a status must do
    }
    return `the server answered with status ${status}`;
  };

  /** Ask the API; returns its JSON (null for 204), throws `Refused`. */
  page.ask = async (path, options = {}) => {
    let response, body;
    try {
      response = await fetch(path, { cache: "no-store", ...options });
      body = await response.text();
    } catch {
      throw new Refused(0, page.NO_CONNECTION);
    }
    if (!response.ok) throw new Refused(response.status, page.reason(response.status, body));
    return body ? JSON.parse(body) : null;
  };

  /** Call `look` again and again; it resolves to milliseconds until the next time, or null to end.
      Rests while the page is hidden; says so while the server cannot be reached. */
  page.poll = (look) => {
    let timer = 0;
    let failures = 0;
    let looking = false;
    let again = false;

    async function turn() {
      clearTimeout(timer);
      if (document.hidden) return;
      again = looking;
      if (looking) return;
      looking = true;
      let wait_ms;
      try {
        wait_ms = await look();
        failures = 0;
        page.connection("");
        await fillFooter();
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        wait_ms = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
        page.connection(error.status ? `The server refused: ${error.message}` : error.message);
      } finally {
        looking = false;
      }
      if (wait_ms === null) document.removeEventListener("visibilitychange", turn);
      else if (again) turn();
      else timer = setTimeout(turn, wait_ms);
    }

    document.addEventListener("visibilitychange", turn);
    turn();
    return { now: turn };
  };

  /** Show a line about the connection at the top of the page; "" takes it away. */
  page.connection = (text) => page.put(document.getElementById("connection"), text);

  /** Have a screen reader say something when it has time. */
  page.say = (text) => page.put(document.getElementById("said"), text);

  /** Ask once, in the page; resolves to whether the answer was yes. */
  page.sure = (title, text, yes) =>
    new Promise((resolve) => {
      const close = (answer) => () => dialog.close(answer);
      const dialog = make(
        "dialog",
        { class: "question", "aria-labelledby": "question-title" },
        make("h2", { id: "question-title" }, title),
        make("p", {}, text),
        make(
          "div",
          { class: "buttons" },
          make("button", { type: "button", class: "danger", onclick: close("yes") }, yes),
          make("button", { type: "button", autofocus: true, onclick: close("no") }, "Keep it"),
        ),
      );
      dialog.addEventListener("close", () => {
        dialog.remove();
        resolve(dialog.returnValue === "yes");
      });
      document.body.append(dialog);
      dialog.showModal();
    });

  page.sureToDelete = (name) =>
    page.sure(
      `Delete “${name}”?`,
      `Its upload, results and ratings are removed from ${COMPUTER}. This cannot be undone.`,
      "Delete",
    );

  // -- words and numbers ------------------------------------------------------------------------

  page.size = (bytes) => {
    const step = bytes >= 1e9 ? [1e9, "GB"] : bytes >= 1e6 ? [1e6, "MB"] : [1e3, "kB"];
    const value = bytes / step[0];
    const whole = value >= 100 || step[1] === "kB";
    return `${whole ? Math.ceil(value) : value.toFixed(1).replace(".0", "")} ${step[1]}`;
  };

  page.length = (seconds) => {
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds);
    const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
    const two = (n) => String(n).padStart(2, "0");
    return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
  };

  page.when = (iso) => {
    const then = new Date(iso);
    const clock = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    if (then.toDateString() === new Date().toDateString()) return `today ${clock}`;
    return `${then.toLocaleDateString()} ${clock}`;
  };

  page.percent = (share) => `${Math.floor(100 * share + 1e-9)} %`;

  /** What a clip is doing, in a few words. */
  page.doing = (clip) => {
    if (clip.state === "queued") {
      const before = clip.position === 1 ? "1 clip is" : `${clip.position} clips are`;
      return clip.position ? `waiting, ${before} before it` : "waiting, it is next";
    }
    if (clip.state !== "running") return clip.state;
    const stage = STAGES.find(([key]) => key === clip.stage);
    return stage ? stage[2] : "starting";
  };

  page.busy = (clip) =>
    [clip.state, clip.overlay?.state].some((state) => state === "queued" || state === "running");

  /** A bar with `.show(share or null, text)`; null has no length yet. */
  page.bar = (label) => {
    const bar = make("progress", { max: 1, "aria-label": label });
    const text = make("span", { class: "number" });
    const element = make("div", { class: "progress" }, bar, text);
    return {
      element,
      show(share) {
        if (share === null) bar.removeAttribute("value");
        else bar.value = share;
        page.put(text, share === null ? "" : page.percent(share));
      },
    };
  };

  /** The stages of a clip in their order, with `.show(stage)`. */
  page.steps = () => {
    const items = STAGES.map(([, name]) => make("li", {}, name));
    const element = make("ol", { class: "steps", "aria-label": "Stages" }, ...items);
    return {
      element,
      show(stage) {
        const at = STAGES.findIndex(([key]) => key === stage);
        items.forEach((item, i) => {
          item.dataset.step = i < at ? "done" : i === at ? "now" : "later";
          if (i === at) item.setAttribute("aria-current", "step");
          else item.removeAttribute("aria-current");
        });
      },
    };
  };

  // -- what frames every page --------------------------------------------------------------------

  const footer = make("footer", { class: "bottom" });
  let about = null;

  /** What `/api/about` says, asked once. */
  page.about = () => {
    about ??= page.ask("/api/about").catch((error) => {
      about = null; // the next who asks tries again
      throw error;
    });
    return about;
  };

  async function fillFooter() {
    if (footer.childElementCount) return;
    const { version, model, limits } = await page.about();
    if (footer.childElementCount) return;
    const most = [
      limits.size_bytes ? page.size(limits.size_bytes) : null,
      limits.length_s ? `${Math.round(limits.length_s / 60)} minutes` : null,
    ].filter(Boolean);
    footer.append(
      make("span", {}, `maven ${version}, model ${model}`),
      most.length ? make("span", {}, `a clip may have up to ${most.join(" and ")}`) : "",
      make("a", { href: "/api/openapi.json" }, "API"),
    );
  }

  function frame() {
    const here = location.pathname;
    const link = (href, text, current) =>
      make("a", { href, "aria-current": current ? "page" : null }, text);
    document.body.prepend(
      make("a", { class: "skip", href: "#main" }, "Skip to the content"),
      make(
        "header",
        { class: "top" },
        make(
          "a",
          { class: "name", href: "/" },
          make("img", { src: "/static/favicon.svg", alt: "", width: 24, height: 24 }),
          "maven",
        ),
        make(
          "nav",
          { "aria-label": "Pages" },
          link("/", "Clips", here === "/"),
          link("/live", "Live", here === "/live"),
        ),
        make("p", { class: "local" }, `Everything stays on ${COMPUTER}.`),
      ),
    );
    document.querySelector("main").prepend(
      make("p", { id: "connection", class: "banner", role: "alert" }),
      make("p", { id: "said", class: "visually-hidden", role: "status" }),
    );
    document.body.append(footer);
    fillFooter().catch(() => {}); // whoever looks again and again says what is wrong, and fills it
  }

  frame();
})();
