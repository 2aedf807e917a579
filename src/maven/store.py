"""The feature store: arrays on disk under the hash of all that decides their values.

An entry is a folder `arrays/<kind>/<k>/<key>` of .npy files, `k` the first two digits of its key.
It is written beside its place and renamed, so it is there whole or not at all. What belongs
together is listed in a manifest, `<name>.json`: one a set of encoders.

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
import os
import shutil
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maven.files import whole

if TYPE_CHECKING:
    from maven.features import Sampled
    from maven.speech import SpeechSpan
    from maven.transcript import Word

Arrays = dict[str, npt.NDArray[Any]]

TRANSCRIPT = ("texts", "start_s", "end_s", "segment", "confidence")
KINDS: dict[str, tuple[str, ...]] = {
    "frames": ("frame_s", "held"),
    "labels": ("labels",),
    "visual": ("frames", "values"),
    "audio": ("times_s", "values", "spans_s"),
    "transcript": TRANSCRIPT,
    "words": (*TRANSCRIPT, "vectors"),
    "grid": ("visual", "audio", "text", "observed", "labels"),
}
KEY_DIGITS = 32
AGAIN = "run `maven features` again"
FOREIGN_AGE_S = 86_400.0  # a partial entry of another machine is taken for left over after a day


class StoreError(Exception):
    """The store cannot be read or written; the message is one line."""


def key(**settings: object) -> str:
    """Hash settings (JSON types, in any order) to 32 hexadecimal digits."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


class Store:
    """Entries of arrays by kind (see `KINDS`) and key.

    What processes that are gone left half-written is removed when a store is opened.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        for part in self.folder.glob("arrays/*/*/.*"):
            if _left_over(part):
                shutil.rmtree(part, ignore_errors=True)

    def has(self, kind: str, key: str) -> bool:
        """Tell whether there is such an entry."""
        return self._place(kind, key).is_dir()

    def put(self, kind: str, key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write an entry; one that is there already is kept, and this one dropped.

        Raises:
            StoreError: it cannot be written; nothing of it is left.
        """
        place = self._place(kind, key)
        part = place.with_name(f".{os.getpid()}.{uuid.uuid4().hex}.{socket.gethostname()}")
        try:
            part.mkdir(parents=True)
            for name, array in arrays.items():
                np.save(part / f"{name}.npy", array, allow_pickle=False)
            assert set(arrays) == set(KINDS[kind]), (kind, tuple(arrays))
            part.rename(place)
        except OSError as error:
            if not place.is_dir():  # else another process has written it just now
                raise StoreError(_not_written(place, error)) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def get(self, kind: str, key: str) -> Arrays:
        """Return an entry's arrays, mapped from disk and read-only; each holds its file open.

        Raises:
            StoreError: there is no such entry, or it is damaged.
        """
        place = self._place(kind, key)
        if not place.is_dir():
            raise StoreError(f"{place}: not in the store; {AGAIN}")
        arrays: Arrays = {}
        for name in KINDS[kind]:
            path = place / f"{name}.npy"
            try:
                arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                reason = getattr(error, "strerror", None) or " ".join(str(error).split())
                raise StoreError(
                    f"{path}: damaged ({reason}); delete its folder, then {AGAIN}"
                ) from error
        return arrays

    def _place(self, kind: str, key: str) -> Path:
        assert len(key) == KEY_DIGITS, key
        return self.folder / "arrays" / kind / key[:2] / key


def _left_over(part: Path) -> bool:
    """Tell whether nobody writes a partial entry, named `.<pid>.<random>.<host>`, any more."""
    pid, _, rest = part.name[1:].partition(".")
    try:
        if rest.partition(".")[2] != socket.gethostname():
            return time.time() - part.stat().st_mtime > FOREIGN_AGE_S
        os.kill(int(pid), 0)
    except (ProcessLookupError, FileNotFoundError, ValueError):
        return True
    except PermissionError:  # somebody else's, and alive
        return False
    return False


def _not_written(path: Path, error: OSError) -> str:
    # numpy reports a full disk without its name: "1024 requested and 512 written"
    reason = error.strerror or f"the disk may be full: {error}"
    return f"{path}: cannot be written ({reason}); nothing of it was kept; {AGAIN}"


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(_not_written(path, error)) from error
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
        declared = content.pop("sha256")
        clips = tuple(
            ClipKeys(**clip | {"notes": tuple(clip["notes"])}) for clip in content.pop("clips")
        )
        failed = tuple((video, reason) for video, reason in content.pop("failed"))
        manifest = Manifest(**content, clips=clips, failed=failed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(f"{path}: not a manifest of a feature store ({reason})") from error
    if manifest.sha256 != declared:
        raise StoreError(f"{path}: changed since it was written; {AGAIN}")
    return manifest


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
