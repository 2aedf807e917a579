"""The engine ray: tasks done on all nodes of a Ray cluster, or of one started for them here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from maven import confine
from maven.batch.attendant import WorkerError
from maven.batch.worker import Limits

DRIVER = "from maven.batch.driver import main; main()"
LOG = "ray.log"
SOCKET_NAME_BYTES = 107  # of a Unix socket's path
OWN_NAMES_BYTES = 70  # of it, what Ray adds to its folder
# A file of less is done within seconds: the next may wait at its seat meanwhile, since Ray takes a
# while to bring it. Behind a larger one none waits, which a free seat could do.
SOON_BYTES = 16 * 10**6
CLOSED_WITHIN_S, POLL_S = 15.0, 0.05  # until Ray has ended what it started


class Cluster:
    """An engine over Ray Data: one row a task, an actor a core group or GPU with one worker.

    Args:
        job: what is done, as workers take it.
        work: a folder for scratch files; what is made there is removed at the end.
        workers: at most so many at a time; None: as many as the cluster has room for.
        address: None starts Ray on this machine, only for this and closed to others; "auto" or
            HOST:PORT: a cluster that this machine is a node of. The package, and a model that is a
            folder, are sent there once.
        limits: of a worker.
    """

    def __init__(
        self,
        job: dict[str, Any],
        work: Path,
        workers: int | None = None,
        address: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._opening = {
            "job": job,
            "workers": workers,
            "address": address,
            "limits": asdict(limits or Limits()),
        }
        self._work, self._folders = Path(work), list[Path]()
        self._process: subprocess.Popen[bytes] | None = None
        self._about: dict[str, Any] = {}
        self._seats = 0

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def about(self) -> dict[str, Any]:
        """Say what decides values beside a file's content.

        Raises:
            WorkerError: no cluster, no such model.
        """
        if self._process is None:
            try:
                self._start()
                message = self._heard()
            except BaseException:
                self.close()
                raise
            self._about, self._seats = message["about"], message["seats"]
        return self._about

    def run(self, tasks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Do tasks; an actor or node that dies has its tasks done again elsewhere.

        Ending the iteration early ends everything.

        Args:
            tasks: taken a few at a time, as they are done.

        Yields:
            One outcome a task, as they come; bytes of its result as "content" (None: no result).

        Raises:
            WorkerError: no worker can be had, they do not agree, or Ray fails for good.
        """
        self.about()
        coming, more, whole = iter(tasks), True, False
        given = dict[str, bool]()  # tasks, and whether each is done soon
        try:
            while True:
                while more and len(given) < self._room(all(given.values())):
                    task = next(coming, None)
                    if task is None:
                        more = False
                        self._send({"end": True})
                    else:
                        given[task["id"]] = (task.get("size_bytes") or math.inf) < SOON_BYTES
                        self._send({"task": task})
                message = self._heard()
                if "ended" in message:
                    break
                del given[message["outcome"]["id"]]
                self._seats = message["seats"]
                yield {**message["outcome"], "content": message["content"]}
            whole = True
        finally:
            if not whole:
                self.close()

    def close(self) -> None:
        """End everything that was started; what was being done is lost."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        end_s = time.monotonic() + CLOSED_WITHIN_S
        while not confine.ended(process) and time.monotonic() < end_s:
            time.sleep(POLL_S)
        confine.kill(process)  # and what it left; nobody has waited for it, so its group is its own
        process.wait()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _room(self, soon: bool) -> int:
        """How many tasks to have there: where all are done soon, one waits at each seat."""
        return max(2 * self._seats + 1 if soon else self._seats, 1)

    def _start(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="r", dir=self._work)).absolute()
        self._folders = [folder, _for_sockets(folder)]
        with (folder / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", DRIVER],
                cwd=folder,  # which Python 3.10 looks for modules in, whatever is said here
                env=os.environ | {"PYTHONSAFEPATH": "1"} | _python_path(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process, which then closes that one
            )
        self._send({**self._opening, "folders": [str(folder) for folder in self._folders]})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # why, it has said, or its log tells
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _heard(self) -> dict[str, Any]:
        """Wait for the next message, and what belongs to it."""
        assert self._process is not None
        out: IO[bytes] | None = self._process.stdout
        assert out is not None
        line = out.readline()
        message: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        if "unfit" in message:
            raise WorkerError(message["unfit"])
        size = message.get("bytes")
        message["content"] = None if size is None else out.read(size)
        if not line.endswith(b"\n") or (size or 0) > len(message["content"] or b""):
            raise WorkerError(f"Ray has ended: {self._last_words()}")
        return message

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            text = (self._folders[0] / LOG).read_text(encoding="utf-8", errors="replace")
            lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
            if lines:
                return lines[-1][:300]
        return "it said nothing"


def _python_path() -> dict[str, str]:
    """Say where modules are as it is meant here, for a process in another folder."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in paths if path)}


def _for_sockets(folder: Path) -> Path:
    """Say where Ray may have sockets: in a folder, or in a new one where its path is too long."""
    if _short(folder):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(folder / "trial"))  # not every file system has them
            return folder
    temporary = tempfile.gettempdir()
    parent = temporary if _short(Path(temporary, "maven-ray-12345678")) else "/tmp"
    return Path(tempfile.mkdtemp(prefix="maven-ray-", dir=parent))


def _short(folder: Path) -> bool:
    return len(os.fsencode(folder)) + OWN_NAMES_BYTES <= SOCKET_NAME_BYTES
