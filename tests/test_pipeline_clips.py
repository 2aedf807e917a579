"""The whole way on real clips, with random weights: everything but accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from answers import check_answer
from maven.checkpoint import Model
from maven.pipeline import Analysis, analyze


def analysis_of(clips_dir: Path, name: str, model: Model, **options: Any) -> Analysis:
    analysis = analyze(clips_dir / name, model, asr="none", **options)
    check_answer(analysis)
    if "rate_hz" not in options:
        count = len(analysis.frames) // max(analysis.frames["face_id"].nunique(), 1)
        with av.open(str(clips_dir / name)) as container:
            assert count == sum(1 for _ in container.decode(video=0))
    return analysis


def test_clip_without_a_face(clips_dir: Path, model: Model) -> None:
    analysis = analysis_of(clips_dir, "no_face.mp4", model)
    assert analysis.frames["face_id"].isna().all()
    assert "no face was seen" in analysis.notes


def test_clip_whose_face_goes(clips_dir: Path, model: Model) -> None:
    """Its frame rate varies, and its sound begins at 2.43 s."""
    analysis = analysis_of(clips_dir, "face_then_no_face.mov", model)
    has_face = analysis.frames["has_face"].to_numpy(bool)
    assert 40 < has_face.sum() < 120
    assert has_face[: has_face.sum()].all()
    assert np.ptp(np.diff(analysis.frames["time_s"])) > 0.01
    assert analysis.media.audio is not None
    assert analysis.media.audio.start_s == pytest.approx(2.43, abs=0.01)


def test_clip_with_six_people(clips_dir: Path, model: Model) -> None:
    analysis = analysis_of(clips_dir, "six_faces_360p.mp4", model, faces="all")
    table = analysis.frames
    assert table["face_id"].nunique() == len(analysis.tracks) >= 6
    assert table.groupby("frame")["has_face"].sum().max() >= 5
    assert table["time_s"].min() == pytest.approx(0.852, abs=1e-3)
    alone = table[table["face_id"] == table["face_id"].iloc[0]]
    assert len(table) == len(alone) * len(analysis.tracks)
    assert table.groupby("frame")["has_speech"].nunique().max() == 1
    assert table.groupby("frame")["valence"].nunique().max() > 1


def test_upright_clip(clips_dir: Path, model: Model) -> None:
    table = analysis_of(clips_dir, "talk_portrait_1080x1920.mp4", model, rate_hz=5.0).frames
    assert table["has_face"].all()
    assert (table["face_x"] + table["face_w"] / 2).between(0, 1080).all()
    assert (table["face_y"] + table["face_h"] / 2).between(0, 1920).all()
    assert (table["face_h"] > 0.8 * table["face_w"]).all()
    assert (table["audio_weight"] > 0).mean() > 0.9


def test_clip_with_three_people_at_a_rate(clips_dir: Path, model: Model) -> None:
    """An AVI that declares twice the frames it holds."""
    table = analysis_of(clips_dir, "three_faces_720p.avi", model, rate_hz=2.0, faces="all").frames
    times_s = np.sort(table["time_s"].unique())
    assert np.median(np.diff(times_s)) == pytest.approx(0.5, abs=0.02)
    assert table.groupby("frame")["has_face"].sum().max() >= 2


def test_silent_clip(clips_dir: Path, model: Model) -> None:
    table = analysis_of(clips_dir, "silent_sadgirl_clip1.mp4", model).frames
    assert table["has_face"].all()
    assert not table["has_speech"].any()
    assert (table["visual_weight"] == 1).all()


def test_clip_with_timed_words(clips_dir: Path, model: Model) -> None:
    analysis = analysis_of(clips_dir, "grid_s1_bbaf2n.mpg", model)
    lines = (clips_dir / "grid_s1_bbaf2n.align").read_text().split("\n")
    timed = [line.split() for line in lines if line and "sil" not in line]
    assert [word.text for word in analysis.transcript.words] == [word for *_, word in timed]
    start_s = analysis.media.start_s
    table = analysis.frames
    spoken = np.zeros(len(table), bool)
    for first, last, _ in timed:  # units of 1/25000 s
        time_s = table["time_s"] - start_s + 1e-9
        spoken |= (time_s >= int(first) / 25_000) & (time_s < int(last) / 25_000)
    assert (table["has_text"] == spoken).all()
    assert (table.loc[spoken, "text_weight"] > 0).all()
