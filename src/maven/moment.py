"""What can be answered at a moment from what was before it: the rules of the causal mode.

Answers stand on the ticks k / rate_hz of the network's grid. The answer at a tick is the one that a
recording would get for its last frame if it ended there: nothing later is used, and what was seen
and heard in the network's reach before it is read again with all that has come since.
`maven.live.Stream` answers what is pushed piece by piece, `maven.causal.causal` a file; they give
the same answers.

Where this differs from `maven.analyze` of such a recording: one frame a tick is looked at, the
newest; a face counts at once, without the look ahead that keeps false ones out; the sound of an
encoder's context is encoded at every second tick, not all of it; the newest vector of a face or a
voice holds for `SAMPLE_GAP_S`, and speech for `PAD_S`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maven.circumplex import region, to_polar
from maven.config import MODALITIES
from maven.faces.crop import crop
from maven.faces.follow import MainFace
from maven.features import SAMPLE_GAP_S, Sampled, assemble
from maven.inference import Series, answer, infer, sight_s
from maven.media import AUDIO_RATE_HZ

if TYPE_CHECKING:
    from maven.checkpoint import Model, ModelCard
    from maven.encoders.base import AudioEncoder, VisualEncoder
    from maven.faces.detect import FaceDetector, Image
    from maven.speech import SpeechSpan
    from maven.timeline import Mask, Times
    from maven.transcript import Word

Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

PATIENCE_S = 0.2  # an input further behind the newest than this is not waited for
WORDS_S = 30.0  # words that ended longer ago are forgotten; a sentence is shorter
REVISED_S = 2.0  # a vector of the voice is computed anew until this much sound has followed it
VOICE_TICKS = 2  # the voice is encoded at every second tick
WEIGHED_TICKS = 6  # weights are measured anew at every sixth, one of those without the voice
ROUNDING_S = 1e-6  # times this close are the same


@dataclass(frozen=True)
class Answer:
    """The answer at one moment; named as the columns of the long table.

    Attributes:
        time_s: of the tick, on the clock of what was pushed.
        valence, arousal: in [-1, 1]; NaN, as all numbers below, where nothing was observed.
        theta, intensity: the same in polar form, in radians in (-pi, pi] and in [0, 1].
        valence_low, valence_high, arousal_low, arousal_high: the ends of the intervals; NaN where
            the model has none. They are as calibrated on answers that know what follows.
        visual_weight, audio_weight, text_weight: shares of face, voice and words, summing to 1, of
            this tick or one shortly before.
        has_face, has_speech, has_text: what was observed at the tick.
        box_px: x, y of the top left corner, width and height of the face; None without one.
        emotion: named region of the circumplex; None where nothing was observed.
    """

    time_s: float
    valence: float
    arousal: float
    theta: float
    intensity: float
    valence_low: float
    valence_high: float
    arousal_low: float
    arousal_high: float
    visual_weight: float
    audio_weight: float
    text_weight: float
    has_face: bool
    has_speech: bool
    has_text: bool
    box_px: Box | None
    emotion: str | None


@dataclass(frozen=True, eq=False)
class Look:
    """The main person's face in one frame.

    Attributes:
        time_s: of the frame.
        person: their number.
        box_px: x, y of the top left corner, width, height, as in `Detection`.
        vector: (d,) of the visual encoder.
    """

    time_s: float
    person: int
    box_px: Box
    vector: Floats


def tick_from(time_s: float, rate_hz: float) -> int:
    """First tick at or after a time."""
    return math.ceil((time_s - ROUNDING_S) * rate_hz)


def due_s(first_s: float, reached_s: Iterable[float | None]) -> float:
    """Time up to which nothing more is waited for.

    Args:
        first_s: of the first input of any kind.
        reached_s: up to where each kind of input has come, None if none has.
    """
    times_s = [first_s - 2 * ROUNDING_S if time_s is None else time_s for time_s in reached_s]
    return min(time_s for time_s in times_s if time_s >= max(times_s) - PATIENCE_S)


def memory_s(model: Model) -> float:
    """How far back an answer depends on what was seen and heard."""
    return sight_s(model.card.config) + model.card.smoothing_s


def samples_before(time_s: float, first_s: float) -> int:
    """How many samples of a sound that begins at `first_s` lie before a time."""
    return max(0, math.floor((time_s - first_s + ROUNDING_S) * AUDIO_RATE_HZ))


@dataclass(frozen=True)
class VoiceWindow:
    """How much sound is encoded at once, ending at a tick; in vectors but for `hop`.

    Attributes:
        hop: samples a vector.
        length: of the sound that is encoded.
        revised: how many vectors at its end are new or computed anew.
    """

    hop: int
    length: int
    revised: int

    @classmethod
    def of(cls, encoder: AudioEncoder) -> VoiceWindow:
        """As much as the encoder's context, and at least twice what is revised."""
        revised = math.ceil(REVISED_S * encoder.rate_hz)
        length = max(math.ceil(encoder.context_s * encoder.rate_hz), 2 * revised)
        return cls(round(AUDIO_RATE_HZ / encoder.rate_hz), length, revised)


class FaceWatcher:
    """Finds the main person's face in one frame after the other, cuts it out and encodes it."""

    def __init__(self, detector: FaceDetector, encoder: VisualEncoder) -> None:
        self._follower, self._encoder = MainFace(detector), encoder

    def look(self, rgb: Image, time_s: float) -> Look | None:
        """Look at the next frame (h, w, 3); None if the main face is not in it."""
        main = self._follower.look(rgb, time_s)
        if main is None:
            return None
        try:
            pixels = crop(rgb, main.face.landmarks_px, self._encoder.size_px)
        except ValueError:  # landmarks of no face
            return None
        x, y, width, height = main.face.box_px.tolist()
        vector = self._encoder(np.stack([pixels]))[0]
        return Look(time_s, main.number, (x, y, width, height), vector)


def known_words(words: Iterable[Word], now_s: float) -> tuple[Word, ...]:
    """Those of the words that have begun and are not forgotten, by their start."""
    known = (w for w in words if w.start_s <= now_s + ROUNDING_S and w.end_s >= now_s - WORDS_S)
    return tuple(sorted(known, key=lambda word: word.start_s))


class Fusion:
    """Answers tick after tick from what is known at each.

    What face, voice and words contribute costs seven passes of the network; it is measured at every
    `WEIGHED_TICKS`, and where other modalities are observed than at the tick before.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._contributions = np.full((1, len(MODALITIES), 2), np.nan)  # when measured last
        self._observed: Mask = np.zeros((1, len(MODALITIES)), bool)  # at the tick before

    def answer(
        self,
        tick: int,
        first_tick: int,
        looks: Sequence[Look],
        heard: Sampled | None,
        speech: Sequence[SpeechSpan],
        words: Sequence[Word],
        text: Floats,
    ) -> Answer:
        """Answer the next tick.

        Args:
            tick: which; the first one that could be answered was `first_tick`.
            looks: faces up to the tick, in order.
            heard: vectors of the voice up to the tick.
            speech: where speech was heard before it.
            words: those known at the tick, with `text` (len(words), d), their vectors.
        """
        model, card, rate_hz = self._model, self._model.card, self._model.card.config.rate_hz
        now_s = tick / rate_hz
        count = min(tick - first_tick, round(memory_s(model) * rate_hz)) + 1
        ago_s = np.arange(1 - count, 1) / rate_hz
        person = [look for look in looks if look.person == looks[-1].person]
        seen = _sampled([look.time_s for look in person], [look.vector for look in person])
        features = assemble(
            now_s + ago_s,
            {m: card.config.input_width(m) for m in MODALITIES},
            _held(seen, now_s, 1 / rate_hz),
            _held(heard, now_s, 1 / rate_hz),
            speech,
            words,
            text,
        )
        features = replace(features, time_s=ago_s)  # exact, and small: networks count in float32
        observed = np.array([[features.observed[m][-1] for m in MODALITIES]])
        if tick % WEIGHED_TICKS == 1 or (observed != self._observed).any():
            series = infer(model.network, features, card.smoothing_s)
            va, self._contributions = series.va[-1:], series.contributions[-1:]
        else:
            va = answer(model.network, features, card.smoothing_s)[-1:]
        self._observed = observed
        weights = Series(ago_s[-1:], va, self._contributions).weights(observed, card.rest)
        box_px = looks[-1].box_px if looks and _holds(looks[-1].time_s, now_s) else None
        return _described(card, now_s, va, observed, weights, box_px)


def _described(
    card: ModelCard, time_s: float, va: Times, observed: Mask, weights: Times, box_px: Box | None
) -> Answer:
    """Describe the answer of one tick: arrays have one row."""
    ends = np.full((2, 1, 2), np.nan)
    low, high = ends if card.intervals is None else card.intervals.around(va, observed)
    theta, intensity = to_polar(va[:, 0], va[:, 1])
    return Answer(
        time_s=time_s,
        valence=float(va[0, 0]),
        arousal=float(va[0, 1]),
        theta=float(theta[0]),
        intensity=float(intensity[0]),
        valence_low=float(low[0, 0]),
        valence_high=float(high[0, 0]),
        arousal_low=float(low[0, 1]),
        arousal_high=float(high[0, 1]),
        visual_weight=float(weights[0, 0]),
        audio_weight=float(weights[0, 1]),
        text_weight=float(weights[0, 2]),
        has_face=bool(observed[0, 0]),
        has_speech=bool(observed[0, 1]),
        has_text=bool(observed[0, 2]),
        box_px=box_px,
        emotion=region(va[:, 0], va[:, 1])[0],
    )


def _holds(time_s: float, now_s: float) -> bool:
    return time_s >= now_s - SAMPLE_GAP_S - ROUNDING_S


def _sampled(times_s: Sequence[float], vectors: Sequence[Floats]) -> Sampled | None:
    return Sampled(np.array(times_s), np.stack(vectors)) if vectors else None


def _held(sampled: Sampled | None, now_s: float, step_s: float) -> Sampled | None:
    """Let the newest vector hold until now, unless it is older than `SAMPLE_GAP_S`."""
    if sampled is None or not len(sampled.times_s):
        return sampled
    newest_s = sampled.times_s[-1]
    if newest_s >= now_s - step_s / 2 or not _holds(newest_s, now_s):
        return sampled
    values = np.concatenate((sampled.values, sampled.values[-1:]))
    return Sampled(np.append(sampled.times_s, now_s), values)
