/* One clip: how far it is, then its result, its files and its overlay. */
"use strict";

(() => {
  const { maven } = window;
  const { page } = maven;
  const { make, put } = page;
  const at = (id) => document.getElementById(id);
  const id = location.pathname.split("/")[2];
  const path = `/api/clips/${id}`;

  const BUSY_MS = 400;
  const CALM_MS = 4000; // a finished clip may still be deleted elsewhere
  const FILES = {
    csv: ["CSV", "a row a frame and person, for spreadsheets, R and Python"],
    parquet: ["Parquet", "the same table, smaller and typed"],
    json: ["JSON", "the same rows, with settings and versions"],
    vtt: ["WebVTT", "the answers as subtitles of the video"],
    report: ["Report", "this page as one file to send; opens without a network"],
  };

  const bar = page.bar("Progress");
  const steps = page.steps();
  const overlay = page.bar("Progress of the overlay video");
  at("progress").append(bar.element);
  at("steps").append(steps.element);
  at("overlay-progress").replaceWith(overlay.element);
  overlay.element.hidden = true;
  let clip = null;
  let viewer = null;
  let leaving = false; // it is being deleted here: nobody asks for it any more
  const refused = make("p", { class: "banner", role: "alert" });
  refused.style.marginTop = "var(--gap)";

  function only(...shown) {
    for (const part of ["working", "trouble", "viewer", "take"]) {
      at(part).hidden = !shown.includes(part);
    }
    if (!document.activeElement.closest("[hidden]")) return;
    const next = at(shown[0]).querySelector("button:not([hidden]), a"); // else the focus is lost
    (next ?? at("main")).focus();
  }

  function trouble(title, why, again) {
    at("again").hidden = !again;
    only("trouble");
    put(at("trouble-title"), title);
    put(at("why"), why);
    document.title = `${again ? clip.name : title} · maven`;
    page.say(`${title}. ${why}`);
  }

  function showWork() {
    only("working");
    const running = clip.state === "running";
    put(at("working-title"), running ? "Working on it" : "Waiting");
    put(at("doing"), sentence(page.doing(clip)));
    page.say(`${clip.name}: ${page.doing(clip)}`);
    steps.show(clip.stage);
    bar.show(clip.progress ?? 0);
    document.title = running ? `${page.percent(clip.progress ?? 0)} ${clip.name}` : clip.name;
  }

  const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

  async function showResult() {
    only("viewer", "take");
    document.title = `${clip.name} · maven`;
    const kinds = Object.keys(FILES).filter((kind) => clip.files.includes(kind));
    if (at("downloads").children.length !== kinds.length) {
      at("downloads").replaceChildren(
        ...kinds.map((kind) =>
          make(
            "li",
            {},
            make("a", { class: "button", href: `${path}/files/${kind}`, download: true }, FILES[kind][0]),
            make("p", { class: "muted small" }, FILES[kind][1]),
          ),
        ),
      );
    }
    showOverlay(clip.overlay);
    if (!viewer) {
      const view = await page.ask(`${path}/view`);
      viewer = maven.viewer(at("viewer"), view);
      at("overlay").hidden = !view.video; // sound alone has nothing to draw into
      page.say(`${clip.name}: done`);
    }
  }

  function showOverlay({ state, blur, progress, error }) {
    const busy = state === "queued" || state === "running";
    const held = document.activeElement === at("make");
    at("blur").disabled = busy;
    put(at("make"), busy ? "Cancel" : state === "done" ? "Make it again" : "Make it");
    overlay.element.hidden = !busy;
    overlay.show(state === "running" ? progress ?? 0 : busy ? 0 : null);
    if (state === "done" && at("overlay-file").hidden) page.say("The overlay video is ready.");
    at("overlay-file").hidden = state !== "done";
    put(at("overlay-file"), blur ? "Download, faces blurred" : "Download");
    at("overlay-file").setAttribute("href", `${path}/files/overlay`);
    if (held && state === "done") at("overlay-file").focus();
    put(at("overlay-error"), state === "failed" ? error ?? "it could not be made" : "");
  }

  function show(next) {
    clip = next;
    put(at("name"), clip.name);
    const facts = [
      clip.length_s === null ? null : page.length(clip.length_s),
      page.size(clip.size_bytes),
      page.when(clip.created),
    ];
    put(at("facts"), facts.filter(Boolean).join(" · "));
    at("actions").hidden = false;
    at("rate").hidden = clip.state !== "done";
    at("compare").hidden = clip.state !== "done";
    at("compare").href = `/compare?ids=${id}`;
    at("rate").href = `/clips/${id}/rate`;
    if (clip.state === "queued" || clip.state === "running") return showWork();
    if (clip.state === "done") return showResult();
    if (clip.state === "failed") return trouble("This clip failed", clip.error ?? "", true);
    return trouble("This clip was cancelled", "Its upload is still there.", true);
  }

  function gone() {
    document.querySelector("dialog.question")?.close("no");
    put(refused, "");
    viewer?.destroy();
    viewer = null;
    at("actions").hidden = true;
    put(at("facts"), "");
    const [title, why] = clip
      ? ["This clip was deleted", "Its upload, results and ratings are gone."]
      : ["There is no such clip", "It may have been deleted, or the address is not whole."];
    if (!clip) put(at("name"), "No clip");
    trouble(title, why, false);
    return null;
  }

  /** Ask for something; where it is refused, why stands below what `button` is in. */
  async function order(button, action, method = "POST") {
    put(refused, "");
    try {
      await page.ask(`${path}${action}`, { method });
      return true;
    } catch (error) {
      if (!(error instanceof page.Refused)) throw error;
      button.closest(".panel, .toolbar").after(refused);
      put(refused, error.status ? error.message : "maven did not answer. Try it again.");
      return false;
    } finally {
      look.now();
    }
  }

  at("cancel").onclick = () => order(at("cancel"), "/cancel");
  at("again").onclick = () => order(at("again"), "/again");
  at("make").onclick = () => {
    const action = page.busy(clip) ? "/cancel" : `/overlay?blur=${at("blur").checked}`;
    order(at("make"), action);
  };
  at("delete").onclick = async () => {
    if (!(await page.sureToDelete(clip.name))) return;
    leaving = true;
    if (await order(at("delete"), "", "DELETE")) location.href = "/";
    else leaving = false;
  };
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return; // not back to the page as it was left
    leaving = false;
    look.now();
  });

  const look = page.poll(async () => {
    if (leaving) return CALM_MS;
    let next;
    try {
      next = await page.ask(path);
    } catch (error) {
      if (error.status === 404) return gone();
      throw error;
    }
    await show(next);
    return page.busy(clip) ? BUSY_MS : CALM_MS;
  });
})();
