"""Detections -> one identity per person, frame by frame, gaps explicit.

The detector runs on some ten frames a second; between two of them faces are interpolated in time.
It looks around known faces only, and at the whole frame every `SCAN_S`, or when a face is missing:
who is new is looked for in the frames since the last whole one.
Association follows ByteTrack (Zhang et al., arXiv 2110.06864): weak detections may continue a track
but never start one, and a track waits `LOST_S` for its person.

What lasts less than `NOISE_S` is noise, both ways: a face seen for less is not reported, and one
missed for less between two sightings is bridged. So frames are held back for `LOOK_AHEAD_S`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from maven.faces.association import START_SCORE, associate
from maven.faces.detect import Detection, FaceDetector, Floats
from maven.faces.shots import same_shot, thumbnail
from maven.media import Frame

DETECT_HZ = 10.0
SCAN_S = 0.5
MOST_NEAR = 3  # looking around more faces costs as much as the whole frame
NOISE_S = 0.3
LOOK_AHEAD_S = 0.4  # NOISE_S and one missed detection
LOST_S = 1.0  # a person away for longer comes back as someone new
ROUNDING_S = 1e-3  # some containers count time in milliseconds


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
    `detect_hz` frames a second between, and the few that locate where a face appears or goes. It
    sees the whole frame, or what is around known faces where that will do. An identity ends at a
    cut, and after `LOST_S` without its face.

    Args:
        frames: in the order of their times.
        detector: finds the faces of one frame.
        detect_hz: detections per second of the stream's own time.

    Yields:
        Every frame, in order, `LOOK_AHEAD_S` or `SCAN_S` (and one detection step) behind the input.

    Raises:
        ValueError: `detect_hz` is not positive.
    """
    if not detect_hz > 0:
        raise ValueError(f"detect_hz is {detect_hz}; it must be positive")
    tracker = _Tracker(detector, 1 / detect_hz)
    for frame in frames:
        yield from tracker.push(frame)
    yield from tracker.finish()


class FaceTracks:
    """Adds up a stream of tracked frames into one `FaceTrack` a person."""

    def __init__(self) -> None:
        self._frames = 0
        self._tracks: dict[int, FaceTrack] = {}
        self._present: set[int] = set()
        self._gone_s: dict[int, float] = {}  # since when

    def add(self, time_s: float, faces: Sequence[TrackedFace]) -> None:
        """Take in the next frame of the stream."""
        now = {face.track_id for face in faces}
        self._gone_s |= dict.fromkeys(self._present - now, time_s)
        self._present = now
        self._frames += 1
        for face in faces:
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
    """A frame that the detector saw, its faces, and the frames up to the next anchor.

    `whole` where the detector saw all of it, so that nobody in it is unknown.
    """

    frame: Frame
    faces: _Faces = field(default_factory=dict)
    between: list[Frame] = field(default_factory=list)
    whole: bool = False


class _Tracker:
    def __init__(self, detector: FaceDetector, period_s: float) -> None:
        self.detector, self.period_s = detector, period_s
        self.tracks: list[_Track] = []
        self.anchors: deque[_Anchor] = deque()  # not yet yielded
        self.reported = 0
        self.scan_s = 0.0  # time of the last anchor seen whole
        self.picture: Floats | None = None  # thumbnail of the last frame
        self.before_cut: tuple[float, Floats, list[_Track]] | None = None

    def push(self, frame: Frame) -> Iterator[TrackedFrame]:
        before, self.picture = self.picture, thumbnail(frame.rgb)
        if before is None:
            self._detect(frame)
        elif not same_shot(before, self.picture):
            self._close_anchor()
            self._cut(before, self.picture)
            self._detect(frame)
        elif frame.time_s - self.anchors[-1].frame.time_s >= self.period_s - ROUNDING_S:
            self._detect(frame)
        else:
            self.anchors[-1].between.append(frame)
        while len(self.anchors) > 1 and self._is_settled(self.anchors[1]):
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

    def _is_settled(self, anchor: _Anchor) -> bool:
        """Say whether nobody can turn out to be in an anchor any more."""
        return self._age_s(anchor) >= LOOK_AHEAD_S and anchor.frame.time_s <= self.scan_s

    def _close_anchor(self) -> None:
        """Make the last frame pushed an anchor seen whole, if it is not."""
        if self.anchors[-1].between:
            self._detect(self.anchors[-1].between.pop())
        if not self.anchors[-1].whole:
            self._scan()

    def _cut(self, before: Floats, now: Floats) -> None:
        """End all tracks, unless the picture is back to what it was: a flash or a black frame."""
        time_s = self.anchors[-1].frame.time_s
        old, self.before_cut = self.before_cut, (time_s, before, self.tracks)
        self.tracks = []
        if old and time_s - old[0] <= NOISE_S and same_shot(old[1], now):
            self.tracks = old[2]

    def _detect(self, frame: Frame) -> None:
        """Make a frame an anchor: find its faces and whose they are."""
        time_s, known = frame.time_s, self.tracks
        all_seen = all(track in self.anchors[-1].faces for track in known)
        near = range(len(known)) if all_seen and len(known) <= MOST_NEAR else ()
        expected = [track.expected_px(time_s) for track in known]
        found, matches, whole = self._look(frame, expected, near)
        self.anchors.append(_Anchor(frame))
        for i, j in matches:
            self._see(known[i], self.anchors[-1], found[j])
        self.tracks = [
            track
            for track in known
            if time_s - track.last_s <= (LOST_S if track.lasts(NOISE_S) else NOISE_S)
        ]
        if whole:
            self._greet(found, matches)
        elif time_s - self.scan_s >= SCAN_S - ROUNDING_S:
            self._scan()

    def _scan(self) -> None:
        """Look at the whole of the last anchor for others than those known to be in it."""
        anchor = self.anchors[-1]
        found = self.detector(anchor.frame.rgb)
        known_px = [face.box_px for face in anchor.faces.values()]
        self._greet(found, associate(known_px, found))

    def _greet(self, found: Sequence[Detection], matches: Sequence[tuple[int, int]]) -> None:
        """Begin a track for each strong face without a match in the last anchor, now seen whole."""
        self.anchors[-1].whole, self.scan_s = True, self.anchors[-1].frame.time_s
        known = {j for _, j in matches}
        for j, face in enumerate(found):
            if j not in known and face.score >= START_SCORE:
                self.tracks.append(self._begin(face))

    def _begin(self, face: Detection) -> _Track:
        """Begin the track of a face in the last anchor where it was first strong."""
        seen = [(self.anchors[-1], face), *self._look_back(face)]
        while seen[-1][1].score < START_SCORE:
            seen.pop()
        first, face = seen.pop()
        track = _Track(first.frame.time_s, first.frame.time_s, face, np.zeros(4, np.float32))
        first.faces[track] = face
        for anchor, face in reversed(seen):
            self._see(track, anchor, face)
        return track

    def _look_back(self, face: Detection) -> Iterator[tuple[_Anchor, Detection]]:
        """Find a face in the anchors since one seen whole, newest first, up to `NOISE_S` apart."""
        last_s = self.anchors[-1].frame.time_s
        for anchor in reversed(list(self.anchors)[:-1]):
            if anchor.whole or last_s - anchor.frame.time_s > NOISE_S + ROUNDING_S:
                return
            expected = [*(known.box_px for known in anchor.faces.values()), face.box_px]
            ours = len(expected) - 1
            found, matches, _ = self._look(anchor.frame, expected, [ours])
            if ours in dict(matches):
                face, last_s = found[dict(matches)[ours]], anchor.frame.time_s
                yield anchor, face

    def _look(
        self, frame: Frame, expected_px: Sequence[Floats], near: Sequence[int]
    ) -> tuple[Sequence[Detection], list[tuple[int, int]], bool]:
        """Look around those of the expected boxes; at the whole, if that finds not all of them.

        Returns:
            The faces, their matches with the expected boxes, and whether the whole was seen.
        """
        if near:
            found = self.detector.near(frame.rgb, [expected_px[i] for i in near])
            matches = associate(expected_px, found)
            if dict(matches).keys() >= set(near):
                return found, matches, False
        found = self.detector(frame.rgb)
        return found, associate(expected_px, found), True

    def _see(self, track: _Track, anchor: _Anchor, face: Detection) -> None:
        """Add a sighting; fill the anchors since the last one, if that is at most `NOISE_S` ago."""
        time_s, anchor.faces[track] = anchor.frame.time_s, face
        if time_s - track.last_s <= NOISE_S + ROUNDING_S:
            for between in self.anchors:
                between_s = between.frame.time_s
                if track.last_s < between_s < time_s:
                    share = (between_s - track.last_s) / (time_s - track.last_s)
                    between.faces[track] = _blend(track.last, face, share)
        track.see(time_s, face)

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
        tracks, expected_px = list(around), [face.box_px for face in around.values()]
        found, matches, _ = self._look(frames[middle], expected_px, ())
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
