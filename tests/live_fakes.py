"""A model of plain sums, quick and exact, and a detector that reads the face from a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from maven.checkpoint import Model, ModelCard
from maven.config import MODALITIES, MavenConfig
from maven.encoders.base import Encoders
from maven.faces.crop import TEMPLATE_PX
from maven.faces.detect import Detection
from maven.intervals import SETS, Intervals, name_of

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

SIDE_PX = 112  # of a frame
HOP = 640


def frame(level: int, face: bool = True) -> Image:
    """A plain picture (112, 112, 3) of a grey level, with one face all over it, or none."""
    rgb = np.full((SIDE_PX, SIDE_PX, 3), level, np.uint8)
    rgb[0, 0, 0] = 255 if face else 0
    return rgb


class PixelDetector:
    """Sees a face where the first pixel says so; counts how often it was asked."""

    name = fingerprint = "pixel"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, rgb: Image) -> list[Detection]:
        self.calls += 1
        box_px = np.array([5, 5, 100, 100], np.float32)
        return [Detection(box_px, TEMPLATE_PX.astype(np.float32), 0.9)] if rgb[0, 0, 0] else []

    def near(self, rgb: Image, boxes_px: Sequence[Floats]) -> list[Detection]:
        return self(rgb)


class LevelVisual:
    """The grey level, and its square."""

    name = fingerprint = "level"
    width, size_px, rate_hz = 2, 8, None

    def __call__(self, crops: Image) -> Floats:
        level = crops.mean((1, 2, 3), dtype=np.float64) / 255
        return np.stack((level, level**2), 1).astype(np.float32)


class LoudnessAudio:
    """Loudness of each hop, and of all that is at most a second away."""

    name = fingerprint = "loudness"
    width, rate_hz, context_s = 2, 25.0, 1.0

    def __call__(self, samples: Floats) -> Floats:
        n = len(samples) // HOP
        loud = np.abs(samples[: n * HOP]).reshape(n, HOP).astype(np.float64).mean(1)
        sums = np.concatenate(([0.0], loud.cumsum()))
        low, high = np.maximum(np.arange(n) - 25, 0), np.minimum(np.arange(n) + 26, n)
        around = (sums[high] - sums[low]) / (high - low)
        return np.stack((loud, around), 1).astype(np.float32)


class LengthText:
    """Length of each word, over that of all."""

    name = fingerprint = "length"
    width = 1

    def __call__(self, words: Sequence[str]) -> Floats:
        total = sum(map(len, words))
        return np.array([[len(word) / total] for word in words], np.float32)


class SumNetwork:
    """Answers tanh of the sums of what was observed within reach, the nearer the more."""

    def __init__(self, config: MavenConfig) -> None:
        self.config = config

    def answers(
        self,
        values: Mapping[str, Floats],
        observed: Mapping[str, npt.NDArray[np.bool_]],
        time_s: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        apart_s = np.abs(time_s[:, None] - time_s)  # (t, t)
        near = np.where(apart_s <= self.config.reach_s, 1 / (1 + apart_s), 0) / 10
        out = np.zeros((len(observed["visual"]), len(time_s), 2))
        for k, m in enumerate(MODALITIES):
            value = np.sin(values[m].sum(1) * 3 + k)
            out += np.stack((value, np.cos(value + k)), 1) * observed[m][..., None]
        summed: npt.NDArray[np.float64] = np.tanh(near @ out) / 2
        return summed


def fake_model(rate_hz: float = 10.0, radius_s: float = 0.3, smoothing_s: float = 0.2) -> Model:
    """A model that depends on 3 radius_s to either side (and a little)."""
    config = MavenConfig(2, 2, 1, radius_s=radius_s, rate_hz=rate_hz, join_layers=1)
    encoders = Encoders(LevelVisual(), LoudnessAudio(), LengthText())
    intervals = Intervals(0.9, 10, {name_of(s): np.full((2, 2, 2), 0.1 * len(s)) for s in SETS})
    card = ModelCard("fake", config, {}, smoothing_s, intervals=intervals)
    network = cast(Any, SumNetwork(config))
    return Model(card, network, encoders, "", "cpu", "torch")
