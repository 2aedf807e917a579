"""The live stream: what it refuses, what it forgets, when it answers."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from live_fakes import PixelDetector, fake_model, frame
from maven.features import SAMPLE_GAP_S
from maven.live import Stream
from maven.moment import PATIENCE_S, WEIGHED_TICKS, Answer
from maven.speech import SileroVad
from maven.transcript import Word

RATE_HZ = 16_000
PIECE = 480  # samples: 30 ms


@pytest.fixture(autouse=True)
def loud_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is taken for speech, and silence for silence."""

    def probabilities(vad: object, chunks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return (np.abs(chunks).max(1, initial=0) > 0.01).astype(np.float32)

    monkeypatch.setattr(SileroVad, "probabilities", probabilities)


def stream(**settings: float) -> Stream:
    return Stream(fake_model(**settings), detector=PixelDetector())


def noise(seconds: float, seed: int = 0) -> npt.NDArray[np.float32]:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE_HZ))
    return samples.astype(np.float32)


def feed(to: Stream, start_s: float, end_s: float, origin_s: float = 0.0) -> list[Answer]:
    """Push frames at 25 a second and 30 ms of noise after the other; return the answers."""
    sound, answers = noise(math.ceil(end_s) + 1), []
    events = [(k / 25, "frame", k) for k in range(round(start_s * 25), round(end_s * 25))]
    first, last = (round(time_s * RATE_HZ / PIECE) for time_s in (start_s, end_s))
    events += [((k + 1) * PIECE / RATE_HZ, "sound", k) for k in range(first, last)]
    for time_s, kind, k in sorted(events):
        if kind == "frame":
            to.push_frame(frame(k % 250), time_s + origin_s)
        else:
            piece = sound[k * PIECE : (k + 1) * PIECE]
            to.push_audio(piece, k * PIECE / RATE_HZ + origin_s)
        answer = to.latest()
        if answer is not None and (not answers or answers[-1].time_s != answer.time_s):
            answers.append(answer)
    return answers


def words(*starts_s: float) -> list[Word]:
    return [Word(f"w{k}" * (k + 1), s, s + 0.2, 0, None) for k, s in enumerate(starts_s)]


def test_nothing_is_answered_before_there_is_input() -> None:
    live = stream()
    assert live.latest() is None
    live.push_words(words(0.0))
    assert live.latest() is None


def test_every_tick_is_answered_once_in_order() -> None:
    answers = feed(stream(), 0.0, 3.0)
    assert [a.time_s for a in answers] == pytest.approx(np.arange(30) / 10)
    assert all(a.has_face for a in answers)
    assert all(a.box_px == (5, 5, 100, 100) for a in answers)
    for a in answers:
        assert math.hypot(a.valence, a.arousal) == pytest.approx(a.intensity)
        assert a.visual_weight + a.audio_weight + a.text_weight == pytest.approx(1)


def test_a_tick_waits_for_the_other_input_but_not_for_long() -> None:
    live = stream()
    live.push_frame(frame(10), 0.0)
    live.push_audio(noise(0.05), 0.0)
    times_s = []
    for k in range(1, 11):
        live.push_frame(frame(10), k / 20)
        latest = live.latest()
        times_s.append(latest.time_s if latest else None)
    # the sound ends at 0.05 s: it is waited for up to PATIENCE_S, then no longer
    expected = [0.0 if k / 20 <= 0.05 + PATIENCE_S + 1e-9 else k // 2 / 10 for k in range(1, 11)]
    assert times_s == expected


def test_a_camera_alone_is_enough_and_so_is_a_microphone() -> None:
    seen, heard = stream(), stream()
    for k in range(50):
        seen.push_frame(frame(k), k / 25)
        heard.push_audio(noise(0.04, k), k / 25)
    last = seen.latest()
    assert last is not None
    assert (last.time_s, last.has_face, last.has_speech) == (1.9, True, False)
    assert last.visual_weight == 1
    last = heard.latest()
    assert last is not None
    assert (last.time_s, last.has_face, last.box_px) == (2.0, False, None)


def test_where_nothing_is_observed_there_is_no_answer() -> None:
    live = stream()
    live.push_frame(frame(10, face=False), 0.0)
    live.push_frame(frame(10, face=False), 0.5)
    answer = live.latest()
    assert answer is not None
    assert answer.emotion is None
    assert answer.box_px is None
    numbers = [value for value in asdict(answer).values() if isinstance(value, float)]
    assert len(numbers) == 12
    assert [math.isnan(value) for value in numbers] == [False] + [True] * 11


def test_a_face_holds_for_a_moment_only() -> None:
    live, held = stream(), []
    for k in range(10):
        live.push_frame(frame(10, face=k == 3), k / 10)
        live.push_audio(np.zeros(RATE_HZ // 10, np.float32), k / 10)
        answer = live.latest()
        assert answer is not None
        assert answer.time_s == k / 10
        assert answer.has_face == (answer.box_px is not None)
        held.append(answer.has_face)
    assert [k for k in range(10) if held[k]] == [3, 4, 5]
    assert SAMPLE_GAP_S == 0.25


def test_one_frame_a_tick_is_looked_at_the_newest() -> None:
    detector = PixelDetector()
    live = Stream(fake_model(), detector=detector)
    for k in range(101):
        live.push_frame(frame(k), k / 100)
    assert detector.calls == 11
    seldom = Stream(fake_model(), detector=PixelDetector())
    for k in range(0, 101, 10):  # only those that were looked at
        seldom.push_frame(frame(k), k / 100)
    assert seldom.latest() == live.latest()


def test_of_many_ticks_at_once_only_the_last_are_answered() -> None:
    seen: list[int] = []
    live = Stream(fake_model(), detector=PixelDetector(), most_ticks=2)
    live._observe = seen.append  # type: ignore[method-assign]
    live.push_audio(noise(2.05), 0.0)
    assert seen == [19, 20]
    with pytest.raises(ValueError, match="most_ticks is 0; accepted: 1 or more"):
        Stream(fake_model(), most_ticks=0)


def test_pushed_arrays_may_be_overwritten() -> None:
    ours, theirs = stream(), stream()
    rgb, samples = frame(0), noise(0.04)
    for k in range(50):
        rgb[:], samples[:] = frame(5 * k), noise(0.04, k)
        ours.push_audio(samples, k / 25)
        ours.push_frame(rgb, k / 25 + 0.04)
        theirs.push_audio(samples.copy(), k / 25)
        theirs.push_frame(rgb.copy(), k / 25 + 0.04)
        rgb[:], samples[:] = 77, 0.5
    assert ours.latest() == theirs.latest()


def test_late_words_take_part_as_if_they_had_been_there() -> None:
    early, late = stream(), stream()
    early.push_words(words(0.5, 1.0, 1.5))
    assert [a.has_text for a in feed(early, 0.0, 2.0)].index(True) == 5
    assert not any(a.has_text for a in feed(late, 0.0, 2.0))
    late.push_words(reversed(words(0.5, 1.0, 1.5)))
    ours, theirs = feed(late, 2.0, 2.8), feed(early, 2.0, 2.8)
    assert [(a.valence, a.arousal) for a in ours] == [(a.valence, a.arousal) for a in theirs]
    assert ours[WEIGHED_TICKS:] == theirs[WEIGHED_TICKS:] != []


def test_words_to_come_change_nothing() -> None:
    without, announced = stream(), stream()
    announced.push_words(words(1.0))
    ours, theirs = feed(without, 0.0, 2.0), feed(announced, 0.0, 2.0)
    assert ours[:10] == theirs[:10]
    assert ours[10] != theirs[10]


def test_the_clock_may_begin_anywhere() -> None:
    now_s = 1.79e9  # as time.time() says
    near, far = feed(stream(), 0.0, 3.0), feed(stream(), 0.0, 3.0, now_s)
    assert len(near) == len(far)
    for a, b in zip(near, far, strict=True):
        assert b.time_s - now_s == pytest.approx(a.time_s, abs=1e-6)
        assert (a.has_face, a.has_speech) == (b.has_face, b.has_speech)
        assert (b.valence, b.arousal) == pytest.approx((a.valence, a.arousal), abs=1e-4)


def test_a_short_gap_in_the_sound_is_silence_and_after_a_long_one_it_begins_anew() -> None:
    filled, gap = stream(), stream()
    for live, quiet in ((filled, True), (gap, False)):
        live.push_audio(noise(1.0), 0.0)
        if quiet:
            live.push_audio(np.zeros(RATE_HZ // 2, np.float32), 1.0)
        live.push_audio(noise(0.4, 1), 1.5)
    assert filled.latest() == gap.latest()
    anew = stream()
    gap.push_audio(noise(1.0, 2), 1000.0)
    anew.push_audio(noise(1.0, 2), 1000.0)
    ours, theirs = gap.latest(), anew.latest()
    assert ours is not None
    assert theirs is not None
    assert ours.time_s == theirs.time_s == 1001.0


def test_clocks_that_disagree_a_little_join() -> None:
    exact, shaky = stream(), stream()
    for k in range(100):
        off_s = 0.15 * math.sin(k) if k else 0
        exact.push_audio(noise(0.05, k), k / 20)
        shaky.push_audio(noise(0.05, k), k / 20 + off_s)
    assert exact.latest() == shaky.latest()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.push_frame(frame(0).astype(np.float32), 9.0), "got (112, 112, 3) float32"),
        (lambda s: s.push_frame(frame(0)[..., 0], 9.0), "got (112, 112) uint8"),
        (lambda s: s.push_frame(frame(0)[:0], 9.0), "got (0, 112, 3) uint8"),
        (lambda s: s.push_frame(frame(0).tolist(), 9.0), "got list"),
        (lambda s: s.push_frame(frame(0), math.nan), "finite number of seconds, got nan"),
        (lambda s: s.push_frame(frame(0), "now"), "finite number of seconds, got 'now'"),
        (lambda s: s.push_frame(frame(0), 1.96), "a frame at 1.960 s came after the one at 1.960"),
        (lambda s: s.push_frame(frame(0), -1.0), "a frame at -1.000 s came after"),
        (lambda s: s.push_audio(noise(0.1).astype(np.float64), 2.0), "got (1600,) float64"),
        (lambda s: s.push_audio(noise(0.1)[:, None], 2.0), "got (1600, 1) float32"),
        (lambda s: s.push_audio(np.full(9, np.nan, np.float32), 2.0), "no finite numbers"),
        (lambda s: s.push_audio(noise(0.1), math.inf), "finite number of seconds, got inf"),
        (lambda s: s.push_audio(noise(0.1), 1.5), "sound at 1.500 s came after what ends at 2.0"),
        (lambda s: s.push_words(["hello"]), "words are maven.transcript.Word, got str"),
        (lambda s: s.push_words([Word("a", 1.0, 1.0, 0, None)]), "the word 'a' goes from 1.0 s"),
        (lambda s: s.push_words([Word("a", 0.0, math.nan, 0, None)]), "to nan s"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(call: Any, message: str) -> None:
    ours, theirs = stream(), stream()
    feed(ours, 0.0, 2.0)
    feed(theirs, 0.0, 2.0)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call(ours)
    assert "\n" not in str(caught.value)
    assert feed(ours, 2.0, 3.0) == feed(theirs, 2.0, 3.0)


def test_an_hour_leaves_no_more_behind_than_a_minute() -> None:
    live = stream(rate_hz=0.5, radius_s=1.0)
    loud, quiet, sizes = noise(2.0), np.zeros(2 * RATE_HZ, np.float32), []
    for k in range(0, 3600, 2):
        live.push_audio(quiet if k % 3 == 1 else loud, float(k))
        live.push_frame(frame(k % 250), k + 0.5)
        live.push_words([Word("word", k + 0.2, k + 0.6, k, None)])
        if k % 60 == 58:
            sizes.append(_size(vars(live), set()))
    last = live.latest()
    assert last is not None
    assert (last.time_s, last.has_face, last.has_speech) == (3600, False, False)
    assert set(sizes[1:]) == {sizes[1]}


def _size(value: Any, counted: set[int]) -> tuple[int, int]:
    """Bytes of all arrays, and items of all containers, in all that a stream holds."""
    if id(value) in counted:
        return 0, 0
    counted.add(id(value))
    if isinstance(value, np.ndarray):
        return value.nbytes, 0
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    sizes = [_size(part, counted) for part in parts]
    return sum(size for size, _ in sizes), len(parts) + sum(count for _, count in sizes)


def test_camera_microphone_and_reader_may_be_threads() -> None:
    live, errors, read = stream(), list[Exception](), list[float]()
    done = threading.Event()

    def guarded(run: Any) -> threading.Thread:
        def call() -> None:
            try:
                run()
            except Exception as error:
                errors.append(error)

        return threading.Thread(target=call)

    def camera() -> None:
        for k in range(250):
            live.push_frame(frame(k), k / 25)

    def microphone() -> None:
        for k in range(250):
            live.push_audio(noise(0.04, k), k / 25)

    def reader() -> None:
        while not done.is_set():
            answer = live.latest()
            if answer is not None:
                read.append(answer.time_s)

    watching, pushing = guarded(reader), [guarded(camera), guarded(microphone)]
    for thread in (watching, *pushing):
        thread.start()
    for thread in pushing:
        thread.join()
    done.set()
    watching.join()
    assert not errors
    assert read == sorted(read)
    last = live.latest()
    assert last is not None
    assert last.time_s >= 9.9
