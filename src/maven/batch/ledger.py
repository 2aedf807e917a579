"""What is known of the files of a batch, in SQLite; one process holds it.

Two tables: `outcomes`, a row a file and settings, each with a checksum, and `wanted`, the files of
today in their order. A database that is damaged is kept aside; what it knew stands in the results.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maven.batch.output import DATABASE, StateError, in_use, key_of
from maven.files import sync

DONE, FAILED, WAITING = "done", "failed", "waiting"
PAGE_ROWS = 500  # that are held at a time
FIRST_RANK = -(2**63)  # in the order in which files are done
VERSION = 1  # of what rows of `outcomes` say
MOST_BYTES = 2**62  # a server may claim any size
WANTED = "position, id, task, signature, todo, tries, again"  # columns, as `Wanted` has them
TABLES = {
    "about": "CREATE TABLE about (key TEXT NOT NULL, settings TEXT NOT NULL)",
    "outcomes": (
        "CREATE TABLE outcomes (settings TEXT NOT NULL, id TEXT NOT NULL, place TEXT NOT NULL,"
        " known TEXT NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (settings, id))"
    ),
    "wanted": (
        "CREATE TABLE wanted (position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
        " task TEXT NOT NULL, signature TEXT NOT NULL, todo TEXT NOT NULL,"
        " tries INTEGER NOT NULL DEFAULT 0, again INTEGER NOT NULL DEFAULT 0,"
        " rank INTEGER NOT NULL)"
    ),
    "by_place": "CREATE INDEX by_place ON outcomes (settings, place)",
    "by_rank": "CREATE INDEX by_rank ON wanted (rank, position)",
}
LASTING = ("about", "outcomes", "by_place")  # the others are filled anew by every run


@dataclass(frozen=True)
class File:
    """A result as it was when it took its place.

    Attributes:
        size_bytes, mtime_ns, ctime_ns: of the file system; as long as they are the same, so is it.
        sha256: of its bytes.
    """

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """What is known of one file under the settings of now.

    Attributes:
        state: done, failed, or waiting: its result was lost.
        task: what was asked when it ended (see `Wanted`); None: unknown.
        signature: of the content that the result, or the failure, is of; None: unknown.
        record: what the result says of itself; None: there is no result.
        file: the result; None: there is none.
        error, attempts, seconds: how it ended in the last run that did it.
        finished_ms: when, since 1970, UTC.
    """

    state: str
    task: dict[str, Any] | None = None
    signature: str | None = None
    record: dict[str, Any] | None = None
    file: File | None = None
    error: str | None = None
    attempts: int = 0
    seconds: float | None = None
    finished_ms: int | None = None


@dataclass(frozen=True)
class Wanted:
    """A file of today.

    Attributes:
        position: in the order of the inputs.
        task: path, transcript, start_s, end_s, size_bytes.
        signature: of its content, as listed; "" where unknown.
        todo: why it is to be done (new, failed, changed, missing), "" where it is not.
        tries: how often this run has tried.
        again: it failed in a way that is worth another try.
    """

    position: int
    id: str
    task: dict[str, Any]
    signature: str
    todo: str
    tries: int = 0
    again: bool = False


class DamagedError(StateError):
    """The database does not hold what this version wrote; says of it what it "is" or "was"."""


class Ledger:
    """The database, for the thread that opened it.

    Errors of SQLite travel on as they are, for `maven.batch.output.writing`.
    """

    def __init__(self, path: Path) -> None:
        """Open or make it, and hold it against other processes until `close`.

        Raises:
            DamagedError: it is to be put aside (`put_aside`).
            StateError: another process holds it, or it is not from a batch.
        """
        self.path = path
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
        self._db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        try:
            self._open()
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" in str(error):
                raise in_use(path.parent) from None
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self._db.close()  # no database, or a malformed one; its names may be no text
            reason = "malformed" if isinstance(error, UnicodeDecodeError) else str(error)
            raise DamagedError(f"was damaged ({reason})") from error
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        # Exclusive also where the folder's lock does not reach: another machine. So the journal is
        # ended by overwriting its head, which is synced, and removed by `close` alone
        # (sqlite.org/pragma.html#pragma_locking_mode): to set journal_mode = PERSIST changes
        # nothing, but that it would stay. EXTRA: the folder is synced where it is removed.
        for pragma in ("locking_mode = EXCLUSIVE", "synchronous = EXTRA", "temp_store = MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        with self.change():
            there = self._tables()
            if there and not there.keys() & TABLES.keys():
                raise StateError(f"{self.path} is not from a maven batch: choose another folder")
            if not there:
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version != VERSION:
                raise DamagedError(f"is of another version ({version}, not {VERSION})")
            if there and there != TABLES:
                self._db.execute("DROP TABLE IF EXISTS wanted")  # and its indices
                there = self._tables()
                if there != {name: TABLES[name] for name in LASTING}:
                    raise DamagedError("was damaged (it has other tables)")
            for name in (name for name in TABLES if name not in there):
                self._db.execute(TABLES[name])
        if self._db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
            raise DamagedError("was damaged (its pages do not fit together)")
        for *values, crc in self._db.execute(
            "SELECT settings, id, place, known, crc FROM outcomes"
        ):
            if _crc(*values) != crc:
                raise DamagedError("was damaged (its rows are not as they were written)")

    def _tables(self) -> dict[str, str]:
        """Tables and indices, but those that SQLite makes itself."""
        return dict(self._db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))

    def close(self) -> None:
        """Let it go."""
        self._db.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Make all changes of a block, or none."""
        self._db.execute("BEGIN EXCLUSIVE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def settings(self) -> dict[str, Any] | None:
        """Return those whose results lay in `results/` last; None: unknown."""
        found = self._db.execute("SELECT key, settings FROM about").fetchone()
        settings: dict[str, Any] | None = None if found is None else json.loads(found[1])
        return settings if settings is not None and key_of(settings) == found[0] else None

    def set_settings(self, settings: dict[str, Any] | None) -> None:
        """Remember them."""
        with self.change():
            self._db.execute("DELETE FROM about")
            if settings is not None:
                values = (key_of(settings), json.dumps(settings))
                self._db.execute("INSERT INTO about VALUES (?, ?)", values)

    def outcome(self, key: str, id: str) -> Outcome | None:
        """Return what is known of a file under the settings of a key."""
        found = self._db.execute(
            "SELECT known FROM outcomes WHERE settings = ? AND id = ?", (key, id)
        ).fetchone()
        return None if found is None else _outcome(found[0])

    def id_at(self, key: str, place: str) -> str | None:
        """Return whose result would lie at a place."""
        found = self._db.execute(
            "SELECT id FROM outcomes WHERE settings = ? AND place = ?", (key, place)
        ).fetchone()
        return None if found is None else found[0]

    def put(self, key: str, id: str, place: str, outcome: Outcome) -> None:
        """Write what is known of a file."""
        known = json.dumps(asdict(outcome), sort_keys=True)
        values = (key, id, place, known)
        self._db.execute(
            "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?)", (*values, _crc(*values))
        )

    def outcomes(self, key: str, *, unwanted: bool = False) -> Iterator[tuple[str, str, Outcome]]:
        """Yield id, place and what is known, by id; `unwanted`: of files that are not of today.

        It may be changed meanwhile.
        """
        last = ""
        other = "AND id NOT IN (SELECT id FROM wanted)" if unwanted else ""
        statement = (
            f"SELECT id, place, known FROM outcomes WHERE settings = ? AND id > ? {other}"
            " ORDER BY id LIMIT ?"
        )
        while True:
            found = self._db.execute(statement, (key, last, PAGE_ROWS)).fetchall()
            for id, place, known in found:
                yield id, place, _outcome(known)
            if not found:
                return
            last = found[-1][0]

    def forget(self, key: str, id: str) -> None:
        """Remove what is known of a file."""
        self._db.execute("DELETE FROM outcomes WHERE settings = ? AND id = ?", (key, id))

    @contextmanager
    def wanting(self) -> Iterator[None]:
        """Take in the files of today, in place of those of the last run, in one `change`."""
        with self.change():
            self._db.execute("DELETE FROM wanted")
            self._db.execute("DROP INDEX by_rank")  # quicker made at the end than kept in order
            yield
            self._db.execute(TABLES["by_rank"])

    def want(self, wanted: Wanted) -> None:
        """Add a file of today.

        Raises:
            sqlite3.IntegrityError: there is one with its id.
        """
        self._db.execute(
            "INSERT INTO wanted VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (wanted.position, wanted.id, json.dumps(wanted.task, sort_keys=True),
             wanted.signature, wanted.todo, wanted.tries, wanted.again, _rank(wanted)),
        )  # fmt: skip

    def tried(self, id: str, *, todo: str, again: bool) -> None:
        """Write that a file of today has been tried once more."""
        self._db.execute(
            "UPDATE wanted SET tries = tries + 1, todo = ?, again = ? WHERE id = ?",
            (todo, again, id),
        )

    def wanted(self, id: str) -> Wanted | None:
        """Return a file of today."""
        found = self._db.execute(f"SELECT {WANTED} FROM wanted WHERE id = ?", (id,)).fetchone()
        return None if found is None else _wanted(found)

    def wanted_after(self, position: int) -> list[Wanted]:
        """Return the next files of today after a position."""
        found = self._db.execute(
            f"SELECT {WANTED} FROM wanted WHERE position > ? ORDER BY position LIMIT ?",
            (position, PAGE_ROWS),
        )
        return [_wanted(row) for row in found]

    def largest_after(self, last: Wanted | None, condition: str) -> list[Wanted]:
        """Return the next files of today that meet a condition of SQL, the largest first.

        Those of unknown size come before all others, equal ones in the order of the inputs.
        """
        rank, position = (FIRST_RANK, -1) if last is None else (_rank(last), last.position)
        select = f"SELECT {WANTED} FROM wanted WHERE ({condition}) AND"
        end = "ORDER BY rank, position LIMIT ?"
        # In two steps: of (rank, position) > (?, ?) SQLite looks up the rank alone, and goes
        # through all that are equal.
        found = self._db.execute(
            f"{select} rank = ? AND position > ? {end}", (rank, position, PAGE_ROWS)
        ).fetchall()
        found = found or self._db.execute(f"{select} rank > ? {end}", (rank, PAGE_ROWS)).fetchall()
        return [_wanted(row) for row in found]


def _crc(*values: str) -> int:
    return zlib.crc32("\0".join(values).encode())


def _outcome(known: str) -> Outcome:
    values = json.loads(known)
    file = values.pop("file")
    return Outcome(**values, file=None if file is None else File(**file))


def _rank(wanted: Wanted) -> int:
    size_bytes = wanted.task["size_bytes"]
    return FIRST_RANK if size_bytes is None else -min(size_bytes, MOST_BYTES)


def _wanted(row: tuple[Any, ...]) -> Wanted:
    position, id, task, signature, todo, tries, again = row
    return Wanted(position, id, json.loads(task), signature, todo, tries, bool(again))


def put_aside(folder: Path) -> str:
    """Give a damaged database another name; return it.

    Raises:
        OSError: it cannot be renamed.
    """
    number = 1
    while (folder / f"{DATABASE}.damaged-{number}").exists():
        number += 1
    name = f"{DATABASE}.damaged-{number}"
    # The database first: a journal alone is rubbish to SQLite, a database without its journal is
    # half a change that looks whole.
    (folder / DATABASE).rename(folder / name)
    journal = folder / f"{DATABASE}-journal"
    if journal.exists():
        journal.rename(folder / f"{name}-journal")
    sync(folder)
    return name
