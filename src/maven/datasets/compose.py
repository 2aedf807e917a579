"""Composes sequences with known valence and arousal from faces, voices and sentences.

No corpus at hand has video, speech and words together with valence-arousal labels. So a smooth
random walk on the circumplex gives the labels, and faces, speech clips and sentences whose own
labels lie near it are laid along it: utterances of 2 to 6 s, pauses, spells without a face, as in
the wild. The decisions (`walk`, `near`, `holds`, `utterances`, `spread`) serve composed videos as
well; `compose` works on feature sequences. A part's own label stands in `va`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maven.datasets.corpora import PROXY_VA
from maven.features import Features
from maven.timeline import place_words

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

# Where the labels go: no further from rest than a face and a voice can follow, in the mean of both.
# A neutral face beside the label of a deep calm would teach that neutral faces are calm.
RIM = np.array(
    [
        PROXY_VA["happy"],
        PROXY_VA["surprise"],
        PROXY_VA["fear"],
        PROXY_VA["sad"],
        np.divide(PROXY_VA["calm"], 2),  # a voice can be calm, a face is neutral then
    ]
)
REST_SHARE, REST = 0.33, 0.2  # of the points near rest, and how near
WALK_STEP_S = 3.0  # between two points through which the walk passes
NEAR = 0.2  # spread around the walk from which a part is taken
SENTENCE_SCALE = 2.2  # readers' ratings of sentences spread less than acted emotions: stretched
NEUTRAL_RADIUS = 0.15  # parts with labels this near to the origin express nothing
SUDDEN_SHARE = 0.3  # of its steps are taken in a fraction of their time
SUDDEN_PACE = 4.0
FACE_HOLD_S = (1.0, 6.0)
FACE_MOVE = 0.25  # a label that has moved by this much has another face
FLICKER_S = (0.2, 1.0)
FLICKER = 0.3  # share of the passing face
UTTERANCE_S = (2.0, 6.0)
PAUSE_S = (0.2, 2.5)
FACELESS_SHARE = 0.08
WORD_S = 0.35


@dataclass(frozen=True)
class Parts:
    """What sequences are composed of, all from one split.

    Attributes:
        faces: (n, d) features, and face_va (n, 2).
        voices: one (t, d) sequence at `rate_hz` a clip, voice_va (n, 2), and the speaker of each.
        sentences: one (words, d) array a sentence, and sentence_va (n, 2).
        rate_hz: of the grid.
    """

    faces: Floats
    face_va: Floats
    voices: Sequence[Floats]
    voice_va: Floats
    speakers: npt.NDArray[np.str_]
    sentences: Sequence[Floats]
    sentence_va: Floats
    rate_hz: float

    def carried_by(self, modality: str | None) -> Parts:
        """The same parts, but only one modality's express anything; None: nobody's do.

        Of the others there remain those whose own labels lie within `NEUTRAL_RADIUS` of the origin.
        """
        faces, voices, sentences = (
            np.flatnonzero((m == modality) | (np.linalg.norm(va, axis=1) <= NEUTRAL_RADIUS))
            for m, va in (
                ("visual", self.face_va),
                ("audio", self.voice_va),
                ("text", self.sentence_va * SENTENCE_SCALE),
            )
        )
        return self.only(faces, voices, sentences)

    def only(self, faces: Indices, voices: Indices, sentences: Indices) -> Parts:
        """Keep the faces, clips and sentences of these indices."""
        return Parts(
            self.faces[faces],
            self.face_va[faces],
            [self.voices[k] for k in voices.tolist()],
            self.voice_va[voices],
            self.speakers[voices],
            [self.sentences[k] for k in sentences.tolist()],
            self.sentence_va[sentences],
            self.rate_hz,
        )


def reach(direction: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Distance (n,) from rest to the convex polygon `RIM` along unit vectors (n, 2)."""
    edges = np.roll(RIM, -1, 0) - RIM
    outward = np.stack((edges[:, 1], -edges[:, 0]), 1)  # of a polygon that runs anticlockwise
    distance = (outward * RIM).sum(1)
    along = direction @ outward.T  # (n, edges)
    crossing = np.full(along.shape, np.inf)
    np.divide(distance, along, out=crossing, where=along > 0)
    return np.asarray(crossing.min(1))


def _knot(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a point (2,): near rest, or anywhere within the rim, the more often the further out."""
    if rng.uniform() < REST_SHARE:
        angle = rng.uniform(-np.pi, np.pi)
        return rng.uniform(0, REST) * np.array([np.cos(angle), np.sin(angle)])
    first, second = RIM, np.roll(RIM, -1, 0)
    areas = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    side, share = rng.choice(len(RIM), p=areas / areas.sum()), rng.uniform()
    on_rim = (1 - share) * first[side] + share * second[side]
    return np.asarray(np.cbrt(rng.uniform()) * on_rim)


def walk(frames: int, rate_hz: float, rng: np.random.Generator) -> Floats:
    """Draw a random walk (t, 2) within `RIM`: smooth, at times sudden, a third near rest."""
    knots = int(np.ceil(frames / rate_hz / WALK_STEP_S)) + 3
    points = np.stack([_knot(rng) for _ in range(knots)])
    for k in range(1, knots):  # emotions last: half the points repeat the one before
        if rng.uniform() < 0.5:
            points[k] = points[k - 1] + rng.normal(0, 0.08, 2)
    place = np.arange(frames) / rate_hz / WALK_STEP_S + rng.uniform()
    below = place.astype(int)
    pace = np.where(rng.uniform(size=knots) < SUDDEN_SHARE, SUDDEN_PACE, 1.0)
    share = ((place - below - 0.5) * pace[below] + 0.5).clip(0, 1)[:, None]
    share = share * share * (3 - 2 * share)
    path = (1 - share) * points[below] + share * points[below + 1]
    length = np.linalg.norm(path, axis=1)
    rim = reach(path / np.maximum(length, 1e-9)[:, None])
    return np.asarray(path * np.minimum(rim / np.maximum(length, 1e-9), 1)[:, None], np.float32)


def near(target: Floats, va: Floats, rng: np.random.Generator, scale: float = 1.0) -> int:
    """Draw one of the parts whose labels `va` (n, 2), times `scale`, lie near the target (2,)."""
    distance = ((va * scale - target) ** 2).sum(1)
    weight = np.exp(-(distance - distance.min()) / (2 * NEAR**2))
    return int(np.searchsorted(weight.cumsum(), rng.uniform() * weight.sum()).clip(0, len(va) - 1))


def utterances(seconds: float, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Draw the utterances of a sequence one by one: (start, length) in seconds, pauses between."""
    start_s = rng.uniform(0, PAUSE_S[1])
    while start_s < seconds - 1:
        length_s = min(rng.uniform(*UTTERANCE_S), seconds - start_s)
        yield start_s, length_s
        start_s += length_s + rng.uniform(*PAUSE_S)


def spread(words: int, start_s: float, length_s: float) -> tuple[list[float], list[float]]:
    """Return the starts and the ends in seconds of the words (one or more) of an utterance."""
    starts_s = (start_s + np.arange(words) * min(WORD_S, length_s / words)).tolist()
    return starts_s, [*starts_s[1:], min(starts_s[-1] + WORD_S, start_s + length_s)]


def holds(
    labels: Floats, rate_hz: float, rng: np.random.Generator
) -> Iterator[tuple[int, int, bool]]:
    """Part labels (t, 2) into spells, one by one: (first frame, end, whether there is a face).

    One expression is held until time or label has moved on. In a video the same face errs the same
    way for seconds. If every frame had a new face, the network would learn to average errors away
    that do not average in use, and be too sure.
    """
    at = 0
    while at < len(labels):
        stop = min(at + max(round(rng.uniform(*FACE_HOLD_S) * rate_hz), 1), len(labels))
        moved = np.linalg.norm(labels[at:stop] - labels[at], axis=1) > FACE_MOVE
        stop = at + int(moved.argmax()) if moved.any() else stop
        yield at, stop, rng.uniform() >= FACELESS_SHARE
        at = stop


def compose(parts: Parts, seconds: float, rng: np.random.Generator) -> tuple[Features, Floats]:
    """Compose one sequence.

    Returns:
        Its features (t = seconds x rate_hz frames) and labels (t, 2).
    """
    rate_hz = parts.rate_hz
    frames = round(seconds * rate_hz)
    time_s = np.arange(frames) / rate_hz
    labels = walk(frames, rate_hz, rng)
    visual, seen = _faces(parts, labels, rng)
    audio = np.zeros((frames, parts.voices[0].shape[1]), np.float32)
    text = np.zeros((frames, parts.sentences[0].shape[1]), np.float32)
    heard, said = np.zeros(frames, bool), np.zeros(frames, bool)
    names = np.unique(parts.speakers)
    speaker = parts.speakers == rng.choice(names)
    own = np.flatnonzero(speaker)
    for start_s, length_s in utterances(seconds, rng):
        first, last = round(start_s * rate_hz), round((start_s + length_s) * rate_hz)
        target = labels[first:last].mean(0)
        at = first
        while at < last:  # clips are shorter than some utterances
            clip = parts.voices[own[near(target, parts.voice_va[own], rng)]][: last - at]
            audio[at : at + len(clip)], heard[at : at + len(clip)] = clip, True
            at += max(len(clip), 1)
        words = parts.sentences[near(target, parts.sentence_va, rng, SENTENCE_SCALE)]
        if len(words):
            starts_s, ends_s = spread(len(words), start_s, length_s)
            placed = place_words(starts_s, ends_s, [0] * len(words), words, time_s)
            text[placed.mask], said[placed.mask] = placed.features[placed.mask], True
    features = Features(
        time_s,
        {"visual": visual, "audio": audio, "text": text},
        {"visual": seen, "audio": heard, "text": said},
    )
    return features, labels


def _faces(
    parts: Parts, labels: Floats, rng: np.random.Generator
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Lay faces along the labels, one for each spell."""
    visual = np.zeros((len(labels), parts.faces.shape[1]), np.float32)
    seen = np.ones(len(labels), bool)
    previous = None
    for begun, stop, has_face in holds(labels, parts.rate_hz, rng):
        if not has_face:
            seen[begun:stop] = False
            previous = None
            continue
        target = labels[begun:stop].mean(0)
        face = parts.faces[near(target, parts.face_va, rng)]
        at = begun
        while at < stop:  # speech and blinks: a passing trace of another face
            passing = parts.faces[near(target, parts.face_va, rng)]
            until = min(at + round(rng.uniform(*FLICKER_S) * parts.rate_hz) + 1, stop)
            visual[at:until] = (1 - FLICKER) * face + FLICKER * passing
            at = until
        if previous is not None:
            ramp = np.minimum(np.arange(1, stop - begun + 1) / 3, 1)[:, None]
            visual[begun:stop] = (1 - ramp) * previous + ramp * visual[begun:stop]
        previous = face
    return visual, seen
