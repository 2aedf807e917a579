"""Where an attendant sits on a node of a Ray cluster: an actor that holds one and its cores."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
import traceback
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maven.batch.attendant import Attendant, WorkerError
from maven.batch.feed import GONE
from maven.batch.sources import scheme
from maven.batch.worker import Limits, failed

if TYPE_CHECKING:
    import numpy as np

RETRY_S = 0.1  # while another seat unpacks a model
TROUBLED_S = 5.0  # a seat that cannot work takes no more rows for so long
CORE_NAME = "\0maven-core"  # of a socket: no file
ABOUT = "about"  # a row that asks what decides values


@dataclass(frozen=True)
class Place:
    """What every seat is told.

    Attributes:
        job: what is done, as attendants take it.
        limits: of a worker.
        work: folder for scratch files, on the machine that `machine` names.
        machine: where the batch was started, as `this_machine` says.
        model: the model folder's files, in Ray's object store; None where nothing was sent.
        model_hash: of those files.
    """

    job: dict[str, Any]
    limits: Limits
    work: str
    machine: str
    model: Any = None
    model_hash: str = ""


class Seat:
    """A callable for Ray Data: a row with a task -> a row with its outcome and its result's bytes.

    Where it cannot work that is a row too ({"unfit": one line, "seat", "id" of the task}): an
    exception would come back with Ray's tracebacks around it, or not at all, its row dropped.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._attendant: Attendant | None = None
        self._said_about = False
        self._name = secrets.token_hex(8)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Do the task of a row.

        Args:
            row: {"task": JSON of a task, or `ABOUT`}.

        Returns:
            {"message": JSON, "content": bytes of the result, empty where there is none}
        """
        content = b""
        task = None if row["task"] in (ABOUT, GONE) else json.loads(row["task"])
        try:
            message: dict[str, Any] = {}
            if not self._said_about:
                message |= {"about": self._attended().about(), "host": socket.gethostname()}
            if task is not None:
                outcome = self._outcome(task)
                file = outcome.get("file")
                if file is not None:
                    content = Path(file).read_bytes()
                    Path(file).unlink()
                message["outcome"] = {**outcome, "file": None}
                message["result"] = file is not None
            self._said_about = True
        except (WorkerError, OSError) as error:
            message = {"unfit": self._named(error), "seat": self._name}
            message["id"] = None if task is None else task["id"]
            if task is not None:
                time.sleep(TROUBLED_S)  # others take what comes meanwhile
        except Exception as error:  # Ray would drop the row without a word
            traceback.print_exc()
            if task is None:
                message = {"unfit": self._named(error), "seat": self._name, "id": None}
            else:
                reason = f"{task.get('path')}: {type(error).__name__}: {self._named(error)}"
                message = {"outcome": failed(task["id"], reason, again=True), "result": False}
        return {"message": json.dumps(message), "content": content}

    def _named(self, error: Exception) -> str:
        """Make one line of an error, with the machine where that is another."""
        reason = " ".join(str(error).split())
        return reason if self._here else f"{socket.gethostname()}: {reason}"

    @property
    def _here(self) -> bool:
        return self._place.machine == this_machine()

    def _outcome(self, task: dict[str, Any]) -> dict[str, Any]:
        for path in (task.get("path"), task.get("transcript")):
            if path and not self._here and scheme(path) is None and not os.path.lexists(path):
                lacking = f"{path}: not there on {socket.gethostname()}; with --engine ray, local"
                error = f"{lacking} paths must be visible on every machine of the cluster"
                return failed(task["id"], error, again=True)
        return self._attended().do(task)

    def _attended(self) -> Attendant:
        if self._attendant is None:
            place = self._place
            near = place.work if self._here and Path(place.work).is_dir() else None
            with contextlib.ExitStack() as stack:
                folder = stack.enter_context(_removed(tempfile.mkdtemp(prefix="maven-", dir=near)))
                job = dict(place.job)
                if place.model is not None:
                    where = stack.enter_context(unpacked(place.model, place.model_hash))
                    job["model"] = str(where / Path(job["model"]).name)
                cores = stack.enter_context(claimed(job.get("threads") or 1))
                # The package may have come with the job: its worker must find the same one.
                source = str(Path(__file__).resolve().parents[2])
                others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
                paths = [source, *(path for path in others if path and path != source)]
                os.environ["PYTHONPATH"] = os.pathsep.join(paths)
                self._attendant = Attendant(job, folder, cores=cores, limits=place.limits)
                stack.callback(self._attendant.close)
                weakref.finalize(self, stack.pop_all().close)  # at the process's end too
        return self._attendant


@contextlib.contextmanager
def _removed(folder: str) -> Iterator[Path]:
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def this_machine() -> str:
    """Name this machine, and its files, as no other is named, until it is started again."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/mnt').readlink()}"  # containers share the first
    return socket.gethostname()


@contextlib.contextmanager
def claimed(threads: int) -> Iterator[Sequence[int] | None]:
    """Claim processor cores that no other seat on this machine has, while the block runs.

    A core is claimed by a socket of an abstract name, which nothing connects to: it leaves no file,
    and the kernel frees it however its process ends.

    Yields:
        `threads` cores; None where there are not as many free ones, or no such sockets.
    """
    cores: list[int] = []
    with contextlib.ExitStack() as stack:
        if hasattr(os, "sched_getaffinity"):
            for core in sorted(os.sched_getaffinity(0)):
                name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                try:
                    name.bind(f"{CORE_NAME}-{core}")
                except OSError:
                    name.close()
                    continue
                stack.enter_context(name)
                cores.append(core)
                if len(cores) == threads:
                    break
        if len(cores) < threads:
            stack.close()
        yield cores if len(cores) == threads else None


def packed(folder: Path) -> tuple[dict[str, np.ndarray], str]:
    """Read a model folder: its files as bytes by relative path, and the hash of all."""
    import numpy as np

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": np.fromfile(path, dtype=np.uint8)
        for path in files
    }
    return content, content_hash(content)


def content_hash(content: Mapping[str, np.ndarray]) -> str:
    """Hash names and bytes of files."""
    digest = hashlib.sha256()
    for name, value in sorted(content.items()):
        digest.update(f"{name}\0{hashlib.sha256(value.data).hexdigest()}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def unpacked(reference: Any, expected_hash: str) -> Iterator[Path]:
    """Have a sent model in a folder of this machine, written by the first seat that needs it.

    The last one that leaves removes it: each holds a shared lock meanwhile.

    Raises:
        WorkerError: what came is not what was sent.
    """
    folder = Path(tempfile.gettempdir()) / f"maven-model-{os.getuid()}-{expected_hash[:16]}"
    lock_path = folder.with_suffix(".lock")
    while True:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if _held(lock, folder, reference, expected_hash):
                break
        except BaseException:
            _left(lock, lock_path, folder)
            raise
        os.close(lock)
        time.sleep(RETRY_S)
    try:
        if folder.stat().st_uid != os.getuid():
            raise WorkerError(f"{folder} belongs to somebody else")
        yield folder
    finally:
        _left(lock, lock_path, folder)


def _held(lock: int, folder: Path, reference: Any, expected_hash: str) -> bool:
    """Take the shared lock with the model there; False: others are at it, try again."""
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_SH)
    if not os.fstat(lock).st_nlink:
        return False  # the last one before has just removed it
    if not folder.is_dir():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(lock).st_nlink and not folder.is_dir():
            _unpack(reference, expected_hash, folder)
        fcntl.flock(lock, fcntl.LOCK_SH)
    return bool(os.fstat(lock).st_nlink)


def _left(lock: int, lock_path: Path, folder: Path) -> None:
    """Give the lock back; who can have it alone is the last one, and removes everything."""
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = folder.with_name(f"{folder.name}-{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            folder.rename(gone)  # so that nobody takes what a kill leaves of it for the whole
        shutil.rmtree(gone, ignore_errors=True)
        lock_path.unlink()
    os.close(lock)


def _unpack(reference: Any, expected_hash: str, folder: Path) -> None:
    import ray

    content = ray.get(reference)
    if content_hash(content) != expected_hash:
        raise WorkerError("the model that arrived is not the one that was sent")
    for left in folder.parent.glob(f"{folder.name}-*"):  # by seats that were killed
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        for name, value in content.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value.data)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
