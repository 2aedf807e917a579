"""CCC against Lin's formula in plain float64 NumPy, and against torchmetrics."""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.metrics import ccc, rmse, sign_agreement, valid_labels

Floats = npt.NDArray[np.float64]
series = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=40)


def lin(x: Floats, y: Floats) -> float:
    """2 s_xy / (s_x^2 + s_y^2 + (mean difference)^2), sums written out, divisor n."""
    n = len(x)
    x_mean, y_mean = math.fsum(x) / n, math.fsum(y) / n
    s_xy = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / n
    s_x = math.fsum((a - x_mean) ** 2 for a in x) / n
    s_y = math.fsum((b - y_mean) ** 2 for b in y) / n
    return 2 * s_xy / (s_x + s_y + (x_mean - y_mean) ** 2)


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
    assert math.isclose(found, lin(x, y), rel_tol=1e-7, abs_tol=1e-7)
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
