// The last minute of live answers as running curves.
//
//   const running = maven.running(canvas);
//   running.show(answers)   the newest last; rows as `/api/live` gives them
//   running.clear()
//
// Valence is a whole line, arousal a dashed one; below: where a face was seen, a voice was heard.
"use strict";

(() => {
  const maven = (window.maven = window.maven || {});

  const SPAN_S = 60;
  const STEP_S = 0.1; // between answers
  const GAP_S = 0.55; // answers further apart are not joined
  const STRIPS = [
    ["has_face", "face", "--face"],
    ["has_speech", "voice", "--voice"],
  ];
  const LINES = [
    ["valence", "--valence", "--valence-ink", []],
    ["arousal", "--arousal", "--arousal-ink", [6, 4]],
  ];
  const [LEFT, RIGHT, TOP, STRIP] = [34, 98, 8, 16]; // px

  maven.running = function (canvas) {
    let answers = [];

    function colours() {
      const style = getComputedStyle(canvas);
      return (name) => style.getPropertyValue(name).trim();
    }

    function prepared() {
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      const scale = window.devicePixelRatio || 1;
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      const pen = canvas.getContext("2d");
      pen.setTransform(scale, 0, 0, scale, 0, 0);
      pen.font = "12px system-ui, sans-serif";
      pen.textBaseline = "middle";
      return [pen, width, height];
    }

    function grid(pen, colour, x, y, right, bottom) {
      pen.lineWidth = 1;
      for (const value of [-1, -0.5, 0, 0.5, 1]) {
        pen.strokeStyle = colour(value ? "--line" : "--muted");
        pen.beginPath();
        pen.moveTo(LEFT, y(value));
        pen.lineTo(right, y(value));
        pen.stroke();
      }
      pen.fillStyle = colour("--muted");
      pen.textAlign = "right";
      for (const value of [-1, 0, 1]) {
        pen.fillText(["−1", "0", "+1"][value + 1], LEFT - 8, y(value));
      }
      pen.textAlign = "center";
      const step_s = right - LEFT > 500 ? 10 : 20;
      for (let ago_s = 0; ago_s <= SPAN_S; ago_s += step_s) {
        pen.fillText(ago_s ? `−${ago_s} s` : "now", x(-ago_s), bottom + 10);
      }
    }

    function line(pen, name, points, x, y) {
      let last_s = null;
      pen.beginPath();
      for (const point of points) {
        const joins = last_s !== null && point.time_s - last_s < GAP_S;
        last_s = point[name] === null ? null : point.time_s;
        if (last_s === null) continue;
        if (joins) pen.lineTo(x(point.time_s), y(point[name]));
        else pen.moveTo(x(point.time_s), y(point[name]));
      }
      pen.stroke();
    }

    // Names beside the ends of the lines, moved apart where these meet.
    function ends(pen, colour, point, right, y) {
      const [first, second] = LINES.map(([name]) => (point[name] === null ? null : y(point[name])));
      const near = first !== null && second !== null && Math.abs(first - second) < 15;
      const apart = near ? (15 - Math.abs(first - second)) / 2 : 0;
      const up = first <= second ? -apart : apart;
      pen.textAlign = "left";
      LINES.forEach(([name, , ink], k) => {
        if (point[name] === null) return;
        pen.fillStyle = colour(ink);
        const height = k ? second - up : first + up;
        pen.fillText(`${name} ${maven.signed(point[name])}`, right + 6, height);
      });
    }

    function strip(pen, colour, [has, name, paint], top, x, right, points) {
      pen.fillStyle = colour("--raised");
      pen.fillRect(LEFT, top, right - LEFT, STRIP - 6);
      pen.fillStyle = colour(paint);
      let since_s = null; // of a stretch without a gap
      points.forEach((point, i) => {
        if (point[has] && since_s === null) since_s = point.time_s;
        const next = points[i + 1];
        const joins = next && point[has] && next[has] && next.time_s - point.time_s < GAP_S;
        if (since_s === null || joins) return;
        const until_s = next ? Math.min(next.time_s, point.time_s + STEP_S) : point.time_s;
        const from = Math.max(LEFT, x(since_s));
        pen.fillRect(from, top, Math.max(1, x(until_s) - from), STRIP - 6);
        since_s = null;
      });
      const last = points[points.length - 1];
      pen.fillStyle = colour(last && last[has] ? "--ink" : "--muted");
      pen.textAlign = "left";
      pen.fillText(last && !last[has] ? `no ${name}` : name, right + 6, top + (STRIP - 6) / 2);
    }

    function draw() {
      const colour = colours();
      const [pen, width, height] = prepared();
      const right = width - RIGHT;
      const bottom = height - 22;
      const floor = bottom - STRIPS.length * STRIP - 8;
      const now_s = answers.length ? answers[answers.length - 1].time_s : 0;
      const across = (ago_s) => right + (ago_s / SPAN_S) * (right - LEFT);
      const x = (time_s) => across(time_s - now_s);
      const y = (value) => TOP + ((1 - value) / 2) * (floor - TOP);
      grid(pen, colour, across, y, right, bottom);
      const points = answers.filter((answer) => answer.time_s >= now_s - SPAN_S);
      STRIPS.forEach((each, k) => {
        strip(pen, colour, each, floor + 10 + k * STRIP, x, right, points);
      });
      pen.lineWidth = 2;
      pen.lineJoin = "round";
      for (const [name, paint, , dash] of LINES) {
        pen.strokeStyle = colour(paint);
        pen.setLineDash(dash);
        line(pen, name, points, x, y);
      }
      pen.setLineDash([]);
      if (points.length) ends(pen, colour, points[points.length - 1], right, y);
    }

    const redraw = () => requestAnimationFrame(draw);
    new ResizeObserver(redraw).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    redraw();

    return {
      show(rows) {
        answers = rows.slice(-SPAN_S * 12);
        draw();
      },
      clear() {
        answers = [];
        redraw();
      },
    };
  };
})();
