"""Media -> what was seen and heard: face features at frame times, voice features, speech spans.

Each stream is decoded once and forgotten as it passes; what stays is a vector a face and frame, a
vector a hop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maven import media
from maven.encoders.base import encode_audio
from maven.faces.crop import crop
from maven.faces.detect import FaceDetector
from maven.faces.track import FaceTrack, FaceTracks, track_faces
from maven.speech import SpeechDetector, SpeechSpan
from maven.timeline import Times, uniform_grid

if TYPE_CHECKING:
    from maven.encoders.base import AudioEncoder, VisualEncoder
    from maven.features import Sampled

FACE_BATCH = 32
SOUND_GRID_HZ = 25.0  # of the rows, where there is no video whose frames they could be

# (stage, done, total in seconds or None where unknown)
Progress = Callable[[str, float, float | None], None]


@dataclass
class SeenFace:
    """What was seen of one person: rows of the grid, boxes, and features at the frames' times."""

    rows: list[int] = field(default_factory=list)
    boxes_px: list[npt.NDArray[np.float32]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    features: list[npt.NDArray[np.float32]] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """What was seen in a video: the times of its frames, and everyone's face."""

    times_s: Times
    faces: dict[int, SeenFace]
    tracks: tuple[FaceTrack, ...]


def look(
    info: media.MediaInfo,
    encoder: VisualEncoder,
    detector: FaceDetector,
    rate_hz: float | None,
    report: Progress,
) -> Seen:
    """Decode, track, crop and encode in one pass; no more than a batch of crops is held."""
    assert info.video is not None
    times_s: list[float] = []
    faces: dict[int, SeenFace] = {}
    tracks = FaceTracks()
    waiting: list[tuple[SeenFace, npt.NDArray[np.uint8]]] = []

    def flush() -> None:
        if waiting:
            vectors = encoder(np.stack([pixels for _, pixels in waiting]))
            for (face, _), vector in zip(waiting, vectors, strict=True):
                face.features.append(vector)
            waiting.clear()

    total_s = info.duration_s
    for tracked in track_faces(media.frames(info.path, rate_hz=rate_hz), detector):
        tracks.add(tracked)
        for person in tracked.faces:
            face = faces.setdefault(person.track_id, SeenFace())
            face.rows.append(len(times_s))
            face.boxes_px.append(person.box_px)
            face.scores.append(person.score)
            pixels = crop(tracked.frame.rgb, person.landmarks_px, encoder.size_px)
            waiting.append((face, pixels))
            if len(waiting) == FACE_BATCH:
                flush()
        times_s.append(tracked.frame.time_s)
        report("faces", tracked.frame.time_s - info.start_s, total_s)
    flush()
    return Seen(np.array(times_s), faces, tracks.summary())


def listen(
    info: media.MediaInfo, encoder: AudioEncoder, report: Progress
) -> tuple[Sampled, tuple[SpeechSpan, ...]]:
    """Find speech and encode the sound in one pass over its blocks."""
    from maven.features import Sampled

    detector = SpeechDetector()

    def blocks() -> Iterator[media.AudioBlock]:
        for block in media.audio_blocks(info.path):
            detector.push(block)
            yield block
            report("voice", block.start_s - info.start_s, info.duration_s)

    times_s, values = encode_audio(blocks(), encoder)
    return Sampled(times_s, values), detector.finish()


def rows_grid(
    info: media.MediaInfo, seen: Seen | None, heard: Sampled | None, rate_hz: float | None
) -> Times:
    """Times of the rows: those of the video's frames, else a uniform grid over the sound."""
    if seen is not None and len(seen.times_s):
        return seen.times_s
    if heard is None or not len(heard.times_s):
        raise media.MediaError(f"{info.path}: neither a picture nor a sound could be decoded")
    return uniform_grid(heard.times_s[0], heard.times_s[-1], rate_hz or SOUND_GRID_HZ)
