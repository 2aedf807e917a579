"""The command that analyses any number of files and keeps account of them."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from maven.predicting import Asr, Device, ModelName, Offline, Runtime, check_device, rate_of
from maven.terminal import Debug, check_writable, one_line_errors, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from maven.batch.run import Ended, EngineFor, Progress
    from maven.batch.state import Counts

ENGINES = ("local", "ray")
LINE_EVERY_S = 30.0  # where there is no terminal to draw a bar on

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
            metavar="INPUT...", show_default=False,
            help="Files, folders, globs, URLs (s3://...), or a manifest (.csv, .parquet).",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of results.")],
    model: ModelName = "mini",
    asr: Asr = "auto",
    faces: Annotated[
        str, typer.Option(metavar="WHO", help="main: the person on screen most; all: everyone.")
    ] = "main",
    rate: Annotated[
        str, typer.Option(metavar="HZ", help="Rows per second; video: one for every frame.")
    ] = "video",
    engine: Engine = "local",
    workers: Workers = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Cores of each process.")] = 1,
    address: Address = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Of a process; 3, or 16 for models other than mini.",
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
    if faces not in ("main", "all"):
        refuse(f"--faces: got {faces!r}; accepted: main, all")
    if runtime not in ("auto", "onnx", "torch"):
        refuse(f"--runtime: got {runtime!r}; accepted: auto, onnx, torch")
    if not 1 <= threads <= 1024:
        refuse(f"--threads: got {threads}; accepted: 1 to 1024")
    if memory_limit is not None and not 1 <= memory_limit <= 4096:
        refuse(f"--memory-limit: got {memory_limit:g}; accepted: 1 to 4096 GB")
    if time_limit is not None and not 1 <= time_limit <= 1e6:
        refuse(f"--time-limit: got {time_limit:g}; accepted: 1 to 1000000 s")
    check_device(device)
    with one_line_errors(debug):
        if not dry_run:
            check_writable(out)
        from maven.batch.items import InputError, items
        from maven.batch.run import run

        chosen = {"faces": faces, "rate_hz": rate_hz}  # the engine says which model and recogniser
        job = {
            "kind": "analyse", "model": local_model(model, offline),
            "asr": words_from(asr, offline or dry_run), **chosen, "device": device,
            "runtime": runtime, "threads": threads, "offline": True,
        }  # fmt: skip
        limits = {"memory_bytes": memory_limit and int(memory_limit * 1e9), "time_s": time_limit}
        with ending_in_order(), Teller(out) as teller:
            try:
                ended = run(
                    items(inputs), out,
                    engine_for(engine, job, 1 if dry_run else workers, address, limits),
                    chosen, dry_run=dry_run, planned=teller.planned, tell=teller,
                )  # fmt: skip
            except InputError as error:
                refuse(str(error))
            except KeyboardInterrupt:
                teller.close()
                say("maven: stopped; what is finished is kept, the same command goes on")
                raise typer.Exit(1) from None
    if not dry_run:
        show(ended, out)


def engine_for(
    engine: str,
    job: dict[str, Any],
    workers: int | None,
    address: str | None,
    limits: dict[str, Any] | None = None,
) -> EngineFor:
    """Give what makes the engine that the options name; refuse options that do not fit."""
    if engine not in ENGINES:
        refuse(f"--engine: got {engine!r}; accepted: {', '.join(ENGINES)}")
    if workers is not None and not 1 <= workers <= 100_000:
        refuse(f"--workers: got {workers}; accepted: 1 to 100000")
    if address is not None and engine != "ray":
        refuse("--address: of a Ray cluster; accepted: with --engine ray")
    from maven.batch.attendant import Limits

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
        print(f"Note: words come from transcripts only: {error}", file=sys.stderr)
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
    """Shows how far a batch is: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, out: Path) -> None:
        self._out, self._said_s = out, time.monotonic()
        self._bars: Any = None
        self._task: Any = None

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def planned(self, counts: Counts, notes: tuple[str, ...]) -> None:
        """Say what was found and what there is to do."""
        for note in notes:
            say(f"Note: {note}")
        say(f"{self._out}: {described(counts)}", sys.stdout)
        if counts.todo and sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bars = Progress(
                BarColumn(), TextColumn("{task.description}", markup=False),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bars.add_task("starting", total=counts.todo)
            self._bars.start()

    def __call__(self, progress: Progress) -> None:
        """Show how far it is."""
        if self._bars is not None:
            text = line(progress)
            self._bars.update(self._task, completed=progress.finished, description=text)
        elif time.monotonic() - self._said_s >= LINE_EVERY_S:
            self._said_s = time.monotonic()
            say(line(progress))


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line to standard error, or elsewhere; that nobody reads it ends no batch."""
    with suppress(OSError, ValueError):
        print(text, file=stream or sys.stderr, flush=True)


def described(counts: Counts) -> str:
    """Say in words what was found."""
    parts = [
        (counts.new, "new"),
        (counts.failed, "failed before"),
        (counts.changed, "changed"),
        (counts.missing, "whose result is missing"),
        (counts.problems, "that cannot be read"),
    ]
    reasons = ", ".join(f"{number:,} {what}" for number, what in parts if number)
    done = f", {counts.done:,} done already" if counts.done else ""
    return (
        f"{counts.total:,} files: {counts.todo:,} to do{f' ({reasons})' if reasons else ''}{done}"
    )


def line(progress: Progress) -> str:
    """Say in one line how far it is, how fast, and how long it will take."""
    parts = [f"{progress.finished:,} of {progress.todo:,}"]
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.elapsed_s > 0:
        parts.append(f"{progress.finished * 60 / progress.elapsed_s:.1f} files a minute")
        parts.append(f"{progress.media_s / progress.elapsed_s:.1f} x real time")
    if progress.left_s is not None:
        parts.append(f"{clock(progress.left_s)} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Write a time as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def show(ended: Ended, out: Path) -> None:
    """Print what became of it; exit code 1 where files failed."""
    progress, counts = ended.progress, ended.counts
    speed = ""
    if progress.media_s:
        hours = progress.media_s / 3600
        length = f"{hours:.1f} h" if hours >= 1 else f"{progress.media_s:.0f} s"
        speed = f"; {length} of media, {progress.media_s / progress.elapsed_s:.1f} x real time"
    say(
        f"{progress.finished - progress.failed:,} done in {clock(progress.elapsed_s)}{speed}",
        sys.stdout,
    )
    made = ", ".join(str(out / name) for name in ("results", "index.parquet", "index.html"))
    say(f"Wrote {made}", sys.stdout)
    failed = progress.failed + counts.problems
    if failed:
        where = out / "errors.csv"
        say(f"maven: {failed:,} of {counts.total:,} files failed: {where}")
        raise typer.Exit(1)
