// The point that a rater moves: with a pointer or a finger on the dial, arrow keys, or a stick.
//
//   const input = maven.rater(surface, dial, {toggle})   toggle(): the stick's Start was pressed
//   input.point                {valence, arousal}, inside the disc
//   input.isHeld()             whether the button, the finger, the key H or the stick's A is down
//   input.allow(names)         which of "valence", "arousal" can be moved; the other stays at 0
//   input.put({valence, arousal})
//   input.key(event, down)     tell it of a key; true where it was one of its own
//   input.tick(now_ms)         once a picture: keys that stay down, the stick
"use strict";

window.maven = window.maven || {};

(function (maven) {
  const STEP = 0.05; // of a key that is pressed once
  const SPEED = 0.6; // a second, of one that stays down
  const FASTER = 3; // with Shift
  const STAYS_MS = 180; // before a key that is down moves the point on its own
  const WAKES = 0.2; // how far a stick must be moved to take over
  const REST = 0.06; // of a stick that nobody touches
  const ARROWS = {
    ArrowLeft: [-1, 0],
    ArrowRight: [1, 0],
    ArrowUp: [0, 1],
    ArrowDown: [0, -1],
  };

  maven.rater = function (surface, dial, { toggle }) {
    const point = { valence: 0, arousal: 0 };
    const down = new Map(); // arrow key -> when it was pressed, ms
    let allowed = ["valence", "arousal"];
    let pressed = false; // button or finger
    let gripped = false; // key H
    let stick = { leads: false, held: false, start: false };
    let fast = false;
    let then_ms = 0;

    function put(valence, arousal) {
      const kept = [
        allowed.includes("valence") ? valence : 0,
        allowed.includes("arousal") ? arousal : 0,
      ];
      const length = Math.max(1, Math.hypot(...kept));
      point.valence = kept[0] / length;
      point.arousal = kept[1] / length;
    }

    const step = ([right, up], by) => put(point.valence + right * by, point.arousal + up * by);

    function follow(event) {
      stick.leads = false;
      put(...dial.at(event));
    }

    function release() {
      pressed = false;
    }

    surface.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      surface.setPointerCapture(event.pointerId);
      surface.focus({ preventScroll: true });
      pressed = true;
      follow(event);
    });
    surface.addEventListener("pointermove", follow);
    surface.addEventListener("pointerup", release);
    surface.addEventListener("pointercancel", release);
    window.addEventListener("blur", () => {
      down.clear();
      gripped = false;
    });

    function key(event, isDown) {
      const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      fast = event.shiftKey;
      if (name === "h") gripped = isDown;
      else if (name === "c" && isDown) put(0, 0);
      else if (name in ARROWS && isDown) {
        stick.leads = false;
        if (!down.has(name)) step(ARROWS[name], STEP * (fast ? FASTER : 1));
        if (!down.has(name)) down.set(name, performance.now());
      } else if (name in ARROWS) down.delete(name);
      else return false;
      return true;
    }

    function pad() {
      const found = [...(navigator.getGamepads?.() || [])].find((one) => one?.axes.length >= 2);
      if (!found) return;
      const [right, low] = found.axes;
      const away = Math.hypot(right, low);
      if (away > WAKES) stick.leads = true;
      if (stick.leads) put(...(away > REST ? [right, -low] : [0, 0]));
      stick.held = Boolean(found.buttons[0]?.pressed);
      const start = Boolean(found.buttons[9]?.pressed);
      if (start && !stick.start) toggle();
      stick.start = start;
    }

    function tick(now_ms) {
      const by = (Math.min(now_ms - then_ms, 100) / 1000) * SPEED * (fast ? FASTER : 1);
      then_ms = now_ms;
      for (const [name, since_ms] of down) {
        if (now_ms - since_ms > STAYS_MS) step(ARROWS[name], by);
      }
      pad();
    }

    return {
      point,
      key,
      tick,
      put: (wanted) => put(wanted.valence, wanted.arousal),
      allow(names) {
        allowed = names;
        put(point.valence, point.arousal);
      },
      isHeld: () => pressed || gripped || stick.held,
      hasStick: () => stick.leads,
    };
  };
})(window.maven);
