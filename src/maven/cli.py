"""The commands. Each is a function whose signature and docstring are its help; work is elsewhere.

Exit codes: 0 done, 1 a run failed, 2 the command line is wrong.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from maven.batching import batch
from maven.calibration import calibrate
from maven.exporting import export
from maven.predicting import (
    Asr,
    Device,
    ModelName,
    Offline,
    OneMedia,
    Out,
    TranscriptFile,
    check_device,
    predict,
    recogniser,
)
from maven.research import attach
from maven.serving import serve
from maven.terminal import (
    Debug,
    check_files,
    check_writable,
    lacking,
    one_line_errors,
    progress_bar,
    refuse,
)
from maven.watching import live

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A video of a talking person in, valence and arousal over time out.",
)


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


app.command()(predict)
app.command()(batch)


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
    check_device(device)
    with one_line_errors(debug):
        check_files([media, *([transcript] if transcript else [])])
        check_writable(out)

    with one_line_errors(debug):
        from maven.explanation import explain as explained
        from maven.pipeline import Settings
        from maven.render.explanation import print_explanation

        transcriber = recogniser(asr, offline)
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


app.command()(serve)
app.command()(live)
attach(app)
app.command()(calibrate)
app.command()(export)

if __name__ == "__main__":
    main()
