"""A run that is killed anywhere and resumed ends as one that was not: real SIGKILLs, same bits."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import maven
from maven.runs import COLUMNS, PART, Run
from planted import write_store
from planted_run import ENDING, EPOCHS, SAVING

TESTS = Path(__file__).parent
CLOCKED = ("seconds", "frames_per_s")


def in_a_process(*arguments: str, module: tuple[str, ...] = ()) -> str:
    """Run planted_run.py with one thread."""
    package = str(Path(maven.__file__).parent.parent)
    path = os.pathsep.join([str(TESTS), package])
    done = subprocess.run(
        [sys.executable, *module, str(TESTS / "planted_run.py"), *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def content(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Tensors as bytes, and the counters without what the clock says."""
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
        progress = json.loads(file.metadata()["progress"])
    for row in progress["history"]:
        for name in CLOCKED:
            row.pop(name)
    return tensors, progress


def log(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(tuple(row) == COLUMNS for row in rows)
    return [{k: v for k, v in row.items() if k not in CLOCKED} for row in rows]


@pytest.mark.parametrize("seed", [int(os.environ.get("MAVEN_KILL_SEED", "0"))])
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path: Path, seed: int) -> None:
    write_store(tmp_path / "store", train=5, val=3)
    told = in_a_process("kill", str(tmp_path / "store"), str(tmp_path), str(seed))
    kills = [line.rsplit(" ", 2) for line in told.splitlines()]
    assert len(kills) == len(SAVING) + len(ENDING) + 4
    for moment, killed, _ in kills:
        assert killed == "True" or moment.startswith("0."), moment  # one at random may come late
    assert len({epoch for *_, epoch in kills}) >= 6
    whole, resumed = tmp_path / "undisturbed", tmp_path / "killed"
    (first, counters), (again, other) = (content(r / "last.safetensors") for r in (whole, resumed))
    assert len(first) > 300
    assert counters["epoch"] == EPOCHS
    assert counters == other
    assert first == again
    assert log(whole) == log(resumed)
    assert len(log(whole)) == EPOCHS
    for name in ("model.safetensors", "config.json"):
        assert (whole / "best" / name).read_bytes() == (resumed / "best" / name).read_bytes()
    names = {path.name for path in whole.iterdir()}
    assert names == {path.name for path in resumed.iterdir()} == {
        "config.yaml", "environment.json", "last.safetensors", "log.csv", "tensorboard", "best",
        "curves.png",
    }  # fmt: skip
    assert not [path for path in resumed.rglob("*") if PART.fullmatch(path.name)]
    assert Run(resumed).progress().epoch == EPOCHS
