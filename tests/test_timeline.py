"""The timeline against slow oracles in exact arithmetic.

Oracles count in whole milliseconds, as fractions; the code under test gets seconds, shifted by an
offset that no binary fraction represents, as a container's clock does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import median

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.timeline import (
    Window,
    interpolate,
    place_samples,
    place_words,
    smooth,
    uniform_grid,
    windows,
    within,
)

Row = list[float] | None  # features at a grid time, None where it is masked
WordMs = tuple[int, int, int]  # start, length, segment

grids_ms = st.lists(st.integers(0, 3000), min_size=1, max_size=12, unique=True).map(sorted)
samples_ms = st.lists(st.integers(-200, 3200), max_size=30, unique=True).map(sorted)
offsets_s = st.sampled_from([0.0, 0.1, 1.4, -0.7, 7200.3])
words_ms = st.lists(
    st.tuples(st.integers(-200, 3100), st.integers(0, 700), st.integers(0, 2)), max_size=8
)
quick = settings(deadline=None, max_examples=150)


def seconds(times_ms: Sequence[int], offset_s: float = 0.0) -> npt.NDArray[np.float64]:
    return np.array(times_ms, np.float64) / 1000 + offset_s


def vectors(n: int, width: int = 3) -> npt.NDArray[np.float32]:
    return np.random.default_rng(n).normal(size=(n, width)).astype(np.float32)


def cells(grid: Sequence[int], lone: int) -> list[tuple[Fraction, Fraction]]:
    """From where to where a grid time is the nearest."""
    steps = [Fraction(b - a) for a, b in pairwise(grid)]
    half = median(steps) / 2 if steps else Fraction(lone, 2)
    middles = [Fraction(a + b, 2) for a, b in pairwise(grid)]
    edges = [grid[0] - half, *middles, grid[-1] + half]
    return list(pairwise(edges))


def mix(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], share: Fraction) -> list[float]:
    return [float((1 - share) * Fraction(float(x)) + share * Fraction(float(y)))
            for x, y in zip(a, b, strict=True)]  # fmt: skip


def slow_samples(
    times: Sequence[int], values: npt.NDArray[np.float32], grid: Sequence[int], max_gap: int
) -> list[Row]:
    rows: list[Row] = []
    for tick, (low, high) in zip(grid, cells(grid, max_gap), strict=True):
        mine = [k for k, time in enumerate(times) if low <= time < high]
        before = [k for k, time in enumerate(times) if time < tick]
        after = [k for k, time in enumerate(times) if time > tick]
        if mine:
            rows.append([math.fsum(column) / len(mine) for column in values[mine].T])
        elif before and after and times[after[0]] - times[before[-1]] <= max_gap:
            a, b = before[-1], after[0]
            share = Fraction(tick - times[a], times[b] - times[a])
            rows.append(mix(values[a], values[b], share))
        else:
            rows.append(None)
    return rows


def slow_words(
    words: Sequence[WordMs], values: npt.NDArray[np.float32], grid: Sequence[int]
) -> list[Row]:
    order = sorted(range(len(words)), key=lambda k: words[k][0])
    start = [word[0] for word in words]
    end = [word[0] + word[1] for word in words]
    rows: list[Row] = []
    for tick, (low, high) in zip(grid, cells(grid, 1000), strict=True):
        row: Row = None
        for k, after in pairwise(order):
            pause = start[after] - end[k]
            same = words[k][2] == words[after][2]
            if same and 0 < pause <= 1000 and end[k] <= tick < start[after]:
                row = mix(values[k], values[after], Fraction(tick - end[k], pause))
        for k in order:
            unseen = not any(start[k] <= other < end[k] for other in grid)
            if unseen and low <= Fraction(start[k] + end[k], 2) < high:
                row = values[k].tolist()
        for k in order:
            if start[k] <= tick < end[k]:
                row = values[k].tolist()
        rows.append(row)
    return rows


def assert_rows(placed: object, rows: list[Row]) -> None:
    features, mask = placed.features, placed.mask  # type: ignore[attr-defined]
    assert features.dtype == np.float32
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, [row is not None for row in rows])
    expected = [row if row is not None else [0.0] * features.shape[1] for row in rows]
    np.testing.assert_allclose(features, np.reshape(expected, features.shape), atol=2e-6)


# --- the grid ---


def test_a_grid_has_both_ends() -> None:
    np.testing.assert_allclose(uniform_grid(0, 1, 10), np.arange(11) / 10)
    assert uniform_grid(0, 0.99, 10)[-1] == 0.9
    assert uniform_grid(1.4, 1.4 + 0.1 * 3, 10)[-1] == pytest.approx(1.7)  # 0.1 * 3 > 0.3
    np.testing.assert_array_equal(uniform_grid(5, 5, 10), [5])
    np.testing.assert_array_equal(uniform_grid(5, 4, 10), [5])


@quick
@given(offsets_s, st.integers(0, 5000), st.sampled_from([1, 10, 25, 30000 / 1001]))
def test_a_grid_covers_its_span(start_s: float, length_ms: int, rate_hz: float) -> None:
    end_s = start_s + length_ms / 1000
    grid = uniform_grid(start_s, end_s, rate_hz)
    assert grid[0] == start_s
    assert grid[-1] <= end_s + 1e-6 < grid[-1] + 1 / rate_hz + 1e-5
    np.testing.assert_allclose(np.diff(grid), 1 / rate_hz, rtol=1e-8)


# --- samples ---


@quick
@given(samples_ms, grids_ms, st.integers(1, 600), offsets_s)
def test_samples_are_placed_as_the_oracle_places_them(
    times_ms: list[int], grid_ms: list[int], gap_ms: int, offset_s: float
) -> None:
    values = vectors(len(times_ms))
    placed = place_samples(
        seconds(times_ms, offset_s), values, seconds(grid_ms, offset_s), gap_ms / 1000
    )
    assert_rows(placed, slow_samples(times_ms, values, grid_ms, gap_ms))


@pytest.mark.parametrize("hop_ms", [10, 20, 40, 50, 200])
@pytest.mark.parametrize("offset_s", [0.0, 0.1, 1.4, 3600.7, 86400.123])
def test_where_the_clock_starts_does_not_matter(hop_ms: int, offset_s: float) -> None:
    times_ms, grid_ms = range(0, 4000, hop_ms), range(0, 4000, 100)  # samples midway: many ties
    values = vectors(len(times_ms))
    here = place_samples(seconds(times_ms), values, seconds(grid_ms), 0.25)
    there = place_samples(seconds(times_ms, offset_s), values, seconds(grid_ms, offset_s), 0.25)
    np.testing.assert_array_equal(there.mask, here.mask)
    np.testing.assert_allclose(there.features, here.features, atol=1e-6)


def test_samples_are_placed_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    times_ms, grid_ms = [*range(0, 3000, 30), *range(6000, 9000, 30)], range(0, 9000, 100)
    given = (seconds(times_ms), vectors(len(times_ms)), seconds(grid_ms), 0.25)
    whole = place_samples(*given)
    for block in (1, 7, 89):
        monkeypatch.setattr("maven.timeline.BLOCK", block)
        np.testing.assert_array_equal(place_samples(*given).features, whole.features)


def test_a_gap_of_just_the_limit_is_bridged_and_a_longer_one_not() -> None:
    grid_ms = list(range(0, 1000, 100))
    for gap_ms, bridged in ((250, True), (251, False)):
        for offset_s in np.arange(50) / 30 + 7200:
            times_s, grid_s = seconds([300, 300 + gap_ms], offset_s), seconds(grid_ms, offset_s)
            assert place_samples(times_s, vectors(2), grid_s, 0.25).mask[4] == bridged


def test_a_variable_frame_rate_counts_by_time_not_by_index() -> None:
    times_s = np.concatenate((np.arange(0, 1, 1 / 60), np.arange(1, 2, 1 / 12)))
    grid_s = uniform_grid(0.05, 1.9, 10)
    placed = place_samples(times_s, times_s[:, None].astype(np.float32), grid_s, 0.25)
    assert placed.mask.all()
    assert np.abs(placed.features[:, 0] - grid_s).max() < 0.05  # never as far as the neighbour


def test_one_bad_or_huge_sample_stays_in_its_own_frame() -> None:
    times_s, grid_s = np.arange(100) / 50, uniform_grid(0, 1.9, 10)
    values = np.full((100, 1), 0.1, np.float32)
    clean = place_samples(times_s, values, grid_s, 0.25).features
    for bad in (np.nan, np.inf, 1e30):
        values[12] = bad  # at 0.24 s
        spoiled = place_samples(times_s, values, grid_s, 0.25).features
        np.testing.assert_array_equal(np.delete(spoiled, 2, 0), np.delete(clean, 2, 0))


def test_no_samples_and_no_grid_are_no_error() -> None:
    none = np.zeros((0, 4), np.float32)
    placed = place_samples(np.zeros(0), none, uniform_grid(0, 1, 10), 0.25)
    assert placed.features.shape == (11, 4)
    assert not placed.mask.any()
    placed = place_samples(np.arange(3.0), np.ones((3, 4), np.float32), np.zeros(0), 0.25)
    assert placed.features.shape == (0, 4)
    far = place_samples(np.array([50.0]), np.ones((1, 4), np.float32), uniform_grid(0, 1, 10), 9.0)
    assert not far.mask.any()


# --- words ---


def place(words: Sequence[WordMs], grid_ms: Sequence[int], offset_s: float = 0.0) -> object:
    return place_words(
        seconds([w[0] for w in words], offset_s),
        seconds([w[0] + w[1] for w in words], offset_s),
        [w[2] for w in words],
        vectors(len(words)),
        seconds(grid_ms, offset_s),
    )


@quick
@given(words_ms, grids_ms, offsets_s)
def test_words_are_placed_as_the_oracle_places_them(
    words: list[WordMs], grid_ms: list[int], offset_s: float
) -> None:
    assert_rows(place(words, grid_ms, offset_s), slow_words(words, vectors(len(words)), grid_ms))


@quick
@given(words_ms, offsets_s)
def test_no_word_goes_unseen(words: list[WordMs], offset_s: float) -> None:
    grid_ms = list(range(0, 3000, 100))
    mask = place(words, grid_ms, offset_s).mask  # type: ignore[attr-defined]
    for start, length, _ in words:
        middle = start + length / 2
        if 0 <= middle <= grid_ms[-1]:
            away = min(abs(tick - middle) for tick in grid_ms)
            nearest = [k for k, tick in enumerate(grid_ms) if abs(tick - middle) == away]
            assert mask[nearest].any()


def test_a_short_word_is_seen_but_does_not_silence_a_long_one() -> None:
    grid_ms = [0, 100, 200, 300, 400]
    alone = [(220, 20, 0)]
    assert_rows(place(alone, grid_ms), [None, None, vectors(1)[0].tolist(), None, None])
    beside = [(150, 60, 0), (220, 20, 0)]  # the first holds at 200 ms
    assert_rows(place(beside, grid_ms), [None, None, vectors(2)[0].tolist(), None, None])
    outside = [(-100, 20, 0), (460, 20, 1), (9000, 20, 2)]
    assert_rows(place(outside, grid_ms), [None] * 5)
    instant = [(0, 0, 0), (400, 0, 1)]
    first, last = vectors(2).tolist()
    assert_rows(place(instant, grid_ms), [first, None, None, None, last])


def test_a_word_spoken_over_another_does_not_end_it() -> None:
    words = [(0, 1000, 0), (200, 100, 0), (900, 600, 0)]
    a, b, c = vectors(3).tolist()
    expected = [a, a, b, *[a] * 6, *[c] * 6]
    assert_rows(place(words, range(0, 1500, 100)), expected)


def test_a_pause_is_bridged_inside_a_segment_only() -> None:
    a, b = vectors(2)
    half = ((a + b) / 2).tolist()
    grid_ms = [50, 600, 1150]
    for pause_ms, segment, middle in ((1000, 0, half), (1000, 1, None), (1002, 0, None)):
        words = [(0, 100, 0), (100 + pause_ms, 100, segment)]
        for offset_s in (0.0, 0.1, 7200.3):
            placed = place(words, grid_ms, offset_s)
            assert_rows(placed, [a.tolist(), middle, b.tolist()])


def test_the_order_of_words_does_not_matter() -> None:
    words = [(600, 200, 1), (0, 300, 0), (400, 100, 0)]
    grid_s = uniform_grid(0, 1, 20)
    values = vectors(3)
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        placed = place_words(
            [words[k][0] / 1000 for k in order],
            [(words[k][0] + words[k][1]) / 1000 for k in order],
            [words[k][2] for k in order],
            values[order],
            grid_s,
        )
        np.testing.assert_array_equal(placed.features[3], values[1])
        np.testing.assert_array_equal(placed.features[15], values[0])


# --- series ---


def test_interpolation_runs_straight_between_and_stays_level_beyond() -> None:
    times_s = np.array([0.0, 1.0, 3.0])
    values = np.array([[0.0, 1.0], [2.0, 0.0], [6.0, -4.0]])
    found = interpolate(times_s, values, np.array([-1.0, 0.0, 0.25, 1.0, 2.0, 3.0, 9.0]))
    expected = [[0, 1], [0, 1], [0.5, 0.75], [2, 0], [4, -2], [6, -4], [6, -4]]
    np.testing.assert_allclose(found, expected)


@quick
@given(
    grids_ms, st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 900)), max_size=4), offsets_s
)
def test_within_spans(grid_ms: list[int], spans_ms: list[tuple[int, int]], offset_s: float) -> None:
    spans_s = [(a / 1000 + offset_s, (a + n) / 1000 + offset_s) for a, n in spans_ms]
    expected = [any(a <= tick < a + n for a, n in spans_ms) for tick in grid_ms]
    np.testing.assert_array_equal(within(seconds(grid_ms, offset_s), spans_s), expected)


@quick
@given(
    st.lists(st.integers(0, 60_000), min_size=1, max_size=60, unique=True).map(sorted),
    st.integers(1, 20_000),
    st.integers(0, 9_000),
    offsets_s,
)
def test_windows_tile_any_grid(
    grid_ms: list[int], core_ms: int, margin_ms: int, offset_s: float
) -> None:
    found = list(windows(seconds(grid_ms, offset_s), core_ms / 1000, margin_ms / 1000))
    assert all(isinstance(window, Window) for window in found)
    answered = [k for w in found for k in range(w.core_start, w.core_stop)]
    assert answered == list(range(len(grid_ms)))  # complete, disjoint, in order
    for window in found:
        core = grid_ms[window.core_start : window.core_stop]
        assert core[-1] - core[0] < core_ms
        assert window.core_stop == len(grid_ms) or grid_ms[window.core_stop] - core[0] >= core_ms
        read = [
            k
            for k, tick in enumerate(grid_ms)
            if core[0] - margin_ms <= tick <= core[-1] + margin_ms
        ]
        assert list(range(window.start, window.stop)) == read


def test_windows_of_a_uniform_grid_are_equal_and_few() -> None:
    grid_s = uniform_grid(1.4, 1.4 + 70, 10)
    found = list(windows(grid_s, 16, 8))
    assert [w.core_stop - w.core_start for w in found] == [160, 160, 160, 160, 61]
    assert max(w.stop - w.start for w in found) == 320
    assert list(windows(np.zeros(0), 16, 8)) == []


def slow_smooth(times: Sequence[int], values: npt.NDArray[np.float64], half: int) -> list[float]:
    out = []
    for time, value in zip(times, values, strict=True):
        near = [
            v
            for t, v in zip(times, values, strict=True)
            if abs(t - time) <= half and math.isfinite(v)
        ]
        out.append(math.fsum(near) / len(near) if math.isfinite(value) else math.nan)
    return out


@quick
@given(grids_ms, st.integers(1, 1500), offsets_s, st.data())
def test_smoothing_is_the_mean_of_the_known_frames_near(
    grid_ms: list[int], half_ms: int, offset_s: float, data: st.DataObject
) -> None:
    cell = st.floats(-1, 1) | st.just(math.nan)
    rows = st.lists(cell, min_size=len(grid_ms), max_size=len(grid_ms))
    values = np.array([data.draw(rows), data.draw(rows)]).T
    found = smooth(seconds(grid_ms, offset_s), values, half_ms / 1000)
    for k in range(2):
        expected = slow_smooth(grid_ms, values[:, k], half_ms)
        np.testing.assert_allclose(found[:, k], expected, atol=1e-12)


def test_smoothing_keeps_constants_and_lines_and_gaps() -> None:
    times_s = uniform_grid(3600.7, 3660.7, 10)
    constant = np.full((len(times_s), 2), -0.3)
    constant[100:130] = np.nan
    np.testing.assert_allclose(smooth(times_s, constant, 2.0), constant, atol=1e-12)
    line = times_s[:, None] - 3600
    np.testing.assert_allclose(smooth(times_s, line, 2.0)[20:-20], line[20:-20], atol=1e-9)


def test_no_width_is_no_smoothing() -> None:
    values = np.array([[1.0], [np.nan], [3.0]])
    np.testing.assert_array_equal(smooth(np.arange(3.0), values, 0), values)
    assert smooth(np.zeros(0), np.zeros((0, 2)), 1.0).shape == (0, 2)
    np.testing.assert_array_equal(smooth(np.arange(3.0), values, 0.5), values)  # nothing that near


def test_smoothing_leaves_its_input_alone() -> None:
    values = np.random.default_rng(0).normal(size=(20, 2))
    before = values.copy()
    smooth(np.arange(20) / 10, values, 0.5)
    np.testing.assert_array_equal(values, before)
