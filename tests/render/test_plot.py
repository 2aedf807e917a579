from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from maven.render import tables
from maven.render.plot import DPI, WIDTH_IN, plot, thin
from maven.transcript import Word

from .frames import SENTENCE, nothing, person, speak, without

HIDDEN = ("answer", "interval", "face")


def drawn_words(figure: Figure, words: tuple[Word, ...]) -> list[Text]:
    spoken = {word.text for word in words}
    return [text for text in figure.findobj(Text) if text.get_text() in spoken]


def path_segments(figure: Figure) -> list[np.ndarray]:
    (circle,) = [axes for axes in figure.axes if axes.get_aspect() == 1.0]
    (lines,) = [c for c in circle.collections if type(c) is LineCollection]
    return list(lines.get_segments())


CASES = {
    "short": (without(person(), slice(60, 90), *HIDDEN), speak(8)),
    "long with many words": (person(duration_s=71, seed=5), speak(71)),
    "no face": (without(person(None, duration_s=10), slice(None), "face"), speak(10)),
    "two people": (pd.concat([person(1), person(2, seed=1).iloc[50:]]), speak(8)),
    "six people": (pd.concat([person(k, duration_s=4, seed=k) for k in range(6)]), speak(4)),
    "nothing": (nothing(), ()),
    "one frame": (person(duration_s=0.04), ()),
    "no rows": (person().iloc[:0], ()),
    "starts late": (person(duration_s=5, start_s=100.25), speak(5, 100.25)),
    "twelve minutes": (person(duration_s=720, fps=5), speak(720)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_text_is_on_the_paper_and_none_of_a_row_lies_over_another(name: str) -> None:
    frame, words = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot(frame, words)
        figure.canvas.draw()
    paper = figure.bbox
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible() and text.axes is not None:
            box = text.get_window_extent()
            assert paper.x0 <= box.x0 <= box.x1 <= paper.x1, text
            assert paper.y0 <= box.y0 <= box.y1 <= paper.y1, text
    for axes in figure.axes:
        boxes = sorted(
            (t.get_window_extent() for t in axes.texts if t.get_text() in SENTENCE.split()),
            key=lambda box: box.x0,
        )
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_short_clips_get_all_their_words_and_long_ones_their_long_words() -> None:
    assert len(drawn_words(plot(person(), speak(8)), speak(8))) == len(speak(8))
    words = speak(71)
    figure = plot(person(duration_s=71), words)
    written = [text.get_text() for text in drawn_words(figure, words)]
    assert 40 <= len(written) < len(words)
    long = sum(len(text) >= 4 for text in written) / len(written)
    assert long > sum(len(word.text) >= 4 for word in words) / len(words)
    assert any(f"of\n{len(words)} words" in text.get_text() for text in figure.findobj(Text))


def test_the_curve_and_the_path_have_a_gap_where_nothing_is_known() -> None:
    frame = without(person(duration_s=4), slice(30, 50), *HIDDEN)
    figure = plot(frame)
    course = figure.axes[0]
    for line in course.lines:
        if line.get_label() in ("valence", "arousal"):
            values = line.get_ydata()
            assert np.isnan(values[30:50]).all()
            np.testing.assert_allclose(values[:30], frame[line.get_label()][:30])
    segments = path_segments(figure)
    assert len(segments) == 29 + 49
    ends = frame[["valence", "arousal"]].to_numpy()
    assert not any(np.allclose(s, ends[[29, 50]]) for s in segments)


def test_missing_rows_are_a_gap_too() -> None:
    frame = person(duration_s=4)
    frame = frame[(frame["frame"] < 30) | (frame["frame"] >= 50)]
    assert len(path_segments(plot(frame))) == 29 + 49


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=1, max_size=80),
    st.integers(1, 40),
    st.integers(0, 1000),
)
def test_thinning_is_the_mean_of_neighbours(values: list[float], points: int, first: int) -> None:
    frame = person(duration_s=len(values) / 25)
    frame["valence"] = values
    frame["frame"] += first
    times, series, width = thin(frame, points)
    assert len(times) <= points
    group = np.arange(len(values)) // width
    for k in range(len(times)):
        members = np.array(values)[group == k]
        known = members[~np.isnan(members)]
        if 2 * len(known) >= len(members):
            assert series["valence"][k] == pytest.approx(known.mean(), abs=1e-12)
        else:
            assert np.isnan(series["valence"][k])
        assert times[k] == pytest.approx(frame["time_s"][group == k].mean())


def test_people_have_a_row_each_and_more_than_four_are_announced() -> None:
    two = plot(CASES["two people"][0])
    six = plot(CASES["six people"][0])
    titles = [axes.get_title(loc="left") for axes in six.axes]
    assert [t for t in titles if t] == ["Person 0", "Person 1", "Person 2", "Person 3"]
    assert len(two.axes) * 2 == len(six.axes)
    assert any("4 of 6 people" in text.get_text() for text in six.texts)


def test_the_intended_course_is_dashed() -> None:
    t = np.linspace(0, 8, 50)
    figure = plot(person(), intended=(t, np.cos(t), np.sin(t)))
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    np.testing.assert_array_equal(dashed[0].get_ydata(), np.cos(t))
    np.testing.assert_array_equal(dashed[1].get_ydata(), np.sin(t))


def test_the_picture_is_saved_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.png"
    plot(person(), speak(8), path)
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]
    picture = cv2.imread(str(path))
    assert picture.shape[1] == WIDTH_IN * DPI
    # Both curves are there, in their colours (BGR).
    for colour in ((178, 114, 0), (0, 159, 230)):
        assert (np.abs(picture.astype(int) - colour).max(axis=-1) < 8).sum() > 1000


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.gif: accepted are \.png, \.pdf, \.svg"):
        plot(person(), path=tmp_path / "x.gif")
    assert list(tmp_path.iterdir()) == []


def test_titles_and_words_are_written_as_they_are(tmp_path: Path) -> None:
    words = (Word("$5^$", 1.0, 2.0, 0), Word("你好", 3.0, 4.0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot(person(), words, tmp_path / "x.png", title="$x_1$ 你")
    assert figure.texts[0].get_text() == "$x_1$ ?"
    assert [text.get_text() for text in drawn_words(figure, words)] == ["$5^$"]


def test_importing_is_cheap_and_drawing_needs_no_display() -> None:
    code = (
        "import sys, maven.render.plot, maven.render.tables, maven.render.summary\n"
        "heavy = {'matplotlib', 'pandas', 'pyarrow', 'torch', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tables.COLUMNS)
