"""What is refused, or given up, before any row goes to Ray; which jobs ask for a GPU."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maven.batch import connection
from maven.batch.attendant import WorkerError
from maven.batch.connection import _join, _wants_gpu, connected
from maven.batch.local import NEEDED_BYTES
from maven.checkpoint import MINI_FOLDER

AUTO = {"kind": "analyse", "device": "auto", "model": "mini", "runtime": "auto"}
NODE = {"Alive": True, "Resources": {"CPU": 4.0, "memory": 2.0**34}}


@pytest.fixture
def one_node(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Ray that is nothing but a node without a GPU."""
    ray = SimpleNamespace(nodes=lambda: [NODE], cluster_resources=lambda: NODE["Resources"])
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def test_a_gpu_is_asked_for_where_the_model_runs_on_one(tmp_path: Path) -> None:
    bare = tmp_path / "bare"  # a model without graphs
    bare.mkdir()
    shutil.copy(MINI_FOLDER / "config.json", bare)
    for changed, wanted in (
        ({}, False),
        ({"runtime": "onnx"}, False),
        ({"device": "cpu", "runtime": "torch"}, False),
        ({"runtime": "torch"}, True),
        ({"model": str(bare)}, True),
        ({"model": str(tmp_path / "nothing")}, False),
        ({"device": "cuda:0"}, True),
    ):
        assert _wants_gpu({**AUTO, **changed}, {"GPU": 1.0}) is wanted, changed
    features = {"kind": "features", "model": "mini"}
    assert _wants_gpu({**features, "device": "auto"}, {"GPU": 1.0})
    assert not _wants_gpu({**AUTO, "runtime": "torch"}, {"CPU": 64.0})
    assert _wants_gpu({**AUTO, "device": "cuda"}, {"CPU": 64.0})  # none there: refused


def test_a_worker_that_fits_nowhere_is_not_waited_for(
    one_node: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_start", lambda *_: None)
    monkeypatch.setattr(connection, "_own_environment", dict)
    opening: dict[str, Any] = {"address": None, "folders": [str(tmp_path), str(tmp_path)]}
    opening |= {"limits": {}, "workers": 1}
    place, needed = connected({**opening, "job": AUTO}, print)
    assert place.work == str(tmp_path)
    assert needed == {"num_cpus": 1.0, "num_gpus": 0.0, "memory": float(NEEDED_BYTES)}
    with pytest.raises(WorkerError) as caught:
        connected({**opening, "job": {**AUTO, "device": "cuda"}}, print)
    memory = f"{NEEDED_BYTES / 2**30:.1f} GiB"
    assert str(caught.value) == f"a worker needs 1 cores, {memory}, a GPU; this machine lacks that"


def test_who_accepts_and_says_nothing_is_given_up(
    one_node: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, heard = [], threading.Event()

    def say(**message: Any) -> None:
        said.append(message)
        heard.set()

    one_node.init = lambda *_, **__: heard.wait(20.0)
    monkeypatch.setattr(connection, "JOINED_WITHIN_S", 0.1)
    _join("127.0.0.1:6379", say)
    unfit = "127.0.0.1:6379: no Ray cluster, or it did not answer within 0.1 s"
    assert said == [{"unfit": unfit}]
    monkeypatch.setattr(connection, "JOINED_WITHIN_S", 60.0)
    one_node.init = lambda *_, **__: None
    _join("127.0.0.1:6379", say)
    assert len(said) == 1
