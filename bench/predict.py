"""Real-time factor and peak memory of `maven predict`, start-up included, by length of the video.

python bench/predict.py [--runs 3] [--repeat 10]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av

from machine import DATA, describe

CLIP = "talk_long_71s_512.mp4"


def repeat(source: Path, target: Path, times: int) -> float:
    """Write a clip `times` times in a row, packets copied; return its length in seconds."""
    with av.open(str(source)) as first, av.open(str(target), "w") as out:
        length_s = first.duration / av.time_base
        streams = {s.index: out.add_stream_from_template(s) for s in first.streams}
        for k in range(times):
            with av.open(str(source)) as container:
                for packet in container.demux(*container.streams):
                    if packet.dts is None:
                        continue
                    shift = round(k * length_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    return times * length_s


def measure(clip: Path) -> tuple[float, float]:
    """Run `maven predict` once in a process of its own: seconds and peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "maven.cli", "predict", str(clip), "-o", folder]
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, "--offline", "--asr", "none"], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, f"maven predict ended with {status}"
        return time.monotonic() - began, usage.ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=10)
    arguments = parser.parse_args()
    print(describe())
    print("| video | length, s | time, s (median, range) | times real time | peak memory, MB |")
    print("|---|---|---|---|---|")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, arguments.repeat):
            clip = Path(folder) / f"repeated{times}.mp4"
            length_s = repeat(DATA / "clips" / CLIP, clip, times)
            runs = [measure(clip) for _ in range(arguments.runs)]
            seconds = [run[0] for run in runs]
            peaks.append(statistics.median(run[1] for run in runs))
            median = statistics.median(seconds)
            print(
                f"| {CLIP} x {times} | {length_s:.1f} |"
                f" {median:.1f} ({min(seconds):.1f}-{max(seconds):.1f}) |"
                f" {length_s / median:.1f} | {peaks[-1]:.0f} |",
                flush=True,
            )
    print(f"Peak memory, long against short: {100 * (peaks[1] / peaks[0] - 1):+.1f} %")


if __name__ == "__main__":
    main()
