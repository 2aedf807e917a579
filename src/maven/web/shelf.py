"""What the server keeps: clips, their states and ratings in SQLite, their files in folders.

The database is the truth; a folder without a row is rubbish and goes at the next start. The name
of a clip is only ever a value in a row: paths are made of ids, and ids of nothing but chance.
Files are unlinked when a clip is deleted, and its rows overwritten (`secure_delete`).
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TextIO

State = Literal["queued", "running", "done", "failed", "cancelled"]
OverlayState = Literal["none", "queued", "running", "done", "failed"]
Task = Literal["analysis", "overlay"]

UPLOAD = "upload"  # in a clip's folder: what was sent
TABLES = """
CREATE TABLE IF NOT EXISTS clips (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created_s REAL NOT NULL,
    size_bytes INTEGER NOT NULL,
    length_s REAL,
    state TEXT NOT NULL DEFAULT 'queued',
    turn INTEGER NOT NULL DEFAULT 0,
    stage TEXT,
    progress REAL,
    error TEXT,
    settings TEXT NOT NULL,
    files TEXT NOT NULL DEFAULT '[]',
    overlay_state TEXT NOT NULL DEFAULT 'none',
    overlay_turn INTEGER NOT NULL DEFAULT 0,
    overlay_blur INTEGER NOT NULL DEFAULT 0,
    overlay_progress REAL,
    overlay_error TEXT
);
CREATE TABLE IF NOT EXISTS ratings (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    clip TEXT NOT NULL REFERENCES clips (id) ON DELETE CASCADE,
    created_s REAL NOT NULL,
    content TEXT NOT NULL
);
"""


class ShelfError(Exception):
    """The folder cannot be used; the message is one line that names it."""


class NoClipError(Exception):
    """There is no clip, or no rating, of this id; the message is one line."""


@dataclass(frozen=True)
class Clip:
    """A clip as the database has it.

    Attributes:
        id: cannot be guessed (128 bits of chance).
        name: as its owner calls it; only shown, never a path.
        created_s: when it came, in seconds since 1970.
        size_bytes, length_s: of the upload; its length is None until somebody has looked.
        state, stage, progress, error: of the analysis; progress is 0 to 1 of the whole.
        turn: place in the line; lower is earlier.
        settings: faces, asr and the name of the transcript that came along.
        files: kinds of results that there are.
        overlay_state, overlay_turn, overlay_blur, overlay_progress, overlay_error: of the overlay.
    """

    id: str
    name: str
    created_s: float
    size_bytes: int
    length_s: float | None
    state: State
    turn: int
    stage: str | None
    progress: float | None
    error: str | None
    settings: Mapping[str, Any]
    files: tuple[str, ...]
    overlay_state: OverlayState
    overlay_turn: int
    overlay_blur: bool
    overlay_progress: float | None
    overlay_error: str | None


CLIP_COLUMNS = tuple(field.name for field in fields(Clip))


def new_id() -> str:
    """Make an id of 128 random bits that is a file name and a part of an address as it is."""
    return secrets.token_urlsafe(16)


class Shelf:
    """The only reader and writer of the database; safe to be used from several threads.

    Args:
        folder: where everything is; made when it is not there, closed to other users.

    Raises:
        ShelfError: what is there is no database of ours.
    """

    def __init__(self, folder: Path) -> None:
        folder = folder.absolute()  # workers have another current folder
        self.place = folder
        self.clips_folder = folder / "clips"
        self.incoming = folder / "incoming"  # uploads that are not complete
        file = folder / "maven.sqlite"
        if not file.exists() and foreign(folder):
            raise ShelfError(
                f"{folder}: holds other things; accepted: a new folder, or one of maven serve"
            )
        for path in (folder, self.clips_folder, self.incoming):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        file.touch(mode=0o600)
        file.chmod(0o600)  # SQLite gives its journal the same
        self._claim: TextIO | None = None
        self._lock = threading.RLock()
        self._base = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._base.row_factory = sqlite3.Row
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            raise ShelfError(f"{file}: not a database of maven ({error})") from None

    def _prepare(self) -> None:
        for pragma in (
            "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON",
        ):  # fmt: skip
            self._base.execute(f"PRAGMA {pragma}")
        self._base.executescript(TABLES)

    def claim(self) -> None:
        """Take the folder for this process, as long as it lives.

        Raises:
            ShelfError: another server works on it.
        """
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        self._claim = (self.place / "lock").open("a")
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ShelfError(f"{self.place}: another maven serve works in this folder") from None

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._base.close()
        if self._claim is not None:
            self._claim.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone."""
        with self._lock:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
            except BaseException:
                self._base.execute("ROLLBACK")
                raise
            self._base.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._base.execute(query, values).fetchall()

    # Clips

    def clips(self) -> list[Clip]:
        """All clips, newest first."""
        return [_clip(row) for row in self._rows("SELECT * FROM clips ORDER BY number DESC")]

    def clip(self, clip_id: str) -> Clip:
        """Return the clip of an id.

        Raises:
            NoClipError: there is none.
        """
        rows = self._rows("SELECT * FROM clips WHERE id = ?", clip_id)
        if not rows:
            raise NoClipError("there is no such clip")
        return _clip(rows[0])

    def folder(self, clip_id: str) -> Path:
        """Return the folder of a clip that there is, so that no other text becomes a path.

        Raises:
            NoClipError: there is none.
        """
        return self.clips_folder / self.clip(clip_id).id

    def upload(self, clip_id: str) -> Path:
        """Return where a clip's upload is, or was.

        Raises:
            NoClipError: there is no such clip.
        """
        return self.folder(clip_id) / UPLOAD

    def add(self, clip_id: str, name: str, size_bytes: int, settings: Mapping[str, Any]) -> Clip:
        """Take in a clip whose folder is in place, at the end of the line."""
        with self._writing() as base:
            base.execute(
                "INSERT INTO clips (id, name, created_s, size_bytes, settings, turn)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (clip_id, name, time.time(), size_bytes, json.dumps(dict(settings)), self._turn()),
            )
        return self.clip(clip_id)

    def change(self, clip_id: str, only_if: str = "TRUE", **values: Any) -> bool:
        """Set columns of a clip where a condition of ours holds; tell whether there was one."""
        assert set(values) <= set(CLIP_COLUMNS)
        if "files" in values:
            values["files"] = json.dumps(list(values["files"]))
        columns = ", ".join(f"{name} = ?" for name in values)
        with self._writing() as base:
            query = f"UPDATE clips SET {columns} WHERE id = ? AND {only_if}"
            return base.execute(query, (*values.values(), clip_id)).rowcount > 0

    def delete(self, clip_id: str) -> None:
        """Remove a clip with its ratings and files; what is written of it is overwritten.

        Raises:
            NoClipError: there is none.
        """
        folder = self.folder(clip_id)
        with self._writing() as base:
            base.execute("DELETE FROM clips WHERE id = ?", (clip_id,))
        shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # The line

    def queue(self, clip_id: str, task: Task, only_if: str, **values: Any) -> bool:
        """Put a clip's analysis or overlay at the end of the line, where a condition holds."""
        prefix = "" if task == "analysis" else "overlay_"
        with self._lock:
            line = {f"{prefix}state": "queued", f"{prefix}turn": self._turn()}
            empty = {f"{prefix}progress": None, f"{prefix}error": None}
            return self.change(clip_id, only_if, **line, **empty, **values)

    def first(self) -> tuple[Task, Clip] | None:
        """Take what is first in the line, which runs from then on."""
        with self._lock:
            rows = self._rows(
                "SELECT 'analysis' AS task, id, turn AS place FROM clips WHERE state = 'queued'"
                " UNION ALL SELECT 'overlay', id, overlay_turn FROM clips"
                " WHERE overlay_state = 'queued' ORDER BY place LIMIT 1"
            )
            if not rows:
                return None
            task: Task = rows[0]["task"]
            prefix = "" if task == "analysis" else "overlay_"
            begun: dict[str, Any] = {f"{prefix}state": "running", f"{prefix}progress": 0.0}
            self.change(rows[0]["id"], **begun)
            return task, self.clip(rows[0]["id"])

    def position(self, clip: Clip) -> int | None:
        """How many are before a clip that waits; None for one that does not."""
        if clip.state != "queued":
            return None
        rows = self._rows(
            "SELECT (SELECT count(*) FROM clips WHERE state = 'queued' AND turn < ?)"
            " + (SELECT count(*) FROM clips WHERE overlay_state = 'queued' AND overlay_turn < ?)",
            clip.turn,
            clip.turn,
        )
        return int(rows[0][0])

    def _turn(self) -> int:
        row = self._rows("SELECT max(max(turn), max(overlay_turn)) FROM clips")[0]
        return int(row[0] or 0) + 1

    def recover(self) -> None:
        """Bring database and folders into agreement, when no worker runs: at the start.

        What ran is in the line again, at its old place; folders without a row go, and rows without
        a folder have failed.
        """
        with self._writing() as base:
            base.execute("UPDATE clips SET state = 'queued', stage = NULL, progress = NULL"
                         " WHERE state = 'running'")  # fmt: skip
            base.execute("UPDATE clips SET overlay_state = 'queued', overlay_progress = NULL"
                         " WHERE overlay_state = 'running'")  # fmt: skip
        known = {clip.id: clip for clip in self.clips()}
        for path in (*self.clips_folder.iterdir(), *self.incoming.iterdir()):
            if path.parent == self.incoming or path.name not in known:
                whole_folder = path.is_dir() and not path.is_symlink()
                shutil.rmtree(path) if whole_folder else path.unlink()
        for clip in known.values():
            if clip.state in ("queued", "done") and not (self.clips_folder / clip.id).is_dir():
                self.change(clip.id, state="failed", stage=None, progress=None, files=(),
                            overlay_state="none", error="its files are gone")  # fmt: skip

    # Ratings

    def ratings(self, clip_id: str) -> list[dict[str, Any]]:
        """Ratings of a clip, oldest first: what was given, with "id" and "created_s" added.

        Raises:
            NoClipError: there is no such clip.
        """
        self.clip(clip_id)
        rows = self._rows("SELECT * FROM ratings WHERE clip = ? ORDER BY number", clip_id)
        return [
            {**json.loads(row["content"]), "id": row["id"], "created_s": row["created_s"]}
            for row in rows
        ]

    def add_rating(self, clip_id: str, content: Mapping[str, Any]) -> str:
        """Keep a rating, a mapping that strict JSON takes; return its id.

        Raises:
            NoClipError: there is no such clip.
            ValueError: a number is not finite.
        """
        text, rating_id = json.dumps(dict(content), allow_nan=False), new_id()
        with self._lock:
            self.clip(clip_id)
            with self._writing() as base:
                base.execute(
                    "INSERT INTO ratings (id, clip, created_s, content) VALUES (?, ?, ?, ?)",
                    (rating_id, clip_id, time.time(), text),
                )
        return rating_id

    def delete_rating(self, clip_id: str, rating_id: str) -> None:
        """Remove a rating.

        Raises:
            NoClipError: the clip has no such rating.
        """
        with self._writing() as base:
            query = "DELETE FROM ratings WHERE id = ? AND clip = ?"
            if not base.execute(query, (rating_id, clip_id)).rowcount:
                raise NoClipError("there is no such rating")
        with self._lock:
            self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def foreign(folder: Path) -> bool:
    """Tell whether a folder holds what no shelf has put there."""
    if not folder.is_dir():
        return False
    ours = {"clips", "incoming"}
    return any(
        path.name not in ours or not path.is_dir() or any(path.iterdir())
        for path in folder.iterdir()
    )


def _clip(row: sqlite3.Row) -> Clip:
    values = {name: row[name] for name in CLIP_COLUMNS}
    return Clip(**values | {
        "settings": json.loads(values["settings"]),
        "files": tuple(json.loads(values["files"])),
        "overlay_blur": bool(values["overlay_blur"]),
    })  # fmt: skip
