/* One person of one clip beside others: its video, its circumplex, what holds at its time.

     const column = maven.compareColumn({clip, view, person, changed, moved, remove})
     column.element, .media (null where there is none), .series, .start_s, .length_s
     column.time_s(), .seek(time_s), .name(letter, look), .refresh(), .person */
"use strict";

(() => {
  const { maven } = window;
  const { make, put } = maven.page;
  const TRAIL_S = 3;
  const MOST_POINTS = 1500; // of the path in a circumplex

  function player(view, missing) {
    if (!view.media.src) {
      put(missing, "There is no video or sound to play.");
      return null;
    }
    const media = make(view.video ? "video" : "audio", {
      src: view.media.src,
      poster: view.video ? view.media.poster : null,
      controls: true,
      playsinline: true,
      preload: "auto",
    });
    media.addEventListener("error", () =>
      put(missing, "It cannot be played: the clip was deleted, or maven has stopped."),
    );
    return media;
  }

  maven.compareColumn = function ({ clip, view, person, changed, moved, remove }) {
    const letter = make("span", { class: "letter" });
    const title = make("a", { href: `/clips/${clip.id}` }, clip.name);
    const choice = make("select", {}, ...view.people.map((one, k) => make("option", { value: k }, one.name)));
    const missing = make("p", { class: "muted small", role: "status" });
    const reading = make("p", { class: "number reading" });
    const circle = make("div", { class: "circle" });
    const close = make("button", { type: "button", class: "small", onclick: () => remove(column) }, "Remove");
    const media = player(view, missing);
    const element = make(
      "article",
      { class: "panel column" },
      make("div", { class: "column-head" }, make("h3", {}, letter, " ", title), close),
      make("div", { class: "column-person" }, view.people.length > 1 ? choice : view.people[0].name),
      make("div", { class: "column-parts" }, make("div", { class: "screen" }, media, missing), circle),
      reading,
    );
    const dial = maven.dial(circle, view.circle, { label: `Circumplex of ${clip.name}` });
    let set_s = view.start_s; // where there is no player to ask

    const column = {
      element,
      media,
      clip,
      view,
      start_s: view.start_s,
      length_s: Math.max(view.end_s - view.start_s, 0.1),
      time_s: () => (media ? media.currentTime + view.media.offset_s : set_s),
      seek(time_s) {
        set_s = Math.min(Math.max(time_s, view.start_s), view.end_s);
        if (media) media.currentTime = Math.max(0, set_s - view.media.offset_s);
        moved();
      },
      name(text, look) {
        column.letter = text;
        column.look = look;
        put(letter, text);
        element.className = `panel column ${look}`;
        close.setAttribute("aria-label", `Remove ${text}, ${clip.name}`);
        choice.setAttribute("aria-label", `Person of ${text}`);
      },
      refresh() {
        const time_s = column.time_s();
        const at = column.series.reading(time_s);
        const point = at && [at.valence, at.arousal];
        dial.show(column.series.trail(time_s, TRAIL_S), point, at && at.box);
        const values = at
          ? `valence ${maven.signed(at.valence)}  arousal ${maven.signed(at.arousal)}  ${dial.name(...point)}`
          : "no answer here";
        put(reading, `${maven.clock(Math.max(0, time_s - view.start_s), 1)}  ${values}`);
      },
    };

    function choose(k) {
      column.person = k;
      column.row = view.people[k];
      column.series = maven.series(view.people[k]);
      choice.value = String(k);
      dial.path(column.series.course(MOST_POINTS));
    }
    choice.onchange = () => {
      choose(Number(choice.value));
      changed();
    };
    for (const event of ["play", "pause", "seeked", "timeupdate", "ended", "loadedmetadata"]) {
      media?.addEventListener(event, moved);
    }
    choose(person);
    return column;
  };
})();
