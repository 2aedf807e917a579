"""What people rated: traces over the media's clock, as labels, against a prediction, each other.

A trace is a rater's valence and arousal at rising times. Times further apart than `GAP_S` have a
gap between them, in which the rater did not rate. A prediction is compared as if it were a trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maven.datasets.affwild2 import INVALID, LABEL_HEADER
from maven.metrics import HIGH, LOW, SPREAD_FLOOR, Scores, ccc_from_sums, moment_sums, score
from maven.timeline import uniform_grid

Floats = npt.NDArray[np.float64]

GAP_S = 0.5  # between two points further apart than this nothing was rated
LONGEST_NAME = 80  # characters
GRID_HZ = 25.0  # of the times at which raters are compared with each other

# People rate late, by 1 to 6 s (Mariooryad and Busso 2015, "Correcting time-continuous emotional
# labels by modeling the reaction lag of evaluators"); below 0 they would be early.
EARLIEST_S, LATEST_S, LAG_STEP_S = -1.0, 6.0, 0.05
LAG_STEPS = 2  # of these between moments that are compared
LEAST_S = 2.0  # of both courses, that a lag is looked for in
FLAT = 0.01  # CCC that a maximum must stand out by


@dataclass(frozen=True)
class Trace:
    """What one rater said of one person.

    Attributes:
        rater: their name, 1 to 80 printable characters.
        person: index of the person among those of the clip, from 0.
        time_s: (n,) rising, on the media's clock.
        valence, arousal: (n,) in [-1, 1].

    Raises:
        ValueError: a field is not so.
    """

    rater: str
    person: int
    time_s: Floats
    valence: Floats
    arousal: Floats

    def __post_init__(self) -> None:
        for name in ("time_s", "valence", "arousal"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        name, count = self.rater, self.time_s.shape
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
            raise ValueError(
                f"rater is {name[:LONGEST_NAME]!r}; accepted: 1 to {LONGEST_NAME} printable"
                " characters without blanks around them"
            )
        if self.person < 0:
            raise ValueError(f"person is {self.person}; accepted: 0 or more")
        if not (self.time_s.ndim == 1 and self.valence.shape == self.arousal.shape == count):
            shapes = (count, self.valence.shape, self.arousal.shape)
            raise ValueError(f"time_s, valence, arousal need one shape (n,), got {shapes}")
        if not np.isfinite(self.time_s).all() or (np.diff(self.time_s) <= 0).any():
            raise ValueError("time_s must be finite and rise from point to point")
        for name in ("valence", "arousal"):
            values = getattr(self, name)
            outside = ~((values >= LOW) & (values <= HIGH))  # NaN too
            if outside.any():
                raise ValueError(f"{name} is {values[outside][0]:g} at a point; accepted: -1 to 1")

    @property
    def rated_s(self) -> float:
        """Seconds that were rated: those between points, without gaps."""
        steps_s = np.diff(self.time_s)
        return float(steps_s[steps_s <= GAP_S].sum())


def at(trace: Trace, times_s: npt.ArrayLike) -> Floats:
    """Return valence and arousal (t, 2) at some times (t,): linear between points.

    NaN before the first point, behind the last one, and within gaps.
    """
    wanted = np.asarray(times_s, np.float64)
    out = np.full((len(wanted), 2), np.nan)
    if not len(trace.time_s):
        return out
    left = np.searchsorted(trace.time_s, wanted, side="right") - 1
    right = np.searchsorted(trace.time_s, wanted, side="left")
    inside = (left >= 0) & (right < len(trace.time_s))
    left, right = left[inside], right[inside]  # one point where a time is exactly that of a point
    rated = trace.time_s[right] - trace.time_s[left] <= GAP_S
    rows = np.flatnonzero(inside)[rated]
    for k, values in enumerate((trace.valence, trace.arousal)):
        out[rows, k] = np.clip(np.interp(wanted[rows], trace.time_s, values), LOW, HIGH)
    return out


def shifted(trace: Trace, lag_s: float) -> Trace:
    """Return the trace as if its rater had rated `lag_s` seconds earlier."""
    return Trace(trace.rater, trace.person, trace.time_s - lag_s, trace.valence, trace.arousal)


def affwild2(va: npt.NDArray[np.floating]) -> str:
    """Write valence and arousal (n, 2) of a video's n frames as an Aff-Wild2 label file.

    A header, then a line a frame: line n behind the header is frame n. "-5,-5" where nothing was
    rated. Six decimals.
    """
    rows = np.where(np.isfinite(va).all(1, keepdims=True), np.round(va, 6) + 0.0, INVALID)
    return "".join([f"{LABEL_HEADER}\n", *(f"{v:.7g},{a:.7g}\n" for v, a in rows.tolist())])


@dataclass(frozen=True)
class Lag:
    """By how much a trace comes late.

    Attributes:
        lag_s: the delay at which the mean CCC of valence and arousal is highest; NaN where there is
            no such maximum: less than 2 s in common, no CCC above 0, or none that falls by 0.01 on
            both sides within the delays that were tried (a constant trace has none).
        low_s, high_s: delays around it whose CCC is at most 0.01 less: how flat the maximum is.
        ccc: mean CCC without a delay; NaN where nothing is in common.
        ccc_at_lag: mean CCC at it; NaN where there is none.
    """

    lag_s: float
    low_s: float
    high_s: float
    ccc: float
    ccc_at_lag: float


def find_lag(trace: Trace, reference: Trace) -> Lag:
    """Find how late a trace is against a reference: a prediction, or the mean of other raters.

    Delays from -1 to 6 s are tried in steps of 0.05 s: the trace at t + delay is compared with the
    reference at t, every 0.1 s. A delay counts if both are known there for 2 s at least, and for
    half as long as at the delay where they are known longest.
    """
    delays_s = np.arange(round((LATEST_S - EARLIEST_S) / LAG_STEP_S) + 1) * LAG_STEP_S + EARLIEST_S
    grid_s = _grid((reference,), 1 / (LAG_STEPS * LAG_STEP_S))
    wanted = at(reference, grid_s)
    fine = np.arange(LAG_STEPS * len(grid_s) + len(delays_s)) * LAG_STEP_S + EARLIEST_S
    said = at(trace, fine + (grid_s[0] if len(grid_s) else 0.0))
    cccs, counts = np.zeros(len(delays_s)), np.zeros(len(delays_s))
    for k in range(len(delays_s)):
        both, counts[k] = _mean_ccc(wanted, said[k::LAG_STEPS][: len(grid_s)])
        cccs[k] = both.mean()
    now = int(np.abs(delays_s).argmin())
    before = float(cccs[now]) if counts[now] else np.nan
    none = Lag(np.nan, np.nan, np.nan, before, np.nan)
    counted = (counts * LAG_STEPS * LAG_STEP_S >= LEAST_S) & (counts >= counts.max() / 2)
    if not counted.any():
        return none
    cccs = np.where(counted, cccs, -np.inf)
    best = int(cccs.argmax())
    lower = np.flatnonzero(counted & (cccs < cccs[best] - FLAT))
    left, right = lower[lower < best], lower[lower > best]
    if cccs[best] <= 0 or not len(left) or not len(right):
        return none
    low_s, high_s = delays_s[left[-1] + 1], delays_s[right[0] - 1]
    return Lag(float(delays_s[best]), float(low_s), float(high_s), before, float(cccs[best]))


@dataclass(frozen=True)
class Rated:
    """How one trace agrees with a prediction.

    Attributes:
        trace: what was rated.
        scores: at the times of the prediction; the trace is taken for the truth.
        lag: of the trace against the prediction.
    """

    trace: Trace
    scores: Scores
    lag: Lag


def against(traces: Sequence[Trace], prediction: Trace) -> list[Rated]:
    """Score a prediction against each trace: CCC, RMSE, sign agreement, lag."""
    said = np.stack((prediction.valence, prediction.arousal), 1)
    return [
        Rated(trace, score(at(trace, prediction.time_s), said), find_lag(trace, prediction))
        for trace in traces
    ]


@dataclass(frozen=True)
class Reliability:
    """Intraclass correlations of k raters over n moments; NaN where undefined.

    From the mean squares of a two-way analysis of variance, moments by raters (Shrout and Fleiss
    1979, "Intraclass correlations: uses in assessing rater reliability"): MSR between moments, MSC
    between raters, MSE what is left.

    Attributes:
        icc_single: ICC(2,1) = (MSR - MSE) / (MSR + (k - 1) MSE + k (MSC - MSE) / n), absolute
            agreement of one rater.
        icc_mean: ICC(2,k) = (MSR - MSE) / (MSR + (MSC - MSE) / n), of the mean of all raters.
        consistency_single: ICC(3,1) = (MSR - MSE) / (MSR + (k - 1) MSE).
        alpha: ICC(3,k) = (MSR - MSE) / MSR, which is Cronbach's alpha.
    """

    icc_single: float
    icc_mean: float
    consistency_single: float
    alpha: float


def reliability(values: npt.ArrayLike) -> Reliability:
    """Intraclass correlations of ratings (n, k): n moments, all rated by k raters."""
    x = np.asarray(values, np.float64)
    n, k = x.shape
    if n < 2 or k < 2:
        return Reliability(np.nan, np.nan, np.nan, np.nan)
    mean, of_moments, of_raters = x.mean(), x.mean(1, keepdims=True), x.mean(0, keepdims=True)
    between = k * ((of_moments - mean) ** 2).sum() / (n - 1)
    raters = n * ((of_raters - mean) ** 2).sum() / (k - 1)
    rest = ((x - of_moments - of_raters + mean) ** 2).sum() / ((n - 1) * (k - 1))
    squares = between, raters, rest
    between, raters, rest = (0.0 if s <= SPREAD_FLOOR**2 else s for s in squares)  # rounding

    def ratio(below: float) -> float:
        return float((between - rest) / below) if below > 0 else np.nan

    return Reliability(
        icc_single=ratio(between + (k - 1) * rest + k * (raters - rest) / n),
        icc_mean=ratio(between + (raters - rest) / n),
        consistency_single=ratio(between + (k - 1) * rest),
        alpha=ratio(between),
    )


@dataclass(frozen=True)
class Agreement:
    """How k raters agree with each other; NaN where two have nothing in common.

    Attributes:
        pairwise: (2, k, k) CCC of each pair, valence and arousal; 1 on the diagonal.
        mean_pairwise: (2,) mean over pairs.
        others: (k, 2) CCC of each with the mean of the others.
        valence, arousal: over the moments that all have rated.
        overlap_s: seconds that all have rated.
    """

    pairwise: Floats
    mean_pairwise: Floats
    others: Floats
    valence: Reliability
    arousal: Reliability
    overlap_s: float


def agreement(traces: Sequence[Trace]) -> Agreement:
    """Compare raters with each other, 25 times a second; at least one trace."""
    times_s, k = _grid(traces, GRID_HZ), len(traces)
    rated = np.stack([at(trace, times_s) for trace in traces])  # (k, t, 2)
    pairwise, others = np.full((2, k, k), np.nan), np.full((k, 2), np.nan)
    for i in range(k):
        pairwise[:, i, i] = 1.0
        for j in range(i):
            pairwise[:, i, j] = pairwise[:, j, i] = _ccc(rated[i], rated[j])
        others[i] = _ccc(rated[i], _mean(np.delete(rated, i, 0)))
    first, second = np.tril_indices(k, -1)
    pairs = pairwise[:, first, second]  # (2, pairs)
    common = rated[:, np.isfinite(rated[..., 0]).all(0)]  # (k, c, 2)
    return Agreement(
        pairwise=pairwise,
        mean_pairwise=_mean(pairs.T[..., None])[:, 0],
        others=others,
        valence=reliability(common[..., 0].T),
        arousal=reliability(common[..., 1].T),
        overlap_s=common.shape[1] / GRID_HZ,
    )


def combined(traces: Sequence[Trace], times_s: npt.ArrayLike) -> Floats:
    """Return the mean (t, 2) of those who rated at each time (t,); NaN where nobody did."""
    return _mean(np.stack([at(trace, times_s) for trace in traces]))


def delays(lags: Sequence[Lag]) -> list[float]:
    """Say by how much to shift each trace: by its lag; the median of the known ones without one."""
    known = [lag.lag_s for lag in lags if np.isfinite(lag.lag_s)]
    usual = float(np.median(known)) if known else 0.0
    return [lag.lag_s if np.isfinite(lag.lag_s) else usual for lag in lags]


def _grid(traces: Sequence[Trace], rate_hz: float) -> Floats:
    """Times (t,) from the first point of all traces to the last one; (0,) without any point."""
    held = [trace.time_s for trace in traces if len(trace.time_s)]
    if not held:
        return np.zeros(0)
    start_s, end_s = min(float(t[0]) for t in held), max(float(t[-1]) for t in held)
    return uniform_grid(start_s, end_s, rate_hz)


def _mean_ccc(x: Floats, y: Floats) -> tuple[Floats, int]:
    """CCC (2,) of two courses (t, 2) where both are known, 0 where one is constant; how many."""
    both = np.isfinite(x[:, 0]) & np.isfinite(y[:, 0])
    sums = [moment_sums(x[both, k], y[both, k]) for k in range(2)]
    return ccc_from_sums(sums), int(both.sum())


def _ccc(x: Floats, y: Floats) -> Floats:
    """CCC (2,) as `_mean_ccc`; NaN where they are not both known at two times at least."""
    values, count = _mean_ccc(x, y)
    return values if count > 1 else np.full(2, np.nan)


def _mean(values: Floats) -> Floats:
    """Mean over the first axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count, total = known.sum(0), np.where(known, values, 0.0).sum(0)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean
