"""The engine of one machine: every task once, none taken too early, errors at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maven.batch import local, worker
from maven.batch.attendant import WorkerError
from maven.batch.local import (
    AHEAD,
    Local,
    cores_allowed,
    default_workers,
    free_bytes,
    groups,
    idlest,
)
from maven.batch.worker import Limits
from maven.confine import cores
from odd_jobs import KIND

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    work = tmp_path_factory.mktemp("work")
    with Local({"kind": KIND, "threads": 1}, work, 2, Limits(time_s=60.0)) as engine:
        yield engine
    assert list(work.iterdir()) == []


def task(number: int, what: str = "fine") -> dict[str, Any]:
    return {"id": str(number), "what": what, "path": f"{number}.mp4", "size_bytes": 1}


def test_every_task_has_one_outcome_and_few_are_taken_ahead(engine: Local) -> None:
    assert engine.about()["version"] == 1
    taken, ids = 0, Counter[str]()

    def tasks() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for number in range(40):
            assert taken - ids.total() < AHEAD * 2
            taken += 1
            yield task(number, "odd" if number % 7 == 3 else "fine")

    pids = set()
    for outcome in engine.run(tasks()):
        ids[outcome["id"]] += 1
        assert outcome["state"] == ("failed" if int(outcome["id"]) % 7 == 3 else "done")
        if outcome["file"]:
            assert Path(outcome["file"]).read_text() == f"of {outcome['id']}"
            pids.add(outcome["record"]["pid"])
    assert set(ids.values()) == {1}
    assert len(ids) == 40
    assert len(pids) == 2


def test_crashes_do_not_stop_the_rest_and_a_second_round_goes_on(engine: Local) -> None:
    whats = ["fine", "abort", "fine", "children", "leave", "fine"]
    states = {o["id"]: o["state"] for o in engine.run(map(task, range(6), whats))}
    assert states == {"0": "done", "1": "failed", "2": "done", "3": "done", "4": "failed",
                      "5": "done"}  # fmt: skip
    assert [o["state"] for o in engine.run([task(1)])] == ["done"]
    assert list(engine.run([])) == []


def test_a_worker_that_cannot_go_on_ends_the_run_after_what_is_there(tmp_path: Path) -> None:
    whats = ["fine", "fine", "fine", "full", "fine", "fine", "fine", "fine"]
    got = []
    with Local({"kind": KIND}, tmp_path, 1) as engine:
        for _ in range(2):
            outcomes = engine.run(map(task, range(8), whats))
            got += [next(outcomes)["id"] for _ in range(3)]
            with pytest.raises(WorkerError, match="No space left"):
                next(outcomes)
    assert got == ["0", "1", "2"] * 2
    assert list(tmp_path.iterdir()) == []


def test_errors_of_whoever_gives_tasks_are_theirs(tmp_path: Path) -> None:
    def tasks() -> Iterator[dict[str, Any]]:
        yield task(0, "sleep")
        raise RuntimeError("the list is gone")

    began_s = time.monotonic()
    with (
        Local({"kind": KIND}, tmp_path, 1) as engine,
        pytest.raises(RuntimeError, match="the list is gone"),
    ):
        list(engine.run(tasks()))
    assert time.monotonic() - began_s < 10.0


def test_ending_early_ends_what_runs(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with Local({"kind": KIND}, tmp_path, 2) as engine:
        outcomes = engine.run(task(k, "sleep" if k else "fine") for k in range(100))
        assert next(outcomes)["id"] == "0"
        outcomes.close()  # type: ignore[attr-defined]
        assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - began_s < 10.0


def test_workers_have_processors_of_their_own(tmp_path: Path) -> None:
    here = cores()
    with Local({"kind": KIND, "threads": 1}, tmp_path, len(here)) as engine:
        assert list(engine.run([])) == []  # all workers are there; who gets which task is chance
        asked = [attendant.do(task(0, "environment")) for attendant in engine._attendants]
    assert sorted(outcome["record"]["cores"] for outcome in asked) == [[core] for core in here]


def test_processors_are_parted() -> None:
    assert groups([0, 1, 2, 3, 4], 2) == [[0, 1], [2, 3]]
    assert groups([3, 5], 1) == [[3], [5]]
    assert groups([3, 5], 8) == [[3, 5]]
    assert sorted(idlest(cores())) == cores()


def test_the_idlest_processors_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([{0: 100, 1: 500, 2: 7}, {0: 160, 1: 510, 2: 9}])
    monkeypatch.setattr(local, "_busy", lambda: next(looks))
    assert idlest([0, 1, 2]) == [2, 1, 0]


def test_there_are_as_many_workers_as_memory_and_processors_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mini, large = {"model": "mini"}, {"model": "owner/name"}
    monkeypatch.setattr(local, "cores_allowed", lambda: None)
    for free, workers in ((None, (64, 64)), (10 * 2**30, (13, 1)), (2**20, (1, 1))):
        monkeypatch.setattr(local, "free_bytes", lambda free=free: free)
        assert (default_workers(mini, 64), default_workers(large, 64)) == workers
    assert default_workers({**mini, "device": "cuda"}, 64) == 1
    monkeypatch.setattr(local, "free_bytes", lambda: None)
    for allowed, workers in ((0.5, 1), (3.5, 3), (100.0, 64)):
        monkeypatch.setattr(local, "cores_allowed", lambda allowed=allowed: allowed)
        assert default_workers(mini, 64) == workers
        assert default_workers({**mini, "threads": 4}, 16) == max(min(workers // 4, 16), 1)


@pytest.mark.parametrize(
    ("files", "cores_n", "bytes_n"),
    [
        (
            {
                "cpu.max": "150000 100000\n",
                "memory.max": "3000000\n",
                "memory.current": "2900000\n",
                "memory.stat": "anon 5\nfile 9\ninactive_file 900000\nactive_file 7\n",
            },
            1.5,
            1_000_000,
        ),
        (
            {
                "cpu/cpu.cfs_quota_us": "400000",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "3000000",
                "memory/memory.usage_in_bytes": "2900000",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 900000\n",
            },
            4.0,
            1_000_000,
        ),
        ({"cpu.max": "max 100000", "memory.max": "max", "memory.current": "5"}, None, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, None),
    ],
)
def test_the_limits_of_a_container_are_seen(
    files: dict[str, str],
    cores_n: float | None,
    bytes_n: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(local, "CGROUPS", tmp_path)
    assert cores_allowed() == cores_n
    free = free_bytes()
    assert free is not None
    assert free == bytes_n if bytes_n else free > 2**20


def test_a_gpu_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = {"kind": "analyse", "model": "mini", "device": "auto", "runtime": "auto"}
    monkeypatch.setattr(local, "free_bytes", lambda: None)
    for gpu, torch_workers in ((True, 1), (False, 64)):
        monkeypatch.setattr(worker, "_has_gpu", lambda gpu=gpu: gpu)
        assert default_workers(auto, 64) == 64  # mini's graphs run on the processor
        assert default_workers({**auto, "runtime": "torch"}, 64) == torch_workers


def test_free_memory_is_read() -> None:
    free = free_bytes()
    assert free is not None
    assert 2**20 < free < 2**50
