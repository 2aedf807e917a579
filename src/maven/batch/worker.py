"""One worker of a batch: python -m maven.batch.worker [PIPE], a process that does task after task.

What is said is a JSON object a line. Standard input: the job, then tasks. Standard output: once
{"ready": about, "memory_bytes": what it may use} or {"unfit": why}; then of every task any number
of {"length_s"} and {"stage", "done_s"}, and one {"outcome", "leaving"} (leaving: it ends now, a new
one shall go on), or {"unfit"}. The process is limited in memory, time and file sizes, writes into
the folder that it runs in and nowhere else, and ends when the one that started it does, which holds
the PIPE.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from maven import confine
from maven.batch.sources import CANNOT_WRITE, shown
from maven.files import printable

Job = Mapping[str, Any]
Task = dict[str, Any]
Outcome = dict[str, Any]
Say = Callable[..., None]

KINDS = {  # of jobs; others are "module:function"
    "analyse": "maven.batch.analysing:prepare",
    "features": "maven.batch.extracting:prepare",
}
TASK_FOLDER = "task"  # in which results and temporary files are written

# A core of a laptop analyses a second of video in one, of 4K at 60 Hz in four, of 8K in twenty.
LEAST_S, S_PER_S, LARGE_S_PER_S = 60.0, 40.0, 60.0
STALL_S, STALL_S_PER_S, READ_BYTES_PER_S = 120.0, 0.1, 20e6
READINGS = 3  # of a whole file: to know it, to analyse it, to know that it is still the same
BYTES_PER_S = 1000.0  # no recording has fewer: what declares to be longer lies
LEAST_FILE_BYTES, FILE_BYTES_PER_S = 2**28, 2**20
NO_MEMORY = (
    *("bad_alloc", "bad allocation", "Cannot allocate memory", "MemoryError", "out of memory"),
    *("Failed to allocate memory", "not enough memory", "can't start new thread"),
    "Thread creation failed",
)
LONGEST_LINE = 2000  # characters of an error


class Prepared(Protocol):
    """What a job's module makes once for all tasks.

    Attributes:
        about: what decides values beside the tasks' content; equal for equal results.
    """

    about: dict[str, Any]

    def do(self, task: Task, folder: Path, say: Say) -> Outcome:
        """Do a task; return "state", "record", and "file": the result's name in `folder`.

        `say` takes length_s=, and stage=, done_s= now and then. An exception is an outcome too.
        """
        ...


@dataclass(frozen=True)
class Limits:
    """What one task may use.

    Attributes:
        memory_bytes: of data; None: 3 GiB with mini, 16 GiB with others and on a GPU.
        time_s: by the clock on the wall; None: by the length of the media.
        stall_s: without a sign of life; longer for media that are large.
        media_bytes: of a file that is fetched.
    """

    memory_bytes: int | None = None
    time_s: float | None = None
    stall_s: float = STALL_S
    media_bytes: int = 64 * 2**30

    def memory(self, job: Job) -> int:
        """How much memory a worker may use, in bytes."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        small = job.get("model", "mini") == "mini" and not on_gpu(job)
        return confine.memory_bytes("mini" if small else "large")

    def longest_s(self, job: Job, length_s: float | None, size_bytes: int | None) -> float:
        """How long a task may take; without a length, or with one that the size denies, by size.

        Of a part the whole file is read all the same.
        """
        if self.time_s is not None:
            return self.time_s
        factor = S_PER_S if job.get("model", "mini") == "mini" else LARGE_S_PER_S
        reading_s = READINGS * (size_bytes or 0) / READ_BYTES_PER_S
        return LEAST_S + reading_s + factor * _length_s(length_s, size_bytes)

    def silent_s(self, length_s: float | None, size_bytes: int | None) -> float:
        """How long it may say nothing."""
        reading_s = (size_bytes or 0) / READ_BYTES_PER_S
        return self.stall_s + reading_s + STALL_S_PER_S * _length_s(length_s, size_bytes)

    def file_bytes(self, length_s: float | None, size_bytes: int | None) -> int:
        """How large a file it may write."""
        return int(LEAST_FILE_BYTES + FILE_BYTES_PER_S * _length_s(length_s, size_bytes))


def _length_s(declared_s: float | None, size_bytes: int | None) -> float:
    held_s = 3600.0 if size_bytes is None else size_bytes / BYTES_PER_S
    if declared_s is None or not math.isfinite(declared_s):
        return held_s
    return min(max(declared_s, 0.0), held_s)


def on_gpu(job: Job) -> bool:
    """Say whether a job runs on a GPU of this machine, or is to."""
    return uses_gpu(job) and (str(job["device"]) != "auto" or _has_gpu())


def uses_gpu(job: Job) -> bool:
    """Say whether a job runs on a GPU where there is one, as `maven.checkpoint.load` does."""
    device, runtime = str(job.get("device") or "cpu"), job.get("runtime", "torch")
    if device != "auto" or runtime != "auto":
        return device.startswith("cuda") or (device == "auto" and runtime == "torch")
    from maven.checkpoint import ModelError, find, read_card
    from maven.portable import portable

    try:
        folder = find(str(job.get("model", "mini")))
        return not portable(folder, read_card(folder).encoders)
    except ModelError:  # a worker says what is wrong
        return False


def _has_gpu() -> bool:
    from maven.checkpoint import choose_device

    return choose_device("auto") != "cpu"


def main() -> None:
    """Take the job, then do task after task until there are no more."""
    say = confine.speaker()
    asked = confine.hearer()
    if len(sys.argv) > 1:
        confine.end_with_parent(int(sys.argv[1]))
    job = json.loads(asked.readline())
    if job.get("cores"):
        confine.pin(job.pop("cores"))  # before torch is imported, which counts them
    limits, memory_bytes = Limits(**job.pop("limits")), confine.LARGE_MEMORY_BYTES
    try:
        memory_bytes = limits.memory(job)
        limits = replace(limits, memory_bytes=memory_bytes)
        confine.limit(memory_bytes)
        prepared = prepare(job)
    except BaseException as error:
        traceback.print_exc()
        say(unfit=_unfit(error, memory_bytes))
        _leave(1)
    say(ready=prepared.about, memory_bytes=memory_bytes)
    worker = Worker(job, limits, prepared, say)
    for line in asked:
        if not worker.do(json.loads(line)):
            break
    _leave(0)


def prepare(job: Job) -> Prepared:
    """Have the job's module do what is done once."""
    module, _, function = KINDS.get(job["kind"], str(job["kind"])).partition(":")
    return cast(Prepared, getattr(importlib.import_module(module), function)(job))


class Worker:
    """Does tasks within limits and makes outcomes of whatever comes of them."""

    def __init__(self, job: Job, limits: Limits, prepared: Prepared, say: Say) -> None:
        self._job, self._limits, self._prepared, self._say = job, limits, prepared, say

    def do(self, task: Task) -> bool:
        """Do one and tell its outcome; return whether this process can do another."""
        size_bytes = task.get("size_bytes")
        self._limit(None, size_bytes)
        _forget_peak()

        def say(**message: Any) -> None:
            if "length_s" in message:
                self._limit(message["length_s"], size_bytes)
            self._say(**message)

        outcome, leaving = failed(task["id"], None, again=False), False
        try:
            outcome |= self._prepared.do(task, Path(TASK_FOLDER).absolute(), say)
            if outcome["error"]:
                outcome["error"] = named(task, outcome["error"])
        except BaseException as error:
            traceback.print_exc()
            if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
                self._say(unfit=f"workers cannot write their files: {os.strerror(error.errno)}")
                return False
            no_memory = out_of_memory(f"{type(error).__name__} {error}")
            leaving = no_memory
            disk = isinstance(error, OSError) and error.errno != errno.EFBIG
            outcome["again"] = no_memory or disk
            outcome["error"] = self._told(error, task, no_memory)
            del error
        outcome["peak_bytes"] = _peak_bytes()
        gc.collect()
        leaving = leaving or _worn(self._limits.memory(self._job))
        self._say(outcome=outcome, leaving=leaving)
        return not leaving

    def _limit(self, length_s: float | None, size_bytes: int | None) -> None:
        cpu_s = self._limits.longest_s(self._job, length_s, size_bytes) * len(confine.cores())
        confine.limit_next(cpu_s, self._limits.file_bytes(length_s, size_bytes))

    def _told(self, error: BaseException, task: Task, no_memory: bool) -> str:
        """Make of an error one line that names the file, by the name that its owner knows."""
        if no_memory:
            return named(task, needs_memory(self._limits.memory(self._job)))
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            return named(task, "its result is larger than a result may be")
        if isinstance(error, OSError) and not type(error).__module__.startswith("maven."):
            return named(task, error.strerror or "it cannot be read")
        if not type(error).__module__.startswith("maven."):
            return named(task, f"an internal error ({type(error).__name__}{_place(error)})")
        text = str(error)
        for own, given in (("media", "path"), ("words", "transcript")):
            if task.get(own):
                text = text.replace(task[own], str(task[given]))
        return named(task, text.replace(f"{Path(TASK_FOLDER).absolute()}/", ""))


def failed(name: str, error: str | None, *, again: bool) -> Outcome:
    """Make the outcome of a task, given by its id, that failed; `again`: another try may do it."""
    return {
        "id": name, "state": "failed", "error": error, "again": again,
        "seconds": 0.0, "peak_bytes": None, "file": None, "record": None,
    }  # fmt: skip


def named(task: Task, text: str) -> str:
    """Make a line of what was said of a task, which names its file; all of it can be printed."""
    given = [str(task.get("path") or task["id"]), *filter(None, [task.get("transcript")])]
    for name in given:
        text = text.replace(name, shown(name))
    if not any(shown(name) in text for name in given):
        text = f"{shown(given[0])}: {text}"
    return printable(re.sub(r"\s*[\r\n]+\s*", " ", text).strip())[:LONGEST_LINE]


def needs_memory(memory_bytes: int) -> str:
    """Say that a limit of memory was met."""
    return f"needs more memory than {memory_bytes / 2**30:.1f} GiB"


def out_of_memory(text: str) -> bool:
    """Tell whether this is how a process speaks that got no memory."""
    return any(sign in text for sign in NO_MEMORY)


def _unfit(error: BaseException, memory_bytes: int) -> str:
    text = " ".join(str(error).split())
    if out_of_memory(f"{type(error).__name__} {text}"):
        return f"a worker {needs_memory(memory_bytes)} to load the model"
    if type(error).__module__.startswith("maven."):
        return text
    return f"a worker cannot start: {type(error).__name__}{_place(error)}: {text}"


def _place(error: BaseException) -> str:
    """Where our code was when it happened."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    last = ([f for f in frames if "maven" in Path(f.filename).parts] or frames)[-1:]
    return "".join(f" in {Path(frame.filename).name}:{frame.lineno}" for frame in last)


def _worn(memory_bytes: int) -> bool:
    """Tell whether tasks have left behind what a next one would suffer from."""
    with contextlib.suppress(ChildProcessError, AttributeError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True  # children that still run
    with contextlib.suppress(OSError):
        resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
        held_bytes = (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
        n_files = sum(1 for _ in Path("/proc/self/fd").iterdir())
        return held_bytes > memory_bytes / 2 or n_files > confine.OPEN_FILES / 2
    return False


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # proc(5): resets the peak resident set size
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int | None:
    """The most memory that this process held since it was reset."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def _leave(code: int) -> None:
    sys.stderr.flush()
    os._exit(code)  # threads of decoders that hang do not hold it up


if __name__ == "__main__":
    main()
