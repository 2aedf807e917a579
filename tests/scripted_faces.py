"""Faces after a script, in pictures that carry their number, and a detector that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from maven.faces.detect import Detection, Image, square_around
from maven.media import Frame

Script = Callable[[int], list[Detection]]  # frame index -> faces
TEXTURES = np.random.default_rng(5).integers(0, 256, (8, 18, 32), dtype=np.uint8)


def face(x: float, y: float = 100, size: float = 50, score: float = 0.9) -> Detection:
    """A face around (x, y), its landmarks at fixed places of the box."""
    corner = np.array([x, y], np.float32) - size / 2
    landmarks = corner + np.array([[3, 4], [7, 4], [5, 6], [3, 8], [7, 8]], np.float32) * size / 10
    return Detection(np.array([*corner, size, size], np.float32), landmarks, score)


def picture(index: int, scene: int = 0) -> Image:
    """A picture of a scene (green) that carries its own index (red, blue)."""
    rgb = np.zeros((18, 32, 3), np.uint8)
    rgb[..., 1] = TEXTURES[scene]
    rgb[..., 0], rgb[..., 2] = index % 256, index // 256
    return rgb


def index_of(rgb: Image) -> int:
    return int(rgb[0, 0, 0]) + 256 * int(rgb[0, 0, 2])


def inside(box_px: np.ndarray, low_px: np.ndarray, high_px: np.ndarray) -> bool:
    return bool((box_px[:2] >= low_px).all() and (box_px[:2] + box_px[2:] <= high_px).all())


class Scripted:
    """A detector that reads the index from the picture and the faces from a script."""

    name = fingerprint = "scripted"

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[int] = []
        self.near_calls: list[int] = []

    def __call__(self, rgb: Image) -> list[Detection]:
        index = index_of(rgb)
        self.calls.append(index)
        return sorted(self.script(index), key=lambda each: -each.score)

    def near(self, rgb: Image, boxes_px: Sequence[np.ndarray]) -> list[Detection]:
        squares = [square_around(box_px) for box_px in boxes_px]
        index = index_of(rgb)
        self.near_calls.append(index)
        found = sorted(self.script(index), key=lambda each: -each.score)
        return [each for each in found if any(inside(each.box_px, *square) for square in squares)]

    def looked(self) -> set[int]:
        """The frames of which it saw the whole or parts."""
        return {*self.calls, *self.near_calls}


class WholeOnly(Scripted):
    """Looks at whole frames even where parts would do."""

    def near(self, rgb: Image, boxes_px: Sequence[np.ndarray]) -> list[Detection]:
        return self(rgb)


def clip(times_s: Iterable[float], scene: Callable[[int], int] = lambda _: 0) -> list[Frame]:
    return [Frame(k, time_s, picture(k, scene(k))) for k, time_s in enumerate(times_s)]


def at(rate_hz: float, seconds: float) -> np.ndarray:
    return np.arange(round(seconds * rate_hz)) / rate_hz
