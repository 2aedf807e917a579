"""CCC against Lin's formula in plain float64 NumPy, and against torchmetrics."""

from __future__ import annotations

import cmath
import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.metrics import (
    angular_error_rad,
    ccc,
    ccc_from_sums,
    ccc_intervals,
    moment_sums,
    rmse,
    score,
    sign_agreement,
    valid_labels,
)
from scored_clips import slow_ccc

Floats = npt.NDArray[np.float64]
series = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=40)


def noisy(n: int, seed: int = 0, offset: float = 0.3) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, 0.7 * x + 0.5 * rng.normal(size=n) + offset


@settings(deadline=None)
@given(series)
def test_it_is_lins_formula(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs).T
    if np.ptp(x) < 1e-6 or np.ptp(y) < 1e-6:
        return
    found = ccc(x, y)
    assert math.isclose(found, slow_ccc(x, y), rel_tol=1e-7, abs_tol=1e-7)
    assert abs(found) <= 1 + 1e-12
    assert math.isclose(found, ccc(y, x), rel_tol=1e-12, abs_tol=1e-15)


@settings(max_examples=30, deadline=None)
@given(series, st.floats(0.01, 100), st.floats(-10, 10))
def test_a_change_of_unit_changes_nothing(
    pairs: list[tuple[float, float]], scale: float, offset: float
) -> None:
    x, y = np.array(pairs).T
    if np.ptp(x) > 1e-3 and np.ptp(y) > 1e-3:
        assert math.isclose(ccc(x, y), ccc(x * scale + offset, y * scale + offset), abs_tol=1e-6)


def test_identical_opposite_and_shifted() -> None:
    x, _ = noisy(50)
    assert ccc(x, x) == 1
    x -= x.mean()
    assert math.isclose(ccc(x, -x), -1)
    assert ccc(x, x + 1) < 0.9  # unlike correlation it sees an offset
    assert ccc(x, 0.5 * x) < 0.9  # and a scale


@pytest.mark.parametrize("n", [5, 50, 5000])
def test_torchmetrics_differs_by_its_divisor(n: int) -> None:
    """torchmetrics divides the second moments by n - 1, but not the squared difference of means."""
    torch = pytest.importorskip("torch")
    regression = pytest.importorskip("torchmetrics.regression")
    x, y = noisy(n)
    theirs = regression.ConcordanceCorrCoef()
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(x), torch.from_numpy(y))
    covariance = np.cov(x, y)  # divisor n - 1
    spread = np.trace(covariance) + (x.mean() - y.mean()) ** 2
    assert math.isclose(float(theirs.compute()), 2 * covariance[0, 1] / spread, rel_tol=1e-6)
    difference = abs(float(theirs.compute()) - ccc(x, y))
    assert 1e-9 < difference < 1 / n  # real on a short clip, gone on a long one


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0.1] * 7, [1, 2, 3, 4, 5, 6, 7]),
        ([1, 2, 3, 4, 5, 6, 7], [0.1] * 7),
        ([0.1] * 7, [0.1] * 7),
        ([0.0] * 7, [-0.0] * 7),
        ([1], [2]),
        ([], []),
        ([0, 1e-200], [0, 1e-200]),  # its variance is below the smallest number
    ],
)
def test_a_constant_is_zero_with_a_warning(x: list[float], y: list[float]) -> None:
    with pytest.warns(UserWarning, match="CCC of a constant") as caught:
        assert ccc(x, y) == 0
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_nothing_else_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ccc(*noisy(20)) > 0


def test_a_mask_takes_frames_out() -> None:
    x, y = noisy(30)
    mask = np.random.default_rng(1).uniform(size=30) < 0.5
    spoiled = np.where(mask, y, -5)
    assert ccc(x, spoiled, mask) == ccc(x[mask], y[mask])
    assert ccc(x, spoiled) != ccc(x, spoiled, mask)
    spoiled[~mask] = np.nan
    assert ccc(x, spoiled, mask) == ccc(x[mask], y[mask])
    with pytest.warns(UserWarning, match="CCC"):
        assert ccc(x, y, np.zeros(30, bool)) == 0


def test_it_computes_in_double_precision() -> None:
    x, y = noisy(1000, offset=0.0)
    single = x.astype(np.float32), y.astype(np.float32)
    assert ccc(*single) == ccc(*(a.astype(np.float64) for a in single))
    assert math.isclose(ccc(x + 1e6, y + 1e6), ccc(x, y), rel_tol=1e-6)


def test_series_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        ccc([1, 2, 3], [1, 2, 3, 4])


@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_not_finite_is_not_hidden() -> None:
    assert math.isnan(ccc([0, 1, np.nan], [0, 1, 2]))
    assert math.isnan(ccc([0, 1, np.inf], [0, 1, 2]))


def test_a_frame_is_out_when_either_label_is() -> None:
    valence = [0, -5, 0, -5, 1, -1, 1.0001, 0, np.nan, 0]
    arousal = [0, 0, -5, -5, -1, 1, 0, -1.0001, 0, np.nan]
    valid = valid_labels(valence, arousal)
    np.testing.assert_array_equal(valid, [1, 0, 0, 0, 1, 1, 0, 0, 0, 0])
    assert valid.dtype == bool


def test_rmse_and_sign_agreement() -> None:
    x, y = noisy(40)
    assert math.isclose(
        rmse(x, y), math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / 40)
    )
    agree = sum((a > 0) == (b > 0) for a, b in zip(x, y, strict=True)) / 40
    assert math.isclose(sign_agreement(x, y), agree)
    assert sign_agreement([0, 0, 1, -1], [0, 1, 1, 1]) == 0.5


def test_the_angle_between_two_directions_goes_the_short_way_round() -> None:
    assert math.isclose(angular_error_rad([np.pi - 0.1], [-np.pi + 0.1]), 0.2)
    assert angular_error_rad([np.pi], [-np.pi]) == 0
    assert math.isclose(angular_error_rad([0.0, 0.0], [np.pi, -np.pi / 2]), 0.75 * np.pi)
    assert math.isclose(angular_error_rad([7 * np.pi], [0.5]), np.pi - 0.5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=20))
def test_it_is_the_angle_of_two_unit_vectors(pairs: list[tuple[float, float]]) -> None:
    """|log(e^ia / e^ib)|, which never sees a wrap."""
    expected = [abs(cmath.phase(cmath.exp(1j * a) / cmath.exp(1j * b))) for a, b in pairs]
    x, y = np.array(pairs).T
    found = angular_error_rad(x, y)
    assert math.isclose(found, sum(expected) / len(expected), abs_tol=1e-9)
    assert math.isclose(found, angular_error_rad(y, x), abs_tol=1e-12)


@settings(deadline=None)
@given(series, st.integers(0, 40))
def test_moment_sums_of_parts_add_up_to_the_ccc_of_the_whole(
    pairs: list[tuple[float, float]], cut: int
) -> None:
    x, y = np.array(pairs).T
    if min(np.std(x), np.std(y)) < 1e-2:
        return
    both = moment_sums(x[:cut], y[:cut]) + moment_sums(x[cut:], y[cut:])
    assert both[0] == len(pairs)
    assert math.isclose(float(ccc_from_sums(both)), ccc(x, y), abs_tol=1e-9)


def test_sums_of_constants_give_zero_and_nan_is_not_hidden() -> None:
    x, y = noisy(1000)
    assert ccc_from_sums(moment_sums([], [])) == 0
    assert ccc_from_sums(moment_sums([0.1] * 1000, y)) == 0
    assert ccc_from_sums(moment_sums(x, [-0.7] * 1000)) == 0
    assert ccc_from_sums(moment_sums([0.3], [0.3])) == 0
    assert math.isnan(ccc_from_sums(moment_sums([0, 1, np.nan], [0, 1, 2])))
    stacked = np.stack([moment_sums(x, y), moment_sums([], [])])
    np.testing.assert_allclose(ccc_from_sums(stacked), [ccc(x, y), 0], atol=1e-12)


def test_intervals_are_percentiles_over_parts_drawn_again_and_concatenated() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.uniform(-1, 1, (n, 4)) for n in (5, 40, 17, 80)]
    for k, part in enumerate(parts):
        part[:, 2:] = 0.6 * part[:, :2] + 0.2 * k
    sums = [[moment_sums(part[:, k], part[:, k + 2]) for k in range(2)] for part in parts]
    found = ccc_intervals(sums, seed=5, count=60)
    times = np.random.default_rng(5).multinomial(4, [0.25] * 4, size=60)
    both = []
    for counts in times:
        drawn = np.concatenate(
            [part for part, n in zip(parts, counts, strict=True) for _ in range(n)]
        )
        both.append([slow_ccc(drawn[:, k], drawn[:, k + 2]) for k in range(2)])
    valence, arousal = np.array(both).T
    expected = {
        "ccc_valence": valence,
        "ccc_arousal": arousal,
        "ccc_mean": (valence + arousal) / 2,
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.percentile(values, [2.5, 97.5]), atol=1e-9)
    assert found == ccc_intervals(sums, seed=5, count=60)


def test_a_score_of_no_valid_frame_is_undefined_and_of_a_constant_one_zero() -> None:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (10, 2))
    nothing = score(np.full((10, 2), -5.0), x)
    assert nothing.frames == 0
    assert math.isnan(nothing.ccc_mean)
    assert math.isnan(nothing.rmse_valence)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        still = score(np.full((10, 2), 0.1), x)
    assert (still.ccc_valence, still.ccc_arousal, still.ccc_mean) == (0, 0, 0)
    assert still.angle_frames == 0  # an intensity of 0.14
    assert math.isnan(still.angle_error_rad)
    assert math.isclose(still.rmse_arousal, rmse(x[:, 1], np.full(10, 0.1)))
    assert math.isnan(score(x, np.full((10, 2), np.nan)).ccc_mean)
