"""The command that analyses any number of files and keeps account of them."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from maven.predicting import (
    Asr,
    Device,
    Faces,
    ModelName,
    Offline,
    Rate,
    Runtime,
    check_choices,
    check_device,
    rate_of,
)
from maven.terminal import Debug, check_writable, one_line_errors, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from maven.batch.run import Ended, EngineFor, Progress
    from maven.batch.state import Counts

ENGINES = ("local", "ray")
LINE_EVERY_S, DRAW_EVERY_S = 30.0, 1.0  # without and with a terminal to draw a bar on
NEEDS_PYARROW = "maven: this needs pyarrow, which is not installed: pip install 'maven[batch]'"

Engine = Annotated[
    str, typer.Option(metavar="NAME", help="local: processes of this machine; or ray.")
]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Processes; as many as cores and memory allow.",
                 show_default=False),
]  # fmt: skip
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDR", help="Of a Ray cluster: auto or HOST:PORT.", show_default=False),
]


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT", show_default=False,
            help="Files, folders, globs, URLs (s3://...), or a manifest (.csv, .parquet).",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of results.")],
    model: ModelName = "mini",
    asr: Asr = "auto",
    faces: Faces = "main",
    rate: Rate = "video",
    engine: Engine = "local",
    workers: Workers = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Cores of each process.")] = 1,
    address: Address = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(metavar="GIB", help="Of a process; 3 for mini on the processor, else 16.",
                     show_default=False),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="For one file; by its length.", show_default=False),
    ] = None,
    device: Device = "auto",
    runtime: Runtime = "auto",
    offline: Offline = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do; write nothing.")
    ] = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Analyse any number of files into one folder; run again, and only what is missing is done.

    A file that fails, hangs or eats memory is listed in DIR/errors.csv and does not stop the rest.
    """
    rate_hz = rate_of(rate)
    check_choices(faces, runtime)
    if not 1 <= threads <= 1024:
        refuse(f"--threads: got {threads}; accepted: 1 to 1024")
    if memory_limit is not None and not 1 <= memory_limit <= 4096:
        refuse(f"--memory-limit: got {memory_limit:g}; accepted: 1 to 4096 GiB")
    if time_limit is not None and not 1 <= time_limit <= 1e6:
        refuse(f"--time-limit: got {time_limit:g}; accepted: 1 to 1000000 s")
    check_device(device)
    check_engine(engine, workers, address)
    with one_line_errors(debug):
        if not dry_run:
            check_writable(out)
        from maven.batch.items import InputError, items
        from maven.batch.run import run

        if find_spec("pyarrow") is None:
            say(NEEDS_PYARROW)
            raise typer.Exit(1)
        chosen = {"faces": faces, "rate_hz": rate_hz}  # the engine says which model and recogniser
        job = {
            "kind": "analyse", "model": local_model(model, offline), **chosen, "device": device,
            "runtime": runtime, "threads": threads, "offline": True,
            "asr": words_from(asr, offline or dry_run),
        }  # fmt: skip
        memory_bytes = memory_limit and int(memory_limit * 2**30)
        limits = {"memory_bytes": memory_bytes, "time_s": time_limit}
        made = engine_for(engine, job, 1 if dry_run else workers, address, limits)
        with ending_in_order(), Teller(out) as teller:
            try:
                ended = run(
                    items(inputs), out, made, chosen,
                    dry_run=dry_run, planned=teller.planned, tell=teller,
                )  # fmt: skip
            except InputError as error:
                refuse(str(error))
            except KeyboardInterrupt:
                teller.close()
                say("maven: stopped; what is finished is kept, the same command goes on")
                raise typer.Exit(1) from None
    if not dry_run:
        show(ended, out)


def check_engine(engine: str, workers: int | None, address: str | None) -> None:
    """Refuse options that do not fit."""
    if engine not in ENGINES:
        refuse(f"--engine: got {engine!r}; accepted: {', '.join(ENGINES)}")
    if workers is not None and not 1 <= workers <= 100_000:
        refuse(f"--workers: got {workers}; accepted: 1 to 100000")
    if address is not None and engine != "ray":
        refuse("--address: of a Ray cluster; accepted: with --engine ray")


def engine_for(
    engine: str,
    job: dict[str, Any],
    workers: int | None,
    address: str | None,
    limits: dict[str, Any] | None = None,
) -> EngineFor:
    """Give what makes the engine that the options name."""
    from maven.batch.worker import Limits

    bounds = Limits(**(limits or {}))

    def local(work: Path) -> AbstractContextManager[Any]:
        from maven.batch.local import Local

        return Local(job, work, workers=workers, limits=bounds)

    def ray(work: Path) -> AbstractContextManager[Any]:
        from maven.batch.cluster import Cluster

        return Cluster(job, work, workers=workers, address=address, limits=bounds)

    return ray if engine == "ray" else local


def local_model(model: str, offline: bool) -> str:
    """Fetch a model once, here: workers fetch nothing. `mini` is in the package.

    Raises:
        ModelError: it is neither on disk nor to be fetched.
    """
    from maven.checkpoint import fetch

    folder = fetch(model, offline)
    return model if model == "mini" else str(folder.absolute())


def words_from(asr: str, offline: bool) -> str:
    """Settle once for all files where words come from that no transcript gives.

    "auto" is whisper where its weights are here or can be fetched, else "none", which is said.
    """
    from maven.predicting import recogniser
    from maven.recognise import DEFAULT_SIZE, RecogniserError, whisper_folder

    recogniser(asr, offline)  # refuses what is no name
    kind, _, which = asr.partition(":")
    if kind not in ("auto", "whisper"):
        return asr
    try:
        whisper_folder(which or DEFAULT_SIZE, offline)
    except RecogniserError as error:
        if kind == "whisper":
            raise
        say(f"Note: words come from transcripts only (as with --asr none): {error}")
        return "none"
    folder = Path(which)
    return f"whisper:{folder.absolute() if folder.is_dir() else which or DEFAULT_SIZE}"


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Take the first request to end as Ctrl-C, and no other while the work is put in order.

    Schedulers send SIGTERM, a terminal that is closed SIGHUP.
    """
    numbers = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    before = {number: signal.getsignal(number) for number in numbers if number is not None}
    before = {n: handler for n, handler in before.items() if handler != signal.SIG_IGN}  # nohup

    def stop(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Teller:
    """Shows how far a batch is: a bar on a terminal, elsewhere a line now and then.

    Both go on while no file ends, in a thread of their own.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._bars: Any = None
        self._last: tuple[Progress, float] | None = None  # and when it was told
        self._stop = threading.Event()

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        self._stop.set()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def planned(self, counts: Counts, notes: tuple[str, ...]) -> None:
        """Say what was found and what there is to do."""
        from maven.batch.run import Progress

        for note in notes:
            say(f"Note: {note}")
        say(f"{self._out}: {described(counts)}", sys.stdout)
        if not counts.todo:
            return
        self(Progress(0, 0, counts.todo, 0.0, 0.0, None))
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars

            columns = (BarColumn(), TextColumn("{task.description}", markup=False))
            self._bars = Bars(*columns, console=Console(stderr=True), transient=True)
            self._bars.add_task("", total=counts.todo)
            self._bars.start()
        threading.Thread(target=self._tick, daemon=True).start()

    def __call__(self, progress: Progress) -> None:
        """Take in how far it is."""
        self._last = progress, time.monotonic()

    def _tick(self) -> None:
        while not self._stop.wait(DRAW_EVERY_S if self._bars else LINE_EVERY_S):
            if self._last is None:
                continue
            progress, told_s = self._last
            text = line(later(progress, time.monotonic() - told_s))
            if (bars := self._bars) is not None:
                bars.update(0, completed=progress.finished, description=text)
            else:
                say(text)


def later(progress: Progress, since_s: float) -> Progress:
    """Give what is to be shown of a progress some time after it was told."""
    left_s = progress.left_s and max(progress.left_s - since_s, 1.0)
    return replace(progress, elapsed_s=progress.elapsed_s + since_s, left_s=left_s)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line to standard error, or elsewhere; that nobody reads it ends no batch."""
    with suppress(OSError, ValueError):
        print(text, file=stream or sys.stderr, flush=True)


def described(counts: Counts) -> str:
    """Say in words what was found."""
    parts = [
        (counts.new, "new"),
        (counts.failed, "failed before"),
        (counts.changed, "that may have changed"),
        (counts.missing, "whose result is missing"),
        (counts.problems, "that cannot be read"),
    ]
    reasons = ", ".join(f"{number:,} {what}" for number, what in parts if number)
    done = f", {counts.done:,} done already" if counts.done else ""
    files = f"{counts.total:,} file{'s' if counts.total != 1 else ''}"
    return f"{files}: {counts.todo:,} to do{f' ({reasons})' if reasons else ''}{done}"


def line(progress: Progress) -> str:
    """Say in one line how far it is, how fast, and how long it will take."""
    parts = [f"{progress.finished:,} of {progress.todo:,}"]
    if progress.left_s is not None:
        parts.insert(0, f"{clock(progress.left_s)} left")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.finished and progress.elapsed_s:
        parts.append(f"{progress.finished * 60 / progress.elapsed_s:.1f} files a minute")
        parts.append(f"{progress.media_s / progress.elapsed_s:.1f} x real time")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Write a time as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def show(ended: Ended, out: Path) -> None:
    """Print what became of it; exit code 1 where files failed."""
    progress, counts = ended.progress, ended.counts
    said = "nothing to do"
    if counts.todo:
        failures = f", {progress.failed:,} failed" if progress.failed else ""
        done = f"{progress.finished - progress.failed:,} done{failures}"
        said = f"{done} in {clock(progress.elapsed_s)}"
    if progress.media_s:
        hours = progress.media_s / 3600
        length = f"{hours:.1f} h" if hours >= 1 else f"{progress.media_s:.0f} s"
        said += f"; {length} of media, {progress.media_s / progress.elapsed_s:.1f} x real time"
    say(said[0].upper() + said[1:], sys.stdout)
    made = ", ".join(str(out / name) for name in ("results", "index.parquet", "index.html"))
    say(f"Wrote {made}", sys.stdout)
    failed = progress.failed + counts.problems
    if failed:
        files = f"{failed:,} of {counts.total:,} file{'s' if counts.total != 1 else ''} failed"
        say(f"maven: {files}: {out / 'errors.csv'}")
        raise typer.Exit(1)
