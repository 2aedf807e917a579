"""A clip on a shelf with an answer that is known in advance, to compare raters with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from demo_pieces import copy_piece
from maven.circumplex import NEUTRAL_INTENSITY, SECTOR_RAD, SECTORS, region, to_polar
from maven.ratings import Floats
from maven.render.tables import COLUMNS, write
from maven.web.shelf import Shelf, new_id
from maven.web.worker import FILES, PLAYABLE, VIEW

RATE_HZ = 25.0


def answer(time_s: Floats, person: int = 0) -> Floats:
    """Valence and arousal (t, 2) of a person: two slow waves."""
    rad = 2 * np.pi * time_s
    return np.stack((0.6 * np.sin(0.21 * rad + person), 0.5 * np.cos(0.14 * rad + 1 + person)), 1)


def frames_s(length_s: float) -> Floats:
    return np.arange(round(length_s * RATE_HZ)) / RATE_HZ


def put_clip(shelf: Shelf, length_s: float = 8.0, people: int = 1, name: str = "talk.mp4") -> str:
    """Put the beginning of the demo clip on a shelf, done, with `answer` for each person."""
    clip_id = new_id()
    folder = shelf.clips_folder / clip_id
    folder.mkdir()
    copy_piece(folder / PLAYABLE, length_s)
    times_s = frames_s(length_s)
    write(
        [_chunk(times_s, k) for k in range(people)], {}, folder, Path(FILES["csv"]).stem, ("csv",)
    )
    address = f"/api/clips/{clip_id}"
    view = {
        "schema": 1, "file": name, "start_s": 0.0, "end_s": length_s,
        "video": {"width_px": 512, "height_px": 512, "rate_hz": RATE_HZ}, "sound": True,
        "media": {"src": f"{address}/media", "poster": None, "offset_s": 0.0}, "step_s": None,
        "people": [_person(times_s, k) for k in range(people)],
        "words": [{"text": "hello", "start_s": 0.5, "end_s": 0.9}], "speech": [[0.4, 2.0]],
        "circle": {
            "neutral": NEUTRAL_INTENSITY, "sector_rad": SECTOR_RAD, "names": list(SECTORS),
        },
        "interval": None, "notes": [], "provenance": {},
    }  # fmt: skip
    (folder / VIEW).write_text(json.dumps(view), encoding="utf-8")
    shelf.add(clip_id, name, 1, {"faces": "all", "asr": "none", "transcript": None})
    shelf.change(clip_id, state="done", progress=1.0, length_s=length_s, files=["csv"])
    return clip_id


def _chunk(times_s: Floats, person: int) -> dict[str, Any]:
    n, va = len(times_s), answer(times_s, person)
    va[:3] = np.nan  # nothing was observed at first
    theta, intensity = to_polar(va[:, 0], va[:, 1])
    known: dict[str, Any] = {
        "file": np.full(n, "talk.mp4", object), "face_id": np.full(n, person + 1, object),
        "frame": np.arange(n), "time_s": times_s, "valence": va[:, 0], "arousal": va[:, 1],
        "theta": theta, "intensity": intensity, "emotion": region(va[:, 0], va[:, 1]),
        **{name: np.isfinite(va[:, 0]) for name in ("has_face", "has_speech", "has_text")},
    }  # fmt: skip
    return {name: known.get(name, np.full(n, np.nan)) for name in COLUMNS}


def _person(times_s: Floats, person: int) -> dict[str, Any]:
    va = answer(times_s, person).round(3)
    return {
        "name": f"Person {person + 1}", "face_id": person + 1, "time_s": times_s.round(4).tolist(),
        "valence": va[:, 0].tolist(), "arousal": va[:, 1].tolist(),
        "box_px": [[60 + 200 * person, 120, 160, 180] for _ in times_s],
        "moments": [],
    }  # fmt: skip
