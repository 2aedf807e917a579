from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from maven import circumplex
from maven.render import tables
from maven.render.summary import (
    MOMENT_GAP_S,
    peaks,
    print_summary,
    summarize,
    words_around,
)
from maven.transcript import Word

from .frames import cut, nothing, person, speak, without


def printed(frame: pd.DataFrame, words: tuple[Word, ...] = (), width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_summary(summarize(frame, words), console)
    return console.file.getvalue()


def with_values(frame: pd.DataFrame, valence: np.ndarray, arousal: np.ndarray) -> pd.DataFrame:
    theta, intensity = circumplex.to_polar(valence, arousal)
    emotion = circumplex.region(valence, arousal)
    return tables.conform(
        frame.assign(
            valence=valence, arousal=arousal, theta=theta, intensity=intensity, emotion=emotion
        )
    )


def test_means_and_shares_weigh_a_frame_by_its_duration() -> None:
    frame = with_values(
        person(duration_s=0.16), np.array([0.9, 0.9, -0.9, 0.9]), np.array([0.1, 0.1, -0.2, 0.1])
    )
    # Durations 1, 2, 1, and the median of these for the last frame: 1.
    frame["time_s"] = [10.0, 11.0, 13.0, 14.0]
    summary = summarize(without(frame, slice(1, 2), "face"))
    (only,) = summary.people
    assert (summary.start_s, summary.end_s) == (10.0, 15.0)
    assert only.seconds == 5.0
    assert only.valence is not None
    assert only.valence.mean == pytest.approx((0.9 * 4 - 0.9) / 5)
    assert (only.valence.low, only.valence.high) == (-0.9, 0.9)
    assert only.regions == pytest.approx({"Happy": 0.8, "Depressed": 0.2})
    assert list(only.regions) == ["Happy", "Depressed"]
    assert (only.face, only.speech, only.words) == pytest.approx((3 / 5, 1.0, 1.0))


def test_shares_ignore_what_has_no_answer() -> None:
    frame = with_values(person(duration_s=4), np.full(100, 0.5), np.full(100, 0.1))
    (only,) = summarize(without(frame, slice(0, 75), "answer")).people
    assert only.regions == pytest.approx({"Happy": 1.0})
    assert only.valence is not None
    assert only.valence.mean == pytest.approx(0.5)


def test_moments_are_the_peaks_with_the_words_around_them() -> None:
    frame = person(duration_s=20)
    t = frame["time_s"].to_numpy()
    bumps = 0.9 * np.exp(-((t - 4) ** 2)) + 0.6 * np.exp(-((t - 12) ** 2)) + 0.02
    frame = with_values(frame, -bumps * 0.5, bumps * 0.8)
    words = (
        Word("early", 0.0, 2.4, 0),
        Word(" how", 2.4, 2.6, 0),
        Word("dare", 3.9, 4.2, 0),
        Word("you", 5.4, 5.9, 0),
        Word("late", 5.6, 6.0, 1),
    )
    (only,) = summarize(frame, words).people
    first, second, *_ = only.moments
    assert first.time_s == pytest.approx(4, abs=0.05)
    assert first.words == "how dare you"
    assert first.emotion == "Angry"
    assert second.time_s == pytest.approx(12, abs=0.05)
    assert second.words == ""
    assert first.intensity > second.intensity


@given(
    st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=60),
    st.lists(st.floats(0.01, 1.5), min_size=60, max_size=60),
)
def test_peaks_are_far_apart_highest_first_and_contain_the_highest(
    heights: list[float], steps: list[float]
) -> None:
    height = np.array(heights, dtype=float)
    time_s = np.cumsum(steps)[: len(height)]
    found = peaks(time_s, height, MOMENT_GAP_S)
    assert np.isfinite(height[found]).all()
    assert (np.diff(np.sort(time_s[found])) > MOMENT_GAP_S).all()
    assert (np.diff(height[found]) <= 0).all()
    if np.isfinite(height).any():
        assert found[0] == np.nanargmax(height)


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, float("nan")]), max_size=40),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 2.5]), min_size=40, max_size=40),
)
def test_peaks_are_those_of_their_definition(heights: list[float], steps: list[float]) -> None:
    height, time_s = np.array(heights, dtype=float), np.cumsum(steps)[: len(heights)]
    expected = set()
    for i, (t, h) in enumerate(zip(time_s, heights, strict=True)):
        near = [
            (u, g)
            for u, g in zip(time_s, heights, strict=True)
            if abs(u - t) <= MOMENT_GAP_S and not np.isnan(g)
        ]
        if all(g < h for u, g in near if u < t) and all(g <= h for _, g in near):
            expected |= {i} if not np.isnan(h) else set()
    assert set(peaks(time_s, height, MOMENT_GAP_S)) == expected


@pytest.mark.parametrize("rows", [1, 9, 10**6])
def test_chunks_are_summed_up_as_the_whole(rows: int) -> None:
    both = pd.concat([person(1), without(person(4, seed=2), slice(0, 50), "face", "answer")])
    for frame in (both, nothing()):
        assert summarize(cut(frame, rows), speak(8)) == summarize(frame, speak(8))


def test_a_plateau_has_one_peak() -> None:
    assert peaks(np.arange(100) / 10, np.full(100, 0.5), 2.0) == [0]


def test_words_around_need_only_overlap() -> None:
    words = speak(20)
    assert words_around(words, 1.0).split()[:3] == ["I", "am", "so"]
    assert words_around(words, 100.0) == ""


def test_people_are_summed_apart() -> None:
    both = pd.concat([person(1), without(person(4, seed=2), slice(0, 50), "face")])
    first, second = summarize(both).people
    assert (first.name, second.name) == ("Person 1", "Person 4")
    assert (first.face, second.face) == pytest.approx((1.0, 0.75))


def test_nothing_observed_is_said_and_not_invented() -> None:
    summary = summarize(nothing())
    (only,) = summary.people
    assert only.valence is None
    assert only.regions == {}
    assert only.moments == ()
    assert (only.face, only.speech, only.words) == (0.0, 0.0, 0.0)
    text = printed(nothing())
    assert "no faces, no words" in text
    assert "no answer" in text
    assert "nan" not in text.lower()


def test_the_print_fits_80_columns_and_names_everything() -> None:
    both = pd.concat([person(1), person(12, seed=9, duration_s=400)])
    text = printed(both, speak(400))
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("clip.mp4: 400.0 s, 2 faces, 1040 words", "Person 12", "unpleasant", "calm"):
        assert expected in text
    (first, _) = summarize(both).people
    name, share = next(iter(first.regions.items()))
    assert f"{name:<11}{share:>4.0%}" in text
    assert "elsewhere" in text


def test_markup_in_words_and_names_is_printed_as_it_is() -> None:
    frame = person(file="[red]x[/red].mp4")
    words = (Word("[bold]", 0.0, 8.0, 0),)
    text = printed(frame, words)
    assert "[red]x[/red].mp4" in text
    assert "[bold]" in text


def test_a_single_frame_and_no_frame_at_all() -> None:
    assert "1 face" in printed(person(duration_s=0.04))
    assert summarize(person().iloc[:0]).people == ()
