"""What drove an answer: at its strongest moments, the face, the voice, the words, and which words.

Effects are measured by masking: how the answer changes when something is left out (`Series` for
modalities, here for words). Attention weights say where the network looked, not what its answer
depends on; they are read for one moment, as an illustration.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maven.circumplex import NEUTRAL
from maven.config import MODALITIES, PATHS, MavenConfig
from maven.encoders.base import encode_words
from maven.features import Features
from maven.inference import (
    SUBSETS,
    Network,
    Series,
    contribution,
    core_s_of,
    masked,
    read_at,
    sight_s,
)
from maven.render.summary import MOMENT_GAP_S, peaks, words_around
from maven.render.tables import OBSERVED
from maven.timeline import Mask, Times, place_words, smooth, windows

if TYPE_CHECKING:
    import pandas as pd

    from maven.encoders.base import TextEncoder
    from maven.model import Maven
    from maven.transcript import Word

MEASURED_WORDS = 20  # at most, the nearest: a moment has few that matter
CONTEXT_WORDS = 100  # encoded before and after those within reach of a moment
END_MARKS = re.compile(r"[^\w\s]*$")  # what ends a sentence stays when its last word is left out
AXES = ("valence", "arousal")
BOUNDS = tuple(f"{axis}_{end}" for axis in AXES for end in ("low", "high"))


@dataclass(frozen=True)
class Driver:
    """One modality at a moment.

    Attributes:
        observed: whether it was there at that very moment.
        share: its weight, 0 to 1 (see `Series.weights`).
        valence, arousal: its contribution; those of the three sum to the answer.
    """

    observed: bool
    share: float
    valence: float
    arousal: float


@dataclass(frozen=True)
class WordEffect:
    """What a word adds at a moment: the words' contribution with it less the one without it."""

    text: str
    start_s: float
    end_s: float
    valence: float
    arousal: float


@dataclass(frozen=True)
class Moment:
    """A moment and what drove its answer.

    Attributes:
        row: of the table.
        interval: (valence_low, valence_high, arousal_low, arousal_high), None without intervals.
        said: the words spoken around it, "" for none.
        drivers: by modality, in the order of `MODALITIES`.
        words: the nearest within the network's reach, those with the largest effect first.
    """

    row: int
    time_s: float
    valence: float
    arousal: float
    intensity: float
    emotion: str
    interval: tuple[float, float, float, float] | None
    said: str
    drivers: dict[str, Driver]
    words: tuple[WordEffect, ...]


@dataclass(frozen=True)
class Looks:
    """Where the network's frame nearest to a moment looks, on each of the six cross-modal paths.

    Attributes:
        time_s: of that frame.
        around_s: (n,) times of the frames that it can see.
        weights: (n,) by path (to, of), the mean over the heads: they sum to 1, or are all 0 where
            there is nothing to see.
        observed: (n,) by modality.
    """

    time_s: float
    around_s: Times
    weights: dict[tuple[str, str], Times]
    observed: dict[str, Mask]


def strongest(rows: pd.DataFrame, count: int) -> list[int]:
    """Choose the rows of one person's table that tell most.

    First the highest peaks of intensity, 2 s apart; then the middles of the longest stretches in a
    named region, other than neutral, that has no moment yet.
    """
    time_s, intensity = (rows[name].to_numpy(np.float64) for name in ("time_s", "intensity"))
    chosen = peaks(time_s, intensity, MOMENT_GAP_S)[:count]
    emotion = rows["emotion"].fillna(NEUTRAL).to_numpy(str)
    ends = np.flatnonzero(emotion[1:] != emotion[:-1]) + 1
    stretches = np.split(np.arange(len(rows)), ends)
    for stretch in sorted(stretches, key=lambda s: time_s[s[0]] - time_s[s[-1]]):
        middle = int(stretch[len(stretch) // 2])
        known = {NEUTRAL, *(emotion[k] for k in chosen)}
        far = all(abs(time_s[middle] - time_s[k]) >= MOMENT_GAP_S for k in chosen)
        if len(chosen) < count and emotion[middle] not in known and far:
            chosen.append(middle)
    return chosen


def nearest(rows: pd.DataFrame, time_s: float) -> int | None:
    """Return the row with an answer that is nearest to a time; None without any answer."""
    distance_s = (rows["time_s"] - time_s).abs().where(rows["valence"].notna()).to_numpy(np.float64)
    return int(np.nanargmin(distance_s)) if np.isfinite(distance_s).any() else None


def moment(
    rows: pd.DataFrame,
    series: Series,
    row: int,
    words: Sequence[Word],
    effects: Sequence[WordEffect],
) -> Moment:
    """Gather what is known of one row of a person's table, whose series is at the same times."""
    at = rows.iloc[row]
    bounds = [float(at[name]) for name in BOUNDS]
    drivers = {
        m: Driver(
            bool(at[has]), float(at[f"{m}_weight"]), *map(float, series.contributions[row, k])
        )
        for k, (m, has) in enumerate(zip(MODALITIES, OBSERVED, strict=True))
    }
    return Moment(
        row,
        float(at["time_s"]),
        float(at["valence"]),
        float(at["arousal"]),
        float(at["intensity"]),
        str(at["emotion"]),
        (bounds[0], bounds[1], bounds[2], bounds[3]) if np.isfinite(bounds).all() else None,
        words_around(words, float(at["time_s"])),
        drivers,
        tuple(effects),
    )


def reach_s(config: MavenConfig, smoothing_s: float) -> float:
    """How far from a time anything can matter to the smoothed answer that is read there."""
    return sight_s(config) + smoothing_s + 1 / config.rate_hz


def word_effects(
    network: Network,
    features: Features,
    words: Sequence[Word],
    encoder: TextEncoder,
    time_s: float,
    smoothing_s: float,
) -> tuple[WordEffect, ...]:
    """Leave each word near a time out, and see how the contribution of the words changes there.

    A word left out is missing from its sentence too: the others are encoded without it, at their
    own times, and its time is a pause between its neighbours. As the contribution is a mean over
    all sets of the other modalities, a word counts where the face alone says as much already.
    Words that say the same hide each other: the effects need not sum to the contribution.
    More than `CONTEXT_WORDS` away from those in reach, words do not take part in the encoding.

    Args:
        network: on its device.
        features: of the whole clip on the network's grid.
        words: of the whole clip.
        encoder: the one that `features` were made with.
        time_s: of the moment.
        smoothing_s: half-width of the box over the answer.

    Returns:
        The words within reach, at most the `MEASURED_WORDS` nearest; the largest effect first.
    """
    far_s = reach_s(network.config, smoothing_s)
    low_s, high_s = time_s - far_s, time_s + far_s
    near = [k for k, w in enumerate(words) if w.end_s > low_s and w.start_s < high_s]
    near = sorted(near, key=lambda k: _distance_s(words[k], time_s))[:MEASURED_WORDS]
    grid = slice(*np.searchsorted(features.time_s, (low_s, high_s)))
    clip = Features(
        features.time_s[grid],
        {m: x[grid] for m, x in features.values.items()},
        {m: x[grid] for m, x in features.observed.items()},
    )
    if not near or not clip.observed["text"].any():
        return ()
    first = max(min(near) - CONTEXT_WORDS, 0)
    context = words[first : max(near) + 1 + CONTEXT_WORDS]
    there = {m for m in MODALITIES if clip.observed[m].any()}
    subsets = [subset for subset in SUBSETS if set(subset) <= there]
    wordless = masked(network, clip, [s for s in subsets if "text" not in s])

    def contributed(left_out: int | None) -> Times:
        kept = [k for k in range(len(context)) if k != left_out]
        texts = [_marks(w.text) if k == left_out else w.text for k, w in enumerate(context)]
        placed = place_words(
            [context[k].start_s for k in kept],
            [context[k].end_s for k in kept],
            [context[k].segment for k in kept],
            encode_words(texts, encoder)[kept],
            clip.time_s,
        )
        said = clip.replaced("text", placed.features, placed.mask)
        answers = wordless | masked(network, said, [s for s in subsets if "text" in s])
        series = smooth(clip.time_s, contribution(answers, "text", len(clip.time_s)), smoothing_s)
        return np.asarray(read_at(clip.time_s, series, np.array([time_s]))[0])

    full = contributed(None)
    effects = []
    for k in near:
        valence, arousal = map(float, full - contributed(k - first))
        word = words[k]
        effects.append(WordEffect(word.text.strip(), word.start_s, word.end_s, valence, arousal))
    return tuple(sorted(effects, key=lambda e: -float(np.hypot(e.valence, e.arousal))))


def _distance_s(word: Word, time_s: float) -> float:
    return max(word.start_s - time_s, time_s - word.end_s, 0.0)


def _marks(text: str) -> str:
    """Return what a word leaves when it is left out: the marks that end its sentence."""
    found = END_MARKS.search(text.strip())
    return found.group() if found else ""


def looks(network: Maven, features: Features, time_s: float) -> Looks:
    """Read the six-path attention of the network's frame that is nearest to a time."""
    import torch

    config = network.config
    frame = int(np.abs(features.time_s - time_s).argmin())
    tiles = windows(features.time_s, core_s_of(config), config.reach_s)
    window = next(w for w in tiles if frame < w.core_stop)
    part = slice(window.start, window.stop)
    device = next(network.parameters()).device
    grid_s = features.time_s[part]
    with torch.inference_mode():
        found = network.looks(
            {m: torch.tensor(features.values[m][part], device=device)[None] for m in MODALITIES},
            {m: torch.tensor(features.observed[m][part], device=device)[None] for m in MODALITIES},
            torch.from_numpy(grid_s).to(device)[None],
            frame - window.start,
        )
    far_s = config.radius_s if config.radius_s is not None else np.inf
    around = np.abs(grid_s - features.time_s[frame]) <= far_s + 1e-6
    return Looks(
        float(features.time_s[frame]),
        grid_s[around],
        {path: found[path][0].mean(0).double().cpu().numpy()[around] for path in PATHS},
        {m: features.observed[m][part][around] for m in MODALITIES},
    )
