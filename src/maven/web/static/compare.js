/* Several clips, or several people of one, side by side. The address says which: ids and people
   (numbers from 0) in the order of the columns. */
"use strict";

(() => {
  const { maven } = window;
  const { page } = maven;
  const { make, put } = page;
  const at = (id) => document.getElementById(id);

  const MOST = 6; // colours and dashes that can be told apart
  const APART_S = 0.25; // that players of clips played together may be
  const RATES = [0.25, 4]; // that browsers play with sound
  const clips = new Map(); // id -> clip, finished ones
  const views = new Map(); // id -> view
  let columns = [];
  let linked = []; // columns that play together, the others as the first of them
  let drawing = 0;

  const share = () => at("axis").value === "share";
  const position = (column) =>
    (column.time_s() - column.start_s) / (share() ? column.length_s : 1);
  const seek = (column, to) => column.seek(column.start_s + to * (share() ? column.length_s : 1));
  const playing = (column) => column.media && !column.media.paused && !column.media.ended;
  const curves = maven.compareCurves(at("curves"), (to) => columns.forEach((one) => seek(one, to)));

  const players = () => columns.filter((column) => column.media && !column.media.error);

  // -- what moves --------------------------------------------------------------------------------

  function refresh() {
    drawing = 0;
    follow();
    for (const column of columns) column.refresh();
    curves.move(columns);
    const lead = furthest();
    if (document.activeElement !== at("position") || columns.some(playing)) {
      at("position").value = Math.round((1000 * lead) / curves.end);
    }
    const text = share() ? page.percent(Math.max(0, lead)) : maven.clock(Math.max(0, lead), 1);
    put(at("position-text"), text);
    at("position").setAttribute("aria-valuetext", text);
    put(at("together"), columns.some(playing) ? "Pause" : "Play together");
    if (columns.some(playing)) moved();
  }

  function moved() {
    if (!drawing) drawing = requestAnimationFrame(refresh);
  }

  const end = (column) => (share() ? 1 : column.length_s);
  const over = (column) =>
    position(column) >= 0.99 * end(column) ||
    column.media.currentTime >= 0.99 * column.media.duration;

  // Where the columns stand: the first that plays, else the one furthest along.
  function furthest() {
    const first = columns.find(playing);
    return first ? position(first) : Math.max(0, ...columns.map(position));
  }

  // Resolves when a player has the picture of its time and can go on from there.
  const ready = ({ media }) =>
    new Promise((resolve) => {
      const events = ["seeked", "canplay", "error"];
      const look = () => {
        if (!media.error && (media.seeking || media.readyState < media.HAVE_FUTURE_DATA)) return;
        for (const event of events) media.removeEventListener(event, look);
        resolve();
      };
      for (const event of events) media.addEventListener(event, look);
      look();
    });

  async function together() {
    if (columns.some(playing)) return rest(players());
    const playable = players();
    const from = furthest();
    for (const column of playable) seek(column, from);
    if (playable.every(over)) for (const column of playable) seek(column, 0);
    const going = playable.filter((column) => !over(column)); // the others stay at their end
    const [lead] = going;
    await Promise.all(going.map(ready)); // so that none begins later than the others
    for (const column of going) {
      const rate = share() ? column.length_s / lead.length_s : 1;
      column.media.playbackRate = Math.min(RATES[1], Math.max(RATES[0], rate));
      column.media.muted = column !== lead; // one voice can be understood
      column.media.play().catch(() => {}); // the player says itself why it cannot
    }
    linked = going;
  }

  function rest(resting) {
    linked = linked.filter((column) => !resting.includes(column));
    for (const { media } of resting) {
      media.pause();
      media.muted = false;
      media.playbackRate = 1;
    }
  }

  // A player that fell behind, or ran ahead, of the first catches up.
  function follow() {
    const left = linked.filter((column) => !columns.includes(column) || !playing(column));
    if (left.length) rest(left);
    const [lead, ...others] = linked;
    for (const column of others) {
      const late_s = (position(lead) - position(column)) * (share() ? column.length_s : 1);
      const inside = position(lead) < end(column);
      if (inside && Math.abs(late_s) > APART_S && !column.media.seeking) seek(column, position(lead));
    }
  }

  // -- what is compared --------------------------------------------------------------------------

  function draw() {
    columns.forEach((column, i) => column.name("ABCDEF"[i], `look-${i}`));
    at("nothing").hidden = columns.length > 0;
    at("all").hidden = columns.length === 0;
    at("add-button").disabled = columns.length >= MOST || clips.size === 0;
    const known = columns.map((column) => column.view.interval).find(Boolean);
    put(at("band-name"), known ? `${Math.round(100 * known)} % intervals` : "Intervals");
    if (columns.length) {
      curves.show(columns, { axis: at("axis").value, band: at("band").checked });
      table();
      refresh();
    }
    const query = new URLSearchParams({
      ids: columns.map((column) => column.clip.id).join(","),
      people: columns.map((column) => column.person).join(","),
    });
    history.replaceState(null, "", `/compare?${query.toString().replaceAll("%2C", ",")}`);
  }

  function table() {
    const spread = (one) =>
      one ? `${maven.signed(one.mean)}  (${maven.signed(one.low)} to ${maven.signed(one.high)})` : "–";
    const percent = (value) => `${Math.round(100 * value)}\u00a0%`;
    const cells = ({ clip, row: { name, summary } }) => {
      const often = Object.entries(summary.regions).slice(0, 2);
      return [
        clip.name,
        name,
        page.length(summary.seconds),
        spread(summary.valence),
        spread(summary.arousal),
        often.map(([region, part]) => `${region} ${percent(part)}`).join(", ") || "–",
        [summary.face, summary.speech, summary.words].map(percent).join(", "),
      ];
    };
    const heads = ["", "Clip", "Person", "Length", "Valence (lowest to highest)",
      "Arousal (lowest to highest)", "Most often", "Face, speech, words seen"]; // prettier-ignore
    const kind = (k) => ([0, 5, 6].includes(k) ? "prose" : k === 1 ? null : "number");
    const cell = (text, k) => make("td", { class: kind(k), "data-head": heads[k + 1] }, text);
    at("table").replaceChildren(
      make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)))),
      make(
        "tbody",
        {},
        ...columns.map((column) => {
          const letter = make("span", { class: "letter" }, column.letter);
          const head = make("th", { scope: "row", class: column.look }, letter);
          return make("tr", {}, head, ...cells(column).map(cell));
        }),
      ),
    );
  }

  async function viewOf(id) {
    if (!views.has(id)) views.set(id, await page.ask(`/api/clips/${id}/view`));
    return views.get(id);
  }

  async function add(id, person) {
    const view = await viewOf(id);
    if (!view.people.length) {
      put(at("missing"), `There is nobody in ${clips.get(id).name}.`);
      return;
    }
    const shown = columns.filter((column) => column.clip.id === id).map((column) => column.person);
    const free = view.people.findIndex((_, k) => !shown.includes(k));
    const k = view.people[person] ? person : Math.max(0, free);
    const column = maven.compareColumn({
      clip: clips.get(id), view, person: k, changed: draw, moved, remove,
    }); // prettier-ignore
    columns.push(column);
    at("columns").append(column.element);
  }

  function remove(column) {
    column.media?.pause();
    columns = columns.filter((other) => other !== column);
    column.element.remove();
    draw();
    (at("columns").querySelector("button") ?? at("clip")).focus();
    page.say(`${column.clip.name} is removed`);
  }

  /** The columns that the address asks for. */
  async function load() {
    const { clips: all } = await page.ask("/api/clips");
    for (const clip of all.filter((one) => one.state === "done")) clips.set(clip.id, clip);
    at("clip").replaceChildren(
      ...[...clips.values()].map((clip) => make("option", { value: clip.id }, clip.name)),
    );
    if (!clips.size) at("clip").append(make("option", {}, "no finished clip"));
    const query = new URLSearchParams(location.search);
    const named = (query.get("ids") ?? "").split(",").filter(Boolean);
    const asked = named.slice(0, MOST);
    const people = (query.get("people") ?? "").split(",").map((text) => (text ? Number(text) : -1));
    const ids = asked.filter((id) => clips.has(id));
    const gone = asked.length - ids.length;
    await Promise.all(ids.map(viewOf)); // all are there, or the next try begins anew
    for (const [i, id] of asked.entries()) {
      if (clips.has(id)) await add(id, people[i] ?? -1);
    }
    if (ids.length === 1 && asked.length === 1 && !query.has("people")) {
      const rest = views.get(ids[0]).people.length - 1;
      for (let k = 0; k < Math.min(rest, MOST - 1); k++) await add(ids[0], -1);
    }
    const lines = [];
    if (named.length > MOST) lines.push("Six at most; the first six are shown.");
    if (gone === 1) lines.push("One clip is not there, or not finished.");
    else if (gone) lines.push(`${gone} clips are not there, or not finished.`);
    if (lines.length) put(at("missing"), lines.join(" "));
    draw();
    return null;
  }

  at("add").onsubmit = async (event) => {
    event.preventDefault();
    put(at("missing"), "");
    try {
      await add(at("clip").value, -1);
      draw();
    } catch (error) {
      if (!(error instanceof page.Refused)) throw error;
      put(at("missing"), error.message);
    }
  };
  at("axis").onchange = draw;
  at("band").onchange = draw;
  at("together").onclick = together;
  at("position").oninput = () => {
    const to = (at("position").value / 1000) * curves.end;
    for (const column of columns) seek(column, to);
  };
  addEventListener("pageshow", ({ persisted }) => {
    if (!persisted) return;
    rest(players()); // the browser stopped them as the page was left
    moved();
  });
  page.poll(load);
})();
