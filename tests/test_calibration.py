"""The command that calibrates: what it writes, what it refuses, and what has intervals then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from commands import Run
from demo_pieces import copy_piece
from maven.checkpoint import MINI_FOLDER, load, read_card
from maven.intervals import LEAST_VIDEOS
from maven.pipeline import analyze
from planted import write_store
from tiny_bench import mini_encoders


def without_intervals(folder: Path) -> Path:
    """A copy of the model in the package that was never calibrated."""
    shutil.copytree(MINI_FOLDER, folder)
    content = json.loads((folder / "config.json").read_text())
    content.pop("intervals", None)
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_a_calibrated_model_says_how_sure_it_is(run: Run, tmp_path: Path) -> None:
    folder = without_intervals(tmp_path / "mine")
    piece = copy_piece(tmp_path / "piece.mp4")
    before = analyze(piece, load(folder, device="cpu"), asr="none")
    write_store(Path("store"), train=1, val=LEAST_VIDEOS + 1, encoders=mini_encoders())
    bare = run("evaluate", folder, "store").out

    done = run("calibrate", folder, "store", "--nominal", "0.8")
    assert (done.code, done.err) == (0, "")
    assert f"intervals of 80% from {LEAST_VIDEOS + 1} videos" in done.out
    intervals = read_card(folder).intervals
    assert intervals is not None
    assert (intervals.nominal, intervals.videos) == (0.8, LEAST_VIDEOS + 1)

    after = analyze(piece, load(folder, device="cpu"), asr="none")
    ends = [f"{name}_{end}" for name in ("valence", "arousal") for end in ("low", "high")]
    assert before.frames[ends].isna().all().all()
    rows = after.frames
    np.testing.assert_array_equal(rows["valence"], before.frames["valence"])
    for name in ("valence", "arousal"):
        answered = rows[name].notna()
        assert answered.any()
        assert (rows[f"{name}_low"].notna() == answered).all()
        assert (rows[f"{name}_high"].notna() == answered).all()
        held = rows[answered]
        assert (held[f"{name}_low"] < held[name]).all()
        assert (held[name] < held[f"{name}_high"]).all()
        assert held[f"{name}_low"].min() >= -1
        assert held[f"{name}_high"].max() <= 1

    scored = run("evaluate", folder, "store", "-o", "scores").out
    assert "Intervals, nominally 80%" in scored
    assert "Intervals" not in bare
    figures = json.loads(Path("scores/evaluation.json").read_text())
    assert figures["nominal"] == 0.8
    assert figures["covered"]["all"]["valence"] == pytest.approx(0.8, abs=0.15)


def test_what_cannot_be_calibrated_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    folder = without_intervals(tmp_path / "mine")
    before = (folder / "config.json").read_bytes()
    write_store(Path("store"), train=1, val=LEAST_VIDEOS - 1, encoders=mini_encoders())
    done = run("calibrate", folder, "store")
    assert done.code == 1
    assert done.message.endswith("valid labels and an answer, got 9")
    for arguments, said in (
        (("store", "--nominal", "90"), "--nominal: got 90; accepted: above 0, below 1"),
        (("store", "--split", "dev"), "--split: got 'dev'; accepted: train, val, test"),
        (("nowhere",), "there is no folder nowhere"),
    ):
        done = run("calibrate", folder, *arguments)
        assert done.code == 2
        assert said in done.message
    done = run("calibrate", "owner/name", "store")  # of a hub: not ours to change
    assert done.code == 1
    assert "no model named owner/name" in done.message
    assert (folder / "config.json").read_bytes() == before
