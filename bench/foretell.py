"""Runs of `bench/batch.py`, foretold by the simulation from clips that are analysed alone."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from costs import one_core
from fleet import Costs, Fleet, Load, play
from machine import Report
from packets import copy_part
from stages import analyse


def foretell(report: Report, measured: dict[str, Any], costs: Costs) -> None:
    """Compare each run with engine local with what is foretold; start-up is in neither.

    The clips are cut once more and analysed one by one on one core, which gives their seconds.
    """
    # The largest files are begun first: those of most bytes, not those that take longest.
    clips = sorted((tuple(clip) for clip in measured["clips"]), key=lambda clip: -clip[3])
    took_s = {clip: alone_s(Path(clip[0]), clip[1], clip[2]) for clip in {*clips}}
    work_s = np.array([took_s[clip] for clip in clips])
    columns = ("engine-workers", "measured, s", "foretold, s", "error")
    report.table("Foretold against measured, without start-up", columns)
    rows = next(table for name, table in measured["tables"].items() if " clips, " in name)
    for row in rows:
        engine, _, workers = row["configuration"].partition("-")
        if engine != "local":
            continue
        real_s = statistics.median(row["seconds"]) - statistics.median(row["start_s"])
        said_s = foretold_s(costs, int(workers), work_s)
        report.row(
            (row["configuration"], f"{real_s:.1f}", f"{said_s:.1f}", f"{said_s / real_s - 1:+.1%}"),
            configuration=row["configuration"], measured_s=real_s, foretold_s=said_s,
        )  # fmt: skip


def foretold_s(costs: Costs, workers: int, work_s: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Seconds of a batch without its start, of files of known seconds, begun in this order."""
    known = replace(costs, compute_s=1.0, file_s=0.0, start_s=0.0)
    mean_s = float(work_s.mean())
    load = Load(hours=float(work_s.sum()) / 3600, mean_s=mean_s, largest_first=False)
    return play(known, Fleet(workers), load, len(work_s), 0, work_s).wall_s


def alone_s(source: Path, begin_s: float, length_s: float) -> float:
    """Processor seconds of a part of a clip on one core."""
    with tempfile.TemporaryDirectory() as folder, one_core():
        clip = Path(folder) / "part.mp4"
        copy_part(source, clip, begin_s, begin_s + length_s)
        analyse(str(clip), "auto", threads=1)
        _, cpu_s, _ = analyse(str(clip), "auto", threads=1)
        return cpu_s
