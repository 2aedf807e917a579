"""Intervals: what they cover on videos they have not seen, and the rules of their offsets."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from maven.config import MODALITIES
from maven.features import Features
from maven.intervals import (
    FOLDS,
    LEAST_VIDEOS,
    SETS,
    Frames,
    Intervals,
    _quantiles,
    coverage,
    fit,
    gather,
    name_of,
)

Floats = npt.NDArray[np.float64]
SPREAD = {3: 0.10, 2: 0.15, 1: 0.25}  # of the errors, by how much was observed


def frames(videos: int, seed: int, length: int = 60) -> Frames:
    """Labels around the middle, answers shrunk by half, errors alike within a video, all sets."""
    rng = np.random.default_rng(seed)
    parts = []
    for video in range(videos):
        bias = rng.normal(0, 0.5, 2)
        for pattern in SETS:
            labels = rng.uniform(-0.8, 0.8, (length, 2))
            error = SPREAD[len(pattern)] * (rng.normal(0, 0.8, (length, 2)) + bias)
            observed = np.tile([m in pattern for m in MODALITIES], (length, 1))
            va = 0.5 * labels + error
            muted = np.full(length, len(pattern) < 3)
            parts.append((va, labels, observed, np.full(length, video), muted))
    return Frames(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def test_new_videos_are_covered_in_the_wanted_share_whatever_was_observed() -> None:
    calibrated, new = frames(60, 1), frames(300, 2)
    for nominal in (0.5, 0.8, 0.9, 0.95):
        intervals = fit(calibrated, nominal)
        held = coverage(intervals, new.va, new.labels, new.observed)
        for name in ("all", *(f"observed {name_of(pattern)}" for pattern in SETS)):
            assert held[name].arousal == pytest.approx(nominal, abs=0.04)
            # Of one sign, answers so shrunk lie below the middle half of their labels; the interval
            # starts at the answer all the same, and so covers more than a half.
            more = 0.1 if nominal == 0.5 and name == f"observed {name_of(SETS[0])}" else 0.04
            assert nominal - 0.04 <= held[name].valence <= nominal + more
    assert held["all"].frames == len(new.va)


def test_less_is_observed_wider_is_the_interval() -> None:
    intervals = fit(frames(40, 3))
    width = {pattern: intervals.offsets[name_of(pattern)].sum(2) for pattern in SETS}
    for pattern in SETS:
        for other in SETS:
            if other > pattern:
                assert (width[other] < width[pattern]).all()


def test_a_pattern_is_no_narrower_than_one_that_contains_it() -> None:
    known = frames(30, 4)
    three = known.observed.all(1)
    worse = np.where(three[:, None], known.va + 3 * (known.va - known.labels / 2), known.va)
    intervals = fit(Frames(worse, known.labels, known.observed, known.video, known.muted))
    widths = np.array([intervals.offsets[name_of(pattern)].sum(2) for pattern in SETS])
    assert (widths[1:] >= widths[0] - 2e-4).all()  # rounding


def test_errors_to_one_side_move_one_end() -> None:
    known = frames(30, 5)
    low = known.labels - np.abs(known.va - known.labels / 2)  # answers are never too high
    offsets = fit(Frames(low, known.labels, known.observed, known.video, known.muted)).offsets
    for values in offsets.values():
        assert (values[..., 0] < 0.02).all()
        assert (values[..., 1] > 0.1).all()


def test_each_sign_of_the_valence_has_offsets_of_its_own() -> None:
    known, new = (
        replace(given, labels=np.where(given.va[:, :1] >= 0, given.labels, given.va))
        for given in (frames(60, 13), frames(100, 14))
    )  # right wherever valence is answered below zero
    intervals = fit(known)
    for below, above in intervals.offsets.values():
        assert (below == 0).all()
        assert (above.sum(1) > 0.2).all()
    low, high = intervals.around(new.va, new.observed)
    positive = new.va[:, 0] >= 0
    np.testing.assert_array_equal(low[~positive], high[~positive])
    inside = ((low <= new.labels) & (new.labels <= high))[positive]
    np.testing.assert_allclose(inside.mean(0), 0.9, atol=0.04)


def test_a_sign_rarely_answered_takes_the_offsets_of_both() -> None:
    known = frames(30, 15)
    positive = known.va[:, 0] >= 0
    rare = known.of(positive | (known.video < LEAST_VIDEOS - 1))
    enough = known.of(positive | (known.video < LEAST_VIDEOS))
    name = name_of(SETS[0])
    pooled, apart = fit(rare).offsets[name], fit(enough).offsets[name]
    np.testing.assert_array_equal(pooled[1], apart[1])
    assert (pooled[0] != apart[0]).any()
    three = rare.of(rare.observed.all(1))
    both = replace(three, va=np.abs(three.va), labels=three.labels + np.abs(three.va) - three.va)
    np.testing.assert_array_equal(pooled[0], fit(both).offsets[name][1])  # the same residuals


def test_every_video_weighs_the_same_however_long() -> None:
    known = frames(30, 6)
    first = known.video == 0
    longer = Frames(
        *(np.concatenate([v, *[v[first]] * 50]) for v in vars(known).values())
    )  # the first video, 51 times as long
    for name, offsets in fit(known).offsets.items():
        np.testing.assert_allclose(fit(longer).offsets[name], offsets, atol=1e-9)


def test_a_rare_pattern_takes_the_widest_that_knows_less() -> None:
    known = frames(30, 7)
    both = (known.observed == [True, False, True]).all(1)
    rare = fit(known.of(~both | (known.video < LEAST_VIDEOS - 1))).offsets
    enough = fit(known.of(~both | (known.video < LEAST_VIDEOS))).offsets
    parts = [enough["visual"], enough["text"]]
    np.testing.assert_array_equal(
        rare["visual+text"], max(parts, key=lambda offsets: float(offsets.sum()))
    )
    assert enough["visual+text"].sum() < rare["visual+text"].sum()


def test_without_words_in_a_corpus_words_alone_get_the_widest() -> None:
    known = frames(30, 8)
    offsets = fit(known.of(~known.observed[:, 2])).offsets
    assert offsets["text"].sum() == pytest.approx(
        max(offsets["visual"].sum(), offsets["audio"].sum())
    )


def test_too_few_videos_and_odd_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"need 10 or more videos .* got 9$"):
        fit(frames(LEAST_VIDEOS - 1, 9))
    with pytest.raises(ValueError, match="got 0"):
        fit(gather(lambda features: np.zeros((0, 2)), []))
    for share in (0.0, 1.0, 90.0):
        with pytest.raises(ValueError, match="accepted: above 0, below 1"):
            fit(frames(LEAST_VIDEOS, 9), share)


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 5)), min_size=1, max_size=30),
    st.floats(0.01, 1.0),
)
def test_a_quantile_is_the_least_value_that_reaches_the_share(
    pairs: list[tuple[int, int]], share: float
) -> None:
    values, weights = np.array(pairs, np.float64).T
    (found,) = _quantiles(values, weights, (share,))
    repeated = sorted(value for value, weight in pairs for _ in range(weight))
    reached = (np.arange(len(repeated)) + 1) / len(repeated)
    expected = repeated[int(np.argmax(reached >= share * (1 - 1e-12)))]
    assert found == expected


def test_the_ends_lie_around_the_answer_inside_the_square() -> None:
    intervals = fit(frames(20, 10))

    @settings(max_examples=60, deadline=None)
    @given(
        arrays.arrays(np.float64, (12, 2), elements=st.floats(-1, 1)),
        arrays.arrays(np.bool_, (12, 3)),
    )
    def check(va: Floats, observed: npt.NDArray[np.bool_]) -> None:
        va = np.where(np.arange(12)[:, None] == 3, np.nan, va)
        low, high = intervals.around(va, observed)
        answered = observed.any(1) & np.isfinite(va[:, 0])
        assert (np.isfinite(low) == answered[:, None]).all()
        assert (np.isfinite(high) == answered[:, None]).all()
        assert (low[answered] >= -1).all()
        assert (low[answered] <= va[answered]).all()
        assert (va[answered] <= high[answered]).all()
        assert (high[answered] <= 1).all()

    check()


def test_intervals_come_back_from_json_and_others_are_refused() -> None:
    intervals = fit(frames(20, 11), 0.8)
    content = json.loads(json.dumps(intervals.to_json(), allow_nan=False))
    again = Intervals.from_json(content)
    assert (again.nominal, again.videos) == (0.8, 20)
    for name, offsets in intervals.offsets.items():
        np.testing.assert_array_equal(again.offsets[name], offsets)
    fine = [[0, 1], [0, 0]]
    for wrong in (fine, [fine], [fine, [[0, -1], [0, 0]]], [[[0, float("nan")], [0, 0]], fine]):
        broken = content | {"offsets": content["offsets"] | {"audio": wrong}}
        with pytest.raises(ValueError, match="audio are not 2 x 2 x 2 numbers"):
            Intervals.from_json(broken)
    with pytest.raises(ValueError, match="nominal"):
        Intervals.from_json(content | {"nominal": 90})
    with pytest.raises(KeyError):
        Intervals.from_json(content | {"offsets": {}})


def sample(seed: int, without: str | None = None) -> tuple[Features, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    values = {m: rng.normal(size=(40, 2)).astype(np.float32) for m in MODALITIES}
    observed = {m: np.full(40, m != without) & (np.arange(40) > 3) for m in MODALITIES}
    labels = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
    labels[10:15, 1] = -5
    return Features(np.arange(40) / 10, values, observed), labels


def told(features: Features) -> Floats:
    seen = np.logical_or.reduce([features.observed[m] for m in MODALITIES])
    total = sum(features.values[m] for m in MODALITIES)
    return np.where(seen[:, None], np.tanh(np.asarray(total, np.float64)), np.nan)


def test_each_video_is_answered_with_every_set_of_what_it_has() -> None:
    asked: list[frozenset[str]] = []

    def answer(features: Features) -> Floats:
        asked.append(frozenset(m for m in MODALITIES if features.observed[m].any()))
        return told(features)

    gathered = gather(answer, [sample(0), sample(1, without="audio")])
    assert asked == [*SETS, *(pattern for pattern in SETS if "audio" not in pattern)]
    assert len(gathered.va) == (7 + 3) * (40 - 4 - 5)  # not before 0.4 s, nor where invalid
    assert (np.abs(gathered.labels) <= 1).all()
    assert np.isfinite(gathered.va).all()
    full = gathered.observed.all(1)
    np.testing.assert_array_equal(full & (gathered.video == 0), full)
    np.testing.assert_array_equal(gathered.muted, ~full & ~(
        (gathered.video == 1) & gathered.observed[:, 0] & gathered.observed[:, 2]
    ))  # fmt: skip


def test_calibration_repeats_itself_and_counts_its_videos() -> None:
    videos = [sample(k) for k in range(FOLDS + 5)]
    first, again = fit(gather(told, videos)), fit(gather(told, videos))
    assert first.to_json() == again.to_json()
    assert first.videos == FOLDS + 5


def test_coverage_counts_what_lies_inside_by_group() -> None:
    below, above = [[0.1, 0.1], [0.3, 0.1]], [[0.1, 0.3], [0.2, 0.2]]
    offsets = {name_of(pattern): np.array([below, above]) for pattern in SETS}
    va = np.array([[0.5, 0.5], [0.5, -0.5], [-0.5, 0.0], [0.0, 0.0], [np.nan, np.nan]])
    labels = np.array([[0.75, 0.5], [0.3, -0.6], [-0.7, 0.1], [-5.0, 0.0], [0.0, 0.0]])
    observed = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]], bool)
    held = coverage(Intervals(0.9, 12, offsets), va, labels, observed)
    assert held["all"].frames == 3
    assert held["all"].valence == pytest.approx(1 / 3)
    assert held["all"].arousal == 1
    assert held["all"].width_valence == pytest.approx((0.4 + 0.4 + 0.2) / 3)
    assert held["observed visual"].valence == 0
    assert held["observed visual+audio+text"].valence == 1
    assert "observed audio" not in held
    assert held["label v- a+"].frames == 1
    assert held["answer v+ a-"].frames == 1
