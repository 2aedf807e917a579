"""What the rows of a clip are made of, kept compact, and the long table made from it in chunks.

A row costs a few hundred bytes as a row, what it is made of some twenty: boxes at the rate of the
frames, answers at the network's rate. So a table of hours is written without ever being there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maven.circumplex import region, to_polar
from maven.config import MODALITIES
from maven.render.tables import BOX

if TYPE_CHECKING:
    from maven.checkpoint import Rest
    from maven.inference import Series
    from maven.intervals import Intervals
    from maven.observe import SeenFace
    from maven.render.tables import Chunk
    from maven.timeline import Mask, Times

CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Boxes:
    """Where a face was seen: rows of the grid (k,), rising; boxes (k, 4) in px; scores (k,)."""

    rows: npt.NDArray[np.integer]
    boxes_px: npt.NDArray[np.float32]
    scores: npt.NDArray[np.floating]

    @classmethod
    def of(cls, face: SeenFace | None) -> Boxes:
        """Those of a face, without its features; none of nobody."""
        if face is None:
            return cls(np.zeros(0, int), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return cls(np.asarray(face.rows), np.asarray(face.boxes_px), np.asarray(face.scores))

    def part(self, start: int, stop: int) -> Times:
        """Box and score (stop - start, 5) of some rows of the grid; NaN where it was not seen."""
        first, last = np.searchsorted(self.rows, (start, stop))
        out = np.full((stop - start, 5), np.nan)
        at = self.rows[first:last] - start
        out[at, :4], out[at, 4] = self.boxes_px[first:last], self.scores[first:last]
        return out


@dataclass(frozen=True)
class Person:
    """One person's answer, on the network's grid, and where the face was seen.

    `track_id` is None where no face was seen at all.
    """

    track_id: int | None
    series: Series
    boxes: Boxes


@dataclass(frozen=True)
class Rows:
    """All rows of a clip: each person at each time of the grid.

    Attributes:
        file: name of the media file.
        time_s: the grid (t,).
        has_speech, has_text: what was there at its times (t,), whoever is looked at.
        people: in order of their numbers.
        intervals, rest: of the model.
    """

    file: str
    time_s: Times
    has_speech: Mask
    has_text: Mask
    people: tuple[Person, ...]
    intervals: Intervals | None
    rest: Rest

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Yield the table in chunks of so many rows at most, person after person."""
        for person in self.people:
            for start in range(0, len(self.time_s), rows):
                yield self._chunk(person, start, min(start + rows, len(self.time_s)))

    def answered(self) -> bool:
        """Tell whether any row has an answer."""
        return any(np.isfinite(chunk["valence"]).any() for chunk in self.chunks())

    def _chunk(self, person: Person, start: int, stop: int) -> Chunk:
        """Rows [start, stop) of one person; what was not observed is NaN."""
        part, t = slice(start, stop), stop - start
        box = person.boxes.part(start, stop)
        series = person.series.at(self.time_s[part])
        has = (np.isfinite(box[:, 4]), self.has_speech[part], self.has_text[part])
        observed = np.stack(has, 1)
        observed &= np.isfinite(series.va[:, :1])  # not what lies just outside the network's grid
        va = np.where(observed.any(axis=1, keepdims=True), series.va, np.nan)
        ends = np.full((t, 2), np.nan), np.full((t, 2), np.nan)
        low, high = ends if self.intervals is None else self.intervals.around(va, observed)
        weights = series.weights(observed, self.rest)
        theta, intensity = to_polar(va[:, 0], va[:, 1])
        return {
            "file": np.full(t, self.file, object),
            "face_id": np.full(t, person.track_id, object),
            "frame": np.arange(start, stop),
            "time_s": series.time_s,
            "valence": va[:, 0],
            "arousal": va[:, 1],
            "theta": theta,
            "intensity": intensity,
            "valence_low": low[:, 0],
            "valence_high": high[:, 0],
            "arousal_low": low[:, 1],
            "arousal_high": high[:, 1],
            **{f"{name}_weight": weights[:, k] for k, name in enumerate(MODALITIES)},
            "has_face": observed[:, 0],
            "has_speech": observed[:, 1],
            "has_text": observed[:, 2],
            **{name: box[:, k] for k, name in enumerate(BOX)},
            "face_score": box[:, 4],
            "emotion": region(va[:, 0], va[:, 1]),
        }
