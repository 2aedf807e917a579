"""Cuts: thumbnails against OpenCV's averages, and real cuts looked at by eye."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven.faces.detect import Floats, Image
from maven.faces.shots import SAME_SHOT, THUMBNAIL_PX, correlation, same_shot, thumbnail
from maven.media import frames


def reference(rgb: Image) -> Floats:
    """OpenCV's area averages of the same sample of pixels."""
    rows, columns = max(1, rgb.shape[0] // 72), max(1, rgb.shape[1] // 128)
    green = np.ascontiguousarray(rgb[::rows, ::columns, 1])
    small = cv2.resize(green, THUMBNAIL_PX, interpolation=cv2.INTER_AREA).astype(np.float32)
    return small - small.mean()


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_a_thumbnail_is_made_of_averages(rows: int, columns: int, seed: int):
    rng = np.random.default_rng(seed)
    shape = THUMBNAIL_PX[1] * rows, THUMBNAIL_PX[0] * columns, 3
    rgb = rng.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_allclose(thumbnail(rgb), reference(rgb), atol=1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (700, 1), (17, 31), (33, 31), (1080, 1920)])
def test_any_frame_has_a_thumbnail(shape: tuple[int, int]):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = thumbnail(rgb)
    assert found.shape == (18, 32)
    assert found.dtype == np.float32
    assert found.mean() == pytest.approx(0, abs=1e-3)
    assert same_shot(found, found)


def test_flat_pictures_are_alike_and_noise_is_not():
    black, grey = (np.full((90, 160, 3), level, np.uint8) for level in (0, 90))
    rng = np.random.default_rng(1)
    one, other = (rng.integers(0, 256, (90, 160, 3), dtype=np.uint8) for _ in range(2))
    assert correlation(thumbnail(black), thumbnail(grey)) == pytest.approx(1)
    assert not same_shot(thumbnail(one), thumbnail(other))
    assert not same_shot(thumbnail(one), thumbnail(black))


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("six_faces_360p.mp4", [20, 82, 211]),
        ("three_faces_720p.avi", [158, 289]),
        ("face_then_no_face.mov", [72, 73]),
        ("talk_face3_590.mp4", []),
    ],
)
def test_real_cuts(name: str, cuts: list[int], clips_dir: Path):
    small = [(thumbnail(each.rgb), reference(each.rgb)) for each in frames(clips_dir / name)]
    for k, ((before, before_cv), (now, now_cv)) in enumerate(pairwise(small), 1):
        assert same_shot(before, now) == (k not in cuts)
        assert (correlation(before_cv, now_cv) >= SAME_SHOT) == (k not in cuts)
