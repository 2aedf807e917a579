"""The rules of the causal mode, each against a plain way of saying the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_fakes import PixelDetector, fake_model, frame
from maven.config import MODALITIES
from maven.faces.detect import Detection
from maven.features import Sampled, assemble
from maven.inference import Series, infer
from maven.media import AudioBlock, read_audio
from maven.moment import (
    PATIENCE_S,
    WORDS_S,
    FaceWatcher,
    Fusion,
    Look,
    VoiceWindow,
    due_s,
    known_words,
    memory_s,
    tick_from,
)
from maven.speech import PAD_S, SpeechDetector, SpeechSpan
from maven.transcript import Word

RATE_HZ = 10.0


@given(st.integers(-1000, 10**8), st.floats(0, 0.0999))
def test_a_time_belongs_to_the_first_tick_at_or_after_it(tick: int, before_s: float) -> None:
    if before_s < 1e-5:
        before_s = 0.0
    assert tick_from(tick / RATE_HZ - before_s, RATE_HZ) == tick


@given(st.floats(0, 1e4), st.floats(0, 10))
def test_inputs_wait_for_one_another_within_patience(at_s: float, behind_s: float) -> None:
    due = due_s(0.0, (at_s, at_s + behind_s))
    assert due in (at_s, at_s + behind_s)
    if abs(behind_s - PATIENCE_S) > 1e-6:
        assert (due == at_s) == (behind_s < PATIENCE_S or behind_s == 0)


def test_an_input_that_never_came_is_waited_for_at_the_beginning() -> None:
    assert due_s(5.0, (5.0, None)) < 5.0
    assert due_s(5.0, (5.0 + PATIENCE_S / 2, None)) < 5.0
    assert due_s(5.0, (None, 5.3)) == 5.3


def test_words_are_known_from_their_start_on_until_they_are_long_over() -> None:
    words = [Word(str(k), k * 1.0, k + 0.5, 0, None) for k in range(100)]
    for now_s in (0.0, 0.99, 1.0, 50.2, 200.0):
        known = known_words(reversed(words), now_s)
        assert known == tuple(w for w in words if w.start_s <= now_s and now_s - w.end_s <= WORDS_S)


def test_speech_so_far_is_that_of_a_recording_that_ends_there(clips_dir: Path) -> None:
    sound = read_audio(clips_dir / "talk_address_woman_512.mp4")
    assert sound is not None
    samples, going_on = sound.samples[: 8 * 16_000], SpeechDetector()
    some = 0
    for start in range(0, len(samples), 2048):  # whole chunks: no silence is added at an end
        part = samples[start : start + 2048]
        going_on.push(AudioBlock(sound.start_s + start / 16_000, part))
        stop = start + len(part)
        if stop % 512 or start % 4096:
            continue
        ended = SpeechDetector()
        ended.push(AudioBlock(sound.start_s, samples[:stop]))
        spans, end_s = ended.finish(), sound.start_s + stop / 16_000
        found = going_on.so_far()
        assert [span.start_s for span in found] == pytest.approx([s.start_s for s in spans])
        for span, other in zip(found, spans, strict=True):
            assert min(span.end_s, end_s) == pytest.approx(other.end_s)
            assert span.end_s <= end_s + PAD_S + 1e-9
        some += len(found)
    assert some > 10
    everything = going_on.so_far()
    assert going_on.so_far(since_s=1e9)[:-1] == ()
    assert len(everything) >= 1


def test_an_answer_depends_on_the_memory_and_nothing_older() -> None:
    """A tick in its short window, against the whole past inferred at once."""
    model, random = fake_model(), np.random.default_rng(0)
    ticks = 60
    assert memory_s(model) < 2
    times_s = np.arange(ticks) / RATE_HZ
    looks = [
        Look(float(t), 1, (0.0, 0.0, 1.0, 1.0), random.uniform(size=2).astype(np.float32))
        for t in times_s
        if random.uniform() < 0.6
    ]
    voice_s = np.arange(round(ticks / RATE_HZ * 25)) / 25
    voice = random.uniform(size=(len(voice_s), 2)).astype(np.float32)
    speech = [SpeechSpan(0.35, 2.22), SpeechSpan(2.61, 9.0)]
    words = [Word("one", 0.5, 1.1, 0, None), Word("word", 4.0, 4.4, 1, None)]
    text = random.uniform(size=(2, 1)).astype(np.float32)
    widths = {m: model.card.config.input_width(m) for m in MODALITIES}
    for tick in range(5, ticks):
        now_s = tick / RATE_HZ
        seen = [look for look in looks if look.time_s <= now_s]
        heard = Sampled(voice_s[voice_s <= now_s], voice[voice_s <= now_s])
        known = [w for w in words if w.start_s <= now_s]
        answer = Fusion(model).answer(tick, 0, seen, heard, speech, known, text[: len(known)])
        faces = Sampled(
            np.array([look.time_s for look in seen]), np.stack([look.vector for look in seen])
        )
        whole = assemble(
            times_s[: tick + 1], widths, faces, heard, speech, known, text[: len(known)]
        )
        if not whole.observed["visual"][-1] and now_s - seen[-1].time_s <= 0.25:
            assert answer.has_face  # it holds; the plain way knows nothing of that
            continue
        series = infer(model.network, whole, model.card.smoothing_s)
        observed = np.stack([whole.observed[m] for m in MODALITIES], 1)
        assert [answer.has_face, answer.has_speech, answer.has_text] == observed[-1].tolist()
        assert [answer.valence, answer.arousal] == pytest.approx(
            series.va[-1], abs=1e-6, nan_ok=True
        )
        weights = [answer.visual_weight, answer.audio_weight, answer.text_weight]
        assert weights == pytest.approx(series.weights(observed)[-1], abs=1e-6, nan_ok=True)
        if observed[-1].any():
            low, high = model.card.intervals.around(series.va, observed)  # type: ignore[union-attr]
            ends = [
                answer.valence_low,
                answer.arousal_low,
                answer.valence_high,
                answer.arousal_high,
            ]
            assert ends == pytest.approx([*low[-1], *high[-1]], abs=1e-6)


def test_another_person_begins_with_an_empty_past() -> None:
    model = fake_model()
    box = (0.0, 0.0, 1.0, 1.0)

    def look(k: int, person: int) -> Look:
        return Look(k / 10, person, box, np.full(2, (k + 1) / 20, np.float32))

    one = [look(k, 1) for k in range(8)]
    other = [look(k, 2) for k in range(8, 11)]
    nobody = np.zeros((0, 1), np.float32)
    switched = Fusion(model).answer(10, 0, one + other, None, (), (), nobody)
    alone = Fusion(model).answer(10, 0, other, None, (), (), nobody)
    assert switched == alone
    same = one + [look(k, 1) for k in (8, 9, 10)]
    assert switched != Fusion(model).answer(10, 0, same, None, (), (), nobody)


def test_weights_are_measured_now_and_then_and_when_something_else_is_observed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = list[int]()

    def counted(*given: Any) -> Series:
        measured.append(tick)
        return infer(*given)

    monkeypatch.setattr("maven.moment.infer", counted)
    model, nobody = fake_model(), np.zeros((0, 1), np.float32)
    fusion, plain, looks = Fusion(model), [], list[Look]()
    for tick in range(30):
        if tick < 14 or tick > 20:
            looks.append(Look(tick / 10, 1, (0.0, 0.0, 1.0, 1.0), np.full(2, 0.1, np.float32)))
        plain.append(fusion.answer(tick, 0, looks, None, (), (), nobody))
    assert measured == [0, 1, 7, 13, 16, 19, 21, 25]  # the face holds until tick 15
    assert [a.visual_weight == 1 for a in plain] == [a.has_face for a in plain]


def test_landmarks_of_no_face_are_no_look() -> None:
    class Degenerate(PixelDetector):
        def __call__(self, rgb: np.ndarray) -> list[Detection]:
            return [
                Detection(f.box_px, np.zeros((5, 2), np.float32), 0.9)
                for f in super().__call__(rgb)
            ]

    encoder = fake_model().encoders.visual
    assert FaceWatcher(Degenerate(), encoder).look(frame(9), 0.0) is None
    look = FaceWatcher(PixelDetector(), encoder).look(frame(51), 0.0)
    assert look is not None
    assert look.vector == pytest.approx([0.2, 0.04], abs=1e-3)


def test_a_window_of_sound_is_an_encoders_context() -> None:
    encoder = fake_model().encoders.audio
    window = VoiceWindow.of(encoder)
    assert (window.hop, window.length) == (640, 100)  # its context of 1 s is shorter than needed
    assert math.isclose(window.revised / encoder.rate_hz, 2.0)
