"""The panel: where things are, and what is drawn at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from tests.render import frames

from maven import circumplex
from maven.render import dial, lettering, panel, tables
from maven.render.panel import CURVES, PEOPLE, REGION_AT, SHARES_AT, Layout, Panel, layout
from maven.render.shown import shown
from maven.transcript import Word

SIZES = [(640, 360), (1920, 1080), (1080, 1920), (480, 853), (640, 640)]
Rectangle = tuple[float, float, float, float]


def made(
    table: pd.DataFrame, size: tuple[int, int] = (640, 360), words: Sequence[Word] = ()
) -> Panel:
    people = shown(table, len(PEOPLE))
    slots = len({person.slot for person in people} - {None})
    return Panel(layout(*size, slots, bool(words)), people, words)


def still(valence: float, arousal: float, face_id: int = 1) -> pd.DataFrame:
    """A person who feels the same all the time."""
    table = frames.person(face_id, duration_s=20.0)
    table["valence"], table["arousal"] = valence, arousal
    table["emotion"] = circumplex.region(table["valence"], table["arousal"])
    for name in ("valence", "arousal"):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.1, table[name] + 0.1
    return tables.conform(table)


def several(people: int) -> pd.DataFrame:
    return pd.concat([frames.person(k + 97, seed=k) for k in range(people)])


def cut_out(picture: npt.NDArray[np.uint8], place: tuple[int, int, int, int]) -> Any:
    x0, y0, x1, y1 = place
    return picture[y0:y1, x0:x1]


def like(picture: npt.NDArray[np.uint8], colour: lettering.Colour) -> Any:
    """Where a picture has a colour, about."""
    return np.abs(picture.astype(int) - colour).max(axis=-1) < 12


def overlap(one: Rectangle, other: Rectangle) -> bool:
    across = min(one[2], other[2]) - max(one[0], other[0])
    return across > 0 and min(one[3], other[3]) - max(one[1], other[1]) > 0


def places_of(place: Layout) -> list[Rectangle]:
    places = [place.dial, *place.labels, *place.strips, place.ticks, *place.rows]
    return [*places, place.words] if place.words else [*places]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("people", [0, 1, 4])
@pytest.mark.parametrize("words", [True, False])
def test_places_lie_apart_and_inside(size: tuple[int, int], people: int, words: bool) -> None:
    place = layout(*size, people, words)
    assert (size[1] + place.height_px) % 2 == 0
    for x0, y0, x1, y1 in places_of(place):
        assert 0 <= x0 < x1 <= place.width_px
        assert 0 <= y0 < y1 <= place.height_px
    for one, other in combinations(places_of(place), 2):
        assert not overlap(one, other)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Rectangle, Any]]:
    """All texts that are drawn, where their ink is, and what they are drawn on."""
    seen: list[tuple[str, Rectangle, Any]] = []
    real = lettering.write

    def write(
        picture: Any, x: float, y: float, text: str, size: int, *more: Any, **rest: Any
    ) -> None:
        before = picture.copy()
        real(picture, x, y, text, size, *more, **rest)
        ink = np.argwhere((picture != before).any(axis=-1))
        if len(ink):
            (y0, x0), (y1, x1) = ink.min(axis=0), ink.max(axis=0) + 1
            mask = lettering.text(text, size, bool(rest.get("bold")))
            assert y1 - y0 <= mask.shape[0]
            if rest.get("anchor") != 0.5:  # ticks of time may reach over the edge of a tile
                assert x1 - x0 >= 0.6 * mask.shape[1] - 2, f"{text} is cut off"
            seen.append((text, (x0, y0, x1, y1), picture))

    monkeypatch.setattr(panel, "write", write)
    monkeypatch.setattr(dial, "write", write)
    return seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("people", [1, 4])
def test_no_text_lies_on_another(
    size: tuple[int, int], people: int, written: list[tuple[str, Rectangle, Any]]
) -> None:
    table = several(people)
    table["text_weight"] = 1.0  # the widest number
    drawn = made(table, size, frames.speak(8.0))
    drawn.draw(5.0)
    grounds = {id(on): on for _, _, on in written}
    for on in grounds.values():
        square = on.shape[0] == on.shape[1]  # a dial, where people's points may well lie together
        texts = [
            (text, place)
            for text, place, ground in written
            if ground is on and not (square and text.isdigit())
        ]
        for (text, one), (other_text, other) in combinations(texts, 2):
            assert not overlap(one, other), f"{text} and {other_text} at {size}"
    assert {"valence", "arousal", "excited", "face", "100\u2009%"} <= {
        text for text, _, _ in written
    }


@pytest.mark.parametrize("size", [(640, 360), (1080, 1920)])
@pytest.mark.parametrize("region", [*circumplex.SECTORS, circumplex.NEUTRAL])
def test_every_region_has_its_room(size: tuple[int, int], region: str) -> None:
    """The name of a region ends before the shares begin."""
    place = layout(*size, 1, False)
    assert lettering.width_px(region, place.px(13)) < place.px(SHARES_AT - REGION_AT - 4)


@pytest.mark.parametrize(("valence", "arousal"), [(0.5, 0.5), (-0.8, 0.1), (0.0, -0.9)])
def test_the_point_is_where_the_answer_is(valence: float, arousal: float) -> None:
    drawn = made(still(valence, arousal), (1280, 720))
    square = cut_out(drawn.draw(10.0), drawn.place.dial)
    y, x = np.argwhere(like(square, PEOPLE[0])).mean(axis=0)
    middle, radius = len(square) / 2, len(square) / 2 - drawn.place.px(14)
    assert (x - middle) / radius == pytest.approx(valence, abs=0.03)
    assert (middle - y) / radius == pytest.approx(arousal, abs=0.03)


def test_the_curve_is_where_the_answer_is_and_nowhere_in_a_gap() -> None:
    table = frames.without(still(0.5, -0.5), slice(100, 150), "answer", "interval", "face")
    drawn = made(table)  # unknown from 4 to 6 s
    (x0, y0, x1, y1), _ = drawn.place.strips
    strip = cut_out(drawn.draw(8.0), drawn.place.strips[0])
    rows, columns = np.nonzero(like(strip, CURVES["valence"]))
    times_s = 8.0 - 7.5 + columns / (x1 - x0) * 10
    assert not ((times_s > 4.0) & (times_s < 5.9)).any()
    past = times_s < 7.8  # left of the point of now
    assert set(np.round(times_s[past]).astype(int)) == {0, 1, 2, 3, 4, 6, 7, 8}
    level = 1 - 2 * (rows[past] + 0.5) / (y1 - y0)
    assert np.median(level) == pytest.approx(0.5 * 0.88, abs=0.05)


def test_where_nothing_is_observed_all_is_grey() -> None:
    table = frames.without(
        still(0.5, 0.5), slice(200, 300), "answer", "interval", "face", "speech", "text"
    )
    drawn = made(table)
    known, unknown = drawn.draw(7.9), drawn.draw(8.5)
    for picture, there in ((known, True), (unknown, False)):
        square = cut_out(picture, drawn.place.dial)
        assert (like(square, PEOPLE[0]).sum() > 60) == there
        row = cut_out(picture, drawn.place.rows[0])[:, drawn.place.px(SHARES_AT) :]
        assert like(row, PEOPLE[0]).any() == there
        assert like(row, dial.INK).any() == there


def test_curves_move_by_whole_columns_also_from_tile_to_tile() -> None:
    drawn = made(frames.person(duration_s=30.0))
    (x0, y0, x1, y1), _ = drawn.place.strips
    now = round(0.75 * (x1 - x0)) - drawn.place.px(6)
    column_s = 10.0 / (x1 - x0)
    for k in range(600, 660, 7):  # a tile ends in here
        one = drawn.draw(k * column_s)[y0:y1, x0 : x0 + now]
        other = drawn.draw((k + 1) * column_s)[y0:y1, x0 : x0 + now]
        assert (np.abs(one[:, 1:].astype(int) - other[:, :-1]) > 24).mean() < 0.002


def test_of_several_people_each_has_a_colour_and_a_row() -> None:
    drawn = made(several(4))
    picture = drawn.draw(4.0)
    for place, colour in zip(drawn.place.rows, PEOPLE, strict=True):
        row = cut_out(picture, place)
        assert like(row, colour).any()
        assert not any(like(row, other).any() for other in PEOPLE if other != colour)


def test_a_clip_without_a_face_and_one_without_rows_are_drawn() -> None:
    assert made(frames.nothing()).draw(1.0).shape == made(still(0, 0)).draw(1.0).shape
    place = layout(640, 360, 0, False)
    assert Panel(place, [], ()).draw(0.0).shape == (place.height_px, 640, 3)
