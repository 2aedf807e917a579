"""Processes that open what others sent: limits, what they know, their end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maven.confine import clean_environment, ended, kill, memory_bytes, start
from served import has_ended, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")


@contextmanager
def running(code: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a few lines, in a session of its own."""
    process = start(["-c", code], folder, clean_environment())
    try:
        yield process
    finally:
        kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def said(code: str, folder: Path, asked: bytes = b"") -> list[str]:
    with running(code, folder) as process:
        out, _ = process.communicate(asked, timeout=60)
        return out.decode().split("\n")[:-1]


def test_the_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONSTARTUP"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("MAVEN_MODELS", "/models")
    environment = clean_environment(3, tmp_path)
    assert "secret" not in environment.values()
    assert environment["MAVEN_MODELS"] == "/models"
    assert environment["TMPDIR"] == str(tmp_path)
    assert {environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} == {"3"}
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "OMP_NUM_THREADS" not in clean_environment()


def test_the_embedded_model_needs_less_memory() -> None:
    assert memory_bytes("mini") == 3 * 2**30
    assert memory_bytes("some/other") == 16 * 2**30


def test_limits_of_a_process_hold_and_never_rise(tmp_path: Path) -> None:
    code = """
import resource
from maven.confine import limit
limit(2**30, file_bytes=1000, cpu_s=50)
try: bytearray(2**31)
except MemoryError: print("memory")
try:
    with open("large", "wb") as file: file.write(bytes(2000))
except OSError as error: print(error.strerror)
limit(2**30, file_bytes=500)
try: limit(2**31)
except ValueError: print("raised")
for kind in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU,
             resource.RLIMIT_CORE):
    print(*resource.getrlimit(kind))
"""
    assert said(code, tmp_path) == [
        "memory", "File too large",
        f"{2**30} {2**30}", "500 500", "50 50", "0 0",
    ]  # fmt: skip


def test_limits_of_a_task_move_on(tmp_path: Path) -> None:
    code = """
import resource, time
from maven.confine import limit_next
before = resource.getrlimit(resource.RLIMIT_CPU)
limit_next(10, 1000)
first = resource.getrlimit(resource.RLIMIT_CPU)
while time.process_time() < 1.2: pass
limit_next(10, 3000)
next = resource.getrlimit(resource.RLIMIT_CPU)
print(next[0] - first[0] in (1, 2), before[1] == next[1], resource.getrlimit(1)[0],
      flush=True)
limit_next(0, 3000)
while True: pass
"""
    with running(code, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True True 3000\n"
        assert process.wait(timeout=60) == -24  # SIGXCPU


def test_what_libraries_print_and_read_goes_elsewhere(tmp_path: Path) -> None:
    code = """
import os, sys
from maven.confine import hearer, speaker
say, asked = speaker(), hearer()
print("noise")
os.write(1, b"noise")
os.system("echo noise; cat")
say(read=sys.stdin.readline(), asked=asked.readline().decode(), name="\\udcff")
"""
    assert said(code, tmp_path, b"question\n") == [
        '{"read": "", "asked": "question\\n", "name": "\\udcff"}'
    ]


HUNG = """
import os, re, subprocess
from maven.confine import end_with_parent
end_with_parent()
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
re.match("(a+)+$", "a" * 64 + "b")  # never lets another thread run
"""


def test_a_process_ends_with_its_children_when_nobody_holds_its_input(tmp_path: Path) -> None:
    with running(HUNG, tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.stdin.close()  # as the kernel does when the parent is killed
        assert process.wait(timeout=60) == -9
        wait_until(lambda: has_ended(child))


def test_an_input_that_was_closed_before_ends_it_too(tmp_path: Path) -> None:
    code = f"import sys; sys.stdin.buffer.read(1)\n{HUNG}"
    with running(code, tmp_path) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == -9


def test_a_thread_watches_where_the_kernel_cannot(tmp_path: Path) -> None:
    code = """
import sys, time
sys.platform = "other"
from maven.confine import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(600)
"""
    with running(code, tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(timeout=60) == -9


def test_a_kill_reaches_the_group_and_no_other(tmp_path: Path) -> None:
    code = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True)"
    )
    with running(f"{code}; time.sleep(600)", tmp_path) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert not ended(process)
        kill(process)
        wait_until(lambda: ended(process))
        assert process.returncode is None  # nobody has waited: its number is still its own
        process.wait()
        assert ended(process)
        wait_until(lambda: has_ended(child))
        kill(process)  # its number may be another's: nothing happens
    assert not has_ended(os.getpid())


def test_a_process_is_pinned(tmp_path: Path) -> None:
    code = "import os; from maven.confine import pin; pin([{}]); print(os.sched_getaffinity(0))"
    core = min(os.sched_getaffinity(0))
    assert said(code.format(core), tmp_path) == [f"{{{core}}}"]
    assert said(code.format(10**4), tmp_path) == [str(os.sched_getaffinity(0))]
