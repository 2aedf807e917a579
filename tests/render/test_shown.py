"""What is known of a person at a time, from rows that may be fewer than the pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tests.render import frames

from maven.render.shown import Shown, shown


def moving(fps: float, face_id: int = 1, duration_s: float = 4.0) -> pd.DataFrame:
    """A person whose valence is time / 10 and whose face goes 10 px to the right each second."""
    table = frames.person(face_id, duration_s, fps)
    table["valence"] = table["time_s"] / 10
    table["face_x"] = 100 + 10 * table["time_s"]
    return table


def only(table: pd.DataFrame) -> Shown:
    (person,) = shown(table, 4)
    return person


@pytest.mark.parametrize("fps", [1, 5, 25])
def test_between_rows_values_and_boxes_are_interpolated(fps: int) -> None:
    person = only(moving(fps))
    for time_s in (0.0, 0.5, 1.96, 2.9):
        assert person.at(time_s).valence == pytest.approx(time_s / 10, abs=1e-6)
        assert person.box(time_s) == pytest.approx((100 + 10 * time_s, 80.25, 64, 72), abs=1e-3)
    times_s = np.linspace(0, 2.9, 50)
    assert np.allclose(person.course(times_s)[:, 0], times_s / 10, atol=1e-6)


def test_nothing_is_known_outside_the_rows() -> None:
    person = only(moving(5))
    for time_s in (-0.1, 4.3):
        now = person.at(time_s)
        assert np.isnan(now.valence)
        assert not any(now.has)
        assert person.box(time_s) is None


def test_what_was_not_observed_is_not_made_up() -> None:
    table = frames.without(moving(5), slice(5, 15), "answer", "face", "speech")
    person = only(table)
    assert np.isnan(person.at(2.0).valence)
    assert person.at(2.0).has == (False, False, True)
    assert person.box(2.0) is None
    assert person.at(0.88).valence == pytest.approx(0.08, abs=1e-6)  # of two the nearer row
    assert np.isnan(person.course(np.array([1.0]))[0, 0])


def test_rows_that_are_missing_are_a_gap() -> None:
    table = moving(5).drop(index=range(5, 15)).reset_index(drop=True)
    person = only(table)
    assert person.at(0.9).valence == pytest.approx(0.08, abs=1e-6)
    assert np.isnan(person.at(2.0).valence)
    assert person.box(2.0) is None


def test_a_blur_covers_short_gaps_and_a_moment_around() -> None:
    table = frames.without(moving(10, duration_s=10), slice(20, 35), "face")  # 2.0 to 3.4 s
    table = frames.without(table, slice(60, 90), "face")  # 6.0 to 8.9 s
    person = only(table)

    def cover(time_s: float) -> tuple[float, ...] | None:
        return person.cover(time_s, gap_s=2.0, hold_s=0.5)

    assert cover(1.5) == pytest.approx((115, 80.25, 64, 72))
    x, _, width, _ = cover(2.7) or ()
    assert (x, x + width) == pytest.approx((119, 135 + 64))  # around the boxes at 1.9 and 3.5 s
    assert cover(6.3) == pytest.approx((159, 80.25, 64, 72))  # as at 5.9 s
    assert cover(7.5) is None
    assert cover(8.6) == pytest.approx((190, 80.25, 64, 72))  # as at 9.0 s


def test_of_several_each_is_shown_while_seen() -> None:
    first = moving(10, 1, duration_s=10)
    second = frames.without(moving(10, 2, duration_s=10), slice(0, 60), "face")
    people = shown(pd.concat([first, second]), 4)
    assert [person.slot for person in people] == [0, 1]
    assert np.isnan(people[1].at(3.0).valence)  # though it was heard then
    assert np.isfinite(people[1].at(7.0).valence)
    assert people[1].span_s == pytest.approx((6.0, 10.0))


def test_people_take_turns_in_few_places() -> None:
    """Four in turn, two of them at once, and one who is there for a moment."""
    spans = {1: (0, 40), 2: (0, 18), 3: (20, 40), 4: (5, 15), 5: (38, 40)}
    tables = []
    for face_id, (start, stop) in spans.items():
        table = frames.without(moving(5, face_id, 8.0), slice(0, start), "face")
        tables.append(frames.without(table, slice(stop, None), "face"))
    people = shown(pd.concat(tables), 2)
    assert [person.slot for person in people] == [0, 1, 1, None, None]
    assert [len(person.box_s) for person in people] == [40, 18, 20, 10, 2]
    assert len(people[3].time_s) == 0


def test_chunks_and_table_are_one() -> None:
    table = pd.concat([moving(5, 1), moving(5, 2, 3.0)])
    for one, other in zip(shown(table, 4), shown(frames.cut(table, 7), 4), strict=True):
        assert one.name == other.name
        for field in ("time_s", "va", "ends", "weights", "has", "box_s", "boxes_px"):
            assert np.array_equal(getattr(one, field), getattr(other, field), equal_nan=True)
