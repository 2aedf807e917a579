"""One clock, one grid: frames, audio hops and words placed on it by time, each with a mask.

All times are seconds on the media's clock. A grid is an array of rising times (t,); what is placed
on it is features (t, d) and a mask (t,) that says where they were observed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

WORD_GAP_S = 1.0  # between words of one segment further apart than this nothing is said
BLOCK = 4096  # of a long grid: what is computed of so many times at once is small
ROUNDING_S = 1e-9  # times this close are the same: they are sums of fractions


@dataclass(frozen=True)
class Placed:
    """Features (t, d) on a grid, zero where `mask` (t,) is False."""

    features: Floats
    mask: Mask


def uniform_grid(start_s: float, end_s: float, rate_hz: float) -> Times:
    """Times start_s, start_s + 1 / rate_hz, ... up to and including end_s; at least one."""
    count = max(int(np.floor((end_s - start_s) * rate_hz + 1e-6)) + 1, 1)
    return start_s + np.arange(count) / rate_hz


def _edges(grid_s: Times, lone_s: float) -> Times:
    """Bounds (t + 1,) of the times nearer to a grid time (t,) than to its neighbours.

    The ends reach as far outwards as the usual step does, the cell of a lone grid time `lone_s`.
    """
    half_s = np.median(np.diff(grid_s)) / 2 if len(grid_s) > 1 else lone_s / 2
    middles = (grid_s[1:] + grid_s[:-1]) / 2
    return np.concatenate(([grid_s[0] - half_s], middles, [grid_s[-1] + half_s])) - ROUNDING_S


def place_samples(times_s: Times, values: Floats, grid_s: Times, max_gap_s: float) -> Placed:
    """Place samples (n, d) taken at rising times (n,) on a grid (t,).

    A grid time takes the mean of the samples nearer to it than to its neighbours; where there is
    none, it lies between two samples at most `max_gap_s` apart and takes their interpolation; else
    it is masked.
    """
    out = np.zeros((len(grid_s), values.shape[1]), np.float32)
    mask = np.zeros(len(grid_s), bool)
    if len(times_s) == 0 or len(grid_s) == 0:
        return Placed(out, mask)
    bounds = np.searchsorted(times_s, _edges(grid_s, max_gap_s))
    counts = np.diff(bounds)
    filled = counts > 0
    for cells in np.array_split(np.flatnonzero(filled), len(grid_s) // BLOCK + 1):
        if len(cells):
            first, stop = bounds[cells[0]], bounds[cells[-1] + 1]
            sums = np.add.reduceat(values[first:stop], bounds[cells] - first, 0, np.float64)
            out[cells] = sums / counts[cells, None]
    after = np.searchsorted(times_s, grid_s)
    inside = ~filled & (after > 0) & (after < len(times_s))
    k = after[inside]
    gap_s = times_s[k] - times_s[k - 1]
    share = ((grid_s[inside] - times_s[k - 1]) / gap_s)[:, None]
    near = gap_s <= max_gap_s + ROUNDING_S
    out[np.flatnonzero(inside)[near]] = ((1 - share) * values[k - 1] + share * values[k])[near]
    mask[filled] = True
    mask[np.flatnonzero(inside)[near]] = True
    return Placed(out, mask)


def place_words(
    starts_s: Sequence[float],
    ends_s: Sequence[float],
    segments: Sequence[int],
    values: Floats,
    grid_s: Times,
) -> Placed:
    """Place word vectors (n, d) on a grid (t,): eqs. 8-12, interpolated in time.

    A word holds from its start to its end, the later one where two overlap. One so short that it
    falls between two grid times is seen at the nearest, unless another holds there. Between two
    words of one segment at most 1 s apart the vectors are interpolated; elsewhere there are no
    words and the grid is masked.
    """
    out = np.zeros((len(grid_s), values.shape[1]), np.float32)
    mask = np.zeros(len(grid_s), bool)
    if len(values) == 0 or len(grid_s) == 0:
        return Placed(out, mask)
    start_s, end_s = np.asarray(starts_s, np.float64), np.asarray(ends_s, np.float64)
    order = np.argsort(start_s, kind="stable")
    first = np.searchsorted(grid_s, start_s - ROUNDING_S)
    stop = np.searchsorted(grid_s, end_s - ROUNDING_S)
    for k, following in pairwise(order):
        pause_s = start_s[following] - end_s[k]
        if segments[following] == segments[k] and 0 < pause_s <= WORD_GAP_S + ROUNDING_S:
            between = slice(stop[k], first[following])
            share = np.clip((grid_s[between] - end_s[k]) / pause_s, 0, 1)[:, None]
            out[between] = (1 - share) * values[k] + share * values[following]
            mask[between] = True
    nearest = np.searchsorted(_edges(grid_s, WORD_GAP_S), (start_s + end_s) / 2, side="right") - 1
    for k in order[first[order] == stop[order]]:
        at = slice(nearest[k], nearest[k] + 1)  # empty beyond the ends
        out[at], mask[at] = values[k], True
    for k in order:
        inside = slice(first[k], stop[k])
        out[inside], mask[inside] = values[k], True
    return Placed(out, mask)


def interpolate(times_s: Times, values: npt.NDArray[np.floating], grid_s: Times) -> Times:
    """Read series (n, k) known at rising times (n,) at the times of a grid (t,) -> (t, k).

    Before the first and after the last known time, their values hold.
    """
    return np.stack([np.interp(grid_s, times_s, column) for column in values.T], 1)


def within(times_s: Times, spans_s: Sequence[tuple[float, float]]) -> Mask:
    """Say which rising times (t,) lie in one of the spans: start <= time < end."""
    mask = np.zeros(len(times_s), bool)
    for start_s, end_s in spans_s:
        bounds_s = (start_s - ROUNDING_S, end_s - ROUNDING_S)
        mask[slice(*np.searchsorted(times_s, bounds_s))] = True
    return mask


@dataclass(frozen=True)
class Window:
    """A part of the grid: frames [start, stop) are read, [core_start, core_stop) are answered."""

    start: int
    stop: int
    core_start: int
    core_stop: int


def windows(grid_s: Times, core_s: float, margin_s: float) -> Iterator[Window]:
    """Cut a grid (t,) into cores of `core_s` seconds, each read with `margin_s` on either side."""
    start = 0
    while start < len(grid_s):
        stop = int(np.searchsorted(grid_s, grid_s[start] + core_s - ROUNDING_S))
        stop = max(stop, start + 1)
        low = int(np.searchsorted(grid_s, grid_s[start] - margin_s - ROUNDING_S))
        high = int(np.searchsorted(grid_s, grid_s[stop - 1] + margin_s + ROUNDING_S))
        yield Window(low, high, start, stop)
        start = stop


def smooth(times_s: Times, values: Times, half_width_s: float) -> Times:
    """Centred box filter in time over a series (t, k) at rising times; NaN frames do not count.

    A frame takes the mean of the known frames within `half_width_s` of it; unknown ones stay so.
    """
    if half_width_s <= 0 or len(values) == 0:
        return values
    low = np.searchsorted(times_s, times_s - half_width_s - ROUNDING_S)
    high = np.searchsorted(times_s, times_s + half_width_s + ROUNDING_S)
    out = np.full(values.shape, np.nan)
    for column, smoothed in zip(values.T, out.T, strict=True):  # one at a time: series are long
        known = np.isfinite(column)
        sums = np.concatenate(([0.0], np.where(known, column, 0).cumsum()))
        counts = np.concatenate(([0], known.cumsum()))
        mean = (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1)
        smoothed[known] = mean[known]
    return out
