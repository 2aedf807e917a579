"""Files are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from maven import files
from maven.files import READ_BYTES, begun, printable, sha256, sync, whole


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with whole(path, durable=durable) as part:
        part.write_text("new")
        assert (part.parent, part.suffix) == (path.parent, path.suffix)
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path, durable: bool) -> None:
    with whole(path, durable=durable) as part:
        part.write_text("half")
        raise OSError("disk full")


@pytest.mark.parametrize("durable", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_half(path, durable)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_durable_is_content_first_then_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "table.csv", []

    def synced(target: Path) -> None:
        seen.append((target.name, path.exists()))
        sync(target)

    monkeypatch.setattr(files, "sync", synced)
    with whole(path, durable=True) as part:
        part.write_text("new")
    assert seen == [(part.name, False), (tmp_path.name, True)]
    with whole(path) as part:
        part.write_text("newer")
    assert len(seen) == 2


def test_a_disk_that_does_not_take_it_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), whole(path, durable=True) as part:
        part.write_text("new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSUP])
def test_folders_that_cannot_be_synced_are_let_off_files_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "table.csv"
    path.touch()

    def refused(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    sync(tmp_path)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(path)
    number = errno.EIO
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path)


@pytest.mark.parametrize("name", ["table.csv", "a.b.parquet", "README", "_batch.json", "ä b.x"])
def test_half_written_files_are_known_by_their_names(tmp_path: Path, name: str) -> None:
    with whole(tmp_path / name) as part:
        assert begun(part.name) == name
        part.touch()
    assert begun(name) is None


@pytest.mark.parametrize("name", [".hidden", ".csv", ".table.csv", "table.12.csv", "..", ".1.csv"])
def test_other_names_are_none_of_them(name: str) -> None:
    assert begun(name) is None


def test_names_are_shown_on_one_line() -> None:
    assert printable("ok é 映画") == "ok é 映画"
    assert printable("a\n\t\x1b[31m\u2028\u202e\x85") == "a\\n\\t\\x1b[31m\\u2028\\u202e\\x85"
    assert printable("\udce9\ud800 \u202f\u3000") == "\\xe9\\ud800   "


@pytest.mark.parametrize("size", [0, 1, READ_BYTES, READ_BYTES + 1])
def test_a_file_is_hashed_whole(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "any").write_bytes(content)
    assert sha256(tmp_path / "any") == hashlib.sha256(content).hexdigest()
