"""Prediction intervals around an answer, calibrated on labelled videos, by what was observed.

Split conformal prediction: residuals, label minus smoothed answer, of videos that no weight was
fitted to say how far below and above an answer its label may lie.

- **Mondrian** (Vovk, Gammerman & Shafer 2005): each of the seven patterns of observed modalities
  has offsets of its own, so that the share covered holds for each pattern.
- **Below and above apart**, each with half of the misses, as conformalised quantile regression does
  (Romano, Patterson & Candes 2019): answers shrink towards rest, so residuals are not symmetric.
- **Valence below zero and above apart**: offsets depend on the sign of the answer's valence, and on
  its value no further. Finer dependence (bins of intensity and quadrant; quantile regression)
  covered quadrants of the label less evenly on other videos.
- **Videos, not frames, are exchangeable**: in every quantile each video weighs the same, however
  long (pooled distribution functions; Dunn, Wasserman & Ramdas 2023, "Distribution-free prediction
  sets for two-layer hierarchical models"). Quantiles cover their own videos too well; so each
  tenth of the videos is tried with the quantiles of the others, and both ends are moved by what
  covers the wanted share then (cross-conformal: Vovk 2015; Barber et al. 2021, CV+).

In corpora some patterns hardly occur. Each video is therefore answered seven times, with every set
of modalities muted throughout; what a pattern shows as it comes and what it shows when muted weigh
the same. A sign seen in fewer than `LEAST_VIDEOS` videos takes the offsets of its pattern whatever
the sign. A pattern seen in fewer takes the widest offsets of those patterns that it contains, which
know less, or of all patterns if it contains none of them. No pattern is narrower, for either sign,
than one that contains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from maven.config import MODALITIES
from maven.features import Features
from maven.timeline import Mask, Times

Labelled = tuple[Features, npt.NDArray[np.floating]]  # labels (t, 2), outside [-1, 1] if invalid
Offsets = npt.NDArray[np.float64]  # (2, 2, 2), all >= 0, see Intervals

SETS = tuple(
    frozenset(names)
    for names in chain.from_iterable(
        combinations(MODALITIES, k) for k in range(len(MODALITIES), 0, -1)
    )
)  # a pattern stands before those that it contains
NOMINAL = 0.9
LEAST_VIDEOS = 10
FOLDS = 10
DIGITS = 4


def name_of(pattern: frozenset[str]) -> str:
    """Name a set of modalities, such as `visual+audio`."""
    return "+".join(m for m in MODALITIES if m in pattern)


@dataclass(frozen=True)
class Intervals:
    """How far labels lie from answers.

    Attributes:
        nominal: share of frames that an interval shall cover, in (0, 1).
        videos: it was calibrated on.
        offsets: (2, 2, 2) a pattern, by name: where the answer's valence is below zero and where
            it is not; of valence and arousal; below and above the answer.
    """

    nominal: float
    videos: int
    offsets: dict[str, Offsets]

    def around(self, va: Times, observed: Mask) -> tuple[Times, Times]:
        """Lower and upper ends (t, 2) around answers.

        Args:
            va: (t, 2) smoothed valence and arousal, NaN where there is no answer.
            observed: (t, 3) which of `MODALITIES` were observed.

        Returns:
            -1 <= lower <= va <= upper <= 1; NaN where there is no answer or nothing was observed.
        """
        moved, sign = np.full((len(va), 2, 2), np.nan), _sign(va)
        for pattern in SETS:
            at = _at(pattern, observed)
            moved[at] = self.offsets[name_of(pattern)][sign[at]]
        low, high = va - moved[:, :, 0], va + moved[:, :, 1]
        return np.clip(low, -1, 1), np.clip(high, -1, 1)

    def to_json(self) -> dict[str, Any]:
        """The same in plain numbers; `from_json` reads it."""
        offsets = {name: values.tolist() for name, values in self.offsets.items()}
        return {"nominal": self.nominal, "videos": self.videos, "offsets": offsets}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Intervals:
        """Read what `to_json` made.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        offsets = {}
        for name in map(name_of, SETS):
            values = np.array(content["offsets"][name], np.float64)
            if values.shape != (2, 2, 2) or not (np.isfinite(values) & (values >= 0)).all():
                raise ValueError(f"intervals of {name} are not 2 x 2 x 2 numbers of 0 or more")
            offsets[name] = values
        nominal = float(content["nominal"])
        if not 0 < nominal < 1:
            raise ValueError(f"nominal share of intervals is {nominal}; accepted: above 0, below 1")
        return cls(nominal, int(content["videos"]), offsets)


@dataclass(frozen=True)
class Frames:
    """Labelled frames (n,) of videos with what a network answered.

    Attributes:
        va, labels: (n, 2), both valid.
        observed: (n, 3) in the order of `MODALITIES`.
        video: number of each frame's video.
        muted: whether a modality was muted throughout the video for this answer.
    """

    va: Times
    labels: Times
    observed: Mask
    video: npt.NDArray[np.int64]
    muted: Mask

    def of(self, chosen: Mask) -> Frames:
        """Those of the frames that are chosen (n,)."""
        return Frames(*(values[chosen] for values in vars(self).values()))


def gather(answer: Callable[[Features], Times], videos: Iterable[Labelled]) -> Frames:
    """Answer videos (t,) as they are and with modalities muted.

    Args:
        answer: gives the smoothed answer (t, 2), NaN where nothing was observed.
        videos: with labels on their grids, as in `maven.datasets.clips.Clip`.
    """
    rows: list[tuple[npt.NDArray[Any], ...]] = []
    for k, (features, labels) in enumerate(videos):
        seen = {m for m in MODALITIES if features.observed[m].any()}
        for pattern in SETS:
            if not pattern <= seen:
                continue
            left, muted = features, seen - pattern
            for modality in muted:
                left = left.without(modality)
            va, observed = answer(left), np.stack([left.observed[m] for m in MODALITIES], 1)
            ok = (np.abs(labels) <= 1).all(1) & np.isfinite(va).all(1)
            n = int(ok.sum())
            rows.append((va[ok], labels[ok], observed[ok], np.full(n, k), np.full(n, bool(muted))))
    if not rows:
        none = np.zeros((0, 2))
        return Frames(none, none, np.zeros((0, 3), bool), np.zeros(0, int), np.zeros(0, bool))
    return Frames(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))


def fit(frames: Frames, nominal: float = NOMINAL) -> Intervals:
    """Find the offsets that cover a nominal share of the frames of other videos.

    Raises:
        ValueError: no pattern was seen in `LEAST_VIDEOS` videos, or a share outside (0, 1).
    """
    if not 0 < nominal < 1:
        raise ValueError(f"the nominal share is {nominal}; accepted: above 0, below 1")
    found = {}
    for pattern in SETS:
        own = frames.of(_at(pattern, frames.observed))
        if _enough(own):
            sides = [own.of(_sign(own.va) == sign) for sign in range(2)]
            found[pattern] = np.stack(
                [_offsets(side if _enough(side) else own, nominal) for side in sides]
            )
    videos = len(np.unique(frames.video))
    if not found:
        raise ValueError(
            f"intervals need {LEAST_VIDEOS} or more videos with valid labels and an answer,"
            f" got {videos}"
        )
    for pattern in set(SETS) - set(found):
        less = [offsets for other, offsets in found.items() if other < pattern]
        found[pattern] = max(less or found.values(), key=lambda offsets: float(offsets.sum()))
    for pattern in SETS:  # those that contain it are done
        width = found[pattern].sum(2)
        wider = [found[other].sum(2) for other in SETS if other > pattern]
        found[pattern] = found[pattern] + (np.max([width, *wider], axis=0) - width)[:, :, None] / 2
    return Intervals(
        nominal, videos, {name_of(pattern): found[pattern].round(DIGITS) for pattern in SETS}
    )


def _at(pattern: frozenset[str], observed: Mask) -> Mask:
    return np.asarray((observed == [m in pattern for m in MODALITIES]).all(1))


def _sign(va: Times) -> npt.NDArray[np.int64]:
    """1 where valence is zero or above, 0 where it is below or unknown."""
    return (va[:, 0] >= 0).astype(np.int64)


def _enough(frames: Frames) -> bool:
    return len(np.unique(frames.video)) >= LEAST_VIDEOS


def _offsets(frames: Frames, nominal: float) -> npt.NDArray[np.float64]:
    """Offsets (2, 2) of valence and arousal, below and above the answers of one pattern."""
    _, video = np.unique(frames.video, return_inverse=True)
    # Each video weighs the same, and in it what comes muted the same as what does not.
    _, part, size = np.unique(2 * video + frames.muted, return_inverse=True, return_counts=True)
    parts = np.bincount(video[np.unique(part, return_index=True)[1]])  # 1 or 2 a video
    weight = 1 / size[part] / parts[video]
    return np.stack(
        [_ends(frames.labels[:, k] - frames.va[:, k], video, weight, nominal) for k in range(2)]
    )


def _ends(
    residual: Times, video: npt.NDArray[np.int64], weight: Times, nominal: float
) -> npt.NDArray[np.float64]:
    """Offsets (2,) below and above that cover residuals (n,) of other videos, all >= 0."""
    tail, outside = (1 - nominal) / 2, np.zeros(len(residual))
    for fold in range(FOLDS):
        tried = video % FOLDS == fold
        low, high = _quantiles(residual[~tried], weight[~tried], (tail, 1 - tail))
        outside[tried] = np.maximum(low - residual[tried], residual[tried] - high)
    (more,) = _quantiles(outside, weight, (nominal,))
    low, high = _quantiles(residual, weight, (tail, 1 - tail))
    return np.maximum([more - low, high + more], 0)


def _quantiles(values: Times, weights: Times, shares: tuple[float, ...]) -> list[float]:
    """Least of the values (n,) up to which at least each share of the weights lies."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    at = np.searchsorted(reached, np.array(shares) * reached[-1] * (1 - 1e-12))
    return [float(value) for value in values[order][at]]


# --- how well they hold --------------------------------------------------------------------------


@dataclass(frozen=True)
class Covered:
    """Share of frames whose label lies in the interval, and the mean width of intervals."""

    frames: int
    valence: float
    arousal: float
    width_valence: float
    width_arousal: float


def coverage(
    intervals: Intervals,
    va: Times,
    labels: npt.NDArray[np.floating],
    observed: Mask,
) -> dict[str, Covered]:
    """Measure intervals on frames (n,) with a valid label and an answer.

    Returns:
        By group, those without a frame left out: `all`; patterns such as `observed visual+audio`;
        quadrants of the label and of the answer, such as `label v+ a-` and `answer v- a-`.
    """
    low, high = intervals.around(va, observed)
    known = (np.abs(labels) <= 1).all(1) & np.isfinite(low).all(1)
    inside, width = (low <= labels) & (labels <= high), high - low
    groups = {"all": known}
    groups |= {f"observed {name_of(pattern)}": _at(pattern, observed) for pattern in SETS}
    for name, values in (("label", labels), ("answer", va)):
        up = values >= 0
        for v in "+-":
            for a in "+-":
                groups[f"{name} v{v} a{a}"] = (up == [v == "+", a == "+"]).all(1)
    found = {}
    for name, group in groups.items():
        at = group & known
        if at.any():
            figures = (*inside[at].mean(0), *width[at].mean(0))
            found[name] = Covered(int(at.sum()), *map(float, figures))
    return found
