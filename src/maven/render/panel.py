"""What runs below the picture: circumplex, curves, words, and what was observed.

The panel is made of a still ground and a few patches for each picture. Curves are drawn ahead in
tiles as wide as what is shown of them, so that a picture only cuts its part out of two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from maven import circumplex
from maven.render import lettering
from maven.render.caption import Caption
from maven.render.dial import FAINT, INK, LINE, MUTED, PAGE, SURFACE, Dial
from maven.render.lettering import Colour, Picture, fill, lay, write
from maven.render.shown import Now, Shown
from maven.transcript import Word

# Of the colours of Okabe & Ito (2008), lightened for a dark ground.
CURVES = {"valence": (86, 180, 233), "arousal": (230, 159, 0)}
PEOPLE = ((47, 199, 154), (240, 228, 66), (221, 148, 189), (240, 131, 64))
ANYONE = (190, 196, 202)  # whoever is in the picture beyond those
DASHES_S = ((1.0, 1.0), (0.5, 0.35), (0.25, 0.125), (1.2, 0.95))  # period, how much of it is drawn

PAST_S, FUTURE_S = 7.5, 2.5
TRAIL_S, TRAIL_POINTS = 4.0, 80
TICK_S = 2
REGION_AT, SHARES_AT = 112, 198  # of a person's row, in units from its left end
FINER = 2  # curves are drawn so many times larger, then averaged

Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1
Answers = dict[int, tuple[Shown, Now]]  # by slot


@dataclass(frozen=True)
class Layout:
    """Where things are in the panel, in pixels; `unit_px` is what all sizes are multiples of."""

    width_px: int
    height_px: int
    unit_px: float
    words: Rectangle | None
    dial: Rectangle
    labels: tuple[Rectangle, Rectangle]
    strips: tuple[Rectangle, Rectangle]
    ticks: Rectangle
    rows: tuple[Rectangle, ...]

    def px(self, units: float) -> int:
        """Turn units into whole pixels."""
        return round(units * self.unit_px)


def layout(width_px: int, height_px: int, people: int, words: bool) -> Layout:
    """Place things below a picture of this size, which is at least 480 wide.

    The unit is a 640th of the width; more below a tall picture, which is looked at from afar.
    """
    unit_px = min(max(width_px / 640, height_px / 1000), width_px / 480)

    def px(units: float) -> int:
        return round(units * unit_px)

    left, right, top = px(8), width_px - px(8), px(6)
    spoken = (left, top, right, top + px(25)) if words else None
    top += px(31) if words else px(2)
    dial = (left, top, left + px(144), top + px(144))
    strips_left, strip = dial[2] + px(84), px(60)
    first = (strips_left, top, right, top + strip)
    second = (strips_left, first[3] + px(7), right, first[3] + px(7) + strip)
    ticks = (strips_left, second[3], right, second[3] + px(17))
    labels = tuple((dial[2] + px(12), s[1], strips_left - px(4), s[3]) for s in (first, second))
    top = dial[3] + px(6)
    rows = tuple((left, top + k * px(26), right, top + (k + 1) * px(26)) for k in range(people))
    height = top + people * px(26) + px(4)
    return Layout(
        width_px,
        height + (height_px + height) % 2,  # with the picture, an even height
        unit_px,
        spoken,
        dial,
        (labels[0], labels[1]),
        (first, second),
        ticks,
        rows,
    )


class Panel:
    """Draws the panel at any time.

    Args:
        place: from `layout`.
        people: everyone; those that have a slot are drawn, in its colour.
        words: as spoken; none where `place` has no room for them.
    """

    def __init__(self, place: Layout, people: Sequence[Shown], words: Sequence[Word]) -> None:
        self.place = place
        self._slots = [[p for p in people if p.slot == k] for k in range(len(place.rows))]
        self._alone = sum(map(len, self._slots)) == 1
        self._start_s = min((p.time_s[0] for slot in self._slots for p in slot), default=0.0)
        self._caption = None
        if place.words is not None:
            x0, _, x1, y1 = place.words
            self._caption = Caption(words, x1 - x0, y1 - place.words[1], place.px(17))
        x0, _, x1, _ = place.strips[0]
        self._px_per_s = (x1 - x0) / (PAST_S + FUTURE_S)
        self._dial = Dial(place.dial[2] - place.dial[0], place.unit_px)
        self._tile = lru_cache(3)(self._draw_tile)
        self._ground = np.full((place.height_px, place.width_px, 3), PAGE, np.uint8)
        self._draw_ground()

    def draw(self, time_s: float) -> Picture:
        """Return the panel (h, w, 3) at a time."""
        panel = self._ground.copy()
        here = [
            next((p for p in slot if p.span_s[0] <= time_s < p.span_s[1]), None)
            for slot in self._slots
        ]
        now = {k: (person, person.at(time_s)) for k, person in enumerate(here) if person}
        if self._caption is not None and self.place.words is not None:
            x0, y0, x1, y1 = self.place.words
            panel[y0:y1, x0:x1] = self._caption.at(time_s)
        self._put_strips(panel, time_s, now)
        x0, y0, x1, y1 = self.place.dial
        trail_s = time_s - TRAIL_S * np.arange(TRAIL_POINTS)[::-1] / (TRAIL_POINTS - 1)
        for k, (person, answer) in reversed(now.items()):  # the first on top
            va = answer.valence, answer.arousal
            course = person.course(trail_s)
            self._dial.put(panel[y0:y1, x0:x1], course, va, PEOPLE[k], self._number(person))
        for k, (person, answer) in now.items():
            self._put_row(panel, k, person, answer)
        return panel

    def _number(self, person: Shown) -> str | None:
        """What tells points apart where there are several: the number of the face."""
        return None if self._alone else person.name.split()[-1]

    def _draw_ground(self) -> None:
        px, ground = self.place.px, self._ground
        for (x0, y0, x1, y1), (what, colour) in zip(self.place.labels, CURVES.items(), strict=True):
            above = (y0 + y1) / 2 - (px(9) if self._alone else 0)
            write(ground, x0, above, what, px(13), colour if self._alone else INK, bold=True)
            for level, y in (("+1", y0 + px(5)), ("0", (y0 + y1) / 2), ("−1", y1 - px(5))):
                write(ground, x1, y, level, px(10), MUTED, anchor=1)
        x0, y0, x1, y1 = self.place.dial
        ground[y0:y1, x0:x1] = self._dial.ground

    def _put_strips(self, panel: Picture, time_s: float, now: Answers) -> None:
        """Cut the curves around a time out of their tiles; what is to come is dimmed."""
        x0, y0, x1, _ = self.place.strips[0]
        bottom, width, px = self.place.ticks[3], x1 - x0, self.place.px
        now_px = round(PAST_S * self._px_per_s)
        first = round(time_s * self._px_per_s) - now_px  # column of the course at the left edge
        tile, start = divmod(first, width)
        part = panel[y0:bottom, x0:x1]
        part[:, : width - start] = self._tile(tile)[:, start:]
        part[:, width - start :] = self._tile(tile + 1)[:, :start]
        self._put_ticks(panel, first)
        to_come = part[: self.place.ticks[1] - y0, now_px:]
        to_come[:] = to_come // 2 + np.array(PAGE, np.uint8) // 2
        strips = [(s[1] - y0, s[3] - y0) for s in self.place.strips]
        for top, end in strips:
            fill(part, now_px - px(0.7), top, now_px + max(px(0.7), 1), end, INK)
        for k, (_, answer) in reversed(now.items()):
            values = (answer.valence, answer.arousal)
            for (top, end), value, curve in zip(strips, values, CURVES.values(), strict=True):
                if np.isfinite(value):
                    mask, y = lettering.disc(px(4)), _level(value, top, end)
                    half = len(mask) // 2
                    lay(part, mask, now_px - half, y - half, curve if self._alone else PEOPLE[k])
        for _, answer in now.values() if self._alone else ():
            values = (answer.valence, answer.arousal)
            for (x, top, _, end), value in zip(self.place.labels, values, strict=True):
                written = f"{value:+.2f}".replace("-", "\u2212") if np.isfinite(value) else "\u2013"
                write(panel, x, (top + end) / 2 + px(9), written, px(13), INK)

    def _draw_tile(self, number: int) -> Picture:
        """Draw the curves of one stretch of time, as wide as the strips."""
        from PIL import Image, ImageDraw

        x0, y0, x1, _ = self.place.strips[0]
        px, width, bottom = self.place.px, x1 - x0, self.place.ticks[3]
        image = Image.new("RGB", (width * FINER, (bottom - y0) * FINER), PAGE)
        pen = ImageDraw.Draw(image)
        start_s, end_s = (number + np.arange(2)) * width / self._px_per_s
        ticks_s = np.arange(start_s // TICK_S, end_s // TICK_S + 2) * TICK_S
        strips = [(FINER * (s[1] - y0), FINER * (s[3] - y0)) for s in self.place.strips]
        x = np.arange(-2, width + 3) * FINER  # a little over the edge: no seam between two tiles
        times_s = start_s + x / FINER / self._px_per_s
        for which, ((top, end), colour) in enumerate(zip(strips, CURVES.values(), strict=True)):
            pen.rectangle((0, top, width * FINER, end - 1), fill=SURFACE)
            for tick_s in ticks_s:
                at = (tick_s - start_s) * self._px_per_s * FINER
                pen.line([(at, top), (at, end - 1)], fill=LINE, width=FINER)
            middle = _level(0.0, top, end)
            pen.line([(0, middle), (width * FINER, middle)], fill=FAINT, width=FINER)
            everyone = [(k, person) for k, slot in enumerate(self._slots) for person in slot]
            for k, person in reversed(everyone):
                if person.time_s[-1] < times_s[0] or times_s[-1] < person.time_s[0]:
                    continue
                shade = colour if self._alone else PEOPLE[k]
                ends = _level(person.intervals(times_s)[:, 2 * which : 2 * which + 2], top, end)
                for run in _runs(ends.sum(axis=1)) if self._alone else ():
                    there = zip(x[run], ends[run, 0], strict=True)
                    back = zip(x[run][::-1], ends[run, 1][::-1], strict=True)
                    pen.polygon([*there, *back], fill=_mixed(SURFACE, colour, 0.28))
                y = _level(person.course(times_s)[:, which], top, end)
                period_s, part_s = DASHES_S[k]
                for run in _runs(np.where(np.mod(times_s, period_s) < part_s, y, np.nan)):
                    line = list(zip(x[run], y[run], strict=True))
                    pen.line(line, fill=shade, width=FINER * max(px(2), 1), joint="curve")
        return np.asarray(image.reduce(FINER))

    def _put_ticks(self, panel: Picture, first: int) -> None:
        """Write the times below the curves that fit wholly; `first` is the column at the left."""
        left, top, right, bottom = self.place.ticks
        size = self.place.px(10)
        last_s = (first + right - left) / self._px_per_s
        for number in range(int(first / self._px_per_s // TICK_S), int(last_s // TICK_S) + 1):
            tick_s, text = number * TICK_S, _clock(number * TICK_S)
            at = left + tick_s * self._px_per_s - first
            half = lettering.text(text, size).shape[1] / 2
            if tick_s > self._start_s - TICK_S / 2 and left <= at - half and at + half <= right:
                write(panel, at, (top + bottom) / 2, text, size, MUTED, anchor=0.5)

    def _put_row(self, panel: Picture, k: int, person: Shown, answer: Now) -> None:
        """Tell who, in which region, and what was observed with which share."""
        px, (x0, y0, x1, y1) = self.place.px, self.place.rows[k]
        middle = (y0 + y1) / 2
        there = any(answer.has)
        self._dial.put_point(panel, x0 + px(10), middle, PEOPLE[k], self._number(person))
        room = px(REGION_AT - 4 - 24)
        name = lettering.shortened(person.name, px(13), room, bold=True)
        write(panel, x0 + px(24), middle, name, px(13), INK if there else MUTED, bold=True)
        known = np.isfinite(answer.valence)
        region = str(circumplex.region(np.array(answer.valence), np.array(answer.arousal)))
        written = region if known else "no answer" if self._alone or there else "not seen"
        write(panel, x0 + px(REGION_AT), middle, written, px(13), INK if known else FAINT)
        if not self._alone:  # how this person's curves are dashed
            period, part = (round(dash_s * self._px_per_s) for dash_s in DASHES_S[k])
            for dash in range(x0 + px(24), x0 + px(182), period):
                end = min(dash + part, x0 + px(182))
                fill(panel, dash, y1 - px(5), end, y1 - px(5) + max(px(2), 1), PEOPLE[k])
        left, cell = x0 + px(SHARES_AT), (x1 - x0 - px(SHARES_AT)) / 3
        for i, what in enumerate(("face", "voice", "words")):
            weight = answer.weights[i] if answer.has[i] and np.isfinite(answer.weights[i]) else 0.0
            x, right, y = left + i * cell, left + (i + 1) * cell - px(10), y1 - px(6)
            share = f"{100 * weight:.0f}\u2009%" if answer.has[i] else "\u2013"
            ink = INK if answer.has[i] else FAINT
            write(panel, x, middle - px(3), what, px(12), ink)
            write(panel, right, middle - px(3), share, px(12), ink, anchor=1)
            fill(panel, x, y, right, y + px(4), LINE if answer.has[i] else SURFACE)
            fill(panel, x, y, x + (right - x) * weight, y + px(4), PEOPLE[k])


def _level(value: Any, top: float, bottom: float) -> Any:
    """Turn a value in [-1, 1] into a height within a strip."""
    edge = 0.06 * (bottom - top)
    return (top + bottom) / 2 - value * ((bottom - top) / 2 - edge)


def _runs(values: npt.NDArray[Any]) -> list[npt.NDArray[np.intp]]:
    """Find the runs of known values, by their places."""
    known = np.flatnonzero(np.isfinite(values))
    return np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if len(known) else []


def _mixed(under: Colour, over: Colour, part: float) -> Colour:
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(under, over, strict=True))
    return red, green, blue


def _clock(time_s: float) -> str:
    whole = round(abs(time_s))
    sign, minutes, seconds = "\u2212" if time_s < 0 else "", whole // 60, whole % 60
    if minutes >= 60:
        return f"{sign}{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return f"{sign}{minutes}:{seconds:02}"
