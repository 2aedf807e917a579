"""`maven predict` with `mini`, end to end: real-time factor, start-up, peak memory, and by length.

python bench/predict.py [--runs 3] [--json FILE] [--long N ...]

Each run is a process of its own, start-up included, table written. Start-up is what the same
command takes for a clip of one frame. Long videos are the 71 s clip N times in a row, packets
copied; 101 make two hours, run once each (`--long 10 101`; without it ten, run as often as others).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av

from machine import DATA, Report, arguments, spread
from packets import repeat

CLIPS = ("talk_long_71s_512.mp4", "interview_two_faces_720p.mp4")
MINUTE_S = 60.0
HOUR_S = 3600.0


def one_frame(source: Path, target: Path) -> None:
    """Write the first frame of a clip as a video."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        frame = next(container.decode(video=0))
        video = out.add_stream("libx264", 25)
        video.width, video.height, video.pix_fmt = frame.width, frame.height, "yuv420p"
        frame.pts = 0
        out.mux(video.encode(frame))
        out.mux(video.encode())


def measure(clip: Path, *options: str) -> dict[str, float]:
    """Run `maven predict` once in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "maven.cli", "predict", str(clip), "-o", folder]
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, "--offline", "--asr", "none", *options], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, f"maven predict ended with {status}"
        return {
            "seconds": time.monotonic() - began,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / 1024,
        }


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--long", type=int, nargs="*", default=[10], metavar="N")
    parser.add_argument("--runtime", default="auto", help="as for maven predict")
    given = parser.parse_args()
    options = ("--runtime", given.runtime)
    report = Report("maven predict", given.json)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first.mp4"
        one_frame(DATA / "clips" / CLIPS[0], first)
        measure(first, *options)  # files into the system's cache
        start = [measure(first, *options)["seconds"] for _ in range(given.runs)]
        start_s = statistics.median(start)
        columns = "video", "length, s", "time, s", "times real time", "without start-up"
        report.table("End to end", (*columns, "CPU, s", "peak memory, MB"))
        report.row(("one frame", "", spread(start, 2), "", "", "", ""), clip="start", seconds=start)
        clips = [(name, 1) for name in CLIPS] + [(CLIPS[0], times) for times in given.long]
        peaks, a_minute = {}, {}
        for name, times in clips:
            clip = Path(folder) / f"{times}-{name}"
            length_s = repeat(DATA / "clips" / name, clip, times)
            runs = [measure(clip, *options) for _ in range(given.runs if length_s < HOUR_S else 1)]
            seconds, cpu, peak = ([run[k] for run in runs] for k in runs[0])
            median = statistics.median(seconds)
            if name == CLIPS[0]:
                peaks[times] = statistics.median(peak)
                a_minute[times] = (median - start_s) / length_s * MINUTE_S
            report.row(
                (
                    f"{name}{f' x {times}' if times > 1 else ''}", f"{length_s:.1f}",
                    spread(seconds, 2), f"{length_s / median:.1f}",
                    f"{length_s / (median - start_s):.1f}", spread(cpu), spread(peak, 0),
                ),
                clip=name, times=times, length_s=length_s, seconds=seconds, cpu_s=cpu, peak_mb=peak,
            )  # fmt: skip
            clip.unlink()
        for times in given.long:
            more = 100 * (peaks[times] / peaks[1] - 1)
            report.say(f"Peak memory, {times} times against once: {more:+.1f} %")
        if len(given.long) > 1:
            low, high = min(given.long), max(given.long)
            ratio = a_minute[high] / a_minute[low]
            report.say(f"Seconds a minute of video, {high} times against {low}: {ratio:.2f} x")
    report.close()


if __name__ == "__main__":
    main()
