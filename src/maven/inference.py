"""Features + network -> valence and arousal over time, and what each modality contributed.

A clip is cut into windows whose cores tile it; each is read with the network's whole reach on
either side, so its answer is the one that the whole clip would give. The contribution of a modality
is its Shapley value: the mean change of the answer when it is added to a set of the others, over
all orders of adding them (Shapley 1953); a set of which nothing was observed within reach of a
frame answers the origin there. The three contributions sum to the answer, frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations
from math import factorial
from typing import Protocol

import numpy as np

from maven.checkpoint import NO_REST, Rest
from maven.config import MODALITIES, MavenConfig
from maven.features import Features
from maven.timeline import ROUNDING_S, Floats, Mask, Times, interpolate, smooth, windows

CORE_S = 32.0  # the reach is read anew on either side: longer cores read less of it twice
Answers = dict[tuple[str, ...], Times]  # (t, 2) from each set of modalities
SUBSETS = tuple(
    chain.from_iterable(combinations(MODALITIES, k) for k in range(1, len(MODALITIES) + 1))
)


class Network(Protocol):
    """What answers: `maven.model.Maven`, or the same network without torch."""

    @property
    def config(self) -> MavenConfig:
        """What it is."""

    def answers(
        self, values: Mapping[str, Floats], observed: Mapping[str, Mask], time_s: Times
    ) -> Times:
        """Answer one window, several ways of muting at once.

        Args:
            values: one (t, d_m) a modality.
            observed: one (s, t) a modality.
            time_s: rising, (t,).

        Returns:
            (s, t, 2) valence and arousal.
        """


@dataclass(frozen=True)
class Series:
    """A network's answer at rising times.

    Attributes:
        time_s: (t,).
        va: (t, 2) valence and arousal inside the unit disc; NaN where nothing was observed.
        contributions: (t, 3, 2) of each modality in `MODALITIES` to (valence, arousal); they sum
            to `va`.
    """

    time_s: Times
    va: Times
    contributions: Times

    def at(self, time_s: Times) -> Series:
        """Read the series at other times (n,), NaN if no frame is known.

        Between known frames it is interpolated, beyond them the nearest holds.
        """
        flat = self.contributions.reshape(len(self.time_s), -1)
        contributions = read_at(self.time_s, flat, time_s).reshape(-1, len(MODALITIES), 2)
        return Series(time_s, contributions.sum(1), contributions)

    def weights(self, observed: Mask, rest: Rest = NO_REST) -> Times:
        """Shares (t, 3) of the modalities in the answer, over those `observed` (t, 3).

        A share is proportional to how far the contribution lies from `rest`, the contributions
        where nobody expresses anything (see `resting`): that a voice is there at all moves an
        answer a little, but says nothing. Shares are >= 0 and sum to 1, are equal where all
        contributions are at rest, and NaN where nothing was observed.
        """
        distances = np.linalg.norm(self.contributions - np.array(rest), axis=-1)
        lengths = np.where(observed, distances + 1e-9, 0)
        total = lengths.sum(-1, keepdims=True)
        shares = np.full_like(lengths, np.nan)
        np.divide(lengths, total, out=shares, where=total > 0)
        return shares


def core_s_of(config: MavenConfig) -> float:
    """Length in seconds of the core of a window; the rest of it is only looked at."""
    return CORE_S if config.local else config.window_s / 2


def sight_s(config: MavenConfig) -> float:
    """How far in seconds a network sees to either side of a frame."""
    return config.reach_s if config.local else config.window_s


def read_at(time_s: Times, series: Times, wanted_s: Times) -> Times:
    """Read series (t, k) known at rising times (t,), NaN elsewhere, at other times (n,) -> (n, k).

    Between known frames it is interpolated, beyond them the nearest holds; NaN if none is known.
    """
    known = np.flatnonzero(np.isfinite(series[:, 0]))
    if len(known) == 0 or len(wanted_s) == 0:
        return np.full((len(wanted_s), series.shape[1]), np.nan)
    # Only what lies around is taken: a long series is read in many pieces.
    known_s = time_s[known]
    first = max(int(np.searchsorted(known_s, wanted_s.min(), side="right")) - 1, 0)
    near = known[first : int(np.searchsorted(known_s, wanted_s.max())) + 1]
    return interpolate(time_s[near], series[near], wanted_s)


def answer(model: Network, features: Features, smoothing_s: float = 0.0) -> Times:
    """Answer every frame of a grid from all that was observed, in one pass: `infer(...).va`.

    Returns:
        (t, 2) valence and arousal; NaN where nothing was observed.
    """
    present = tuple(m for m in MODALITIES if features.observed[m].any())
    if not present:
        return np.full((len(features.time_s), 2), np.nan)
    va = np.zeros((len(features.time_s), 2))
    for core, answers in _answers(model, features, [present]):
        va[core] = answers[present]
    anything = np.logical_or.reduce([features.observed[m] for m in MODALITIES])
    return smooth(features.time_s, np.where(anything[:, None], va, np.nan), smoothing_s)


def infer(model: Network, features: Features, smoothing_s: float = 0.0) -> Series:
    """Answer every frame of a grid.

    Args:
        model: in eval mode, on the device where it shall run.
        features: of any length.
        smoothing_s: half-width of the centred box that was chosen with the model's weights.
    """
    present = [m for m in MODALITIES if features.observed[m].any()]
    subsets = [s for s in SUBSETS if set(s) <= set(present)]
    time_s = features.time_s
    contributions = np.zeros((len(time_s), len(MODALITIES), 2))
    for core, answers in _masked(model, features, subsets):
        for k, m in enumerate(MODALITIES):
            contributions[core, k] = contribution(answers, m, core.stop - core.start)
    contributions[~np.logical_or.reduce([features.observed[m] for m in MODALITIES])] = np.nan
    for column in contributions.reshape(len(time_s), -1).T:
        column[:] = smooth(time_s, column[:, None], smoothing_s)[:, 0]
    return Series(time_s, contributions.sum(1), contributions)


def resting(model: Network, neutral: Iterable[Features], smoothing_s: float = 0.0) -> Rest:
    """Mean contributions where all is observed and nothing expressed: in `neutral` clips."""
    found = []
    for features in neutral:
        everything = np.logical_and.reduce([features.observed[m] for m in MODALITIES])
        found.append(infer(model, features, smoothing_s).contributions[everything])
    mean = np.concatenate(found).mean(0)  # (3, 2)
    return tuple((float(valence), float(arousal)) for valence, arousal in mean)


def masked(model: Network, features: Features, subsets: list[tuple[str, ...]]) -> Answers:
    """Answer every frame (t, 2) as if only a subset of the modalities had been observed.

    Where nothing of a subset was observed within reach, its answer is the origin.
    """
    whole = {subset: np.zeros((len(features.time_s), 2)) for subset in subsets}
    for core, answers in _masked(model, features, subsets):
        for subset, va in answers.items():
            whole[subset][core] = va
    return whole


def contribution(answers: Answers, modality: str, t: int) -> Times:
    """Shapley value (t, 2) of one modality, from the answers of all subsets of what there is."""
    total = np.zeros((t, 2))
    present = {m for subset in answers for m in subset}
    others = present - {modality}
    if modality not in present:
        return total
    for size in range(len(others) + 1):
        share = factorial(size) * factorial(len(others) - size) / factorial(len(present))
        for rest in combinations([m for m in MODALITIES if m in others], size):
            joined = tuple(m for m in MODALITIES if m in (*rest, modality))
            total += share * (answers[joined] - (answers[rest] if rest else 0.0))
    return total


def _masked(
    model: Network, features: Features, subsets: list[tuple[str, ...]]
) -> Iterator[tuple[slice, Answers]]:
    """Yield what `masked` returns window by window: no more than one window's is held."""
    named = {m for subset in subsets for m in subset}
    reached = {m: _reached(features.time_s, features.observed[m], model.config) for m in named}
    for core, answers in _answers(model, features, subsets):
        for subset, va in answers.items():
            va[~np.stack([reached[m][core] for m in subset]).any(0)] = 0.0
        yield core, answers


def _answers(
    model: Network, features: Features, subsets: list[tuple[str, ...]]
) -> Iterator[tuple[slice, Answers]]:
    """Yield a window's core and its answers (n, 2) from each subset of what was observed."""
    core_s = core_s_of(model.config)
    for window in windows(features.time_s, core_s, model.config.reach_s) if subsets else ():
        part = slice(window.start, window.stop)
        core = slice(window.core_start - window.start, window.core_stop - window.start)
        observed = {
            m: features.observed[m][part] & np.array([[m in subset] for subset in subsets])
            for m in MODALITIES
        }
        values = {m: features.values[m][part] for m in MODALITIES}
        out = model.answers(values, observed, features.time_s[part])[:, core]
        yield slice(window.core_start, window.core_stop), dict(zip(subsets, out, strict=True))


def _reached(time_s: Times, observed: Mask, config: MavenConfig) -> Mask:
    """Say which frames (t,) have one that was `observed` (t,) within reach."""
    reach_s = sight_s(config)
    counts = np.concatenate(([0], observed.cumsum()))
    low = np.searchsorted(time_s, time_s - reach_s - ROUNDING_S)
    high = np.searchsorted(time_s, time_s + reach_s + ROUNDING_S)
    return np.asarray(counts[high] > counts[low])
