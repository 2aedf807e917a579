"""A job of a batch that costs nothing: "plain_job:prepare", for tests of engines."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

KIND = "plain_job:prepare"
CRASH = "crash"  # an id that ends its worker


class NoModelError(Exception):
    pass


NoModelError.__module__ = "maven.plain_job"  # a message for users, as errors of the package are


class Plain:
    def __init__(self) -> None:
        self.about = {"plain": 1}

    def do(self, task: dict[str, Any], folder: Path, say: Any) -> dict[str, Any]:
        if task["id"] == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(task.get("sleep_s", 0.0))
        (folder / "result").write_bytes(task["id"].encode() * 1000)
        place = {"cores": sorted(os.sched_getaffinity(0)), "worker": os.getpid()}
        return {"state": "done", "file": "result", "record": place}


def prepare(job: dict[str, Any]) -> Plain:
    if job.get("model") == "none":
        raise NoModelError("none: no such model; accepted: mini")
    return Plain()
