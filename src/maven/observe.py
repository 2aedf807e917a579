"""Media -> what was seen and heard: face features at frame times, voice features, speech spans.

Each stream is decoded once and forgotten as it passes; what stays is a vector a face and frame, a
vector a hop, in compact arrays. The stages overlap: frames are decoded in one thread, faces found
and followed in a second, cut out in a third, encoded in the caller's; sound is heard in a fifth.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maven import media
from maven.container import Damage
from maven.encoders.base import encode_audio
from maven.faces.crop import crop
from maven.faces.detect import FaceDetector
from maven.faces.track import FaceTrack, FaceTracks, TrackedFace, TrackedFrame, track_faces
from maven.part import WHOLE, Part
from maven.speech import SpeechDetector, SpeechSpan
from maven.threads import ahead, beside
from maven.timeline import Times, uniform_grid

if TYPE_CHECKING:
    from maven.encoders.base import AudioEncoder, Encoders, VisualEncoder
    from maven.features import Sampled

FACE_BATCH = 32
SOUND_GRID_HZ = 25.0  # of the rows, where there is no video whose frames they could be

Crop = npt.NDArray[np.uint8]  # (size_px, size_px, 3)
# (stage, done, total in seconds or None where unknown)
Progress = Callable[[str, float, float | None], None]


class SeenFace:
    """What was seen of one person, in compact arrays that grow.

    Rows count the frames of the video; features stand at those rows that were encoded.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._rows, self._encoded_rows = array("l"), array("l")
        self._boxes_px, self._scores, self._features = array("f"), array("f"), array("f")

    def see(self, row: int, face: TrackedFace) -> None:
        """Take in where the face is in a frame."""
        self._rows.append(row)
        self._boxes_px.extend(face.box_px)
        self._scores.append(face.score)

    def encode(self, row: int, vector: npt.NDArray[np.float32]) -> None:
        """Take in the encoder's vector (d,) of a frame."""
        self._encoded_rows.append(row)
        self._features.frombytes(vector.tobytes())

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(k,) rising."""
        return np.array(self._rows, np.int64)

    @property
    def boxes_px(self) -> npt.NDArray[np.float32]:
        """(k, 4) as in `Detection`."""
        return np.array(self._boxes_px, np.float32).reshape(-1, 4)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """(k,) of the detector."""
        return np.array(self._scores, np.float32)

    @property
    def encoded_rows(self) -> npt.NDArray[np.int64]:
        """(m,) rising, of `rows`."""
        return np.array(self._encoded_rows, np.int64)

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """(m, d) at `encoded_rows`."""
        return np.array(self._features, np.float32).reshape(-1, self._width)


@dataclass(frozen=True)
class Seen:
    """What was seen in a video: the times of its frames, and everyone's face."""

    times_s: Times
    faces: dict[int, SeenFace]
    tracks: tuple[FaceTrack, ...]


def observe(
    info: media.MediaInfo,
    encoders: Encoders,
    detector: FaceDetector | None,
    rate_hz: float | None,
    report: Progress,
    part: Part = WHOLE,
) -> tuple[Seen | None, Sampled | None, tuple[SpeechSpan, ...], tuple[str, ...]]:
    """Look and listen at the same time; None for what there is no stream of.

    Nothing outside the part is taken in: near its ends there is as little around an answer as at
    the ends of a file. `report` is called in this thread only. Last come notes on damage.
    """
    video, sound = Damage(), Damage()
    if info.video is None or detector is None:
        if info.audio is None:
            return None, None, (), ()
        heard, speech = listen(info, encoders.audio, report, part, sound)
        return None, heard, speech, _damaged(video, sound)
    if info.audio is None:
        seen = look(info, encoders.visual, detector, rate_hz, report, part, video)
        return seen, None, (), _damaged(video, sound)
    heard_s = 0.0

    def hear(check: Callable[[], None]) -> tuple[Sampled, tuple[SpeechSpan, ...]]:
        def note(stage: str, done_s: float, total_s: float | None) -> None:
            nonlocal heard_s
            heard_s = done_s
            check()

        return listen(info, encoders.audio, note, part, sound)

    with beside(hear) as hearing:
        seen = look(info, encoders.visual, detector, rate_hz, report, part, video)
        _, total_s = _stretch(info, part)
        heard, speech = hearing.wait(lambda: report("voice", heard_s, total_s))
    return seen, heard, speech, _damaged(video, sound)


def _damaged(video: Damage, sound: Damage) -> tuple[str, ...]:
    return (*video.notes("video", "picture"), *sound.notes("sound", "piece"))


def look(
    info: media.MediaInfo,
    encoder: VisualEncoder,
    detector: FaceDetector,
    rate_hz: float | None,
    report: Progress,
    part: Part = WHOLE,
    damage: Damage | None = None,
) -> Seen:
    """Decode, track, crop and encode in one pass; no more than a batch of crops is held."""
    assert info.video is not None
    times_s = array("d")
    faces: dict[int, SeenFace] = {}
    tracks = FaceTracks()
    start_s, total_s = _stretch(info, part)

    waiting: list[tuple[SeenFace, int, Crop]] = []

    def flush() -> None:
        vectors = encoder(np.stack([pixels for _, _, pixels in waiting]))
        for (face, row, _), vector in zip(waiting, vectors, strict=True):
            face.encode(row, vector)
        waiting.clear()

    with (
        closing(
            ahead(media.frames(info.path, rate_hz=rate_hz, part=part, damage=damage))
        ) as frames,
        closing(ahead(track_faces(frames, detector))) as stream,
        closing(ahead(_cropped(stream, encoder.size_px, encoder.rate_hz), FACE_BATCH)) as cut,
    ):
        for row, (time_s, people, crops) in enumerate(cut):
            times_s.append(time_s)
            tracks.add(time_s, people)
            for person in people:
                if person.track_id not in faces:
                    faces[person.track_id] = SeenFace(encoder.width)
                faces[person.track_id].see(row, person)
            for person, pixels in zip(people, crops, strict=False):
                waiting.append((faces[person.track_id], row, pixels))
                if len(waiting) == FACE_BATCH:
                    flush()
            report("faces", time_s - start_s, total_s)
    if waiting:
        flush()
    return Seen(np.array(times_s), faces, tracks.summary())


def _cropped(
    stream: Iterable[TrackedFrame], size_px: int, rate_hz: float | None
) -> Iterator[tuple[float, tuple[TrackedFace, ...], list[Crop]]]:
    """Give each frame's time, its faces, and their crops where it is worth encoding."""
    for tracked, worth in _worth(stream, rate_hz):
        rgb, people = tracked.frame.rgb, tracked.faces
        crops = [crop(rgb, face.landmarks_px, size_px) for face in people] if worth else []
        yield tracked.frame.time_s, people, crops


def _worth(
    stream: Iterable[TrackedFrame], rate_hz: float | None
) -> Iterator[tuple[TrackedFrame, bool]]:
    """Say of each frame whether it is one of those nearest to an encoder's ticks; all, for None."""
    if rate_hz is None:
        yield from ((tracked, True) for tracked in stream)
        return
    passed: deque[TrackedFrame] = deque()

    def timed() -> Iterator[tuple[int, float, TrackedFrame]]:
        for row, tracked in enumerate(stream):
            passed.append(tracked)
            yield row, tracked.frame.time_s, tracked

    for _, _, nearest in media.nearest(timed(), rate_hz):
        while passed[0] is not nearest:
            yield passed.popleft(), False
        yield passed.popleft(), True
    yield from ((tracked, False) for tracked in passed)


def listen(
    info: media.MediaInfo,
    encoder: AudioEncoder,
    report: Progress,
    part: Part = WHOLE,
    damage: Damage | None = None,
) -> tuple[Sampled, tuple[SpeechSpan, ...]]:
    """Find speech and encode the sound in one pass over its blocks."""
    from maven.features import Sampled

    detector = SpeechDetector()
    start_s, total_s = _stretch(info, part)

    def blocks() -> Iterator[media.AudioBlock]:
        for block in media.audio_blocks(info.path, part=part, damage=damage):
            detector.push(block)
            yield block
            report("voice", block.start_s - start_s, total_s)

    times_s, values = encode_audio(blocks(), encoder)
    return Sampled(times_s, values), detector.finish()


def _stretch(info: media.MediaInfo, part: Part) -> tuple[float, float | None]:
    """When a part begins, and how long it is as far as that is known, for reports."""
    end_s = math.inf if info.duration_s is None else info.start_s + info.duration_s
    start_s, end_s = part.within(info.start_s, end_s)
    return start_s, max(end_s - start_s, 0.0) if math.isfinite(end_s) else None


def rows_grid(
    info: media.MediaInfo,
    seen: Seen | None,
    heard: Sampled | None,
    rate_hz: float | None,
    part: Part = WHOLE,
) -> Times:
    """Times of the rows: those of the video's frames, else a uniform grid over the sound."""
    if seen is not None and len(seen.times_s):
        return seen.times_s
    if heard is None or not len(heard.times_s):
        where = "" if part == WHOLE else f" from {part}{_extent(info)}"
        nothing = "neither a picture nor a sound could be decoded"
        raise media.MediaError(f"{info.path}: {nothing}{where}")
    return uniform_grid(heard.times_s[0], heard.times_s[-1], rate_hz or SOUND_GRID_HZ)


def _extent(info: media.MediaInfo) -> str:
    if info.duration_s is None:
        return ""
    return f"; it lasts from {info.start_s:.6g} s to {info.start_s + info.duration_s:.6g} s"
