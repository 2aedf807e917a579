"""Entries of a feature store: folders of arrays, whole or not there, read as they were written.

An entry is a folder `arrays/<kind>/<k>/<key>` of .npy files, `k` the first two digits of its key,
and `sums.json`: its kind and key, and of each file the size and the SHA-256. It is written beside
its place, brought to the disk, and renamed, so that neither a kill nor a loss of power leaves half
of one. The sums are compared when a process first reads an entry. They find damage; they are no
signature: who writes a store can write its sums.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from maven.files import sha256, sync

Arrays = dict[str, npt.NDArray[Any]]
Make = Callable[[], Mapping[str, npt.NDArray[Any]]]

TRANSCRIPT = ("texts", "start_s", "end_s", "segment", "confidence")
KINDS: dict[str, tuple[str, ...]] = {
    "frames": ("frame_s", "held"),
    "labels": ("labels",),
    "visual": ("frames", "values"),
    "audio": ("times_s", "values", "spans_s"),
    "transcript": TRANSCRIPT,
    "words": (*TRANSCRIPT, "vectors"),
    "grid": ("visual", "audio", "text", "observed", "labels"),
}
SUMS = "sums.json"
SUMS_BYTES = 65_536  # at most; ours have less than 1,000
KEY_DIGITS = 32
KEY = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")
AGAIN = "run `maven features` again"
GONE = (errno.ENOENT, errno.ESTALE)  # ESTALE: what is open here, another machine has removed
FOREIGN_AGE_S = 86_400.0  # what another machine left is touched no more, and unlocked
HELD = "held"  # the file by which a scratch folder is locked; a partial entry's is its sums
MENDS = 5  # how often a damaged entry is made anew, where others do it too and all at once


class StoreError(Exception):
    """The store cannot be read or written; the message is one line."""


class MissingError(StoreError):
    """There is no such entry."""


class DamagedError(StoreError):
    """An entry is not as it was written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: damaged ({reason}); delete its folder, then {AGAIN}")
        self.path, self.reason = path, reason


def key(**settings: object) -> str:
    """Hash settings (JSON types, in any order) to 32 hexadecimal digits."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


class Store:
    """Entries of arrays by kind (see `KINDS`) and key.

    What processes that are gone left half-written is removed when a store is opened.

    Attributes:
        folder: where it is.
        mended: a line for each entry that was damaged and made anew.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.mended: list[str] = []
        self._sound: set[Path] = set()  # entries that this process has verified or written
        parts = (p for pattern in ("arrays/*/*/.*", "work/.*") for p in self.folder.glob(pattern))
        for part in filter(_left_over, parts):
            shutil.rmtree(part, ignore_errors=True)

    def has(self, kind: str, key: str) -> bool:
        """Tell whether there is such an entry; a StoreError says that it cannot be told."""
        place = self._place(kind, key)
        with suppress(DamagedError), _reading(place):
            return place.is_dir()
        return False  # another machine has just removed it

    def put(self, kind: str, key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write an entry; one that is there already is kept, and this one dropped.

        Raises:
            StoreError: it cannot be written; nothing of it is left.
        """
        assert set(arrays) == set(KINDS[kind]), (kind, tuple(arrays))
        place = self._place(kind, key)
        part = _beside(place)
        try:
            _make_folder(part)
            with (part / SUMS).open("wb") as sums:
                _lock(sums)
                files = {f"{k}.npy": _write(part / f"{k}.npy", x) for k, x in arrays.items()}
                said = {"kind": kind, "key": key, "files": files}
                sums.write(json.dumps(said, indent=1).encode() + b"\n")
                _to_disk(sums)
            sync(part)
            part.rename(place)
            sync(place.parent)
            self._sound.add(place)
        except OSError as error:
            if not self.has(kind, key):  # else another process has written it just now
                raise StoreError(not_written(place, error)) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def get(self, kind: str, key: str, *, check: bool = True) -> Arrays:
        """Return an entry's arrays, mapped from disk and read-only; each holds its file open.

        Args:
            kind: of `KINDS`.
            key: of the entry.
            check: whether to compare the content with the sums, if this process has not yet; where
                it is left out, only kind, key, names and sizes are compared.

        Raises:
            StoreError: there is no such entry (MissingError), it is not as it was written
                (DamagedError), or it cannot be read, whatever it holds.
        """
        place = self._place(kind, key)
        if not self.has(kind, key):
            raise MissingError(f"{place}: not in the store; {AGAIN}")
        if place not in self._sound:
            _verify(place, kind, key, check)
            if check:
                self._sound.add(place)
        return {name: _mapped(place / f"{name}.npy") for name in KINDS[kind]}

    def made(self, kind: str, key: str, make: Make, *, check: bool = True) -> Arrays:
        """Return an entry's arrays; it is made where it is missing, and anew where it is damaged.

        Raises:
            StoreError: it cannot be read or written, or is damaged again and again.
        """
        arrays: Mapping[str, npt.NDArray[Any]] | None = None
        for _ in range(MENDS):
            if not self.has(kind, key):
                arrays = make() if arrays is None else arrays
                self.put(kind, key, arrays)
            try:
                with suppress(MissingError):  # another process has just removed it to make it anew
                    return self.get(kind, key, check=check)
            except DamagedError:
                self._remove_damaged(kind, key, check)
        return self.get(kind, key, check=check)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder for what is needed while the block runs.

        Raises:
            StoreError: it cannot be made.
        """
        new, part = not self.folder.exists(), _beside(self.folder / "work" / "any")
        try:
            try:
                part.mkdir(parents=True)
            except FileNotFoundError:  # another process has just removed the parent
                part.mkdir(parents=True)
            held = (part / HELD).open("wb")
        except OSError as error:
            raise StoreError(not_written(part, error)) from error
        try:
            with held:
                _lock(held)
                yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)
            with suppress(OSError):  # others work there, or something was stored
                part.parent.rmdir()
                if new:
                    self.folder.rmdir()

    def _remove_damaged(self, kind: str, key: str, check: bool) -> None:
        """Remove an entry, if it still is damaged: another process may have made it anew."""
        place = self._place(kind, key)
        part = _beside(place)
        self._sound.discard(place)
        try:
            self.get(kind, key, check=check)
            return
        except DamagedError as error:
            line = f"{error.path}: damaged ({error.reason}); made anew"
        except MissingError:
            return
        try:
            place.rename(part)  # so that nobody finds half of it
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(not_written(place, error)) from error
        self.mended.append(line)
        shutil.rmtree(part, ignore_errors=True)

    def _place(self, kind: str, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise StoreError(f"{self.folder}: {key[:80]!r} is no key of an entry; {AGAIN}")
        return self.folder / "arrays" / kind / key[:2] / key


def not_written(path: Path, error: OSError) -> str:
    """Say why a part of the store could not be written."""
    reason = error.strerror or f"the disk may be full: {error}"
    return f"{path}: cannot be written ({reason}); nothing of it was kept; {AGAIN}"


# --- writing -----------------------------------------------------------------------------------


class _Summing:
    """A file that is hashed as it is written: of what was meant, not of what came to lie there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256, self.size_bytes = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        self.size_bytes += len(content)
        return self._file.write(content)


def _write(path: Path, array: npt.NDArray[Any]) -> dict[str, Any]:
    """Write an array and bring it to the disk; return what sums.json says of it."""
    with path.open("wb") as file:
        summing = _Summing(file)
        np.lib.format.write_array(summing, np.asanyarray(array), allow_pickle=False)
        _to_disk(file)
    return {"bytes": summing.size_bytes, "sha256": summing.sha256.hexdigest()}


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each brought to the disk in the one that holds it."""
    missing = [folder]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for each in reversed(missing):
        each.mkdir(exist_ok=each != folder)
        if each != folder:
            sync(each.parent)


def _beside(place: Path) -> Path:
    return place.with_name(f".{os.getpid()}.{uuid.uuid4().hex}.{_here()}")


@cache
def _here() -> str:
    """Name where a process id means something: this machine since it started, this container."""
    said = b""
    with suppress(OSError):  # not Linux
        boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
        said = boot.read_bytes() + bytes(space.readlink())
    return f"{socket.gethostname()}-{hashlib.sha256(said).hexdigest()[:8]}"


def _left_over(part: Path) -> bool:
    """Tell whether nobody uses a hidden folder, named `.<pid>.<random>.<where>`, any more."""
    pid, _, rest = part.name[1:].partition(".")
    try:
        if rest.partition(".")[2] != _here():
            return time.time() - part.stat().st_mtime > FOREIGN_AGE_S and not _locked(part)
        os.kill(int(pid), 0)
    except (OSError, ValueError) as error:  # others: somebody else's, and alive
        return isinstance(error, (ProcessLookupError, FileNotFoundError, ValueError))
    return False


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed, where the system can; say False where another holds it."""
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # others: without locks, a folder's age decides alone
            return not isinstance(error, BlockingIOError)
    return True


def _locked(part: Path) -> bool:
    """Tell whether somebody, on whatever machine, has locked a hidden folder."""
    for name in (SUMS, HELD):
        with suppress(FileNotFoundError), (part / name).open("rb+") as file:
            if not _lock(file):
                return True
    return False


# --- reading -----------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise what is found in a file, or not found, as damage; what hinders reading it is none."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno not in GONE:
            raise StoreError(f"{path}: cannot be read ({_reason(error)})") from error
        raise DamagedError(path, _reason(error)) from error


def _verify(place: Path, kind: str, key: str, content: bool) -> None:
    """Compare an entry with its sums; raises as `_reading` does."""
    path = place / SUMS
    with _reading(path):
        if not path.exists():
            raise ValueError("no checksums: of an earlier maven")
        with _regular(path).open("rb") as file:
            said = json.loads(file.read(SUMS_BYTES))
        if (said["kind"], said["key"]) != (kind, key):
            raise ValueError("it is of another entry")
        files = said["files"]
        if set(files) != {f"{name}.npy" for name in KINDS[kind]}:
            raise ValueError("it is of other files")
        expected = {name: (about["bytes"], about["sha256"]) for name, about in files.items()}
    for name, (size_bytes, expected_hash) in expected.items():
        path = place / name
        with _reading(path):
            held_bytes = _regular(path).stat().st_size
            if held_bytes != size_bytes:
                raise ValueError(f"{held_bytes} bytes, not {size_bytes}")
            if content and sha256(path) != expected_hash:
                raise ValueError("its content has changed")


def _mapped(path: Path) -> npt.NDArray[Any]:
    """Map an array; what its header says must be what the file holds, to the byte."""
    with _reading(path):
        with _regular(path).open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("an array file of a version that is not written here")
            try:
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            except OSError:
                raise
            except Exception as error:  # its parsers raise what they like: TokenError, for one
                raise ValueError("its header cannot be read") from error
            offset = file.tell()
            held_bytes = file.seek(0, os.SEEK_END)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        wanted_bytes = offset + dtype.itemsize * math.prod(shape)
        if min(shape, default=0) < 0 or wanted_bytes != held_bytes:
            raise ValueError(f"{held_bytes} bytes; its header says {wanted_bytes}")
        return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _regular(path: Path) -> Path:
    """The same path; a pipe or a device in its place would be waited for."""
    path.stat()
    if not path.is_file():
        raise ValueError("not a file")
    return path


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, KeyError):
        text = f"it lacks {error}"
    return " ".join(text.split())[:200]
