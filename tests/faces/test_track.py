"""Tracking: scripted faces with known truth, and real clips looked at by eye."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.faces.detect import CenterFace, Detection
from maven.faces.track import (
    LOOK_AHEAD_S,
    LOST_S,
    MOST_NEAR,
    SCAN_S,
    FaceTrack,
    FaceTracks,
    TrackedFace,
    TrackedFrame,
    main_track,
    track_faces,
)
from maven.media import Frame, frames
from scripted_faces import Script, Scripted, WholeOnly, at, clip, face, picture


def run(clip_frames: list[Frame], script: Script, **options: float) -> list[TrackedFrame]:
    tracked = list(track_faces(clip_frames, Scripted(script), **options))
    assert [each.frame.index for each in tracked] == [each.index for each in clip_frames]
    return tracked


def summary(tracked: Iterable[TrackedFrame]) -> tuple[FaceTrack, ...]:
    tracks = FaceTracks()
    for each in tracked:
        tracks.add(each.frame.time_s, each.faces)
    return tracks.summary()


def where(tracked: list[TrackedFrame], track_id: int) -> list[int]:
    """The frames that have a track."""
    return [t.frame.index for t in tracked for f in t.faces if f.track_id == track_id]


def centres_x(tracked: list[TrackedFrame], track_id: int) -> np.ndarray:
    boxes = [f.box_px for t in tracked for f in t.faces if f.track_id == track_id]
    return np.array([box[0] + box[2] / 2 for box in boxes])


VARIABLE_TIMES_S = st.lists(st.floats(0.005, 0.15), min_size=5, max_size=80).map(
    lambda steps: 3.7 + np.cumsum(steps)
)


@settings(deadline=None, max_examples=60)
@given(VARIABLE_TIMES_S, st.floats(-200, 200), st.floats(-100, 100))
def test_linear_motion_is_followed_exactly_in_true_time(times_s, speed_x, speed_y):
    def truth(index: int) -> Detection:
        elapsed_s = times_s[index] - times_s[0]
        return face(900 + speed_x * elapsed_s, 900 + speed_y * elapsed_s, 60)

    tracked = run(clip(times_s), lambda index: [truth(index)])
    for each in tracked:
        (found,) = each.faces
        expected = truth(each.frame.index)
        assert found.track_id == 1
        np.testing.assert_allclose(found.box_px, expected.box_px, atol=0.01)
        np.testing.assert_allclose(found.landmarks_px, expected.landmarks_px, atol=0.01)


@pytest.mark.parametrize("rate_hz", [5, 15, 24, 25, 30, 60])
def test_the_detector_is_called_ten_times_a_second(rate_hz: int):
    detector = Scripted(lambda _: [face(100), face(300)])
    times_s = at(rate_hz, 10)
    tracked = list(track_faces(clip(times_s), detector))
    assert len(tracked) == len(times_s)
    assert {0, len(times_s) - 1} <= set(detector.calls)
    assert min(len(times_s), 75) <= len(detector.looked()) <= 102
    assert len(set(detector.near_calls)) == len(detector.near_calls)


def test_detect_hz_is_heeded():
    detector = Scripted(lambda _: [face(100)])
    list(track_faces(clip(at(30, 10)), detector, detect_hz=2))
    assert len(detector.looked()) <= 22
    with pytest.raises(ValueError, match="detect_hz"):
        next(track_faces([], detector, detect_hz=0))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60), st.integers(15, 60), st.sampled_from([24, 25, 30, 50]))
def test_coming_and_going_are_located_to_the_frame(first, length, rate_hz):
    length = round(length * rate_hz / 25)
    times_s = at(rate_hz, 5)
    last = min(first + length, len(times_s)) - 1

    def script(index: int) -> list[Detection]:
        return [face(500)] + ([face(100 + index)] if first <= index <= last else [])

    tracked = run(clip(times_s), script)
    assert len(where(tracked, 1)) == len(times_s) or first == 0
    mover = 2 if first > 0 else next(k for k in (1, 2) if centres_x(tracked, k)[0] < 400)
    assert where(tracked, mover) == list(range(first, last + 1))


def test_locating_is_cheap():
    detector = Scripted(lambda index: [face(100)] if 50 <= index < 100 else [])
    list(track_faces(clip(at(60, 3)), detector))
    assert len(detector.looked()) <= 31 + 2 * 3  # two boundaries, each halving five frames
    assert len(detector.near_calls) <= 10  # of the second in which the face is there


def test_whole_frames_are_seldom_looked_at():
    detector = Scripted(lambda _: [face(100), face(300)])
    times_s = at(30, 10)
    list(track_faces(clip(times_s), detector))
    assert len(detector.calls) <= 10 / SCAN_S + 2
    gaps_s = np.diff(times_s[detector.calls])
    assert gaps_s.max() <= SCAN_S + 1e-6


@pytest.mark.parametrize("count", [MOST_NEAR, MOST_NEAR + 1])
def test_a_crowd_is_looked_at_as_a_whole(count: int):
    detector = Scripted(lambda _: [face(100 * k) for k in range(count)])
    list(track_faces(clip(at(30, 3)), detector))
    assert (detector.near_calls == []) == (count > MOST_NEAR)


def test_a_lost_face_is_looked_for_everywhere_until_it_is_given_up():
    detector = Scripted(lambda index: [face(500), *([face(100)] if index < 60 else [])])
    list(track_faces(clip(at(30, 5)), detector))
    assert {k for k in detector.calls if 60 <= k < 60 + 30 * LOST_S} >= set(range(63, 90, 3))
    assert len([k for k in detector.calls if k > 65 + 30 * LOST_S]) <= 5


def test_a_leap_out_of_the_square_keeps_the_identity():
    size, leap = 50.0, 0.9  # faces; the square ends 0.65 faces beyond the box
    script = lambda index: [face(100 if index < 45 else 100 + leap * size, size=size)]  # noqa: E731
    (track,) = summary(run(clip(at(30, 3)), script))
    assert track.frames == 90
    assert track.gaps == ()


@settings(deadline=None, max_examples=60)
@given(st.integers(16, 70), st.integers(0, 3), st.sampled_from([24, 25, 30]))
def test_who_comes_between_two_scans_is_located_as_by_whole_frames(first, weak, rate_hz):
    """Oracle: a detector that looks at whole frames only."""

    def script(index: int) -> list[Detection]:
        score = 0.4 if index < first + weak else 0.9
        return [face(500), *([face(100 + 4 * index, score=score)] if index >= first else [])]

    frames_ = clip(at(rate_hz, 4))
    plain = list(track_faces(frames_, WholeOnly(script)))
    assert where(run(frames_, script), 2) == where(plain, 2)


def test_half_a_second_away_is_a_gap_in_one_identity():
    tracked = run(clip(at(25, 4)), lambda index: [] if 40 <= index < 53 else [face(100)])
    (track,) = summary(tracked)
    assert where(tracked, 1) == [*range(40), *range(53, 100)]
    assert track.gaps == ((pytest.approx(40 / 25), pytest.approx(53 / 25)),)
    assert (track.first_s, track.last_s) == (0, pytest.approx(99 / 25))
    assert track.frames == 87
    assert track.coverage == pytest.approx(0.87)


def test_after_a_long_absence_a_face_is_someone_new():
    tracked = run(clip(at(25, 9)), lambda index: [] if 50 <= index < 175 else [face(100)])
    assert [*where(tracked, 1), *where(tracked, 2)] == [*range(50), *range(175, 225)]
    assert [track.gaps for track in summary(tracked)] == [(), ()]


@pytest.mark.parametrize("missed", range(1, 7))
def test_a_flicker_is_bridged(missed: int):
    """Two detections at most, wherever it lies between them."""
    for start in range(30, 34):
        gone = range(start, start + missed)
        tracked = run(
            clip(at(30, 3)), lambda index, gone=gone: [] if index in gone else [face(100)]
        )
        (track,) = summary(tracked)
        assert track.frames == 90
        assert track.gaps == ()


@pytest.mark.parametrize("length", [1, 3, 6])
def test_what_is_seen_for_a_moment_is_not_reported(length: int):
    seen = range(31, 31 + length)
    tracked = run(clip(at(30, 3)), lambda index: [face(100)] if index in seen else [])
    assert summary(tracked) == ()


def test_a_weak_face_continues_a_track_but_starts_none():
    def script(index: int) -> list[Detection]:
        return [face(100, score=0.9 if index < 20 else 0.4), face(300, score=0.4)]

    (track,) = summary(run(clip(at(25, 3)), script))
    assert track.frames == 75
    assert 0.4 < track.mean_score < 0.9


@pytest.mark.parametrize("rate_hz", [25, 30, 60])
@pytest.mark.parametrize("speed", [60, 250])  # px / s; a face has 50 px
@pytest.mark.parametrize("apart_px", [0, 8])
def test_crossing_people_keep_their_identities(rate_hz: int, speed: float, apart_px: int):
    def script(index: int) -> list[Detection]:
        way_px = speed * (index / rate_hz - 1.47)
        return [face(500 + way_px, 100), face(500 - way_px, 100 + apart_px)]

    tracked = run(clip(at(rate_hz, 3)), script)
    for track_id in (1, 2):
        steps = np.diff(centres_x(tracked, track_id))
        assert len(steps) == 3 * rate_hz - 1
        assert (steps > 0).all() or (steps < 0).all()


def test_a_cut_ends_identities_at_its_very_frame():
    cut = clip(at(25, 4), scene=lambda index: int(index >= 47))
    tracked = run(cut, lambda index: [face(min(64 + index, 110))])  # the next one is where he was
    assert where(tracked, 1) == list(range(47))
    assert where(tracked, 2) == list(range(47, 100))
    assert len(summary(tracked)) == 2


@pytest.mark.parametrize("length", [1, 3, 6])
def test_a_flash_ends_no_identity(length: int):
    flash = range(46, 46 + length)
    lit = clip(at(25, 4), scene=lambda index: int(index in flash))
    (track,) = summary(run(lit, lambda index: [] if index in flash else [face(100)]))
    assert track.frames == 100


def test_a_pan_is_no_cut():
    scene = np.cumsum(np.random.default_rng(1).normal(size=(18, 400)), axis=1)  # smooth along x
    scene = np.clip(128 + 8 * scene, 0, 255).astype(np.uint8)
    moving = clip(at(25, 4))
    for each in moving:
        each.rgb[..., 1] = scene[:, each.index : each.index + 32]
    (track,) = summary(run(moving, lambda _: [face(100)]))
    assert track.frames == 100


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_a_clip_of_a_few_frames(count: int):
    tracked = run(clip(np.arange(count) / 25), lambda _: [face(100), face(300)])
    assert [len(each.faces) for each in tracked] == [2] * count


@pytest.mark.parametrize("rate_hz", [0.2, 1, 4])
def test_very_few_frames_a_second(rate_hz: float):
    tracked = run(clip(np.arange(20) / rate_hz), lambda _: [face(100)])
    assert where(tracked, 1) == list(range(20))


def test_identities_count_up_from_one_in_order_of_appearance():
    def script(index: int) -> list[Detection]:
        spurious = [face(700)] if index < 3 else []
        return spurious + [face(100 + 150 * k) for k in range(4) if index >= 20 * k]

    tracked = run(clip(at(25, 4)), script)
    assert [track.track_id for track in summary(tracked)] == [1, 2, 3, 4]
    for k in range(4):
        assert where(tracked, k + 1) == list(range(20 * k, 100))


def test_frames_are_held_back_no_longer_than_stated():
    given_out = 0

    def source() -> Iterable[Frame]:
        for each in clip(at(30, 10)):
            assert each.index - given_out <= (LOOK_AHEAD_S + 0.2) * 30 + 2
            yield each

    for _ in track_faces(source(), Scripted(lambda _: [face(100)])):
        given_out += 1
    assert given_out == 300


@given(st.lists(st.sets(st.integers(1, 3)), min_size=1, max_size=30))
def test_summary_against_a_plain_count(present: list[set[int]]):
    """Oracle: look each track up in the whole list of frames."""
    stream = []
    for k, ids in enumerate(present):
        found = tuple(
            TrackedFace(i, face(0, size=i).box_px, face(0).landmarks_px, i / 4) for i in sorted(ids)
        )
        stream.append(TrackedFrame(Frame(k, 0.5 + k / 8, picture(k)), found))
    tracks = {track.track_id: track for track in summary(stream)}
    assert list(tracks) == sorted(set().union(*present))
    for i, track in tracks.items():
        has = [k for k, ids in enumerate(present) if i in ids]
        assert track.frames == len(has)
        assert (track.first_s, track.last_s) == (0.5 + has[0] / 8, 0.5 + has[-1] / 8)
        assert track.coverage == pytest.approx(len(has) / len(present))
        assert track.mean_score == pytest.approx(i / 4)
        assert track.mean_area_px == pytest.approx(i * i)
        gaps = [(0.5 + (a + 1) / 8, 0.5 + b / 8) for a, b in pairwise(has) if b > a + 1]
        assert list(track.gaps) == gaps


def test_main_track():
    sizes = [(1, 10, 900.0), (2, 30, 100.0), (3, 30, 400.0)]  # id, frames, area
    tracks = [FaceTrack(k, 0.0, 1.0, count, 0.5, 0.9, area, ()) for k, count, area in sizes]
    assert main_track(tracks) == tracks[2]
    assert main_track([]) is None


# Real clips: what is in them was established by looking at their frames.


@pytest.fixture(scope="module")
def centerface() -> CenterFace:
    return CenterFace()


def follow(path: Path, detector: CenterFace, count: int | None = None) -> list[TrackedFrame]:
    """Track (the first frames of) a clip; keep the faces, not the pictures."""
    return [
        TrackedFrame(Frame(each.frame.index, each.frame.time_s, picture(0)), each.faces)
        for each in track_faces(islice(frames(path), count), detector)
    ]


@pytest.mark.parametrize(
    "name",
    [
        "grid_s1_lgwg2n.mpg",
        "silent_furious_talk1_clip1.mp4",
        "silent_sadgirl_clip1.mp4",
        "single_face_short.mp4",
        "talk_face1_22fps.mp4",
        "talk_face5_524.mp4",
    ],
)
def test_one_person(name: str, clips_dir: Path, centerface: CenterFace):
    (track,) = summary(follow(clips_dir / name, centerface))
    assert track.coverage > 0.95
    assert track.gaps == ()


def test_portrait_picture_is_upright(clips_dir: Path, centerface: CenterFace):
    tracked = follow(clips_dir / "talk_portrait_1080x1920.mp4", centerface, 75)
    (track,) = summary(tracked)
    assert track.coverage > 0.95
    for each in tracked:
        for found in each.faces:
            assert found.landmarks_px[:2, 1].max() < found.landmarks_px[3:, 1].min()
            assert found.box_px[1] + found.box_px[3] < 960  # she sits in the upper half


def test_no_face(clips_dir: Path, centerface: CenterFace):
    assert summary(follow(clips_dir / "no_face.mp4", centerface)) == ()


def test_a_face_that_goes_for_good(clips_dir: Path, centerface: CenterFace):
    tracked = follow(clips_dir / "face_then_no_face.mov", centerface)
    (track,) = summary(tracked)
    assert where(tracked, 1) == list(range(72))  # frame 72 is black
    assert track.coverage == pytest.approx(72 / 169)


def test_two_people(clips_dir: Path, centerface: CenterFace):
    tracks = summary(follow(clips_dir / "interview_two_faces_720p.mp4", centerface, 200))
    assert len(tracks) == 2
    assert min(track.coverage for track in tracks) > 0.95


def test_three_people_in_three_shots(clips_dir: Path, centerface: CenterFace):
    """All three until frame 157, then close-ups of two: cuts at 158 and 289."""
    tracked = follow(clips_dir / "three_faces_720p.avi", centerface)
    assert [track.track_id for track in summary(tracked)] == [1, 2, 3, 4, 5]
    assert {len(each.faces) for each in tracked[80:140]} == {3}
    assert where(tracked, 1) == list(range(158))
    assert max(where(tracked, 2)) == max(where(tracked, 3)) == 157
    assert where(tracked, 4) == list(range(158, 289))
    assert where(tracked, 5) == list(range(289, 434))


def test_six_faces_in_four_shots(clips_dir: Path, centerface: CenterFace):
    """Singer and pianist; a listener before a dark audience; the singer; five listeners."""
    tracked = follow(clips_dir / "six_faces_360p.mp4", centerface)
    cuts = [0, 20, 82, 211, 275]
    shots = [{f.track_id for each in tracked[a:b] for f in each.faces} for a, b in pairwise(cuts)]
    assert [len(ids) for ids in shots] == [2, pytest.approx(5, abs=2), 1, 5]
    assert len(set().union(*shots)) == sum(len(ids) for ids in shots)  # no one crosses a cut
    assert {len(each.faces) for each in tracked[211:]} == {5}
    assert {len(each.faces) for each in tracked[82:211]} == {1}
    boxes: dict[int, tuple[int, np.ndarray]] = {}
    for each in tracked:
        for found in each.faces:
            index, before = boxes.get(found.track_id, (-1, found.box_px))
            if index == each.frame.index - 1:
                step = found.box_px[:2] - before[:2] + (found.box_px[2:] - before[2:]) / 2
                assert np.hypot(*step) < found.box_px[2]
            boxes[found.track_id] = each.frame.index, found.box_px
