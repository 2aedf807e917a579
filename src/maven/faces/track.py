"""Detections -> one identity per person, frame by frame, gaps explicit.

The detector runs on some ten frames a second; between two of them faces are interpolated in time.
Association follows ByteTrack (Zhang et al., arXiv 2110.06864): strong detections are matched first,
weak ones may then continue a track but never start one, and a track waits `LOST_S` for its person.

What lasts less than `NOISE_S` is noise, both ways: a face seen for less is not reported, and one
missed for less between two sightings is bridged. So frames are held back for `LOOK_AHEAD_S`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from maven.faces.detect import Detection, FaceDetector, Floats, Image
from maven.media import Frame

DETECT_HZ = 10.0
START_SCORE = 0.6  # a weaker detection starts no track
NOISE_S = 0.3
LOOK_AHEAD_S = 0.4  # NOISE_S and one missed detection
LOST_S = 1.0  # a person away for longer comes back as someone new
REACH = 1.0  # the longest step of a face between two detections, in face sizes
SAME_SHOT = 0.5  # correlation of neighbouring pictures: above 0.7 in a shot, below 0.35 at a cut
ROUNDING_S = 1e-3  # some containers count time in milliseconds
THUMBNAIL_PX = (32, 18)
FLAT = 4.0  # grey levels squared: the contrast of noise on a black or plain picture


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One person's face in one frame, in pixels of that frame (as in `Detection`)."""

    track_id: int
    box_px: Floats  # (4,)
    landmarks_px: Floats  # (5, 2)
    score: float


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """A frame and the faces in it, by track id; nobody is in it where there are none."""

    frame: Frame
    faces: tuple[TrackedFace, ...]


@dataclass(frozen=True)
class FaceTrack:
    """One person over a whole stream.

    Attributes:
        track_id: 1, 2, ... in the order of first appearance.
        first_s: time of the first frame with the face.
        last_s: time of the last one.
        frames: how many frames have the face.
        coverage: their share of the stream's frames, in (0, 1].
        mean_score: mean confidence, in [0, 1].
        mean_area_px: mean area of the box, in square pixels.
        gaps: (start_s, end_s) of each absence between: its first frame, and the first frame with
            the face again.
    """

    track_id: int
    first_s: float
    last_s: float
    frames: int
    coverage: float
    mean_score: float
    mean_area_px: float
    gaps: tuple[tuple[float, float], ...]


def track_faces(
    frames: Iterable[Frame], detector: FaceDetector, *, detect_hz: float = DETECT_HZ
) -> Iterator[TrackedFrame]:
    """Follow every face through a stream of frames.

    The detector sees the first and the last frame, those on either side of a cut, up to
    `detect_hz` frames a second between, and the few that locate where a face appears or goes. An
    identity ends at a cut, and after `LOST_S` without its face.

    Args:
        frames: in the order of their times.
        detector: finds the faces of one frame.
        detect_hz: detections per second of the stream's own time.

    Yields:
        Every frame, in order, `LOOK_AHEAD_S` (and one detection step) behind the input.

    Raises:
        ValueError: `detect_hz` is not positive.
    """
    if not detect_hz > 0:
        raise ValueError(f"detect_hz is {detect_hz}; it must be positive")
    tracker = _Tracker(detector, 1 / detect_hz)
    for frame in frames:
        yield from tracker.push(frame)
    yield from tracker.finish()


def associate(expected_px: Sequence[Floats], found: Sequence[Detection]) -> list[tuple[int, int]]:
    """Match expected boxes (4,) with detections: strong ones first, then the nearest first.

    The distance of two boxes is that of their centres, in face sizes, plus the log of the ratio of
    their sizes; `REACH` bounds it.

    Returns:
        (index of the box, index of the detection) of each match; each index occurs once at most.
    """
    if not len(expected_px) or not len(found):
        return []
    ours = np.stack(expected_px)[:, None].astype(np.float64)  # (m, 1, 4)
    theirs = np.stack([face.box_px for face in found])[None]  # (1, n, 4)
    steps_px = ours[..., :2] + ours[..., 2:] / 2 - theirs[..., :2] - theirs[..., 2:] / 2
    sizes_px = np.sqrt(ours[..., 2] * ours[..., 3]), np.sqrt(theirs[..., 2] * theirs[..., 3])
    distances = np.hypot(steps_px[..., 0], steps_px[..., 1]) / np.sqrt(sizes_px[0] * sizes_px[1])
    distances += np.abs(np.log(sizes_px[0] / sizes_px[1]))
    pairs = sorted(
        (found[j].score < START_SCORE, distances[i, j], int(i), int(j))
        for i, j in np.argwhere(distances < REACH)
    )
    matches: list[tuple[int, int]] = []
    for _, _, i, j in pairs:
        if all(i != other_i and j != other_j for other_i, other_j in matches):
            matches.append((i, j))
    return matches


def thumbnail(rgb: Image) -> Floats:
    """Return a tiny grey picture of `rgb` (h, w, 3), centred on 0, to compare by `correlation`."""
    import cv2

    rows, columns = max(1, rgb.shape[0] // 72), max(1, rgb.shape[1] // 128)
    green = np.ascontiguousarray(rgb[::rows, ::columns, 1])
    small = cv2.resize(green, THUMBNAIL_PX, interpolation=cv2.INTER_AREA).astype(np.float32)
    centred: Floats = small - small.mean()
    return centred


def correlation(one: Floats, other: Floats) -> float:
    """Correlate two thumbnails: in [-1, 1], and 1 where both are flat."""
    flat = FLAT * one.size
    power = np.sqrt((np.sum(one**2) + flat) * (np.sum(other**2) + flat))
    return float((np.sum(one * other) + flat) / power)


class FaceTracks:
    """Adds up a stream of tracked frames into one `FaceTrack` a person."""

    def __init__(self) -> None:
        self._frames = 0
        self._tracks: dict[int, FaceTrack] = {}
        self._present: set[int] = set()
        self._gone_s: dict[int, float] = {}  # since when

    def add(self, tracked: TrackedFrame) -> None:
        """Take in the next frame of the stream."""
        time_s = tracked.frame.time_s
        now = {face.track_id for face in tracked.faces}
        self._gone_s |= dict.fromkeys(self._present - now, time_s)
        self._present = now
        self._frames += 1
        for face in tracked.faces:
            unseen = FaceTrack(face.track_id, time_s, time_s, 0, 0.0, 0.0, 0.0, ())
            track = self._tracks.get(face.track_id, unseen)
            gone_s = self._gone_s.pop(face.track_id, None)
            count = track.frames + 1
            area_px = float(face.box_px[2] * face.box_px[3])
            self._tracks[face.track_id] = replace(
                track,
                last_s=time_s,
                frames=count,
                mean_score=track.mean_score + (face.score - track.mean_score) / count,
                mean_area_px=track.mean_area_px + (area_px - track.mean_area_px) / count,
                gaps=track.gaps if gone_s is None else (*track.gaps, (gone_s, time_s)),
            )

    def summary(self) -> tuple[FaceTrack, ...]:
        """Return the tracks seen so far, by track id."""
        tracks = sorted(self._tracks.values(), key=lambda track: track.track_id)
        return tuple(replace(track, coverage=track.frames / self._frames) for track in tracks)


def main_track(tracks: Iterable[FaceTrack]) -> FaceTrack | None:
    """Return the person on screen in most frames, the larger face if two are; None for nobody."""
    return max(tracks, key=lambda track: (track.frames, track.mean_area_px), default=None)


@dataclass(eq=False)
class _Track:
    """A person as far as known; `track_id` is 0 until first reported."""

    first_s: float
    last_s: float
    last: Detection
    velocity: npt.NDArray[np.floating]  # (4,) of the box's centre: x and y in px / s, 0, 0
    track_id: int = 0

    def expected_px(self, time_s: float) -> Floats:
        """Where the box (4,) would be, moving on as before for no longer than `NOISE_S`."""
        step_px = self.velocity * min(time_s - self.last_s, NOISE_S)
        return self.last.box_px + step_px.astype(np.float32)

    def see(self, time_s: float, face: Detection) -> None:
        change = face.box_px - self.last.box_px
        step_px = np.array([*(change[:2] + change[2:] / 2), 0, 0])
        velocity = step_px / max(time_s - self.last_s, ROUNDING_S)
        self.velocity = (self.velocity + velocity) / 2 if self.velocity.any() else velocity
        self.last_s, self.last = time_s, face

    def lasts(self, life_s: float) -> bool:
        return self.last_s - self.first_s >= life_s - ROUNDING_S


_Faces = dict[_Track, Detection]


@dataclass
class _Anchor:
    """A frame that the detector saw, its faces, and the frames up to the next anchor."""

    frame: Frame
    faces: _Faces
    between: list[Frame] = field(default_factory=list)


class _Tracker:
    def __init__(self, detector: FaceDetector, period_s: float) -> None:
        self.detector, self.period_s = detector, period_s
        self.tracks: list[_Track] = []
        self.anchors: deque[_Anchor] = deque()  # not yet yielded
        self.reported = 0
        self.picture: Floats | None = None  # thumbnail of the last frame
        self.before_cut: tuple[float, Floats, list[_Track]] | None = None

    def push(self, frame: Frame) -> Iterator[TrackedFrame]:
        before, self.picture = self.picture, thumbnail(frame.rgb)
        if before is None:
            self._detect(frame)
        elif correlation(before, self.picture) < SAME_SHOT:
            self._close_anchor()
            self._cut(before, self.picture)
            self._detect(frame)
        elif frame.time_s - self.anchors[-1].frame.time_s >= self.period_s - ROUNDING_S:
            self._detect(frame)
        else:
            self.anchors[-1].between.append(frame)
        while len(self.anchors) > 1 and self._age_s(self.anchors[1]) >= LOOK_AHEAD_S:
            yield from self._yield_first(NOISE_S)

    def finish(self) -> Iterator[TrackedFrame]:
        if not self.anchors:
            return
        self._close_anchor()
        life_s = min(NOISE_S, self._age_s(self.anchors[0]))  # a clip may be as short
        while len(self.anchors) > 1:
            yield from self._yield_first(life_s)
        last = self.anchors.popleft()
        yield self._tracked(last.frame, _lasting(last.faces, life_s))

    def _age_s(self, anchor: _Anchor) -> float:
        return self.anchors[-1].frame.time_s - anchor.frame.time_s

    def _close_anchor(self) -> None:
        """Make the last frame pushed an anchor, if it is not."""
        if self.anchors[-1].between:
            self._detect(self.anchors[-1].between.pop())

    def _cut(self, before: Floats, now: Floats) -> None:
        """End all tracks, unless the picture is back to what it was: a flash or a black frame."""
        time_s = self.anchors[-1].frame.time_s
        old, self.before_cut = self.before_cut, (time_s, before, self.tracks)
        self.tracks = []
        if old and time_s - old[0] <= NOISE_S and correlation(old[1], now) >= SAME_SHOT:
            self.tracks = old[2]

    def _detect(self, frame: Frame) -> None:
        """Make a frame an anchor: find its faces and whose they are."""
        time_s, found = frame.time_s, self.detector(frame.rgb)
        matches = associate([track.expected_px(time_s) for track in self.tracks], found)
        faces = {self.tracks[i]: found[j] for i, j in matches}
        self.anchors.append(_Anchor(frame, faces))
        for track, face in faces.items():
            self._bridge(track, face)
            track.see(time_s, face)
        self.tracks = [
            track
            for track in self.tracks
            if time_s - track.last_s <= (LOST_S if track.lasts(NOISE_S) else NOISE_S)
        ]
        known = {j for _, j in matches}
        for j, face in enumerate(found):
            if j not in known and face.score >= START_SCORE:
                faces[_Track(time_s, time_s, face, np.zeros(4, np.float32))] = face
        self.tracks += [track for track in faces if track not in self.tracks]

    def _bridge(self, track: _Track, face: Detection) -> None:
        """Fill the anchors without a face between two sightings no more than `NOISE_S` apart."""
        now_s = self.anchors[-1].frame.time_s
        if now_s - track.last_s > NOISE_S + ROUNDING_S:
            return
        for anchor in self.anchors:
            time_s = anchor.frame.time_s
            if track.last_s < time_s < now_s:
                share = (time_s - track.last_s) / (now_s - track.last_s)
                anchor.faces[track] = _blend(track.last, face, share)

    def _yield_first(self, life_s: float) -> Iterator[TrackedFrame]:
        first = self.anchors.popleft()
        faces = _lasting(first.faces, life_s)
        following = _lasting(self.anchors[0].faces, life_s)
        frames = [first.frame, *first.between, self.anchors[0].frame]
        for frame, here in self._resolve(frames, faces, following):
            yield self._tracked(frame, here)

    def _resolve(
        self, frames: list[Frame], first: _Faces, last: _Faces
    ) -> Iterator[tuple[Frame, _Faces]]:
        """Give faces to all frames but the last, from those of the first and the last.

        Who is in one of the two only is located by bisection: the detector sees a middle frame.
        """
        if len(frames) == 2:
            yield frames[0], first
            return
        shares = [_share(frame, frames[0], frames[-1]) for frame in frames]
        if first.keys() == last.keys():
            for frame, share in zip(frames[:-1], shares, strict=False):
                yield frame, {track: _blend(first[track], last[track], share) for track in first}
            return
        middle = len(frames) // 2
        both = {
            track: _blend(first[track], last[track], shares[middle])
            for track in first.keys() & last.keys()
        }
        around = first | last | both
        found = self.detector(frames[middle].rgb)
        matches = associate([face.box_px for face in around.values()], found)
        tracks = list(around)
        faces = both | {tracks[i]: found[j] for i, j in matches}
        yield from self._resolve(frames[: middle + 1], first, faces)
        yield from self._resolve(frames[middle:], faces, last)

    def _tracked(self, frame: Frame, faces: _Faces) -> TrackedFrame:
        for track in faces:
            if not track.track_id:
                self.reported += 1
                track.track_id = self.reported
        tracked = [
            TrackedFace(track.track_id, face.box_px, face.landmarks_px, face.score)
            for track, face in faces.items()
        ]
        return TrackedFrame(frame, tuple(sorted(tracked, key=lambda face: face.track_id)))


def _lasting(faces: _Faces, life_s: float) -> _Faces:
    return {track: face for track, face in faces.items() if track.lasts(life_s)}


def _blend(first: Detection, last: Detection, share: float) -> Detection:
    """Return the face `share` of the way from one to another."""
    return Detection(
        first.box_px + (last.box_px - first.box_px) * np.float32(share),
        first.landmarks_px + (last.landmarks_px - first.landmarks_px) * np.float32(share),
        first.score + (last.score - first.score) * share,
    )


def _share(frame: Frame, first: Frame, last: Frame) -> float:
    """Return how far a frame lies in time between two others, in [0, 1]."""
    span_s = last.time_s - first.time_s
    return min(max((frame.time_s - first.time_s) / span_s, 0.0), 1.0) if span_s > 0 else 0.0
