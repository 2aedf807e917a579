"""Agreement of predicted with annotated series. Conventions: population moments, float64, masked.

CCC(x, y) = 2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))^2) (Lin 1989) with population
moments (divisor n) in every term. torchmetrics divides by n - 1, which differs on short clips.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

LOW, HIGH = -1.0, 1.0  # labels outside mark invalid frames (Aff-Wild2 writes -5)


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
