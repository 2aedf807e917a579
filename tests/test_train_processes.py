"""Two processes under a real torchrun learn what one process learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from maven.runs import Progress, Run
from planted import write_store
from test_train_resume import in_a_process

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SETTINGS = ("train.epochs=3", "train.batch=5", "train.smoothing_s=[0, 0.8]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same training by one process and by two: odd batches, a last one of one window."""
    folder = tmp_path_factory.mktemp("processes")
    write_store(folder / "store", train=4, val=3)
    in_a_process("train", str(folder / "store"), str(folder / "one"), *SETTINGS)
    in_a_process("train", str(folder / "store"), str(folder / "two"), *SETTINGS, module=TWO)
    return folder / "one", folder / "two"


def progress(run: Path) -> Progress:
    return Run(run).progress()


def test_the_last_batch_leaves_one_process_without_a_window(runs: tuple[Path, Path]) -> None:
    from maven.datasets.clips import Windows, load_clips

    clips = load_clips(runs[0].parent / "store", 5.0, "train")
    windows = Windows(clips, 4.0, 5, 3)
    assert len(windows.batch(1, windows.steps_per_epoch - 1).seeds) == 1


def test_scores_and_weights_are_those_of_one_process(runs: tuple[Path, Path]) -> None:
    one, two = (progress(run) for run in runs)
    assert len(one.history) == len(two.history) == 3
    assert one.best_epoch == two.best_epoch
    for single, shared in zip(one.history, two.history, strict=True):
        for name in ("ccc_valence", "ccc_arousal", "ccc_mean"):
            assert shared[name] == pytest.approx(single[name], abs=1e-5)
        for name in ("loss", "grad_norm", "lr"):
            assert shared[name] == pytest.approx(single[name], rel=1e-4)
        assert shared["step"] == single["step"]
    first, other = (load_file(run / "last.safetensors") for run in runs)
    assert first.keys() == other.keys()
    for name, tensor in first.items():
        assert (tensor.double() - other[name].double()).abs().max() < 1e-5, name


def test_one_process_writes(runs: tuple[Path, Path]) -> None:
    contents: list[Any] = []
    for run, processes in zip(runs, (1, 2), strict=True):
        said = json.loads((run / "environment.json").read_text())
        assert said.pop("processes") == processes
        contents.append((said, sorted(path.name for path in run.iterdir())))
        assert len(list((run / "tensorboard").iterdir())) == 1
        assert len((run / "log.csv").read_text().splitlines()) == 4
    assert contents[0] == contents[1]
    cards = [json.loads((run / "best" / "config.json").read_text()) for run in runs]
    assert cards[0]["smoothing_s"] == cards[1]["smoothing_s"]
