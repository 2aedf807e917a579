"""Frame -> faces: boxes, five landmarks and scores.

The default detector is CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using
Face as Point", arXiv 1911.03599), whose network ships with the package (`assets/centerface.onnx`).
OpenCV's YuNet serves as well when its file and OpenCV are at hand.

A face that was seen a moment ago is found at a fifth of the cost, by looking around it only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

CENTERFACE_PATH = Path(__file__).parent.parent / "assets" / "centerface.onnx"
STRIDE_PX = 4  # one cell of CenterFace's output maps
ALIGN_PX = 32  # CenterFace halves its input five times
MAX_OVERLAP = 0.3  # of two boxes that overlap by more (IoU), the weaker goes
TINY_PX = 1e-9  # an area
MIN_SCORE = 0.3  # low on purpose: a weak face may continue a track, though it starts none
SIDE_PX = 320  # finds faces down to about 14 px here, 4 % of the longer side
NEAR_SIDE_PX = 96
NEAR_SIZE = 2.3  # side of the square looked at, in sides of the box expected in its middle


class DetectorError(Exception):
    """A face detector cannot be made from the file given."""


@dataclass(frozen=True, eq=False)
class Detection:
    """One face in one frame, in pixels of that frame; it may reach over the frame's edge.

    Attributes:
        box_px: (4,) x, y of the top left corner, width, height.
        landmarks_px: (5, 2) x, y of left eye (image left), right eye, nose, left and right mouth
            corner.
        score: the detector's confidence, in [0, 1].
    """

    box_px: Floats
    landmarks_px: Floats
    score: float


class FaceDetector(Protocol):
    """What finds faces in a frame.

    Attributes:
        name: the detector's short name.
        fingerprint: changes whenever the same frame could give other faces.
    """

    name: str
    fingerprint: str

    def __call__(self, rgb: Image) -> list[Detection]:
        """Find the faces of `rgb` (h, w, 3), best score first."""
        ...

    def near(self, rgb: Image, boxes_px: Sequence[Floats]) -> list[Detection]:
        """Find the faces of `rgb` (h, w, 3) around boxes (4,), best score first."""
        ...


class CenterFace:
    """CenterFace on the CPU.

    Args:
        side_px: the frame is scaled so that its longer side has this many pixels.
        threads: CPU threads of one detection.
        min_score: weaker faces are left out.
        path: the ONNX file.

    Raises:
        DetectorError: the file is missing or is not the CenterFace network.
    """

    name = "centerface"

    def __init__(
        self,
        side_px: int = SIDE_PX,
        threads: int = 1,
        min_score: float = MIN_SCORE,
        path: Path = CENTERFACE_PATH,
    ) -> None:
        import onnxruntime

        self.side_px, self.min_score = side_px, min_score
        self.fingerprint = _fingerprint(self.name, path, side_px, min_score)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own errors have no common base
            raise DetectorError(f"{path}: not an ONNX network that can be read") from error
        channels = [output.shape[1:2] for output in self._session.get_outputs()]
        if channels != [[1], [2], [2], [10]]:
            raise DetectorError(f"{path}: not CenterFace (heatmap, scale, offset, landmarks)")
        self._input = self._session.get_inputs()[0].name

    def __call__(self, rgb: Image) -> list[Detection]:
        """Find the faces of `rgb` (h, w, 3), best score first."""
        return self._find(rgb, self.side_px)

    def near(self, rgb: Image, boxes_px: Sequence[Floats]) -> list[Detection]:
        """Find the faces of `rgb` (h, w, 3) around boxes (4,), best score first."""
        return _near(self._find, rgb, boxes_px)

    def _find(self, rgb: Image, side_px: int) -> list[Detection]:
        image, scale = _shrink(rgb, side_px)
        height, width = image.shape[:2]
        shape = 1, 3, height + -height % ALIGN_PX, width + -width % ALIGN_PX
        blob = np.zeros(shape, np.float32)
        blob[0, :, :height, :width] = image.transpose(2, 0, 1)  # RGB, 0-255
        maps = self._session.run(None, {self._input: blob})
        heatmap, size, offset, landmarks = (each[0] for each in maps)
        boxes_px, landmarks_px, scores = decode(heatmap, size, offset, landmarks, self.min_score)
        kept = suppress(boxes_px, scores)
        return [
            Detection(boxes_px[i] / scale, landmarks_px[i] / scale, float(scores[i])) for i in kept
        ]


class YuNet:
    """YuNet (Wu et al. 2023) through OpenCV, with a network file of the user's.

    Args:
        path: `face_detection_yunet_*.onnx` of the OpenCV model zoo.
        side_px: the frame is scaled so that its longer side has this many pixels.
        min_score: weaker faces are left out.

    Raises:
        DetectorError: OpenCV is not installed, the file is missing, or it is not YuNet.
    """

    name = "yunet"

    def __init__(self, path: Path, side_px: int = SIDE_PX, min_score: float = MIN_SCORE) -> None:
        try:
            import cv2
        except ImportError as error:
            raise DetectorError("YuNet needs OpenCV: pip install opencv-python-headless") from error
        self.side_px, self.min_score = side_px, min_score
        self.fingerprint = _fingerprint(self.name, path, side_px, min_score)
        try:
            self._detector = cv2.FaceDetectorYN.create(
                str(path), "", (side_px, side_px), min_score, MAX_OVERLAP
            )
            self._detector.detect(np.zeros((side_px, side_px, 3), np.uint8))
        except cv2.error as error:
            raise DetectorError(f"{path}: OpenCV cannot read it as a YuNet network") from error

    def __call__(self, rgb: Image) -> list[Detection]:
        """Find the faces of `rgb` (h, w, 3), best score first."""
        return self._find(rgb, self.side_px)

    def near(self, rgb: Image, boxes_px: Sequence[Floats]) -> list[Detection]:
        """Find the faces of `rgb` (h, w, 3) around boxes (4,), best score first."""
        return _near(self._find, rgb, boxes_px)

    def _find(self, rgb: Image, side_px: int) -> list[Detection]:
        image, scale = _shrink(rgb, side_px)
        self._detector.setInputSize((image.shape[1], image.shape[0]))
        _, rows = self._detector.detect(np.ascontiguousarray(image[..., ::-1]))  # BGR
        return from_yunet(rows, scale)


def decode(
    heatmap: Floats, scale: Floats, offset: Floats, landmarks: Floats, min_score: float
) -> tuple[Floats, Floats, Floats]:
    """Read faces from CenterFace's maps, one cell per `STRIDE_PX` pixels.

    Args:
        heatmap: (1, h, w) probability that a face has its centre in the cell.
        scale: (2, h, w) log of height and width in cells.
        offset: (2, h, w) y and x of the centre from the middle of the cell, in cells.
        landmarks: (10, h, w) y and x of each landmark from the box's corner, in box sizes.
        min_score: cells below are left out.

    Returns:
        (n, 4) boxes and (n, 5, 2) landmarks in pixels of the network's input, (n,) scores; a face
        is found in several neighbouring cells.
    """
    rows, columns = np.nonzero(heatmap[0] >= min_score)
    size_px = np.exp(scale[::-1, rows, columns].T) * STRIDE_PX  # (n, 2) width, height
    cells = np.stack([columns, rows], axis=1) + 0.5
    corner_px = (cells + offset[::-1, rows, columns].T) * STRIDE_PX - size_px / 2
    relative = landmarks[:, rows, columns].T.reshape(-1, 5, 2)[..., ::-1]  # (n, 5, 2) x, y
    landmarks_px = corner_px[:, None] + relative * size_px[:, None]
    boxes_px = np.concatenate([corner_px, size_px], axis=1)
    return (
        boxes_px.astype(np.float32),
        landmarks_px.astype(np.float32),
        heatmap[0, rows, columns].astype(np.float32),
    )


def from_yunet(rows: Floats | None, scale: float) -> list[Detection]:
    """Turn OpenCV's YuNet rows into detections, best score first.

    Args:
        rows: (n, 15) x, y, width, height, five landmarks (x, y) from the image's left eye on,
            score; None where there is no face.
        scale: the pixels that one pixel of the frame had in the image searched.
    """
    if rows is None:
        return []
    found = [
        Detection(row[:4] / scale, row[4:14].reshape(5, 2) / scale, float(row[14]))
        for row in np.asarray(rows, np.float32)
    ]
    return sorted(found, key=lambda face: -face.score)


def suppress(boxes_px: Floats, scores: Floats) -> list[int]:
    """Keep one of the boxes (n, 4) that overlap: their places, best score (n,) first.

    Non-maximum suppression: what overlaps a better one by more than `MAX_OVERLAP` goes.
    """
    corners_px = boxes_px[:, :2], boxes_px[:, :2] + boxes_px[:, 2:]
    areas_px = boxes_px[:, 2] * boxes_px[:, 3]
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(corners_px[0][left], corners_px[0][best])
        high = np.minimum(corners_px[1][left], corners_px[1][best])
        common_px = np.maximum(high - low, 0).prod(axis=1)
        overlap = common_px / np.maximum(areas_px[left] + areas_px[best] - common_px, TINY_PX)
        left = left[overlap <= MAX_OVERLAP]
    return kept


def square_around(box_px: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return what is looked at near a box (4,): the square's first corner and its last, x and y."""
    half_px = NEAR_SIZE / 2 * max(box_px[2], box_px[3])
    middle_px = box_px[:2] + box_px[2:] / 2
    return (
        np.floor(middle_px - half_px).astype(np.int64),
        np.ceil(middle_px + half_px).astype(np.int64),
    )


def _near(
    find: Callable[[Image, int], list[Detection]], rgb: Image, boxes_px: Sequence[Floats]
) -> list[Detection]:
    """Look at the square around each box: what `find` finds there, each face once.

    A face on the edge of a square is left out, unless the frame ends there: it is not all seen.
    """
    size = np.array(rgb.shape[1::-1])
    found: list[Detection] = []
    for box_px in boxes_px:
        low, high = square_around(box_px)
        start, end = np.maximum(low, 0), np.minimum(high, size)
        if (start >= end).any():
            continue
        low, high = np.where(low > 0, low, -np.inf), np.where(high < size, high, np.inf)
        for face in find(rgb[start[1] : end[1], start[0] : end[0]], NEAR_SIDE_PX):
            moved_px = face.box_px + np.array([*start, 0, 0], np.float32)
            if (moved_px[:2] >= low).all() and (moved_px[:2] + moved_px[2:] <= high).all():
                landmarks_px = face.landmarks_px + start.astype(np.float32)
                found.append(Detection(moved_px, landmarks_px, face.score))
    if len(boxes_px) < 2 or not found:
        return found
    scores = np.array([face.score for face in found], np.float32)
    return [found[i] for i in suppress(np.stack([face.box_px for face in found]), scores)]


def _shrink(rgb: Image, side_px: int) -> tuple[Image, float]:
    """Scale a frame to a longer side of `side_px`; return it and the factor."""
    from PIL import Image as Pictures

    height, width = rgb.shape[:2]
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resampling = Pictures.Resampling
    small = Pictures.fromarray(rgb).resize(
        size, resampling.HAMMING if scale < 1 else resampling.BILINEAR, reducing_gap=1.0
    )
    return np.asarray(small), scale


def _fingerprint(name: str, path: Path, side_px: int, min_score: float) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DetectorError(f"{path}: the {name} network cannot be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()[:16]
    return f"{name}-{digest}-{side_px}px-near{NEAR_SIDE_PX}px-{NEAR_SIZE:g}-{min_score:g}"
