"""The causal run of a file, and that a live stream of the same gives the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live_fakes import PixelDetector, fake_model, frame
from maven.causal import causal
from maven.checkpoint import Model, load
from maven.live import Stream
from maven.media import AUDIO_RATE_HZ, AudioBlock, Frame, frames, read_audio
from maven.moment import PATIENCE_S, Answer
from maven.transcript import Word
from media_factory import tone, write_clip
from toy_mini import save_toy_mini

SAID = "I am so happy to be here . It is not bad at all , really ."
LATE_S = 0.08  # of either input
LONGEST = 1600  # samples of a piece


def said(start_s: float = 0.3) -> list[Word]:
    return [
        Word(text, start_s + 0.3 * k, start_s + 0.3 * k + 0.25, k // 8, None)
        for k, text in enumerate(SAID.split())
    ]


def pushed(
    model: Model,
    pictures: Sequence[Frame],
    sound: AudioBlock | None,
    sizes: Sequence[int],
    late_s: Sequence[float],
) -> list[Answer]:
    """Feed a stream: pieces of sound and frames in the order of times with some lateness."""
    live = Stream(model)
    live.push_words(said())
    events: list[tuple[float, int, int, int]] = []  # when, kind, first, last + 1
    start, samples = 0, np.zeros(0, np.float32) if sound is None else sound.samples
    while start < len(samples):
        stop = min(start + sizes[len(events) % len(sizes)], len(samples))
        assert sound is not None
        end_s = sound.start_s + stop / AUDIO_RATE_HZ
        events.append((end_s, 1, start, stop))
        start = stop
    events += [(picture.time_s, 0, k, k + 1) for k, picture in enumerate(pictures)]
    latest_s = [0.0, 0.0]
    order = []
    for k, (time_s, kind, first, last) in enumerate(sorted(events)):
        latest_s[kind] = max(latest_s[kind], time_s + late_s[k % len(late_s)])
        order.append((latest_s[kind], k, kind, first, last))
    answers: list[Answer] = []
    for _, _, kind, first, last in sorted(order):
        if kind == 0:
            live.push_frame(pictures[first].rgb, pictures[first].time_s)
        else:
            assert sound is not None
            live.push_audio(samples[first:last], sound.start_s + first / AUDIO_RATE_HZ)
        answer = live.latest()
        if answer is not None and (not answers or answer.time_s != answers[-1].time_s):
            answers.append(answer)
    return answers


def check_equal(ours: Sequence[Answer], whole: Sequence[Answer], tolerance: float = 1e-5) -> None:
    """Compare answers with those of the same ticks."""
    by_time = {answer.time_s: answer for answer in whole}
    for answer in ours:
        other = asdict(by_time[answer.time_s])
        for name, value in asdict(answer).items():
            if isinstance(value, float):
                assert value == pytest.approx(other[name], abs=tolerance, nan_ok=True), name
            elif name == "box_px" and value is not None:
                assert value == pytest.approx(other[name], abs=1e-3)
            elif name != "emotion":  # it may change where valence and arousal are on an edge
                assert value == other[name], name


def test_a_stream_gives_the_answers_of_the_file(clips_dir: Path) -> None:
    path, model = clips_dir / "talk_face1_22fps.mp4", load("mini", device="cpu")
    whole = causal(path, model, said())
    assert [a.time_s for a in whole] == pytest.approx(np.arange(61) / 10)
    ours = pushed(model, list(frames(path)), read_audio(path), [640], [0.0])
    assert [a.time_s for a in ours] == [a.time_s for a in whole]
    check_equal(ours, whole)
    for name in ("has_face", "has_speech", "has_text"):
        assert 10 < sum(getattr(answer, name) for answer in whole) <= 61
    weights = [(a.visual_weight, a.audio_weight, a.text_weight) for a in whole[1:]]
    assert np.sum(weights, 1) == pytest.approx(1)


@cache
def grid_clip(path: Path) -> tuple[tuple[Frame, ...], AudioBlock | None]:
    return tuple(frames(path)), read_audio(path)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(save_toy_mini(tmp_path_factory.mktemp("toy")), device="cpu")


@pytest.fixture(scope="module")
def grid_answers(toy: Model, clips_dir: Path) -> list[Answer]:
    return causal(clips_dir / "grid_s1_bbaf2n.mpg", toy, said())


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(50, LONGEST), min_size=1, max_size=20),
    late_s=st.lists(st.floats(0, LATE_S), min_size=1, max_size=20),
)
def test_whatever_the_pieces_and_their_order_the_answers_are_the_same(
    toy: Model,
    clips_dir: Path,
    grid_answers: list[Answer],
    sizes: list[int],
    late_s: list[float],
) -> None:
    assert LATE_S + LONGEST / AUDIO_RATE_HZ < PATIENCE_S
    pictures, sound = grid_clip(clips_dir / "grid_s1_bbaf2n.mpg")
    ours = pushed(toy, pictures, sound, sizes, late_s)
    assert len(ours) >= len(grid_answers) / 2  # one push may answer several
    assert ours[-1].time_s == grid_answers[-1].time_s
    check_equal(ours, grid_answers)


def test_a_file_that_is_cut_off_there_gives_the_same_up_to_there(tmp_path: Path) -> None:
    """What comes later changes nothing: two files that differ after a second."""
    answers = []
    for name, level, pitch_hz in (("one", 40, 200), ("other", 200, 900)):
        levels = [100 if k < 25 else level for k in range(50)]
        sound = np.concatenate((tone(440, 1.0, 16_000), tone(pitch_hz, 1.0, 16_000)), 1)
        path = write_clip(
            tmp_path / f"{name}.mkv",
            frame_times_s=[k / 25 for k in range(50)],
            pictures=[frame(each) for each in levels],
            video_codec="ffv1",
            pixel_format="bgr0",
            sound=sound,
            sound_rate_hz=16_000,
            sound_codec="flac",
        )
        answers.append(causal(path, fake_model(), said(), PixelDetector()))
    one, other = answers
    assert len(one) == len(other) == 20
    assert all(a.has_face for a in one)
    assert one[:10] == other[:10]
    assert all(a != b for a, b in zip(one[11:], other[11:], strict=True))


def test_a_file_without_picture_or_without_sound_is_answered(tmp_path: Path) -> None:
    heard = write_clip(
        tmp_path / "sound.flac", sound=tone(300, 1.0, 16_000), sound_rate_hz=16_000,
        sound_codec="flac",
    )  # fmt: skip
    seen = write_clip(
        tmp_path / "seen.mkv", frame_times_s=[k / 25 for k in range(25)],
        pictures=[frame(90)] * 25, video_codec="ffv1", pixel_format="bgr0",
    )  # fmt: skip
    model, detector = fake_model(), PixelDetector()
    answers = causal(heard, model, (), detector)
    assert [a.time_s for a in answers] == pytest.approx(np.arange(11) / 10)
    assert not any(a.has_face for a in answers)
    answers = causal(seen, model, (), detector)
    assert [a.time_s for a in answers] == pytest.approx(np.arange(10) / 10)
    assert all(a.has_face and a.visual_weight == 1 for a in answers)
