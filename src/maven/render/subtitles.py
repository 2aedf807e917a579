"""Courses of valence and arousal -> WebVTT: each half second, who feels what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from maven import circumplex

CUE_S = 0.5  # one cue: long enough to be read, short enough to follow a face


class Course(NamedTuple):
    """One person's rows (t,), in order of time: when they begin and end, and the answers."""

    name: str
    time_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    valence: npt.NDArray[np.float64]
    arousal: npt.NDArray[np.float64]


def subtitles(courses: Iterable[Course], note: str) -> str:
    """Write the means of each cue, a line a person, with a note of one line before them."""
    lines: dict[int, list[str]] = {}
    last_s = 0.0
    for name, time_s, end_s, valence, arousal in courses:
        last_s = max(last_s, float(end_s.max(initial=0.0)))
        cue = np.floor(time_s / CUE_S).astype(int)
        known = np.flatnonzero(np.isfinite(valence) & np.isfinite(arousal) & (cue >= 0))
        for rows in np.split(known, np.flatnonzero(np.diff(cue[known])) + 1):
            if len(rows):
                v, a = valence[rows].mean(), arousal[rows].mean()
                line = f"{name}: {circumplex.region(v, a).item()}  v {v:+.2f} a {a:+.2f}"
                lines.setdefault(int(cue[rows[0]]), []).append(line)
    # A NOTE ends at the first blank line and must not hold the arrow.
    blocks = ["WEBVTT", f"NOTE\n{note}".replace("-->", "->")]
    for k in sorted(lines):
        start, end = _clock(k * CUE_S), _clock(min((k + 1) * CUE_S, last_s))
        if start < end:
            blocks.append("\n".join([f"{start} --> {end}", *lines[k]]))
    return "\n\n".join(blocks) + "\n"


def _clock(time_s: float) -> str:
    """Write a time as WebVTT does, hh:mm:ss.mmm."""
    milliseconds = round(time_s * 1000)
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"
