"""The live answer as lines of a terminal."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from maven.circumplex import region
from maven.moment import Answer
from maven.render.gauge import FINE, HIGH, PLAIN, WIDE, Marks, Reading, clock, line, picture, signed

NAN = math.nan


def answer(time_s: float, valence: float = NAN, arousal: float = NAN, **changes: Any) -> Answer:
    known = not math.isnan(valence)
    fields: dict[str, Any] = {
        **{"time_s": time_s, "valence": valence, "arousal": arousal},
        **{"theta": NAN, "intensity": NAN},
        **dict.fromkeys(("valence_low", "valence_high", "arousal_low", "arousal_high"), NAN),
        **{"visual_weight": 0.4, "audio_weight": 0.6, "text_weight": 0.0},
        **{"has_face": known, "has_speech": known, "has_text": False, "box_px": None},
        "emotion": str(region(valence, arousal)) if known else None,  # type: ignore[arg-type]
    }
    return Answer(**{**fields, **changes})


def reading(*answers: Answer, names: str = "camera 0", delay_s: float = 0.084) -> Reading:
    return Reading(answers, 65.0, delay_s, names)


def lines(shown: Reading, marks: Marks = FINE) -> list[str]:
    return picture(shown, marks).plain.splitlines()


def places(shown: list[str], mark: str) -> list[tuple[int, int]]:
    """(row, column) of a mark in the circumplex."""
    circle = [text[1 : WIDE + 1] for text in shown[3 : 3 + HIGH]]
    return [(r, c) for r, text in enumerate(circle) for c, each in enumerate(text) if each == mark]


@pytest.mark.parametrize(
    ("valence", "arousal", "place"),
    [
        (0.0, 0.0, (8, 17)),
        (1.0, 0.0, (8, 34)),
        (-1.0, 0.0, (8, 0)),
        (0.0, 1.0, (0, 17)),
        (0.0, -1.0, (16, 17)),
        (0.5, 0.5, (4, 26)),
        (-3.0, 9.0, (0, 0)),
    ],
)
def test_the_point_stands_where_the_answer_is(
    valence: float, arousal: float, place: tuple[int, int]
) -> None:
    assert places(lines(reading(answer(1.0, valence, arousal))), FINE.point) == [place]


def test_the_trail_is_of_the_last_seconds() -> None:
    shown = lines(reading(answer(0.0, -0.8, 0.0), answer(4.0, 0.5, -0.5), answer(5.0, 0.5, 0.5)))
    assert places(shown, FINE.trail) == [(12, 26)]
    assert places(shown, FINE.point) == [(4, 26)]


@pytest.mark.parametrize("marks", [FINE, PLAIN])
@pytest.mark.parametrize("names", ["camera 0", "a_long_name_" * 9])
def test_it_fits_a_terminal(marks: Marks, names: str) -> None:
    shown = lines(reading(answer(1.0, -0.31, 0.42), names=names), marks)
    assert len(shown) <= 23
    assert max(map(cell_len, shown)) <= 80
    assert all(text.isascii() for text in shown) == (marks is PLAIN)
    target = io.StringIO()
    Console(file=target, width=80, force_terminal=True).print(picture(reading(), marks))
    assert target.getvalue().count("\n") <= 23


def test_it_says_values_shares_and_delay() -> None:
    text = "\n".join(lines(reading(answer(1.0, -0.31, 0.42))))
    for said in ("camera 0, 1:05", "delay   84 ms", "−0.31", "+0.42", "Angry", "40 %", "60 %"):
        assert said in text
    assert "no words live" in text


def test_what_is_missing_is_said() -> None:
    text = "\n".join(lines(reading(answer(1.0), delay_s=NAN)))
    for said in ("nothing seen, nothing heard", "no face", "no voice"):
        assert said in text
    assert "delay" not in text
    assert places(lines(reading(answer(1.0))), FINE.point) == []
    assert "nan" not in text


def test_a_line_says_the_same() -> None:
    said = line(reading(answer(1.0, -0.31, 0.42, has_speech=False)))
    assert said.startswith("1:05  valence −0.31  arousal +0.42  Angry")
    assert "no voice" in said
    assert said.endswith("delay 84 ms")
    assert "nothing seen" in line(reading(answer(1.0)))


def test_numbers() -> None:
    assert [signed(0.5), signed(-0.5, PLAIN), signed(-0.001)] == ["+0.50", "-0.50", "+0.00"]
    assert [clock(5.9), clock(125)] == ["0:05", "2:05"]
