"""The corpora that `mini` learns from, read into one record each.

Layout of the sources folder: `text/*.csv` (split, V, A, text), `speech/ravdess/Actor_*/*.flac`,
`speech/nemo/data.tsv` beside its clips, `faces/*.npz` (images, labels, classes, optional usage).
Whatever is there is used: some speakers, sentences or images only will do. What cannot be read is a
`SourcesError`.

Proxy valence-arousal of an emotion class: mean pleasure and arousal ratings of Russell & Mehrabian
(1977), "Evidence for a three-factor theory of emotions", Journal of Research in Personality 11;
"calm" is ours.
"""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maven.media import media_hash

PROXY_VA: dict[str, tuple[float, float]] = {
    "happy": (0.81, 0.51),
    "surprise": (0.40, 0.67),
    "angry": (-0.51, 0.59),
    "fear": (-0.64, 0.60),
    "disgust": (-0.60, 0.35),
    "sad": (-0.63, -0.27),
    "neutral": (0.0, 0.0),
    "calm": (0.30, -0.40),
}
NORMAL_INTENSITY = 0.75  # RAVDESS "normal" against "strong"
RAVDESS_CODES = dict(
    zip(
        ("01", "02", "03", "04", "05", "06", "07", "08"),
        ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise"),
        strict=True,
    )
)
NEMO_NAMES = {"anger": "angry", "happiness": "happy", "sadness": "sad", "surprised": "surprise"}
VALIDATION_ACTORS = range(17, 21)
TEST_ACTORS = range(21, 25)
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
EMOBANK_SPLITS = {"dev": "val"}


class SourcesError(Exception):
    """The corpora cannot be used; the message is one line and names the file or folder."""


@dataclass(frozen=True)
class Utterance:
    """One clip of emotional speech: its file, class, proxy (valence, arousal), speaker, split."""

    path: Path
    emotion: str
    va: tuple[float, float]
    speaker: str
    sex: str
    split: str


@dataclass(frozen=True)
class Sentences:
    """Sentences with (valence, arousal) (n, 2) in [-1, 1] and their splits."""

    texts: list[str]
    va: npt.NDArray[np.float32]
    splits: npt.NDArray[np.str_]


@dataclass(frozen=True)
class Faces:
    """Grey face images (n, h, w) uint8, a class name each, and their splits."""

    images: npt.NDArray[np.uint8]
    emotions: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]

    @property
    def va(self) -> npt.NDArray[np.float32]:
        """Proxy (valence, arousal), (n, 2)."""
        return np.array([PROXY_VA[emotion] for emotion in self.emotions], np.float32).reshape(-1, 2)


def fingerprints(sources: Path) -> dict[str, str]:
    """Hash the sources (SHA-256): each table and file of images; of speech, names and sizes."""
    tables = sorted([*(sources / "faces").glob("*.npz"), *(sources / "text").glob("*.csv")])
    hashes = {path.relative_to(sources).as_posix(): media_hash(path) for path in tables}
    speech = sorted(
        (path.relative_to(sources).as_posix(), path.stat().st_size)
        for path in (sources / "speech").rglob("*")
        if path.is_file()
    )
    return hashes | {"speech": hashlib.sha256(json.dumps(speech).encode()).hexdigest()}


def read_sentences(sources: Path) -> Sentences:
    """Read every `text/*.csv`; ratings of 1-5 are centred on 3 and halved. dev counts as val.

    Raises:
        SourcesError: a file is no table, lacks a column, or a rating is no number from 1 to 5.
    """
    texts: list[str] = []
    va: list[tuple[float, float]] = []
    splits: list[str] = []
    for path in sorted((sources / "text").glob("*.csv")):
        for line, row in _rows(path, ("split", "V", "A", "text")):
            texts.append(row["text"])
            va.append((_rating(path, line, row, "V"), _rating(path, line, row, "A")))
            splits.append(EMOBANK_SPLITS.get(row["split"], row["split"]))
    return Sentences(texts, np.array(va, np.float32).reshape(-1, 2), np.array(splits, np.str_))


def _rows(
    path: Path, columns: tuple[str, ...], delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) of a table that must have these columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            names = reader.fieldnames or ()
            if missing := [name for name in columns if name not in names]:
                raise SourcesError(
                    f"{path}: lacks the column {missing[0]}; needed: {', '.join(columns)}"
                )
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise SourcesError(f"{path}, line {reader.line_num}: fewer fields than columns")
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourcesError(f"{path}: not a table that can be read ({error})") from None


def _rating(path: Path, line: int, row: dict[str, str], name: str) -> float:
    try:
        rating = float(row[name])
    except ValueError:
        rating = np.nan
    if not 1 <= rating <= 5:
        raise SourcesError(f"{path}, line {line}: {name} is {row[name]!r}; accepted: 1 to 5")
    return (rating - 3) / 2


def read_speech(sources: Path) -> list[Utterance]:
    """List the clips of RAVDESS (actors 17-20 are val, 21-24 test) and nEMO (all train), by path.

    Raises:
        SourcesError: a clip's name or the table of nEMO says something unknown.
    """
    return sorted(
        [*_ravdess(sources / "speech" / "ravdess"), *_nemo(sources / "speech" / "nemo")],
        key=lambda utterance: utterance.path,
    )


def _ravdess(folder: Path) -> Iterator[Utterance]:
    for path in folder.glob("Actor_*/??-??-??-??-??-??-??.*"):
        _, _, emotion_code, intensity, _, _, actor = path.stem.split("-")
        if emotion_code not in RAVDESS_CODES or not actor.isdecimal():
            raise SourcesError(
                f"{path}: not a name of RAVDESS: the third number is an emotion, 01 to 08, "
                "the seventh an actor"
            )
        emotion = RAVDESS_CODES[emotion_code]
        scale = NORMAL_INTENSITY if intensity == "01" and emotion != "neutral" else 1.0
        valence, arousal = PROXY_VA[emotion]
        number = int(actor)
        yield Utterance(
            path,
            emotion,
            (scale * valence, scale * arousal),
            f"ravdess-{actor}",
            "female" if number % 2 == 0 else "male",
            "val" if number in VALIDATION_ACTORS else "test" if number in TEST_ACTORS else "train",
        )


def _nemo(folder: Path) -> Iterator[Utterance]:
    table = folder / "data.tsv"
    if not table.is_file():
        return
    for line, row in _rows(table, ("file_id", "emotion", "speaker_id", "gender"), "\t"):
        path = folder / Path(row["file_id"]).with_suffix(".ogg")
        emotion = NEMO_NAMES.get(row["emotion"], row["emotion"])
        _check_emotion(f"{table}, line {line}", emotion)
        if path.is_file():
            speaker = f"nemo-{row['speaker_id'].strip()}"
            yield Utterance(path, emotion, PROXY_VA[emotion], speaker, row["gender"], "train")


def _check_emotion(where: str, emotion: str) -> None:
    if emotion not in PROXY_VA:
        raise SourcesError(
            f"{where}: no valence and arousal are known of the class {emotion!r}; "
            f"accepted: {', '.join(PROXY_VA)}"
        )


def read_faces(sources: Path, unstated: str = "train") -> Faces:
    """Read every `faces/*.npz`: usage PublicTest is val, PrivateTest is test.

    Args:
        sources: folder of the corpora.
        unstated: the split of images whose file has no usage.

    Raises:
        SourcesError: a file cannot be read, lacks an array, or has a class without known labels.
    """
    parts = [_read_images(path, unstated) for path in sorted((sources / "faces").glob("*.npz"))]
    if not parts:
        return Faces(np.zeros((0, 48, 48), np.uint8), np.array([], np.str_), np.array([], np.str_))
    sizes = sorted({part.images.shape[1:] for part in parts})
    if len(sizes) > 1:
        raise SourcesError(f"{sources / 'faces'}: images of several sizes {sizes}; accepted: one")
    return Faces(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.emotions for part in parts]),
        np.concatenate([part.splits for part in parts]),
    )


def _read_images(path: Path, unstated: str) -> Faces:
    needed = ("images", "labels", "classes")
    try:
        with np.load(path) as content:
            arrays = {name: content[name] for name in (*needed, "usage") if name in content}
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error):
        raise SourcesError(f"{path}: not an .npz file that can be read") from None
    if missing := [name for name in needed if name not in arrays]:
        raise SourcesError(f"{path}: lacks {missing[0]!r}; needed: {', '.join(needed)}")
    images, labels, classes = (arrays[name] for name in needed)
    usage = arrays.get("usage")
    if images.ndim != 3 or images.dtype != np.uint8 or not all(images.shape[1:]):
        raise SourcesError(
            f"{path}: images are {images.dtype} {images.shape}; accepted: grey, uint8 (n, h, w)"
        )
    if labels.shape != (len(images),) or (usage is not None and usage.shape != labels.shape):
        raise SourcesError(f"{path}: images, labels and usage are not of the same number")
    if labels.dtype.kind not in "iu" or not np.isin(labels, np.arange(len(classes))).all():
        raise SourcesError(f"{path}: labels are not all numbers of its {len(classes)} classes")
    emotions = classes.astype(np.str_)[labels]
    for emotion in np.unique(emotions):
        _check_emotion(str(path), str(emotion))
    if usage is None:
        return Faces(images, emotions, np.full(len(images), unstated))
    return Faces(images, emotions, np.array([USAGES.get(str(u), str(u)) for u in usage], np.str_))
