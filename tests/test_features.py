"""What goes where when frames, hops and words meet on one grid."""

from __future__ import annotations

import numpy as np
import pytest

from maven.config import MODALITIES
from maven.features import Features, Sampled, assemble
from maven.speech import SpeechSpan
from maven.timeline import place_samples, place_words, uniform_grid
from maven.transcript import Word

WIDTHS = {"visual": 4, "audio": 3, "text": 2}
WORDS = (Word("Well,", 2.0, 2.4, 0), Word("yes.", 2.6, 3.0, 0), Word("No.", 7.0, 7.5, 1))


def sampled(start_s: float, end_s: float, rate_hz: float, width: int) -> Sampled:
    """Features that say when they were taken: every column is the time."""
    times_s = uniform_grid(start_s, end_s, rate_hz)
    return Sampled(times_s, np.repeat(times_s[:, None], width, 1).astype(np.float32))


def spoken(offset_s: float = 0.0) -> tuple[Word, ...]:
    return tuple(Word(w.text, w.start_s + offset_s, w.end_s + offset_s, w.segment) for w in WORDS)


def full(offset_s: float = 0.0) -> Features:
    """A face from 1 s to 6 s, sound throughout, speech at 2-3 s and 7-8 s, three words."""
    return assemble(
        uniform_grid(offset_s, offset_s + 10, 10),
        WIDTHS,
        sampled(offset_s + 1, offset_s + 6, 25, 4),
        sampled(offset_s, offset_s + 10, 50, 3),
        [SpeechSpan(offset_s + 2, offset_s + 3), SpeechSpan(offset_s + 7, offset_s + 8)],
        spoken(offset_s),
        np.arange(6, dtype=np.float32).reshape(3, 2),
    )


def spans(features: Features, modality: str) -> list[tuple[float, float]]:
    """First and last observed time of every unbroken stretch, rounded."""
    edges = np.flatnonzero(np.diff(np.pad(features.observed[modality].astype(int), 1)))
    times_s = features.time_s
    return [
        (round(float(times_s[a]), 3), round(float(times_s[b - 1]), 3))
        for a, b in edges.reshape(-1, 2)
    ]


def test_each_modality_is_observed_where_it_was() -> None:
    features = full()
    assert spans(features, "visual") == [(1.0, 6.0)]
    assert spans(features, "audio") == [(2.0, 2.9), (7.0, 7.9)]
    assert spans(features, "text") == [(2.0, 2.9), (7.0, 7.4)]
    for m in MODALITIES:
        assert features.values[m].shape == (101, WIDTHS[m])
        assert features.values[m].dtype == np.float32
        assert features.observed[m].dtype == bool
        assert not features.values[m][~features.observed[m]].any()


def test_features_lie_at_their_own_times() -> None:
    features = full()
    for m in ("visual", "audio"):
        seen = features.observed[m]
        away_s = features.values[m][seen] - features.time_s[seen, None]
        assert np.abs(away_s).max() < 0.05
    text = features.values["text"]
    np.testing.assert_array_equal(text[20], [0, 1])
    np.testing.assert_allclose(text[25], [1, 2], atol=1e-6)  # the pause lies between the words
    np.testing.assert_array_equal(text[[26, 72]], [[2, 3], [4, 5]])


@pytest.mark.parametrize("offset_s", [0.1, -3.7, 7200.3])
def test_where_the_clock_starts_does_not_matter(offset_s: float) -> None:
    here, there = full(), full(offset_s)
    for m in MODALITIES:
        np.testing.assert_array_equal(there.observed[m], here.observed[m])
        seen = here.observed[m][:, None]
        moved = there.values[m] - (offset_s if m != "text" else 0) * seen
        np.testing.assert_allclose(moved, here.values[m], atol=2e-3)


def test_it_places_as_the_timeline_does() -> None:
    features = full()
    visual = sampled(1, 6, 25, 4)
    expected = place_samples(visual.times_s, visual.values, features.time_s, 0.25)
    np.testing.assert_array_equal(features.values["visual"], expected.features)
    np.testing.assert_array_equal(features.observed["visual"], expected.mask)
    words = place_words(
        [2.0, 2.6, 7.0],
        [2.4, 3.0, 7.5],
        [0, 0, 1],
        np.arange(6, dtype=np.float32).reshape(3, 2),
        features.time_s,
    )
    np.testing.assert_array_equal(features.values["text"], words.features)


def test_what_is_absent_is_masked_and_has_its_width() -> None:
    grid_s = uniform_grid(0, 3, 10)
    voice = sampled(0, 3, 50, 3)
    for features in (
        assemble(grid_s, WIDTHS),
        assemble(grid_s, WIDTHS, audio=voice),  # sound, but nobody speaks
        assemble(grid_s, WIDTHS, speech=[SpeechSpan(0, 3)]),
        assemble(grid_s, WIDTHS, words=WORDS),  # words, but no vectors
        assemble(grid_s, WIDTHS, words=(), text=np.zeros((0, 2), np.float32)),
        assemble(
            grid_s,
            WIDTHS,
            Sampled(np.zeros(0), np.zeros((0, 4), np.float32)),
            Sampled(np.zeros(0), np.zeros((0, 3), np.float32)),
            [SpeechSpan(0, 3)],
        ),
    ):
        for m in MODALITIES:
            assert features.values[m].shape == (31, WIDTHS[m])
            assert not features.values[m].any()
            assert not features.observed[m].any()


def test_a_face_lost_for_long_is_a_gap_at_any_frame_rate() -> None:
    grid_s = uniform_grid(0, 10, 10)
    for rate_hz in (2, 5, 25):  # a slow video is not a gap after every frame
        times_s = uniform_grid(0, 10, rate_hz)
        times_s = times_s[(times_s <= 4) | (times_s >= 6)]
        visual = Sampled(times_s, np.ones((len(times_s), 4), np.float32))
        features = assemble(grid_s, WIDTHS, visual, frame_period_s=1 / rate_hz)
        assert spans(features, "visual") == [(0.0, 4.0), (6.0, 10.0)]


def test_a_face_in_a_single_frame() -> None:
    features = assemble(uniform_grid(0, 2, 10), WIDTHS, sampled(1, 1, 25, 4))
    assert spans(features, "visual") == [(1.0, 1.0)]


@pytest.mark.parametrize("gone", MODALITIES)
def test_without_a_modality(gone: str) -> None:
    features = full()
    before = {m: (features.values[m].copy(), features.observed[m].copy()) for m in MODALITIES}
    less = features.without(gone)
    assert not less.observed[gone].any()
    assert not less.values[gone].any()
    assert less.values[gone].shape == features.values[gone].shape
    for m in MODALITIES:
        np.testing.assert_array_equal(features.values[m], before[m][0])
        np.testing.assert_array_equal(features.observed[m], before[m][1])
        if m != gone:
            np.testing.assert_array_equal(less.values[m], before[m][0])
            np.testing.assert_array_equal(less.observed[m], before[m][1])


def test_replacing_one_reads_no_other() -> None:
    class Counted(dict[str, np.ndarray]):
        def __getitem__(self, name: str) -> np.ndarray:
            asked.append(name)
            return super().__getitem__(name)

    asked: list[str] = []
    whole = full()
    features = Features(whole.time_s, Counted(whole.values), whole.observed)
    mask = np.ones(101, bool)
    other = features.replaced("text", np.full((101, 2), 7, np.float32), mask)
    assert asked == []
    assert (other.values["text"] == 7).all()
    assert other.observed["text"] is mask
    np.testing.assert_array_equal(other.values["audio"], whole.values["audio"])
    assert asked == ["audio"]
