"""Clips with labels on the network's grid, and the batches that are drawn from them.

Everything random is a pure function of (seed, epoch, sample): nothing has a state. Training goes on
from an epoch's number alone, and how a batch is shared out over processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maven.config import MODALITIES
from maven.datasets.affwild2 import INVALID, group_of
from maven.features import Features, assemble
from maven.metrics import valid_labels
from maven.store import (
    Arrays,
    ClipKeys,
    Manifest,
    Mapped,
    Recording,
    Store,
    StoreError,
    load_entry,
    read_manifest,
)
from maven.store import key as store_key
from maven.timeline import Times, place_samples, uniform_grid

Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]
Sample = tuple[Features, Floats]  # labels (t, 2)

FOLDS = 6
FORMAT = 1  # to be raised with every change of code that changes a grid's values
MOMENT_FRAMES = 20_000  # at most, of which a modality's mean and spread are taken


@dataclass(frozen=True)
class Clip:
    """One video with all that is learnt from and scored.

    Attributes:
        name: of the video.
        split: "train", "val" or "test".
        features: on the uniform grid (t,); the values stay on disk until they are read.
        labels: (t, 2) valence and arousal on the grid, -5 where no frame has a valid label.
        frame_s: (n,) times of the video's frames.
        frame_labels: (n, 2) as annotated; (0, 2) for a video without labels.
        person: "", "left" or "right".
    """

    name: str
    split: str
    features: Features
    labels: Floats
    frame_s: Times
    frame_labels: Floats
    person: str = ""


def load_clips(
    store_folder: Path | str,
    rate_hz: float,
    split: str | Sequence[str] | None = None,
    manifest: str | None = None,
    rank: int = 0,
    world: int = 1,
) -> list[Clip]:
    """Load the clips of a feature store on a uniform grid.

    What is placed on the grid is kept in the store, so the next time it is only mapped from disk;
    where that is damaged, it is made anew.
    All that is read is compared with the store's checksums; of processes that load the same clips,
    each compares its share, which comes first, so that they do not make the same grids either.

    Args:
        store_folder: as `maven features` wrote it.
        rate_hz: of the grid.
        split: one or several of "train", "val", "test"; None for all.
        manifest: its name, where the store has several.
        rank: number of this process out of `world`; they must all have loaded before one goes on.
        world: number of processes.

    Raises:
        StoreError: a file is missing or damaged, or the store cannot be written.
    """
    about = read_manifest(store_folder, manifest)
    wanted = (split,) if isinstance(split, str) else split
    chosen = [keys for keys in about.clips if wanted is None or keys.split in wanted]
    store, first, end = Store(store_folder), *(len(chosen) * k // world for k in (rank, rank + 1))
    clips = {
        k: _load(store, about, chosen[k], rate_hz, first <= k < end)
        for k in [*range(first, len(chosen)), *range(first)]
    }
    if store.mended and world > 1:  # another process may have read what it was
        raise StoreError(f"{store.mended[0]}; run this again")
    return [clips[k] for k in range(len(chosen))]


def _load(store: Store, manifest: Manifest, keys: ClipKeys, rate_hz: float, check: bool) -> Clip:
    frame_s = np.array(store.get("frames", keys.frames, check=check)["frame_s"])
    if not len(frame_s):
        raise StoreError(f"{store.folder}: {keys.name} holds no frame; leave it out of the corpus")
    frame_labels = np.zeros((0, 2), np.float32)
    if keys.labels is not None:
        frame_labels = np.array(store.get("labels", keys.labels, check=check)["labels"])
    place = store_key(
        format=FORMAT, rate_hz=rate_hz, widths=manifest.widths, frames=keys.frames,
        labels=keys.labels, visual=keys.visual, audio=keys.audio, words=keys.words,
    )  # fmt: skip
    grid_s = uniform_grid(frame_s[0], frame_s[-1] + 1 / rate_hz, rate_hz)

    def make() -> Arrays:
        features = place_recording(load_entry(store, keys), grid_s, manifest.widths)
        observed = np.stack([features.observed[m] for m in MODALITIES], 1)
        labels = grid_labels(frame_s, frame_labels, grid_s)
        return {**features.values, "observed": observed, "labels": labels}

    held = store.made("grid", place, make, check=check)
    observed = np.array(held["observed"])
    features = Features(
        grid_s,
        Mapped({m: held[m] for m in MODALITIES}),
        {m: observed[:, k].copy() for k, m in enumerate(MODALITIES)},
    )
    labels = np.array(held["labels"])
    return Clip(keys.name, keys.split, features, labels, frame_s, frame_labels, keys.person)


def place_recording(recording: Recording, grid_s: Times, widths: dict[str, int]) -> Features:
    """Place what was observed in one video on a grid (t,)."""
    frame_s = recording.frame_s
    period_s = float(np.median(np.diff(frame_s))) if len(frame_s) > 1 else 0.0
    return assemble(
        grid_s, widths, recording.visual, recording.audio, recording.speech, recording.words,
        recording.text, period_s,
    )  # fmt: skip


def grid_labels(frame_s: Times, labels: Floats, grid_s: Times) -> Floats:
    """Mean (t, 2) of the valid labels (n, 2) of the frames nearest to each grid time, else -5."""
    valid = valid_labels(*labels.T)
    placed = place_samples(frame_s[: len(labels)][valid], labels[valid], grid_s, max_gap_s=0.0)
    return np.where(placed.mask[:, None], placed.features, np.float32(INVALID))


def split_clips(clips: Sequence[Clip], fold: str | int) -> tuple[list[Clip], list[Clip]]:
    """Part labelled clips into those to train and those to validate on.

    Args:
        clips: any; those of "test" are in neither part.
        fold: "official", or 0 to 5: that fold of `maven.datasets.affwild2.folds` validates, and
            fold 0 is the official validation set.

    Raises:
        ValueError: no such fold.
    """
    known = [clip for clip in clips if clip.split in ("train", "val")]
    if fold == "official":
        fold = 0
    if isinstance(fold, bool) or fold not in range(FOLDS):
        raise ValueError(f"fold must be official or 0 to {FOLDS - 1}, got {fold!r}")
    held = {clip.name for clip in known if clip.split == "val"}
    if fold != 0:
        held = _dealt([clip for clip in known if clip.split == "train"])[int(fold) - 1]
    train = [clip for clip in known if clip.name not in held]
    return train, [clip for clip in known if clip.name in held]


def only(clips: Sequence[Clip], keep: Sequence[str]) -> list[Clip]:
    """The same clips as if no other modalities than `keep` had been observed."""
    left = []
    for clip in clips:
        features = clip.features
        for m in MODALITIES:
            if m not in keep:
                features = features.without(m)
        left.append(replace(clip, features=features))
    return left


def _dealt(clips: Sequence[Clip]) -> list[set[str]]:
    """Deal training clips into folds by the rule of `maven.datasets.affwild2.folds`."""
    groups: dict[str, list[Clip]] = {}
    for clip in sorted(clips, key=lambda clip: clip.name):
        groups.setdefault(group_of(clip.name), []).append(clip)
    frames = {name: sum(len(c.frame_labels) for c in group) for name, group in groups.items()}
    dealt: list[set[str]] = [set() for _ in range(FOLDS - 1)]
    totals = [(0, 0, k) for k in range(FOLDS - 1)]  # frames, videos, fold
    for name in sorted(groups, key=lambda name: (-frames[name], name)):
        held, videos, k = min(totals)
        dealt[k] |= {clip.name for clip in groups[name]}
        totals[k] = (held + frames[name], videos + len(groups[name]), k)
    return dealt


def moment_sample(clips: Sequence[Clip], modality: str) -> npt.NDArray[np.float64]:
    """Observed features (n, d) of a modality, evenly thinned to `MOMENT_FRAMES` at most."""
    total = sum(int(clip.features.observed[modality].sum()) for clip in clips)
    stride, first, parts = max(-(-total // MOMENT_FRAMES), 1), 0, []
    for clip in clips:
        at = np.flatnonzero(clip.features.observed[modality])
        parts.append(clip.features.values[modality][at[first::stride]].astype(np.float64))
        first = (first - len(at)) % stride
    return np.concatenate(parts)


# --- batches ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Windows of one length, `b` of them with `t` frames each.

    Attributes:
        values: (b, t, d_m) float32 a modality.
        observed: (b, t) bool a modality.
        time_s: (b, t) float64 from each window's start; (1, t) where all share the grid.
        target: (b, t, 2) valence and arousal, -5 where invalid and beyond a clip's ends.
        seeds: (b,) int64, from which each sample's own random numbers come; on the CPU.
    """

    values: dict[str, Tensor]
    observed: dict[str, Tensor]
    time_s: Tensor
    target: Tensor
    seeds: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        return Batch(
            {m: x.to(device) for m, x in self.values.items()},
            {m: x.to(device) for m, x in self.observed.items()},
            self.time_s.to(device),
            self.target.to(device),
            self.seeds,
        )


class Source(Protocol):
    """Where a training loop gets its batches."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Samples rank, rank + world, ... of a batch; where there is none, one that counts nothing.

        Args:
            epoch: from 1.
            step: from 0.
            rank: number of the process out of `world`.
            world: number of processes.
        """


class Windows:
    """Clips cut into windows anew each epoch, at random offsets, in random order.

    A clip of T frames has the same number of windows of w frames in every epoch, T / w + 1 on
    average, or one if it is no longer than that; each of its frames is in exactly one of them.
    """

    def __init__(self, clips: Sequence[Clip], window_s: float, batch: int, seed: int = 0) -> None:
        assert clips
        grid_s = clips[0].features.time_s
        rate_hz = (len(grid_s) - 1) / (grid_s[-1] - grid_s[0])
        self._clips, self._size, self._seed = clips, batch, seed
        self._frames = w = max(round(window_s * rate_hz), 1)
        self._time_s = torch.arange(w, dtype=torch.float64)[None] / rate_hz
        lengths = np.array([len(clip.features.time_s) for clip in clips])
        counts = np.where(lengths <= w, 1, -(-(2 * lengths + w - 1) // (2 * w)))
        self._clip = np.repeat(np.arange(len(clips)), counts)  # of each window
        self._window = np.concatenate([np.arange(count) for count in counts])
        slack = counts * w - lengths
        self._least, self._most = np.maximum(slack - w + 1, 0), np.minimum(slack, w - 1)
        self._plan: tuple[int, Hashes, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-len(self._clip) // self._size)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Cut this process's windows of a batch, see `Source`."""
        if self._plan is None or self._plan[0] != epoch:
            self._plan = (epoch, *self._planned(epoch))
        _, seeds, starts, order = self._plan
        chosen = order[step * self._size : (step + 1) * self._size][rank::world]
        w, count = self._frames, max(len(chosen), 1)
        features = self._clips[0].features
        values = {m: torch.zeros(count, w, features.values[m].shape[1]) for m in MODALITIES}
        observed = {m: torch.zeros(count, w, dtype=torch.bool) for m in MODALITIES}
        target = torch.full((count, w, 2), INVALID)
        for k, window in enumerate(chosen):
            clip, start = self._clips[self._clip[window]], int(starts[window])
            low, high = max(start, 0), min(start + w, len(clip.labels))
            at = slice(low - start, high - start)
            for m in MODALITIES:
                values[m].numpy()[k, at] = clip.features.values[m][low:high]
                observed[m].numpy()[k, at] = clip.features.observed[m][low:high]
            target.numpy()[k, at] = clip.labels[low:high]
        own = seeds[chosen] if len(chosen) else np.zeros(1, np.uint64)
        return Batch(values, observed, self._time_s, target, _signed(own))

    def _planned(self, epoch: int) -> tuple[Hashes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Seeds, first frames and order (n,) of an epoch's windows."""
        seeds = hashed(self._seed, epoch, self._clip, self._window)
        draws = hashed(self._seed, epoch, np.arange(len(self._clips)), 0xC11F)
        span = (self._most - self._least + 1).astype(np.uint64)
        offsets = self._least + (draws % span).astype(np.int64)
        starts = self._window * self._frames - offsets[self._clip]
        order = np.argsort(hashed(self._seed, epoch, np.arange(len(seeds)), 0x0DE6), kind="stable")
        return seeds, starts, order


class Stream:
    """Sequences made on demand, all of one length, each from its own random generator."""

    def __init__(
        self,
        draw: Callable[[np.random.Generator], Sample],
        steps_per_epoch: int,
        batch: int,
        seed: int = 0,
    ) -> None:
        self._draw, self._steps, self._size, self._seed = draw, steps_per_epoch, batch, seed

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self._steps

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Draw this process's sequences of a batch, see `Source`."""
        chosen = list(range(self._size)[rank::world])
        seeds = hashed(self._seed, epoch, step, np.array(chosen or [0]))
        samples = [self._draw(np.random.default_rng(int(seed))) for seed in seeds]
        target = _stacked([labels for _, labels in samples])
        grid_s = samples[0][0].time_s
        return Batch(
            {m: _stacked([features.values[m] for features, _ in samples]) for m in MODALITIES},
            {m: _stacked([features.observed[m] for features, _ in samples]) for m in MODALITIES},
            torch.from_numpy(grid_s - grid_s[0])[None],
            target if chosen else torch.full_like(target, INVALID),
            _signed(seeds),
        )


def _stacked(arrays: Sequence[npt.NDArray[np.generic]]) -> Tensor:
    """Stack in memory aligned by torch: how sums are taken can depend on where numbers lie."""
    return torch.stack([torch.from_numpy(array) for array in arrays])


def hashed(*parts: int | npt.NDArray[np.integer]) -> Hashes:
    """Mix numbers, or arrays that broadcast, into well-spread 64 bits (splitmix64's finaliser)."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = state + np.asarray(part).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return state


def _signed(seeds: Hashes) -> Tensor:
    return torch.from_numpy((seeds >> np.uint64(1)).astype(np.int64))
