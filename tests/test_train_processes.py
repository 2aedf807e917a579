"""Processes under a real torchrun learn what one process learns, on one machine or on two."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import maven
from maven.runs import Progress, Run
from planted import write_store
from test_train_resume import TESTS, content, in_a_process, log

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


# --- several machines --------------------------------------------------------------------------


def on_two_machines(*places: Path) -> None:
    """Train with one process on each; a place holds a machine's `store` and gets its `run`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    package = str(Path(maven.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), package])}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    agents = []
    for number, place in enumerate(places):
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1"),
            *("--nnodes=2", f"--node-rank={number}", "--rdzv-backend=static", "--rdzv-id=toy"),
            f"--rdzv-endpoint=127.0.0.1:{port}",
            *(str(TESTS / "planted_run.py"), "train"),
            *(str(place / "store"), str(place / "run"), *SETTINGS),
        ]
        agents.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [agent.communicate(timeout=280)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    for agent, text in zip(agents, said, strict=True):
        assert agent.returncode == 0, text[-3000:]


def test_two_machines_end_with_the_bits_of_one(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """They share nothing but a network: each has a copy of the store, without its grids."""
    two = runs[1]
    for name in ("first", "second"):
        shutil.copytree(two.parent / "store", tmp_path / name / "store")
        shutil.rmtree(tmp_path / name / "store" / "arrays" / "grid")
    on_two_machines(tmp_path / "first", tmp_path / "second")
    run = tmp_path / "first" / "run"
    assert content(run / "last.safetensors") == content(two / "last.safetensors")
    assert log(run) == log(two)
    for name in ("model.safetensors", "config.json"):
        assert (run / "best" / name).read_bytes() == (two / "best" / name).read_bytes()
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    assert not (tmp_path / "second" / "run").exists()  # the first one keeps the run
