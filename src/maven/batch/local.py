"""The engine of one machine: workers that share its cores, each attended by a thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from maven.batch.attendant import Attendant
from maven.batch.worker import Job, Limits, Outcome, Task, on_gpu
from maven.confine import cores

NEEDED_BYTES = 3 * 2**28  # by a worker with the embedded model: 0.35 GiB; 1.5 with 4K
LARGE_NEEDED_BYTES = 6 * 2**30  # with others
LOOK_S = 0.2  # at how busy processors are
ENDED_WITHIN_S = 5.0  # by all threads whose worker was killed; one that fetches a file takes longer
CGROUPS = Path("/sys/fs/cgroup")
AHEAD = 2  # tasks a worker is given before it has done them, so that it need not wait


class Local:
    """Does tasks in processes of this machine.

    Args:
        job: what all tasks share, see `maven.batch.worker`.
        work: a folder for the workers' files.
        workers: processes; None for as many as cores and memory allow.
        limits: of a task.
    """

    def __init__(
        self, job: Job, work: Path, workers: int | None = None, limits: Limits | None = None
    ) -> None:
        self._job, self._work, self._limits = job, Path(work), limits or Limits()
        threads = int(job.get("threads") or 1)
        here = cores()
        n = workers or default_workers(job, len(groups(here, threads)))
        self._cores = groups(here if n * threads >= len(here) else idlest(here), threads)
        self._n, self._attendants = n, list[Attendant]()
        self._about: dict[str, Any] | None = None

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def about(self) -> dict[str, Any]:
        """Say what decides values beside content; starts the first worker.

        Raises:
            WorkerError: it cannot be started.
        """
        self._attend(1)
        self._about = self._attendants[0].about()
        return self._about

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield the outcome of every task, in the order in which they end.

        Tasks are taken in the thread that iterates, a few ahead. Ending the iteration early ends
        all workers.

        Raises:
            WorkerError: a worker cannot be started, or the model has changed; after the outcomes
                that were there.
        """
        self.about()
        self._attend(self._n)
        waiting: Queue[Task | None] = Queue()
        ended: Queue[Outcome | BaseException] = Queue()
        threads = [
            threading.Thread(target=_work, args=(attendant, waiting, ended), daemon=True)
            for attendant in self._attendants
        ]
        for thread in threads:
            thread.start()
        whole = False
        try:
            yield from _given(iter(tasks), AHEAD * self._n, waiting, ended)
            whole = True
        finally:
            if not whole:
                with contextlib.suppress(Empty):
                    while True:
                        waiting.get_nowait()
                for attendant in self._attendants:
                    attendant.stop()
            for _ in threads:
                waiting.put(None)
            end_s = time.monotonic() + ENDED_WITHIN_S
            for thread in threads:
                thread.join(None if whole else max(end_s - time.monotonic(), 0.0))
            if not whole:
                self.close()

    def close(self) -> None:
        """End all workers and remove their files."""
        attendants, self._attendants = self._attendants, []
        for attendant in attendants:
            attendant.close()

    def _attend(self, n: int) -> None:
        for number in range(len(self._attendants), n):
            own = self._cores[number % len(self._cores)]
            self._attendants.append(
                Attendant(self._job, self._work, cores=own, limits=self._limits, about=self._about)
            )


def _given(
    tasks: Iterator[Task],
    ahead: int,
    waiting: Queue[Task | None],
    ended: Queue[Outcome | BaseException],
) -> Iterator[Outcome]:
    """Give out tasks and yield outcomes; no more than `ahead` are under way."""
    under_way, more = 0, True
    while True:
        while more and under_way < ahead:
            task = next(tasks, None)
            more = task is not None
            if task is not None:
                waiting.put(task)
                under_way += 1
        if not under_way:
            return
        got = ended.get()
        if isinstance(got, BaseException):
            with contextlib.suppress(Empty):
                while True:
                    other = ended.get_nowait()
                    if not isinstance(other, BaseException):
                        yield other
            raise got
        under_way -= 1
        yield got


def _work(
    attendant: Attendant, waiting: Queue[Task | None], ended: Queue[Outcome | BaseException]
) -> None:
    try:
        while (task := waiting.get()) is not None:
            ended.put(attendant.do(task))
    except BaseException as error:  # it belongs to who iterates
        ended.put(error)


def groups(cores: Sequence[int], threads: int) -> list[list[int]]:
    """Part processors into groups of `threads`, at least one group; what is left over is left."""
    size = min(threads, len(cores))
    return [list(cores[i : i + size]) for i in range(0, len(cores) - size + 1, size)]


def idlest(cores: Sequence[int]) -> list[int]:
    """Order processors by how much they have to do, least first: another batch may run here."""
    before = _busy()
    time.sleep(LOOK_S)
    now = _busy()
    return sorted(cores, key=lambda core: now.get(core, 0) - before.get(core, 0))


def _busy() -> dict[int, int]:
    """What each processor has worked since the machine started, in the kernel's ticks."""
    found: dict[int, int] = {}
    with contextlib.suppress(OSError, ValueError):  # proc(5): user, nice, system, idle, iowait, ...
        for line in Path("/proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name.startswith("cpu") and name != "cpu":
                found[int(name[3:])] = sum(map(int, ticks)) - int(ticks[3]) - int(ticks[4])
    return found


def default_workers(job: Job, most: int) -> int:
    """As many workers as memory and a container's cores allow, up to `most`; one for a GPU."""
    if on_gpu(job):
        return 1
    mini = job.get("model", "mini") == "mini"
    allowed = cores_allowed()
    if allowed is not None:
        most = min(most, int(allowed // (job.get("threads") or 1)))
    free = free_bytes()
    fit = most if free is None else free // (NEEDED_BYTES if mini else LARGE_NEEDED_BYTES)
    return max(min(most, fit), 1)


def free_bytes() -> int | None:
    """Memory that is free here, also by the limit of a container; None where nobody says."""
    free: list[int] = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        free.append(int(line.split()[1]) * 1024)
    for folder in _cgroups("memory"):
        for most, used, cached in (
            ("memory.max", "memory.current", "inactive_file "),  # cgroup v2, v1
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
        ):
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
                limit = int((folder / most).read_text())
                limit -= int((folder / used).read_text())
                # What was read from files counts as used, and makes room when there is need.
                lines = (folder / "memory.stat").read_text().splitlines()
                free.append(limit + sum(int(x.split()[1]) for x in lines if x.startswith(cached)))
    return max(min(free), 0) if free else None


def cores_allowed() -> float | None:
    """How many processors' time a container may use, say 1.5; None where nobody limits it."""
    allowed: list[float] = []
    for folder in _cgroups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max 100000"
            quota, period = (folder / "cpu.max").read_text().split()
            allowed.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota = (folder / "cpu.cfs_quota_us").read_text()
            if int(quota) > 0:  # -1: none
                allowed.append(int(quota) / int((folder / "cpu.cfs_period_us").read_text()))
    return min(allowed, default=None)


def _cgroups(controller: str) -> Iterator[Path]:
    """The folders in which limits of this process stand: its own group's, and those around it."""
    own = "/"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
    group = CGROUPS / own.strip("/")
    yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(CGROUPS))
    yield CGROUPS / controller  # v1; in a container its own one
