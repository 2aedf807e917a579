"""Whatever a file does to its worker: one clear line, the next task goes well, nothing is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maven.batch import worker
from maven.batch.attendant import Attendant, WorkerError
from maven.batch.worker import Limits
from odd_jobs import KIND
from served import processes, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")

LIMITS = Limits(memory_bytes=300 * 2**20, time_s=60.0)
PATH = "/where/a clip.mp4"


def task(what: str, **more: Any) -> dict[str, Any]:
    return {"id": what, "what": what, "path": PATH, "transcript": None, "size_bytes": 9, **more}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work").resolve()


@pytest.fixture(scope="module")
def attendant(work: Path) -> Iterator[Attendant]:
    attendant = Attendant({"kind": KIND, "threads": 1}, work, limits=LIMITS)
    yield attendant
    attendant.close()
    assert processes(work) == []
    assert list(work.iterdir()) == []


def is_fine(attendant: Attendant) -> int:
    """The next task goes well; return the worker's number."""
    outcome = attendant.do(task("fine"))
    assert outcome["state"] == "done", outcome["error"]
    assert Path(outcome["file"]).read_text() == "of fine"
    Path(outcome["file"]).unlink()
    pid: int = outcome["record"]["pid"]
    return pid


LONG = f"{PATH}: took longer than 1 s"
MEMORY = f"{PATH}: needs more memory than 0.3 GiB"


@pytest.mark.parametrize(
    ("what", "error", "again", "same_worker"),
    [
        ("allocate", MEMORY, True, False),
        ("throw", MEMORY, True, False),
        ("abort", f"{PATH}: crashed the decoder (SIGABRT)", True, False),
        ("segfault", f"{PATH}: crashed the decoder (SIGSEGV)", True, False),
        ("killed", f"{PATH}: was killed (SIGKILL), as the system does when memory is short",
         True, False),
        ("huge", f"{PATH}: its result is larger than a result may be", False, True),
        ("nonsense", f"{PATH}: spoke nonsense", True, False),
        ("another", f"{PATH}: gave the answer of another task", True, False),
        ("orphans", f"{PATH}: ended without an answer (exit code 3)", True, False),
        ("leave", f"{PATH}: ended without an answer (exit code 0)", True, False),
        ("exit", f"{PATH}: an internal error (SystemExit in odd_jobs.py:", False, True),
        ("odd", f"{PATH}: an internal error (KeyError in odd_jobs.py:", False, True),
        ("damaged", f"{PATH}: cut off: holds 3 bytes", False, True),
        ("elsewhere", f"{PATH}: x.tmp: not readable", False, True),
        ("unreadable", f"{PATH}: Input/output error", True, True),
        ("link", f"{PATH}: its worker left no result", True, True),
        ("outside", f"{PATH}: its worker left no result", True, True),
    ],
)  # fmt: skip
def test_a_task_that_goes_wrong_is_one_line_and_the_next_goes_well(
    attendant: Attendant, work: Path, what: str, error: str, again: bool, same_worker: bool
) -> None:
    before = is_fine(attendant)
    began_s = time.monotonic()
    outcome = attendant.do(task(what))
    took_s = time.monotonic() - began_s
    assert (outcome["id"], outcome["state"], outcome["file"]) == (what, "failed", None)
    assert outcome["error"].startswith(error)
    assert len(outcome["error"].splitlines()) == 1
    assert outcome["again"] is again
    assert 0.0 < outcome["seconds"] <= took_s < 60.0
    wait_until(lambda: processes(work) == ([before] if same_worker else []))
    assert (is_fine(attendant) == before) is same_worker


@pytest.mark.parametrize(
    ("what", "same_worker"),
    [("garbage", True), ("deaf", True), ("children", False), ("keep", False)],
)
def test_a_task_that_goes_well_in_an_odd_way(
    attendant: Attendant, work: Path, what: str, same_worker: bool
) -> None:
    before = is_fine(attendant)
    outcome = attendant.do(task(what))
    assert outcome["state"] == "done", outcome["error"]
    assert Path(outcome["file"]).read_text() == f"of {what}"
    wait_until(lambda: processes(work) == ([before] if same_worker else []))
    assert (is_fine(attendant) == before) is same_worker


def test_what_hangs_is_ended_and_the_next_goes_well(tmp_path: Path) -> None:
    attendant = Attendant({"kind": KIND}, tmp_path, limits=Limits(time_s=1.0))
    for what in ("loop", "hold", "sleep", "lively"):
        before = is_fine(attendant)
        outcome = attendant.do(task(what))
        assert (outcome["state"], outcome["again"], outcome["error"]) == ("failed", True, LONG)
        assert 1.0 <= outcome["seconds"] < 60.0
        wait_until(lambda: processes(tmp_path) == [])
        assert is_fine(attendant) != before
    attendant.close()


def test_a_worker_that_a_kill_does_not_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it waits for a disk that is gone, until that is back."""
    attendant = Attendant({"kind": KIND}, tmp_path)
    before = is_fine(attendant)
    stuck = attendant._process
    assert stuck is not None

    def wait(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        assert timeout is not None
        raise subprocess.TimeoutExpired("worker", timeout)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "wait", wait)
        outcome = attendant.do(task("leave"))
    assert outcome["error"].startswith(f"{PATH}: was killed (SIGKILL)")
    assert outcome["again"] is True
    assert stuck.stdin is not None
    assert stuck.stdin.closed
    assert is_fine(attendant) != before
    attendant.close()
    stuck.wait()


def test_the_peak_of_memory_is_that_of_the_task(attendant: Attendant) -> None:
    kept = attendant.do(task("keep"))["peak_bytes"]
    assert 200 * 2**20 < kept < 300 * 2**20
    assert attendant.do(task("fine"))["peak_bytes"] < 100 * 2**20


def test_silence_ends_a_worker_before_its_time(tmp_path: Path) -> None:
    limits = Limits(time_s=60.0, stall_s=0.5)
    attendant = Attendant({"kind": KIND}, tmp_path, limits=limits)
    error = attendant.do(task("sleep"))["error"]
    assert error == f"{PATH}: made no progress for 1 s"
    attendant.close()


def test_a_length_that_the_size_denies_gives_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maven.batch.worker.LEAST_S", 0.5)
    monkeypatch.setattr("maven.batch.worker.S_PER_S", 10.0)
    attendant = Attendant({"kind": KIND}, tmp_path)
    assert attendant.do(task("slow"))["error"] == f"{PATH}: took longer than 1 s"
    assert attendant.do(task("slow", size_bytes=10**6))["state"] == "done"
    attendant.close()


def test_a_worker_knows_and_may_use_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    core = max(os.sched_getaffinity(0))
    attendant = Attendant({"kind": KIND, "threads": 3}, tmp_path, cores=[core])
    record = attendant.do(task("environment"))["record"]
    assert record["cores"] == [core]
    assert "AWS_SECRET_ACCESS_KEY" not in record["names"]
    assert "OMP_NUM_THREADS" in record["names"]
    assert Path(record["folder"]).is_relative_to(tmp_path.resolve())
    attendant.close()


def test_what_lies_elsewhere_is_fetched_and_named_as_it_was_given(
    attendant: Attendant, work: Path
) -> None:
    import fsspec

    url = "memory://attended/a clip.mp4"
    with fsspec.open(url, "w") as file:
        file.write("words")
    outcome = attendant.do(task("fetched", path=url, size_bytes=None))
    assert outcome["error"] == f"{url}: holds words"
    assert not any(path.suffix == ".mp4" for path in work.rglob("*"))
    gone = attendant.do(task("fetched", path="memory://attended/none.mp4"))
    assert gone["error"].startswith("memory://attended/none.mp4: ")
    assert gone["again"] is False


def test_a_full_disk_ends_the_batch(tmp_path: Path) -> None:
    attendant = Attendant({"kind": KIND}, tmp_path)
    with pytest.raises(WorkerError, match=r"^workers cannot write their files: No space left"):
        attendant.do(task("full"))
    attendant.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_is_full_when_a_file_is_fetched_ends_it_too(
    code: int, attendant: Attendant, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def full(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    MemoryFileSystem().pipe("/attended/any.mp4", b"any")
    monkeypatch.setattr(MemoryFileSystem, "get_file", full)
    with pytest.raises(WorkerError, match=os.strerror(code)):
        attendant.do(task("fetched", path="memory://attended/any.mp4"))


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ({"refuse": True}, "no such model"),
        ({"crash": True}, "a worker cannot be started: it crashed .*SIGABRT.* .it cannot be.$"),
        ({"kind": "odd_jobs:nothing"}, "a worker cannot start: AttributeError"),
    ],
)
def test_a_worker_that_cannot_be_started_says_why(
    tmp_path: Path, job: dict[str, Any], error: str
) -> None:
    attendant = Attendant({"kind": KIND, **job}, tmp_path)
    for _ in range(2):
        with pytest.raises(WorkerError, match=error) as raised:
            attendant.do(task("fine"))
        assert len(str(raised.value).splitlines()) == 1
    wait_until(lambda: processes(tmp_path) == [])
    attendant.close()


def test_memory_for_the_model_is_refused_in_one_line(tmp_path: Path) -> None:
    job = {"kind": "analyse", "model": "mini", "asr": "none", "device": "cpu", "runtime": "onnx",
           "threads": 1, "offline": True}  # fmt: skip
    attendant = Attendant(job, tmp_path, limits=Limits(memory_bytes=40 * 2**20))
    with pytest.raises(WorkerError, match=r"memory|cannot be started"):
        attendant.about()
    attendant.close()


def test_the_worker_says_how_much_memory_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who attends it need not look for a GPU, which loads torch."""
    job = {"kind": KIND, "device": "auto", "runtime": "torch", "threads": 1}
    attendant = Attendant(job, tmp_path)
    attendant.about()
    monkeypatch.setattr(worker, "_has_gpu", lambda: pytest.fail("looked for a GPU"))
    error = attendant.do(task("throw"))["error"]
    attendant.close()
    assert error.startswith(f"{PATH}: needs more memory than ")


def test_a_model_that_changes_meanwhile_is_never_mixed_in(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_text("first")
    attendant = Attendant({"kind": KIND, "about": str(model)}, tmp_path)
    assert attendant.about() == {"model": {"weights": "first"}, "version": 1}
    model.write_text("second")
    assert attendant.do(task("abort"))["state"] == "failed"
    changed = "the model changed since the batch began: model.weights is 'second' and was 'first'"
    with pytest.raises(WorkerError, match=f"^{changed}$"):
        attendant.do(task("fine"))
    attendant.close()


PARENT = """
import sys
from pathlib import Path
from threading import Thread
from maven.batch.attendant import Attendant
for what in sys.argv[2:]:
    attendant = Attendant({"kind": "odd_jobs:prepare"}, Path(sys.argv[1]))
    task = {"id": what, "what": what, "path": what}
    Thread(target=attendant.do, args=(task,)).start()
"""


def test_workers_end_with_their_parent_whatever_they_do(tmp_path: Path) -> None:
    whats = ("hold", "sleep", "lively")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), *whats])
    wait_until(lambda: len(list(tmp_path.glob("*/task/begun"))) == len(whats))
    assert len(processes(tmp_path)) == len(whats)
    parent.kill()
    parent.wait()
    wait_until(lambda: processes(tmp_path) == [])
