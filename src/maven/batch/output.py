"""The output folder of a batch: who holds it, what was left over, whose results lie in it.

Results of other settings never lie in `results/`: the whole folder moves to `earlier/KEY/` when
the settings change, and back when they come back. `results/_batch.json` moves with it and says
which settings they are, so that a kill between two renames leaves nothing that is not known.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maven.batch.result import RESULTS
from maven.files import begun, sync, whole

try:
    import fcntl
except ImportError:  # not POSIX: the database's own lock is left
    fcntl = None  # type: ignore[assignment]

DATABASE = "batch.sqlite"
SETTINGS = "_batch.json"  # in the folder of results
WORK, EARLIER = ".maven-work", "earlier"  # WORK is removed: nobody else has such a name
INDEX, ERRORS, PAGE = "index.parquet", "errors.csv", "index.html"
MADE = (INDEX, ERRORS, PAGE)  # from what is known: written anew at any time
KEY_DIGITS = 16
WORKERS_END_S = 2  # after the batch they belong to was killed
NAMED = 4  # settings, or files, that a note names

PART = re.compile(r"part=([0-9a-f]{2})")
RESULT = re.compile(r"(?:[A-Za-z0-9-]+-)?([0-9a-f]{16})\.parquet")


class StateError(Exception):
    """The output folder cannot be used; the message is one line that says why."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the disk or the database refuses into one line.

    Raises:
        StateError: instead of OSError and sqlite3.Error.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise StateError(
            f"cannot write into {folder}: {' '.join(reason.split())};"
            " what was done stays, and the same command goes on from there"
        ) from error


def made(folder: Path) -> bool:
    """Make a folder and those around it; tell whether it was not there.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        folder.mkdir(exist_ok=True)  # raises where it is no folder
        return False
    return True


def in_use(folder: Path) -> StateError:
    """Say that there is another."""
    return StateError(f"{folder} is in use by another maven batch: wait for it, or end it")


@contextmanager
def held(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a folder against other batches on this machine; ends with the process, however it ends.

    Raises:
        StateError: another one holds it.
        OSError: it cannot be opened.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise in_use(folder) from None
            # else a file system without such locks: the database's own is left
        yield
    finally:
        os.close(handle)


def check_ours(folder: Path) -> None:
    """Refuse a folder in which a batch would overwrite what is not a batch's.

    Raises:
        StateError: it names what is there.
    """
    if (folder / DATABASE).exists() or (folder / RESULTS / SETTINGS).exists():
        return
    if any(folder.glob(f"{EARLIER}/*/{SETTINGS}")):
        return
    for name in (RESULTS, WORK, EARLIER, *MADE):
        if os.path.lexists(folder / name):
            raise StateError(f"{folder / name} is not from a maven batch: choose another folder")


def clear(folder: Path) -> None:
    """Remove what a batch left that was killed, but in the folder of results: `places` does that.

    Raises:
        OSError: it cannot be removed.
    """
    for _ in range(WORKERS_END_S * 10):  # a killed batch's workers write until they notice
        shutil.rmtree(folder / WORK, ignore_errors=True)
        if not (folder / WORK).exists():
            break
        time.sleep(0.1)
    else:
        shutil.rmtree(folder / WORK)  # says why not
    for entry in _listed(folder):
        if begun(entry.name) in MADE:
            Path(entry).unlink()


def key_of(settings: Mapping[str, Any]) -> str:
    """Hash settings (JSON types, in any order)."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def settings_of(results: Path) -> dict[str, Any] | None:
    """Read whose results lie in a folder; None where it does not say, or cannot be trusted."""
    try:
        said = json.loads((results / SETTINGS).read_text("utf-8"))
        settings: dict[str, Any] = said["settings"]
        return settings if said["key"] == key_of(settings) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_settings(results: Path, settings: Mapping[str, Any]) -> None:
    """Write whose results lie in a folder."""
    said = {"key": key_of(settings), "settings": settings}
    with whole(results / SETTINGS, durable=True) as part:
        part.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def places(results: Path, *, dry_run: bool = False) -> Iterator[str]:
    """Yield results/part=xx/NAME.parquet of each file that has the name of a result.

    Half-written ones and empty folders are removed on the way, but in a dry run.

    Raises:
        StateError: there is anything else, which whoever reads the folder would read as well.
    """
    for folder in _listed(results):
        if folder.name == SETTINGS and folder.is_file(follow_symlinks=False):
            continue
        part = PART.fullmatch(folder.name)
        if part is None or not folder.is_dir(follow_symlinks=False):
            _leave_out(folder, begun(folder.name) == SETTINGS, dry_run)
            continue
        for entry in _listed(Path(folder)):
            if _is_result(entry.name, part[1]) and entry.is_file(follow_symlinks=False):
                yield f"{RESULTS}/{folder.name}/{entry.name}"
            else:
                _leave_out(entry, _is_result(begun(entry.name) or "", part[1]), dry_run)
        if not dry_run:
            with contextlib.suppress(OSError):  # not empty
                Path(folder).rmdir()


def _is_result(name: str, part: str) -> bool:
    found = RESULT.fullmatch(name)
    return found is not None and found[1].startswith(part)


def _leave_out(entry: os.DirEntry[str], left_over: bool, dry_run: bool) -> None:
    if left_over:
        if not dry_run:
            Path(entry).unlink()
    elif not entry.name.startswith(".") or entry.name.endswith(".parquet"):  # .DS_Store is no harm
        raise StateError(
            f"{entry.path} is not a result of maven batch, but is read with {RESULTS}/:"
            " move it away"
        )


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name the settings that differ: `model.weights_sha256, settings.rate_hz`."""
    before, after = flat(old), flat(new)
    names = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
    return listed(names, "more")


def listed(names: list[str], others: str) -> str:
    """Join some names; of many only the first, and how many `others` there are."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} {others}" if rest > 0 else "")


def counted(count: int, noun: str) -> str:
    """Say how many there are: `1 result is`, `3 results are`."""
    return f"{count} {noun} is" if count == 1 else f"{count} {noun}s are"


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give nested values one name each: {"model": {"name": "mini"}} -> {"model.name": "mini"}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": x for inner, x in flat(value).items()}
        else:
            found[name] = value
    return found


def moved(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say that the settings changed, and what that does to the results there are.

    Raises:
        StateError: there are foreign files among them.
    """
    note = f"the settings changed ({changes(old, new)})"
    if count := sum(1 for _ in places(folder / RESULTS, dry_run=True)):
        note += f": {counted(count, 'earlier result')} kept in {EARLIER}/{key_of(old)}"
    if (folder / EARLIER / key_of(new)).exists():
        return f"{note}; those of {EARLIER}/{key_of(new)} are used again"
    return f"{note}; all is done again" if count else note


def lay(folder: Path, settings: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Make `results/` the place of the results of `settings`.

    Args:
        folder: of the output.
        settings: those of now.
        old: those of what lies in `results/`; None: nothing lies there.

    Raises:
        StateError: `earlier/` holds something else under their name, or `results/` foreign files.
        OSError: the disk refuses.
    """
    results, key = folder / RESULTS, key_of(settings)
    if old is not None and key_of(old) != key:
        for name in MADE:  # they tell of the old ones
            (folder / name).unlink(missing_ok=True)
        if next(places(results), None) is not None:
            _move(results, folder / EARLIER / key_of(old))
        else:
            (results / SETTINGS).unlink(missing_ok=True)
        old = None
    if old is None:
        (results / SETTINGS).unlink(missing_ok=True)  # killed before it was said whose it is
        back = folder / EARLIER / key
        if back.exists():
            _take_along(results, back)
            if settings_of(back) != settings:
                write_settings(back, settings)
            _move(back, results)
            with contextlib.suppress(OSError):  # others are left
                back.parent.rmdir()
        else:
            results.mkdir(exist_ok=True)
            sync(folder)
    if settings_of(results) != settings:
        write_settings(results, settings)


def _take_along(source: Path, target: Path) -> None:
    """Move what lies in a folder without results, .DS_Store and the like, and remove it."""
    for entry in _listed(source):
        if PART.fullmatch(entry.name):
            _take_along(Path(entry), target / entry.name)
        else:
            target.mkdir(exist_ok=True)
            Path(entry).replace(target / entry.name)
    with contextlib.suppress(FileNotFoundError):
        source.rmdir()


def _move(source: Path, target: Path) -> None:
    if target.exists():
        raise StateError(f"{target} is there already: move it, or {source}, away")
    target.parent.mkdir(exist_ok=True)
    source.rename(target)
    sync(target.parent)
    sync(source.parent)
