"""The feature store: arrays on disk under the hash of all that decides their values.

Entries are what `maven.entries` says. What belongs together is listed in a manifest, `<name>.json`:
one a set of encoders.

| kind | arrays |
|---|---|
| frames | frame_s (n,) float64; held (1,) int64: frames in the media, 0 without media |
| labels | labels (n, 2) float32 |
| visual | frames (m,) int64, counted from 1; values (m, d) float32 |
| audio | times_s (m,) float64; values (m, d) float32; spans_s (k, 2) float64 of speech |
| transcript | texts (w,) str; start_s, end_s (w,) float64; segment (w,) int64; confidence (w,) |
| words | as transcript, and vectors (w, d) float32 |
| grid | visual, audio, text (t, d_m) float32; observed (t, 3) bool; labels (t, 2) float32 |
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maven.entries import AGAIN, TRANSCRIPT, Arrays, Store, StoreError, key, not_written
from maven.files import whole

if TYPE_CHECKING:
    from maven.features import Sampled
    from maven.speech import SpeechSpan
    from maven.transcript import Word

__all__ = [
    "Arrays", "ClipKeys", "Manifest", "Mapped", "Recording", "Store", "StoreError", "key",
    "load_entry", "read_manifest", "words_arrays", "words_of", "write_manifest",
]  # fmt: skip


# --- the manifest ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipKeys:
    """Where one video's arrays are.

    Attributes:
        name: of the video, such as "video59_right".
        split: "train", "val" or "test".
        person: "", "left" or "right".
        media_sha256: of the media file; None without one.
        visual, audio, words, labels, frames: keys of the entries; None where there is nothing.
        notes: one line each on what is missing or was assumed.
    """

    name: str
    split: str
    person: str
    media_sha256: str | None
    visual: str | None
    audio: str | None
    words: str | None
    labels: str | None
    frames: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What `maven features` extracted from one corpus with one set of encoders.

    Attributes:
        name: "mini", "paper", or the name of the model whose encoders they are.
        encoders: kind, source, revision, name, fingerprint and width a modality.
        settings: what else decides the values.
        root: name of the corpus folder.
        clips: by split and name.
        failed: (video, reason) of those left out.
        maven: version of the package.
    """

    name: str
    encoders: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    root: str
    clips: tuple[ClipKeys, ...]
    failed: tuple[tuple[str, str], ...]
    maven: str

    @property
    def widths(self) -> dict[str, int]:
        """Numbers in a feature vector of each modality."""
        return {modality: int(about["width"]) for modality, about in self.encoders.items()}

    @property
    def sha256(self) -> str:
        """Hash of the clips' keys: equal exactly where all arrays are."""
        kinds = ("visual", "audio", "words", "labels", "frames")
        keys = [[c.name, c.split, *(getattr(c, kind) for kind in kinds)] for c in self.clips]
        return hashlib.sha256(json.dumps(keys).encode()).hexdigest()


def write_manifest(folder: Path | str, manifest: Manifest) -> Path:
    """Write `<name>.json`, whole or not at all; return its path.

    Raises:
        StoreError: it cannot be written, or its name is no file name.
    """
    path = Path(folder) / f"{manifest.name}.json"
    if path.stem != manifest.name or manifest.name.startswith("."):
        raise StoreError(f"{manifest.name!r} cannot name a manifest; accepted: a plain file name")
    content = {**asdict(manifest), "sha256": manifest.sha256}
    content["content_sha256"] = _content_sha256(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path, durable=True) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(not_written(path, error)) from error
    return path


def read_manifest(folder: Path | str, name: str | None = None) -> Manifest:
    """Read the manifest `name` of a store; without a name the only one there.

    Raises:
        StoreError: there is none, there are several and none is named, or it cannot be read.
    """
    folder = Path(folder)
    names = sorted(path.stem for path in folder.glob("[!.]*.json"))
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        accepted = f"accepted: {', '.join(names)}" if names else "`maven features` makes one"
        wanted = "which one? none is named" if name is None and names else "no feature store"
        if name is not None:
            wanted = f"no manifest named {name!r}"
        raise StoreError(f"{folder}: {wanted}; {accepted}")
    path = folder / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        declared, written = content.get("sha256"), content.pop("content_sha256", None)
        changed = written != _content_sha256(content)
        content.pop("sha256")
        clips = tuple(
            ClipKeys(**clip | {"notes": tuple(clip["notes"])}) for clip in content.pop("clips")
        )
        failed = tuple((video, reason) for video, reason in content.pop("failed"))
        manifest = Manifest(**content, clips=clips, failed=failed)
        changed |= manifest.sha256 != declared
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(
            f"{path}: not a manifest of a feature store ({reason}); {AGAIN}"
        ) from error
    if written is None:
        raise StoreError(f"{path}: has no checksum, as an earlier maven wrote it; {AGAIN}")
    if changed:
        raise StoreError(f"{path}: changed since it was written; {AGAIN}")
    return manifest


def _content_sha256(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# --- one video -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """What the store holds of one video; all times are seconds on the media's clock.

    Attributes:
        name, split, person: as in `ClipKeys`.
        frame_s: (n,) times of the frames.
        labels: (n, 2) valence, arousal, -5 where invalid; (0, 2) for a video without labels.
        visual: face features at the times of the frames with a face; None for no face at all.
        audio: voice features; None without sound.
        speech: where somebody speaks.
        words: the words, and `text` (len(words), d) their vectors.
    """

    name: str
    split: str
    person: str
    frame_s: npt.NDArray[np.float64]
    labels: npt.NDArray[np.float32]
    visual: Sampled | None
    audio: Sampled | None
    speech: tuple[SpeechSpan, ...]
    words: tuple[Word, ...]
    text: npt.NDArray[np.float32]


def load_entry(store: Store, clip: ClipKeys) -> Recording:
    """Load one video; its feature vectors stay on disk until they are read.

    Raises:
        StoreError: an entry is missing or damaged.
    """
    from maven.features import Sampled
    from maven.speech import SpeechSpan

    frame_s = np.array(store.get("frames", clip.frames)["frame_s"])
    labels = np.zeros((0, 2), np.float32)
    if clip.labels is not None:
        labels = np.array(store.get("labels", clip.labels)["labels"])
    visual = audio = None
    speech: tuple[SpeechSpan, ...] = ()
    if clip.visual is not None:
        seen = store.get("visual", clip.visual)
        held = int(np.searchsorted(seen["frames"], len(frame_s), side="right"))
        visual = Sampled(frame_s[seen["frames"][:held] - 1], seen["values"][:held])
    if clip.audio is not None:
        heard = store.get("audio", clip.audio)
        audio = Sampled(np.array(heard["times_s"]), heard["values"])
        speech = tuple(SpeechSpan(*span) for span in heard["spans_s"].tolist())
    words: tuple[Word, ...] = ()
    text = np.zeros((0, 0), np.float32)
    if clip.words is not None:
        said = store.get("words", clip.words)
        words, text = words_of(said), np.array(said["vectors"])
    return Recording(
        clip.name, clip.split, clip.person, frame_s, labels, visual, audio, speech, words, text
    )


class Mapped(Mapping[str, npt.NDArray[np.float32]]):
    """Arrays (t, d) by name, each mapped from its file when it is asked for and no longer.

    What is not in use is neither in memory nor open: a corpus has more bytes, and more files, than
    a process may have. What is written to one is not kept.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
        self._places = {}
        for name, array in arrays.items():
            assert isinstance(array, np.memmap)
            if array.dtype != np.float32 or array.ndim != 2:
                raise StoreError(f"{array.filename}: {array.ndim} x {array.dtype}, not 2 x float32")
            self._places[name] = (Path(str(array.filename)), array.offset, array.shape)

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        path, offset, (t, d) = self._places[name]
        if not t * d:
            return np.zeros((t, d), np.float32)
        try:
            with path.open("rb") as file:
                held = mmap.mmap(file.fileno(), offset + 4 * t * d, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: gone or cut since it was loaded ({error})") from error
        return np.frombuffer(held, np.float32, t * d, offset).reshape(t, d)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def words_of(said: Mapping[str, npt.NDArray[Any]]) -> tuple[Word, ...]:
    """Read the words of an entry "transcript" or "words"."""
    from maven.transcript import Word

    columns = (said[name].tolist() for name in TRANSCRIPT)
    return tuple(
        Word(text, start_s, end_s, segment, None if np.isnan(confidence) else confidence)
        for text, start_s, end_s, segment, confidence in zip(*columns, strict=True)
    )


def words_arrays(words: Sequence[Word]) -> Arrays:
    """Turn words into the arrays of an entry "transcript"; an unknown confidence is NaN."""
    confidence = [np.nan if w.confidence is None else w.confidence for w in words]
    return {
        "texts": np.array([w.text for w in words], str),
        "start_s": np.array([w.start_s for w in words], np.float64),
        "end_s": np.array([w.end_s for w in words], np.float64),
        "segment": np.array([w.segment for w in words], np.int64),
        "confidence": np.array(confidence, np.float64),
    }
