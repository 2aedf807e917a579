"""The line of words."""

from __future__ import annotations

from typing import Any

import numpy as np

from maven.render import lettering
from maven.render.caption import GROUND, SAYING_GROUND, Caption
from maven.transcript import Word

WORDS = (
    Word("one", 1.0, 1.4, 0),
    Word("two", 1.5, 1.9, 0),
    Word("three", 2.0, 2.4, 0),
    Word("four", 5.0, 5.4, 1),
)


def saying(picture: Any) -> tuple[int, int] | None:
    """From where to where a word is marked."""
    columns = np.flatnonzero((picture == SAYING_GROUND).all(axis=-1).sum(axis=0) > 20)
    return (int(columns[0]), int(columns[-1]) + 1) if len(columns) else None


def test_the_word_being_said_is_marked_from_left_to_right() -> None:
    caption = Caption(WORDS, 400, 40, 20)
    places = [saying(caption.at(time_s)) for time_s in (1.2, 1.7, 2.2)]
    for place, word in zip(places, WORDS, strict=False):
        assert place is not None
        width = lettering.width_px(word.text, 20)
        assert width <= place[1] - place[0] <= width + 10
    assert places == sorted(places, key=lambda place: place or ())
    assert saying(caption.at(1.45)) is None


def test_nothing_is_there_before_and_long_after() -> None:
    caption = Caption(WORDS, 400, 40, 20)
    for time_s in (0.5, 4.0, 9.0):
        assert (caption.at(time_s) == GROUND).all()
    for time_s in (1.45, 3.0, 5.9):
        assert (caption.at(time_s) != GROUND).any()


def test_lines_stay_within_the_picture() -> None:
    """Forty words of one segment, one of them wider than the line."""
    words = [Word("wide" * 30 if k == 7 else f"word{k}", k, k + 0.9, 0) for k in range(40)]
    caption = Caption(words, 300, 40, 20)
    pictures = [caption.at(k + 0.5) for k in range(40)]
    for picture in pictures:
        assert picture.shape == (40, 300, 3)
        assert (picture[:, :3] == GROUND).all()
        assert (picture[:, -3:] == GROUND).all()
        assert saying(picture)


def test_hebrew_runs_from_right_to_left() -> None:
    words = [Word("שלום", 0.0, 1.0, 0), Word("עולם", 1.0, 2.0, 0)]
    caption = Caption(words, 400, 40, 20)
    first, second = saying(caption.at(0.5)), saying(caption.at(1.5))
    assert first is not None
    assert second is not None
    assert first[0] > second[1] - 12


def test_no_words_are_an_empty_line() -> None:
    assert (Caption([Word("  ", 0.0, 1.0, 0)], 200, 30, 15).at(0.5) == GROUND).all()
