"""A batch from beginning to end: plan, have an engine do what is to be done, commit, sum up."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from maven.batch.items import Item
from maven.batch.output import PAGE, writing
from maven.batch.state import Counts, State, StateError

INDEX_EVERY_S = 60.0  # at least; and never more than a hundredth of the time
SHARE_OF_TIME = 0.01
ATTEMPTS = 2  # of what hangs, crashes or eats memory


class Engine(Protocol):
    """What does tasks: `maven.batch.local.Local`, `maven.batch.cluster.Cluster`."""

    def about(self) -> dict[str, Any]:
        """Say what decides values beside a file's content: model, versions."""
        ...

    def run(self, tasks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield one outcome a task, in any order."""
        ...


# Makes an engine whose scratch files lie in the folder given.
EngineFor = Callable[[Path], AbstractContextManager[Engine]]


@dataclass(frozen=True)
class Progress:
    """How far a batch is.

    Attributes:
        finished: files that have ended in this run, well or not.
        failed: of them, those without a result.
        todo: files that this run has to do.
        media_s: seconds of media analysed in this run.
        elapsed_s: since the first task was given out.
        left_s: until the end, at the speed so far; None while nothing is known.
    """

    finished: int
    failed: int
    todo: int
    media_s: float
    elapsed_s: float
    left_s: float | None


@dataclass(frozen=True)
class Ended:
    """What became of a batch.

    Attributes:
        counts: what was found before it began.
        progress: how far it came.
        notes: one line each on what was found in the folder and done about it.
    """

    counts: Counts
    progress: Progress
    notes: tuple[str, ...]


class Meter:
    """Counts outcomes and foretells the end, by bytes where the sizes are known, else by files."""

    def __init__(self, counts: Counts) -> None:
        self._todo, self._todo_bytes = counts.todo, counts.todo_bytes
        self._finished = self._failed = self._done_bytes = 0
        self._media_s, self._start_s = 0.0, time.monotonic()

    def count(self, outcome: Mapping[str, Any], size_bytes: int | None) -> None:
        """Take in how a file ended for good."""
        self._finished += 1
        self._failed += outcome["state"] == "failed"
        self._done_bytes += size_bytes or 0
        record = outcome.get("record") or {}
        if outcome["state"] == "done":
            self._media_s += record.get("duration_s") or 0.0

    def read(self) -> Progress:
        """Say how far it is now."""
        elapsed_s = time.monotonic() - self._start_s
        done, todo = self._finished, self._todo
        if self._todo_bytes and self._done_bytes:
            done, todo = self._done_bytes, self._todo_bytes
        left_s = elapsed_s * max(todo - done, 0) / done if done else None
        return Progress(self._finished, self._failed, self._todo, self._media_s, elapsed_s, left_s)


def run(
    items: Iterable[Item],
    folder: Path,
    engine_for: EngineFor,
    settings: Mapping[str, Any],
    *,
    dry_run: bool = False,
    planned: Callable[[Counts, tuple[str, ...]], None] | None = None,
    tell: Callable[[Progress], None] | None = None,
) -> Ended:
    """Do what is missing, failed or changed, and leave an index of everything.

    However it ends, what was finished is in `folder` and in its index; the same call goes on.

    Args:
        items: the files, in order.
        folder: of the output, made if need be; one made for inputs that are refused goes again.
        engine_for: makes the engine.
        settings: what decides values beside the files and what the engine says of itself.
        dry_run: plan only, and write nothing.
        planned: called once when it is known what there is to do, with notes on what was found.
        tell: called after every file that has ended.

    Raises:
        StateError: the folder is held by another run, foreign, damaged or cannot be written.
        WorkerError: no worker can be started, or the model changed meanwhile.
        InputError: of `items`.
    """
    listed = iter(items)
    first = list(islice(listed, 1))  # what is wrong with the inputs is said before all else
    with contextlib.ExitStack() as stack:
        state = stack.enter_context(State(folder, dry_run=dry_run))
        scratch = state.work
        if dry_run:
            scratch = Path(tempfile.mkdtemp(prefix="maven-"))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        engine = stack.enter_context(engine_for(scratch))
        state.settle({**engine.about(), "settings": dict(settings)})
        counts = state.plan(chain(first, listed))
        if planned is not None:
            planned(counts, tuple(state.notes))
        meter = Meter(counts)
        if not dry_run:
            _work(state, engine, meter, tell or (lambda progress: None))
        return Ended(counts, meter.read(), tuple(state.notes))


def _work(state: State, engine: Engine, meter: Meter, tell: Callable[[Progress], None]) -> None:
    """Have all tasks done, those that went wrong in an odd way once more, at the end."""
    try:
        indexed_s, took_s = time.monotonic(), 0.0
        for attempt in range(1, ATTEMPTS + 1):
            for outcome in engine.run(state.tasks(attempt)):
                again = outcome["state"] == "failed" and outcome["again"]
                size_bytes = state.commit(outcome)
                if not again or attempt == ATTEMPTS:
                    meter.count(outcome, size_bytes)
                    tell(meter.read())
                began_s = time.monotonic()
                if began_s - indexed_s > max(INDEX_EVERY_S, took_s / SHARE_OF_TIME):
                    _index(state, meter)
                    indexed_s = time.monotonic()
                    took_s = indexed_s - began_s
    except BaseException:
        with contextlib.suppress(StateError):  # of the two, the first one is said
            _index(state, meter)
        raise
    _index(state, meter)


def _index(state: State, meter: Meter) -> None:
    """Write index, errors and summary page."""
    from maven.render.batch_page import write_batch_page

    state.write_index()
    progress = meter.read()
    about = {
        "settings": state.settings,
        "media_s": progress.media_s,
        "elapsed_s": progress.elapsed_s,
    }
    with writing(state.folder):
        write_batch_page(state.rows(), about, state.folder / PAGE)
