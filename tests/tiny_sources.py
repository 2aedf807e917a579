"""Corpora of a few samples in the layout of the real ones, each of them recognisable.

Image k is plain grey of `level(k)` with a bright dot where the nose lies in the mean; sentence k
says its number and its split; clips are buzzes of a pitch of their own between two silences.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maven.datasets.prepare import MEAN_LANDMARKS
from maven.media import AUDIO_RATE_HZ
from media_factory import write_clip

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = ("Training", "PublicTest", "PrivateTest")
IMAGES = 42  # two of each class and split
ACTORS = (1, 2, 17, 18, 21, 22)
SILENCE_S = 0.5
VOICE_S = 1.2
NOSE_PX = np.array(MEAN_LANDMARKS[2]) * 48 - 0.5


def level(k: int) -> int:
    """The grey level of image k."""
    return 60 + 3 * k


def image(k: int) -> npt.NDArray[np.uint8]:
    """Draw image k: (48, 48)."""
    y, x = np.mgrid[:48, :48]
    dot = 70 * np.exp(-((x - NOSE_PX[0]) ** 2 + (y - NOSE_PX[1]) ** 2) / (2 * 1.5**2))
    return np.asarray(np.rint(level(k) + dot), np.uint8)


def buzz(pitch_hz: float, seconds: float = VOICE_S) -> npt.NDArray[np.float32]:
    """A square wave that begins and ends at once, between two silences: (1, n) at 16 kHz."""
    time_s = np.arange(round((seconds + 2 * SILENCE_S) * AUDIO_RATE_HZ)) / AUDIO_RATE_HZ
    loud = (time_s >= SILENCE_S) & (time_s < SILENCE_S + seconds)
    return (0.2 * loud * np.sign(np.sin(2 * np.pi * pitch_hz * time_s + 0.1)))[None].astype(
        np.float32
    )


def write_faces(path: Path, usages: Sequence[str] | None = USAGES) -> Path:
    """Write IMAGES images; image k is of class k % 7 and of usage k // 7 % 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "images": np.stack([image(k) for k in range(IMAGES)]),
        "labels": np.arange(IMAGES) % len(CLASSES),
        "classes": np.array(CLASSES),
    }
    if usages is not None:
        arrays["usage"] = np.array([usages[k // 7 % len(usages)] for k in range(IMAGES)])
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def write_speech(folder: Path, actors: Sequence[int] = ACTORS) -> Path:
    """Write a strong clip of each of the eight emotions of some actors of RAVDESS."""
    for actor in actors:
        place = folder / f"Actor_{actor:02}"
        place.mkdir(parents=True)
        for emotion in range(1, 9):
            name = f"03-01-{emotion:02}-02-01-01-{actor:02}.flac"
            sound = buzz(100 + 20 * emotion + 3 * actor)
            write_clip(place / name, sound=sound, sound_rate_hz=AUDIO_RATE_HZ, sound_codec="flac")
    return folder


def write_sentences(path: Path, splits: Sequence[str] = ("train", "dev", "test")) -> Path:
    """Write 60 sentences anywhere on the scales, and one without words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "split", "V", "A", "D", "text"))
        for k in range(60):
            split = splits[k % len(splits)]
            v, a = random.uniform(2, 4, 2).round(2)
            text = f'Well, "number {k}" of {split} is said in very few words -- yes.'
            writer.writerow((f"s{k}", split, v, a, 3.0, text))
        writer.writerow(("s60", splits[0], 3.0, 3.0, 3.0, '..""'))
    return path


def write_sources(folder: Path) -> Path:
    """Write all three; every split has some of each."""
    write_faces(folder / "faces" / "tiny.npz")
    write_speech(folder / "speech" / "ravdess")
    write_sentences(folder / "text" / "tiny.csv")
    return folder
