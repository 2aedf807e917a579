"""Synthetic tables of results and words for the tests of render."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from maven import circumplex
from maven.render import tables
from maven.transcript import Word

SENTENCE = (
    "I am so happy to see you again after all these years although it was "
    "a long way home and nobody knew where we were going"
)


def person(
    face_id: int | None = 1,
    duration_s: float = 8.0,
    fps: float = 25.0,
    start_s: float = 0.0,
    seed: int = 0,
    file: str = "clip.mp4",
) -> pd.DataFrame:
    """Return one person's rows: a smooth walk on the circumplex, everything observed."""
    rng = np.random.default_rng(seed)
    n = max(1, round(duration_s * fps))
    time_s = start_s + np.arange(n) / fps
    knots_s = np.arange(start_s, start_s + duration_s + 2.0)
    theta = np.interp(time_s, knots_s, np.cumsum(rng.normal(0.7, 0.8, len(knots_s))))
    intensity = np.interp(time_s, knots_s, rng.uniform(0.05, 0.9, len(knots_s)))
    valence, arousal = circumplex.to_cartesian(theta, intensity)
    wrapped, _ = circumplex.to_polar(valence, arousal)
    frame = pd.DataFrame(
        {
            "file": file,
            "face_id": face_id,
            "frame": np.arange(n),
            "time_s": time_s,
            "valence": valence,
            "arousal": arousal,
            "theta": wrapped,
            "intensity": intensity,
            "valence_low": valence - 0.1,
            "valence_high": valence + 0.1,
            "arousal_low": arousal - 0.1,
            "arousal_high": arousal + 0.1,
            "visual_weight": 0.5,
            "audio_weight": 0.3,
            "text_weight": 0.2,
            "has_face": True,
            "has_speech": True,
            "has_text": True,
            "face_x": 100.5,
            "face_y": 80.25,
            "face_w": 64.0,
            "face_h": 72.0,
            "face_score": 0.98,
            "emotion": circumplex.region(valence, arousal),
        },
        columns=list(tables.COLUMNS),
    )
    return tables.conform(frame)


def without(frame: pd.DataFrame, rows: slice, *groups: str) -> pd.DataFrame:
    """Blank what was not observed in some rows: "answer", "interval", "face", "speech", "text"."""
    columns = {
        "answer": ["valence", "arousal", "theta", "intensity", "emotion"],
        "interval": ["valence_low", "valence_high", "arousal_low", "arousal_high"],
        "face": ["face_x", "face_y", "face_w", "face_h", "face_score", "visual_weight"],
        "speech": ["audio_weight"],
        "text": ["text_weight"],
    }
    frame = frame.copy()
    for group in groups:
        for column in columns[group]:
            frame.loc[frame.index[rows], column] = pd.NA if column == "emotion" else np.nan
        if f"has_{group}" in frame:
            frame.loc[frame.index[rows], f"has_{group}"] = False
    return frame


def nothing(duration_s: float = 4.0) -> pd.DataFrame:
    """Return the table of a clip in which nothing at all was observed."""
    frame = person(face_id=None, duration_s=duration_s)
    return without(frame, slice(None), "answer", "interval", "face", "speech", "text")


def speak(duration_s: float, start_s: float = 0.0, per_s: float = 2.6) -> tuple[Word, ...]:
    """Return words at a usual rate, a segment every nine words."""
    text = SENTENCE.split()
    starts = np.arange(start_s, start_s + duration_s - 0.3, 1 / per_s)
    return tuple(
        Word(text[i % len(text)], float(t), float(t) + 0.3, i // 9) for i, t in enumerate(starts)
    )


def cut(frame: pd.DataFrame, rows: int) -> Iterator[tables.Chunk]:
    """Cut a table into chunks of so many rows at most."""
    for chunk in tables.chunks_of(frame):
        for start in range(0, len(chunk["frame"]), rows):
            yield {name: values[start : start + rows] for name, values in chunk.items()}
