"""One person's rows as a moving picture asks for them: what is known at a time, and where the face
is. Rows may be fewer than pictures: between two of them values and boxes are interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maven.config import MODALITIES
from maven.render import tables
from maven.render.tables import BOX, OBSERVED, Chunk

if TYPE_CHECKING:
    import pandas as pd

Singles = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.intp]
Parts = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]  # x, y, width, height, in pixels

GAP_S = 2.0  # of several people, who is not seen for longer is not shown meanwhile
BRIEF_S = 1.0  # a face seen for less in all has no place in the panel
SLACK_S = 1e-4  # a row is at a picture's time if no further off: text files round times
VALUES = ("valence", "arousal")
ENDS = ("valence_low", "valence_high", "arousal_low", "arousal_high")
WEIGHTS = tuple(f"{name}_weight" for name in MODALITIES)


@dataclass(frozen=True)
class Now:
    """What is known at one time; what is not is NaN and False.

    Attributes:
        valence, arousal: the answer.
        has: face, voice, words were observed.
        weights: their shares.
    """

    valence: float
    arousal: float
    has: tuple[bool, ...]
    weights: tuple[float, ...]


NOTHING = Now(np.nan, np.nan, (False,) * 3, (np.nan,) * 3)


@dataclass(frozen=True, eq=False)
class Face:
    """Where a face was seen, in order of time.

    Attributes:
        box_s, boxes_px: (k,), (k, 4).
        step_s: between two pictures that were looked at, usually.
    """

    box_s: npt.NDArray[np.float64]
    boxes_px: Singles
    step_s: float

    def box(self, time_s: float) -> Box | None:
        """Give the box of the face at a time, None where it was not seen."""
        i, j = self._around(time_s)
        if i >= 0 and time_s - self.box_s[i] <= SLACK_S:
            return _box(self.boxes_px[i])
        if i >= 0 and j < len(self.box_s) and self.box_s[j] - self.box_s[i] < 1.5 * self.step_s:
            part = (time_s - self.box_s[i]) / (self.box_s[j] - self.box_s[i])
            return _box(self.boxes_px[i] + (self.boxes_px[j] - self.boxes_px[i]) * part)
        for k in (i, j):
            if 0 <= k < len(self.box_s) and abs(time_s - self.box_s[k]) <= self.step_s / 2:
                return _box(self.boxes_px[k])
        return None

    def cover(self, time_s: float, gap_s: float, hold_s: float) -> Box | None:
        """Give a box that holds the face wherever it may be at a time.

        Within a gap of up to `gap_s` that is the box around those before and after it; else a face
        is taken to stay where it is seen for `hold_s` before and after.
        """
        i, j = self._around(time_s)
        if i >= 0 and time_s - self.box_s[i] <= SLACK_S:
            return _box(self.boxes_px[i])
        inside = [k for k in (i, j) if 0 <= k < len(self.box_s)]
        if len(inside) < 2 or self.box_s[j] - self.box_s[i] > max(gap_s, 1.5 * self.step_s):
            hold_s = max(hold_s, self.step_s)
            inside = [k for k in inside if abs(time_s - self.box_s[k]) <= hold_s]
        if not inside:
            return None
        low = self.boxes_px[inside, :2].min(axis=0)
        high = (self.boxes_px[inside, :2] + self.boxes_px[inside, 2:]).max(axis=0)
        return _box(np.concatenate([low, high - low]))

    def _around(self, time_s: float) -> tuple[int, int]:
        """The boxes at or before a time and after it, by number; there may be none such."""
        j = int(np.searchsorted(self.box_s, time_s + SLACK_S, "right"))
        return j - 1, j


@dataclass(frozen=True, eq=False)
class Shown(Face):
    """One person: rows (t,) in order of time, and where the face was seen, k <= t.

    Attributes:
        name: as `maven.render.tables.people` names it.
        time_s, end_s: (t,) each row lasts from then to then.
        va, ends, weights, has: (t, 2), (t, 4), (t, 3), (t, 3); see `VALUES` and the like.
        span_s: when the person is shown at all, from first to last.
        slot: which of the places in the panel is the person's meanwhile; None for none.
    """

    name: str
    time_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    va: Singles
    ends: Singles
    weights: Singles
    has: npt.NDArray[np.bool_]
    span_s: tuple[float, float]
    slot: int | None = None

    def at(self, time_s: float) -> Now:
        """Tell what is known at a time: between two rows, what lies between them."""
        i, j, part = (x[0] for x in self._neighbours(np.array([time_s])))
        if i < 0:
            return NOTHING
        has = self.has[i if part < 0.5 else j]
        one = np.array([i]), np.array([j]), np.array([part])
        valence, arousal = _between(self.va, *one)[0].tolist()
        weights = _between(self.weights, *one)[0].tolist()
        return Now(valence, arousal, tuple(has.tolist()), tuple(weights))

    def course(self, times_s: npt.NDArray[np.float64]) -> Singles:
        """Give the answers (n, 2) at times (n,), NaN where there is none."""
        return _between(self.va, *self._neighbours(times_s))

    def intervals(self, times_s: npt.NDArray[np.float64]) -> Singles:
        """Give the ends of the intervals (n, 4) at times (n,), NaN where there are none."""
        return _between(self.ends, *self._neighbours(times_s))

    def _neighbours(self, times_s: npt.NDArray[np.float64]) -> tuple[Numbers, Numbers, Parts]:
        """Rows before and after times, -1 where none holds, and how far between them each is."""
        if not len(self.time_s):
            none = np.full(len(times_s), -1)
            return none, none, np.zeros(len(times_s))
        i = np.searchsorted(self.time_s, times_s + SLACK_S, "right") - 1
        i[times_s >= self.end_s[i] + SLACK_S] = -1
        j = np.minimum(i + 1, len(self.time_s) - 1)
        j = np.where(self.time_s[j] > self.end_s[i] + SLACK_S, i, j)  # rows are missing in between
        part = (times_s - self.time_s[i]) / (self.end_s[i] - self.time_s[i])
        return i, j, np.clip(part, 0.0, 1.0)


def shown(table: pd.DataFrame | Iterable[Chunk], slots: int) -> list[Shown]:
    """Take from the long table what is shown, person by person, as compact arrays.

    One person is shown from beginning to end. Of several, each is only shown about when the face is
    seen: what is heard meanwhile would be the answer of all of them. They take turns in `slots`
    places, those first whose faces are seen longer; who is left over, or seen for less than
    `BRIEF_S`, has boxes and no rows. The order is the table's.
    """
    names = ("frame", "time_s", *VALUES, *ENDS, *WEIGHTS, *OBSERVED, *BOX)
    found: list[Shown] = []
    main = 0  # whose face is seen longest so far: the only one held whole
    for name, rows in tables.courses(tables.chunks_of(table), names):
        found.append(_person(name, rows))
        less = len(found) - 1
        if len(found[less].box_s) > len(found[main].box_s):
            main, less = less, main
        if less != main:
            found[less] = _while_seen(found[less])
    order = sorted(range(len(found)), key=lambda k: (-len(found[k].box_s), k))
    lasting = [k for k in order if k == main or len(found[k].box_s) * found[k].step_s >= BRIEF_S]
    if len(lasting) > 1:
        found[main] = _while_seen(found[main])
    taken: list[list[tuple[float, float]]] = [[] for _ in range(slots)]
    for k in order:
        start_s, end_s = found[k].span_s
        free = [
            slot
            for slot, spans in enumerate(taken)
            if k in lasting and all(end_s < a or b < start_s for a, b in spans)
        ]
        if free:
            taken[free[0]].append(found[k].span_s)
            found[k] = replace(found[k], slot=free[0])
        else:
            found[k] = _kept(found[k], np.zeros(len(found[k].time_s), bool))
    return found


def _person(name: str, rows: Chunk) -> Shown:
    def stack(names: tuple[str, ...]) -> Singles:
        return np.stack([rows[x] for x in names], axis=1).astype(np.float32)

    time_s, boxes = np.asarray(rows["time_s"], np.float64), stack(BOX)
    length_s = tables.durations_s(rows)
    seen = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    return Shown(
        name=name,
        time_s=time_s,
        end_s=time_s + length_s,
        va=stack(VALUES),
        ends=stack(ENDS),
        weights=stack(WEIGHTS),
        has=stack(OBSERVED) > 0,
        box_s=time_s[seen],
        boxes_px=boxes[seen],
        step_s=float(np.median(length_s)),
        span_s=(-np.inf, np.inf),
    )


def _while_seen(person: Shown) -> Shown:
    """Leave out the rows before and after the face was seen, and in gaps of more than `GAP_S`."""
    if not len(person.box_s):
        return _kept(person, np.zeros(len(person.time_s), bool))
    seen_s = np.concatenate([[-np.inf], person.box_s, [np.inf]])
    after = np.searchsorted(seen_s, person.time_s)
    gap_s = seen_s[after] - seen_s[np.maximum(after - 1, 0)]
    kept = _kept(person, (gap_s <= GAP_S) | (seen_s[after] == person.time_s))
    span_s = float(person.box_s[0]), float(person.box_s[-1]) + person.step_s
    return replace(kept, span_s=span_s)


def _kept(person: Shown, rows: npt.NDArray[np.bool_]) -> Shown:
    fields = ("time_s", "end_s", "va", "ends", "weights", "has")
    return replace(person, **{name: getattr(person, name)[rows] for name in fields})


def _between(rows: Singles, i: Numbers, j: Numbers, part: Parts) -> Singles:
    """Interpolate rows (t, d) to (n, d); where one of two is unknown, the nearer one stands."""
    if not len(rows):
        return np.full((len(i), rows.shape[1]), np.nan, np.float32)
    mixed = rows[i] + (rows[j] - rows[i]) * part[:, None].astype(np.float32)
    near = rows[np.where(part < 0.5, i, j)]
    known: Singles = np.where(np.isfinite(mixed), mixed, near)
    known[i < 0] = np.nan
    return known


def _box(values: Singles) -> Box:
    x, y, width, height = (float(value) for value in values)
    return x, y, width, height
