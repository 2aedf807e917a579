"""Whose face is whose: strong detections first, then near ones; each once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maven.faces.association import associate
from scripted_faces import face


def test_association_takes_strong_faces_first_then_near_ones():
    expected = [face(100).box_px, face(130).box_px]
    found = [face(98, score=0.4), face(112, score=0.9), face(131, score=0.9)]
    assert sorted(associate(expected, found)) == [(0, 1), (1, 2)]
    assert associate(expected, [face(400), face(100, size=200)]) == []
    assert associate([], found) == associate(expected, []) == []


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(30, 80), st.floats(0.3, 1)), max_size=6))
def test_each_box_and_each_detection_is_matched_once(rows: list[tuple[float, float, float]]):
    found = [face(x, size=size, score=score) for x, size, score in rows]
    expected = [face(x).box_px for x in (60, 120, 250)]
    matches = associate(expected, found)
    assert len({i for i, _ in matches}) == len({j for _, j in matches}) == len(matches)
    for i, j in matches:
        step = expected[i][:2] + expected[i][2:] / 2 - found[j].box_px[:2] - found[j].box_px[2:] / 2
        assert np.hypot(*step) < max(expected[i][2], found[j].box_px[2])
