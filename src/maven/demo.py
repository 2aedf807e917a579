"""The demo: the clip in the package, analysed like any other, shown against its intended course."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maven.circumplex import region
from maven.observe import Progress
from maven.pipeline import Analysis, analyze

if TYPE_CHECKING:
    from rich.console import Console

CLIP = Path(__file__).parent / "assets" / "demo.mp4"
COURSE = CLIP.with_suffix(".json")
STEM = "demo"


@dataclass(frozen=True)
class Stretch:
    """A part of the clip: what was intended, and the mean of what was predicted (None: nothing)."""

    start_s: float
    end_s: float
    emotion: str
    intended: tuple[float, float]
    predicted: tuple[float, float] | None


@dataclass(frozen=True)
class Result:
    """The demo's analysis, its stretches and the files written."""

    analysis: Analysis
    stretches: tuple[Stretch, ...]
    written: tuple[Path, ...]

    def show(self, console: Console) -> None:
        """Print prediction against intention, the files, and what to do next."""
        from rich.table import Table

        from maven.render.summary import print_summary

        print_summary(self.analysis.summary(), console)
        table = Table(
            box=None, pad_edge=False, title="Intended against predicted (valence, arousal)"
        )
        for name in ("time", "meant to be", "intended", "predicted", "read as"):
            table.add_column(name, justify="left")
        for part in self.stretches:
            table.add_row(
                f"{part.start_s:4.1f} - {part.end_s:4.1f} s",
                part.emotion,
                _pair(part.intended),
                "nothing observed" if part.predicted is None else _pair(part.predicted),
                "" if part.predicted is None else str(region(*map(np.array, part.predicted))),
            )
        console.print(
            "The clip is made: a public-domain NASA portrait, warped, and a synthetic voice."
        )
        console.print(table)
        for path in self.written:
            console.print(f"Wrote {path}", soft_wrap=True, markup=False)
        here = Path(sys.argv[0])
        command = "maven" if shutil.which("maven") else str(here)
        console.print("Look at it: open the .html in a browser.")
        console.print(f"Next: {command} predict your.mp4 --report", soft_wrap=True, markup=False)


def _pair(va: tuple[float, float]) -> str:
    return f"{va[0]:+.2f}, {va[1]:+.2f}"


def course() -> list[dict[str, Any]]:
    """Read the intended course: start_s, end_s, emotion, valence and arousal of each stretch."""
    content = json.loads(COURSE.read_text(encoding="utf-8"))
    return list(content["intended"])


def run(folder: Path, progress: Progress) -> Result:
    """Analyse the clip offline and write its tables, picture and report into a folder."""
    analysis = analyze(CLIP, progress=progress, offline=True)
    intended = course()
    rows = analysis.frames
    stretches = []
    for part in intended:
        inside = rows[(rows.time_s >= part["start_s"]) & (rows.time_s < part["end_s"])]
        known = inside.dropna(subset=["valence"])
        mean = (float(known.valence.mean()), float(known.arousal.mean())) if len(known) else None
        wanted = (part["valence"], part["arousal"])
        stretches.append(Stretch(part["start_s"], part["end_s"], part["emotion"], wanted, mean))
    folder.mkdir(parents=True, exist_ok=True)
    written = analysis.save(folder, stem=STEM)
    times = np.array([t for part in intended for t in (part["start_s"], part["end_s"])])
    valence, arousal = (np.repeat([p[k] for p in intended], 2) for k in ("valence", "arousal"))
    picture = folder / f"{STEM}.png"
    analysis.plot(picture, intended=(times, valence, arousal))
    page = analysis.report(folder / f"{STEM}.html", progress=progress)
    return Result(analysis, tuple(stretches), (*written, picture, page))
