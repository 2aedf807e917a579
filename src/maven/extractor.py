"""One video of a corpus -> entries of the feature store: what frozen encoders say of it.

Every entry has a key of its own, made from the content that it was computed from and all settings
that decide its values. So nothing is computed twice, a changed setting never reads an old entry,
and an extraction that was killed goes on where it stopped. What was damaged is made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maven import media, speech
from maven.container import size_bytes
from maven.datasets.affwild2 import Video, read_labels
from maven.datasets.frames import (
    Crops,
    crops_hash,
    crops_of,
    frame_notes,
    frame_times,
    read_crop,
    stretched,
)
from maven.encoders.base import CHUNK_S, encode_crops, encode_words
from maven.entries import AGAIN
from maven.faces import track
from maven.faces.association import REACH, START_SCORE
from maven.faces.crop import TEMPLATE_PX
from maven.faces.detect import CenterFace
from maven.faces.shots import SAME_SHOT
from maven.files import state
from maven.media import MediaError
from maven.observe import Seen, SeenFace, listen, look
from maven.speech import SpeechSpan
from maven.store import Arrays, ClipKeys, Store, key, words_arrays
from maven.transcribe import Transcriber
from maven.transcript import beside, read_transcript

if TYPE_CHECKING:
    from maven.encoders.base import Encoders, VisualEncoder

Image = npt.NDArray[np.uint8]
# What is being done to a video; called again and again while it is.
Report = Callable[[str], None]

FORMAT = 2  # to be raised with every change of code that changes an entry's values


@dataclass(frozen=True)
class Source:
    """A media file, what it was when it was hashed, and its hash."""

    path: Path
    version: tuple[int, ...]
    sha256: str


class _NoRecogniserError(Exception):
    """Nothing here recognises words, and nothing was asked for."""


class Extractor:
    """Brings one video after the other into a store.

    Args:
        store: for the entries; its `mended` says which were damaged.
        encoders: of faces, voices and words.
        transcriber: finds the words.
        asr: what decides a recogniser's words, see `maven.extract.recogniser_id`.
    """

    def __init__(
        self, store: Store, encoders: Encoders, transcriber: Transcriber, asr: str
    ) -> None:
        self._store, self._encoders = store, encoders
        self._transcriber, self._asr = transcriber, asr
        self._speech = speech_settings()
        self._made_detector: CenterFace | None = None  # only where crops are missing

    @property
    def _detector(self) -> CenterFace:
        self._made_detector = self._made_detector or CenterFace()
        return self._made_detector

    def settings(self) -> dict[str, Any]:
        """What decides the values beside content and encoders."""
        return {"format": FORMAT, "asr": self._asr, "speech": self._speech, "chunk_s": CHUNK_S}

    def detection(self) -> dict[str, Any]:
        """What else decides them, for videos whose faces are not given as crops."""
        return {"detector": self._detector.fingerprint, "tracking": tracking_settings()}

    def mended(self) -> list[str]:
        """Lines on entries that were damaged and made anew since this was asked last."""
        lines, self._store.mended = self._store.mended, []
        return lines

    def clip(self, video: Video, report: Report) -> ClipKeys:
        """Compute what the store lacks of one video.

        Raises:
            StoreError: the store cannot be written.
            MediaError, TranscriptError, CorpusError: something of it cannot be read, or changed
                while it was read.
        """
        crops = crops_of(video)
        if video.media is None and not crops:
            raise MediaError("neither a media file nor face crops")
        source = None if video.media is None else hashed(video.media)
        labels, count = None, None
        if video.labels is not None:
            labels, count = self._labels(video.labels)
        report("frames")
        frames, timed = self._frames(source, count, crops)
        if not len(timed["frame_s"]):
            raise MediaError("not one frame: neither label lines nor pictures")
        notes = frame_notes(int(timed["held"][0]), len(timed["frame_s"]))
        report("faces")
        if video.faces is None:
            assert source is not None
            visual = self._faces_in_media(source, video.person, report)
        else:
            visual = self._faces_in_crops(crops, timed["frame_s"], report)
            beyond = sum(number > len(timed["frame_s"]) for number, _ in crops)
            notes += [f"{beyond} face crops beyond the last frame are left out"] if beyond else []
        notes += [] if visual else ["no face"]
        audio = words = None
        if source is not None:
            report("voice")
            audio, spans = self._voice(source, report)
            notes += [] if audio else ["no sound"]
            report("words")
            words = self._words(source, spans, report)
            notes += [] if words else ["no words"]
        keys = (visual, audio, words, labels, frames)
        sha256 = None if source is None else source.sha256
        return ClipKeys(video.name, video.split, video.person, sha256, *keys, tuple(notes))

    def _entry(
        self,
        kind: str,
        make: Callable[[], Mapping[str, npt.NDArray[Any]]],
        source: Source | None = None,
        **settings: object,
    ) -> tuple[str, Arrays]:
        """Return an entry's key and arrays; it is made where it is missing or damaged.

        Raises:
            MediaError: the media file is not the one that was hashed for the key.
        """

        def made() -> Mapping[str, npt.NDArray[Any]]:
            arrays = make()
            if source is not None and version(source.path) != source.version:
                raise changed(source.path)
            return arrays

        name = key(kind=kind, format=FORMAT, **settings)
        return name, self._store.made(kind, name, made)

    def _labels(self, path: Path) -> tuple[str, int]:
        labels = read_labels(path)
        content = hashlib.sha256(labels.tobytes()).hexdigest()
        return self._entry("labels", lambda: {"labels": labels}, values=content)[0], len(labels)

    def _frames(self, source: Source | None, count: int | None, crops: Crops) -> tuple[str, Arrays]:
        least = max((number for number, _ in crops), default=0) if count is None else 0

        def make() -> Arrays:
            held_s = None if source is None else frame_times(source.path, count)
            held = 0 if held_s is None else len(held_s)
            times_s = stretched(held_s, max(held, least) if count is None else count)
            return {"frame_s": times_s, "held": np.array([held])}

        sha256 = None if source is None else source.sha256
        return self._entry("frames", make, source, media=sha256, labels=count, crops=least)

    def _faces_in_crops(
        self, crops: Crops, frame_s: npt.NDArray[np.float64], report: Report
    ) -> str | None:
        encoder = self._encoders.visual
        given, sha256 = crops, crops_hash(crops)
        about = visual_settings(encoder) | {"crops": sha256}
        if encoder.rate_hz is not None:
            wanted = worth(frame_s, encoder.rate_hz)
            crops = [(number, path) for number, path in crops if number in wanted]
            about["frames"] = hashlib.sha256(frame_s.tobytes()).hexdigest()

        def make() -> Arrays:
            seen = encoded_crops(crops, encoder, report)
            if crops_hash(given) != sha256:
                raise changed(given[0][1].parent)
            return seen

        name, seen = self._entry("visual", make, **about)
        return name if len(seen["frames"]) else None

    def _faces_in_media(self, source: Source, person: str, report: Report) -> str | None:
        encoder, detector = self._encoders.visual, self._detector

        def make() -> Arrays:
            info = media.probe(source.path)
            face = None
            if info.video is not None:
                seen = look(info, encoder, detector, None, lambda *_: report("faces"))
                face = chosen(seen, person, info.video.width_px)
            if face is None:
                return {"frames": np.zeros(0, int), "values": np.zeros((0, encoder.width), "f4")}
            return {"frames": face.encoded_rows + 1, "values": face.features}

        about = (
            visual_settings(encoder) | self.detection() | {"media": source.sha256, "side": person}
        )
        name, seen = self._entry("visual", make, source, **about)
        return name if len(seen["frames"]) else None

    def _voice(self, source: Source, report: Report) -> tuple[str | None, list[SpeechSpan]]:
        encoder = self._encoders.audio

        def make() -> Arrays:
            info = media.probe(source.path)
            if info.audio is None:
                nothing = np.zeros((0, encoder.width), np.float32)
                return {"times_s": np.zeros(0), "values": nothing, "spans_s": np.zeros((0, 2))}
            heard, spans = listen(info, encoder, lambda *_: report("voice"))
            bounds_s = np.array([(s.start_s, s.end_s) for s in spans], float).reshape(-1, 2)
            return {"times_s": heard.times_s, "values": heard.values, "spans_s": bounds_s}

        about: dict[str, Any] = {"media": source.sha256, "encoder": encoder.fingerprint}
        about |= {"rate_hz": encoder.rate_hz, "context_s": encoder.context_s, "chunk_s": CHUNK_S}
        name, heard = self._entry("audio", make, source, speech=self._speech, **about)
        spans = [SpeechSpan(*bounds_s) for bounds_s in heard["spans_s"].tolist()]
        return (name if len(heard["times_s"]) else None), spans

    def _words(self, source: Source, spans: Sequence[SpeechSpan], report: Report) -> str | None:
        """Find the words, then encode them: another text encoder recognises nothing anew."""
        encoder, path, written = self._encoders.text, source.path, words_beside(source.path)
        about: dict[str, Any] = {"media": source.sha256, "asr": self._asr, "speech": self._speech}
        about |= {} if written is None else {"file": written}

        def find() -> Arrays:
            transcript, missing = self._transcriber.find(
                path, spans=spans, progress=lambda *_: report("words")
            )
            if missing and self._asr == "auto":
                raise _NoRecogniserError  # it may be there the next time
            if words_beside(path) != written:
                raise MediaError(f"{path}: its transcript changed while it was read; {AGAIN}")
            return words_arrays(transcript.words)

        try:
            found, said = self._entry("transcript", find, source, **about)
        except _NoRecogniserError:
            return None
        if not len(said["texts"]):
            return None

        def make() -> Arrays:
            return {**said, "vectors": encode_words(said["texts"].tolist(), encoder)}

        return self._entry("words", make, transcript=found, encoder=encoder.fingerprint)[0]


def hashed(path: Path) -> Source:
    """Hash a media file.

    Raises:
        MediaError: it is missing, not a file, or empty, or changed while it was read.
    """
    now = version(path)
    source = Source(path, now, media.media_hash(path))
    if version(path) != now:
        raise changed(path)
    return source


def version(path: Path) -> tuple[int, ...]:
    """Tell cheaply whether a file's content may have changed: `maven.files.state`.

    Raises:
        MediaError: it is missing, not a file, or empty.
    """
    size_bytes(path)
    return state(path.stat())


def changed(path: Path) -> MediaError:
    """Say that what was read is not what was hashed."""
    return MediaError(f"{path}: changed while it was read; {AGAIN}")


def words_beside(path: Path) -> str | None:
    """Hash the words of the transcript file beside a media file; None without one.

    Raises:
        TranscriptError: it cannot be read.
    """
    file = beside(path)
    if file is None:
        return None
    return hashlib.sha256(repr(read_transcript(file).words).encode()).hexdigest()


def speech_settings() -> dict[str, Any]:
    """What decides where speech is heard."""
    return {
        "silero": speech.SILERO_VERSION,
        "thresholds": [speech.SPEECH_THRESHOLD, speech.SILENCE_THRESHOLD],
        "lengths_s": [speech.MIN_SPEECH_S, speech.MIN_SILENCE_S, speech.PAD_S],
    }


def tracking_settings() -> dict[str, Any]:
    """What decides whose face is followed in which frames."""
    return {
        "detect_hz": track.DETECT_HZ,
        "lengths_s": [track.SCAN_S, track.NOISE_S, track.LOOK_AHEAD_S, track.LOST_S],
        "limits": [START_SCORE, REACH, SAME_SHOT, track.MOST_NEAR],
    }


def visual_settings(encoder: VisualEncoder) -> dict[str, Any]:
    """What decides a face's vector beside its picture."""
    return {
        "encoder": encoder.fingerprint,
        "size_px": encoder.size_px,
        "rate_hz": encoder.rate_hz,
        "template_px": TEMPLATE_PX.tolist(),
    }


def worth(frame_s: npt.NDArray[np.float64], rate_hz: float) -> set[int]:
    """Numbers, from 1 on, of the frames nearest to an encoder's ticks."""
    timed = ((number, time_s, None) for number, time_s in enumerate(frame_s.tolist(), 1))
    return {number for number, _, _ in media.nearest(timed, rate_hz)}


def encoded_crops(crops: Crops, encoder: VisualEncoder, report: Report) -> Arrays:
    """Encode the crops that can be read; the others are frames without a face."""
    found: list[int] = []

    def read() -> Iterator[Image]:
        for number, path in crops:
            image = read_crop(path, encoder.size_px)
            if image is not None:
                found.append(number)
                yield image
            report("faces")

    values = encode_crops(read(), encoder)
    return {"frames": np.array(found, np.int64), "values": values}


def chosen(seen: Seen, person: str, width_px: int) -> SeenFace | None:
    """Of all people seen, take the one on screen most, on the side of the picture that is named.

    Args:
        seen: everyone.
        person: "", "left" or "right"; a side on which nobody was seen does not count.
        width_px: of the picture.
    """
    named = [t for t in seen.tracks if person == _side(seen.faces[t.track_id], width_px)]
    main = track.main_track(named or seen.tracks)
    return None if main is None else seen.faces[main.track_id]


def _side(face: SeenFace, width_px: int) -> str:
    middle_px = np.mean(face.boxes_px[:, 0] + face.boxes_px[:, 2] / 2)
    return "left" if middle_px < width_px / 2 else "right"
