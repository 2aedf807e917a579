"""A corpus in the Aff-Wild2 layout -> the feature store: what frozen encoders say of each video.

Every entry has a key of its own, made from the content that it was computed from and all settings
that decide its values. So nothing is computed twice, a changed setting never reads an old entry,
and an extraction that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maven import media, speech
from maven.checkpoint import MINI_FOLDER, choose_device, find, read_card
from maven.datasets.affwild2 import CorpusError, Video, read_corpus, read_labels
from maven.datasets.frames import (
    Crops,
    crops_hash,
    crops_of,
    frame_notes,
    frame_times,
    read_crop,
    stretched,
)
from maven.encoders.base import CHUNK_S, encode_crops, encode_words, fingerprint
from maven.encoders.build import PAPER, EncoderSpec, build
from maven.faces import track
from maven.faces.association import REACH, START_SCORE
from maven.faces.crop import TEMPLATE_PX
from maven.faces.detect import CenterFace
from maven.faces.shots import SAME_SHOT
from maven.media import MediaError
from maven.observe import Seen, SeenFace, listen, look
from maven.speech import SpeechSpan
from maven.store import (
    Arrays,
    ClipKeys,
    Manifest,
    Store,
    StoreError,
    key,
    words_arrays,
    write_manifest,
)
from maven.transcribe import Transcriber
from maven.transcript import TranscriptError, beside, read_transcript

if TYPE_CHECKING:
    from maven.encoders.base import Encoders, VisualEncoder

# (what is being done, videos done, of how many)
Progress = Callable[[str, int, int], None]
Image = npt.NDArray[np.uint8]

FORMAT = 2  # to be raised with every change of code that changes an entry's values


def extract(
    root: Path,
    store_folder: Path,
    encoders_name: str,
    *,
    device: str,
    offline: bool,
    asr: str = "none",
    split: str | None = None,
    names: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Compute what the store lacks of every video of a corpus, and write the manifest.

    A video that cannot be read is left out and listed in the manifest with the reason.

    Args:
        root: the corpus, in the Aff-Wild2 layout.
        store_folder: where the store is, or shall be.
        encoders_name: "mini", "paper" (from the hub), or a model folder.
        device: "auto", "cpu" or "cuda[:N]".
        offline: never fetch anything.
        asr: speech recognition where there are no transcripts, see `Transcriber`.
        split: of the videos wanted; None for all.
        names: of the videos wanted; None for all.
        progress: called before each step and after each video.

    Raises:
        StoreError: the store cannot be written or is damaged, or not one video can be read.
        CorpusError: `root` is no such corpus.
        ModelError, EncoderError, RecogniserError: no such encoders, device or recogniser.
    """
    from maven import __version__

    root = Path(root)
    videos = [
        video
        for video in read_corpus(root)
        if split in (None, video.split) and (names is None or video.name in names)
    ]
    if not videos:
        raise StoreError(f"{root}: holds none of the videos that are wanted")
    device = choose_device(device)
    name, specs, folder = specs_of(encoders_name)
    transcriber = Transcriber(asr, offline=offline, device=device.partition(":")[0])
    encoders = build(specs, folder=folder, device=device, offline=offline)
    extractor = _Extractor(Store(store_folder), encoders, transcriber, recogniser_id(asr))
    clips, failed = [], []
    for done, video in enumerate(videos):

        def report(what: str, name: str = video.name, done: int = done) -> None:
            if progress:
                progress(f"{name}: {what}", done, len(videos))

        try:
            clips.append(extractor.clip(video, report))
        except (MediaError, TranscriptError, CorpusError) as error:
            failed.append((video.name, str(error).replace(f"{root}/", "")))
        if progress:
            progress(video.name, done + 1, len(videos))
    if not clips:
        first = f": {': '.join(failed[0])}" if failed else ""
        raise StoreError(f"{root}: none of its {len(videos)} videos can be read{first}")
    manifest = Manifest(
        name,
        {modality: described(specs[modality], e) for modality, e in vars(encoders).items()},
        extractor.settings(),
        root.resolve().name,
        tuple(clips),
        tuple(failed),
        __version__,
    )
    write_manifest(store_folder, manifest)
    return manifest


def specs_of(encoders_name: str) -> tuple[str, dict[str, EncoderSpec], Path | None]:
    """Find encoders by name -> their own name, their specs, and the folder of their model.

    Raises:
        ModelError: neither "mini", "paper" nor a model folder.
    """
    if encoders_name == "paper":
        return "paper", PAPER, None
    folder = MINI_FOLDER if encoders_name == "mini" else find(encoders_name)
    card = read_card(folder)
    return card.name, card.encoders, folder


def described(spec: EncoderSpec, encoder: Any) -> dict[str, Any]:
    """What the manifest says of an encoder."""
    names = ("name", "fingerprint", "width")
    return asdict(spec) | {name: getattr(encoder, name) for name in names}


def recogniser_id(asr: str) -> str:
    """Name a recogniser by what decides its words: a folder of weights by its content."""
    folder = Path(asr.partition(":")[2])
    if asr.startswith("whisper:") and folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return f"whisper:{fingerprint({}, files)}"
    return asr


class _Extractor:
    """Brings one video after the other into a store."""

    def __init__(
        self, store: Store, encoders: Encoders, transcriber: Transcriber, asr: str
    ) -> None:
        self._store, self._encoders = store, encoders
        self._transcriber, self._asr = transcriber, asr
        self._speech = speech_settings()
        self._detector: CenterFace | None = None  # only where crops are missing
        self._hashes: dict[Path, str] = {}

    def settings(self) -> dict[str, Any]:
        """What decides the values beside content and encoders."""
        about = {"format": FORMAT, "asr": self._asr, "speech": self._speech, "chunk_s": CHUNK_S}
        if self._detector is None:
            return about
        return about | {"detector": self._detector.fingerprint, "tracking": tracking_settings()}

    def clip(self, video: Video, report: Callable[[str], None]) -> ClipKeys:
        """Compute what the store lacks of one video.

        Raises:
            MediaError, TranscriptError, CorpusError: something of it cannot be read.
        """
        crops = crops_of(video)
        if video.media is None and not crops:
            raise MediaError("neither a media file nor face crops")
        media_sha256 = None if video.media is None else self._hash(video.media)
        labels, count = None, None
        if video.labels is not None:
            labels, count = self._labels(video.labels)
        report("frames")
        frames, timed = self._frames(video.media, media_sha256, count, crops)
        if not len(timed["frame_s"]):
            raise MediaError("not one frame: neither label lines nor pictures")
        notes = frame_notes(int(timed["held"][0]), len(timed["frame_s"]))
        report("faces")
        if video.faces is None:
            assert video.media is not None
            assert media_sha256 is not None
            visual = self._faces_in_media(video.media, media_sha256, video.person)
        else:
            visual = self._faces_in_crops(crops, timed["frame_s"])
            beyond = sum(number > len(timed["frame_s"]) for number, _ in crops)
            notes += [f"{beyond} face crops beyond the last frame are left out"] if beyond else []
        notes += [] if visual else ["no face"]
        audio = words = None
        if video.media is not None and media_sha256 is not None:
            report("voice")
            audio, spans = self._voice(video.media, media_sha256)
            notes += [] if audio else ["no sound"]
            report("words")
            words = self._words(video.media, media_sha256, spans)
            notes += [] if words else ["no words"]
        keys = (visual, audio, words, labels, frames)
        return ClipKeys(video.name, video.split, video.person, media_sha256, *keys, tuple(notes))

    def _entry(
        self, kind: str, make: Callable[[], Mapping[str, npt.NDArray[Any]]], **settings: object
    ) -> tuple[str, Arrays]:
        """Return an entry's key and arrays; it is made where it is missing."""
        name = key(kind=kind, format=FORMAT, **settings)
        if not self._store.has(kind, name):
            self._store.put(kind, name, make())
        return name, self._store.get(kind, name)

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = media.media_hash(path)
        return self._hashes[path]

    def _labels(self, path: Path) -> tuple[str, int]:
        labels = read_labels(path)
        content = hashlib.sha256(labels.tobytes()).hexdigest()
        return self._entry("labels", lambda: {"labels": labels}, values=content)[0], len(labels)

    def _frames(
        self, path: Path | None, sha256: str | None, count: int | None, crops: Crops
    ) -> tuple[str, Arrays]:
        least = max((number for number, _ in crops), default=0) if count is None else 0

        def make() -> Arrays:
            held_s = None if path is None else frame_times(path, count)
            held = 0 if held_s is None else len(held_s)
            times_s = stretched(held_s, max(held, least) if count is None else count)
            return {"frame_s": times_s, "held": np.array([held])}

        return self._entry("frames", make, media=sha256, labels=count, crops=least)

    def _faces_in_crops(self, crops: Crops, frame_s: npt.NDArray[np.float64]) -> str | None:
        encoder = self._encoders.visual
        about = visual_settings(encoder) | {"crops": crops_hash(crops)}
        if encoder.rate_hz is not None:
            wanted = worth(frame_s, encoder.rate_hz)
            crops = [(number, path) for number, path in crops if number in wanted]
            about["frames"] = hashlib.sha256(frame_s.tobytes()).hexdigest()
        name, seen = self._entry("visual", lambda: encoded_crops(crops, encoder), **about)
        return name if len(seen["frames"]) else None

    def _faces_in_media(self, path: Path, sha256: str, person: str) -> str | None:
        encoder = self._encoders.visual
        detector = self._detector = self._detector or CenterFace()

        def make() -> Arrays:
            info = media.probe(path)
            face = None
            if info.video is not None:
                seen = look(info, encoder, detector, None, lambda *progress: None)
                face = chosen(seen, person, info.video.width_px)
            if face is None:
                return {"frames": np.zeros(0, int), "values": np.zeros((0, encoder.width), "f4")}
            return {"frames": face.encoded_rows + 1, "values": face.features}

        about = visual_settings(encoder) | {"detector": detector.fingerprint}
        about |= {"media": sha256, "tracking": tracking_settings(), "side": person}
        name, seen = self._entry("visual", make, **about)
        return name if len(seen["frames"]) else None

    def _voice(self, path: Path, sha256: str) -> tuple[str | None, list[SpeechSpan]]:
        encoder = self._encoders.audio

        def make() -> Arrays:
            info = media.probe(path)
            if info.audio is None:
                nothing = np.zeros((0, encoder.width), np.float32)
                return {"times_s": np.zeros(0), "values": nothing, "spans_s": np.zeros((0, 2))}
            heard, spans = listen(info, encoder, lambda *progress: None)
            bounds_s = np.array([(s.start_s, s.end_s) for s in spans], float).reshape(-1, 2)
            return {"times_s": heard.times_s, "values": heard.values, "spans_s": bounds_s}

        about: dict[str, Any] = {"media": sha256, "encoder": encoder.fingerprint}
        about |= {"rate_hz": encoder.rate_hz, "context_s": encoder.context_s, "chunk_s": CHUNK_S}
        name, heard = self._entry("audio", make, speech=self._speech, **about)
        spans = [SpeechSpan(*bounds_s) for bounds_s in heard["spans_s"].tolist()]
        return (name if len(heard["times_s"]) else None), spans

    def _words(self, path: Path, sha256: str, spans: Sequence[SpeechSpan]) -> str | None:
        """Find the words, then encode them: another text encoder recognises nothing anew."""
        file, encoder = beside(path), self._encoders.text
        about: dict[str, Any] = {"media": sha256, "asr": self._asr, "speech": self._speech}
        if file is not None:
            written = repr(read_transcript(file).words)
            about["file"] = hashlib.sha256(written.encode()).hexdigest()
        source = key(kind="transcript", format=FORMAT, **about)
        if not self._store.has("transcript", source):
            transcript, missing = self._transcriber.find(path, spans=spans)
            if missing and self._asr == "auto":
                return None  # the recogniser may be there the next time
            self._store.put("transcript", source, words_arrays(transcript.words))
        said = self._store.get("transcript", source)
        if not len(said["texts"]):
            return None

        def make() -> Arrays:
            return {**said, "vectors": encode_words(said["texts"].tolist(), encoder)}

        return self._entry("words", make, transcript=source, encoder=encoder.fingerprint)[0]


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


def encoded_crops(crops: Crops, encoder: VisualEncoder) -> Arrays:
    """Encode the crops that can be read; the others are frames without a face."""
    found: list[int] = []

    def read() -> Iterator[Image]:
        for number, path in crops:
            image = read_crop(path, encoder.size_px)
            if image is not None:
                found.append(number)
                yield image

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
