"""From features to a model and its scores, by the commands: train, evaluate, submit, ablate."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from commands import Run, here
from demo_pieces import copy_piece
from maven.ablate import GRIDS
from maven.checkpoint import MINI_FOLDER, load_network, read_card
from maven.config import MODALITIES, MavenConfig
from maven.datasets.clips import load_clips
from maven.metrics import ccc, valid_labels
from maven.store import read_manifest, write_manifest
from tiny_bench import write_mini_store, write_recipe
from toy_mini import save_toy_mini


@dataclass(frozen=True)
class Trained:
    """A finished run, its recipe and its features."""

    store: Path
    recipe: Path
    folder: Path
    said: str


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained in a process of its own; not to be changed."""
    place = tmp_path_factory.mktemp("bench")
    write_mini_store(place / "store")
    recipe = write_recipe(place / "tiny.yaml", place / "store")
    folder = place / "RUN"
    done = process("train", recipe, "train.epochs=3", "train.seed=7", "-o", folder)
    return Trained(place / "store", recipe, folder, done)


@pytest.fixture
def trained(pristine: Trained, tmp_path: Path) -> Trained:
    """The same run in a folder that may be changed."""
    return replace(pristine, folder=Path(shutil.copytree(pristine.folder, tmp_path / "RUN")))


def process(*arguments: str | Path) -> str:
    """Run a command as a program; what it says, which is all on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "maven.cli", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- training ----------------------------------------------------------------------------------


def test_a_training_says_how_it_went_and_where_the_model_is(pristine: Trained) -> None:
    *epochs, best, where = pristine.said.splitlines()
    assert [line.split()[1] for line in epochs] == ["1/3", "2/3", "3/3"]
    assert where == f"Model: {pristine.folder / 'best'}"
    written = yaml.safe_load((pristine.folder / "config.yaml").read_text())
    assert (written["train"]["epochs"], written["train"]["seed"]) == (3, 7)
    assert written["name"] == "tiny"
    with (pristine.folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    top = max(rows, key=lambda row: float(row["ccc_mean"]))
    assert best.startswith(
        f"Best epoch {top['epoch']} of 3: CCC valence {float(top['ccc_valence']):.4f},"
        f" arousal {float(top['ccc_arousal']):.4f}, mean {float(top['ccc_mean']):.4f}; smoothed by"
    )
    card = read_card(pristine.folder / "best")
    assert best.endswith(
        f"{card.smoothing_s:g} s: {card.training['smoothed'][f'{card.smoothing_s:g}']:.4f}"
    )


def test_a_finished_run_that_is_resumed_is_what_it_was(run: Run, trained: Trained) -> None:
    before = contents(trained.folder)
    done = run("train", "--resume", trained.folder)
    assert (done.code, done.err) == (0, "")
    said = trained.said.splitlines()[-2:]
    assert done.out.splitlines() == [said[0], f"Model: {trained.folder / 'best'}"]
    after = contents(trained.folder)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert not {name for name in changed if not name.endswith(".png")}


def test_a_folder_that_holds_a_run_is_refused(run: Run, trained: Trained) -> None:
    before = contents(trained.folder)
    done = run("train", trained.recipe, "-o", trained.folder)
    assert (done.code, done.out) == (1, "")
    assert "RUN holds a run already" in done.message
    assert contents(trained.folder) == before


def test_a_run_is_named_by_the_command_the_file_or_its_name(run: Run, trained: Trained) -> None:
    once = ("train.epochs=1",)
    named = write_recipe(Path("other.yaml"), trained.store, name="mine")
    for recipe, changes, name in (
        (trained.recipe, (), "tiny"),
        (named, (), "mine"),
        (named, ("name=yours",), "yours"),
        (trained.recipe, ("name=2024",), "2024"),
    ):
        assert run("train", recipe, *once, *changes).code == 0
        assert read_card(Path("runs") / name / "best").name == name
    assert len(list(Path("runs").iterdir())) == 4


def test_what_was_left_out_of_the_features_is_said(
    run: Run, trained: Trained, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(trained.store, tmp_path / "store"))
    write_manifest(store, replace(read_manifest(store), failed=(("x", "a"), ("y", "b"))))
    done = run("train", trained.recipe, f"features={store}", "train.epochs=1", "-o", "R")
    assert (done.code, done.err) == (0, "")
    assert "Note: 2 videos of the corpus have no features" in done.out
    done = run("evaluate", trained.folder / "best", store, "-o", "scores")
    assert "Note: videos without features, left out: 2, x for one" in done.out
    content = json.loads(Path("scores/evaluation.json").read_text())
    assert content["provenance"]["left_out"] == ["x", "y"]


def test_a_loss_that_is_no_number_ends_in_one_line(run: Run, trained: Trained) -> None:
    done = run("train", trained.recipe, "train.learning_rate=1e30", "train.clip=1e30", "-o", "R")
    assert done.code == 1
    assert "a smaller train.learning_rate" in done.message
    assert not Path("R/best").exists()


def test_what_a_reader_should_know_is_noted(run: Run, trained: Trained) -> None:
    done = run("train", trained.recipe, "preset=reference-mlp", "train.epochs=1", "-o", "R")
    assert (done.code, done.err) == (0, "")
    assert f"Note: windows of {MavenConfig.window_s:g} s, the network's own" in done.out


def test_what_training_needs_is_named(
    run: Run, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    done = run("train", trained.recipe, "-o", "R")
    assert (done.code, done.out) == (1, "")
    assert "pip install 'maven[train]'" in done.message
    assert here() == []


# --- the model ---------------------------------------------------------------------------------


def test_the_best_model_predicts_from_media(run: Run, trained: Trained, tmp_path: Path) -> None:
    best = trained.folder / "best"
    for m in MODALITIES:  # its encoders travel with it
        name = f"{m}.safetensors"
        assert (best / name).read_bytes() == (MINI_FOLDER / name).read_bytes()
    clip = copy_piece(tmp_path / "clip.mp4", until_s=1.0)
    done = run("predict", clip, "--model", best, "--asr", "none", "--format", "csv")
    assert (done.code, done.err) == (0, "")
    table = pd.read_csv("maven-out/clip.csv")
    assert table[["valence", "arousal"]].notna().all(axis=None)
    assert table["has_face"].any()


def test_scores_are_those_of_the_training(run: Run, trained: Trained) -> None:
    """The CCC over all valid frames, once more by NumPy from the frames that were written."""
    best = trained.folder / "best"
    done = run("evaluate", best, trained.store, "--split", "val", "-o", "new/scores")
    assert (done.code, done.err) == (0, "")
    content = json.loads(Path("new/scores/evaluation.json").read_text())
    found = load_network(best, device="cpu")
    assert content["provenance"]["model"]["weights_sha256"] == found.weights_hash
    assert content["provenance"]["split"] == "val"
    frames = pd.read_parquet("new/scores/frames.parquet")
    means = []
    for k, name in enumerate(("valence", "arousal")):
        labels = np.concatenate([c.frame_labels for c in load_clips(trained.store, 10.0, "val")])
        valid = valid_labels(*labels.T)
        assert (frames[f"label_{name}"].notna() == valid).all()
        x, y = frames[name].to_numpy()[valid], labels[valid, k].astype(float)
        expected = 2 * np.cov(x, y, bias=True)[0, 1]
        expected /= x.var() + y.var() + (x.mean() - y.mean()) ** 2
        assert content["abaw"][f"ccc_{name}"] == pytest.approx(expected)
        assert ccc(x, y) == pytest.approx(expected)
        means.append(expected)
    smoothed = read_card(best).training["smoothed"]
    assert np.mean(means) == pytest.approx(smoothed[f"{read_card(best).smoothing_s:g}"])
    assert f"{np.mean(means):.4f}" in done.out
    for name in ("evaluation.md", "videos.csv", "angles.png"):
        assert f"Wrote new/scores/{name}" in done.out
        assert (Path("new/scores") / name).stat().st_size > 100


def test_every_split_can_be_scored_and_the_seed_is_kept(run: Run, trained: Trained) -> None:
    best = trained.folder / "best"
    one, two, other = (
        run("evaluate", best, trained.store, "--split", "train", "--seed", seed).out
        for seed in ("1", "1", "2")
    )
    assert one == two != other
    assert one.startswith("train: ")


def test_a_submission_has_the_rows_of_the_sample(run: Run, trained: Trained) -> None:
    """Of labelled and unlabelled videos, in any order, one frame beyond the last among them."""
    best, (video, *_) = trained.folder / "best", load_clips(trained.store, 10.0, "test")
    beyond = len(video.frame_s) + 1
    rows = [f"video6/{beyond:05d}.jpg", "video6/00002.jpg", "video4/00001.jpg", "video6/00001.jpg"]
    sample = "image_location,valence,arousal\n" + "".join(f"{row},0.5,-0.5\n" for row in rows)
    Path("sample.txt").write_text(sample)
    done = run("submit", best, trained.store, "--sample", "sample.txt", "-o", "new/predictions.txt")
    assert (done.code, done.err) == (0, "")
    assert done.out == "Wrote new/predictions.txt: 4 rows\n"
    header, *lines = Path("new/predictions.txt").read_text().splitlines()
    assert header == "image_location,valence,arousal"
    assert [line.split(",")[0] for line in lines] == rows
    values = np.array([line.split(",")[1:] for line in lines], float)
    assert (np.abs(values) <= 1).all()
    run("evaluate", best, trained.store, "-o", "scores")
    frames = pd.read_parquet("scores/frames.parquet").set_index(["file", "frame"])
    scored = frames.loc[("video4", 1), ["valence", "arousal"]].to_numpy(float)
    np.testing.assert_allclose(values[2], scored, atol=1e-8)
    assert here()[-1] == "scores/videos.csv"
    assert run("submit", best, trained.store, "--sample", "sample.txt").code == 0
    assert Path("predictions.txt").read_text() == Path("new/predictions.txt").read_text()


def test_a_model_of_other_encoders_is_refused(run: Run, trained: Trained, tmp_path: Path) -> None:
    toy = save_toy_mini(tmp_path / "toy")
    for name in ("visual", "audio", "text"):
        shutil.copy(toy / f"{name}.safetensors", trained.folder / "best")
    done = run("evaluate", trained.folder / "best", trained.store)
    assert (done.code, done.out) == (1, "")
    assert "mini (visual: other weights or preparation)" in done.message


# --- ablation ----------------------------------------------------------------------------------


def test_presets_side_by_side_as_a_program(pristine: Trained, tmp_path: Path) -> None:
    """Processes that it starts begin from the program itself: that works, too."""
    out = tmp_path / "out"
    command = ("ablate", pristine.recipe, "train.epochs=1", "--grid", "presets", "--seeds", "1")
    said = process(*command, "--jobs", "2", "-o", out)
    lines = said.splitlines()
    n = len(GRIDS["presets"])
    assert [line.split()[0] for line in lines[:n]] == [f"{k}/{n}" for k in range(1, n + 1)]
    for variant in GRIDS["presets"]:
        (row,) = [
            line for line in lines if line.startswith(f"| {variant.group} | {variant.name} |")
        ]
        assert re.search(r"\| -?0\.\d{3} \| [+-]0\.\d{3} \|$", row)
    assert lines[-3:] == [f"Wrote {out / f'ablation.{e}'}" for e in ("md", "csv", "png")]
    assert (out / "ablation.md").read_text() in said
    assert {path.name for path in out.iterdir() if path.is_dir()} == {
        variant.folder for variant in GRIDS["presets"]
    }


def test_a_variant_that_fails_is_listed_and_the_exit_code_says_so(
    run: Run, pristine: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the loss on theta, what has another head cannot be trained."""
    few = [v for v in GRIDS["presets"] if v.name in ("default", "paper")]
    monkeypatch.setitem(GRIDS, "presets", few)
    done = run("ablate", pristine.recipe, "train.epochs=1", "train.loss=theta", "--grid", "presets",
               "--seeds", "1")  # fmt: skip
    assert (done.code, done.err) == (1, "")
    assert "| our recipe | default | failed | | | |" in done.out
    assert "- default, seed 0: loss theta needs a network with head theta, got polar" in done.out
    assert re.search(r"\| our recipe \| paper \|( -?0\.\d{3} \|){3}  \|", done.out)
    written = Path("runs/ablate-presets")
    assert (written / "paper" / "seed-0" / "result.json").is_file()
    with (written / "ablation.csv").open(newline="") as file:
        failed = {row["variant"]: row["failed"] for row in csv.DictReader(file)}
    assert failed["paper"] == ""
    assert failed["default"].startswith("loss theta needs")
