"""Small pictures from a video: a person's head and shoulders, or the whole frame, as JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maven.media import MediaPath, frames

RATE_HZ = 10.0  # frames looked at; others cost no conversion to RGB
# The cut around a face, in heights of its box: from the hair to the shoulders, 4:3.
CUT_HEIGHT, CUT_WIDTH, ABOVE = 2.2, 2.2 * 4 / 3, 0.55
QUALITY = 80

Box = Sequence[float]  # x, y, w, h in upright pixels
Rgb = npt.NDArray[np.uint8]


def stills(
    media: MediaPath,
    times_s: Sequence[float],
    height_px: int,
    boxes_px: Sequence[Box | None] | None = None,
) -> list[bytes | None]:
    """Return a JPEG of the frame nearest to each time, in their order; one pass over the video.

    Of the frames, `RATE_HZ` a second are looked at. A picture with a box is cut to head and
    shoulders, as far as they are in the frame; others are whole. None where there is no video.

    Args:
        media: the video.
        times_s: in any order.
        height_px: of the pictures.
        boxes_px: of the face that is meant at each time, None where there is none.

    Raises:
        MediaError: the video cannot be read.
    """
    found: list[bytes | None] = [None] * len(times_s)
    boxes_px = boxes_px or [None] * len(times_s)
    waiting = sorted(range(len(times_s)), key=lambda i: -times_s[i])  # the last one comes next
    held = None
    shown = frames(media, rate_hz=RATE_HZ)
    while waiting:
        frame = next(shown, None)
        while waiting and held is not None:
            i = waiting[-1]
            if frame is not None and frame.time_s - times_s[i] <= abs(times_s[i] - held.time_s):
                break
            found[i] = jpeg(held.rgb, height_px, boxes_px[i])
            waiting.pop()
        if frame is None:
            break
        held = frame
    return found


def jpeg(rgb: Rgb, height_px: int, box_px: Box | None = None, quality: int = QUALITY) -> bytes:
    """Write an upright (h, w, 3) picture, cut around a face, so high; never larger than it is."""
    from PIL import Image

    picture = Image.fromarray(rgb)
    if box_px is not None:
        picture = picture.crop(cut(box_px, *picture.size))
    scale = min(height_px / picture.height, 1.0)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    out = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(out, "jpeg", quality=quality)
    return out.getvalue()


def cut(box_px: Box, width_px: int, height_px: int) -> tuple[int, int, int, int]:
    """Head and shoulders around a face: (left, upper, right, lower), moved to lie in the frame."""
    x, y, w, h = box_px
    high = min(CUT_HEIGHT * h, height_px)
    wide = min(CUT_WIDTH * h, width_px)
    left = min(max(x + w / 2 - wide / 2, 0), width_px - wide)
    upper = min(max(y - ABOVE * h, 0), height_px - high)
    return round(left), round(upper), round(left + wide), round(upper + high)
