"""Ablations: variants that can be trained, side by side, resumed, and one that fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from commands import one_thread
from maven import ablate as ablation
from maven.ablate import GRIDS, Trial, Variant, ablate, run_one
from maven.checkpoint import load_network
from maven.config import MODALITIES, preset
from maven.datasets.clips import load_clips, only, split_clips
from maven.model import Maven
from maven.recipe import TrainError, resolve
from maven.store import StoreError, read_manifest, write_manifest
from maven.validate import score
from tiny_bench import recipe, write_mini_store

WIDTHS = {"visual": 9, "audio": 11, "text": 8}
DIVERGING = Variant("far too fast", "changed", {"train": {"learning_rate": 1e30, "clip": 1e30}})
FEW = [
    Variant("default", "as it is"),
    DIVERGING,
    Variant("Cartesian head", "changed", {"network": {"head": "cartesian"}}),
]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_mini_store(folder := tmp_path_factory.mktemp("bench") / "store")
    return folder


# --- the grids ---------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
def test_variants_have_names_and_folders_of_their_own(grid: str) -> None:
    variants = GRIDS[grid]
    assert len({v.name for v in variants}) == len(variants)
    assert len({v.folder for v in variants}) == len(variants)
    for variant in variants:
        assert variant.folder == Path(variant.folder).name
        assert variant.folder.replace("-", "").isalnum()


@pytest.mark.parametrize(
    ("grid", "variant"),
    [(g, v) for g in GRIDS for v in GRIDS[g]],
    ids=lambda x: getattr(x, "name", x),
)
@torch.no_grad()
def test_every_variant_is_another_network_or_training(grid: str, variant: Variant) -> None:
    config = recipe(Path("store"))
    resolved = resolve(config, variant.changes)
    network = Maven(preset(resolved["preset"], WIDTHS, **resolved["network"])).eval()
    features = {m: torch.randn(1, 20, width) for m, width in WIDTHS.items()}
    observed = {m: torch.ones(1, 20, dtype=torch.bool) for m in MODALITIES}
    assert network(features, observed, torch.arange(20)[None] / 10).isfinite().all()
    if resolved["train"]["loss"] == "theta":
        assert network.config.head == "theta"
    same = variant is GRIDS[grid][0]
    assert (resolved == resolve(config)) == same
    others = [resolve(config, v.changes) for v in GRIDS[grid] if v is not variant]
    assert resolved not in others


def test_the_grids_hold_what_is_compared() -> None:
    kept = [set(v.changes["modalities"]) for v in GRIDS["modalities"]]
    assert kept[0] == set(MODALITIES)
    assert len(kept) == 7
    assert all(a != b for k, a in enumerate(kept) for b in kept[:k])
    assert {v.changes["preset"] for v in GRIDS["presets"]} == {
        "default", "paper", "reference-mlp", "reference-beit",
    }  # fmt: skip
    faults = [v for v in GRIDS["components"] if v.group == "published fault"]
    assert len(faults) == 4


# --- side by side ------------------------------------------------------------------------------


def stamps(folder: Path) -> dict[str, int]:
    """When each file of the runs was written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_one_fails_the_others_stay_and_again_trains_what_is_missing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GRIDS, "few", FEW)
    config, told = recipe(store), list[tuple[Trial, int, int]]()
    trials = ablate(config, "few", 2, tmp_path / "two", 2, lambda *what: told.append(what))
    assert [(t.variant.name, t.seed) for t in trials] == [(v.name, s) for v in FEW for s in (0, 1)]
    assert [(done, total) for _, done, total in told] == [(k, 6) for k in range(1, 7)]
    assert sorted(t.variant.name for t, *_ in told) == sorted(t.variant.name for t in trials)
    for trial in trials:
        if trial.variant is DIVERGING:
            assert trial.failed is not None
            assert "training stopped in epoch 1" in trial.failed
            assert trial.scores == {}
        else:
            assert trial.failed is None
            assert set(trial.scores) == {"as trained"}
            assert list(trial.smoothed) == [0.0, 0.5]
    figures = [asdict(t)["scores"]["as trained"]["ccc_mean"] for t in trials if not t.failed]
    assert len(set(figures)) == 4  # of variants and seeds of their own

    shutil.rmtree(tmp_path / "two" / "Cartesian-head" / "seed-1")
    before = stamps(tmp_path / "two")
    again = ablate(config, "few", 2, tmp_path / "two", 1)
    after = stamps(tmp_path / "two")
    finished = {path for path in before if "far-too-fast" not in path}
    assert {path: after[path] for path in finished} == {path: before[path] for path in finished}
    assert len(after) > len(before)  # one was trained again, and alone gives the same
    assert [asdict(t) for t in again] == [asdict(t) for t in trials]


def test_what_has_not_begun_is_not_trained_after_an_interruption(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = [Variant(f"v{k}", "x", {"train": {"weight_decay": k / 10}}) for k in range(8)]
    monkeypatch.setitem(GRIDS, "many", variants)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(recipe(store), "many", 1, tmp_path, 1, interrupt)
    assert len(list(tmp_path.glob("*/seed-0/result.json"))) < 5


def test_a_process_that_is_killed_is_said_in_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = [Variant(f"v{k}", "x", {"train": {"weight_decay": k / 10}}) for k in range(4)]
    monkeypatch.setitem(GRIDS, "many", variants)

    def kill(*_: Any) -> None:
        for child in active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(TrainError, match=r"killed, perhaps for want of memory; \d of 4 runs are"):
        ablate(recipe(store), "many", 1, tmp_path, 1, kill)
    assert (tmp_path / "v0" / "seed-0" / "result.json").is_file()


def test_what_is_wrong_for_all_is_said_before_anything_is_trained(
    store: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match="network: width and join_width must be multiples"):
        ablate(recipe(store, network={"width": 7}), "presets", 1, tmp_path / "out")
    with pytest.raises(StoreError, match="no feature store"):
        ablate(recipe(tmp_path), "presets", 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- one run -----------------------------------------------------------------------------------


def variant_of(store: Path, **train: Any) -> dict[str, Any]:
    return recipe(store, train={"patience": 2, **train})


def test_seeds_differ_and_epochs_do_not(store: Path, tmp_path: Path) -> None:
    settings = ablation._resolved(recipe(store, train={"patience": 1}), FEW[2], 5)
    assert settings["train"]["seed"] == 5
    assert settings["train"]["patience"] == settings["train"]["epochs"] == 2
    assert settings["network"]["head"] == "cartesian"
    assert settings["name"] == FEW[2].folder
    run_one(settings, tmp_path / "run", "components")
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written == settings


def test_a_run_of_another_configuration_is_never_taken_for_this_one(
    store: Path, tmp_path: Path
) -> None:
    """Neither a finished one nor one that was interrupted."""
    first = variant_of(store)
    assert "failed" not in run_one(first, tmp_path / "run", "components")
    before = stamps(tmp_path)
    for _ in range(2):
        found = run_one(variant_of(store, weight_decay=0.5), tmp_path / "run", "components")
        assert list(found) == ["failed"]
        assert "run holds a run of another configuration: other train" in found["failed"]
        assert stamps(tmp_path) == {path: before[path] for path in stamps(tmp_path)}
        (tmp_path / "run" / "result.json").unlink(missing_ok=True)
    assert "failed" not in run_one(first, tmp_path / "run", "components")


def test_a_run_on_other_features_is_never_taken_for_this_one(tmp_path: Path) -> None:
    write_mini_store(tmp_path / "store")
    config = variant_of(tmp_path / "store")
    assert "failed" not in run_one(config, tmp_path / "run", "components")
    manifest = tmp_path / "store" / "mini.json"
    content = json.loads(manifest.read_text())
    content["clips"].pop(0)
    manifest.write_text(json.dumps(content))
    assert "changed since it was written" in run_one(config, tmp_path / "run", "x")["failed"]
    write_mini_store(tmp_path / "store")
    assert "failed" not in run_one(config, tmp_path / "run", "components")
    whole = read_manifest(tmp_path / "store")
    write_manifest(tmp_path / "store", replace(whole, clips=whole.clips[1:]))
    assert "holds a run on other features" in run_one(config, tmp_path / "run", "x")["failed"]


def test_an_interrupted_run_is_gone_on_with(store: Path, tmp_path: Path) -> None:
    config = variant_of(store)
    whole = run_one(config, tmp_path / "whole", "components")
    run_one(config, tmp_path / "part", "components")
    (tmp_path / "part" / "result.json").unlink()  # as if it had been killed before the last line
    assert run_one(config, tmp_path / "part", "components") == whole


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TrainError("the disk\nis full"), "the disk is full"),
        (StoreError("x.npy: damaged"), "x.npy: damaged"),
        (MemoryError("400 GB"), "MemoryError: 400 GB"),
        (torch.OutOfMemoryError("CUDA\nout"), "OutOfMemoryError: CUDA out"),
    ],
)
def test_whatever_stops_one_run_is_its_own(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(ablation, "run_training", fail)
    assert run_one(variant_of(store), tmp_path / "run", "components") == {"failed": says}


# --- taken away --------------------------------------------------------------------------------


def test_the_network_of_all_modalities_is_scored_without_each(store: Path, tmp_path: Path) -> None:
    found = run_one(variant_of(store), tmp_path / "run", "modalities")
    expected = [f"{how} {m}" for m in MODALITIES for how in ("without", "without a third of")]
    assert sorted(found["scores"]) == sorted(["as trained", *expected])
    trained = load_network(tmp_path / "run" / "best", device="cpu")
    clips = load_clips(store, trained.card.config.rate_hz, ("train", "val"))
    _, val = split_clips(clips, "official")
    assert found["scores"]["as trained"] == pytest.approx(score(trained.network, val))
    for m in MODALITIES:
        rest = [other for other in MODALITIES if other != m]
        alone = score(trained.network, only(val, rest))
        assert found["scores"][f"without {m}"] == pytest.approx(alone)
    third = found["scores"]["without a third of visual"]["ccc_mean"]
    assert third != found["scores"]["as trained"]["ccc_mean"]
    assert third != found["scores"]["without visual"]["ccc_mean"]


def test_a_network_of_fewer_modalities_is_scored_as_trained_alone(
    store: Path, tmp_path: Path
) -> None:
    config = recipe(store, modalities=["visual"], train={"epochs": 1})
    found = run_one(config, tmp_path / "run", "modalities")
    assert list(found["scores"]) == ["as trained"]
