"""Agreement of predicted with annotated series. Conventions: population moments, float64, masked.

CCC(x, y) = 2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))^2) (Lin 1989) with population
moments (divisor n) in every term. torchmetrics divides by n - 1, which differs on short clips.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maven.circumplex import NEUTRAL_INTENSITY, to_polar

Interval = tuple[float, float]

LOW, HIGH = -1.0, 1.0  # labels outside mark invalid frames (Aff-Wild2 writes -5)
SPREAD_FLOOR = 1e-6  # standard deviation that sums of squares can still tell from rounding
LEVEL_PERCENT = 95.0  # of bootstrap intervals


def ccc(x: npt.ArrayLike, y: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> float:
    """Concordance correlation coefficient of two series (n,), over frames where `mask` holds.

    Returns:
        A number in [-1, 1]; 0, with a warning, where either series is constant or too short; NaN
        where a number that counts is not finite.

    Raises:
        ValueError: the shapes differ.
    """
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"ccc needs two series of one shape, got {first.shape} and {second.shape}")
    if mask is not None:
        chosen = np.asarray(mask, bool)
        first, second = first[chosen], second[chosen]
    if first.size < 2 or np.ptp(first) * np.ptp(second) < np.finfo(np.float64).tiny:
        warnings.warn("CCC of a constant or empty series is 0 by convention", stacklevel=2)
        return 0.0
    covariance = ((first - first.mean()) * (second - second.mean())).mean()
    spread = first.var() + second.var() + (first.mean() - second.mean()) ** 2
    return float(2 * covariance / spread)


def valid_labels(valence: npt.ArrayLike, arousal: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Say which frames have both labels inside [-1, 1]; NaN is invalid."""
    v, a = np.asarray(valence), np.asarray(arousal)
    return (v >= LOW) & (v <= HIGH) & (a >= LOW) & (a <= HIGH)


def rmse(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Root mean square error of two series (n,)."""
    return float(np.sqrt(np.mean((np.asarray(x, np.float64) - np.asarray(y, np.float64)) ** 2)))


def sign_agreement(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Share of frames (n,) in which both series have the same sign."""
    return float(np.mean(np.sign(np.asarray(x)) == np.sign(np.asarray(y))))


def angular_error_rad(theta: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Mean distance in [0, pi] of two series of angles (n,), the short way round the circle."""
    difference = np.asarray(theta, np.float64) - np.asarray(other, np.float64)
    return float(np.mean(np.abs(np.mod(difference + np.pi, 2 * np.pi) - np.pi)))


def moment_sums(x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Sums (6,) of two series (n,): n, x, y, x^2, y^2, xy.

    They add up over parts of a series, so that the CCC of any mixture of parts follows from them
    (`ccc_from_sums`) without the frames.
    """
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    products = (first @ first, second @ second, first @ second)
    return np.array([first.size, first.sum(), second.sum(), *products], np.float64)


def ccc_from_sums(sums: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """CCC (...) from moment sums (..., 6); 0 where either series is constant or empty.

    Meant for series of order 1, such as valence and arousal: a spread below 1e-6 is rounding.
    """
    values = np.asarray(sums, np.float64)
    n, x, y, xx, yy, xy = np.moveaxis(values / np.maximum(values[..., :1], 1), -1, 0)
    x_var, y_var = xx - x**2, yy - y**2
    still = (n == 0) | (np.minimum(x_var, y_var) <= SPREAD_FLOOR**2)  # False for NaN: it shows
    spread = np.where(still, 1.0, x_var + y_var + (x - y) ** 2)
    return np.asarray(np.where(still, 0.0, 2 * (xy - x * y) / spread), np.float64)


def ccc_intervals(sums: npt.ArrayLike, seed: int, count: int) -> dict[str, Interval]:
    """Intervals of 95 % of the CCCs over resamples of parts, such as videos.

    The parts are drawn with replacement, as many as there are, and concatenated, `count` times;
    an interval goes from the 2.5th to the 97.5th percentile (Efron 1979, percentile bootstrap).

    Args:
        sums: (parts, 2, 6) moment sums of valence and of arousal.
        seed: of the draws.
        count: of resamples.
    """
    parts = np.asarray(sums, np.float64)
    shares = np.full(len(parts), 1 / len(parts))
    times = np.random.default_rng(seed).multinomial(len(parts), shares, size=count)
    both = ccc_from_sums(np.tensordot(times, parts, 1))  # (count, 2)
    named = {"ccc_valence": both[:, 0], "ccc_arousal": both[:, 1], "ccc_mean": both.mean(1)}
    tail = (100 - LEVEL_PERCENT) / 2
    edges = {name: np.percentile(values, (tail, 100 - tail)) for name, values in named.items()}
    return {name: (float(low), float(high)) for name, (low, high) in edges.items()}


@dataclass(frozen=True)
class Scores:
    """Agreement of answers with labels over valid frames taken together; NaN where undefined.

    Attributes:
        frames: that count: both labels in [-1, 1].
        ccc_valence, ccc_arousal: in [-1, 1], 0 where labels or answers are constant.
        ccc_mean: of the two.
        rmse_valence, rmse_arousal: in the labels' unit.
        sagr_valence, sagr_arousal: share of frames whose signs agree.
        angle_frames: frames whose label has an intensity of at least 0.2: nearer to rest a
            direction means little.
        angle_error_rad: mean distance of theta over those, in [0, pi].
        intensity_rmse: of the distance from rest.
    """

    frames: int
    ccc_valence: float
    ccc_arousal: float
    ccc_mean: float
    rmse_valence: float = float("nan")
    rmse_arousal: float = float("nan")
    sagr_valence: float = float("nan")
    sagr_arousal: float = float("nan")
    angle_frames: int = 0
    angle_error_rad: float = float("nan")
    intensity_rmse: float = float("nan")


def score(labels: npt.NDArray[np.floating], answers: npt.NDArray[np.floating]) -> Scores:
    """Compare answers (n, 2) with labels (n, 2), valence and arousal, where labels are valid."""
    valid = valid_labels(*labels.T)
    true, said = labels[valid].astype(np.float64), answers[valid].astype(np.float64)
    if not len(true):
        return Scores(0, float("nan"), float("nan"), float("nan"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "CCC of a constant")  # one a video would be a flood
        valence, arousal = ccc(said[:, 0], true[:, 0]), ccc(said[:, 1], true[:, 1])
    (true_rad, true_intensity), (said_rad, said_intensity) = to_polar(*true.T), to_polar(*said.T)
    moved = true_intensity >= NEUTRAL_INTENSITY
    return Scores(
        frames=len(true),
        ccc_valence=valence,
        ccc_arousal=arousal,
        ccc_mean=(valence + arousal) / 2,
        rmse_valence=rmse(said[:, 0], true[:, 0]),
        rmse_arousal=rmse(said[:, 1], true[:, 1]),
        sagr_valence=sign_agreement(said[:, 0], true[:, 0]),
        sagr_arousal=sign_agreement(said[:, 1], true[:, 1]),
        angle_frames=int(moved.sum()),
        angle_error_rad=(
            angular_error_rad(said_rad[moved], true_rad[moved]) if moved.any() else float("nan")
        ),
        intensity_rmse=rmse(said_intensity, true_intensity),
    )
