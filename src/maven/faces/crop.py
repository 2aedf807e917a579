"""Landmarks -> aligned crop: the eyes, nose and mouth of every face at the same pixels.

Pixel coordinates are those of OpenCV: (0, 0) is the centre of the top left pixel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]

TEMPLATE_SIDE_PX = 112
# The template of ArcFace (Deng et al. 2019, InsightFace): left eye (image left), right eye, nose,
# left and right mouth corner in a square of TEMPLATE_SIDE_PX. Aff-Wild2's own crops follow it.
# Here it is made symmetric about the middle of the square, by up to 0.6 px: a mirrored face gets
# the mirrored crop.
TEMPLATE_PX = np.array(
    [
        [37.8814, 51.5989],
        [73.1186, 51.5989],
        [55.5000, 71.7366],
        [40.9097, 92.2848],
        [70.0903, 92.2848],
    ]
)

COINCIDENT = 1e-6  # of the coordinates: points nearer to each other are one


def similarity(src: Floats, dst: Floats) -> npt.NDArray[np.float64]:
    """Return the rotation, scale and shift that bring points nearest to others (least squares).

    Umeyama (1991) without reflection. In the plane it is a regression in complex numbers: with
    centred points z and w, the factor (scale and rotation) is sum(conj(z) w) / sum(|z|^2).

    Args:
        src: (n, 2) points x, y.
        dst: (n, 2) where they should come to lie.

    Returns:
        (2, 3) matrix M: M @ (x, y, 1) is near the point of `dst`.

    Raises:
        ValueError: a coordinate is not finite, or the points fix no rotation: all the same, or
            mirrored.
    """
    src, dst = np.asarray(src, np.float64), np.asarray(dst, np.float64)
    if not (np.isfinite(src).all() and np.isfinite(dst).all()):
        raise ValueError("the landmarks are not all finite numbers")
    src_mean, dst_mean = src.mean(axis=0), dst.mean(axis=0)
    z, w = (centred @ (1, 1j) for centred in (src - src_mean, dst - dst_mean))
    src_size, dst_size = np.linalg.norm(z), np.linalg.norm(w)
    if src_size <= COINCIDENT * max(1.0, np.abs(src).max()):
        raise ValueError("the landmarks fall together: they have no size and no direction")
    factor = np.vdot(z, w) / src_size**2
    if abs(factor) * src_size <= COINCIDENT * dst_size:
        raise ValueError("the landmarks have no direction: they are the mirror image of a face")
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, dst_mean - linear @ src_mean])


def crop(rgb: Image, landmarks_px: Floats, size_px: int = TEMPLATE_SIDE_PX) -> Image:
    """Turn, scale and cut a face out, its landmarks as near as can be to the template.

    A face larger than the crop is averaged down: no aliasing. Past the edge of the frame the last
    pixels are repeated: black would draw an edge that the encoders take for a feature, and
    close-ups reach over the frame often.

    Args:
        rgb: (h, w, 3) frame.
        landmarks_px: (5, 2) as in `Detection`; they may lie outside the frame.
        size_px: side of the crop.

    Returns:
        (size_px, size_px, 3).

    Raises:
        ValueError: as `similarity`.
    """
    from PIL import Image as Pictures

    matrix = similarity(landmarks_px, _template(size_px))
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    inverse = matrix[:, :2].T / scale**2
    # Drawn at twice the size, a large face needs no more than 2 pixels of the frame to each drawn
    # one, so that bilinear interpolation skips none; more are averaged before.
    draw = 2 if scale < 1 else 1
    shrink = max(1, math.ceil(1 / scale / (2 * draw)))
    # Whole numbers are the edges of pixels from here on, not their centres.
    middle = inverse @ ((size_px - 1) / 2 - matrix[:, 2]) + 0.5
    reach = np.abs(inverse).sum(axis=1) * size_px / 2
    around, start = _around(rgb, middle - reach, middle + reach, shrink)
    step = inverse / (draw * shrink)  # of a drawn pixel
    first = (middle - start) / shrink - step.sum(axis=1) * (size_px * draw / 2)
    drawn = around.transform(
        (size_px * draw, size_px * draw),
        Pictures.Transform.AFFINE,
        (*step[0].tolist(), float(first[0]), *step[1].tolist(), float(first[1])),
        resample=Pictures.Resampling.BILINEAR,
    )
    return np.array(drawn.reduce(draw))


def _around(rgb: Image, low: Floats, high: Floats, shrink: int) -> tuple[Picture, Floats]:
    """Cut out all between two points, with a margin, each `shrink` pixels a side averaged to one.

    Returns:
        What was cut out, and the place (2,) of its top left corner in the frame.
    """
    from PIL import Image as Pictures

    size = np.array(rgb.shape[1::-1])
    low = np.floor(low) - 2 * shrink  # bilinear interpolation reads 1.5 averaged pixels on
    high = np.ceil(high) + 2 * shrink
    start = np.clip(low, 0, size - 1).astype(int)
    end = np.clip(high, start + 1, size).astype(int)
    part = Pictures.fromarray(rgb[start[1] : end[1], start[0] : end[0]]).reduce(shrink)
    if (low >= 0).all() and (high <= size).all():
        return part, start
    first = np.floor((low - start) / shrink).astype(int)  # below 0: past the frame's edge
    last = np.ceil((high - start) / shrink).astype(int)
    columns = np.clip(np.arange(first[0], last[0]), 0, part.width - 1)
    rows = np.clip(np.arange(first[1], last[1]), 0, part.height - 1)
    return Pictures.fromarray(np.asarray(part)[rows[:, None], columns]), start + first * shrink


def _template(size_px: int) -> npt.NDArray[np.float64]:
    """Return the template (5, 2) in a square of `size_px`."""
    return (TEMPLATE_PX + 0.5) * (size_px / TEMPLATE_SIDE_PX) - 0.5
