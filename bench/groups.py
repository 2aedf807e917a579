"""Mean answers for neutral voices by the groups that the corpora name: what differs between them.

Speakers, not clips, are the sample: a group's mean is that of its speakers' means, and the standard
error of a difference is sqrt(s1^2 / n1 + s2^2 / n2) over them. A voice that an encoder was trained
on tells little about strangers. So a training speaker is heard by the encoder of the recipe that
was trained without that third of the speakers (`audio_without_K.safetensors`), where it is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

import maven
from maven.checkpoint import Model
from maven.datasets.corpora import Utterance, read_speech
from maven.encoders.base import Encoders
from maven.encoders.mini import load_mini
from maven.pipeline import Answered

CLIPS = 10  # of a speaker, at most
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Voice:
    """A speaker: `fused` and `encoder` are means (2,) of (valence, arousal) over neutral clips.

    `fused` is the answer of the whole model where it hears speech and has nothing else, `encoder`
    the voice encoder's own.
    """

    corpus: str
    speaker: str
    sex: str
    split: str
    fused: Floats
    encoder: Floats


@dataclass(frozen=True)
class Difference:
    """Female minus male in (valence, arousal), with its standard error; numbers of speakers."""

    female: Floats
    male: Floats
    error: Floats
    speakers: tuple[int, int]

    @property
    def value(self) -> Floats:
        """The difference (2,)."""
        return self.female - self.male


def difference(female: Floats, male: Floats) -> Difference:
    """Compare the means of two groups of speakers (n1, 2), (n2, 2), two or more of each."""
    squares = [group.var(0, ddof=1) / len(group) for group in (female, male)]
    return Difference(female.mean(0), male.mean(0), np.sqrt(sum(squares)), (len(female), len(male)))


def compared(voices: Sequence[Voice], what: str) -> Difference:
    """Compare female and male voices in `what`, "fused" or "encoder"."""
    female, male = (
        np.array([getattr(voice, what) for voice in voices if voice.sex == sex])
        for sex in ("female", "male")
    )
    return difference(female, male)


def evenly(clips: Sequence[Utterance]) -> list[Utterance]:
    """Take `CLIPS` of them at most, evenly from all."""
    places = np.linspace(0, len(clips) - 1, min(CLIPS, len(clips))).round().astype(int)
    return [clips[k] for k in places]


def held_out_models(model: Model, work: Path) -> tuple[dict[str, Model], str]:
    """Return the model that never heard each training speaker, and a note on where it is from.

    The folds are those of `tools/train_mini.py voices`: speakers in the order of their names.
    """
    files = sorted(work.glob("audio_without_*.safetensors"))
    if not files or not (work / "voices.npz").is_file():
        return {}, f"no encoders without a third of the speakers in {work}: all heard by the model"
    with np.load(work / "voices.npz") as content:
        speakers = [str(name) for name in np.unique(content["speakers"])]
    models = [
        replace(
            model,
            encoders=Encoders(
                model.encoders.visual, load_mini("audio", path, model.device), model.encoders.text
            ),
        )
        for path in files
    ]
    own = work / "audio.safetensors"
    same = own.is_file() and (
        load_mini("audio", own, "cpu").fingerprint == model.encoders.audio.fingerprint
    )
    note = f"training speakers are heard by {len(files)} encoders trained without them"
    if not same:
        note += "; these are of another training than the model's own encoder"
    return {name: models[k % len(models)] for k, name in enumerate(speakers)}, note


def listen_to(model: Model, sources: Path, work: Path) -> tuple[list[Voice], str]:
    """Analyse the neutral clips of every speaker; return the voices and the note."""
    by_speaker: dict[str, list[Utterance]] = {}
    for clip in read_speech(sources):
        if clip.emotion == "neutral":
            by_speaker.setdefault(clip.speaker, []).append(clip)
    held_out, note = held_out_models(model, work)
    voices = []
    for speaker, clips in by_speaker.items():
        about = clips[0]
        hearing = held_out.get(speaker, model) if about.split == "train" else model
        fused, encoder = [], []
        for clip in evenly(clips):
            found: list[Answered] = []
            analysis = maven.analyze(
                clip.path, hearing, asr="none", offline=True, answered=found.append
            )
            rows = analysis.frames[analysis.frames.has_speech]
            features = found[0].features
            heard = features.values["audio"][features.observed["audio"]]
            if len(rows) and len(heard):
                fused.append(rows[["valence", "arousal"]].mean().to_numpy())
                encoder.append(heard[:, :2].mean(0))
        if fused:
            corpus = speaker.partition("-")[0]
            means = np.mean(fused, 0), np.mean(encoder, 0)
            voices.append(Voice(corpus, speaker, about.sex, about.split, *means))
    return voices, note
