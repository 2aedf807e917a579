"""Clips of random features with labels, a small network to answer them, and slow figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from maven.config import MODALITIES, MavenConfig
from maven.datasets.clips import Clip
from maven.features import Features
from maven.model import Maven
from maven.timeline import uniform_grid

Floats = npt.NDArray[np.floating]
CONFIG = MavenConfig(
    5, 4, 3, width=8, heads=2, join_width=8, join_heads=2, join_layers=1, radius_s=0.5
)


def small_network(seed: int = 0) -> Maven:
    """Random weights large enough for lively answers."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        made = Maven(CONFIG).eval()
        for parameter in made.parameters():
            spread = 0.6 if parameter.ndim > 1 else 0.1
            parameter.add_(spread * torch.randn(parameter.shape))
    return made


def clip(
    name: str,
    seconds: float = 12.0,
    seed: int = 0,
    fps: float = 25.0,
    start_s: float = 0.4,
    split: str = "val",
    widths: tuple[int, int, int] = (5, 4, 3),
    invalid: float = 0.1,
    blind: bool = False,
    labelled: bool = True,
) -> Clip:
    """A video: each modality observed in stretches of 1.5 s, a share of its labels invalid."""
    rng = np.random.default_rng(seed)
    grid_s = uniform_grid(start_s, start_s + seconds, CONFIG.rate_hz)
    frame_s = start_s + np.arange(round(seconds * fps)) / fps
    values, observed = {}, {}
    for m, width in zip(MODALITIES, widths, strict=True):
        on = np.repeat(rng.uniform(size=len(grid_s) // 15 + 1) < 0.6, 15)[: len(grid_s)]
        observed[m] = on & (not blind)
        drawn = rng.normal(size=(len(grid_s), width)).astype(np.float32)
        values[m] = np.where(observed[m][:, None], drawn, np.float32(0))
    phase = rng.uniform(0, 6, 4)
    labels = np.stack(
        [
            0.6 * np.sin(0.7 * frame_s + phase[0]) * np.cos(0.2 * frame_s + phase[1]),
            0.3 * np.cos(0.9 * frame_s + phase[2]) + 0.2 * np.sin(0.1 * frame_s + phase[3]),
        ],
        1,
    ).astype(np.float32)
    labels[rng.uniform(size=len(labels)) < invalid] = -5
    return Clip(
        name,
        split,
        Features(grid_s, values, observed),
        np.full((len(grid_s), 2), -5, np.float32),  # the grid's labels are for training
        frame_s,
        labels if labelled else np.zeros((0, 2), np.float32),
        "left" if name.endswith("_left") else "",
    )


def slow_ccc(x: Sequence[float], y: Sequence[float]) -> float:
    """Lin's formula, sums written out, divisor n."""
    n = len(x)
    x_mean, y_mean = math.fsum(x) / n, math.fsum(y) / n
    s_xy = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / n
    s_x = math.fsum((a - x_mean) ** 2 for a in x) / n
    s_y = math.fsum((b - y_mean) ** 2 for b in y) / n
    return 2 * s_xy / (s_x + s_y + (x_mean - y_mean) ** 2)


def slow_read(time_s: Floats, va: Floats, wanted_s: float) -> tuple[float, float]:
    """What a series says at a time: between two known frames their mixture, else the nearest."""
    known = [
        (float(t), (float(v), float(a)))
        for t, (v, a) in zip(time_s, va, strict=True)
        if not math.isnan(v)
    ]
    if not known:
        return 0.0, 0.0
    before = [item for item in known if item[0] <= wanted_s]
    after = [item for item in known if item[0] > wanted_s]
    if not before or not after:
        return (before[-1] if before else after[0])[1]
    (t0, first), (t1, second) = before[-1], after[0]
    share = (wanted_s - t0) / (t1 - t0)
    return (
        (1 - share) * first[0] + share * second[0],
        (1 - share) * first[1] + share * second[1],
    )
