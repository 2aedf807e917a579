"""The worker: what it may use, what it says, one line of any error."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maven.batch import worker
from maven.batch.worker import Limits, named, needs_memory, out_of_memory
from maven.confine import clean_environment

MINI = {"kind": "analyse", "model": "mini"}
LARGE = {"kind": "analyse", "model": "owner/name"}


def test_time_goes_by_length_and_no_length_beyond_what_the_size_can_hold() -> None:
    limits = Limits()
    assert limits.longest_s(MINI, 10.0, 10**6) == pytest.approx(460.15)
    assert limits.longest_s(LARGE, 10.0, 10**6) == pytest.approx(660.15)
    assert limits.longest_s(MINI, 1e12, 20_000) == pytest.approx(860.0, abs=0.01)
    assert limits.longest_s(MINI, None, 20_000) == pytest.approx(860.0, abs=0.01)
    assert limits.longest_s(MINI, 0.01, 20_000) == pytest.approx(60.4, abs=0.01)
    for odd in (math.inf, math.nan):
        assert limits.longest_s(MINI, odd, 20_000) == pytest.approx(860.0, abs=0.01)
    assert limits.longest_s(MINI, -5.0, 20_000) == pytest.approx(60.0, abs=0.01)
    assert limits.longest_s(MINI, 10.0, 20 * 10**9) == pytest.approx(
        60 + 400 + 3000
    )  # read three times
    assert math.isfinite(limits.longest_s(MINI, None, None))
    assert Limits(time_s=7.0).longest_s(MINI, 1e6, 10**12) == 7.0


def test_silence_is_allowed_for_what_is_large() -> None:
    assert Limits().silent_s(0.0, 1000) == pytest.approx(120.0, abs=0.1)
    assert Limits().silent_s(3600.0, 10**10) == pytest.approx(120.0 + 360.0 + 500.0)
    assert Limits(stall_s=5.0).silent_s(1.0, 1000) < 6.0


def test_memory_goes_by_the_model() -> None:
    assert Limits().memory(MINI) == Limits().memory({"kind": "x"}) == 3 * 2**30
    assert Limits().memory(LARGE) == Limits().memory({**MINI, "device": "cuda:1"}) == 16 * 2**30
    assert Limits(memory_bytes=5).memory(LARGE) == 5
    assert needs_memory(3 * 2**30) == "needs more memory than 3.0 GiB"


def test_memory_goes_by_the_device_that_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = {**MINI, "device": "auto", "runtime": "auto"}  # on the processor, whatever there is
    for gpu, memory_bytes in ((True, 16 * 2**30), (False, 3 * 2**30)):
        monkeypatch.setattr(worker, "_has_gpu", lambda gpu=gpu: gpu)
        assert Limits().memory({**graphs, "runtime": "torch"}) == memory_bytes
        assert Limits().memory(graphs) == 3 * 2**30


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("/a/b.mp4", "/a/b.mp4: cut off", "/a/b.mp4: cut off"),
        ("/a/b.mp4", "cut off", "/a/b.mp4: cut off"),
        ("/a/b.mp4", "/a/b.srt, line 3: none", "/a/b.srt, line 3: none"),
        ("/a/b.mp4", "two\r\n  lines\n", "/a/b.mp4: two lines"),
        ("/a/\udcff.mp4", "/a/\udcff.mp4: odd", "/a/\\xff.mp4: odd"),
        ("/a/\x1b[2J.mp4", "odd\0", "/a/\\x1b[2J.mp4: odd\\x00"),
        ("/a/ö 日本.mp4", "odd", "/a/ö 日本.mp4: odd"),
        (None, "odd", "the id: odd"),
        ("https://h/a.mp4?sig=K", "https://h/a.mp4?sig=K: cut off", "https://h/a.mp4: cut off"),
        ("https://h/a.mp4?v=1&token=K", "odd", "https://h/a.mp4?v=1: odd"),
    ],
)
def test_an_error_is_one_line_that_names_the_file(path: str | None, text: str, line: str) -> None:
    task: dict[str, Any] = {"id": "the id", "transcript": "/a/b.srt"}
    task |= {"path": path} if path else {}
    assert named(task, text) == line
    assert line.isprintable()
    assert len(named(task, "x" * 10**6)) <= 2000


@pytest.mark.parametrize(
    "text",
    [
        "MemoryError ", "reading it failed (Cannot allocate memory)", "std::bad_alloc",
        "RuntimeError can't start new thread", "Fail [ONNXRuntimeError] bad allocation",
        "RuntimeError DefaultCPUAllocator: not enough memory: you tried to allocate",
    ],
)  # fmt: skip
def test_the_signs_of_too_little_memory_are_known(text: str) -> None:
    assert out_of_memory(text)


def test_other_errors_are_no_sign_of_it() -> None:
    assert not out_of_memory("MediaError clip.mp4: cut off: holds 3 of the 9 bytes it declares")


def talk(folder: Path, *asked: dict[str, Any], **job: Any) -> tuple[int, list[dict[str, Any]]]:
    """What a worker says and exits with, when it is asked by hand."""
    (folder / "task").mkdir(exist_ok=True)
    lines = "".join(json.dumps(message) + "\n" for message in ({"limits": {}, **job}, *asked))
    environment = clean_environment(1, folder)
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    run = subprocess.run(
        [sys.executable, "-m", "maven.batch.worker"], cwd=folder, env=environment, input=lines,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()]


def test_a_worker_says_what_it_is_then_answers_and_ends_with_its_questions(tmp_path: Path) -> None:
    fine = {"id": "a", "what": "fine"}
    code, said = talk(tmp_path, fine, {"id": "b", "what": "odd"}, kind="odd_jobs:prepare")
    assert code == 0
    about = {"model": {"weights": "odd"}, "version": 1}
    assert said[0] == {"ready": about, "memory_bytes": 3 * 2**30}
    done, failed = (message["outcome"] for message in said[1:])
    assert (done["id"], done["state"], done["file"]) == ("a", "done", "answer.txt")
    assert (tmp_path / "task" / done["file"]).read_text() == "of a"
    assert (failed["id"], failed["state"], failed["again"]) == ("b", "failed", False)
    assert [message["leaving"] for message in said[1:]] == [False, False]


@pytest.mark.parametrize(
    ("job", "line"),
    [
        ({"model": "nowhere"}, "no model named nowhere: give mini, a model folder or a hub id"),
        ({"asr": "odd"}, "speech recognition: got 'odd'; accepted: "),
        ({"kind": "json"}, "a worker cannot start: AttributeError"),
    ],
)
def test_a_job_that_cannot_be_done_is_one_line(
    tmp_path: Path, job: dict[str, Any], line: str
) -> None:
    whole = {"kind": "analyse", "model": "mini", "asr": "none", "device": "auto",
             "runtime": "auto", "threads": 1, "offline": True, **job}  # fmt: skip
    code, said = talk(tmp_path, **whole)
    assert code == 1
    assert len(said) == 1
    assert said[0]["unfit"].startswith(line)
    assert len(said[0]["unfit"].splitlines()) == 1
