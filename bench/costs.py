"""What a batch is made of, measured alone: stages of a worker on one core, and the parent's work.

Times of workers are processor seconds of one core with one thread, so that others on the machine
disturb them little. Times of the parent are of the wall clock: it waits for its disk.
"""

from __future__ import annotations

import csv
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from machine import DATA
from stages import analyse

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from two_nodes import family

CLIP = "talk_long_71s_512.mp4"
LENGTHS_S = SHORT_S, LONG_S = 3.0, 12.0
FORMATS = {  # name -> width, height, bits a second of the pictures
    "256 px": (256, 256, 400_000),
    "512 px": (512, 512, 900_000),
    "720p": (1280, 720, 2_400_000),
    "1080p": (1920, 1080, 5_000_000),
}
TYPICAL = "720p"
STAGES = {  # of the table -> of bench/stages.py
    "decode": ("decode pictures",),
    "detect and track": ("detect, whole frame", "detect, near a face", "thumbnail"),
    "crop": ("crop",),
    "face encoder": ("face network",),
    "sound and voice encoder": ("decode sound", "speech", "voice network"),
    "words": ("words",),
    "network": ("fusion network",),
    "writing": ("table",),
}
WORDS_S = 0.4  # a word
FRAMES_HZ = 25.0
DRIVER = "maven.batch.driver"
JOB = {
    "kind": "analyse", "model": "mini", "asr": "none", "faces": "main", "rate_hz": None,
    "device": "cpu", "runtime": "auto", "threads": 1, "offline": True,
}  # fmt: skip


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def convert(source: Path, target: Path, form: str, length_s: float) -> float:
    """Write the first seconds in another size, edges drawn out to its shape, words beside.

    Returns:
        Bits a second of the file.
    """
    width, height, bits_s = FORMATS[form]
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        video, sound = old.streams.video[0], old.streams.audio[0]
        rate = video.average_rate
        out = new.add_stream("libx264", rate, options={"preset": "veryfast", "threads": "1"})
        out.width, out.height, out.pix_fmt, out.bit_rate = width, height, "yuv420p", bits_s
        copied = new.add_stream_from_template(sound)
        for packet in old.demux(video, sound):
            if packet.stream is sound:
                if packet.dts is not None and packet.dts * packet.time_base < length_s:
                    packet.stream = copied
                    new.mux(packet)
                continue
            for frame in packet.decode():
                if frame.time < length_s:
                    pixels = frame.to_ndarray(format="rgb24", width=height, height=height)
                    edge = (width - height) // 2
                    wide = np.pad(pixels, ((0, 0), (edge, edge), (0, 0)), mode="edge")
                    made = av.VideoFrame.from_ndarray(wide, format="rgb24")
                    made.pts, made.time_base = frame.pts, frame.time_base
                    new.mux(out.encode(made))
        new.mux(out.encode())
    cues = [f"00:{t:06.3f} --> 00:{t + 0.3:06.3f}\nword\n" for t in np.arange(0, length_s, WORDS_S)]
    target.with_suffix(".vtt").write_text("\n".join(["WEBVTT\n", *cues]))
    return target.stat().st_size * 8 / length_s


@dataclass(frozen=True)
class Worker:
    """Processor seconds of one core, for videos of one format.

    Attributes:
        stages: by name, a second of video.
        compute_s: of all, a second of video.
        file_s: of a file beside its length.
        wall_s: of the clock, a second of video.
        bits_s: of the videos.
    """

    stages: dict[str, float]
    compute_s: float
    file_s: float
    wall_s: float
    bits_s: float


def clip_path(folder: Path, form: str, length_s: float) -> Path:
    """Where `worker` leaves a clip."""
    return folder / f"{form.replace(' ', '')}-{length_s:.0f}.mp4"


def worker(folder: Path, form: str, runs: int, runtime: str = "auto", **how: Any) -> Worker:
    """Measure one format on a short and a long clip: the slope is a second's, the rest a file's."""
    cpu: dict[float, float] = {}
    wall: dict[float, float] = {}
    by_stage: dict[float, dict[str, float]] = {}
    bits_s = 0.0
    for length_s in LENGTHS_S:
        clip = clip_path(folder, form, length_s)
        bits_s = convert(DATA / "clips" / CLIP, clip, form, length_s)
        with one_core():
            analyse(str(clip), runtime, threads=1, **how)
            took = [analyse(str(clip), runtime, threads=1, **how) for _ in range(runs)]
        wall[length_s] = statistics.median(total for total, _, _ in took)
        cpu[length_s] = statistics.median(total for _, total, _ in took)
        by_stage[length_s] = {
            name: statistics.median(sum(stage.get(p, 0.0) for p in parts) for _, _, stage in took)
            for name, parts in STAGES.items()
        }
    more_s = LONG_S - SHORT_S
    compute_s = (cpu[LONG_S] - cpu[SHORT_S]) / more_s
    stages = {n: (by_stage[LONG_S][n] - by_stage[SHORT_S][n]) / more_s for n in STAGES}
    file_s = max(0.0, cpu[SHORT_S] - SHORT_S * compute_s)
    wall_s = (wall[LONG_S] - wall[SHORT_S]) / more_s
    return Worker(stages, compute_s, file_s, wall_s, bits_s)


@dataclass(frozen=True)
class Attended:
    """A worker as a batch has it.

    Attributes:
        start_s: until its model is loaded.
        peaks_mb: of its memory, with a clip of `LONG_S` of each format.
        result_bytes, result_bytes_s: of a result beside its clip's length, and a second.
    """

    start_s: float
    peaks_mb: dict[str, float]
    result_bytes: float
    result_bytes_s: float


def attended(folder: Path) -> Attended:
    """Have a new worker for each format analyse the clips that `worker` has left."""
    from maven.batch.attendant import Attendant
    from maven.confine import cores

    start_s, sizes, peaks_mb = [], {}, {}
    for form in FORMATS:
        attendant = Attendant(JOB, folder, cores=[max(cores())])
        try:
            began = time.perf_counter()
            attendant.about()
            start_s.append(time.perf_counter() - began)
            for length_s in LENGTHS_S:
                clip = clip_path(folder, form, length_s)
                outcome = attendant.do(task(clip.name, clip))
                if outcome["state"] != "done":
                    raise RuntimeError(outcome["error"])
                sizes[length_s] = Path(outcome["file"]).stat().st_size
                peaks_mb[form] = (outcome["peak_bytes"] or 0) / 2**20
        finally:
            attendant.close()
    slope = (sizes[LONG_S] - sizes[SHORT_S]) / (LONG_S - SHORT_S)
    least = sizes[SHORT_S] - slope * SHORT_S
    return Attended(statistics.median(start_s), peaks_mb, least, slope)


def task(name: str, path: Path) -> dict[str, Any]:
    """What an engine is asked to do with a file."""
    return {
        "id": name, "path": str(path.absolute()), "transcript": None, "start_s": None,
        "end_s": None, "size_bytes": path.stat().st_size, "known": None,
    }  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """Seconds of an engine.

    Attributes:
        start_s: until the first worker is ready.
        row_s: from row to row of one worker, for files that are refused at once.
        driver_s: of the processor, a row, of the process that gives out rows; 0 for local, where
            it is the parent itself.
    """

    start_s: float
    row_s: float
    driver_s: float


def engine(name: str, folder: Path, rows: int) -> Engine:
    """Measure an engine with one worker."""
    from maven.batch.cluster import Cluster
    from maven.batch.local import Local

    refused = folder / "refused.mp4"
    refused.write_bytes(b"no video" * 100)
    work = folder / name
    work.mkdir()
    few = rows // 10  # until all have begun
    began = time.perf_counter()
    with Cluster(JOB, work, workers=1) if name == "ray" else Local(JOB, work, 1) as running:
        running.about()
        start_s = time.perf_counter() - began
        for number, _ in enumerate(running.run(task(f"{k}", refused) for k in range(rows))):
            if number == few:
                began, driver_s = time.perf_counter(), _driver_s()
        took_s, driver_s = time.perf_counter() - began, _driver_s() - driver_s
    count = rows - 1 - few
    return Engine(start_s, took_s / count, driver_s / count)


def _driver_s() -> float:
    """Processor seconds so far of the process that speaks with Ray; 0 where there is none."""
    for child in family(os.getpid()):
        if DRIVER in Path(f"/proc/{child}/cmdline").read_text():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


@dataclass(frozen=True)
class Parent:
    """Seconds of the parent, a file.

    Attributes:
        plan_s: listed from a manifest, looked at, written down.
        commit_s: result and row written durably.
        index_s: in index and summary page.
        again_s: found to be done, at the next start.
        bytes: of the database and the index.
    """

    plan_s: float
    commit_s: float
    index_s: float
    again_s: float
    bytes: float


def parent(folder: Path, clip: Path, files: int) -> Parent:
    """Have the parent's part of a batch done, with results of one clip under many names."""
    import maven
    from maven.batch import result
    from maven.batch.items import items
    from maven.batch.state import State
    from maven.render.batch_page import write_batch_page

    analysis = maven.analyze(clip, asr="none", offline=True)
    record = {"key": "0" * 32, "media_sha256": "0" * 64, "transcript_sha256": None}
    record |= result.of(analysis)
    (folder / "links").mkdir()
    with (folder / "files.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "path"))
        for number in range(files):
            os.link(clip, folder / "links" / f"{number}.mp4")
            rows.writerow((f"clip-{number:06d}", f"links/{number}.mp4"))
    took = dict.fromkeys(("plan_s", "commit_s", "index_s", "again_s"), 0.0)

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        took[name] += time.perf_counter() - began

    out = folder / "out"
    with State(out) as state:
        with timed("plan_s"):
            state.settle({"bench": True})
            state.plan(items([str(folder / "files.csv")]))
        for number, asked in enumerate(state.tasks(1)):
            path = state.work / f"{number}.parquet"
            result.write(analysis, asked["id"], record, path)
            outcome = {
                "id": asked["id"], "state": "done", "error": None, "again": False, "seconds": 1.0,
                "peak_bytes": None, "file": str(path), "record": record,
            }  # fmt: skip
            with timed("commit_s"):
                state.commit(outcome)
        with timed("index_s"):
            state.write_index()
            about = {"settings": state.settings, "media_s": 1.0, "elapsed_s": 1.0}
            write_batch_page(state.rows(), about, out / "index.html")
    with timed("again_s"), State(out) as state:
        state.settle({"bench": True})
        counts = state.plan(items([str(folder / "files.csv")]))
    if counts.done != files:
        raise RuntimeError(f"{counts.done} of {files} files are done")
    held = sum((out / name).stat().st_size for name in ("batch.sqlite", "index.parquet"))
    return Parent(**{name: seconds / files for name, seconds in took.items()}, bytes=held / files)


def feature_bytes_s() -> float:
    """Bytes of the feature vectors of `mini` a second of one face and its voice."""
    import maven

    parts = maven.load("mini", offline=True).encoders
    rates_hz = {"visual": parts.visual.rate_hz or FRAMES_HZ, "audio": parts.audio.rate_hz}
    widths = {"visual": parts.visual.width, "audio": parts.audio.width}
    words = parts.text.width / WORDS_S
    return 4.0 * (sum(widths[m] * rate_hz for m, rate_hz in rates_hz.items()) + words)
