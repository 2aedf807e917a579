"""Views made by hand, and pages that show them: the viewer's own files, without an analysis."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

from maven.circumplex import NEUTRAL_INTENSITY, SECTOR_RAD, SECTORS
from maven.render.report import SCRIPTS, STATIC, STYLES

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4"
    "2mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
POSTER = f"data:image/png;base64,{PIXEL}"


def made_person(
    name: str, time_s: list[float], answered: bool = True, face: bool = True, still: bool = True
) -> dict[str, Any]:
    """A person whose point goes round the circle once in ten seconds."""
    rows = len(time_s)
    valence = [round(0.6 * math.cos(t / 10 * math.tau), 3) for t in time_s]
    arousal = [round(0.6 * math.sin(t / 10 * math.tau), 3) for t in time_s]

    def column(values: list[float]) -> list[float | None]:
        return list(values) if answered else [None] * rows

    mean = {"mean": 0.0, "low": -0.6, "high": 0.6} if answered else None
    moment = {
        "time_s": time_s[rows // 2],
        "valence": valence[rows // 2],
        "arousal": arousal[rows // 2],
        "intensity": 0.6,
        "emotion": "Happy",
        "words": "and so on",
        "still": POSTER if still else None,
    }
    return {
        "name": name,
        "face_id": 1 if face else None,
        "time_s": time_s,
        "valence": column(valence),
        "arousal": column(arousal),
        "valence_low": column([v - 0.3 for v in valence]),
        "valence_high": column([v + 0.3 for v in valence]),
        "arousal_low": column([a - 0.2 for a in arousal]),
        "arousal_high": column([a + 0.2 for a in arousal]),
        "visual_weight": column([0.5 if face else 0.0] * rows),
        "audio_weight": column([0.3 if face else 0.8] * rows),
        "text_weight": column([0.2] * rows),
        "has_face": ("1" if answered and face else "0") * rows,
        "has_speech": ("1" if answered else "0") * rows,
        "has_text": ("1" if answered else "0") * rows,
        "box_px": [[100.0, 50.0, 120.0, 140.0] if face else None] * rows,
        "summary": {
            "seconds": time_s[-1] - time_s[0],
            "valence": mean,
            "arousal": mean,
            "regions": {"Happy": 0.75, "Tense": 0.25} if answered else {},
            "face": 1.0 if face else 0.0,
            "speech": 1.0 if answered else 0.0,
            "words": 1.0 if answered else 0.0,
        },
        "moments": [moment] if answered else [],
    }


def made_view(length_s: float = 10.0, every_s: float = 0.04, **changes: Any) -> dict[str, Any]:
    """A view without anything to play; `changes` replace what is in it."""
    time_s = [round(k * every_s, 4) for k in range(round(length_s / every_s))]
    spoken = [round(0.5 * k, 4) for k in range(round(length_s * 2))]
    view = {
        "schema": 1,
        "file": "made.mp4",
        "start_s": 0.0,
        "end_s": length_s,
        "video": {"width_px": 640, "height_px": 360, "rate_hz": 25.0},
        "sound": True,
        "media": {"src": None, "poster": POSTER, "offset_s": 0.0},
        "step_s": None,
        "people": [made_person("Person 1", time_s)],
        "words": [
            {"text": f"word{k}" + ("." if k % 8 == 7 else ""), "start_s": t, "end_s": t + 0.4}
            for k, t in enumerate(spoken)
        ],
        "speech": [[0.0, length_s]],
        "circle": {
            "neutral": NEUTRAL_INTENSITY,
            "sector_rad": SECTOR_RAD,
            "names": list(SECTORS),
        },
        "interval": 0.9,
        "notes": [],
        "provenance": {"maven": "0", "model": {"name": "made"}},
    }
    return {**view, **changes}


def page_of(view: dict[str, Any], folder: Path) -> str:
    """Write a page that shows a view; return its address."""
    styles = "".join((STATIC / s).read_text(encoding="utf-8") for s in STYLES)
    scripts = "".join(f'<script src="{(STATIC / s).as_uri()}"></script>' for s in SCRIPTS)
    content = base64.b64encode(json.dumps(view).encode()).decode()
    page = folder / "view.html"
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>view</title>'
        f"<style>{styles}</style>"
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
        '<body><main><h1 id="title"></h1><div id="viewer"></div></main>'
        '<script type="application/json" id="view"></script><script>'
        "document.getElementById('view').textContent = new TextDecoder().decode("
        f"Uint8Array.from(atob('{content}'), (c) => c.charCodeAt(0)));</script>{scripts}"
        "</body></html>",
        encoding="utf-8",
    )
    return page.as_uri()
