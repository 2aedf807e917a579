"""What `behaviour.py` does to a clip inside the real pipeline.

Faces are moved where they come out of the detector. Pictures and sound are changed where they come
out of the decoder: `media.frames` and `media.audio_blocks` are replaced for as long as a `with`
block lasts. All else is what `maven predict` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import numpy.typing as npt

from maven import media
from maven.faces.detect import Detection, FaceDetector, Floats

Image = npt.NDArray[np.uint8]
Change = Callable[[Image], Image]


class Jittered:
    """A detector whose faces are moved and scaled at random.

    Args:
        detector: finds the faces.
        share: each face moves by up to this share of its box's width and height, and grows or
            shrinks by up to this share, uniformly.
        seed: of the draws.
        constant: draw once for all frames; else anew for each detection.
    """

    def __init__(
        self, detector: FaceDetector, share: float, seed: int, *, constant: bool = False
    ) -> None:
        self.name, self.fingerprint = f"jittered {detector.name}", detector.fingerprint
        self._detector, self._share, self._constant = detector, share, constant
        self._rng = np.random.default_rng(seed)
        self._once = self._rng.uniform(-share, share, 3)

    def __call__(self, rgb: Image) -> list[Detection]:
        """Find the faces of `rgb` (h, w, 3), and move them."""
        return [self._moved(face) for face in self._detector(rgb)]

    def near(self, rgb: Image, boxes_px: Sequence[Floats]) -> list[Detection]:
        """Find the faces near boxes (4,), and move them."""
        return [self._moved(face) for face in self._detector.near(rgb, boxes_px)]

    def _moved(self, face: Detection) -> Detection:
        draw = self._once if self._constant else self._rng.uniform(-self._share, self._share, 3)
        corner_px, size_px = face.box_px[:2], face.box_px[2:]
        middle_px = corner_px + size_px / 2
        step_px, scale = size_px * draw[:2], 1 + draw[2]
        box_px = (*(middle_px + step_px - scale * size_px / 2), *(scale * size_px))
        landmarks_px = middle_px + step_px + scale * (face.landmarks_px - middle_px)
        return Detection(
            np.array(box_px, np.float32), np.asarray(landmarks_px, np.float32), face.score
        )


def jpeg(quality: int) -> Change:
    """Return what encodes a picture (h, w, 3) as JPEG and decodes it again."""

    def change(rgb: Image) -> Image:
        _, encoded = cv2.imencode(".jpg", rgb[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
        bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        return np.ascontiguousarray(bgr[..., ::-1])

    return change


def mirrored(rgb: Image) -> Image:
    """Swap left and right of a picture (h, w, 3)."""
    return np.ascontiguousarray(rgb[:, ::-1])


@contextmanager
def changed_pictures(change: Change) -> Iterator[None]:
    """Change every decoded frame."""
    decode = media.frames

    def frames(*given: Any, **named: Any) -> Iterator[media.Frame]:
        for frame in decode(*given, **named):
            yield replace(frame, rgb=change(frame.rgb))

    with patch.object(media, "frames", frames):
        yield


@contextmanager
def changed_gain(gain_db: float) -> Iterator[None]:
    """Make every decoded sample louder; what passes full scale is not cut."""
    decode, factor = media.audio_blocks, np.float32(10 ** (gain_db / 20))

    def audio_blocks(*given: Any, **named: Any) -> Iterator[media.AudioBlock]:
        for block in decode(*given, **named):
            yield replace(block, samples=block.samples * factor)

    with patch.object(media, "audio_blocks", audio_blocks):
        yield
