from __future__ import annotations

import numpy as np

from maven.render.subtitles import Course, subtitles


def course(name: str, valence: list[float], start_s: float = 0.0) -> Course:
    """Four rows a second: two a cue."""
    time_s = start_s + np.arange(len(valence)) / 4
    values = np.array(valence)
    return Course(name, time_s, time_s + 0.25, values, 0 * values)


def test_each_cue_has_the_means_of_its_rows_a_line_a_person() -> None:
    unknown = float("nan")
    one = course("Person 1", [0.2, 0.4, unknown, 0.9, unknown, unknown])
    other = course("Person 2", [-0.5, -0.7])
    assert subtitles([one, other], "made --> here").split("\n\n") == [
        "WEBVTT",
        "NOTE\nmade -> here",
        "00:00:00.000 --> 00:00:00.500\n"
        "Person 1: Happy  v +0.30 a +0.00\nPerson 2: Depressed  v -0.60 a +0.00",
        "00:00:00.500 --> 00:00:01.000\nPerson 1: Happy  v +0.90 a +0.00\n",
    ]


def test_what_lies_before_zero_is_left_out_and_the_last_cue_ends_with_the_clip() -> None:
    text = subtitles([course("Voice", [0.5] * 4, start_s=-0.5)], "{}")
    assert text.count("-->") == 1
    assert "00:00:00.000 --> 00:00:00.500" in text
    late = subtitles([course("Voice", [0.5], start_s=3600.0)], "{}")
    assert "01:00:00.000 --> 01:00:00.250" in late


def test_nothing_known_is_no_cue() -> None:
    assert subtitles([course("Voice", [float("nan")] * 3), course("Voice", [])], "x") == (
        "WEBVTT\n\nNOTE\nx\n"
    )
