"""Plans a composed video: its labels, and which image, clip and sentence stands where; no pixels.

A plan is determined by the sources, the split, the seed and the video's number, and by nothing
else. The decisions are those of `compose`, at the rate of the video's frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maven.captions import clean
from maven.datasets.compose import SENTENCE_SCALE, holds, near, spread, utterances, walk
from maven.datasets.corpora import SourcesError, Utterance, read_faces, read_sentences, read_speech
from maven.media import AUDIO_RATE_HZ, MediaError, read_audio
from maven.resample import Samples

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SPLIT_NAMES = ("train", "val", "test")
RATES_HZ = (24, 25, 30)
INVALID_SHARE = 0.03
INVALID_S = (0.3, 2.0)
MISSED_SHARE = 0.004  # of the frames with a face, one by one: what a face detector misses
SHORTEST_CLIP_S = 0.1  # a shorter gap at the end of an utterance stays silent
STEP_N = AUDIO_RATE_HZ // 100
SILENCE_DB = -35.0  # under the loudest 10 ms: the silent ends of a clip
MARGIN_N = AUDIO_RATE_HZ // 20
VOICE_DB = -24.0  # root mean square of the loud part of every clip, full scale 0


@dataclass(frozen=True, eq=False)
class Material:
    """What the videos of one split are made of.

    Attributes:
        images: (n, h, w) grey, their labels (n, 2), and the number of each among all images.
        clips: the utterances, their labels (n, 2), and the number of each among all clips.
        sentences: the words of each, their labels (n, 2), and its number among all sentences.
        used: how many of which split and corpus, for the record.
        notes: one line each on what was taken from other splits.
    """

    images: npt.NDArray[np.uint8]
    image_va: Floats
    image_numbers: list[int]
    clips: list[Utterance]
    clip_va: Floats
    clip_numbers: list[int]
    sentences: list[list[str]]
    sentence_va: Floats
    sentence_numbers: list[int]
    used: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True)
class Conditions:
    """How a video was taken; drawn alike in all splits.

    Attributes:
        scale: size of the face, 1 is that of the template of 112 px.
        contrast, brightness: of the picture around middle grey; brightness in grey levels.
        blur_px, noise: standard deviations, of the blur and, in grey levels, of pixel noise.
        jpeg_quality, crf: of the crops and of the video.
        gain_db: of the whole voice. low_pass_hz: of the room. snr_db: voice over noise.
    """

    scale: float
    contrast: float
    brightness: float
    blur_px: float
    noise: float
    jpeg_quality: int
    crf: int
    gain_db: float
    low_pass_hz: float
    snr_db: float


@dataclass(frozen=True)
class Held:
    """An image (its place in the material) held in the frames [first, stop); None: no face."""

    first: int
    stop: int
    image: int | None


@dataclass(frozen=True)
class Spoken:
    """An utterance: clips (place in the material, start, length), a sentence, its words' times."""

    start_s: float
    end_s: float
    gain_db: float
    clips: tuple[tuple[int, float, float], ...]
    sentence: int
    words_s: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class VideoPlan:
    """A composed video; frame i of `frames` stands at i / rate_hz seconds.

    Attributes:
        key: seeds every further draw (motion, noise).
        labels: (frames, 2) float32, all of the walk.
        valid: (frames,) where the label is given.
        missed: (frames,) where a face is in the picture, and yet not in the crops.
    """

    name: str
    key: tuple[int, ...]
    rate_hz: int
    frames: int
    labels: Floats
    valid: Mask
    held: tuple[Held, ...]
    missed: Mask
    spoken: tuple[Spoken, ...]
    conditions: Conditions


def gather(sources: Path, split: str) -> Material:
    """Read the corpora and keep the split's part of each, or all of one that has no such split.

    Raises:
        SourcesError: there are no faces, no speech or no sentences, or a file cannot be used.
    """
    if not sources.is_dir():
        raise SourcesError(f"{sources}: no folder; needed: a folder with faces, speech and text")
    faces, speech, read = (
        read_faces(sources, unstated=split),
        read_speech(sources),
        read_sentences(sources),
    )
    words = [_words(text) for text in read.texts]
    speakable = np.array([k for k, spoken in enumerate(words) if spoken], int)
    notes: list[str] = []
    used: dict[str, Any] = {}

    def choose(what: str, splits: npt.NDArray[np.str_], looked_for: str) -> list[int]:
        if not len(splits):
            raise SourcesError(f"{sources}: no {what}; looked for {looked_for}")
        chosen = np.flatnonzero(splits == split)
        if not len(chosen):
            chosen = np.arange(len(splits))
            there = ", ".join(f"{n} of {name}" for name, n in sorted(Counter(splits).items()))
            notes.append(f"{what}: none of the split {split}, so all are taken ({there})")
        used[what] = {str(name): n for name, n in sorted(Counter(splits[chosen]).items())}
        return [int(k) for k in chosen]

    images = choose("faces", faces.splits, "faces/*.npz with images in them")
    clips = choose(
        "speech",
        np.array([clip.split for clip in speech], np.str_),
        "speech/ravdess/Actor_*/*.* and speech/nemo/data.tsv with its *.ogg",
    )
    places = choose("sentences", read.splits[speakable], "text/*.csv with words in them")
    sentences = speakable[places].tolist()
    corpora = Counter(speech[k].speaker.partition("-")[0] for k in clips)
    used["speech of corpus"] = dict(sorted(corpora.items()))
    return Material(
        faces.images[images], faces.va[images], images,
        [speech[k] for k in clips],
        np.array([speech[k].va for k in clips], np.float32), clips,
        [words[k] for k in sentences], read.va[sentences], sentences,
        used, notes,
    )  # fmt: skip


def _words(text: str) -> list[str]:
    """Split a sentence into words that a transcript keeps as they are."""
    while (cleaned := clean(text)) != text:
        text = cleaned
    return text.split()


def voice(path: Path) -> Samples:
    """Read a clip (n,) at 16 kHz without its silent ends, its loud part at VOICE_DB.

    Raises:
        SourcesError: it cannot be read, or holds no sound of SHORTEST_CLIP_S.
    """
    try:
        sound = read_audio(path)
    except MediaError as error:
        raise SourcesError(str(error)) from None
    samples = np.zeros(0, np.float32) if sound is None else sound.samples
    steps = samples[: len(samples) // STEP_N * STEP_N].reshape(-1, STEP_N).astype(np.float64)
    power = (steps**2).mean(1)
    loud = np.flatnonzero(power > power.max(initial=0) * 10 ** (SILENCE_DB / 10))
    if len(loud):
        samples = samples[max(loud[0] * STEP_N - MARGIN_N, 0) : (loud[-1] + 1) * STEP_N + MARGIN_N]
    if not len(loud) or len(samples) < SHORTEST_CLIP_S * AUDIO_RATE_HZ:
        raise SourcesError(
            f"{path}: no voice can be read from it; needed: {SHORTEST_CLIP_S} s of sound or more"
        )
    gain = 10 ** (VOICE_DB / 20) / np.sqrt(power[loud].mean())
    return np.asarray(samples * gain, np.float32)


def plan_video(
    material: Material,
    split: str,
    seed: int,
    number: int,
    seconds: float,
    voices: Callable[[int], Samples],
) -> VideoPlan:
    """Plan video `number` of a split, about `seconds` long: a whole number of frames.

    Args:
        material: of `gather`.
        split: names the video, and makes the splits differ at the same seed.
        seed: 0 or more.
        number: counted from 0.
        seconds: 5 or more.
        voices: the `voice` of a clip, by its place in the material.
    """
    key = (seed, SPLIT_NAMES.index(split), number)
    rng = np.random.default_rng(key)
    rate_hz = int(rng.choice(RATES_HZ))
    frames = round(seconds * rate_hz)
    labels = walk(frames, rate_hz, rng)
    held = tuple(
        Held(
            first, stop, near(labels[first:stop].mean(0), material.image_va, rng) if face else None
        )
        for first, stop, face in holds(labels, rate_hz, rng)
    )
    spoken = _speak(material, labels, rate_hz, voices, rng)
    missed = rng.uniform(size=frames) < MISSED_SHARE
    valid = ~_invalid(frames, rate_hz, rng)
    conditions = Conditions(
        scale=rng.uniform(1.0, 1.25),
        contrast=rng.uniform(0.75, 1.15),
        brightness=rng.uniform(-20, 20),
        blur_px=rng.uniform(0, 1.2),
        noise=rng.uniform(0, 8),
        jpeg_quality=int(rng.integers(60, 96)),
        crf=int(rng.integers(18, 29)),
        gain_db=rng.uniform(-4, 4),
        low_pass_hz=rng.uniform(2500, 7500),
        snr_db=rng.uniform(15, 35),
    )
    return VideoPlan(
        f"{split}-{number:03d}", key, rate_hz, frames, labels, valid,
        held, missed, spoken, conditions,
    )  # fmt: skip


def _speak(
    material: Material,
    labels: Floats,
    rate_hz: float,
    voices: Callable[[int], Samples],
    rng: np.random.Generator,
) -> tuple[Spoken, ...]:
    """Lay utterances of one speaker along the labels; several clips where one is too short."""
    speakers = np.array([clip.speaker for clip in material.clips])
    own = np.flatnonzero(speakers == rng.choice(np.unique(speakers)))
    spoken = []
    for start_s, length_s in utterances(len(labels) / rate_hz, rng):
        end_s = start_s + length_s
        target = labels[round(start_s * rate_hz) : round(end_s * rate_hz)].mean(0)
        clips = []
        at_s = start_s
        while end_s - at_s >= SHORTEST_CLIP_S:
            clip = int(own[near(target, material.clip_va[own], rng)])
            clip_s = len(voices(clip)) / AUDIO_RATE_HZ
            clips.append((clip, at_s, min(clip_s, end_s - at_s)))
            at_s += clip_s
        sentence = near(target, material.sentence_va, rng, SENTENCE_SCALE)
        times_s = spread(len(material.sentences[sentence]), start_s, length_s)
        words_s = tuple(zip(*times_s, strict=True))
        gain_db = rng.uniform(-2, 2)
        spoken.append(Spoken(start_s, end_s, gain_db, tuple(clips), sentence, words_s))
    return tuple(spoken)


def _invalid(frames: int, rate_hz: float, rng: np.random.Generator) -> Mask:
    """Draw the spells (frames,) without a label, a share of INVALID_SHARE in the mean."""
    invalid = np.zeros(frames, bool)
    between_s = np.mean(INVALID_S) * (1 / INVALID_SHARE - 1)
    at_s = rng.exponential(between_s)
    while at_s < frames / rate_hz:
        until_s = at_s + rng.uniform(*INVALID_S)
        invalid[round(at_s * rate_hz) : round(until_s * rate_hz)] = True
        at_s = until_s + rng.exponential(between_s)
    return invalid


def record(plan: VideoPlan, material: Material, sources: Path) -> dict[str, Any]:
    """Describe a plan in JSON's terms: images, clips and sentences by number, times in seconds."""

    def times_s(first: int, stop: int) -> list[float]:
        return _rounded((first / plan.rate_hz, stop / plan.rate_hz))

    return {
        "rate_hz": plan.rate_hz,
        "frames": plan.frames,
        "speaker": material.clips[plan.spoken[0].clips[0][0]].speaker,
        "conditions": {k: round(v, 4) for k, v in vars(plan.conditions).items()},
        "faces": [
            {
                "image": None if held.image is None else material.image_numbers[held.image],
                "time_s": times_s(held.first, held.stop),
            }
            for held in plan.held
        ],
        "utterances": [
            {
                "time_s": _rounded((spoken.start_s, spoken.end_s)),
                "gain_db": round(spoken.gain_db, 4),
                "sentence": material.sentence_numbers[spoken.sentence],
                "clips": [
                    {
                        "clip": material.clip_numbers[clip],
                        "file": material.clips[clip].path.relative_to(sources).as_posix(),
                        "time_s": _rounded((start_s, start_s + length_s)),
                    }
                    for clip, start_s, length_s in spoken.clips
                ],
            }
            for spoken in plan.spoken
        ],
    }


def _rounded(times_s: Sequence[float]) -> list[float]:
    return [round(time_s, 4) for time_s in times_s]
