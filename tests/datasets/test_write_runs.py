"""Composing as a run: sameness, interruptions, refusals."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maven.datasets import write
from maven.datasets.affwild2 import CHALLENGE, SPLITS, CorpusError
from maven.datasets.corpora import SourcesError
from maven.datasets.write import write_corpus
from tiny_sources import write_sources, write_speech

SECONDS = 5.5
SEED = 3
TRAIN = f"{CHALLENGE}/{SPLITS['train']}"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def corpus(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of train and of val in one root."""
    root = tmp_path_factory.mktemp("made") / "corpus"
    for split in ("train", "val"):
        write_corpus(sources, split, 2, SECONDS, SEED, root)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def plans_of(root: Path, split: str) -> dict[str, Any]:
    return dict(json.loads((root / f"compose_{split}.json").read_text(encoding="utf-8"))["plans"])


# --- sameness ----------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_bytes(
    corpus: Path, sources: Path, tmp_path: Path
) -> None:
    write_corpus(sources, "val", 2, SECONDS, SEED, tmp_path)
    again, before = contents(tmp_path), contents(corpus)
    assert again == {name: before[name] for name in before if name in again}
    assert len(again) > 200
    assert any(name.endswith(".mp4") for name in again)


def test_a_video_does_not_depend_on_how_many_there_are(
    corpus: Path, sources: Path, tmp_path: Path
) -> None:
    write_corpus(sources, "train", 1, SECONDS, SEED, tmp_path)
    before = contents(corpus)
    for name, content in contents(tmp_path).items():
        if "train-000" in name:
            assert content == before[name]
    alone, together = plans_of(tmp_path, "train"), plans_of(corpus, "train")
    assert alone["train-000"] == together["train-000"]


def test_another_seed_gives_another_corpus(corpus: Path, sources: Path, tmp_path: Path) -> None:
    write_corpus(sources, "train", 1, SECONDS, SEED + 1, tmp_path)
    name = f"{TRAIN}/train-000.txt"
    assert contents(tmp_path)[name] != contents(corpus)[name]


# --- interruptions -----------------------------------------------------------------------------


KILLED = """
import os, signal, sys
from pathlib import Path
from maven.datasets import write

drawn, crop = 0, write.crop

def interrupted(*arguments):
    global drawn
    drawn += 1
    if drawn == {frames}:
        os.kill(os.getpid(), signal.SIGKILL)
    return crop(*arguments)

write.crop = interrupted
write.write_corpus(Path(sys.argv[1]), "train", 2, {seconds}, {seed}, Path(sys.argv[2]))
"""


class Stopped(BaseException):
    """What no handler catches."""


def completed(corpus: Path, sources: Path, root: Path) -> None:
    """Run once more; what comes is what an undisturbed run gives, nothing made twice."""
    labels = list((root / TRAIN).glob("*.txt"))
    stamps = [path.stat().st_mtime_ns for path in labels]
    assert not (root / "prediction_sample_train.txt").exists()
    write_corpus(sources, "train", 2, SECONDS, SEED, root)
    again, before = contents(root), contents(corpus)
    assert again == {name: before[name] for name in before if "train" in name.lower()}
    assert [path.stat().st_mtime_ns for path in labels] == stamps


def test_a_killed_run_is_completed(corpus: Path, sources: Path, tmp_path: Path) -> None:
    """Killed by the system in the pictures of the second video, with no chance to tidy up."""
    script = KILLED.format(frames=200, seconds=SECONDS, seed=SEED)
    command = [sys.executable, "-c", script, str(sources), str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / TRAIN).iterdir()] == ["train-000.txt"]
    assert list((tmp_path / "media").glob(".train-001.*.mp4"))
    assert list((tmp_path / "cropped_aligned" / ".train-001").iterdir())
    completed(corpus, sources, tmp_path)


@pytest.mark.parametrize("name", ["_label_lines", "_transcript", "record", "write_submission"])
def test_a_run_that_failed_is_completed(
    corpus: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(write, name, fail)
        with pytest.raises(Stopped):
            write_corpus(sources, "train", 2, SECONDS, SEED, tmp_path)
    assert len(list((tmp_path / TRAIN).iterdir())) == (2 if name == "write_submission" else 0)
    completed(corpus, sources, tmp_path)


def test_what_is_lost_is_made_again(corpus: Path, sources: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(corpus, root)
    (root / CHALLENGE / SPLITS["val"] / "val-001.txt").unlink()
    (root / "media" / "val-001.mp4").write_bytes(b"half")
    (root / "cropped_aligned" / "val-001" / "99999.jpg").write_bytes(b"left over")
    write_corpus(sources, "val", 2, SECONDS, SEED, root)
    assert contents(root) == contents(corpus)


def test_progress_counts_videos(sources: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_corpus(sources, "test", 2, 5, 0, tmp_path, lambda done, all_: seen.append((done, all_)))
    assert seen == [(1, 2), (2, 2)]


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, r"holds the split val already: 2 videos, seed 3"),
        ({"seed": 4}, r"compose_val.json: the split was composed with other settings: seed was 3"),
        ({"videos": 3, "seconds": 8.0}, "other settings: videos was 2; seconds was 5.5"),
    ],
)
def test_a_split_is_composed_once(
    corpus: Path, sources: Path, change: dict[str, Any], said: str
) -> None:
    before = contents(corpus)
    asked = {"videos": 2, "seconds": SECONDS, "seed": SEED} | change
    with pytest.raises(CorpusError, match=said) as caught:
        write_corpus(sources, "val", root=corpus, **asked)
    assert "\n" not in str(caught.value)
    assert contents(corpus) == before


def test_labels_of_others_are_left_alone(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / TRAIN
    folder.mkdir(parents=True)
    (folder / "video1.txt").write_text("valence,arousal\n0,0\n")
    with pytest.raises(CorpusError, match=r"Train_Set: holds labels, and compose_train.json is"):
        write_corpus(sources, "train", 1, 5, 0, tmp_path)
    assert list(contents(tmp_path)) == [f"{TRAIN}/video1.txt"]


@pytest.mark.parametrize("text", ["", "[1]", '{"seed": 1}', '{"plans": 3}', "\x00"])
def test_a_damaged_record(sources: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "compose_train.json").write_text(text)
    with pytest.raises(CorpusError, match=r"compose_train.json: not the record of a composed"):
        write_corpus(sources, "train", 1, 5, 0, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "dev"}, "split is 'dev'; accepted: train, val, test"),
        ({"videos": 0}, "videos is 0; accepted: 1 or more"),
        ({"seconds": 4.9}, "seconds is 4.9; accepted: 5 to 3600"),
        ({"seconds": 3601.0}, "seconds is 3601.0; accepted: 5 to 3600"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seed": -1}, "seed is -1; accepted: 0 or more"),
    ],
)
def test_arguments_out_of_range(
    sources: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    asked = {"split": "train", "videos": 1, "seconds": 5.0, "seed": 0} | change
    with pytest.raises(ValueError, match=said):
        write_corpus(sources, root=tmp_path / "new", **asked)
    assert not (tmp_path / "new").exists()


def test_a_damaged_clip_is_named(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    shutil.copytree(sources, folder)
    shutil.rmtree(folder / "speech")
    write_speech(folder / "speech" / "ravdess", (1,))
    for path in (folder / "speech").rglob("*.flac"):
        path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(SourcesError, match=r"Actor_01/03-01-\d\d-02-01-01-01.flac: ") as caught:
        write_corpus(folder, "train", 1, 5, 0, tmp_path / "root")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "root").rglob("*.txt"))
