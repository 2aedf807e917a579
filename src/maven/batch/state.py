"""What a batch has done and has to do, so that a kill at any moment costs no finished result.

A result takes its place whole and durably, then its row is written. Killed between the two, the
result is there without a row: it is taken over at the next start, and its file looked at again (a
hash, no analysis). A result without its place, or not as it was written, is done again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maven.batch import check, index, output, result, sources
from maven.batch.items import Item
from maven.batch.ledger import (
    DONE,
    FAILED,
    WAITING,
    DamagedError,
    File,
    Ledger,
    Outcome,
    Wanted,
    put_aside,
)
from maven.batch.output import StateError, writing
from maven.files import plain, printable, sync, whole

__all__ = ["Counts", "State", "StateError"]

TASK = ("path", "transcript", "start_s", "end_s", "size_bytes")  # of an item, for a worker
# Why a file is to be done; "" where it is not.
NEW, AGAIN, CHANGED, MISSING = "new", "failed", "changed", "missing"


@dataclass(frozen=True)
class Counts:
    """How many files of today there are of each kind.

    Attributes:
        new: never done.
        failed: without a result so far.
        changed: may have other content or another place than when they were done.
        missing: whose result is gone or damaged.
        done: with nothing to do.
        problems: that cannot even be looked at.
        todo_bytes: of those to be done, where sizes are known.
    """

    new: int = 0
    failed: int = 0
    changed: int = 0
    missing: int = 0
    done: int = 0
    problems: int = 0
    todo_bytes: int = 0

    @property
    def todo(self) -> int:
        """Files to be done."""
        return self.new + self.failed + self.changed + self.missing

    @property
    def total(self) -> int:
        """All files of today."""
        return self.todo + self.done + self.problems


class State:
    """The output folder of a batch, held against other batches; used as a context manager.

    `settle` comes first, then `plan`; then `tasks` and `commit`, in turns, and `write_index` and
    `rows` at any time; all of it in one thread. A folder that was made for it goes again where it
    is left before there is a plan.

    Attributes:
        folder: of the output.
        work: for what an engine writes, removed at the end; not there in a dry run.
        notes: one line each on what was found and done about it.
        settings: as given to `settle`.
    """

    def __init__(self, folder: Path, *, dry_run: bool = False) -> None:
        """Take the folder, and remove what a killed batch left half-written.

        Args:
            folder: of the output; made where it is not there.
            dry_run: write nothing into it.

        Raises:
            StateError: another batch holds it, it cannot be written, or it holds other things.
        """
        self.folder, self.dry_run = folder.absolute(), dry_run
        self.work = self.folder / output.WORK
        self.notes: list[str] = []
        self.settings: dict[str, Any] = {}
        self._key = ""
        self._results: Path = self.folder / result.RESULTS  # those of the settings
        with contextlib.ExitStack() as stack, writing(self.folder):
            self._ledger = self._open(stack)
            self._closing = stack.pop_all()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _open(self, stack: contextlib.ExitStack) -> Ledger:
        folder = self.folder
        made = not self.dry_run and output.made(folder)
        if folder.exists():
            stack.enter_context(output.held(folder, shared=self.dry_run))
            output.check_ours(folder)
            # Else another batch was quicker, and may have ended by now.
            made = made and not (folder / output.DATABASE).exists()
        self._refused = stack.enter_context(contextlib.ExitStack())
        if made:
            self._refused.callback(shutil.rmtree, folder, ignore_errors=True)
        database = folder / output.DATABASE
        if self.dry_run:
            copy = Path(tempfile.mkdtemp(prefix="maven-"))
            stack.callback(shutil.rmtree, copy, ignore_errors=True)
            for name in (output.DATABASE, f"{output.DATABASE}-journal"):
                if (folder / name).exists():  # the journal undoes in the copy what a kill left
                    shutil.copyfile(folder / name, copy / name)
            database = copy / output.DATABASE
        known = database.exists() or not (folder / result.RESULTS / output.SETTINGS).exists()
        if not known:
            self.notes.append(f"{output.DATABASE} was missing: made anew from the results")
        try:
            ledger = Ledger(database)
        except DamagedError as error:
            aside = put_aside(database.parent)
            self.notes.append(
                f"{output.DATABASE} {error}: kept as {aside}, made anew from the results"
            )
            ledger = Ledger(database)
        stack.callback(ledger.close)
        if not self.dry_run:
            output.clear(folder)
            self.work.mkdir()
            stack.callback(shutil.rmtree, self.work, ignore_errors=True)
        return ledger

    def settle(self, settings: Mapping[str, Any]) -> None:
        """Say what decides values beside the files; results of other settings are moved away.

        Then what lies in `results/` is compared with what is known of it.

        Raises:
            StateError: there are results of unknown settings, foreign or unreadable files.
        """
        with writing(self.folder):
            self.settings = json.loads(json.dumps(settings, allow_nan=False))
            self._key = output.key_of(self.settings)
            old = self._old_settings()
            if old is not None and old != self.settings:
                self.notes.append(output.moved(self.folder, old, self.settings))
            if self.dry_run:
                if old is None or output.key_of(old) != self._key:
                    self._results = self.folder / output.EARLIER / self._key
            elif not (
                output.settings_of(self._results) == self._ledger.settings() == self.settings
            ):
                # Unknown while they move: a kill leaves the word of results/_batch.json alone.
                self._ledger.set_settings(None)
                output.lay(self.folder, self.settings, old)
                self._ledger.set_settings(self.settings)
            self.notes += check.check(
                self._ledger, self.settings, self._results, dry_run=self.dry_run
            )
            table = self.folder / output.INDEX
            if table.exists() and not check.is_sound(table):
                self.notes.append(f"{output.INDEX} was cut or damaged: it is written anew")

    def _old_settings(self) -> dict[str, Any] | None:
        """Those of what lies in results/; None where nothing does."""
        old = output.settings_of(self._results)
        if old is None and next(output.places(self._results, dry_run=self.dry_run), None):
            old = self._ledger.settings()
            name = f"{result.RESULTS}/{output.SETTINGS}"
            if old is None:
                raise StateError(
                    f"{self.folder / name} is gone or damaged, so that nobody knows the settings"
                    f" of the results beside it: move {self._results} away"
                )
            self.notes.append(f"{name} was gone or damaged: written anew")
        return old

    def plan(self, items: Iterable[Item]) -> Counts:
        """Take in the files of today; memory does not grow with them.

        Raises:
            StateError: two of them have one id, or one has that of another file's result.
        """
        counts = dict.fromkeys(("new", "failed", "changed", "missing", "done", "problems"), 0)
        todo_bytes = 0
        with writing(self.folder), self._ledger.wanting():
            for position, item in enumerate(items):
                known = self._ledger.outcome(self._key, item.id)
                wanted = _wanted(position, item, known)
                if not self._want(wanted):
                    continue
                if other := check.taken(known, item):
                    raise _one_id("an earlier file and one of today", item.id, other, item.path)
                if item.problem is not None:
                    counts["problems"] += 1
                    known = known or Outcome(FAILED)
                    task = known.task if known.file else wanted.task
                    error = printable(index.shown(item.problem))
                    failed = replace(known, state=FAILED, error=error, task=task)
                    self._put(item.id, failed)
                    continue
                counts[wanted.todo or "done"] += 1
                todo_bytes += item.size_bytes or 0 if wanted.todo else 0
            others = 0
            for id, _, known in self._ledger.outcomes(self._key, unwanted=True):
                if known.file is None:
                    self._ledger.forget(self._key, id)
                else:
                    others += 1
        self._refused.pop_all()  # from now on the folder stays, however this ends
        if others:
            self.notes.append(
                f"{output.counted(others, 'file')} of earlier runs, not among today's inputs: kept"
            )
        return Counts(**counts, todo_bytes=todo_bytes)

    def _want(self, wanted: Wanted) -> bool:
        """Add a file of today; False: it is there already."""
        try:
            self._ledger.want(wanted)
        except sqlite3.IntegrityError:
            other = self._ledger.wanted(wanted.id)
            assert other is not None
            same_state = wanted.signature and other.signature == wanted.signature
            if other.task == wanted.task or (
                same_state and _unsigned(other.task) == _unsigned(wanted.task)
            ):  # without a state, what is not shown of a URL may be what tells them apart
                return False
            paths = other.task["path"], wanted.task["path"]
            raise _one_id("two inputs", wanted.id, *paths) from None
        return True

    def tasks(self, attempt: int) -> Iterator[dict[str, Any]]:
        """Yield what is to be done: 1: all of it; 2: what failed in a way worth another try.

        The largest come first: an hour that is begun last leaves all workers but one idle. Where
        a size is unknown, it may be as long.
        """
        condition = "todo != ''" if attempt == 1 else "again"
        last: Wanted | None = None
        while True:
            with writing(self.folder):
                page = self._ledger.largest_after(last, condition)
                tasks = [self._task(wanted) for wanted in page]
            yield from tasks
            if not page:
                return
            last = page[-1]

    def _task(self, wanted: Wanted) -> dict[str, Any]:
        known = self._ledger.outcome(self._key, wanted.id)
        key = known.record["key"] if known and known.file and known.record else None
        return {"id": wanted.id, **wanted.task, "known": None if key is None else {"key": key}}

    def commit(self, outcome: Mapping[str, Any]) -> int | None:
        """Keep an outcome: its result, whole and durably, then what is known of it.

        What failed loses an older result if its content has changed since.

        Returns:
            size_bytes: of the media file, where it is known.

        Raises:
            StateError: it cannot be written; nothing of it is there then.
        """
        id = outcome["id"]
        with writing(self.folder):
            wanted = self._ledger.wanted(id)
            assert wanted is not None, id
            known = self._ledger.outcome(self._key, id) or Outcome(WAITING)
            now = replace(known, task=wanted.task, error=None, state=DONE)
            if outcome["state"] == "same":
                now = replace(now, signature=wanted.signature)
            else:
                now = replace(
                    now,
                    attempts=wanted.tries + 1,
                    seconds=outcome.get("seconds"),
                    finished_ms=time.time_ns() // 10**6,
                )
                if outcome["state"] == DONE:
                    now = replace(
                        now,
                        record=plain(outcome["record"]),
                        file=self._keep(outcome),
                        signature=wanted.signature,
                    )
                else:
                    error = printable(index.shown(outcome["error"] or "failed"))
                    now = replace(now, state=FAILED, error=error)
                    if now.file is not None and check.is_of_other_content(known, wanted, outcome):
                        check.remove(self._path(result.place(id)))
                        now = check.without(now)
            again = outcome["state"] == FAILED and bool(outcome.get("again"))
            with self._ledger.change():
                self._put(id, now)
                self._ledger.tried(id, todo="", again=again)
        size_bytes: int | None = wanted.task["size_bytes"]
        return size_bytes

    def _keep(self, outcome: Mapping[str, Any]) -> File:
        """Give a result its place."""
        path = self._path(result.place(outcome["id"]))
        if not path.parent.exists():
            path.parent.mkdir()
            sync(path.parent.parent)
        with whole(path, durable=True) as part:
            if outcome.get("file") is None:
                part.write_bytes(outcome["content"])
            else:
                shutil.move(outcome["file"], part)
            written = check.described(part)
        return replace(written, ctime_ns=path.lstat().st_ctime_ns)

    def _path(self, place: str) -> Path:
        return check.under(self._results, place)

    def _put(self, id: str, outcome: Outcome) -> None:
        self._ledger.put(self._key, id, result.place(id), outcome)

    def write_index(self) -> None:
        """Write index.parquet and errors.csv, each whole or not at all.

        Raises:
            StateError: they cannot be written; the old ones stay.
        """
        with writing(self.folder):
            index.write(self.rows(), self.folder / output.INDEX, self.folder / output.ERRORS)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row of `index.COLUMNS` a file: today's in their order, then earlier ones by id.

        Those that have a `result` are exactly those whose result lies there.
        """
        last = -1
        while True:
            with writing(self.folder):
                page = self._ledger.wanted_after(last)
                known = [self._ledger.outcome(self._key, wanted.id) for wanted in page]
            for wanted, outcome in zip(page, known, strict=True):
                yield index.row(wanted.id, wanted, outcome)
            if not page:
                break
            last = page[-1].position
        for id, _, outcome in self._ledger.outcomes(self._key, unwanted=True):
            yield index.row(id, None, outcome)


def _wanted(position: int, item: Item, known: Outcome | None) -> Wanted:
    """Decide what is to be done with a file."""
    task = {name: getattr(item, name) for name in TASK}
    asked = item.signature, _unsigned(task)
    if item.problem is not None:
        todo = ""
    elif known is None:
        todo = NEW
    elif known.state == FAILED:
        todo = AGAIN
    elif known.file is None:
        todo = MISSING
    elif not item.signature or (known.signature, _unsigned(known.task)) != asked:
        todo = CHANGED
    else:
        todo = ""
    return Wanted(position, item.id, task, item.signature, todo)


def _unsigned(task: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give a task in which a URL that is signed anew is the same."""
    return {k: sources.shown(v) if isinstance(v, str) else v for k, v in (task or {}).items()}


def _one_id(which: str, id: str, *paths: str) -> StateError:
    first, second = map(index.shown, paths)
    return StateError(
        f"{which} have the id {id!r}: {first} and {second}; give them ids in a manifest, or do"
        " them into two folders"
    )
