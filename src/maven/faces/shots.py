"""Frames -> shots: whether two neighbouring pictures belong together, by their thumbnails."""

from __future__ import annotations

import numpy as np

from maven.faces.detect import Floats, Image

SAME_SHOT = 0.5  # correlation of neighbouring pictures: above 0.7 in a shot, below 0.35 at a cut
THUMBNAIL_PX = (32, 18)
FLAT = 4.0  # grey levels squared: the contrast of noise on a black or plain picture


def same_shot(one: Floats, other: Floats) -> bool:
    """Say whether no cut lies between two thumbnails."""
    return correlation(one, other) >= SAME_SHOT


def thumbnail(rgb: Image) -> Floats:
    """Return a tiny grey picture of `rgb` (h, w, 3), centred on 0, to compare by `correlation`."""
    rows, columns = max(1, rgb.shape[0] // 72), max(1, rgb.shape[1] // 128)
    green = rgb[::rows, ::columns, 1]
    small = _averaged(_averaged(green, THUMBNAIL_PX[1]).T, THUMBNAIL_PX[0]).T
    return np.asarray(small - small.mean(), np.float32)


def _averaged(picture: Image | Floats, count: int) -> Floats:
    """Average a picture's rows in `count` groups; fewer rows than that are repeated."""
    first = np.arange(count) * len(picture) // count
    sums = np.add.reduceat(picture, first, axis=0, dtype=np.float32)
    sizes = np.maximum(np.diff(first, append=len(picture)), 1).astype(np.float32)
    return np.asarray(sums / sizes[:, None], np.float32)


def correlation(one: Floats, other: Floats) -> float:
    """Correlate two thumbnails: in [-1, 1], and 1 where both are flat."""
    flat = FLAT * one.size
    power = np.sqrt((np.sum(one**2) + flat) * (np.sum(other**2) + flat))
    return float((np.sum(one * other) + flat) / power)
