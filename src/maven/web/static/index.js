/* The queue: adding clips, what each is doing, choosing some to compare. */
"use strict";

(() => {
  const { page } = window.maven;
  const { make, put } = page;
  const at = (id) => document.getElementById(id);

  const BUSY_MS = 400;
  const CALM_MS = 4000;
  const STATES = {
    queued: "Waiting",
    running: "Running",
    done: "Done",
    failed: "Failed",
    cancelled: "Cancelled",
  };
  const rows = new Map(); // id -> row
  const chosen = new Set();

  /** One clip of the list: built once, then kept up to date, so that focus stays where it is. */
  function row(id) {
    const box = make("input", { type: "checkbox", onchange: choose });
    const name = make("a", { class: "title", href: `/clips/${id}` });
    const state = make("span", { class: "state" });
    const facts = make("p", { class: "muted small" });
    const trouble = make("p", { class: "error small", hidden: true });
    const bar = page.bar("");
    const stage = make("p", { class: "small stage" });
    const act = (text, kind, action) =>
      make("button", { type: "button", class: kind, onclick: action }, text);
    const open = make("a", { class: "button small", href: `/clips/${id}` }, "Open");
    const buttons = {
      cancel: act("Cancel", "small", () => ask(`/api/clips/${id}/cancel`, "POST")),
      again: act("Try again", "small", () => ask(`/api/clips/${id}/again`, "POST")),
      delete: act("Delete", "small danger", remove),
    };
    const element = make(
      "li",
      { class: "clip" },
      make("div", { class: "choice" }, box),
      make("div", { class: "body" }, make("p", {}, name, " ", state), facts, bar.element, stage, trouble),
      make("div", { class: "buttons" }, open, ...Object.values(buttons)),
    );
    let clip = null;

    function choose() {
      if (box.checked) chosen.add(id);
      else chosen.delete(id);
      showChoice();
    }

    async function ask(path, method) {
      try {
        await page.ask(path, { method });
      } catch (error) {
        put(trouble, error.message);
        trouble.hidden = false;
      }
      look.now();
    }

    async function remove() {
      if (!(await page.sureToDelete(clip.name))) return;
      await ask(`/api/clips/${id}`, "DELETE");
    }

    function show(next) {
      const news = clip && next.state !== clip.state ? STATES[next.state].toLowerCase() : null;
      if (news) page.say(`${next.name}: ${news}`);
      clip = next;
      put(name, clip.name);
      put(state, STATES[clip.state]);
      element.dataset.state = clip.state;
      const parts = [
        clip.length_s === null ? null : page.length(clip.length_s),
        page.size(clip.size_bytes),
        page.when(clip.created),
        clip.settings.faces === "all" ? "everyone" : null,
        clip.settings.transcript ? `with ${clip.settings.transcript}` : null,
      ];
      put(facts, parts.filter(Boolean).join(" · "));
      const running = clip.state === "running";
      bar.element.hidden = !running;
      bar.element.firstChild.setAttribute("aria-label", `Progress of ${clip.name}`);
      bar.show(clip.progress ?? 0);
      stage.hidden = !running && clip.state !== "queued";
      put(stage, page.doing(clip));
      if (news !== null || clip.error) {
        put(trouble, clip.error ?? "");
        trouble.hidden = !clip.error;
      }
      const done = clip.state === "done";
      box.disabled = !done;
      open.hidden = !done;
      open.setAttribute("aria-label", `Open ${clip.name}`);
      box.setAttribute("aria-label", `Choose ${clip.name} to compare`);
      const offers = {
        cancel: running || clip.state === "queued",
        again: clip.state === "failed" || clip.state === "cancelled",
        delete: true,
      };
      for (const [key, button] of Object.entries(buttons)) {
        const text = key === "again" ? "Try again" : key[0].toUpperCase() + key.slice(1);
        button.setAttribute("aria-label", `${text}: ${clip.name}`);
        if (!offers[key] && button === document.activeElement) name.focus();
        button.hidden = !offers[key];
      }
      if (!done) chosen.delete(id);
    }
    return { element, show, name };
  }

  function showChoice() {
    const ids = [...rows.keys()].filter((id) => chosen.has(id));
    const link = at("compare");
    link.hidden = rows.size === 0;
    link.classList.toggle("primary", ids.length > 1);
    put(link, ids.length ? `Compare ${ids.length}` : "Compare");
    link.href = ids.length ? `/compare?ids=${ids.join(",")}` : "/compare"; // clips can be added there
  }

  /** Bring the list in step with what the server has. */
  function showAll(clips) {
    const list = at("clips");
    const ids = new Set(clips.map((clip) => clip.id));
    for (const [id, { element }] of rows) {
      if (ids.has(id)) continue;
      const held = element.contains(document.activeElement);
      const near = element.nextElementSibling ?? element.previousElementSibling;
      element.remove();
      if (held) (near?.querySelector("a") ?? at("choose")).focus();
      rows.delete(id);
      chosen.delete(id);
    }
    clips.forEach((clip, i) => {
      if (!rows.has(clip.id)) rows.set(clip.id, row(clip.id));
      const { element, show } = rows.get(clip.id);
      show(clip);
      if (list.children[i] !== element) list.insertBefore(element, list.children[i] ?? null);
    });
    at("empty").hidden = clips.length > 0;
    list.hidden = clips.length === 0;
    const counts = Object.keys(STATES)
      .map((state) => [STATES[state], clips.filter((clip) => clip.state === state).length])
      .filter(([, n]) => n)
      .map(([name, n]) => `${n} ${name.toLowerCase()}`);
    put(at("count"), counts.join(", "));
    showChoice();
  }

  const uploads = page.uploads(at("uploads"), {
    settings: () => ({ faces: at("faces").value, asr: at("asr").value }),
    sent: () => look.now(),
    focus: () => at("choose").focus(),
  });

  at("choose").onclick = () => at("files").click();
  at("files").onchange = () => {
    uploads.add([...at("files").files]);
    at("files").value = ""; // so that the same file can be chosen again
  };

  // -- dropping on the whole page ----------------------------------------------------------------

  let depth = 0; // dragenter and dragleave come for every element under the pointer
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  const curtain = (shown) => {
    depth = shown ? depth : 0;
    at("curtain").hidden = !shown;
  };
  window.addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    depth += 1;
    curtain(true);
  });
  window.addEventListener("dragleave", (event) => {
    if (carries(event) && --depth <= 0) curtain(false);
  });
  window.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  window.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault(); // else the browser leaves the page and opens the file
    curtain(false);
    const files = [];
    for (const item of event.dataTransfer.items) {
      const file = item.kind === "file" ? item.getAsFile() : null;
      if (!file) continue;
      if (item.webkitGetAsEntry?.()?.isDirectory) {
        uploads.refuse(file.name, "a folder; drop the files that are in it");
      } else {
        files.push(file);
      }
    }
    uploads.add(files);
  });

  const look = page.poll(async () => {
    const { clips } = await page.ask("/api/clips");
    showAll(clips);
    return clips.some(page.busy) ? BUSY_MS : CALM_MS;
  });
})();
