"""Attends one worker of a batch: starts it, asks it, ends it when it hangs, and says what happened.

Whatever a file does to its worker, the outcome is one line, and the next task gets a worker that is
sound. Files that lie elsewhere are fetched here: a worker needs no network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any

from maven import confine
from maven.batch.sources import FetchError, fetched, scheme
from maven.batch.worker import (
    TASK_FOLDER,
    Job,
    Limits,
    Outcome,
    Task,
    failed,
    named,
    needs_memory,
    out_of_memory,
)

START_S = 300.0  # until the model is loaded
STARTS = 3  # of a worker that dies before it is
POLL_S = 0.2  # how soon an end is seen that left the pipe open
ENDED_WITHIN_S = 10.0  # by a worker that was killed: one that waits for a dead disk never does
DRAIN_S = 0.02
LINE_BYTES = 2**20
TAIL_BYTES = 4096  # of what a worker wrote to standard error
WAITING = 1000  # lines that were said and not taken in


class WorkerError(Exception):
    """No worker can be started, or none that is like the first; the message is one line."""


class _DiedError(Exception):
    """The worker ended, or had to be ended; the message says why."""


class Attendant:
    """One worker process; to be used by one thread, but for `stop`.

    Args:
        job: what all tasks share, see `maven.batch.analysing.prepare`.
        work: a folder for its files; results lie there until `close`.
        cores: the processors that the worker may run on; None for all.
        limits: of a task.
        about: what the worker must say of itself; None for whatever the first one says.
    """

    def __init__(
        self,
        job: Job,
        work: Path,
        *,
        cores: Sequence[int] | None = None,
        limits: Limits | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._job: Job = {**job, "cores": list(cores or ()), "limits": asdict(self._limits)}
        self._about = about
        work.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="worker-", dir=work)).absolute()
        self._task_folder, self._log = self._folder / TASK_FOLDER, self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._line: int | None = None  # its end ends the worker
        self._ending = threading.Lock()
        self._messages: Queue[bytes | None] = Queue()
        self._hearing: threading.Thread | None = None
        self._n_results = 0
        self._closed = False

    def about(self) -> dict[str, Any]:
        """Say what decides values beside content; starts the worker where none runs.

        Raises:
            WorkerError: none can be started, or what it says has changed.
        """
        self._ready()
        assert self._about is not None
        return self._about

    def do(self, task: Task) -> Outcome:
        """Have a task done and return its outcome, whatever its file does.

        Raises:
            WorkerError: no worker can be started, the model is not the first one's any more, or the
                folder is gone.
        """
        began_s = time.monotonic()
        self._record: dict[str, Any] | None = None  # what it has said of the content so far
        try:
            with ExitStack() as stack:
                outcome = self._asked(self._fetched(task, stack))
            if outcome["file"] is not None:
                outcome["file"] = str(self._kept(outcome["file"]))
        except FetchError as error:
            outcome = failed(task["id"], named(task, str(error)), again=error.again)
        except _DiedError as error:
            outcome = failed(task["id"], named(task, str(error)), again=True)
        except OSError as error:
            raise WorkerError(f"{self._folder}: {error.strerror or error}") from error
        _empty(self._task_folder)
        outcome["record"] = outcome.get("record") or self._record
        return {**outcome, "seconds": time.monotonic() - began_s}

    def stop(self) -> None:
        """End the worker for good, from any thread; what it does now fails."""
        self._closed = True
        self._end()

    def close(self) -> None:
        """End the worker and remove all that lies in its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fetched(self, task: Task, stack: ExitStack) -> Task:
        """Add where media and transcript are that lie elsewhere, while the stack holds."""
        given: Task = dict(task)
        for name, own in (("path", "media"), ("transcript", "words")):
            if task.get(name) and scheme(task[name]) is not None:
                limit_bytes = self._limits.media_bytes
                path = stack.enter_context(fetched(task[name], self._folder, limit_bytes))
                given[own] = str(path)
                if name == "path":
                    given["size_bytes"] = path.stat().st_size
        return given

    def _kept(self, name: str) -> Path:
        """Take a result out of the task's folder; what is no plain file there is none."""
        source = self._task_folder / Path(name).name
        if source.is_symlink() or not source.is_file():
            raise _DiedError("its worker left no result")
        self._n_results += 1
        return source.rename(self._folder / f"{self._n_results}{source.suffix}")

    def _ready(self) -> subprocess.Popen[bytes]:
        """Give a process that runs, and start one where none does."""
        if self._process is not None and confine.ended(self._process):
            self._end()
        if self._process is not None:
            return self._process
        if self._closed:
            raise WorkerError("it was closed")
        process, said = self._started()
        if "unfit" in said:
            self._end()
            raise WorkerError(said["unfit"])
        about = said.get("ready")
        if self._about is None:
            self._about = about
        elif about != self._about:
            self._end()
            changed = _changed(self._about, about)
            raise WorkerError(f"the model changed since the batch began: {changed}")
        self._limits = replace(self._limits, memory_bytes=said["memory_bytes"])
        return process

    def _started(self) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
        """Start a process and hear whether it is fit; one that is killed meanwhile is no reason."""
        for attempt in range(1, STARTS + 1):
            process = self._start()
            try:
                said = self._heard(process, START_S, f"was not ready within {START_S:g} s")
            except _DiedError as error:
                if attempt == STARTS or self._closed:
                    reason = f"a worker cannot be started: it {error}{self._last()}"
                    raise WorkerError(reason) from None
            else:
                return process, said
        raise AssertionError("unreachable")

    def _start(self) -> subprocess.Popen[bytes]:
        _empty(self._task_folder)
        held, line = os.pipe()
        pipes = (held,) if os.name == "posix" else ()
        environment = confine.clean_environment(self._job.get("threads"), self._task_folder)
        command = ["-m", "maven.batch.worker", *map(str, pipes)]
        try:
            with self._log.open("ab") as log:
                process = confine.start(command, self._folder, environment, log, pipes)
        except OSError as error:
            os.close(line)
            raise WorkerError(f"a worker cannot be started: {error.strerror}") from error
        finally:
            os.close(held)
        self._messages = Queue(WAITING)
        with self._ending:
            self._process, self._line = process, line
        self._hearing = threading.Thread(
            target=_hear, args=(process.stdout, self._messages), daemon=True
        )
        self._hearing.start()
        if self._closed:  # meanwhile, by another thread
            self._end()
        with contextlib.suppress(_DiedError):  # reading it will say so
            self._tell(process, self._job)
        return process

    def _asked(self, task: Task) -> Outcome:
        """Ask the worker and take in what it says until it has an outcome."""
        process = self._ready()
        os.truncate(self._log, 0)
        size_bytes, length_s = task.get("size_bytes"), None
        began_s = time.monotonic()
        self._tell(process, task)
        while True:
            longest_s = self._limits.longest_s(self._job, length_s, size_bytes)
            silent_s = self._limits.silent_s(length_s, size_bytes)
            left_s = began_s + longest_s - time.monotonic()
            reason = f"took longer than {longest_s:.0f} s"
            if silent_s < left_s:
                left_s, reason = silent_s, f"made no progress for {silent_s:.0f} s"
            said = self._heard(process, left_s, reason)
            if "unfit" in said:
                self._end()
                raise WorkerError(said["unfit"])
            if "length_s" in said:
                length_s = said["length_s"]
            if "record" in said:
                self._record = said["record"]
            if "outcome" in said:
                if said["outcome"].get("id") != task["id"]:
                    raise self._died("gave the answer of another task")
                if said["leaving"]:
                    self._end()
                outcome: Outcome = said["outcome"]
                return outcome

    def _tell(self, process: subprocess.Popen[bytes], message: Job) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except (OSError, ValueError):
            raise self._died(None) from None

    def _heard(
        self, process: subprocess.Popen[bytes], within_s: float, too_late: str
    ) -> dict[str, Any]:
        """Return what it says next.

        Raises:
            _DiedError: it says nothing in time, or nonsense, or has ended.
        """
        end_s, gone = time.monotonic() + within_s, False
        while True:
            left_s = end_s - time.monotonic()
            try:
                line = self._messages.get(timeout=min(max(left_s, 0.0), POLL_S))
                break
            except Empty:
                if gone:
                    raise self._died(None) from None
                gone = confine.ended(process)  # its children may hold the pipe
                if not gone and left_s <= 0:
                    raise self._died(too_late) from None
        try:
            said = json.loads(line or b"")
            if isinstance(said, dict):
                return said
        except ValueError:
            pass
        raise self._died(None if line is None or not line.endswith(b"\n") else "spoke nonsense")

    def _died(self, reason: str | None) -> _DiedError:
        """End the worker, and say why it ended where nobody knows yet."""
        code = self._end()
        if reason is not None:
            return _DiedError(reason)
        if code is not None and -code == getattr(signal, "SIGXCPU", None):
            return _DiedError("took more time than it may")
        if out_of_memory(self._tail()):
            return _DiedError(needs_memory(self._limits.memory(self._job)))
        if code is None or code >= 0:
            return _DiedError(f"ended without an answer (exit code {code})")
        if -code == signal.SIGKILL:
            return _DiedError("was killed (SIGKILL), as the system does when memory is short")
        return _DiedError(f"crashed the decoder ({signal.Signals(-code).name})")

    def _end(self) -> int | None:
        """Kill the worker and all that it started; return its exit code."""
        with self._ending:
            process, line, self._process, self._line = self._process, self._line, None, None
        if process is None:
            return None
        confine.kill(process)
        try:
            code = process.wait(ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:  # what it holds is lost; nothing else waits for it
            code = -signal.SIGKILL
        if line is not None:
            os.close(line)
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        end_s = time.monotonic() + POLL_S  # what left its group may hold the pipe
        while self._hearing and self._hearing.is_alive() and time.monotonic() < end_s:
            with contextlib.suppress(Empty):
                self._messages.get(timeout=DRAIN_S)
        return code

    def _tail(self) -> str:
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            return log.read().decode(errors="replace")
        return ""

    def _last(self) -> str:
        """The last line that a worker wrote to standard error."""
        lines = self._tail().split("\n")
        return "".join(f" ({line.strip()})" for line in lines[-2:] if line.strip())


def _hear(stdout: IO[bytes] | None, messages: Queue[bytes | None]) -> None:
    assert stdout is not None
    with stdout:
        while line := stdout.readline(LINE_BYTES):
            messages.put(line)
    messages.put(None)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # the worker will say so
        folder.mkdir(exist_ok=True)


def _changed(before: Any, now: Any, name: str = "") -> str:
    """Name the first thing that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                where = f"{name}.{key}" if name else str(key)
                return _changed(before.get(key), now.get(key), where)
    return f"{name} is {now!r} and was {before!r}"
