"""The command that analyses media files, and the options that it shares with others."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maven.terminal import (
    Debug,
    check_files,
    check_writable,
    one_line_errors,
    progress_bar,
    refuse,
)

if TYPE_CHECKING:
    from rich.console import Console

    from maven.observe import Progress
    from maven.pipeline import Analysis
    from maven.transcribe import Transcriber

FORMATS = ("csv", "parquet", "json", "vtt")


@dataclass(frozen=True)
class Wanted:
    """What shall be written of each analysis."""

    formats: tuple[str, ...]
    plot: bool
    report: bool
    overlay: bool
    blur: bool


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
Faces = Annotated[
    str, typer.Option(metavar="WHO", help="main: the person on screen most; all: everyone.")
]
Rate = Annotated[
    str, typer.Option(metavar="HZ", help="Rows per second; video: one for every frame.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda[:N].")]
Runtime = Annotated[
    str, typer.Option(metavar="NAME", help="auto, onnx (no torch needed) or torch.")
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", help="CPU threads of each network.", show_default=False)
]
Offline = Annotated[bool, typer.Option("--offline", help="Never fetch anything.")]


def predict(
    media: Media,
    out: Out = Path("maven-out"),
    model: ModelName = "mini",
    transcript: TranscriptFile = None,
    asr: Asr = "auto",
    faces: Faces = "main",
    rate: Rate = "video",
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Of csv, parquet, json, vtt.")
    ] = "csv",
    plot: Annotated[bool, typer.Option("--plot", help="Draw a picture as well.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write a page to look at: video, courses, moments.")
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write the video with the answer drawn in.")
    ] = False,
    blur: Annotated[bool, typer.Option("--blur", help="Of the overlay: nobody's face.")] = False,
    device: Device = "auto",
    runtime: Runtime = "auto",
    threads: Threads = None,
    offline: Offline = False,
    debug: Debug = False,
) -> None:
    """Give valence and arousal over time for each media file."""
    from rich.console import Console

    wanted = Wanted(_formats(formats), plot, report, overlay, blur)
    rate_hz = rate_of(rate)
    check_choices(faces, runtime)
    if threads is not None and not 1 <= threads <= 1024:
        refuse(f"--threads: got {threads}; accepted: 1 to 1024")
    if blur and not overlay:
        refuse("--blur: it is the overlay whose faces are blurred; accepted: --overlay --blur")
    check_device(device)
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
        from maven.pipeline import BLUR_HZ, Settings, analyze
        from maven.render.tables import check_formats

        if blur and rate_hz is not None and rate_hz < BLUR_HZ:
            least = f"needs a --rate of {BLUR_HZ:g} or more"
            refuse(f"--blur: {least}, got {rate}: faces would be missed")
        check_formats(wanted.formats)
        settings = Settings(transcript, asr, faces, rate_hz, offline)
        transcriber = recogniser(asr, offline)
        loaded = load(model, device=device, offline=offline, runtime=runtime, threads=threads)
        detector = CenterFace()
    taken: set[str] = set()
    for path in media:
        written: list[Path] = []
        try:
            with one_line_errors(debug, path), progress_bar(path.name) as bar:
                analysis = analyze(
                    path, loaded, settings, detector=detector, transcriber=transcriber,
                    progress=bar,
                )  # fmt: skip
                save(analysis, out, wanted, _stem(path, out, taken), written, bar)
        except typer.Exit:
            failed += 1
            if not written:
                continue
        show(analysis, written, console)
    if failed:
        if len(media) > 1:
            print(f"maven: {failed} of {len(media)} files failed", file=sys.stderr)
        raise typer.Exit(1)


def check_choices(faces: str, runtime: str) -> None:
    """Refuse what is no choice of these options."""
    if faces not in ("main", "all"):
        refuse(f"--faces: got {faces!r}; accepted: main, all")
    if runtime not in ("auto", "onnx", "torch"):
        refuse(f"--runtime: got {runtime!r}; accepted: auto, onnx, torch")


def check_device(device: str) -> None:
    """Refuse what is no name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", device):
        refuse(f"--device: got {device!r}; accepted: auto, cpu, cuda or cuda:N")


def recogniser(asr: str, offline: bool) -> Transcriber:
    """Give what finds the words; refuse what is no name of a way to."""
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


def rate_of(text: str) -> float | None:
    """Read a rate of rows; None for every frame of the video; refuse others."""
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
    analysis: Analysis, out: Path, wanted: Wanted, stem: str, written: list[Path], bar: Progress
) -> None:
    """Write an analysis' files, noting each; a folder made for them goes again without any."""
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        written += analysis.save(out, wanted.formats, stem)
        if wanted.plot:
            analysis.plot(out / f"{stem}.png")
            written.append(out / f"{stem}.png")
        if wanted.report:
            written.append(analysis.report(out / f"{stem}.html", progress=bar))
        if wanted.overlay and analysis.media.video is not None:
            target = out / f"{stem}.overlay.mp4"
            written.append(analysis.overlay(target, blur=wanted.blur, progress=bar))
    except BaseException:
        if not existed and not any(out.iterdir()):
            out.rmdir()
        raise


def show(analysis: Analysis, written: list[Path], console: Console) -> None:
    """Print the summary, what was missing, and the files."""
    from maven.render.summary import print_summary

    print_summary(analysis.summary(), console)
    for note in analysis.notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False)
    for path in written:
        console.print(f"Wrote {path}", soft_wrap=True, markup=False)
