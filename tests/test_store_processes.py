"""A store under several processes: races, kills at any moment, a full disk."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maven.store import Store, StoreError, key

KEY = "0123456789abcdef" * 2

# Writes one entry and stops in the middle of it until a line comes in.
SLOW_WRITER = """
import sys
import numpy as np
from maven.store import Store, StoreError

class Slow(dict):
    def items(self):
        yield "times_s", np.zeros(9)
        print("half", flush=True)
        sys.stdin.readline()
        yield "values", np.ones((9, 4), np.float32)
        yield "spans_s", np.zeros((0, 2))
    def __iter__(self):
        return iter(("times_s", "values", "spans_s"))

Store(sys.argv[1]).put("audio", sys.argv[2], Slow())
print("done", flush=True)
"""

# Writes entries without end.
BUSY_WRITER = """
import sys
import numpy as np
from maven.store import Store, key

store = Store(sys.argv[1])
for k in range(100_000):
    values = np.full((20_000, 4), k, np.float32)
    times_s, spans_s = np.arange(20_000.0), np.zeros((0, 2))
    store.put("audio", key(k=k), {"times_s": times_s, "values": values, "spans_s": spans_s})
    print(k, flush=True)
"""

# Writes an entry larger than any file may be.
LIMITED_WRITER = """
import resource, sys
import numpy as np
from maven.store import Store, StoreError

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Store(sys.argv[1]).put("labels", sys.argv[2], {"labels": np.zeros((50_000, 2), np.float32)})
except StoreError as error:
    print(error)
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> str:
    return process.communicate("go\n", timeout=60)[0].strip()


def partial(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_of_two_that_write_one_entry_the_first_stays(tmp_path: Path) -> None:
    first, second = (start(SLOW_WRITER, tmp_path, KEY) for _ in range(2))
    assert [read_line(first), read_line(second)] == ["half", "half"]
    assert not Store(tmp_path).has("audio", KEY)
    assert finish(first) == "done"
    place = tmp_path / f"arrays/audio/01/{KEY}"
    before = place.stat().st_ino
    assert finish(second) == "done"
    assert place.stat().st_ino == before
    assert Store(tmp_path).get("audio", KEY)["values"].shape == (9, 4)
    assert partial(tmp_path) == []


def test_what_a_living_process_writes_is_let_alone(tmp_path: Path) -> None:
    writer = start(SLOW_WRITER, tmp_path, KEY)
    assert read_line(writer) == "half"
    assert len(partial(tmp_path)) == 1
    Store(tmp_path)
    assert len(partial(tmp_path)) == 1
    assert finish(writer) == "done"
    assert Store(tmp_path).has("audio", KEY)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    writer = start(SLOW_WRITER, tmp_path, KEY)
    assert read_line(writer) == "half"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert len(partial(tmp_path)) == 1
    store = Store(tmp_path)
    assert partial(tmp_path) == []
    assert not store.has("audio", KEY)


def test_what_another_machine_left_is_removed_after_a_day(tmp_path: Path) -> None:
    part = tmp_path / "arrays" / "audio" / "01" / ".1.0123.another-machine"
    part.mkdir(parents=True)
    Store(tmp_path)
    assert part.is_dir()
    os.utime(part, (0, 0))
    Store(tmp_path)
    assert not part.exists()


# Holds a scratch folder, or writes an entry, where process ids mean something else than here.
ELSEWHERE = """
import sys
from maven import entries
entries._here = lambda: "another-machine"
"""
SCRATCH = """
with entries.Store(sys.argv[1]).scratch():
    print("held", flush=True)
    sys.stdin.readline()
print("done", flush=True)
"""


@pytest.mark.parametrize("program", [SCRATCH, SLOW_WRITER], ids=["scratch", "entry"])
def test_what_another_machine_holds_is_let_alone_however_old(tmp_path: Path, program: str) -> None:
    writer = start(ELSEWHERE + program, tmp_path, KEY)
    assert read_line(writer) in ("held", "half")
    (part,) = partial(tmp_path)
    assert part.name.endswith(".another-machine")
    os.utime(part, (0, 0))
    Store(tmp_path)
    assert part.is_dir()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    Store(tmp_path)
    assert not part.exists()


def test_a_process_of_another_container_is_not_taken_for_dead(tmp_path: Path) -> None:
    """The same host name, another space of process ids: no process has the number here."""
    part = tmp_path / "work" / f".{2**22 + 1}.0123.{socket.gethostname()}-01234567"
    part.mkdir(parents=True)
    Store(tmp_path)
    assert part.is_dir()


@pytest.mark.parametrize("entries", [1, 3, 8])
def test_a_kill_at_any_moment_leaves_whole_entries(tmp_path: Path, entries: int) -> None:
    writer = start(BUSY_WRITER, tmp_path)
    while int(read_line(writer)) < entries:
        pass
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    store = Store(tmp_path)
    assert partial(tmp_path) == []
    keys = {key(k=k): k for k in range(1000)}
    found = [path.name for path in tmp_path.glob("arrays/audio/*/*")]
    assert len(found) > entries
    for name in found:
        held = store.get("audio", name)
        assert held["values"].shape == (20_000, 4)
        assert (held["values"] == keys[name]).all()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    message = finish(start(LIMITED_WRITER, tmp_path, KEY))
    assert message.startswith(f"{tmp_path}/arrays/labels/01/{KEY}: cannot be written (")
    assert message.count("\n") == 0
    assert not Store(tmp_path).has("labels", KEY)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == partial(tmp_path) == []


# Reads an entry where not one more file may be opened.
STARVED_READER = """
import os, resource, sys
from maven.store import Store, StoreError

store, free = Store(sys.argv[1]), os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
try:
    store.made("audio", sys.argv[2], dict)
except StoreError as error:
    print(error)
"""


def test_what_cannot_be_read_is_not_taken_for_damaged(tmp_path: Path) -> None:
    assert finish(start(SLOW_WRITER, tmp_path, KEY)).endswith("done")
    place = tmp_path / f"arrays/audio/01/{KEY}"
    before = {path: path.stat().st_ino for path in place.iterdir()}
    message = finish(start(STARVED_READER, tmp_path, KEY))
    assert message == f"{place}/sums.json: cannot be read (Too many open files)"
    assert {path: path.stat().st_ino for path in place.iterdir()} == before
    assert Store(tmp_path).get("audio", KEY)["values"].shape == (9, 4)


def test_what_cannot_be_looked_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    store = Store(tmp_path)
    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(StoreError, match=rf"{KEY}: cannot be read \(Permission denied\)$"):
        store.has("audio", KEY)


def test_what_another_machine_has_just_removed_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(self: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle", str(self))

    store = Store(tmp_path)
    monkeypatch.setattr(Path, "is_dir", stale)
    assert not store.has("audio", KEY)


def test_another_removes_the_parent_of_a_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def removed(self: Path, *given: Any, **options: Any) -> None:
        mkdir(self, *given, **options)
        if self.name == "work":
            monkeypatch.undo()
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", removed)
    with Store(tmp_path / "store").scratch() as part:
        assert part.is_dir()
