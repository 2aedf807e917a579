"""Report and overlay: how large, how long, how soon it can be used, how well in step.

python bench/look.py [--runs 3] [--json FILE]

The report's page is opened in Chromium from its file; it can be used once the viewer has drawn,
counted from the start of the navigation. Overlays are decoded again: every frame's time is compared
with the source's, and their sound with its, by cross-correlation of the first and the last seconds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import maven
from machine import DATA, Report, arguments, spread
from maven import media
from maven.media import AUDIO_RATE_HZ

REPORTED = ("talk_long_71s_512.mp4", "interview_two_faces_720p.mp4")
DRAWN = ("talk_long_71s_512.mp4", "grid_s1_bbaf2n.mpg", "talk_face1_22fps.mp4",
         "talk_ntsc_2997.mp4", "face_then_no_face.mov", "three_faces_720p.avi",
         "talk_portrait_1080x1920.mp4")  # fmt: skip
REPORT_COLUMNS = ("clip", "size, MB", "written in, s", "usable after, s")
OVERLAY_COLUMNS = (
    *("clip", "length, s", "written in, s", "times real time", "frames"),
    *("furthest frame, ms", "sound at the beginning, ms", "at the end, ms"),
)
SOUND_S = 3.0  # compared at either end
FURTHEST_S = 0.2  # a sound further off is not found


def main() -> None:
    """Print the tables."""
    given = arguments(__doc__).parse_args()
    report = Report("Report and overlay", given.json)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report.table("Reports, the video embedded", REPORT_COLUMNS)
        for clip in REPORTED:
            analysis = maven.analyze(DATA / "clips" / clip, offline=True)
            target, took = folder / "report.html", []
            for _ in range(given.runs):
                begun = time.perf_counter()
                analysis.report(target)
                took.append(time.perf_counter() - begun)
            drawn = [drawn_after_s(target) for _ in range(given.runs)]
            mb = target.stat().st_size / 1e6
            report.row(
                (clip, f"{mb:.2f}", spread(took, 1), spread(drawn, 2)),
                clip=clip, mb=mb, written_s=took, usable_s=drawn,
            )  # fmt: skip
        report.table("Overlays", OVERLAY_COLUMNS)
        for clip in DRAWN:
            overlay_row(report, DATA / "clips" / clip, folder / "overlay.mp4")
    report.close()


def drawn_after_s(page_path: Path) -> float:
    """From the start of the navigation until the viewer has drawn."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("MAVEN_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(page_path.as_uri())
        marks: list[float] = page.evaluate(
            "performance.getEntriesByName('maven-drawn').map(mark => mark.startTime)"
        )
        browser.close()
    return marks[0] / 1000


def overlay_row(report: Report, clip: Path, target: Path) -> None:
    """Write the overlay of a clip, compare it with its source, and print both."""
    analysis = maven.analyze(clip, offline=True)
    begun = time.perf_counter()
    analysis.overlay(target)
    took_s = time.perf_counter() - begun
    source = np.array([frame.time_s for frame in media.frames(clip)])
    result = np.array([frame.time_s for frame in media.frames(target)])
    same = len(source) == len(result)
    furthest_ms = 1000 * float(np.abs(source - result).max()) if same else float("nan")
    lags_ms = [1000 * lag for lag in sound_lags_s(clip, target)]
    length_s = float(source[-1] - source[0])
    cells: list[Any] = [clip.name, f"{length_s:.1f}", f"{took_s:.1f}", f"{length_s / took_s:.1f}"]
    cells += [f"{len(result)} of {len(source)}", f"{furthest_ms:.3f}"]
    cells += [f"{lag:+.1f}" for lag in lags_ms] or ["no sound", ""]
    report.row(
        cells, clip=clip.name, length_s=length_s, took_s=took_s, frames=len(result),
        furthest_ms=furthest_ms, lags_ms=lags_ms,
    )  # fmt: skip


def sound_lags_s(source: Path, result: Path) -> list[float]:
    """How much later the sound is, in its first and its last seconds; nothing without sound."""
    one, other = media.read_audio(source), media.read_audio(result)
    if one is None or other is None:
        return []
    first_s = max(one.start_s, other.start_s)
    last_s = min(b.start_s + len(b.samples) / AUDIO_RATE_HZ for b in (one, other))
    return [
        _lag_s(_part(one, at_s), _part(other, at_s))
        for at_s in (first_s, max(last_s - SOUND_S, first_s))
    ]


def _part(block: media.AudioBlock, start_s: float) -> npt.NDArray[np.float32]:
    start = round((start_s - block.start_s) * AUDIO_RATE_HZ)
    return block.samples[start : start + round(SOUND_S * AUDIO_RATE_HZ)]


def _lag_s(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    n = min(len(one), len(other))
    size = 2 * n
    product = np.fft.rfft(other[:n], size) * np.conj(np.fft.rfft(one[:n], size))
    likeness = np.fft.irfft(product, size)
    reach = round(FURTHEST_S * AUDIO_RATE_HZ)
    around = np.concatenate((likeness[-reach:], likeness[: reach + 1]))
    return float(np.argmax(around) - reach) / AUDIO_RATE_HZ


if __name__ == "__main__":
    main()
