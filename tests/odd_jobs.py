"""A job for workers whose tasks do everything that a damaged or hostile file might do to them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from maven.container import MediaError

KIND = "odd_jobs:prepare"
NAME = "answer.txt"


class Odd:
    """Does what a task's `what` says, a method of this class."""

    def __init__(self, job: dict[str, Any]) -> None:
        about = Path(job["about"]).read_text() if "about" in job else "odd"
        self.about = {"model": {"weights": about}, "version": 1}

    def do(self, task: dict[str, Any], folder: Path, say: Any) -> dict[str, Any]:
        (folder / "begun").touch()
        given = getattr(self, task["what"])(task, folder, say)
        return given or self.fine(task, folder, say)

    def fine(self, task: dict[str, Any], folder: Path, say: Any) -> dict[str, Any]:
        (folder / NAME).write_text(f"of {task['id']}")
        return {"state": "done", "file": NAME, "record": {"pid": os.getpid()}}

    def environment(self, task: dict[str, Any], folder: Path, say: Any) -> dict[str, Any]:
        cores = sorted(os.sched_getaffinity(0))
        found = {"cores": cores, "names": sorted(os.environ), "folder": os.environ["TMPDIR"]}
        return {"state": "done", "record": found}

    def loop(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        while True:
            pass

    def hold(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        """Hang in code of C that never lets another thread of Python run."""
        re.match(r"(a+)+$", "a" * 64 + "b")

    def sleep(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        time.sleep(600)

    def lively(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        while True:
            say(stage="faces", done_s=1.0)
            time.sleep(0.05)

    def slow(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        """Say that it is long, and then take a moment."""
        say(length_s=1e9)
        time.sleep(0.8)

    def allocate(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        held = []
        while True:
            held.append(b"x" * 2**24)

    def throw(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        """End as a library of C++ does that gets no memory."""
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
        os.abort()

    def keep(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        """Never give back what was needed."""
        self.held = b"x" * (200 * 2**20)

    def abort(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        os.abort()

    def segfault(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        ctypes.string_at(0)

    def killed(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def huge(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        with (folder / "huge").open("wb") as file:
            file.truncate(2**40)

    def full(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        raise OSError(28, "No space left on device", str(folder))

    def garbage(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        print('{"outcome": {"id": "x"}}', flush=True)
        os.write(1, os.urandom(4096))
        sys.stdout.write("\x00" * 100)

    def nonsense(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        """Find the pipe that answers go through, and write into it."""
        for number in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(number, b"{{{\n")
        time.sleep(600)

    def another(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        say(outcome={"id": "other", "state": "done"}, leaving=False)
        time.sleep(600)

    def children(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        for _ in range(3):
            subprocess.Popen(["sleep", "600"])
        if not os.fork():
            time.sleep(600)

    def orphans(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        """Leave a child that holds the pipe open, and end."""
        if os.fork():
            os._exit(3)
        time.sleep(600)

    def leave(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        os._exit(0)

    def exit(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        sys.exit(0)

    def odd(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        raise KeyError("two\nlines")

    def damaged(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        raise MediaError(f"{task['path']}: cut off:\n holds 3 bytes")

    def elsewhere(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        raise MediaError(f"{folder}/x.tmp: not readable")

    def fetched(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        raise MediaError(f"{task['media']}: holds {Path(task['media']).read_text()}")

    def unreadable(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        raise OSError(5, "Input/output error", task["path"])

    def deaf(self, task: dict[str, Any], folder: Path, say: Any) -> None:
        os.close(0)

    def link(self, task: dict[str, Any], folder: Path, say: Any) -> dict[str, Any]:
        (folder / "link").symlink_to(sys.executable)
        return {"state": "done", "file": "link", "record": {}}

    def outside(self, task: dict[str, Any], folder: Path, say: Any) -> dict[str, Any]:
        return {"state": "done", "file": sys.executable, "record": {}}


def prepare(job: dict[str, Any]) -> Odd:
    if job.get("refuse"):
        raise MediaError("no such\nmodel")
    if job.get("crash"):
        os.write(2, b"it cannot be\n")
        os.abort()
    return Odd(job)
