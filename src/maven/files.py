"""Files are written whole or not at all: beside their place, then renamed; JSON is strict.

Names are shown on one line. A file's hash tells what it holds, its state cheaply whether that may
have changed.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Systems that take no fsync of a folder, or of a handle for reading, say so by one of these; they
# bring names to the disk on their own.
UNWANTED = (errno.EBADF, errno.EINVAL, errno.ENOTSUP)
READ_BYTES = 2**20
BEGUN = re.compile(r"\.(.+)\.[0-9]+(\.[^.]+)?")


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a path beside `path`, of the same suffix, to write to.

    It takes the place of `path` when the block ends, and is removed when the block fails. With
    `durable` the new file is on the disk before it takes the place, and the place after: a power
    loss leaves the old or the new one, and after the block the new one. That costs a wait for the
    disk, a few milliseconds, which tables of a folder that can be made again are not worth.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        if durable:
            sync(part)
        part.replace(path)
        if durable:
            sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def begun(name: str) -> str | None:
    """Name the file that `whole` was about to write under `name`; None: it writes none such."""
    found = BEGUN.fullmatch(name)
    return None if found is None else found[1] + (found[2] or "")


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk.

    Some network file systems refuse to do this for a folder; they are let off.

    Raises:
        OSError: it cannot be written there, for example because the disk is full.
    """
    if os.name != "posix":  # folders cannot be opened, files only for writing
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNWANTED or not path.is_dir():
            raise
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hash a file's bytes, in hex; it is read, not mapped: nothing of it stays in this process."""
    digest, buffer = hashlib.sha256(), bytearray(READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def state(now: os.stat_result) -> tuple[int, ...]:
    """What is another when a file, or what it holds, is; last the times of both, in ns."""
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def printable(text: str) -> str:
    """Write a name on one line that every terminal and table can show.

    Unusual blanks become blanks; what cannot be printed, and bytes that are no UTF-8, are escaped.
    """
    if text.isprintable():
        return text
    shown = []
    for c in text:
        if c.isprintable():
            shown.append(c)
        elif c.isspace() and ord(c) >= 0xA0 and c not in "\u2028\u2029":
            shown.append(" ")
        elif 0xDC80 <= ord(c) <= 0xDCFF:  # surrogateescape
            shown.append(f"\\x{ord(c) - 0xDC00:02x}")
        else:
            shown.append(c.encode("unicode_escape", "surrogatepass").decode())
    return "".join(shown)


def plain(value: Any) -> Any:
    """Turn lists, mappings and numbers into what strict JSON takes: what is not finite is None."""
    if isinstance(value, dict):
        return {name: plain(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
