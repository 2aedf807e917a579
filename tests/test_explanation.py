"""From a file to what drove its answer, with random weights: records, files, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import maven
from commands import Run, here
from demo_pieces import copy_piece
from maven.checkpoint import Model
from maven.config import MODALITIES
from maven.explanation import Explanation, ExplanationError, explain
from media_factory import write_clip

WORDS = "1\n00:00:00,600 --> 00:00:01,200\nSuch joy!\n"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face, a voice and two words, 1.5 s."""
    path = copy_piece(tmp_path_factory.mktemp("clips") / "clip.mp4")
    path.with_suffix(".srt").write_text(WORDS)
    return path


@pytest.fixture(scope="module")
def found(clip: Path, model: Model) -> Explanation:
    return explain(clip, model, asr="none", moments=2, at_s=0.9)


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "bars.mp4", frame_times_s=[k / 25 for k in range(10)])


def test_the_answer_is_that_of_analyze(found: Explanation, clip: Path, model: Model) -> None:
    analysis = maven.analyze(clip, model, asr="none")
    assert found.analysis.frames.equals(analysis.frames)
    va = found.analysis.frames[["valence", "arousal"]].to_numpy()
    np.testing.assert_allclose(found.contributions.sum(1), va, atol=1e-12)


def test_a_moment_says_what_the_table_says(found: Explanation) -> None:
    rows = found.analysis.frames
    assert found.chosen in found.moments
    assert found.chosen is not None
    assert found.chosen.time_s == pytest.approx(0.9, abs=0.03)
    for moment in found.moments:
        row = rows.iloc[moment.row]
        for axis in ("time_s", "valence", "arousal", "intensity", "emotion"):
            assert getattr(moment, axis) == row[axis], axis
        assert moment.interval is None
        for m in MODALITIES:
            assert moment.drivers[m].share == row[f"{m}_weight"]
        assert sum(d.share for d in moment.drivers.values()) == pytest.approx(1)
        assert sum(d.valence for d in moment.drivers.values()) == pytest.approx(moment.valence)
        assert sum(d.arousal for d in moment.drivers.values()) == pytest.approx(moment.arousal)
        assert {w.text for w in moment.words} == {"Such", "joy!"}
    assert found.looks is not None
    assert found.looks.time_s == pytest.approx(0.9, abs=0.06)


def test_files_hold_everything(found: Explanation, tmp_path: Path) -> None:
    picture, record = found.save(tmp_path)
    assert (picture.name, record.name) == ("clip.explain.png", "clip.explain.json")
    assert picture.read_bytes().startswith(b"\x89PNG")
    content = json.loads(record.read_text())
    assert content["provenance"] == found.analysis.provenance
    assert len(content["moments"]) == len(found.moments)
    assert content["moments"][0]["drivers"].keys() == set(MODALITIES)
    assert {w["text"] for w in content["moments"][0]["words"]} == {"Such", "joy!"}
    assert len(content["attention"]["weights"]) == 6
    times_s = content["contributions"]["time_s"]
    assert (
        len(times_s) == len(content["contributions"]["text"]["arousal"]) == len(found.contributions)
    )


def test_without_an_answer_there_is_nothing_to_explain(bars: Path, model: Model) -> None:
    found = explain(bars, model, asr="none")
    assert (found.moments, found.chosen, found.looks) == ((), None, None)
    assert np.isnan(found.contributions).all()
    assert json.dumps(found.record(), allow_nan=False)
    found.plot()


def test_what_cannot_be_explained_is_refused(clip: Path, model: Model) -> None:
    for at_s in (-1.0, 99.0, float("nan")):
        with pytest.raises(ExplanationError, match="there is nothing at"):
            explain(clip, model, asr="none", at_s=at_s)
    with pytest.raises(ValueError, match="moments"):
        explain(clip, model, moments=0)
    with pytest.raises(ValueError, match="all"):
        explain(clip, model, faces="all")


def test_the_command(run: Run, clip: Path, toy: Path) -> None:
    done = run("explain", clip, "-o", "out", "--model", toy, "--asr", "none", "--moments", "1")
    assert (done.code, done.err) == (0, "")
    assert here() == ["out", "out/clip.explain.json", "out/clip.explain.png"]
    for part in ("clip.mp4: what drove", "face", "voice", "words", "Wrote out/clip.explain.png"):
        assert part in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_wrong_commands_and_files(run: Run, clip: Path, toy: Path, bars: Path) -> None:
    assert "nowhere.mp4" in run("explain", "nowhere.mp4").message
    for options, code in (
        (("--moments", "0"), 2), (("--device", "gpu"), 2), (("--asr", "magic"), 2),
        (("--model", toy, "--asr", "none", "--at", "99"), 1),
    ):  # fmt: skip
        failed = run("explain", clip, *options)
        assert failed.code == code, options
        assert failed.message
    assert here() == []
    done = run("explain", bars, "--model", toy, "--asr", "none")
    assert done.code == 0
    assert "Note: no face was seen" in done.out
