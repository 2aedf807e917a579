"""Text and discs as masks."""

from __future__ import annotations

import numpy as np
import pytest

from maven.render import lettering


def test_text_lies_within_its_mask() -> None:
    for written in ("Person 10", "Ångström", "gjpqy", "−0.32", "Привет"):
        mask = lettering.text(written, 20, bold=True)
        assert mask.shape == (lettering.line_px(20), lettering.width_px(written, 20, bold=True))
        assert mask.max() > 0.9
        assert mask[0].max() == 0
        assert mask[-1].max() == 0


def test_letters_that_no_font_has_are_question_marks() -> None:
    unassigned = chr(0x0378)
    assert np.array_equal(lettering.text(f"a{unassigned}", 20), lettering.text("a?", 20))


def test_text_is_shortened_to_its_room() -> None:
    assert lettering.shortened("short", 20, 500) == "short"
    cut = lettering.shortened("a very long text", 20, 80)
    assert cut.endswith("…")
    assert 40 < lettering.width_px(cut, 20) <= 80


def test_what_reaches_over_the_edge_is_cut_off() -> None:
    picture = np.zeros((10, 10, 3), np.uint8)
    for x, y in ((-3, -3), (8, 8), (20, 0), (0, -20), (-9, 4)):
        lettering.lay(picture, np.ones((5, 5), np.float32), x, y, (255, 0, 0))
    assert picture[:2, :2, 0].min() == 255
    assert picture[8:, 8:, 0].min() == 255
    assert picture[..., 0].sum() == (4 + 4) * 255
    lettering.fill(picture, -5, 4, 3, 6, (0, 9, 0))
    assert picture[..., 1].sum() == 6 * 9


@pytest.mark.parametrize("radius_px", [1.0, 2.7, 8.0])
def test_discs_have_their_area(radius_px: float) -> None:
    mask = lettering.disc(radius_px)
    assert len(mask) % 2 == 1
    assert mask.sum() == pytest.approx(np.pi * radius_px**2, rel=0.05)
    assert np.array_equal(mask, mask[::-1, ::-1])


def test_text_on_a_colour_is_dark_on_light_and_light_on_dark() -> None:
    assert lettering.readable_on((240, 228, 66)) == lettering.DARK
    assert lettering.readable_on((0, 60, 120)) == lettering.LIGHT


def test_the_direction_of_a_text() -> None:
    assert lettering.right_to_left("« שלום »")
    assert not lettering.right_to_left("12 words")
