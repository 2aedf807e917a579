"""The picture and the lines of an explanation: what they say, and that nothing overlaps."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from rich.console import Console

from maven.config import MODALITIES, PATHS
from maven.drivers import Driver, Looks, Moment, WordEffect
from maven.render import explanation
from maven.render.explanation import Scene, draw, print_explanation, shortened
from maven.transcript import Word

WORDS = tuple(Word(f"word{k}", 0.4 * k, 0.4 * k + 0.3, 0) for k in range(24))


def moment(row: int, observed: bool = True, interval: bool = True) -> Moment:
    shares = (0.6, 0.3, 0.1) if observed else (0.0, 0.9, 0.1)
    return Moment(
        row, row / 25, 0.5, -0.2, 0.54, "Relaxed",
        (0.1, 0.8, -0.4, 0.05) if interval else None,
        "so good to see you here again after such a very long time away from home",
        {m: Driver(observed or k > 0, s, 0.5 * s, -0.2 * s)
         for k, (m, s) in enumerate(zip(MODALITIES, shares, strict=True))},
        (WordEffect("good,", 1.0, 1.3, 0.21, -0.01), WordEffect("so", 0.5, 0.9, 0.001, 0.0)),
    )  # fmt: skip


def scene(count: int = 3, t: int = 250) -> Scene:
    time_s = np.arange(t) / 25
    course = np.stack((0.5 * np.sin(time_s), 0.3 * np.cos(time_s)), 1)
    shares = np.array([0.8, 0.4, -0.2])
    frame = pd.DataFrame(
        {
            "file": "clip.mp4", "face_id": pd.array([1] * t, dtype="Int64"), "frame": range(t),
            "time_s": time_s, "valence": course[:, 0], "arousal": course[:, 1],
            **{f"{a}_{e}": course[:, k] + s for k, a in enumerate(("valence", "arousal"))
               for e, s in (("low", -0.1), ("high", 0.1))},
            "has_face": True, "has_speech": time_s < 5, "has_text": time_s > 3,
        }
    )  # fmt: skip
    around_s = np.arange(-20, 21) / 10
    weights = np.exp(-(around_s**2))
    unseen = around_s > 1
    looks = Looks(
        4.0,
        4.0 + around_s,
        {path: weights / weights.sum() * ~unseen for path in PATHS},
        dict.fromkeys(MODALITIES, ~unseen),
    )
    moments = tuple(moment(30 + 60 * k, observed=k != 1) for k in range(count))
    chosen = moments[0] if moments else None
    return Scene(
        "clip.mp4", "Person 1", frame, course[:, None] * shares[:, None], moments, chosen,
        looks if moments else None, WORDS, ("no words: nobody speaks",),
    )  # fmt: skip


def printed(shown: Scene) -> str:
    out = io.StringIO()
    print_explanation(shown, Console(file=out, width=80, highlight=False))
    return out.getvalue()


def texts(shown: Scene) -> list[Text]:
    figure = draw(shown)
    figure.canvas.draw()
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_no_text_overlaps_another_or_leaves_the_picture(count: int) -> None:
    found: list[Any] = texts(scene(count))
    boxes = [t.get_window_extent() for t in found]
    width, height = found[0].figure.bbox.size
    for i, (a, text) in enumerate(zip(boxes, found, strict=True)):
        inside = a.x0 >= 0 and a.x1 <= width and a.y0 >= 0 and a.y1 <= height
        assert inside, text
        for b, other in zip(boxes[:i], found[:i], strict=True):
            apart = a.x1 <= b.x0 + 2 or b.x1 <= a.x0 + 2 or a.y1 <= b.y0 + 4 or b.y1 <= a.y0 + 4
            assert apart, (text, other)


def test_the_picture_says_what_drove_the_moments() -> None:
    said = " | ".join(t.get_text() for t in texts(scene()))
    for part in (
        "clip.mp4: what drove the answer for Person 1",
        "valence +0.50 (+0.10 to +0.80)",
        "face 60%",
        "valence: face +0.30, voice +0.15, words +0.05",
        "“good” valence +0.21",
        "not observed then: face",
        "Note: no words: nobody speaks",
        "words looks at voice",
        "Where the network looks at moment 1",
        "nothing observed",
        "time (s)",
    ):
        assert part in said, part
    assert "“so”" not in said  # it changes nothing


def test_what_moves_the_answer_stacks_up_to_it() -> None:
    shown = scene()
    figure = draw(shown)
    for axes, values in zip(figure.axes[1:3], shown.contributions.transpose(2, 0, 1), strict=True):
        (line,) = [k for k in axes.lines if str(k.get_label()).endswith("(their sum)")]
        np.testing.assert_allclose(line.get_ydata(), values.sum(1))  # type: ignore[arg-type]
        tops = [p.get_datalim(axes.transData) for p in axes.collections]
        assert max(b.y1 for b in tops) == pytest.approx(values.clip(0).sum(1).max(), abs=1e-6)
        assert min(b.y0 for b in tops) == pytest.approx(-(-values).clip(0).sum(1).max(), abs=1e-6)


def test_the_lines_fit_and_say_the_same() -> None:
    lines = printed(scene())
    assert max(map(len, lines.splitlines())) <= 80
    for part in ("1  at 1.2 s  Relaxed", "face", "60%", "valence +0.30, arousal -0.12", "“good”"):
        assert part in lines, part
    assert "no answer" in printed(scene(0))
    silent = moment(3)
    alone = replace(
        silent, said="", words=(), drivers=silent.drivers | {"text": Driver(False, 0.0, 0.0, 0.0)}
    )
    assert "not observed" in printed(replace(scene(), moments=(alone,), chosen=alone))


def test_pictures_are_files_of_known_kinds(tmp_path: Path) -> None:
    draw(scene(), tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"a\.gif"):
        draw(scene(), tmp_path / "a.gif")


def test_texts_are_cut_and_replaced() -> None:
    assert shortened("short", 10) == "short"
    assert shortened("a long sentence", 8) == "a long…"
    assert explanation.printable("a\U00020000b") == "a?b"
