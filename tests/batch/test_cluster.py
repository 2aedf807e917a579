"""The engine ray: on its own, on a cluster of two nodes of which one dies; equal to local."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import GRID_CLIPS
from maven.batch.attendant import WorkerError
from maven.batch.cluster import SOON_BYTES, Cluster
from maven.batch.local import Local
from plain_job import CRASH, KIND
from served import has_ended, wait_until
from two_nodes import TwoNodes, family, two_nodes

pytest.importorskip("ray")
pytest.importorskip("pyarrow")

PLAIN = {"kind": KIND, "threads": 1}
ANALYSE = {
    "kind": "analyse", "model": "mini", "asr": "none", "faces": "main", "rate_hz": None,
    "device": "cpu", "runtime": "auto", "threads": 1, "offline": True,
}  # fmt: skip


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which Ray may have sockets, whose names are limited."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with tempfile.TemporaryDirectory(prefix="r") as folder, two_nodes(Path(folder)) as cluster:
        yield cluster


def tasks(*ids: str, **more: Any) -> list[dict[str, Any]]:
    return [{"id": name, "path": __file__, **more} for name in ids]


def listening(pids: list[int]) -> list[str]:
    """Addresses (hexadecimal, as the kernel writes them) on which processes listen (Linux)."""
    sockets = set()
    for pid in pids:
        with suppress(FileNotFoundError):  # it has ended
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                target = entry.readlink().as_posix() if entry.is_symlink() else ""
                sockets.add(target.removeprefix("socket:[").removesuffix("]"))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.append(fields[1].partition(":")[0])
    return found


def test_on_one_machine(tmp_path: Path) -> None:
    with Cluster(PLAIN, tmp_path, workers=2) as engine:
        assert engine.about() == {"plain": 1}
        given = 0

        def coming() -> Iterator[dict[str, Any]]:
            nonlocal given
            for name in (*map(str, range(20)), CRASH):
                given += 1
                yield from tasks(name, sleep_s=0.2, size_bytes=1)

        outcomes = {}
        for outcome in engine.run(coming()):
            assert given <= len(outcomes) + 5  # two workers, one more each, and one
            assert outcome["id"] not in outcomes
            outcomes[outcome["id"]] = outcome
        crashed = outcomes.pop(CRASH)
        assert crashed["error"] == f"{__file__}: crashed the decoder (SIGSEGV)"
        assert (crashed["state"], crashed["again"]) == ("failed", True)
        assert crashed["content"] is crashed["file"] is None
        assert len(outcomes) == 20
        for name, outcome in outcomes.items():
            assert outcome["content"] == name.encode() * 1000
            assert outcome["file"] is None
        own = {o["record"]["worker"]: o["record"]["cores"] for o in outcomes.values()}
        pinned = [cores[0] for cores in own.values() if len(cores) == 1]  # others may be taken
        assert len(set(pinned)) == len(pinned)

        assert engine._process is not None
        driver = Path(f"/proc/{engine._process.pid}/cwd").readlink()
        assert driver.parent == tmp_path  # where nobody else's modules lie
        started = family(engine._process.pid)
        assert len(started) > 5
        addresses = listening(started)
        assert addresses
        loopback = ("0100007F", "0000000000000000FFFF00000100007F")
        assert all(address in loopback for address in addresses)

        again = list(engine.run(tasks("more")))
        assert [outcome["state"] for outcome in again] == ["done"]
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: all(map(has_ended, started)))


def test_what_is_killed_at_the_end_is_what_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once somebody has waited for a process, its number may be another's."""
    engine = Cluster(PLAIN, tmp_path)
    engine._process = process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    killed = []

    def killpg(pid: int, _: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has waited
        killed.append(pid)

    monkeypatch.setattr(os, "killpg", killpg)
    engine.close()
    assert killed == [process.pid]
    assert process.returncode == 0


def test_a_kill_leaves_neither_process_nor_file_nor_a_word_on_the_terminal(
    tmp_path: Path, short_path: Path
) -> None:
    program = (
        "import itertools, sys\n"
        "from pathlib import Path\n"
        "from maven.batch.cluster import SOON_BYTES, Cluster\n"
        f"with Cluster({PLAIN!r}, Path({str(tmp_path)!r}), workers=1) as engine:\n"
        "    names = map(str, itertools.count())\n"
        f"    tasks = ({{'id': name, 'path': {__file__!r}, 'sleep_s': 0.2}} for name in names)\n"
        "    for outcome in engine.run(tasks):\n"
        "        print(outcome['record']['worker'], flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"TMPDIR": str(short_path), "RAY_TMPDIR": str(short_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    started = [*family(process.pid)[1:], worker]
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    assert set(rest) <= {str(worker).encode()}
    wait_until(lambda: all(map(has_ended, started)))
    assert list(tmp_path.iterdir()) == list(short_path.iterdir()) == []


def test_what_is_wrong_is_one_line(nodes: TwoNodes, tmp_path: Path) -> None:
    with Cluster({**PLAIN, "model": "none"}, tmp_path, address=nodes.address) as engine:
        with pytest.raises(WorkerError) as caught:
            list(engine.run(tasks("a")))
        assert str(caught.value) == "none: no such model; accepted: mini"
    assert list(tmp_path.iterdir()) == []
    for address, problem in (
        ("127.0.0.1:1", "127.0.0.1:1: no Ray cluster answers there"),
        ("somewhere", "somewhere: no address of a Ray cluster; accepted:"),
    ):
        with Cluster(PLAIN, tmp_path, address=address) as engine:
            with pytest.raises(WorkerError, match="^" + problem) as caught:
                engine.about()
            assert "\n" not in str(caught.value)


def test_clips_are_analysed_as_by_the_engine_local(
    nodes: TwoNodes, clips_dir: Path, tmp_path: Path
) -> None:
    names = [(clip, 0.8) for clip in GRID_CLIPS] + [(GRID_CLIPS[0], 1.2)]
    given = [
        {
            "id": f"{clip}-{end_s}", "path": str(clips_dir / f"grid_s1_{clip}.mpg"),
            "transcript": None, "start_s": None, "end_s": end_s, "size_bytes": None, "known": None,
        }
        for clip, end_s in names
    ]  # fmt: skip
    with Local(ANALYSE, tmp_path, workers=1) as local:
        about = local.about()
        expected = {}
        for outcome in local.run(given):
            assert outcome["state"] == "done", outcome["error"]
            record, content = outcome["record"], Path(outcome["file"]).read_bytes()
            expected[outcome["id"]] = (record, content)
    with Cluster(ANALYSE, tmp_path, address=nodes.address) as engine:
        assert engine.about() == about
        got = {o["id"]: (o["record"], o["content"]) for o in engine.run(given)}
    assert got == expected
    assert len(got) == len(given)


def test_a_node_that_dies_has_its_rows_done_elsewhere(nodes: TwoNodes, tmp_path: Path) -> None:
    ids = [str(number) for number in range(16)]
    given = 0

    def coming() -> Iterator[dict[str, Any]]:
        nonlocal given
        for task in tasks(*ids, sleep_s=0.4, size_bytes=SOON_BYTES):
            given += 1
            yield task

    with Cluster(PLAIN, tmp_path, address=nodes.address) as engine:
        seen, killed, workers = [], list[int](), set()
        for outcome in engine.run(coming()):
            assert given <= len(seen) + 2  # of large files none waits at a node that has one
            assert outcome["state"] == "done"
            assert outcome["content"] == outcome["id"].encode() * 1000
            seen.append(outcome["id"])
            workers.add(outcome["record"]["worker"])
            if len(workers) == 2 and not killed:  # both nodes are at work
                killed = nodes.kill_one()
    assert killed
    assert sorted(seen) == sorted(ids)
    wait_until(lambda: all(map(has_ended, killed)))
    assert list(tmp_path.iterdir()) == []
