"""One clip's work in a process of its own: python -m maven.web.worker FOLDER.

What to do stands in FOLDER/settings.json; nothing outside the folder is written. Progress goes to
standard output, a JSON object a line: {"stage", "progress"}, {"length_s"}, and at the end {"files"}
or {"error", "spoiled"} (spoiled: the upload is of no use). The process is nice, limited in memory,
time and file sizes, and ends when the one that started it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maven import confine
from maven.container import MediaError
from maven.files import whole
from maven.transcript import TranscriptError
from maven.web.shelf import UPLOAD

if TYPE_CHECKING:
    from maven.media import MediaInfo
    from maven.observe import Progress
    from maven.pipeline import Analysis
    from maven.transcript import Word

SETTINGS, ALL_FACES, WORDS, VIEW = "settings.json", "everyone.csv", "words.json", "view.json"
PLAYABLE, POSTER = "playable.mp4", "poster.jpg"
FILES = {  # kind of result -> its file
    "csv": "results.csv",
    "parquet": "results.parquet",
    "json": "results.json",
    "vtt": "results.vtt",
    "report": "report.html",
    "overlay": "overlay.mp4",
}
KEPT = {UPLOAD, SETTINGS}  # by a clip that starts again; and its transcript

NICE = 10
# A laptop analyses a second of video in a third of one; this is for slow and busy machines.
LEAST_CPU_S, CPU_S_PER_S = 600.0, 40.0
LEAST_FILE_BYTES, FILE_BYTES_PER_S = 2**28, 2**20
SAY_EVERY_S = 0.1

# How long stages take in proportion, and where in the whole they therefore lie.
SHARES = {"checking": 2, "faces": 50, "voice": 3, "words": 12, "answers": 3, "writing": 30}


class RefusedError(Exception):
    """What a person is told instead of a result; `spoiled` when the upload is of no use."""

    def __init__(self, message: str, spoiled: bool = False) -> None:
        super().__init__(message)
        self.spoiled = spoiled


class Meter:
    """Makes of the stages' own progress one number that only rises, and tells it.

    Args:
        stages: those that there will be; they share the whole as `SHARES` says.
        say: takes what is told.
    """

    def __init__(self, stages: tuple[str, ...], say: Callable[..., None]) -> None:
        whole_share = sum(SHARES[stage] for stage in stages)
        self._from, at = {}, 0.0
        for stage in stages:
            self._from[stage] = at
            at += SHARES[stage] / whole_share
        self._whole, self._say = whole_share, say
        self._highest, self._stage, self._said_s = 0.0, "", 0.0

    def __call__(self, stage: str, done: float, total: float | None) -> None:
        """Take in how far a stage is; of no known total, none of it."""
        share = min(max(done / total, 0.0), 1.0) if total else 0.0
        if stage not in self._from:
            return
        at = self._from[stage] + share * SHARES[stage] / self._whole
        self._highest = max(self._highest, at)
        now_s = time.monotonic()
        if stage != self._stage or now_s - self._said_s >= SAY_EVERY_S:
            self._stage, self._said_s = stage, now_s
            self._say(stage=stage, progress=round(self._highest, 4))

    def part(self, stage: str, first: float, last: float) -> Progress:
        """Report into a part of a stage, from one share of it to another."""

        def report(_: str, done: float, total: float | None) -> None:
            share = min(max(done / total, 0.0), 1.0) if total else 0.0
            self(stage, first + share * (last - first), 1.0)

        return report


def main() -> None:
    """Do the work in the folder that the command line names."""
    folder = Path(sys.argv[1])
    say = confine.speaker()
    confine.end_with_parent()
    if hasattr(os, "nice"):
        os.nice(NICE)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    limit(settings["max_length_s"], settings["model"], upload_bytes(folder))
    code = 1
    try:
        if settings["task"] == "overlay":
            overlay(folder, settings, say)
        else:
            analysis(folder, settings, say)
        code = 0
    except RefusedError as refusal:
        say(error=str(refusal), spoiled=refusal.spoiled)
    except Exception as error:
        message = told(error, folder, settings)
        if message is None or isinstance(error, OSError):
            traceback.print_exc()  # for who runs the server
        if message is None:
            message = f"an internal error ({type(error).__name__})"
        say(error=message, spoiled=isinstance(error, MediaError | TranscriptError))
    sys.stdout.flush()
    os._exit(code)  # threads of decoders that hang do not hold it up


def analysis(folder: Path, settings: dict[str, Any], say: Callable[..., None]) -> None:
    """Analyse the upload and write all that the page shows and gives."""
    upload, name = folder / UPLOAD, settings["name"]
    say(stage="checking", progress=0.0)
    info = checked(upload, settings["max_length_s"], name)
    say(length_s=info.duration_s)
    if info.duration_s is not None:
        limit(info.duration_s, settings["model"], info.size_bytes)
    meter = Meter(stages(info), say)
    meter("checking", 1.0, 1.0)

    def report(stage: str, done: float, total: float | None) -> None:
        if stage in ("faces", "voice"):
            check_length(done, name, settings["max_length_s"])  # whatever the container declared
        meter(stage, done, total)

    import numpy as np

    from maven.checkpoint import load
    from maven.pipeline import Settings, analyze

    model = load(settings["model"], offline=True, threads=settings["threads"])
    transcript = folder / settings["transcript_file"] if settings["transcript_file"] else None
    everyone = named(
        analyze(upload, model, Settings(transcript, settings["asr"], "all", offline=True),
                progress=report),
        settings,
    )  # fmt: skip
    del model
    if info.duration_s is None:
        say(length_s=float(np.ptp(everyone.rows.time_s)))
    analysis = of_main(everyone) if settings["faces"] == "main" else everyone
    try:
        write(folder, everyone, analysis, meter)
    except MediaError as error:  # it was good enough for an answer: nothing to throw it away for
        raise RefusedError(told(error, folder, settings) or type(error).__name__) from error
    say(files=[kind for kind, file in FILES.items() if (folder / file).is_file()])


def checked(upload: Path, max_length_s: float, name: str) -> MediaInfo:
    """Look at what the container says.

    Raises:
        MediaError: it is no media, or damaged.
        RefusedError: there is nothing in it, or it is longer than accepted.
    """
    from maven.media import probe

    info = probe(upload)
    if info.video is None and info.audio is None:
        raise RefusedError(f"{name}: neither a picture nor a sound", spoiled=True)
    check_length(info.duration_s or 0.0, name, max_length_s)
    return info


def check_length(length_s: float, name: str, max_length_s: float) -> None:
    """Refuse what is longer than accepted.

    Raises:
        RefusedError: it is.
    """
    if length_s > max_length_s:
        length = f"{length_s:.1f} s long, or longer; accepted: up to {max_length_s:g} s"
        raise RefusedError(f"{name}: {length}", spoiled=True)


def stages(info: MediaInfo) -> tuple[str, ...]:
    """Name the stages that an analysis of such a file goes through."""
    there = {"faces": info.video, "voice": info.audio, "words": info.audio}
    return tuple(stage for stage in SHARES if there.get(stage, True))


def named(analysis: Analysis, settings: dict[str, Any]) -> Analysis:
    """Give results the names that their owner knows, not those of the files here."""
    provenance = dict(analysis.provenance)
    provenance["media"] = {**provenance["media"], "name": settings["name"]}
    provenance["settings"] = {
        **provenance["settings"], "faces": settings["faces"], "transcript": settings["transcript"],
    }  # fmt: skip
    if settings["transcript"]:
        provenance["transcript"] = {
            **provenance["transcript"], "source": f"file: {settings['transcript']}",
        }  # fmt: skip
    rows = replace(analysis.rows, file=settings["name"])
    return replace(analysis, rows=rows, provenance=provenance)


def of_main(everyone: Analysis) -> Analysis:
    """Keep the rows of the person on screen most."""
    from maven.faces.track import main_track

    main = main_track(everyone.tracks)
    people = everyone.rows.people
    if main is not None:
        people = tuple(person for person in people if person.track_id == main.track_id)
    return replace(everyone, rows=replace(everyone.rows, people=people))


def write(folder: Path, everyone: Analysis, analysis: Analysis, meter: Meter) -> None:
    """Write tables, what plays, the view and the report."""
    from maven.files import plain
    from maven.render.playable import poster, write_playable
    from maven.render.report import write_report
    from maven.render.tables import TableError, check_formats, write
    from maven.render.view import view

    upload, words = folder / UPLOAD, analysis.transcript.words
    formats = ["csv", "json", "vtt"]
    with contextlib.suppress(TableError):
        check_formats(["parquet"])
        formats.append("parquet")
    analysis.save(folder, formats, Path(FILES["csv"]).stem)
    if len(everyone.rows.people) > len(analysis.rows.people):  # whose faces an overlay may blur
        write(everyone.chunks(), {}, folder, Path(ALL_FACES).stem, ("csv",))
    (folder / WORDS).write_text(json.dumps([asdict(word) for word in words]), encoding="utf-8")

    meter("writing", 0.05, 1.0)
    copying = meter.part("writing", 0.05, 0.45)
    playable = write_playable(upload, folder / PLAYABLE, progress=copying)
    meter("writing", 0.45, 1.0)
    jpeg = poster(upload)
    if jpeg is not None:
        (folder / POSTER).write_bytes(jpeg)
    shown = view(analysis)
    address = f"/api/clips/{folder.name}"
    shown["media"] = {
        "src": playable and f"{address}/media",
        "poster": jpeg and f"{address}/poster",
        "offset_s": playable.offset_s if playable else 0.0,
    }
    with whole(folder / VIEW) as part:
        part.write_text(json.dumps(plain(shown), allow_nan=False), encoding="utf-8")
    meter("writing", 0.6, 1.0)
    writing = meter.part("writing", 0.6, 1.0)
    write_report(analysis, folder / FILES["report"], shown=shown, progress=writing)


def overlay(folder: Path, settings: dict[str, Any], say: Callable[..., None]) -> None:
    """Draw the saved answer into the video; to blur faces, those of everyone."""
    say(length_s=settings["length_s"])
    from maven.render.overlay import write_overlay
    from maven.render.shown import shown
    from maven.render.tables import read

    blur, everyone = settings["blur"], folder / ALL_FACES
    others = shown(read(everyone), 0) if blur and everyone.is_file() else ()
    said_s = 0.0

    def report(_: str, done: float, total: float | None) -> None:
        nonlocal said_s
        if total and time.monotonic() - said_s >= SAY_EVERY_S:
            said_s = time.monotonic()
            say(progress=round(min(max(done / total, 0.0), 1.0), 4))

    if settings["length_s"] is not None:
        limit(settings["length_s"], settings["model"], upload_bytes(folder))
    words = _words(folder / WORDS)
    table, target = read(folder / FILES["csv"]), folder / FILES["overlay"]
    write_overlay(folder / UPLOAD, table, words, target, blur=blur, others=others, progress=report)
    say(files=["overlay"])


def _words(path: Path) -> list[Word]:
    from maven.transcript import Word

    return [Word(**word) for word in json.loads(path.read_text(encoding="utf-8"))]


def told(error: Exception, folder: Path, settings: dict[str, Any]) -> str | None:
    """Make of an error what its owner may read: one line, their names, no path; None: internal."""
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return "needs more memory than the server gives"
    if isinstance(error, OSError):
        return f"the server cannot write: {error.strerror or 'an error of its disk'}"
    if not type(error).__module__.startswith("maven."):
        return None
    text = " ".join(str(error).split())
    names = {UPLOAD: settings["name"], settings["transcript_file"]: settings["transcript"]}
    for place in (folder.resolve(), folder):
        for file, name in names.items():
            text = text.replace(f"{place}/{file}", str(name))
        text = text.replace(f"{place}/", "")
    return text.replace(settings["model"], Path(settings["model"]).name)


def upload_bytes(folder: Path) -> int:
    """Size of the upload; 0 where it is gone."""
    upload = folder / UPLOAD
    return upload.stat().st_size if upload.is_file() else 0


def limit(length_s: float, model: str, size_bytes: int = 0) -> None:
    """Limit this process to what a clip of such a length may need; limits never rise again."""
    confine.limit(
        confine.memory_bytes(model),
        file_bytes=int(LEAST_FILE_BYTES + FILE_BYTES_PER_S * length_s) + 2 * size_bytes,
        cpu_s=LEAST_CPU_S + CPU_S_PER_S * length_s,
    )


if __name__ == "__main__":
    main()
