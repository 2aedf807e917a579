"""The pictures of an evaluation: what is drawn, and that no text lies over another."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes
from matplotlib.text import Text

from maven.datasets.clips import Clip
from maven.evaluate import Evaluation, evaluate
from maven.render.score_plots import (
    CELLS,
    PICTURES,
    SECTORS,
    angles,
    courses,
    predicted_against_true,
)
from scored_clips import clip, small_network


def evaluated(videos: list[Clip]) -> Evaluation:
    return evaluate(small_network(), videos, 0.3, bootstraps=0)


def still(video: Clip, v: float, a: float) -> Clip:
    labels = np.broadcast_to(np.array([v, a], np.float32), video.frame_labels.shape)
    return replace(video, frame_labels=labels.copy())


CASES = {
    "four": lambda: [clip(name, 8, seed=k) for k, name in enumerate("abcd")],
    "two": lambda: [clip(name, 8, seed=k) for k, name in enumerate("ab")],
    "one": lambda: [clip("a", 8)],
    "blind": lambda: [clip("a", 4, blind=True)],
    "one frame": lambda: [clip("a", 0.04, invalid=0)],
    "at rest": lambda: [still(clip("a", 4, blind=True), 0, 0)],
    "one direction": lambda: [still(clip("a", 4), 0.5, 0.5), still(clip("b", 4), 1, -1)],
    "long, odd names": lambda: [clip("видео $x^2$ " * 20, 300, seed=2, fps=10), clip("b\n", 3)],
    "starts late": lambda: [clip("a", 6, start_s=3600.5)],
}


@pytest.fixture(scope="module")
def four() -> Evaluation:
    return evaluated(CASES["four"]())


def _recorded(draw: Callable[..., None], drawn: list[Text]) -> Callable[..., None]:
    def record(text: Text, renderer: Any) -> None:
        if text.get_visible() and text.get_text().strip() and text not in drawn:
            drawn.append(text)
        draw(text, renderer)

    return record


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("picture", PICTURES)
def test_every_text_is_on_the_paper_and_none_lies_over_another(
    case: str, picture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = evaluated(CASES[case]())
    drawn: list[Text] = []  # an axis has more tick labels than it draws
    monkeypatch.setattr(Text, "draw", _recorded(Text.draw, drawn))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = PICTURES[picture](evaluation)
        figure.canvas.draw()
    paper = figure.bbox
    assert len(drawn) > 10
    boxes = []
    for text in drawn:
        box = text.get_window_extent()
        assert paper.x0 - 1 <= box.x0 <= box.x1 <= paper.x1 + 1, text
        assert paper.y0 - 1 <= box.y0 <= box.y1 <= paper.y1 + 1, text
        boxes.append((text, box.shrunk(0.95, 0.8)))
    for k, (text, box) in enumerate(boxes):
        for other, second in boxes[k + 1 :]:
            assert not box.overlaps(second), (text, other)


def everything(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    valid = np.concatenate([video.valid for video in evaluation.answers])
    labels = np.concatenate([video.labels for video in evaluation.answers])
    return labels[valid], np.concatenate([video.va for video in evaluation.answers])[valid]


def test_roses_count_directions_of_labels_and_of_predictions(four: Evaluation) -> None:
    roses = list(angles(four).findobj(PolarAxes))
    assert len(roses) == 2
    tops = []
    for axes, va in zip(roses, everything(four), strict=True):
        heights: Any = [bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")]
        far = va[np.hypot(va[:, 0], va[:, 1]) >= 0.2]
        slow = [0] * SECTORS
        for v, a in far.tolist():
            slow[int(np.degrees(np.arctan2(a, v)) % 360 // (360 / SECTORS))] += 1
        np.testing.assert_allclose(heights[:SECTORS], np.array(slow) * 100 / len(far))
        assert sum(heights[:SECTORS]) == pytest.approx(100)
        tops.append(axes.get_ylim()[1])
        near = 100 - 100 * len(far) / len(va)
        assert f"{near:.1f} %" in axes.get_xlabel()
    assert tops[0] == tops[1]  # one scale


def densities(figure: Figure) -> list[Any]:
    return [m for axes in figure.findobj() for m in getattr(axes, "collections", [])
            if type(m).__name__ == "QuadMesh" and m.get_array().size == CELLS**2]  # fmt: skip


def test_densities_hold_every_frame_on_the_side_where_it_belongs(four: Evaluation) -> None:
    labels, va = everything(four)
    found = densities(predicted_against_true(four))
    assert len(found) == 2
    edges = np.linspace(-1, 1, CELLS + 1)
    for k, mesh in enumerate(found):
        shares = mesh.get_array().reshape(CELLS, CELLS).filled(0)
        assert shares.sum() == pytest.approx(100)
        column, row = (np.searchsorted(edges, x[0, k], side="right") - 1 for x in (labels, va))
        assert shares[row, column] > 0  # labels across, predictions up
        across = np.histogram(labels[:, k], edges)[0] * 100 / len(labels)
        np.testing.assert_allclose(shares.sum(0), across, atol=1e-9)
    plane = densities(angles(four))
    assert len(plane) == 2
    up = plane[0].get_array().reshape(CELLS, CELLS).filled(0).sum(1)
    np.testing.assert_allclose(up, np.histogram(labels[:, 1], edges)[0] * 100 / len(labels))


def test_the_titles_say_the_ccc(four: Evaluation) -> None:
    texts = [text.get_text() for text in predicted_against_true(four).findobj(Text)]
    for name in ("valence", "arousal"):
        ccc = f"{getattr(four.abaw, f'ccc_{name}'):.3f}".replace("-", "−")
        assert f"{name}: CCC {ccc}" in texts


def test_best_median_and_worst_are_drawn_with_gaps_where_labels_are_invalid(
    four: Evaluation,
) -> None:
    ranked = sorted(range(4), key=lambda i: -four.videos[i].scores.ccc_mean)
    figure = courses(four)
    titles = [part._suptitle.get_text() for part in figure.subfigs]  # type: ignore[attr-defined]
    for title, place, i in zip(
        titles, ("Best", "Median", "Worst"), (ranked[0], ranked[2], ranked[3]), strict=True
    ):
        assert title.startswith(f"{place}: {four.videos[i].name} ")
    answered = four.answers[ranked[0]]
    for k, axes in enumerate(figure.subfigs[0].axes[:2]):
        lines = [x for x in axes.lines if np.size(x.get_xdata()) == len(answered.time_s)]
        for line, values in zip(lines, (answered.labels[:, k], answered.va[:, k]), strict=True):
            drawn = np.asarray(line.get_ydata())
            np.testing.assert_array_equal(np.isnan(drawn), ~answered.valid)
            np.testing.assert_array_equal(drawn[answered.valid], values[answered.valid])
    strips = figure.subfigs[0].axes[2].collections
    assert len(strips) == 3
    for k, strip in enumerate(strips):
        on = np.zeros(len(answered.time_s), bool)
        for path in strip.get_paths():
            low, high = path.get_extents().intervalx
            on |= (answered.time_s >= low - 1e-6) & (answered.time_s < high - 1e-6)
        np.testing.assert_array_equal(on, answered.observed[:, k])


def test_of_few_videos_one_is_several() -> None:
    alone = evaluated(CASES["one"]())
    (title,) = [part._suptitle.get_text() for part in courses(alone).subfigs]  # type: ignore[attr-defined]
    assert title.startswith("Best and median and worst: a ")
    pair = courses(evaluated(CASES["two"]())).subfigs
    assert len(pair) == 2
