"""`maven batch` from beginning to end: engines and numbers of workers side by side in one run.

python bench/batch.py [CLIP ...] [--clips 60] [--seconds 10] [--rows 100000] [--runs 3]
    [--configurations local-1 local-2 ray-2] [--json FILE] [--into docs/scale.md]

CLIPS are files or folders (without them, the folder of real clips). Pieces of `--seconds` are cut
from them, packets copied, as many as `--clips`. Each configuration is an engine and its number of
workers of one thread; in each round all of them run, one after the other. Start-up is what the same
command takes for as many one-frame clips as it has workers. Then: a finished batch again, and a dry
run over a manifest whose rows name small files, hard links. `--into` puts what is printed into a
page, between `<!-- measured by bench/batch.py: maven batch -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import av

import machine
from machine import DATA, Report, arguments, spread
from packets import copy_part
from predict import one_frame

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from two_nodes import family

CONFIGURATIONS = ("local-1", "local-2", "ray-2")
LEAST_RATIO, MOST_OVERHEAD = 1.8, 0.10  # asked: two workers against one, Ray against local
MOST_ROWS_MB, MOST_ROWS_S = 400, 20  # asked of the dry run
LOOK_EVERY_S = 0.5
MOST_LINKS = 20_000  # of a file: some systems allow no more than 65,000
MEDIA = {".mp4", ".mov"}  # whose packets fit into an mp4 file
WORKER = "maven.batch.worker"


@dataclass(frozen=True)
class Piece:
    """A part of a clip, in a file of its own."""

    path: Path
    source: Path
    start_s: float
    length_s: float


def pieces(sources: Sequence[Path], folder: Path, count: int, seconds: float) -> list[Piece]:
    """Cut pieces of at least `seconds` from clips, in turn; where they are used up, the same again.

    Raises:
        ValueError: no clip is that long.
    """
    made: list[Piece] = []
    for source in sources:
        made += _cut_up(source, folder, seconds)
    if not made:
        raise ValueError(f"no clip is {seconds:g} s long; accepted: longer ones, or less --seconds")
    made.sort(key=lambda piece: (piece.start_s, piece.source.name))  # the first of each go first
    for piece in made[count:]:
        piece.path.unlink()
    chosen = []
    for number, piece in enumerate(islice(cycle(made), count)):
        path = piece.path
        if number >= len(made):
            path = folder / f"{number:04d}-{piece.path.name}"
            shutil.copyfile(piece.path, path)
        chosen.append(Piece(path, piece.source, piece.start_s, piece.length_s))
    return chosen


def _cut_up(source: Path, folder: Path, seconds: float) -> Iterator[Piece]:
    """Cut a clip at its key frames, each part as short as they allow and no shorter than wanted."""
    with av.open(str(source)) as container:
        if not container.streams.video or not container.duration:
            return
        video = container.streams.video[0]
        keys = [
            float(packet.pts * packet.time_base)
            for packet in container.demux(video)
            if packet.is_keyframe and packet.pts is not None
        ]
        end_s = keys[0] + container.duration / av.time_base if keys else 0.0
    begin_s: float | None = None
    for key_s in keys:
        if begin_s is not None and key_s < begin_s + seconds:
            continue
        if end_s - key_s < seconds:
            return
        begin_s = key_s
        path = folder / f"{source.stem}-{key_s:.0f}.mp4"
        until_s = next((k for k in keys if k >= key_s + seconds), key_s + seconds)
        until_s = min(until_s, key_s + 1.5 * seconds)
        copy_part(source, path, key_s, until_s)
        yield Piece(path, source, key_s, until_s - key_s)


@dataclass
class Taken:
    """What one run of the command took; peaks in MB, of single processes."""

    seconds: float = 0.0
    parent_mb: float = 0.0
    worker_mb: float = 0.0
    others_mb: float = 0.0


def memory_mb(pid: int) -> float:
    """Memory of a process, what it shares with others divided among them."""
    match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(match[1]) / 1024 if match else 0.0


@contextmanager
def watched(pid: int, taken: Taken) -> Iterator[None]:
    """Look at the memory of a process and those below it, again and again."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(LOOK_EVERY_S):
            try:
                taken.parent_mb = max(taken.parent_mb, memory_mb(pid))
                others_mb = 0.0
                for child in family(pid)[1:]:
                    mb = memory_mb(child)
                    if WORKER in Path(f"/proc/{child}/cmdline").read_text():
                        taken.worker_mb = max(taken.worker_mb, mb)
                    else:
                        others_mb += mb
                taken.others_mb = max(taken.others_mb, others_mb)
            except OSError:  # one has just ended
                continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run(inputs: Path, out: Path, *options: str) -> Taken:
    """Run the command to its end; it must do every file."""
    command = [sys.executable, "-m", "maven.cli", "batch", str(inputs), "-o", str(out), *options]
    taken, began = Taken(), time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        with watched(process.pid, taken):
            said, _ = process.communicate()
        taken.seconds = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {process.returncode}\n{said.decode()}")
    return taken


def engine_options(configuration: str) -> tuple[str, ...]:
    """Turn `ray-2` into options."""
    engine, _, workers = configuration.partition("-")
    return ("--engine", engine, "--workers", workers, "--threads", "1", "--asr", "none",
            "--offline")  # fmt: skip


def side_by_side(
    report: Report, folder: Path, made: Sequence[Piece], given: argparse.Namespace
) -> None:
    """Run all configurations in turn; print their table and the two figures that are asked for."""
    length_s = sum(piece.length_s for piece in made)
    whole: dict[str, list[Taken]] = {name: [] for name in given.configurations}
    starts: dict[str, list[float]] = {name: [] for name in given.configurations}
    for name in given.configurations:
        one = folder / f"one-{name}"
        one.mkdir()
        for number in range(int(name.partition("-")[2])):
            one_frame(made[0].path, one / f"{number}.mp4")
    for number in range(given.runs):
        for name in given.configurations:
            options = engine_options(name)
            out = folder / f"out-{number}-{name}"
            starts[name].append(run(folder / f"one-{name}", folder / "start", *options).seconds)
            shutil.rmtree(folder / "start")
            whole[name].append(run(folder / "clips", out, *options))
            if (number, name) != (0, given.configurations[0]):
                shutil.rmtree(out)
    columns = ("engine-workers", "time, s", "start-up, s", "clips a minute", "times real time",
               "peak of the parent, MB", "of a worker, MB", "of others, MB")  # fmt: skip
    report.table(f"{len(made)} clips, {length_s:.0f} s of video", columns)
    pace = {
        name: statistics.median(t.seconds for t in taken) - statistics.median(starts[name])
        for name, taken in whole.items()
    }
    if min(pace.values()) <= 0:
        raise RuntimeError("start-up varies more than the clips take: give more or longer ones")
    for name, taken in whole.items():
        seconds, work_s = [t.seconds for t in taken], pace[name]
        peaks = [max(getattr(t, kind) for t in taken)
                 for kind in ("parent_mb", "worker_mb", "others_mb")]  # fmt: skip
        report.row(
            (name, spread(seconds), spread(starts[name]), f"{60 * len(made) / work_s:.1f}",
             f"{length_s / work_s:.1f}", *(f"{mb:.0f}" for mb in peaks)),
            configuration=name, seconds=seconds, start_s=starts[name], peaks_mb=peaks,
        )  # fmt: skip
    report.say(
        "Clips a minute and times real time are of medians, without start-up.",
        clips=[
            [str(p.source.absolute()), p.start_s, p.length_s, p.path.stat().st_size] for p in made
        ],
    )
    if {"local-1", "local-2"} <= pace.keys():
        ratio = pace["local-1"] / pace["local-2"]
        verdict = "reached" if ratio >= LEAST_RATIO else "missed"
        report.say(f"Two workers against one: {ratio:.2f} x (asked: {LEAST_RATIO}; {verdict})",
                   ratio=ratio)  # fmt: skip
    for workers in ("1", "2"):
        if {f"local-{workers}", f"ray-{workers}"} <= pace.keys():
            local, ray = (
                [t.seconds for t in whole[f"{engine}-{workers}"]] for engine in ("local", "ray")
            )
            more = pace[f"ray-{workers}"] / pace[f"local-{workers}"] - 1
            in_all = statistics.median(ray) / statistics.median(local) - 1
            verdict = "kept" if more < MOST_OVERHEAD else "missed"
            report.say(
                f"Ray against local, workers: {workers}: {more:+.1%} without start-up (asked: below"
                f" {MOST_OVERHEAD:.0%}; {verdict}), {in_all:+.1%} with it",
                **{f"overhead_{workers}": more},
            )


def again(report: Report, folder: Path, given: argparse.Namespace) -> None:
    """Time the command on a folder in which everything is done."""
    name = given.configurations[0]
    out = folder / f"out-0-{name}"
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (out / "results").rglob("*.parquet"))
    seconds = [run(folder / "clips", out, *engine_options(name)).seconds for _ in range(given.runs)]
    after = sorted((p.name, p.stat().st_mtime_ns) for p in (out / "results").rglob("*.parquet"))
    same = "no result was" if before == after else "RESULTS WERE"
    report.say(f"The finished batch again: {spread(seconds, 2)} s, {same} written anew",
               again_s=seconds)  # fmt: skip


def dry_run(report: Report, folder: Path, small: Path, rows: int) -> None:
    """List a manifest of many rows, each a file of its own."""
    links = folder / "links"
    links.mkdir()
    source = small
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "path"))
        for number in range(rows):
            path = links / f"{number:07d}.mp4"
            if number % MOST_LINKS == 0:
                shutil.copyfile(small, path)
                source = path
            else:
                os.link(source, path)
            writer.writerow((f"row-{number:07d}", f"links/{path.name}"))
    options = ("--dry-run", "--asr", "none", "--offline")
    taken = run(folder / "rows.csv", folder / "dry", *options)
    peak_mb = max(taken.parent_mb, taken.worker_mb)
    kept = taken.seconds < MOST_ROWS_S and peak_mb < MOST_ROWS_MB
    report.say(
        f"Dry run over {rows:,} rows: {taken.seconds:.1f} s, {peak_mb:.0f} MB at most in one"
        f" process (asked: below {MOST_ROWS_S} s and {MOST_ROWS_MB} MB;"
        f" {'kept' if kept else 'missed'})",
        rows=rows, dry_run_s=taken.seconds, dry_run_mb=peak_mb,
    )  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("clip", type=Path, nargs="*", default=[DATA / "clips"], metavar="CLIP")
    parser.add_argument("--clips", type=int, default=60, help="pieces to be made")
    parser.add_argument("--seconds", type=float, default=10.0, help="least length of a piece")
    parser.add_argument("--rows", type=int, default=100_000, help="of the dry run; 0: none")
    parser.add_argument("--configurations", nargs="+", default=CONFIGURATIONS, metavar="NAME")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the table into this page")
    given = parser.parse_args()
    machine.PACKAGES = (*machine.PACKAGES, "pyarrow", "ray")
    report = Report("maven batch", given.json)
    sources = [
        path
        for clip in given.clip
        for path in (sorted(clip.iterdir()) if clip.is_dir() else [clip])
        if path.suffix in MEDIA
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        made = pieces(sources, folder / "clips", given.clips, given.seconds)
        side_by_side(report, folder, made, given)
        again(report, folder, given)
        if given.rows:
            one_frame(made[0].path, folder / "small.mp4")
            dry_run(report, folder, folder / "small.mp4", given.rows)
    if given.into:
        report.put_into(given.into)
    report.close()


if __name__ == "__main__":
    main()
