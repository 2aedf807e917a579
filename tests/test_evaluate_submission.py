"""Every row of a submission sample, in its order; modalities gone for a third of the time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.config import MODALITIES
from maven.datasets.affwild2 import SAMPLE_HEADER, read_sample, write_submission
from maven.datasets.clips import Clip
from maven.evaluate import APART_S, CHANGES, STRETCH_S, EvaluationError, submission, without_a_third
from maven.features import Features
from maven.inference import answer, infer
from maven.model import Maven
from maven.timeline import uniform_grid
from scored_clips import clip, slow_read, small_network

SMOOTHING_S = 0.3


@pytest.fixture(scope="module")
def network() -> Maven:
    return small_network()


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [
        clip("video59_left", 6, seed=1, split="test", labelled=False, start_s=1.2),
        clip("2-30-640x360", 9, seed=2, split="test", labelled=False, fps=29.97),
        clip("blind", 3, seed=3, split="test", labelled=False, blind=True),
        clip("labelled", 4, seed=4),
    ]


def rows_of(video: Clip, beyond: int = 1) -> list[str]:
    return [f"{video.name}/{n:05d}.jpg" for n in range(1, len(video.frame_s) + 1 + beyond)]


def test_every_row_is_filled_in_the_samples_order(network: Maven, clips: list[Clip]) -> None:
    """Rows of videos mixed, frames out of order and left out, one frame more than there is."""
    rows = [row for video in clips for row in rows_of(video)]
    random = np.random.default_rng(0)
    rows = [rows[k] for k in random.permutation(len(rows))[: 4 * len(rows) // 5]]
    va = submission(network, clips, rows, SMOOTHING_S)
    assert va.shape == (len(rows), 2)
    assert va.dtype == np.float64
    series = {c.name: infer(network, c.features, SMOOTHING_S) for c in clips}
    times_s = {c.name: c.frame_s for c in clips}
    for row, found in zip(rows, va, strict=True):
        name, _, file = row.partition("/")
        n = min(int(file.removesuffix(".jpg")), len(times_s[name]))
        expected = slow_read(series[name].time_s, series[name].va, times_s[name][n - 1])
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.hypot(*va.T) < 1).all()
    assert not np.allclose(va, np.round(va, 1), atol=1e-3)


def test_faceless_frames_are_filled_from_what_is_known(network: Maven, clips: list[Clip]) -> None:
    video = clip("gaps", 20, seed=6)
    anything = np.logical_or.reduce([video.features.observed[m] for m in MODALITIES])
    assert not anything.all()  # stretches in which nothing was observed
    va = submission(network, [video], rows_of(video, beyond=0), 0.0)
    assert np.isfinite(va).all()
    assert (va != 0).all()
    assert (submission(network, clips, rows_of(clips[2]), 0.0) == 0).all()


def test_frames_beyond_the_last_take_the_last(network: Maven, clips: list[Clip]) -> None:
    n = len(clips[1].frame_s)
    rows = [f"2-30-640x360/{k}.jpg" for k in (f"{n:05d}", n + 1, n + 5000, 9_999_999_999)]
    va = submission(network, clips, rows, SMOOTHING_S)
    assert (va == va[0]).all()
    assert va[0].any()


def test_only_the_videos_of_the_sample_are_answered(
    network: Maven, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(model: Maven, features: Features, smoothing_s: float) -> np.ndarray:
        asked.append(len(features.time_s))
        return answer(model, features, smoothing_s)

    monkeypatch.setattr("maven.evaluate.answer", counted)
    va = submission(network, clips, ["labelled/00003.jpg", "labelled/00002.jpg"], 0.0)
    assert asked == [len(clips[3].features.time_s)]
    assert (va[0] != va[1]).all()


def test_a_sample_file_becomes_a_submission_file(
    network: Maven, clips: list[Clip], tmp_path: Path
) -> None:
    rows = rows_of(clips[1]) + rows_of(clips[0])
    sample, out = tmp_path / "sample.txt", tmp_path / "predictions.txt"
    sample.write_text("\n".join([SAMPLE_HEADER, *(f"{row},0,0" for row in rows)]) + "\n")
    va = submission(network, clips, read_sample(sample), SMOOTHING_S)
    write_submission(out, read_sample(sample), va)
    header, *lines = out.read_text().splitlines()
    assert header == "image_location,valence,arousal"
    assert [line.split(",")[0] for line in lines] == rows
    written = np.array([[float(x) for x in line.split(",")[1:]] for line in lines])
    np.testing.assert_allclose(written, va, atol=1e-5)


@pytest.mark.parametrize(
    "row",
    ["labelled/00000.jpg", "labelled/1.png", "labelled.jpg", "/00001.jpg", "labelled/-1.jpg",
     "labelled/00001.jpg,0,0", "a/b/00001.jpg", "labelled/0001 .jpg", "labelled/1e3.jpg", "",
     "labelled/" + "9" * 5000 + ".jpg", "labelled/٣.jpg"],
)  # fmt: skip
def test_malformed_rows_are_refused_in_one_line(
    network: Maven, clips: list[Clip], row: str
) -> None:
    with pytest.raises(EvaluationError, match=r"another form than video/00001\.jpg") as caught:
        submission(network, clips, ["labelled/00001.jpg", row, "nobody/00001.jpg"], 0.0)
    assert repr(row[:80]) in str(caught.value)
    assert "in all" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_of_unknown_videos_are_refused_with_their_number(
    network: Maven, clips: list[Clip]
) -> None:
    rows = ["labelled/00001.jpg", "nobody/00001.jpg", "nobody/00002.jpg", "else/00001.jpg"]
    with pytest.raises(EvaluationError) as caught:
        submission(network, clips, rows, 0.0)
    assert str(caught.value) == (
        "the sample has a row of a video that is not among the 4 at hand: 'nobody/00001.jpg';"
        " 3 such rows in all"
    )
    empty = replace(clips[3], frame_s=np.zeros(0))
    with pytest.raises(EvaluationError, match="not among the 0 at hand"):
        submission(network, [empty], rows[:1], 0.0)


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0.0, 900.0),
    st.floats(2.0, 30.0),
    st.integers(0, 2**32 - 1),
    st.floats(-100, 1e5),
    st.sampled_from(MODALITIES),
)
def test_a_modality_is_gone_for_a_third_of_the_time_in_stretches_of_2_to_8_s(
    seconds: float, rate_hz: float, seed: int, start_s: float, modality: str
) -> None:
    time_s = uniform_grid(start_s, start_s + seconds, rate_hz)
    t = len(time_s)
    features = Features(
        time_s,
        {m: np.ones((t, 2), np.float32) for m in MODALITIES},
        {m: np.ones(t, bool) for m in MODALITIES},
    )
    less = without_a_third(features, modality, seed)
    gone = ~less.observed[modality]
    np.testing.assert_array_equal(less.values[modality][:, 0], ~gone)
    assert less.values[modality].dtype == np.float32
    for m in MODALITIES:
        assert features.observed[m].all()
        assert m == modality or (less.observed[m].all() and (less.values[m] == 1).all())
    np.testing.assert_array_equal(
        gone, ~without_a_third(features, modality, seed).observed[modality]
    )
    edges = np.flatnonzero(np.diff(gone.astype(int))) + 1
    runs = [(run[0], len(run) / rate_hz) for run in np.split(gone, edges)]
    slack_s = 1 / rate_hz + 1e-6
    total_s = t / rate_hz
    if t > 1:
        assert abs(gone.sum() / rate_hz - total_s / 3) <= slack_s * max(len(runs), 1)
    if total_s / 3 >= STRETCH_S[0]:
        assert all(length_s <= STRETCH_S[1] + slack_s for on, length_s in runs if on)
        for on, length_s in runs[1:-1]:  # the clip's ends may cut the outer ones
            assert length_s >= (STRETCH_S[0] if on else APART_S) - slack_s


def test_stretches_differ_by_seed_and_by_clip_and_fall_anywhere() -> None:
    video = clip("x", 60)
    seeds = [without_a_third(video.features, "visual", seed).observed["visual"] for seed in (0, 1)]
    assert (seeds[0] != seeds[1]).any()
    change = CHANGES["without a third of"]
    namesake = replace(video, name="y")
    assert (
        change(video, "visual", 0).observed["visual"]
        != change(namesake, "visual", 0).observed["visual"]
    ).any()
    full = Features(
        video.features.time_s,
        video.features.values,
        {m: np.ones(len(video.features.time_s), bool) for m in MODALITIES},
    )
    gone = [~without_a_third(full, "text", seed).observed["text"] for seed in range(600)]
    share = np.mean(gone, 0)
    assert abs(share.mean() - 1 / 3) < 0.01
    assert np.abs(share - 1 / 3).max() < 0.09  # of 600 draws; the spread is 0.02
