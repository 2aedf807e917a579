"""Camera and microphone -> valence and arousal as they come: `Stream`.

    stream = Stream()
    stream.push_frame(rgb, time_s)      # from the camera's thread
    stream.push_audio(samples, time_s)  # from the microphone's
    stream.push_words(words)
    stream.latest()                     # from any

Nothing runs by itself: a push that completes a tick answers it before it returns. A tick is
complete once every kind of input has reached it, or is more than `PATIENCE_S` behind. Only what an
answer can depend on is kept, however long a stream lasts.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maven import media
from maven.encoders.base import encode_words
from maven.faces.detect import CenterFace
from maven.features import Sampled
from maven.media import AUDIO_RATE_HZ
from maven.moment import (
    PATIENCE_S,
    ROUNDING_S,
    VOICE_TICKS,
    WORDS_S,
    Answer,
    FaceWatcher,
    Fusion,
    Look,
    VoiceWindow,
    due_s,
    known_words,
    memory_s,
    samples_before,
    tick_from,
)
from maven.speech import SpeechDetector, SpeechSpan
from maven.transcript import Word

if TYPE_CHECKING:
    from maven.checkpoint import Model
    from maven.encoders.base import AudioEncoder
    from maven.faces.detect import FaceDetector, Image

Floats = npt.NDArray[np.float32]

MOST_TICKS = 10  # answered of those that one push completes


class Stream:
    """Live answers from a camera, a microphone and words; safe to use from several threads.

    Times are seconds on one clock of the caller's, for frames, sound and words alike.

    Args:
        model: a loaded model, or what `maven.load` takes.
        device: where a model that is not loaded yet shall run.
        detector: finds the faces; CenterFace by default.
        most_ticks: of those that one push completes, so many are answered, the last ones: fewer let
            a slow machine catch up.

    Raises:
        ModelError, EncoderError: the model cannot be had.
    """

    def __init__(
        self,
        model: Model | str | Path = "mini",
        *,
        device: str = "auto",
        detector: FaceDetector | None = None,
        most_ticks: int = MOST_TICKS,
    ) -> None:
        if most_ticks < 1:
            raise ValueError(f"most_ticks is {most_ticks}; accepted: 1 or more")
        self._most_ticks = most_ticks
        if isinstance(model, str | Path):
            from maven.checkpoint import load

            model = load(model, device=device)
        self._model, self._rate_hz = model, model.card.config.rate_hz
        self._memory_s = memory_s(model)
        self._lock = threading.Lock()
        self._first_s: float | None = None  # of the first input
        self._frame_s: float | None = None  # of the newest frame
        self._first_tick = self._next_tick = 0  # once there is an input
        self._frames: dict[int, tuple[float, Image]] = {}  # by tick: the newest until it
        self._face = FaceWatcher(detector or CenterFace(), model.encoders.visual)
        self._looks: list[Look] = []
        self._voice: _Voice | None = None
        self._words: list[Word] = []
        self._known: tuple[Word, ...] = ()
        self._text = np.zeros((0, model.encoders.text.width), np.float32)
        self._fusion = Fusion(model)
        self._latest: Answer | None = None

    def latest(self) -> Answer | None:
        """The newest answer, None before the first; never waits."""
        return self._latest

    def push_frame(self, rgb: Image, time_s: float) -> None:
        """Take in a picture.

        Args:
            rgb: (h, w, 3) uint8; it may be overwritten afterwards.
            time_s: when it was taken, later than the one before.

        Raises:
            ValueError: it is something else; the stream is as before.
        """
        picture = isinstance(rgb, np.ndarray) and rgb.dtype == np.uint8 and rgb.size > 0
        if not picture or rgb.shape[2:] != (3,):
            raise ValueError(f"a frame is (h, w, 3) uint8, got {_kind(rgb)}")
        time_s = _time(time_s)
        with self._lock:
            if self._frame_s is not None and time_s <= self._frame_s:
                raise ValueError(
                    f"a frame at {time_s:.3f} s came after the one at {self._frame_s:.3f} s"
                )
            self._frame_s = time_s
            self._begin(time_s)
            tick = max(tick_from(time_s, self._rate_hz), self._next_tick)
            self._frames[tick] = time_s, rgb.copy()
            self._answer()

    def push_audio(self, samples: Floats, time_s: float) -> None:
        """Take in a piece of sound; pieces join.

        A piece that begins up to `PATIENCE_S` off the end of the one before follows it directly:
        clocks are not that exact. A longer gap counts as silence.

        Args:
            samples: (n,) float32, mono, 16 kHz, full scale +-1.
            time_s: of the first one.

        Raises:
            ValueError: it is something else, or begins before the end of the piece before it; the
                stream is as before.
        """
        sound = isinstance(samples, np.ndarray) and samples.dtype == np.float32
        if not sound or samples.ndim != 1:
            raise ValueError(f"sound is (n,) float32 at 16 kHz, got {_kind(samples)}")
        if not np.isfinite(samples).all():
            raise ValueError("sound has samples that are no finite numbers")
        time_s = _time(time_s)
        with self._lock:
            end_s = time_s if self._voice is None else self._voice.end_s
            if time_s < end_s - PATIENCE_S - ROUNDING_S:
                raise ValueError(f"sound at {time_s:.3f} s came after what ends at {end_s:.3f} s")
            if not len(samples):
                return
            if self._voice is None or time_s > end_s + self._memory_s:
                self._voice = _Voice(self._model.encoders.audio, time_s)
            elif time_s > end_s + PATIENCE_S:
                silence = np.zeros(round((time_s - end_s) * AUDIO_RATE_HZ), np.float32)
                self._voice.push(silence)
            self._voice.push(samples)
            self._begin(time_s)
            self._answer()

    def push_words(self, words: Iterable[Word]) -> None:
        """Take in words, in any order and as late as they are recognised.

        They count from their start on, and from the next tick on where that has passed.

        Raises:
            ValueError: something that is no `maven.transcript.Word`, or a word without length; the
                stream is as before.
        """
        added = list(words)
        for word in added:
            if not isinstance(word, Word):
                raise ValueError(f"words are maven.transcript.Word, got {_kind(word)}")
            if not -math.inf < word.start_s < word.end_s < math.inf:
                raise ValueError(
                    f"the word {word.text!r} goes from {word.start_s} s to {word.end_s} s"
                )
        with self._lock:
            self._words += added

    def _begin(self, time_s: float) -> None:
        """Note when the input began: each kind of it may come late at first."""
        if self._first_s is not None and self._first_s <= time_s:
            return
        self._first_s, self._first_tick = time_s, tick_from(time_s, self._rate_hz)
        if self._latest is None:
            self._next_tick = self._first_tick

    def _answer(self) -> None:
        """Answer the ticks that are complete."""
        assert self._first_s is not None
        heard_s = None if self._voice is None else self._voice.end_s
        end_s = due_s(self._first_s, (self._frame_s, heard_s))
        stop = math.floor((end_s + ROUNDING_S) * self._rate_hz) + 1
        if stop <= self._next_tick:
            return
        for tick in range(max(self._next_tick, stop - self._most_ticks), stop):
            self._observe(tick)
            self._latest = self._answered(tick)
            self._next_tick = tick + 1

    def _observe(self, tick: int) -> None:
        """Look at the newest frame until a tick, and listen to the sound before it."""
        since_s = tick / self._rate_hz - self._memory_s - 1 / self._rate_hz
        ready = [each for each in self._frames if each <= tick]
        newest = max((self._frames.pop(each) for each in ready), default=None, key=lambda f: f[0])
        if newest is not None:
            time_s, rgb = newest
            look = self._face.look(rgb, time_s)
            self._looks = [each for each in self._looks if each.time_s >= since_s]
            if look is not None:
                self._looks.append(look)
        if self._voice is not None:
            self._voice.listen(tick / self._rate_hz, tick % VOICE_TICKS == 0, since_s)

    def _answered(self, tick: int) -> Answer:
        now_s = tick / self._rate_hz
        self._words = [word for word in self._words if word.end_s >= now_s - WORDS_S]
        known = known_words(self._words, now_s)
        if known != self._known:
            text = encode_words([word.text for word in known], self._model.encoders.text)
            self._known, self._text = known, text
        heard, speech = (None, ()) if self._voice is None else self._voice.known()
        return self._fusion.answer(
            tick, self._first_tick, self._looks, heard, speech, known, self._text
        )


class _Voice:
    """The last part of a sound that goes on: samples, speech and vectors."""

    def __init__(self, encoder: AudioEncoder, first_s: float) -> None:
        self._encoder, self._first_s = encoder, first_s
        self._window = VoiceWindow.of(encoder)
        self._samples = np.zeros(0, np.float32)
        self._forgotten = 0  # samples before them
        self._indices = np.zeros(0, np.int64)  # of the vectors, counted from the first sample on
        self._vectors = np.zeros((0, encoder.width), np.float32)
        self._speech = SpeechDetector()
        self._spans: tuple[SpeechSpan, ...] = ()
        self._listened = 0  # samples in which speech was looked for

    @property
    def end_s(self) -> float:
        """Where the sound ends by now."""
        return self._first_s + (self._forgotten + len(self._samples)) / AUDIO_RATE_HZ

    def push(self, samples: Floats) -> None:
        """Join a piece."""
        self._samples = np.concatenate((self._samples, samples))

    def listen(self, now_s: float, encode: bool, since_s: float) -> None:
        """Find speech in what lies before now, encode its end if asked, and forget what is old."""
        pushed = self._forgotten + len(self._samples)
        count = min(samples_before(now_s, self._first_s), pushed)
        begun_s = self._first_s + self._listened / AUDIO_RATE_HZ
        self._speech.push(media.AudioBlock(begun_s, self._part(self._listened, count)))
        self._spans, self._listened = self._speech.so_far(since_s), count
        hop, stop = self._window.hop, count // self._window.hop
        start = max(0, stop - self._window.length)
        if encode:
            vectors = self._encoder(self._part(start * hop, stop * hop))
            revised = max(start, stop - self._window.revised)
            oldest = (since_s - self._first_s) * self._encoder.rate_hz
            kept = (self._indices >= oldest) & (self._indices < revised)
            self._indices = np.append(self._indices[kept], np.arange(revised, stop))
            self._vectors = np.append(self._vectors[kept], vectors[revised - start :], 0)
        self._samples = self._part(start * hop, pushed).copy()
        self._forgotten = start * hop

    def known(self) -> tuple[Sampled, tuple[SpeechSpan, ...]]:
        """Vectors and speech as of the last tick listened to."""
        middles = self._indices.astype(np.float64) + 0.5
        return Sampled(self._first_s + middles / self._encoder.rate_hz, self._vectors), self._spans

    def _part(self, start: int, stop: int) -> Floats:
        return self._samples[start - self._forgotten : stop - self._forgotten]


def _time(time_s: float) -> float:
    if not (isinstance(time_s, int | float | np.number) and math.isfinite(time_s)):
        raise ValueError(f"a time is a finite number of seconds, got {time_s!r}")
    return float(time_s)


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return type(value).__name__
