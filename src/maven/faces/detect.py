"""Frame -> faces: boxes, five landmarks and scores.

The default detector is CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using
Face as Point", arXiv 1911.03599), whose network ships with the package (`assets/centerface.onnx`).
OpenCV's YuNet serves as well when its file is at hand.
"""

from __future__ import annotations

import hashlib
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
MIN_SCORE = 0.3  # low on purpose: a weak face may continue a track, though it starts none
SIDE_PX = 320  # finds faces down to about 14 px here, 4 % of the longer side


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
        image, scale = _shrink(rgb, self.side_px)
        height, width = image.shape[:2]
        padding = ((0, -height % ALIGN_PX), (0, -width % ALIGN_PX), (0, 0))
        blob = np.pad(image, padding).transpose(2, 0, 1)[None].astype(np.float32)  # RGB, 0-255
        maps = self._session.run(None, {self._input: blob})
        heatmap, size, offset, landmarks = (each[0] for each in maps)
        boxes_px, landmarks_px, scores = decode(heatmap, size, offset, landmarks, self.min_score)
        return _best(boxes_px / scale, landmarks_px / scale, scores, self.min_score)


class YuNet:
    """YuNet (Wu et al. 2023) through OpenCV, with a network file of the user's.

    Args:
        path: `face_detection_yunet_*.onnx` of the OpenCV model zoo.
        side_px: the frame is scaled so that its longer side has this many pixels.
        min_score: weaker faces are left out.

    Raises:
        DetectorError: the file is missing or OpenCV cannot read it as YuNet.
    """

    name = "yunet"

    def __init__(self, path: Path, side_px: int = SIDE_PX, min_score: float = MIN_SCORE) -> None:
        import cv2

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
        image, scale = _shrink(rgb, self.side_px)
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


def _shrink(rgb: Image, side_px: int) -> tuple[Image, float]:
    """Scale a frame to a longer side of `side_px`; return it and the factor."""
    import cv2

    height, width = rgb.shape[:2]
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(rgb, size, interpolation=kind), scale


def _best(
    boxes_px: Floats, landmarks_px: Floats, scores: Floats, min_score: float
) -> list[Detection]:
    """Keep one detection a face (non-maximum suppression), best score first."""
    import cv2

    if not len(scores):
        return []
    kept = cv2.dnn.NMSBoxes(boxes_px.tolist(), scores.tolist(), min_score, MAX_OVERLAP)
    return [Detection(boxes_px[i], landmarks_px[i], float(scores[i])) for i in kept]


def _fingerprint(name: str, path: Path, side_px: int, min_score: float) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DetectorError(f"{path}: the {name} network cannot be read: {error}") from error
    return f"{name}-{hashlib.sha256(content).hexdigest()[:16]}-{side_px}px-{min_score:g}"
