"""What lies on disk of a corpus's video: the times of its frames, and its aligned face crops."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maven import media
from maven.container import RESTART_S, opened, pick
from maven.datasets.affwild2 import Video, face_frames
from maven.faces.crop import TEMPLATE_PX, TEMPLATE_SIDE_PX, crop
from maven.timeline import Times

Image = npt.NDArray[np.uint8]
Crops = Sequence[tuple[int, Path]]  # number of the frame, from 1, and file

FRAME_HZ = 30.0  # of a video whose media is not there
JPEG_END, JPEG_TAIL = b"\xff\xd9", 32  # a whole picture has it in its last bytes


def frame_times(path: Path, count: int | None = None) -> Times | None:
    """Presentation times (n,) of a video's frames; None where a file has no video.

    They are read from the packets, without decoding, unless those do not tell: AVI with reordered
    pictures, clocks that restart, or more than one packet too many or too few for `count` frames.

    Raises:
        MediaError: the file cannot be read.
    """
    if media.probe(path).video is None:
        return None
    times_s = packet_times(path)
    if times_s is None or (count is not None and abs(len(times_s) - count) > 1):
        times_s = np.array([frame.time_s for frame in media.frames(path)])
    return times_s


def packet_times(path: Path) -> Times | None:
    """Times (n,) of a video's pictures from its packets alone; None where they do not tell."""
    import av

    with opened(path) as container:
        stream = pick(container, "video")
        in_slots = container.format.name == "avi"  # it has no pts, and counts in decoding order
        if stream is None or (in_slots and stream.codec_context.has_b_frames):
            return None
        try:
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
        except (av.FFmpegError, IndexError):
            return None
        stamps = [p.dts if in_slots else p.pts for p in packets]
        if not stamps or None in stamps:
            return None
        decoded_s = np.array([float(stamp * stream.time_base) for stamp in stamps])
    shown_s = np.sort(decoded_s)
    is_one_clock = (np.abs(np.diff(decoded_s)) <= RESTART_S).all()
    return shown_s if is_one_clock and (np.diff(shown_s) > 0).all() else None


def stretched(times_s: Times | None, count: int) -> Times:
    """Times (count,): those known cut, or carried on by their usual period.

    Where none are known they are index / FRAME_HZ.
    """
    if times_s is None or len(times_s) == 0:
        return np.arange(count) / FRAME_HZ
    period_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / FRAME_HZ
    more = np.arange(1, count - len(times_s) + 1)
    return np.concatenate((times_s, times_s[-1] + period_s * more))[:count]


def frame_notes(held: int, count: int) -> list[str]:
    """Say how `count` frames got their times where the media holds not nearly as many."""
    if held == 0:
        return [f"frame times are index / {FRAME_HZ:g} Hz: there are no media with pictures"]
    if abs(held - count) <= 1:
        return []
    rest = "the last times are extrapolated" if held < count else "the rest is left out"
    return [f"{count} frames are asked for, the media holds {held}: {rest}"]


def crops_of(video: Video) -> list[tuple[int, Path]]:
    """List a video's face crops with the numbers of their frames, in order.

    Raises:
        CorpusError: the folder cannot be read.
    """
    if video.faces is None:
        return []
    return [(n, video.faces / f"{n:05d}.jpg") for n in face_frames(video).tolist()]


def crops_hash(crops: Crops) -> str:
    """Hash the numbers and contents of crops."""
    digest = hashlib.sha256()
    for number, path in crops:
        data = _content(path)
        digest.update(b"%d %d " % (number, len(data)) + hashlib.sha256(data).digest())
    return digest.hexdigest()


def read_crop(path: Path, size_px: int) -> Image | None:
    """Read an aligned crop and cut it as `maven.faces.crop` would have: (size_px, size_px, 3) RGB.

    Its face lies on the template in proportion to its width, 112 px in Aff-Wild2. None where the
    file is missing, cut off, or no picture.
    """
    import cv2

    data = _content(path)
    if JPEG_END not in data[-JPEG_TAIL:]:  # OpenCV fills what is cut off with grey
        return None
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if bgr is None:
        return None
    landmarks_px = (TEMPLATE_PX + 0.5) * (bgr.shape[1] / TEMPLATE_SIDE_PX) - 0.5
    return np.ascontiguousarray(crop(bgr, landmarks_px, size_px)[..., ::-1])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
