"""The commands. Each is a function whose signature and docstring are its help; work is elsewhere.

Exit codes: 0 done, 1 a run failed, 2 the command line is wrong.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maven.calibration import calibrate
from maven.exporting import export
from maven.research import attach
from maven.terminal import (
    Debug,
    check_files,
    check_writable,
    lacking,
    one_line_errors,
    progress_bar,
    refuse,
)

if TYPE_CHECKING:
    from rich.console import Console

    from maven.pipeline import Analysis
    from maven.transcribe import Transcriber

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A video of a talking person in, valence and arousal over time out.",
)
FORMATS = ("csv", "parquet", "json", "vtt")

Media = Annotated[
    list[Path], typer.Argument(metavar="MEDIA", help="Video or sound files.", show_default=False)
]
OneMedia = Annotated[
    Path, typer.Argument(metavar="MEDIA", help="A video or sound file.", show_default=False)
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the results.")]
ModelName = Annotated[
    str, typer.Option(metavar="NAME", help="mini, paper, a model folder or a hub id.")
]
TranscriptFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="SRT, WebVTT, whisper JSON, .align or '[1.0s - 2.5s] text'."),
]
Asr = Annotated[
    str, typer.Option(metavar="NAME", help="auto, none, whisper[:SIZE] or pocketsphinx.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda[:N].")]
Runtime = Annotated[
    str, typer.Option(metavar="NAME", help="auto, onnx (no torch needed) or torch.")
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", help="CPU threads of each network.", show_default=False)
]
Offline = Annotated[bool, typer.Option("--offline", help="Never fetch anything.")]


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # print any file name on any terminal
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except ModuleNotFoundError as error:  # of a command's own imports
        message = lacking(error)
        if message is None:
            raise
        print(f"maven: {message}", file=sys.stderr)
        sys.exit(1)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """A video of a talking person in, valence and arousal over time out."""
    if version:
        from maven import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def predict(
    media: Media,
    out: Out = Path("maven-out"),
    model: ModelName = "mini",
    transcript: TranscriptFile = None,
    asr: Asr = "auto",
    faces: Annotated[
        str, typer.Option(metavar="WHO", help="main: the person on screen most; all: everyone.")
    ] = "main",
    rate: Annotated[
        str, typer.Option(metavar="HZ", help="Rows per second; video: one for every frame.")
    ] = "video",
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Of csv, parquet, json, vtt.")
    ] = "csv",
    plot: Annotated[bool, typer.Option("--plot", help="Draw a picture as well.")] = False,
    device: Device = "auto",
    runtime: Runtime = "auto",
    threads: Threads = None,
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Give valence and arousal over time for each media file."""
    from rich.console import Console

    wanted = _formats(formats)
    rate_hz = _rate(rate)
    if faces not in ("main", "all"):
        refuse(f"--faces: got {faces!r}; accepted: main, all")
    if runtime not in ("auto", "onnx", "torch"):
        refuse(f"--runtime: got {runtime!r}; accepted: auto, onnx, torch")
    if threads is not None and not 1 <= threads <= 1024:
        refuse(f"--threads: got {threads}; accepted: 1 to 1024")
    _check_device(device)
    with one_line_errors(debug):
        check_files([*media, *([transcript] if transcript else [])])
        if transcript and len(media) > 1:
            refuse("--transcript: one transcript fits one media file")
        check_writable(out)

    console = Console(highlight=False)
    failed = 0
    with one_line_errors(debug):
        from maven.checkpoint import load
        from maven.faces.detect import CenterFace
        from maven.pipeline import Settings, analyze
        from maven.render.tables import check_formats

        check_formats(wanted)
        settings = Settings(transcript, asr, faces, rate_hz, offline)
        transcriber = _transcriber(asr, offline)
        loaded = load(model, device=device, offline=offline, runtime=runtime, threads=threads)
        detector = CenterFace()
    taken: set[str] = set()
    for path in media:
        try:
            with one_line_errors(debug, path), progress_bar(path.name) as report:
                analysis = analyze(
                    path, loaded, settings, detector=detector, transcriber=transcriber,
                    progress=report,
                )  # fmt: skip
                written = save(analysis, out, wanted, plot, _stem(path, out, taken))
        except typer.Exit:
            failed += 1
            continue
        show(analysis, written, console)
    if failed:
        if len(media) > 1:
            print(f"maven: {failed} of {len(media)} files failed", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def explain(
    media: OneMedia,
    out: Out = Path("maven-out"),
    model: ModelName = "mini",
    transcript: TranscriptFile = None,
    asr: Asr = "auto",
    moments: Annotated[int, typer.Option(metavar="N", help="How many moments.")] = 3,
    at: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="The moment whose attention is drawn: the strongest."),
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Say what drove the answer: the strongest moments, face, voice, and which words."""
    from rich.console import Console

    if not 1 <= moments <= 1000:
        refuse(f"--moments: got {moments}; accepted: 1 to 1000")
    _check_device(device)
    with one_line_errors(debug):
        check_files([media, *([transcript] if transcript else [])])
        check_writable(out)

    with one_line_errors(debug):
        from maven.explanation import explain as explained
        from maven.pipeline import Settings
        from maven.render.explanation import print_explanation

        transcriber = _transcriber(asr, offline)
    with one_line_errors(debug, media), progress_bar(media.name) as report:
        explanation = explained(
            media, model, Settings(transcript, asr, offline=offline), moments=moments, at_s=at,
            device=device, transcriber=transcriber, progress=report,
        )  # fmt: skip
        written = explanation.save(out)
    console = Console(highlight=False)
    print_explanation(explanation.scene(), console)
    for path in written:
        console.print(f"Wrote {path}", soft_wrap=True, markup=False)


@app.command()
def demo(
    out: Out = Path("maven-demo"),
    debug: Debug = False,
) -> None:
    """Analyse the clip in the package and show prediction against intention."""
    from rich.console import Console

    with one_line_errors(debug):
        check_writable(out)

        from maven.demo import run

        with progress_bar("demo.mp4") as report:
            result = run(out, report)
    result.show(Console(highlight=False))


@app.command()
def probe(
    media: Annotated[
        Path, typer.Argument(metavar="MEDIA", help="A media file.", show_default=False)
    ],
    debug: Debug = False,
) -> None:
    """Say what a media file holds: streams, sizes, rates, times."""
    with one_line_errors(debug):
        check_files([media])

        from maven import media as reader

        info = reader.probe(media)
    duration = "unknown" if info.duration_s is None else f"{info.duration_s:.3f} s"
    print(f"{info.path}: {info.container}, {info.size_bytes} bytes, {duration}")
    if video := info.video:
        rate = "variable" if video.rate_hz is None else f"{video.rate_hz:.3f} Hz"
        turned = f", turned by {video.rotation_deg} degrees" if video.rotation_deg else ""
        print(
            f"  video   {video.codec} {video.width_px}x{video.height_px} {video.pixel_format},"
            f" {rate}, from {video.start_s:.3f} s{turned}"
        )
    if sound := info.audio:
        print(
            f"  sound   {sound.codec} {sound.rate_hz} Hz, {sound.channels} channels,"
            f" from {sound.start_s:.3f} s"
        )
    for stream in info.subtitles:
        print(
            f"  words   stream {stream.index}, {stream.codec}, {stream.language or 'no language'}"
        )


@app.command()
def models(
    card: Annotated[
        str | None, typer.Option(metavar="NAME", help="Print the card of this model instead.")
    ] = None,
    debug: Debug = False,
) -> None:
    """List the models that --model takes, or print a model's card."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    with one_line_errors(debug):
        from maven.checkpoint import ModelError, available, find

        if card is not None:
            path = find(card) / "MODEL_CARD.md"
            if not path.is_file():
                raise ModelError(f"the model {card} has no card: there is no {path}")
            print(path.read_text(encoding="utf-8", errors="replace"), end="")
            return
        table = Table(box=None, pad_edge=False)
        for name in ("name", "where", "size", "what"):
            table.add_column(name)
        for row in available():
            table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def _check_device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", device):
        refuse(f"--device: got {device!r}; accepted: auto, cpu, cuda or cuda:N")


def _transcriber(asr: str, offline: bool) -> Transcriber:
    from maven.recognise import RecogniserError
    from maven.transcribe import Transcriber

    try:
        return Transcriber(asr, offline=offline)
    except RecogniserError as error:
        refuse(f"--asr: {error}")


def _formats(text: str) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in wanted:
        if name not in FORMATS:
            refuse(f"--format: got {name!r}; accepted: {', '.join(FORMATS)}")
    return wanted


def _rate(text: str) -> float | None:
    if text == "video":
        return None
    try:
        rate_hz = float(text)
    except ValueError:
        rate_hz = 0.0
    if not 0 < rate_hz <= 1000:
        refuse(f"--rate: got {text!r}; accepted: video, or a number above 0 and up to 1000")
    return rate_hz


def _stem(path: Path, out: Path, taken: set[str]) -> str:
    """Name the results of a file: by its stem, or by more where that is taken in this run."""
    from maven.pipeline import results_stem

    stem, number = results_stem(path, out), 1
    while stem in taken:
        number += 1
        stem = f"{results_stem(path, out)}-{number}"
    taken.add(stem)
    return stem


def save(
    analysis: Analysis, out: Path, formats: tuple[str, ...], plot: bool, stem: str
) -> list[Path]:
    """Write an analysis' files; a folder made for them goes again when that fails."""
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        written = analysis.save(out, formats, stem)
        if plot:
            written.append(out / f"{stem}.png")
            analysis.plot(written[-1])
    except BaseException:
        if not existed and not any(out.iterdir()):
            out.rmdir()
        raise
    return written


def show(analysis: Analysis, written: list[Path], console: Console) -> None:
    """Print the summary, what was missing, and the files."""
    from maven.render.summary import print_summary

    print_summary(analysis.summary(), console)
    for note in analysis.notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False)
    for path in written:
        console.print(f"Wrote {path}", soft_wrap=True, markup=False)


attach(app)
app.command()(calibrate)
app.command()(export)

if __name__ == "__main__":
    main()
