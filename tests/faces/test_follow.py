"""The main face without looking ahead: scripted faces with known truth, and a real clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maven.faces.detect import CenterFace, Detection
from maven.faces.follow import LEAD_LOOKS, MainFace
from maven.faces.track import LOST_S, SCAN_S, track_faces
from maven.media import frames

STEP_S = 0.1
Image = npt.NDArray[np.uint8]


def face(x: float, size: float = 50, score: float = 0.9) -> Detection:
    box_px = np.array([x - size / 2, 100 - size / 2, size, size], np.float32)
    return Detection(box_px, np.zeros((5, 2), np.float32), score)


class Scripted:
    """Gives the faces of the picture whose number is in its first pixel."""

    name = fingerprint = "scripted"

    def __init__(self, script: Callable[[int], list[Detection]]) -> None:
        self.script, self.calls, self.near_calls = script, list[int](), list[int]()

    def __call__(self, rgb: Image) -> list[Detection]:
        self.calls.append(int(rgb[0, 0, 0]))
        return self.script(self.calls[-1])

    def near(self, rgb: Image, boxes_px: Sequence[npt.NDArray[np.float32]]) -> list[Detection]:
        self.near_calls.append(int(rgb[0, 0, 0]))
        middles_px = [box_px[0] + box_px[2] / 2 for box_px in boxes_px]
        return [
            each
            for each in self.script(self.near_calls[-1])
            if any(abs(each.box_px[0] + each.box_px[2] / 2 - x) < 60 for x in middles_px)
        ]


def follow(
    script: Callable[[int], list[Detection]], looks: int
) -> tuple[list[tuple[int, float] | None], Scripted]:
    """Number of the main person and middle of their face, look by look."""
    detector = Scripted(script)
    main = MainFace(detector)
    seen: list[tuple[int, float] | None] = []
    for k in range(looks):
        person = main.look(np.full((4, 4, 3), k, np.uint8), k * STEP_S)
        middle = None if person is None else person.face.box_px[0] + person.face.box_px[2] / 2
        seen.append(None if person is None or middle is None else (person.number, float(middle)))
    return seen, detector


def test_a_face_is_followed_as_it_moves() -> None:
    seen, _ = follow(lambda k: [face(100 + 20 * k)], 30)
    assert seen == [(1, 100 + 20 * k) for k in range(30)]


def test_the_larger_of_two_is_the_main_one_and_stays_it() -> None:
    # sizes cross after the first look; both are seen equally long
    seen, _ = follow(lambda k: [face(100, 50 + k), face(400, 60)], 30)
    assert [each and each[1] for each in seen] == [400] * 30


def test_who_is_seen_in_more_frames_takes_over_but_not_at_once() -> None:
    def script(k: int) -> list[Detection]:
        return [face(400)] + ([face(100, 80)] if k % 2 == 0 else [])

    seen, _ = follow(script, 40)
    numbers = [each and each[0] for each in seen]
    change = 2 * LEAD_LOOKS + 1  # 100 is missing in every second frame
    assert [each and each[1] for each in seen[:change]] == [100, None] * LEAD_LOOKS + [100]
    assert [each and each[1] for each in seen[change:]] == [400] * (40 - change)
    assert len(set(numbers[change:])) == 1


def test_who_is_lost_is_no_longer_waited_for() -> None:
    def script(k: int) -> list[Detection]:
        return [face(100)] if k < 20 else [face(400)] if k >= 25 else []

    seen, _ = follow(script, 40)
    assert seen[:20] == [(1, 100.0)] * 20
    found = next(k for k in range(20, 40) if seen[k] is not None)
    assert LOST_S <= found * STEP_S - 1.9 <= LOST_S + STEP_S + 1e-9
    assert seen[found:] == [(2, 400.0)] * (40 - found)


def test_a_weak_face_starts_nothing_but_goes_on() -> None:
    seen, _ = follow(lambda k: [face(100, score=0.9 if k == 3 else 0.4)], 8)
    assert seen == [None] * 3 + [(1, 100.0)] * 5


def test_a_known_face_is_looked_for_nearby() -> None:
    _, detector = follow(lambda k: [face(100)], 50)
    assert np.diff(detector.calls).max() * STEP_S <= SCAN_S + STEP_S
    assert len(detector.calls) <= 50 * STEP_S / SCAN_S + 1
    assert sorted(detector.calls + detector.near_calls) == list(range(50))


def test_where_it_is_not_nearby_the_whole_frame_is_looked_at() -> None:
    seen, detector = follow(lambda k: [face(100 if k < 8 else 900)], 12)
    assert seen[:8] == [(1, 100.0)] * 8
    assert {8, 9, 10, 11} <= set(detector.calls)


def test_on_a_real_clip_it_is_where_the_tracker_sees_it(clips_dir: Path) -> None:
    path, detector = clips_dir / "talk_face1_22fps.mp4", CenterFace()
    main = MainFace(detector)
    apart, looked_s = [], -1.0
    for tracked in track_faces(frames(path), detector):
        if tracked.frame.time_s - looked_s < STEP_S:
            continue
        looked_s = tracked.frame.time_s
        person = main.look(tracked.frame.rgb, looked_s)
        assert person is not None
        assert person.number == 1
        (other,) = tracked.faces
        middles_px = [each.box_px[:2] + each.box_px[2:] / 2 for each in (person.face, other)]
        apart.append(float(np.linalg.norm(middles_px[0] - middles_px[1]) / other.box_px[2]))
    assert len(apart) > 40
    assert np.median(apart) < 0.05
    assert max(apart) < 0.25
