"""Landmarks -> aligned crop: the eyes, nose and mouth of every face at the same pixels.

Pixel coordinates are those of OpenCV: (0, 0) is the centre of the top left pixel.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

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
LARGEST_PX = 4096  # side of the drawing that a crop is averaged from


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

    A face larger than the crop is drawn at a multiple of `size_px` and averaged down: no aliasing.
    Past the edge of the frame the last pixels are repeated: black would draw an edge that the
    encoders take for a feature, and close-ups reach over the frame often.

    Args:
        rgb: (h, w, 3) frame.
        landmarks_px: (5, 2) as in `Detection`; they may lie outside the frame.
        size_px: side of the crop.

    Returns:
        (size_px, size_px, 3).

    Raises:
        ValueError: as `similarity`.
    """
    import cv2

    matrix = similarity(landmarks_px, _template(size_px))
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    # the larger drawing skips no pixel of the frame
    factor = max(1, min(math.ceil(1 / scale), LARGEST_PX // size_px))
    matrix = matrix * factor
    matrix[:, 2] += (factor - 1) / 2  # pixel centres: x' = (x + 0.5) * factor - 0.5
    side = size_px * factor
    large = cv2.warpAffine(
        rgb, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    small: Image = cv2.resize(large, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return small


def _template(size_px: int) -> npt.NDArray[np.float64]:
    """Return the template (5, 2) in a square of `size_px`."""
    return (TEMPLATE_PX + 0.5) * (size_px / TEMPLATE_SIDE_PX) - 0.5
