"""Raw media -> Analysis: decode, track, listen, transcribe, encode, align, infer; on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maven import media
from maven.encoders.base import encode_words
from maven.faces.detect import CenterFace, FaceDetector
from maven.faces.track import DETECT_HZ, FaceTrack, main_track
from maven.observe import Progress, Seen, observe, rows_grid
from maven.part import Part
from maven.rows import CHUNK_ROWS, Boxes, Person, Rows
from maven.speech import SpeechSpan
from maven.timeline import place_words, uniform_grid, within
from maven.transcribe import Transcriber
from maven.transcript import Transcript, read_transcript

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from maven.checkpoint import Model
    from maven.features import Features
    from maven.inference import Series
    from maven.render.summary import Summary
    from maven.render.tables import Chunk

ACCEPTED_FACES = ("main", "all")
BLUR_HZ = DETECT_HZ  # of rows, at least, for faces to be blurred: as often as they are looked for


@dataclass(frozen=True)
class Settings:
    """How a media file is analysed.

    Attributes:
        transcript: a transcript file that goes before what is beside or inside the media.
        asr: speech recognition, see `maven.transcribe.Transcriber`.
        faces: "main" for the person on screen most, "all" for everyone.
        rate_hz: rows per second, each at the time of the frame nearest; None for every frame.
        offline: never fetch anything.
        start_s, end_s: analyse only [start_s, end_s) on the media's clock, as if the file were cut
            there; None: from the beginning, to the end. Answers within some seconds of such a cut
            differ from the whole file's, which go by what lies behind it too.

    Raises:
        ValueError: a value out of range.
    """

    transcript: Path | None = None
    asr: str = "auto"
    faces: str = "main"
    rate_hz: float | None = None
    offline: bool = False
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        if self.transcript is not None:
            object.__setattr__(self, "transcript", Path(self.transcript))
        if self.faces not in ACCEPTED_FACES:
            raise ValueError(f"faces is {self.faces!r}; accepted: main, all")
        if self.rate_hz is not None and not 0 < self.rate_hz <= 1000:
            raise ValueError(f"rate is {self.rate_hz} Hz; accepted: above 0, up to 1000, or video")
        _ = self.part  # refuses what is none

    @property
    def part(self) -> Part:
        """Of the file, which is analysed."""
        return Part(self.start_s, self.end_s)


@dataclass(frozen=True)
class Analysis:
    """The answer for one media file.

    Attributes:
        media: what the file holds.
        rows: what the long table is made of.
        tracks: everyone whose face was seen.
        faces: where each of them was seen, by number, whoever has rows.
        speech: where speech was heard.
        transcript: the words.
        provenance: model, versions, settings, hashes.
        notes: one line each on what was missing, or damaged.
    """

    media: media.MediaInfo
    rows: Rows
    tracks: tuple[FaceTrack, ...]
    faces: Mapping[int, Boxes]
    speech: tuple[SpeechSpan, ...]
    transcript: Transcript
    provenance: dict[str, Any]
    notes: tuple[str, ...]

    @cached_property
    def frames(self) -> pd.DataFrame:
        """The long table, whole (see `maven.render.tables.COLUMNS`)."""
        from maven.render.tables import joined

        return joined(self.chunks())

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Make the long table in chunks of so many rows at most: columns of numpy, by name."""
        return self.rows.chunks(rows)

    def summary(self) -> Summary:
        """Sum up the answer in numbers."""
        from maven.render.summary import summarize

        return summarize(self.chunks(), self.transcript.words)

    def plot(self, path: Path | str | None = None, **options: Any) -> Figure:
        """Draw time course and circumplex path, to a PNG when `path` is given."""
        from maven.render.plot import plot

        target = None if path is None else Path(path)
        return plot(self.frames, self.transcript.words, target, self.media.path.name, **options)

    def report(self, path: Path | str, *, progress: Progress | None = None) -> Path:
        """Write a page that needs nothing else: video, courses, moments, words, provenance."""
        from maven.render.report import write_report

        return write_report(self, Path(path), progress=progress)

    def overlay(
        self, path: Path | str, *, blur: bool = False, progress: Progress | None = None
    ) -> Path:
        """Write the video with the answer drawn into it, as MP4; `blur`: with nobody's face.

        Raises:
            OverlayError: there is no picture, or the file cannot be written; or faces shall be
                blurred that were looked for in fewer than `BLUR_HZ` pictures a second, or in a part
                of the file: the overlay shows all of it.
        """
        from maven.render.overlay import OverlayError, write_overlay
        from maven.render.shown import Face

        settings = self.provenance["settings"]
        rate_hz = settings["rate_hz"]
        if blur and {"start_s", "end_s"} & settings.keys():
            raise OverlayError(
                f"{path}: faces were looked for in a part of the video, which is drawn whole: they"
                " cannot be blurred; accepted: an analysis of the whole file"
            )
        if blur and rate_hz is not None and rate_hz < BLUR_HZ:
            raise OverlayError(
                f"{path}: faces were looked for {rate_hz:g} times a second, too seldom to blur"
                f" them; accepted: {BLUR_HZ:g} or more, or every frame"
            )

        shown = {person.track_id for person in self.rows.people}
        times_s = self.rows.time_s
        step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
        others = [
            Face(times_s[boxes.rows], boxes.boxes_px, step_s)
            for track_id, boxes in self.faces.items()
            if track_id not in shown
        ]
        return write_overlay(
            self.media.path,
            self.chunks(),
            self.transcript.words,
            Path(path),
            blur=blur,
            others=others,
            progress=progress,
        )

    def save(
        self,
        folder: Path | str,
        formats: Sequence[str] = ("csv",),
        stem: str | None = None,
    ) -> list[Path]:
        """Write the table (csv, parquet, json, vtt) into a folder; return the files.

        Raises:
            ValueError: an unknown format.
            TableError: parquet, and pyarrow is not installed.
        """
        from maven.render.tables import write

        target, words = Path(folder), self.transcript.words
        stem = stem or results_stem(self.media.path, target)
        return write(self.chunks(), self.provenance, target, stem, formats, words)


@dataclass(frozen=True)
class Answered:
    """One person's answer and what it was made from.

    Attributes:
        track_id: None where no face was seen.
        features: on the network's grid.
        series: at the times of the rows.
    """

    track_id: int | None
    features: Features
    series: Series


def results_stem(media_path: Path, folder: Path) -> str:
    """Name results: the media's stem; another in its own folder, where clip.vtt is a transcript."""
    stem, beside = _encodable(media_path.stem), folder.resolve() == media_path.parent.resolve()
    return f"{stem}.maven" if beside else stem


def analyze(
    path: Path | str,
    model: Model | str | Path = "mini",
    settings: Settings | None = None,
    *,
    device: str = "auto",
    detector: FaceDetector | None = None,
    transcriber: Transcriber | None = None,
    progress: Progress | None = None,
    answered: Callable[[Answered], None] | None = None,
    **options: Any,
) -> Analysis:
    """Turn a video, or a sound file, into valence and arousal over time.

    Args:
        path: any file that PyAV decodes.
        model: a loaded model, or what `maven.load` takes.
        settings: or give its fields as keyword arguments: transcript, asr, faces, rate_hz, offline,
            start_s, end_s.
        device: where a model that is not loaded yet shall run.
        detector, transcriber: to be shared by several calls.
        progress: called with the stage, the seconds done and their total.
        answered: called with each person's features and answer, which are forgotten otherwise.

    Raises:
        MediaError, TranscriptError, RecogniserError, ModelError, EncoderError: one line each.
        TypeError, ValueError: unknown or invalid settings.
    """
    from maven.checkpoint import load
    from maven.features import Sampled, assemble
    from maven.inference import infer

    if settings is not None and options:
        raise TypeError(f"settings are given, and {', '.join(options)} beside them")
    settings = settings or Settings(**options)
    info = media.probe(path)
    if settings.transcript is not None:
        read_transcript(settings.transcript)  # one that cannot be read is refused at once
    if isinstance(model, str | Path):
        model = load(model, device=device, offline=settings.offline)
    transcriber = transcriber or Transcriber(settings.asr, offline=settings.offline)
    report = progress or (lambda stage, done, total: None)
    notes = []

    detector = None if info.video is None else detector or CenterFace()
    seen, heard, speech, damaged = observe(
        info, model.encoders, detector, settings.rate_hz, report, settings.part
    )
    if seen is None or not seen.tracks:
        notes.append("no picture" if seen is None else "no face was seen")
    if not speech:
        notes.append("no sound" if heard is None else "no speech was heard in the sound")
    notes += damaged
    transcript, missing = transcriber.find(
        info.path,
        given=settings.transcript,
        spans=speech,
        part=settings.part,
        progress=lambda done, total: report("words", done, total),
    )
    if missing:
        notes.append(missing)
    text = encode_words([word.text for word in transcript.words], model.encoders.text)

    grid = rows_grid(info, seen, heard, settings.rate_hz, settings.part)
    rate_hz = model.card.config.rate_hz
    network_s = uniform_grid(grid[0], grid[-1] + 1 / rate_hz, rate_hz)  # reaches past every row
    widths = {m: model.card.config.input_width(m) for m in vars(model.encoders)}
    words = transcript.words
    spoken = place_words(
        [word.start_s for word in words],
        [word.end_s for word in words],
        [word.segment for word in words],
        np.zeros((len(words), 1), np.float32),
        grid,
    )
    has_speech = within(grid, [(span.start_s, span.end_s) for span in speech])
    frame_period_s = float(np.median(np.diff(grid))) if len(grid) > 1 else 0.0
    wanted = chosen(seen, settings.faces)
    faces = {} if seen is None else {k: Boxes.of(face) for k, face in seen.faces.items()}
    people = []
    for number, track_id in enumerate(wanted):
        boxes, visual = Boxes.of(None), None
        if seen is not None and track_id is not None:
            face = seen.faces.pop(track_id)  # no more is kept of it than the rows need
            boxes = faces[track_id]
            visual = Sampled(seen.times_s[face.encoded_rows], face.features)
            del face
        features = assemble(network_s, widths, visual, heard, speech, words, text, frame_period_s)
        del visual
        series = infer(model.network, features, model.card.smoothing_s)
        people.append(Person(track_id, series, boxes))
        if answered is not None:
            answered(Answered(track_id, features, series.at(grid)))
        report("answers", number + 1, len(wanted))
    name, card = _encodable(info.path.name), model.card
    rows = Rows(name, grid, has_speech, spoken.mask, tuple(people), card.intervals, card.rest)
    if not rows.answered():
        notes.append("nothing was observed: there is no answer")
    return Analysis(
        info,
        rows,
        seen.tracks if seen is not None else (),
        faces,
        tuple(speech),
        transcript,
        provenance(info, model, settings, transcript, detector),
        tuple(notes),
    )


def chosen(seen: Seen | None, faces: str) -> list[int | None]:
    """Track ids that get rows: the main one, or all; [None] when no face was seen."""
    main = main_track(seen.tracks) if seen is not None else None
    if seen is None or main is None:
        return [None]
    return [main.track_id] if faces == "main" else [track.track_id for track in seen.tracks]


def provenance(
    info: media.MediaInfo,
    model: Model,
    settings: Settings,
    transcript: Transcript,
    detector: FaceDetector | None,
) -> dict[str, Any]:
    """What the answer was made from; equal for equal inputs."""
    from maven import __version__

    source, given = transcript.source, settings.transcript
    return {
        "maven": __version__,
        "media": {"name": _encodable(info.path.name), "sha256": media.media_hash(info.path)},
        "model": {
            "name": model.card.name,
            "weights_sha256": model.weights_hash,
            "encoders": {
                modality: {"name": encoder.name, "fingerprint": encoder.fingerprint}
                for modality, encoder in vars(model.encoders).items()
            },
            "smoothing_s": model.card.smoothing_s,
            "intervals": model.card.intervals and model.card.intervals.nominal,
            "device": model.device,
            "runtime": model.runtime,
        },
        "detector": detector and {"name": detector.name, "fingerprint": detector.fingerprint},
        "transcript": {"source": _encodable(source), "language": transcript.language},
        "settings": {
            "asr": _named(settings.asr),
            "faces": settings.faces,
            "rate_hz": settings.rate_hz,
            "transcript": _encodable(given.name) if given else None,
            **_edges(settings),
        },
    }


def _edges(settings: Settings) -> dict[str, float]:
    """The part's edges, those that were given."""
    edges = {"start_s": settings.start_s, "end_s": settings.end_s}
    return {name: float(value) for name, value in edges.items() if value is not None}


def _named(asr: str) -> str:
    """Name a recogniser without the folder that its weights lie in."""
    kind, colon, where = asr.partition(":")
    return f"{kind}{colon}{_encodable(Path(where).name)}"


def _encodable(name: str) -> str:
    """Replace what no file can hold as UTF-8: a name on disk is bytes of any kind."""
    return name.encode(errors="replace").decode()
