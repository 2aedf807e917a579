"""The line of work: threads that each take what is first and have a process do it.

A worker is `python -m maven.web.worker FOLDER` in a session of its own, so that a kill reaches all
that it started, with a clean environment. What it says goes into the database; what it leaves when
it is stopped or fails is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maven import confine
from maven.confine import clean_environment, kill
from maven.web.shelf import Clip, NoClipError, Shelf, Task
from maven.web.worker import CPU_S_PER_S, FILES, KEPT, LEAST_CPU_S, SETTINGS

TEMPORARY = "tmp"  # in a clip's folder, while a worker runs
RETRY_S = 5.0  # of a database that fails
ENDED_WITHIN_S = 10.0  # what is cancelled
CHECKED_WITHIN_S = 300.0  # until a worker has looked at the upload
WALL_S_PER_CPU_S = 3.0  # of the limit: a machine that is busy with other things


class StateError(Exception):
    """A clip is in no state for what is asked; the message is one line."""


class NotEndedError(StateError):
    """It was told to end and has not; ask again."""


@dataclass(frozen=True)
class Options:
    """How the server works.

    Attributes:
        model: mini, a model folder or a hub id that is there.
        size_bytes, length_s: of the largest and longest upload.
        workers: clips analysed at the same time.
        hosts: names, with or without a port, under which the server answers beside its own.
        token: what every request has to show; None for none.
    """

    model: str = "mini"
    size_bytes: int = 2 * 10**9
    length_s: float = 3600.0
    workers: int = 1
    hosts: tuple[str, ...] = ()
    token: str | None = None

    @property
    def threads(self) -> int:
        """Processor threads a worker has."""
        return max((os.cpu_count() or 1) // self.workers, 1)


@dataclass
class Run:
    """A task that a process is doing now."""

    task: Task
    clip: Clip
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False  # by somebody, so that its failure is no error
    ended: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """End the process, and all that it started, now."""
        self.stopped = True
        if self.process is not None:
            kill(self.process)


class Alarm:
    """Kills a process that takes longer than it may."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._timer: threading.Timer | None = None

    def set(self, within_s: float) -> None:
        """Give it so long from now on."""
        self.off()
        self._timer = threading.Timer(within_s, kill, (self._process,))
        self._timer.daemon = True
        self._timer.start()

    def off(self) -> None:
        """Give it all the time there is."""
        if self._timer is not None:
            self._timer.cancel()


def longest_s(length_s: float) -> float:
    """How long a task with a clip of such a length may take by the clock on the wall."""
    return WALL_S_PER_CPU_S * (LEAST_CPU_S + CPU_S_PER_S * length_s)


class Jobs:
    """Does what the shelf has in line, until it is closed."""

    def __init__(self, shelf: Shelf, options: Options) -> None:
        self._shelf, self._options = shelf, options
        self._news = threading.Condition()  # also guards what follows
        self._running: dict[tuple[str, Task], Run] = {}
        self._closed = False
        self._sound = True  # the database answers
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(options.workers)
        ]

    def start(self) -> None:
        """Put what was running back into the line, and begin."""
        self._shelf.recover()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End all workers; what they did is done again by the next server."""
        with self._news:
            self._closed = True
            for run in self._running.values():
                run.stop()
            self._news.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)

    def wake(self) -> None:
        """Say that something new is in the line."""
        with self._news:
            self._news.notify_all()

    def cancel(self, clip_id: str) -> None:
        """Take a clip's analysis, or else its overlay, out of the line, or stop it.

        Raises:
            NoClipError: there is no such clip.
            StateError: neither waits or runs, or (NotEndedError) it does not end.
        """
        clip = self._shelf.clip(clip_id)
        out = {"stage": None, "progress": None}
        if self._shelf.change(clip_id, "state = 'queued'", state="cancelled", **out):
            return
        if self._shelf.change(clip_id, "overlay_state = 'queued'", overlay_state="none"):
            return
        with self._news:
            runs = [run for run in self._running.values() if run.clip.id == clip_id]
            for run in runs:
                run.stop()
        if not runs:
            raise StateError(f"it is {clip.state}: there is nothing to cancel")
        if not all(run.ended.wait(ENDED_WITHIN_S) for run in runs):
            raise NotEndedError("it does not end yet")  # where the disk is full, for one

    def again(self, clip_id: str) -> None:
        """Put a clip that failed or was cancelled into the line once more.

        Raises:
            NoClipError: there is no such clip.
            StateError: it is in another state, or its upload is gone.
        """
        clip = self._shelf.clip(clip_id)
        if not self._shelf.upload(clip_id).is_file():
            raise StateError("its upload is gone: send it again")
        if not self._shelf.queue(clip_id, "analysis", "state IN ('failed', 'cancelled')"):
            raise StateError(f"it is {clip.state}; accepted: failed or cancelled")
        self.wake()

    def overlay(self, clip_id: str, blur: bool) -> None:
        """Put the drawing of an overlay into the line; one that is there is made anew.

        Raises:
            NoClipError: there is no such clip.
            StateError: the clip is not done, or its overlay is being made.
        """
        clip = self._shelf.clip(clip_id)
        if clip.state != "done":
            raise StateError(f"it is {clip.state}; accepted: done")
        free = "state = 'done' AND overlay_state NOT IN ('queued', 'running')"
        if not self._shelf.queue(clip_id, "overlay", free, overlay_blur=blur):
            raise StateError("its overlay is being made already")
        self.wake()

    def delete(self, clip_id: str) -> None:
        """Stop what is done with a clip and remove all of it.

        Raises:
            NoClipError: there is no such clip.
            NotEndedError: what is done with it does not end.
        """
        self._shelf.clip(clip_id)
        try:
            while True:  # an overlay may wait while the analysis runs
                self.cancel(clip_id)
        except NotEndedError:
            raise
        except StateError:
            pass
        self._shelf.delete(clip_id)

    def _work(self) -> None:
        while True:
            with self._news:
                while not self._closed and (found := self._first()) is None:
                    self._news.wait(None if self._sound else RETRY_S)
                if self._closed:
                    return
                assert found is not None
                run = Run(*found)
                self._running[run.clip.id, run.task] = run
            try:
                self._do(run)
            except Exception:  # of ours; the next clip may go better
                traceback.print_exc()
                self._write(run, _outcome(run, None, None, run.stopped))
            finally:
                with self._news:
                    del self._running[run.clip.id, run.task]
                run.ended.set()

    def _first(self) -> tuple[Task, Clip] | None:
        """The next task; None, and to be asked for again soon, where the disk is full or fails."""
        try:
            found = self._shelf.first()
        except sqlite3.Error:
            if self._sound:
                traceback.print_exc()
            self._sound = False
            return None
        self._sound = True
        return found

    def _do(self, run: Run) -> None:
        """Have a process do a task and write into the database what became of it."""
        with contextlib.suppress(NoClipError):
            folder = self._shelf.folder(run.clip.id)
            said: dict[str, Any] = {}
            try:
                clean(folder, run.task, run.clip)
                self._prepare(folder, run)
                said = self._follow(folder, run)
            except OSError as error:  # no process, no disk
                said = {"error": f"the server cannot work: {error.strerror}"}
            if self._closed:
                return  # it still says that it is running: the next server does it again
            files = said.get("files")
            stopped = run.stopped
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if stopped or files is None:
                    clean(folder, run.task, run.clip)
                if said.get("spoiled") and run.task == "analysis":
                    shutil.rmtree(folder)
            outcome = _outcome(run, None if stopped else files, said.get("error"), stopped)
            self._write(run, outcome)

    def _write(self, run: Run, outcome: dict[str, Any]) -> None:
        """Write into the database what became of a task, as soon as that can be written."""
        told = closed = False
        while not closed:
            try:
                self._shelf.change(run.clip.id, **outcome)
                return
            except sqlite3.Error:  # the disk is full
                if not told:
                    traceback.print_exc()
                told = True
            with self._news:
                closed = self._news.wait_for(lambda: self._closed, RETRY_S)

    def _prepare(self, folder: Path, run: Run) -> None:
        clip, options = run.clip, self._options
        settings = {
            "task": run.task, "name": clip.name, "model": options.model,
            "faces": clip.settings["faces"], "asr": clip.settings["asr"],
            "transcript": clip.settings["transcript"],
            "transcript_file": transcript_file(clip.settings),
            "blur": clip.overlay_blur, "threads": options.threads,
            "length_s": clip.length_s, "max_length_s": options.length_s,
        }  # fmt: skip
        (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")

    def _follow(self, folder: Path, run: Run) -> dict[str, Any]:
        """Start the process, take in what it says until it ends; return the last of it."""
        with self._news:
            if run.stopped:
                return {}
            run.process = process = start(folder, self._options.threads)
        prefix = "" if run.task == "analysis" else "overlay_"
        alarm = Alarm(process)
        alarm.set(CHECKED_WITHIN_S)
        said: dict[str, Any] = {}
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if not line.endswith(b"\n"):
                    break  # it was killed while it spoke
                message = json.loads(line)
                if "length_s" in message:
                    alarm.set(longest_s(message["length_s"] or self._options.length_s))
                    self._shelf.change(run.clip.id, length_s=message["length_s"])
                elif "progress" in message:
                    values = {f"{prefix}progress": message["progress"]}
                    if run.task == "analysis":
                        values["stage"] = message["stage"]
                    self._shelf.change(run.clip.id, **values)
                else:
                    said |= message
        finally:
            alarm.off()
            kill(process)  # and what it left behind
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            shutil.rmtree(folder / TEMPORARY, ignore_errors=True)
        return said


def _outcome(run: Run, files: list[str] | None, error: str | None, stopped: bool) -> dict[str, Any]:
    """What the database says of a task that has ended."""
    failure = error or "took more time or memory than the server gives, or crashed"
    if run.task == "overlay":
        if stopped:
            return {"overlay_state": "none", "overlay_progress": None}
        if files is None:
            return {"overlay_state": "failed", "overlay_progress": None, "overlay_error": failure}
        return {"overlay_state": "done", "overlay_progress": 1.0}
    if stopped:
        return {"state": "cancelled", "stage": None, "progress": None}
    if files is None:
        return {"state": "failed", "stage": None, "progress": None, "error": failure}
    return {"state": "done", "stage": None, "progress": 1.0, "files": tuple(files), "error": None}


def transcript_file(settings: Mapping[str, Any]) -> str | None:
    """Name the file of a clip's transcript in its folder, for clips that came with one."""
    name = settings["transcript"]
    return None if name is None else f"transcript{Path(name).suffix.lower()}"


def clean(folder: Path, task: Task, clip: Clip) -> None:
    """Remove what a task has written, or begun to write."""
    if task == "overlay":
        for path in folder.glob(f"*{Path(FILES['overlay']).stem}*"):
            path.unlink()
        return
    kept = {*KEPT, transcript_file(clip.settings)}
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def start(folder: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start a worker, whose standard input stays open as long as this process lives."""
    temporary = folder / TEMPORARY
    temporary.mkdir(exist_ok=True)
    environment = clean_environment(threads, temporary)
    return confine.start(["-m", "maven.web.worker", str(folder)], folder, environment)
