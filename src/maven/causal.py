"""The causal mode on a file: every tick answered from what is before it, as a live stream would be.

Whole arrays and a loop over the ticks: slower than `maven.live.Stream`, and what it is held to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maven import media
from maven.encoders.base import encode_words
from maven.faces.detect import CenterFace
from maven.features import Sampled
from maven.media import AUDIO_RATE_HZ
from maven.moment import (
    ROUNDING_S,
    VOICE_TICKS,
    Answer,
    FaceWatcher,
    Fusion,
    Look,
    VoiceWindow,
    due_s,
    known_words,
    samples_before,
    tick_from,
)
from maven.speech import SpeechDetector, SpeechSpan

if TYPE_CHECKING:
    from maven.checkpoint import Model
    from maven.encoders.base import AudioEncoder
    from maven.faces.detect import FaceDetector
    from maven.transcript import Word


def causal(
    path: Path | str,
    model: Model,
    words: Sequence[Word] = (),
    detector: FaceDetector | None = None,
) -> list[Answer]:
    """Answer every tick of a file from what is before it.

    Args:
        path: any file that PyAV decodes.
        model: what answers.
        words: what is said; a word counts from its start on.
        detector: finds the faces; CenterFace by default.

    Raises:
        MediaError, EncoderError: one line each.
    """
    info, rate_hz = media.probe(path), model.card.config.rate_hz
    looks, frames_end_s = _all_looks(info, model, detector or CenterFace())
    voice = None if info.audio is None else _Voice(info, model.encoders.audio)
    first_tick = tick_from(info.start_s, rate_hz)
    end_s = due_s(info.start_s, (frames_end_s, None if voice is None else voice.end_s))
    fusion, answers = Fusion(model), []
    for tick in range(first_tick, tick_from(end_s, rate_hz) + 1):
        now_s = tick / rate_hz
        if now_s > end_s + ROUNDING_S:
            break
        heard, speech = (None, ()) if voice is None else voice.at(tick, rate_hz)
        known = known_words(words, now_s)
        text = encode_words([word.text for word in known], model.encoders.text)
        before = [look for look in looks if look.time_s <= now_s + ROUNDING_S]
        answers.append(fusion.answer(tick, first_tick, before, heard, speech, known, text))
    return answers


def _all_looks(
    info: media.MediaInfo, model: Model, detector: FaceDetector
) -> tuple[list[Look], float | None]:
    """Look at the newest frame of every tick; also the time of the last frame."""
    follower = FaceWatcher(detector, model.encoders.visual)
    looks: list[Look | None] = []
    newest: media.Frame | None = None
    for frame in media.frames(info.path) if info.video is not None else ():
        ticks = [tick_from(f.time_s, model.card.config.rate_hz) for f in (newest or frame, frame)]
        if newest is not None and ticks[0] != ticks[1]:
            looks.append(follower.look(newest.rgb, newest.time_s))
        newest = frame
    if newest is None:
        return [], None
    looks.append(follower.look(newest.rgb, newest.time_s))
    return [look for look in looks if look is not None], newest.time_s


class _Voice:
    """A whole sound, its speech and vectors as they become known from tick to tick."""

    def __init__(self, info: media.MediaInfo, encoder: AudioEncoder) -> None:
        sound = media.read_audio(info.path)
        assert sound is not None
        self._first_s, self._samples = sound.start_s, sound.samples
        self.end_s = self._first_s + len(self._samples) / AUDIO_RATE_HZ
        self._encoder, self._window = encoder, VoiceWindow.of(encoder)
        hops = len(self._samples) // self._window.hop
        self._vectors = np.zeros((hops, encoder.width), np.float32)
        middles = np.arange(hops, dtype=np.float64) + 0.5
        self._times_s = self._first_s + middles / encoder.rate_hz
        self._speech, self._done, self._encoded = SpeechDetector(), 0, 0

    def at(self, tick: int, rate_hz: float) -> tuple[Sampled, tuple[SpeechSpan, ...]]:
        """What is known at a tick; ticks come in their order."""
        count = min(samples_before(tick / rate_hz, self._first_s), len(self._samples))
        begun_s = self._first_s + self._done / AUDIO_RATE_HZ
        self._speech.push(media.AudioBlock(begun_s, self._samples[self._done : count]))
        self._done = count
        if tick % VOICE_TICKS == 0:
            hop, stop = self._window.hop, count // self._window.hop
            start = max(0, stop - self._window.length)
            vectors = self._encoder(self._samples[start * hop : stop * hop])
            revised = max(start, stop - self._window.revised)
            self._vectors[revised:stop] = vectors[revised - start :]
            self._encoded = stop
        known = slice(0, self._encoded)
        return Sampled(self._times_s[known], self._vectors[known]), self._speech.so_far()
