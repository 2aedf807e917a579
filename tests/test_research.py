"""The commands of the research bench: help, corpora, features, converted models."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import safe_open

from affwild2_factory import faces, label
from commands import Outcome, Run, here
from demo_pieces import copy_piece
from maven.checkpoint import load_network, read_card
from maven.config import MODALITIES
from maven.encoders.build import PAPER
from media_factory import write_clip
from small_corpus import entries, write_labels
from tiny_bench import write_mini_store
from tiny_sources import write_sources

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = (
    ("data", "check"), ("data", "compose"), ("features",), ("convert", "published"), ("train",),
    ("evaluate",), ("submit",), ("ablate",), ("calibrate",),
)  # fmt: skip
HELP = """
import sys
from maven.cli import app

for words in {commands}:
    app([*words, "--help"], standalone_mode=False)
heavy = ("torch", "numpy", "av", "cv2", "pandas", "matplotlib", "yaml", "lightning_fabric")
print("loaded:", *(name for name in heavy if name in sys.modules))
"""


# --- help --------------------------------------------------------------------------------------


def test_help_is_at_once_and_loads_nothing_heavy() -> None:
    program = HELP.format(commands=[*COMMANDS, ()])
    spent_s, said = [], ""
    for _ in range(3):
        before = os.times()
        said = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        after = os.times()
        spent_s.append(
            after.children_user + after.children_system
            - before.children_user - before.children_system
        )  # fmt: skip
    assert said.endswith("loaded:\n")
    assert min(spent_s) < 0.8  # of nine pages of help; half of that on a quiet machine
    for words in ("data check [OPTIONS] {ROOT}", "train [OPTIONS] [CONFIG] [KEY=VALUE]..."):
        assert words in said
    for command in ("predict", "ablate", "data", "convert"):
        assert f"\n  {command} " in said


# --- data --------------------------------------------------------------------------------------


def clean_corpus(root: Path, frames: int = 5) -> Path:
    """A video to train and one to validate on: labels, media and faces that fit."""
    for split, name in (("train", "one"), ("val", "two")):
        label(root, split, name, frames)
        faces(root / "cropped_aligned" / name, frames)
        (root / "batch1").mkdir(exist_ok=True)
        times_s = [k / 25 for k in range(frames)]
        write_clip(root / "batch1" / f"{name}.mp4", frame_times_s=times_s)
    return root


def test_a_clean_corpus_is_said_to_be_clean(run: Run, tmp_path: Path) -> None:
    root = clean_corpus(tmp_path / "corpus")
    done = run("data", "check", root, "-o", "new/findings.csv")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "0 errors, 0 notes"
    assert done.out.split()[5:10] == ["train", "1", "5", "100.0", "%"]
    assert Path("new/findings.csv").read_text().strip() == "video,kind,severity,detail"


def test_what_is_wrong_with_a_corpus_is_listed(run: Run, tmp_path: Path) -> None:
    root = clean_corpus(tmp_path / "corpus")
    (root / "batch1" / "one.mp4").write_bytes(b"not a video")
    label(root, "val", "somebody-else-in-1920x1080_left", 4)
    done = run("data", "check", root, "-o", "findings.csv")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    with Path("findings.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert {row["video"] for row in found} == {"one", "somebody-else-in-1920x1080_left"}
    errors = [row for row in found if row["severity"] == "error"]
    notes = len(found) - len(errors)
    assert lines[-1] == f"{len(errors)} errors, {notes} note{'s' * (notes != 1)}"
    for row in found:
        assert any(line.split()[:3] == [row["video"], row["kind"], row["severity"]]
                   for line in lines)  # fmt: skip


def test_a_composed_corpus_is_clean(run: Run, tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "sources")
    compose = ("data", "compose", "--sources", sources, "--videos", "1", "--seconds", "5",
               "--seed", "2", "-o", "made/corpus")  # fmt: skip
    for split in ("train", "val"):
        done = run(*compose, "--split", split)
        assert (done.code, done.err) == (0, "")
        assert f"Wrote made/corpus, split {split}: videos of 5 s, 1" in done.out
    done = run("data", "check", "made/corpus")
    assert (done.code, done.err) == (0, ""), done.out
    assert "0 errors" in done.out
    before = here()
    done = run(*compose, "--split", "val")
    assert (done.code, done.out) == (1, "")
    assert "holds the split val already" in done.message
    assert here() == before


# --- features ----------------------------------------------------------------------------------


def make_corpus(root: Path) -> Path:
    """Two short videos to validate on, one that is broken, and one without labels."""
    (root / "media").mkdir(parents=True)
    for name, until_s, count in (("first", 1.0, 27), ("second", 0.6, 17)):
        copy_piece(root / "media" / f"{name}.mp4", until_s=until_s)
        write_labels(root, "Validation_Set", name, count)
    (root / "media" / "broken.mp4").write_bytes(b"not a video at all")
    write_labels(root, "Train_Set", "broken", 9)
    return root


def test_features_twice_and_scores_of_corpus_and_store(run: Run, tmp_path: Path) -> None:
    root, here_ = make_corpus(tmp_path / "corpus"), Path.cwd()
    first = run("features", root, "-o", "store", "--workers", 1)
    before = entries(here_)
    assert run("features", root, "-o", "store", "--workers", 1) == first
    assert entries(here_) == before  # nothing was computed again
    assert first.code == 1
    assert first.message.startswith("maven: left out broken: media/broken.mp4: ")
    assert "2 videos in store/mini.json, features of mini-face, mini-voice" in first.out

    note = "Note: videos without features, left out: 1, broken for one\n"
    scores = {}
    for where in ("store", str(root)):
        done = run("evaluate", "mini", where, "-o", f"scores/{Path(where).name}")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(note) == (where == "store")  # of a corpus, this split alone
        scores[where] = done.out.removeprefix(note).partition("Wrote")[0]
    assert scores["store"] == scores[str(root)]
    one, other = (pd.read_parquet(f"scores/{n}/frames.parquet") for n in ("store", "corpus"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert len(one) == 27 + 17
    assert entries(here_).keys() > before.keys()  # on the network's grid
    shutil.rmtree(here_ / "scores")

    rows = [f"{name}/{k:05d}.jpg" for name, k in (("second", 2), ("first", 1), ("second", 1))]
    lines = "".join(f"{row},0,0\n" for row in rows)
    Path("sample.txt").write_text(f"image_location,valence,arousal\n{lines}")
    for where in ("store", str(root)):
        out = f"{Path(where).name}.txt"
        assert run("submit", "mini", where, "--sample", "sample.txt", "-o", out).code == 0
        assert [line.partition(",")[0] for line in Path(out).read_text().splitlines()[1:]] == rows
    assert Path("store.txt").read_text() == Path("corpus.txt").read_text()


def test_a_bar_a_corpus_not_one_a_video(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    from maven import extracting

    stages: list[str] = []

    class Bars:
        def __init__(self, name: str) -> None:
            pass

        def __enter__(self) -> Any:
            return lambda stage, done, total: stages.append(stage)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(extracting, "progress_bar", Bars)
    root = make_corpus(tmp_path / "corpus")
    shutil.rmtree(root / "media")
    faces(root / "cropped_aligned" / "first", 3)
    run("features", root, "-o", "store", "--workers", 1)
    assert set(stages) == {"videos"}


# --- convert -----------------------------------------------------------------------------------


def golden(variant: str) -> dict[str, torch.Tensor]:
    with safe_open(GOLDEN / f"reference_{variant}.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("variant", ["mlp", "beit"])
@torch.no_grad()
def test_a_published_checkpoint_becomes_a_model_folder(
    run: Run, tmp_path: Path, variant: str
) -> None:
    content = golden(variant)
    weights = {k[8:]: x for k, x in content.items() if k.startswith("weights.")}
    torch.save(weights, "best_model.pth")
    done: Outcome = run("convert", "published", "best_model.pth", "-o", "new/mine")
    assert (done.code, done.err) == (0, "")
    assert f"Wrote new/mine: preset reference-{variant}" in done.out
    assert ("--join-heads" in done.out) == (variant == "beit")
    assert here() == ["best_model.pth", "new", "new/mine", "new/mine/config.json",
                      "new/mine/model.safetensors"]  # fmt: skip

    found = load_network("new/mine", device="cpu")
    video = content["input.video"]
    b, t, _ = video.shape
    features = {"visual": video}
    for m in ("audio", "text"):
        features[m] = content[f"input.{m}"][:, None].expand(-1, t, -1)
    observed = dict.fromkeys(MODALITIES, torch.ones(b, t, dtype=torch.bool))
    outputs = found.network.outputs(features, observed, torch.arange(t)[None] / 30)
    expected = content["output" if variant == "beit" else "output.theta_intensity"]
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=0)

    card = read_card(Path("new/mine"))
    assert (card.name, card.encoders, card.smoothing_s) == ("mine", PAPER, 0.0)
    assert card.training["preset"] == f"reference-{variant}"
    assert card.training["from"] == "best_model.pth"
    assert "segment" in card.training["notes"][-1]
    write_mini_store(tmp_path / "store")
    refused = run("evaluate", "new/mine", tmp_path / "store")
    assert refused.code == 1
    assert "no features of the encoders of the model mine" in refused.message
