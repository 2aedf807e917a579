"""Answers made by hand, shaped as an analysis is, and what holds for every view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maven.media import AudioInfo, MediaInfo, VideoInfo
from maven.render import tables
from maven.rows import Rows
from maven.speech import SpeechSpan
from maven.transcript import Transcript, Word

VIDEO = VideoInfo(640, 360, 0, 25.0, None, 0.0, None, "h264", "yuv420p")
SOUND = AudioInfo(48_000, 2, 0.0, None, "aac")
VALUES = (*(f"{name}{end}" for name in ("valence", "arousal") for end in ("", "_low", "_high")),
          "visual_weight", "audio_weight", "text_weight")  # fmt: skip
OBSERVED = ("has_face", "has_speech", "has_text")


@dataclass
class Told:
    """An answer whose table is given; it is handed out in chunks of so many rows."""

    table: pd.DataFrame
    media: MediaInfo
    words: tuple[Word, ...] = ()
    speech: tuple[SpeechSpan, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(
        default_factory=lambda: {"maven": "0", "model": {"intervals": 0.9}}
    )
    rows_a_chunk: int = 64

    @property
    def rows(self) -> Rows:
        """Only the grid of it is true."""
        first = next(iter(self.chunks(len(self.table))))
        nothing: Any = None
        return Rows("", first["time_s"], *(np.zeros(0, bool),) * 2, (), None, nothing)

    @property
    def transcript(self) -> Transcript:
        return Transcript(self.words, "file: words.srt")

    def chunks(self, rows: int = 0) -> Iterator[tables.Chunk]:
        for chunk in tables.chunks_of(self.table):
            for start in range(0, len(chunk["frame"]), rows or self.rows_a_chunk):
                part = slice(start, start + (rows or self.rows_a_chunk))
                yield {name: values[part] for name, values in chunk.items()}


def told(
    table: pd.DataFrame,
    path: Path | str = "clip.mp4",
    *,
    video: VideoInfo | None = VIDEO,
    audio: AudioInfo | None = SOUND,
    **parts: Any,
) -> Told:
    """An answer about a medium that is described, and need not be there."""
    return Told(table, MediaInfo(Path(path), 1, "mp4", 0.0, None, video, audio, ()), **parts)


def check_view(view: dict[str, Any]) -> None:
    """Check what every viewer relies on: keys, lengths, ranges, nothing but strict JSON."""
    assert json.loads(json.dumps(view, allow_nan=False)) == view
    assert view["schema"] == 1
    assert set(view) == {
        *("schema", "file", "start_s", "end_s", "video", "sound", "media", "step_s", "people"),
        *("words", "speech", "circle", "interval", "notes", "provenance"),
    }
    assert set(view["media"]) == {"src", "poster", "offset_s"}
    circle = view["circle"]
    assert np.isclose(len(circle["names"]) * circle["sector_rad"], 2 * np.pi)
    for person in view["people"]:
        n = len(person["time_s"])
        assert n
        assert person["time_s"] == sorted(person["time_s"])
        assert view["start_s"] <= person["time_s"][0] <= person["time_s"][-1] <= view["end_s"]
        for name in (*VALUES, "box_px", *OBSERVED):
            assert len(person[name]) == n, name
        for name in OBSERVED:
            assert set(person[name]) <= {"0", "1"}
        for box, flag in zip(person["box_px"], person["has_face"], strict=True):
            assert (box is not None) == (flag == "1")
            assert box is None or len(box) == 4
        for name in VALUES[:6]:
            assert all(value is None or -1.5 <= value <= 1.5 for value in person[name])
        assert len(person["moments"]) <= 8
        strengths = [moment["intensity"] for moment in person["moments"]]
        assert strengths == sorted(strengths, reverse=True)
        for moment in person["moments"]:
            assert view["start_s"] <= moment["time_s"] <= view["end_s"]
            still = moment["still"]
            assert still is None or still.startswith("data:image/jpeg;base64,")
