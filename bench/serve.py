"""Eight uploads at once: does the page stay quick, how much memory, how long until all are done.

python bench/serve.py [--uploads 8] [--workers 1] [--json FILE]

Clips are the first ten seconds of real ones. While they are worked on, the list of clips, the page
and a range of a finished clip's video are asked for in turn, and the memory of the server and its
workers is read (Pss: pages that processes share count once). Linux.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

from machine import DATA, Report, arguments
from packets import cut

CLIPS = ("talk_long_71s_512", "talk_address_woman_512", "talk_address_woman2_512",
         "talk_face3_590", "talk_face5_524", "talk_ntsc_2997", "expressive_audio_512",
         "talk_noisy_restaurant_720p")  # fmt: skip
CLIP_S = 10.0
ASK_EVERY_S = 0.05


def ask(address: str, method: str = "GET", body: bytes | None = None, **headers: str) -> bytes:
    """Ask the server for something."""
    with urlopen(Request(address, body, headers, method=method)) as answer:
        got: bytes = answer.read()
    return got


def memory_mb(pid: int) -> tuple[float, float]:
    """Memory of a process, and of all below it."""
    own, below = 0.0, 0.0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        own = sum(int(k) for k in re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                below += sum(memory_mb(int(child)))
    except OSError:  # it has just ended
        pass
    return own, below


def measure(report: Report, folder: Path, uploads: int, workers: int) -> None:
    """Start a server, send clips, watch."""
    contents = []
    for name in islice(cycle(CLIPS), uploads):
        path = folder / f"{name}.mp4"
        cut(DATA / "clips" / path.name, path, CLIP_S)
        contents.append((name, path.read_bytes()))
    command = (sys.executable, "-m", "maven.cli", "serve", "--port", "0",
               "--data", str(folder / "data"), "--workers", str(workers))  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        match = re.search(r"http://[^/]+", server.stdout.readline())
        assert match, "the server did not start"
        try:
            watch(report, match[0], server.pid, contents)
        finally:
            server.terminate()


def watch(report: Report, address: str, pid: int, contents: list[tuple[str, bytes]]) -> None:
    """Send clips all at once and ask until they are done; print the figures."""

    def send(content: tuple[str, bytes]) -> None:
        ask(f"{address}/api/clips?name={content[0]}.mp4&asr=none", "POST", content[1])

    took_s: dict[str, list[float]] = {"list of clips": [], "page": [], "range of a video": []}
    own_mb = below_mb = both_mb = 0.0
    began = time.monotonic()
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(send, contents))
    sent_s = time.monotonic() - began
    clips: list[dict[str, Any]] = []
    while not clips or any(clip["state"] in ("queued", "running") for clip in clips):
        done = [clip["id"] for clip in clips if clip["state"] == "done"]
        for what in took_s:
            if what == "range of a video" and not done:
                continue
            path = {"list of clips": "/api/clips", "page": "/"}.get(what)
            asked = time.monotonic()
            got = ask(f"{address}{path or f'/api/clips/{done[-1]}/media'}", Range="bytes=0-65535")
            took_s[what].append(time.monotonic() - asked)
            if what == "list of clips":
                clips = json.loads(got)["clips"]
        own, below = memory_mb(pid)
        own_mb, below_mb, both_mb = (
            max(own, own_mb),
            max(below, below_mb),
            max(own + below, both_mb),
        )
        time.sleep(ASK_EVERY_S)
    whole_s = time.monotonic() - began
    report.table("Answers meanwhile", ("what", "asked", "median, ms", "95 %, ms", "slowest, ms"))
    parts_ms = {what: 1e3 * np.asarray(values) for what, values in took_s.items()}
    for what, ms in (parts_ms | {"all": np.concatenate(list(parts_ms.values()))}).items():
        middle, most, worst = np.percentile(ms, 50), np.percentile(ms, 95), ms.max()
        cells = (what, len(ms), f"{middle:.1f}", f"{most:.1f}", f"{worst:.1f}")
        report.row(cells, what=what, median_ms=middle, percentile_95_ms=most, slowest_ms=worst)
    states = [clip["state"] for clip in clips]
    report.say(
        f"{states.count('done')} of {len(states)} done, sent in {sent_s:.1f} s, all done in"
        f" {whole_s:.1f} s; memory at most: server {own_mb:.0f} MB, workers {below_mb:.0f} MB, both"
        f" {both_mb:.0f} MB",
        done=states.count("done"), seconds=whole_s, server_mb=own_mb, workers_mb=below_mb,
        both_mb=both_mb,
    )  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--uploads", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    title = f"{given.uploads} uploads of {CLIP_S:.0f} s at once, workers: {given.workers}"
    report = Report(title, given.json)
    with tempfile.TemporaryDirectory() as folder:
        measure(report, Path(folder), given.uploads, given.workers)
    report.close()


if __name__ == "__main__":
    main()
