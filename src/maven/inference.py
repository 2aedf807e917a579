"""Features + network -> valence and arousal over time, and what each modality contributed.

A clip is cut into windows whose cores tile it; each is read with the network's whole reach on
either side, so its answer is the one that the whole clip would give. The contribution of a modality
is its Shapley value: the mean change of the answer when it is added to a set of the others, over
all orders of adding them (Shapley 1953); a set of which nothing was observed within reach of a
frame answers the origin there. The three contributions sum to the answer, frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations
from math import factorial

import numpy as np
import torch

from maven.features import Features
from maven.model import MODALITIES, Maven
from maven.timeline import ROUNDING_S, Mask, Times, interpolate, smooth, windows

CORE_S = 16.0
SUBSETS = tuple(
    chain.from_iterable(combinations(MODALITIES, k) for k in range(1, len(MODALITIES) + 1))
)


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
        known = np.isfinite(self.va[:, 0])
        if not known.any():
            return Series(
                time_s, np.full((len(time_s), 2), np.nan), np.full((len(time_s), 3, 2), np.nan)
            )
        flat = self.contributions[known].reshape(-1, len(MODALITIES) * 2)
        contributions = interpolate(self.time_s[known], flat, time_s).reshape(
            -1, len(MODALITIES), 2
        )
        return Series(time_s, contributions.sum(1), contributions)

    def weights(self, observed: Mask) -> Times:
        """Shares (t, 3) of the modalities in the answer, over those `observed` (t, 3).

        A share is proportional to the length of the contribution; shares are >= 0 and sum to 1,
        equal where all contributions vanish, and NaN where nothing was observed.
        """
        lengths = np.where(observed, np.linalg.norm(self.contributions, axis=-1) + 1e-9, 0)
        total = lengths.sum(-1, keepdims=True)
        shares = np.full_like(lengths, np.nan)
        np.divide(lengths, total, out=shares, where=total > 0)
        return shares


@torch.inference_mode()
def infer(model: Maven, features: Features, smoothing_s: float = 0.0) -> Series:
    """Answer every frame of a grid.

    Args:
        model: in eval mode, on the device where it shall run.
        features: of any length.
        smoothing_s: half-width of the centred box that was chosen with the model's weights.
    """
    device = next(model.parameters()).device
    present = [m for m in MODALITIES if features.observed[m].any()]
    subsets = [subset for subset in SUBSETS if set(subset) <= set(present)]
    answers = {subset: np.zeros((len(features.time_s), 2)) for subset in subsets}
    for window in windows(features.time_s, CORE_S, model.config.reach_s) if subsets else ():
        part = slice(window.start, window.stop)
        core = slice(window.core_start - window.start, window.core_stop - window.start)
        values = {
            m: torch.from_numpy(features.values[m][part]).to(device).expand(len(subsets), -1, -1)
            for m in MODALITIES
        }
        observed = {
            m: torch.from_numpy(features.observed[m][part]).to(device)
            & torch.tensor([[m in subset] for subset in subsets], device=device)
            for m in MODALITIES
        }
        time_s = torch.from_numpy(features.time_s[part]).to(device)[None]  # float64
        out = model(values, observed, time_s)
        for subset, answer in zip(subsets, out.double().cpu().numpy(), strict=True):
            answers[subset][window.core_start : window.core_stop] = answer[core]
    reached = {
        m: _reached(features.time_s, features.observed[m], model.config.reach_s) for m in present
    }
    for subset, known in answers.items():
        known[~np.stack([reached[m] for m in subset]).any(0)] = 0.0
    return _series(features, answers, smoothing_s)


def _reached(time_s: Times, observed: Mask, reach_s: float) -> Mask:
    """Say which frames (t,) have one that was `observed` (t,) within reach."""
    counts = np.concatenate(([0], observed.cumsum()))
    low = np.searchsorted(time_s, time_s - reach_s - ROUNDING_S)
    high = np.searchsorted(time_s, time_s + reach_s + ROUNDING_S)
    return np.asarray(counts[high] > counts[low])


def _series(
    features: Features, answers: dict[tuple[str, ...], Times], smoothing_s: float
) -> Series:
    time_s = features.time_s
    anything: Mask = np.logical_or.reduce([features.observed[m] for m in MODALITIES])
    contributions = np.zeros((len(time_s), len(MODALITIES), 2))
    present = {m for subset in answers for m in subset}
    for k, modality in enumerate(MODALITIES):
        others = present - {modality}
        if modality not in present:
            continue
        for size in range(len(others) + 1):
            share = factorial(size) * factorial(len(others) - size) / factorial(len(present))
            for rest in combinations([m for m in MODALITIES if m in others], size):
                joined = tuple(m for m in MODALITIES if m in (*rest, modality))
                base = answers[rest] if rest else 0.0
                contributions[:, k] += share * (answers[joined] - base)
    flat = np.where(anything[:, None], contributions.reshape(len(time_s), -1), np.nan)
    contributions = smooth(time_s, flat, smoothing_s).reshape(contributions.shape)
    return Series(time_s, contributions.sum(1), contributions)
