"""The corpora that `mini` learns from, read into one record each.

Layout of the sources folder: `text/*.csv` (split, V, A, text), `speech/ravdess/Actor_*/*.flac`,
`speech/nemo/data.tsv` beside its clips, `faces/*.npz` (images, labels, classes, optional usage).
Whatever is there is used: some speakers, sentences or images only will do, as long as there are
some of each for training and for validation.

Proxy valence-arousal of an emotion class: mean pleasure and arousal ratings of Russell & Mehrabian
(1977), "Evidence for a three-factor theory of emotions", Journal of Research in Personality 11;
"calm" is ours.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

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


def read_sentences(sources: Path) -> Sentences:
    """Read every `text/*.csv`; ratings of 1-5 are centred on 3 and halved. dev counts as val."""
    texts: list[str] = []
    va: list[tuple[float, float]] = []
    splits: list[str] = []
    for path in sorted((sources / "text").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                texts.append(row["text"])
                va.append(((float(row["V"]) - 3) / 2, (float(row["A"]) - 3) / 2))
                splits.append("val" if row["split"] == "dev" else row["split"])
    return Sentences(texts, np.array(va, np.float32).reshape(-1, 2), np.array(splits, np.str_))


def read_speech(sources: Path) -> list[Utterance]:
    """List the clips of RAVDESS (actors 17-20 validate) and nEMO (all train)."""
    return sorted(
        [*_ravdess(sources / "speech" / "ravdess"), *_nemo(sources / "speech" / "nemo")],
        key=lambda utterance: utterance.path,
    )


def _ravdess(folder: Path) -> Iterator[Utterance]:
    for path in folder.glob("Actor_*/??-??-??-??-??-??-??.*"):
        _, _, emotion_code, intensity, _, _, actor = path.stem.split("-")
        emotion = RAVDESS_CODES[emotion_code]
        scale = NORMAL_INTENSITY if intensity == "01" and emotion != "neutral" else 1.0
        valence, arousal = PROXY_VA[emotion]
        yield Utterance(
            path,
            emotion,
            (scale * valence, scale * arousal),
            f"ravdess-{actor}",
            "female" if int(actor) % 2 == 0 else "male",
            "val" if int(actor) in VALIDATION_ACTORS else "train",
        )


def _nemo(folder: Path) -> Iterator[Utterance]:
    table = folder / "data.tsv"
    if not table.is_file():
        return
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            path = folder / Path(row["file_id"]).with_suffix(".ogg")
            emotion = NEMO_NAMES.get(row["emotion"], row["emotion"])
            if path.is_file():
                speaker = f"nemo-{row['speaker_id'].strip()}"
                yield Utterance(path, emotion, PROXY_VA[emotion], speaker, row["gender"], "train")


def read_faces(sources: Path) -> Faces:
    """Read every `faces/*.npz`; usage PublicTest validates, images without a usage train."""
    images: list[npt.NDArray[np.uint8]] = []
    emotions: list[npt.NDArray[np.str_]] = []
    splits: list[npt.NDArray[np.str_]] = []
    for path in sorted((sources / "faces").glob("*.npz")):
        with np.load(path) as content:
            images.append(content["images"])
            emotions.append(content["classes"][content["labels"]])
            usage = content.get("usage", np.full(len(images[-1]), "Training"))
        names = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
        splits.append(np.array([names.get(str(name), str(name)) for name in usage]))
    if not images:
        return Faces(np.zeros((0, 48, 48), np.uint8), np.array([], np.str_), np.array([], np.str_))
    return Faces(np.concatenate(images), np.concatenate(emotions), np.concatenate(splits))
