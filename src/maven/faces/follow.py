"""The main person's face from frame to frame, without looking ahead: for live pictures.

`maven.faces.track` waits for what follows before it believes in a face; here each frame is judged
as it comes. It is assumed that there are no cuts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from maven.faces.association import START_SCORE, associate
from maven.faces.detect import Detection, FaceDetector, Image
from maven.faces.track import LOST_S, MOST_NEAR, SCAN_S

LEAD_LOOKS = 10  # a second or so: of two who are there all the time, either is missed now and then


@dataclass(frozen=True, eq=False)
class Person:
    """Somebody as last seen.

    Attributes:
        number: 1, 2, ... in the order of appearance.
        face: in the frame in which it was last found.
        last_s: time of that frame.
        looks: in how many frames it was found.
    """

    number: int
    face: Detection
    last_s: float
    looks: int


class MainFace:
    """Follows everyone, and tells where the main person is.

    That is who was found in most frames, the largest at first; another takes over only when found
    in more by `LEAD_LOOKS`. Who is away for `LOST_S` comes back as someone new.
    """

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self._people: list[Person] = []
        self._numbered = 0
        self._main = 0
        self._looked_s = self._scanned_s = -math.inf

    def look(self, rgb: Image, time_s: float) -> Person | None:
        """Find the main person in the next frame (h, w, 3); None if they are not in it."""
        self._people = [p for p in self._people if time_s - p.last_s <= LOST_S]
        found, matches, whole = self._find(rgb, time_s)
        for i, j in matches:
            person = self._people[i]
            self._people[i] = Person(person.number, found[j], time_s, person.looks + 1)
        known = {j for _, j in matches}
        for j, face in enumerate(found):
            if whole and j not in known and face.score >= START_SCORE:
                self._numbered += 1
                self._people.append(Person(self._numbered, face, time_s, 1))
        main = max(self._people, key=self._rank, default=None)
        if main is None:
            return None
        self._main = main.number
        return main if main.last_s == time_s else None

    def _find(
        self, rgb: Image, time_s: float
    ) -> tuple[list[Detection], list[tuple[int, int]], bool]:
        """Find faces and match them with people; also whether the whole frame was looked at.

        It is, every `SCAN_S` and while anybody is missing; else only what is around known faces.
        """
        expected_px = [person.face.box_px for person in self._people]
        all_seen = all(person.last_s == self._looked_s for person in self._people)
        self._looked_s = time_s
        if 0 < len(expected_px) <= MOST_NEAR and all_seen and time_s - self._scanned_s < SCAN_S:
            found = self._detector.near(rgb, expected_px)
            matches = associate(expected_px, found)
            if len(matches) == len(expected_px):
                return found, matches, False
        self._scanned_s = time_s
        found = self._detector(rgb)
        return found, associate(expected_px, found), True

    def _rank(self, person: Person) -> tuple[int, float]:
        area_px = float(person.face.box_px[2] * person.face.box_px[3])
        return person.looks + LEAD_LOOKS * (person.number == self._main), area_px
