/* The ratings of one person of a clip: scores against the prediction, curves, raters, agreement.
   They are shown when somebody has saved or asks for them, and hidden again while rating. */
"use strict";

(() => {
  const { maven } = window;
  const { page } = maven;
  const { make, put } = page;
  const NAMES = ["valence", "arousal"];
  const VA = "V\u00a0/\u00a0A"; // stays on one line
  const OTHERS = 8; // that are drawn

  const number = maven.signed;
  const plain = (value) => (value === null ? "–" : value.toFixed(2));
  const seconds = (value) => (value === null ? "none" : `${number(value)} s`);

  const both = (pair, text) => NAMES.map((name) => text(pair[name])).join(" / ");

  // On a narrow screen each row is a card, and the heads stand beside the values.
  function table(caption, head, rows) {
    const cell = (value, i) =>
      make(i ? "td" : "th", { scope: i ? null : "row", "data-head": head[i] || null }, value);
    const top = make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)));
    return make(
      "div",
      { class: "wide", tabindex: 0, role: "region", "aria-label": caption },
      make(
        "table",
        {},
        make("caption", {}, caption),
        make("thead", {}, top),
        make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))),
      ),
    );
  }

  function tile(label, value, note = "") {
    const text = make("dd", {}, make("span", { class: "number" }, value));
    if (note) text.append(make("small", { class: "muted" }, note));
    return make("div", { class: "tile" }, make("dt", {}, label), text);
  }

  maven.ratings = function (element, { path, view, at, clock, removed }) {
    const body = at("results-body");
    let person = 0;
    let scores = null;
    let chosen = null; // id of a rating
    let curves = null;
    let drawn = [];
    let shifted = false;
    let about = "";
    const points = new Map(); // id -> rating with its points

    async function ask() {
      const got = await page.ask(`${path}/scores?person=${person}`);
      if (got.person !== person) return; // another was chosen meanwhile
      scores = got;
      const { ratings } = scores;
      const raters = new Set(ratings.map(({ rater }) => rater)).size;
      const many = (count, text) => `${count} ${text}${count === 1 ? "" : "s"}`;
      about = `${many(ratings.length, "rating")} by ${many(raters, "rater")}.`;
      if (!ratings.length) about = "None yet.";
      open(!body.hidden);
      at("show").hidden = !ratings.length;
      if (!ratings.some((rating) => rating.id === chosen)) chosen = ratings.at(-1)?.id ?? null;
    }

    function open(isOpen) {
      body.hidden = !isOpen;
      const warned = isOpen || !scores?.ratings.length;
      put(at("results-about"), warned ? about : `${about} Seeing them may sway your own.`);
      put(at("show"), isOpen ? "Hide them" : "Show them");
      at("show").setAttribute("aria-expanded", String(isOpen));
    }

    async function trace(rating, kind) {
      if (!points.has(rating.id)) {
        points.set(rating.id, await page.ask(`${path}/ratings/${rating.id}`));
      }
      return { ...points.get(rating.id), label: rating.rater, kind };
    }

    async function fill() {
      const { ratings, agreement } = scores;
      const rating = ratings.find(({ id }) => id === chosen);
      if (!rating) return open(false);
      curves = make("div", { class: "curves-both" });
      body.replaceChildren(
        tiles(rating),
        make("div", { class: "panel" }, curves),
        make("div", { class: "panel" }, ...list(ratings)),
        ...(agreement ? [make("div", { class: "panel" }, ...agreed(agreement))] : []),
      );
      open(true);
      const others = ratings.filter(({ id, latest }) => latest && id !== chosen).slice(-OTHERS);
      drawn = await Promise.all([
        trace(rating, "chosen"),
        ...others.map((other) => trace(other, "other")),
      ]);
      draw();
    }

    function draw() {
      if (curves && !body.hidden) {
        maven.ratedCurves(curves, view.people[person], drawn, [view.start_s, view.end_s]);
      }
    }

    function tiles(rating) {
      const flat =
        rating.lag_s === null
          ? "no clear maximum"
          : `${number(rating.lag_low_s)} to ${number(rating.lag_high_s)} s`;
      return make(
        "div",
        { class: "panel" },
        make("h3", {}, `${rating.rater} and the prediction`),
        make(
          "dl",
          { class: "tiles" },
          tile("CCC valence", number(rating.ccc.valence)),
          tile("CCC arousal", number(rating.ccc.arousal)),
          tile("CCC mean", number(rating.ccc_mean)),
          tile("Lag", seconds(rating.lag_s), flat),
          tile("CCC at that lag", number(rating.ccc_at_lag)),
        ),
        make(
          "p",
          { class: "muted small" },
          "CCC: 1 is full agreement, 0 none. Lag: how late the rating comes; people need 1 to 3 s. " +
            "Below it the range in which the CCC is hardly lower.",
        ),
      );
    }

    function list(ratings) {
      const head = ["Rater", "Saved", "Rated", `CCC ${VA}`, `RMSE ${VA}`, `Same sign ${VA}`, "Lag",
        "CCC at lag", ""];
      const rows = ratings.map((rating) => [
        make(
          "span",
          {},
          make(
            "button",
            { class: "link", type: "button", "aria-pressed": String(rating.id === chosen),
              onclick: () => choose(rating.id) },
            rating.rater,
          ),
          rating.latest ? null : make("small", { class: "muted" }, " older"),
        ),
        page.when(rating.created),
        clock(rating.rated_s),
        both(rating.ccc, number),
        both(rating.rmse, plain),
        both(rating.sagr, (share) => (share === null ? "–" : page.percent(share))),
        seconds(rating.lag_s),
        number(rating.ccc_at_lag),
        make(
          "span",
          { class: "buttons" },
          labels(`${path}/ratings/${rating.id}/affwild2?`, "Labels", `Labels of ${rating.rater}`),
          make(
            "button",
            { type: "button", class: "danger small", onclick: () => remove(rating),
              "aria-label": `Delete the rating of ${rating.rater}` },
            "Delete",
          ),
        ),
      ]);
      const shift = make("input", { type: "checkbox", id: "shift", checked: shifted });
      shift.addEventListener("change", () => {
        shifted = shift.checked;
        for (const link of body.querySelectorAll("a[data-labels]")) point(link);
      });
      const mean = labels(
        `${path}/ratings/mean/affwild2?person=${person}&`, "Labels of the mean of all raters");
      return [
        table("All ratings of this person", head, rows),
        make(
          "div",
          { class: "take-labels" },
          mean,
          make("label", { class: "check" }, shift, "Take the delays out"),
        ),
        make(
          "p",
          { class: "muted small" },
          "Labels are text files as in Aff-Wild2: a line a frame, −5,−5 where nobody rated. " +
            "Of a rater with several ratings the last one counts for the mean.",
        ),
      ];
    }

    function labels(address, text, label = null) {
      const link = make(
        "a", { class: "button small", download: true, "data-labels": address, "aria-label": label },
        text);
      point(link);
      return link;
    }

    const point = (link) => {
      link.href = `${link.dataset.labels}shift=${shifted}`;
    };

    function agreed(found) {
      const pairs = found.raters.map((rater, i) => [
        rater,
        ...found.raters.map((_, j) =>
          i === j
            ? "–"
            : both(found.pairwise[i][j], number),
        ),
        both(found.others[i], number),
      ]);
      const rows = NAMES.map((name) => [
        name[0].toUpperCase() + name.slice(1),
        number(found.mean_pairwise[name]),
        number(found[name].icc_single),
        number(found[name].icc_mean),
        number(found[name].consistency_single),
        number(found[name].alpha),
      ]);
      return [
        make("h3", {}, "How the raters agree"),
        make("p", {}, `${clock(found.overlap_s)} rated by all ${found.raters.length}.`),
        table(
          "Over all raters",
          ["", "Mean CCC of pairs", "ICC(2,1)", "ICC(2,k)", "ICC(3,1)", "Cronbach’s alpha"],
          rows,
        ),
        table("CCC of pairs: valence / arousal", ["", ...found.raters, "Mean of the others"], pairs),
      ];
    }

    async function guarded(work) {
      try {
        await work();
      } catch (error) {
        if (!(error instanceof page.Refused)) throw error;
        put(at("results-about"), error.message);
      }
    }

    const choose = (id) =>
      guarded(async () => {
        chosen = id;
        await fill();
        body.querySelector("button[aria-pressed=true]").focus();
      });

    const remove = (rating) =>
      guarded(async () => {
        const text = `It is removed from ${page.COMPUTER}, and the scores are made without it.`;
        if (!(await page.sure(`Delete the rating of ${rating.rater}?`, text, "Delete"))) return;
        await page.ask(`${path}/ratings/${rating.id}`, { method: "DELETE" });
        points.delete(rating.id);
        await ask();
        await fill();
        removed();
        (at("show").hidden ? at("results-title") : at("show")).focus();
        page.say(`The rating of ${rating.rater} is deleted`);
      });

    at("show").addEventListener("click", () =>
      guarded(async () => {
        if (body.hidden) await fill();
        else open(false);
      }),
    );
    new ResizeObserver(draw).observe(element);
    open(false);

    return {
      hide: () => open(false),
      person: (k) =>
        guarded(async () => {
          person = k;
          open(false);
          await ask();
        }),
      async show(id) {
        chosen = id;
        await ask();
        await fill();
        element.scrollIntoView({ block: "start" });
      },
    };
  };
})();
