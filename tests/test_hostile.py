"""A seeded part of the hostile files: each ends as it should, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import hostile
import maven
import soak_hostile
import traced
from soak_batch import Found

ASSETS = Path(maven.__file__).parent / "assets"
COUNT = 45
LEAST_FULL = 500


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Found]]:
    """Where a batch of them was, and what the soak says of it."""
    work = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        # OpenCV, imported by another test, leaves a search of the current folder in it.
        patch.delenv("LD_LIBRARY_PATH", raising=False)
        return work, soak_hostile.hostile(ASSETS, work, COUNT, 0)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_each_ends_as_it_should_and_nothing_else_is_touched(
    ended: tuple[Path, list[Found]],
) -> None:
    _, found = ended
    assert all(line.good for line in found), found
    assert found[0].what.startswith(f"{COUNT} files")
    assert "0 offences" in found[-1].came


def test_the_same_seed_gives_the_same_files(
    ended: tuple[Path, list[Found]], tmp_path: Path
) -> None:
    work, _ = ended
    cases = hostile.make(ASSETS, tmp_path, 0, COUNT, work / "secrets")
    for case in cases:
        name = os.fsdecode(case.name)
        one, other = (folder / case.kind / name for folder in (work / "hostile", tmp_path))
        assert one.is_symlink() == other.is_symlink()
        if one.is_file() and not one.is_symlink():
            assert one.read_bytes() == other.read_bytes(), case.name
    assert len(cases) == COUNT
    assert len({case.kind for case in cases}) >= 10


def test_there_are_as_many_as_are_wanted(tmp_path: Path) -> None:
    kept = hostile.Material(ASSETS, tmp_path)
    cases = [*hostile.damaged(kept, 0), *hostile.lies(kept), *hostile.times(kept)]
    assert len(cases) > LEAST_FULL
    assert len({(case.kind, case.name) for case in cases}) == len(cases)
    assert max(Counter(case.kind for case in cases).values()) < 2 * len(cases) / 3


# How they are judged


def judged(*changes: dict[str, Any], ends: str = "either") -> dict[str, bool]:
    """What is found of nine files that end well, but for some of them."""
    rows = [
        {"id": f"{k}", "state": "done", "error": None, "seconds": 1.0, "attempts": 1}
        for k in range(9)
    ]
    made = {row["id"]: {"kind": "a", "ends": ends} for row in rows}
    rows[-1]["id"] += "/"  # a folder
    for row, change in zip(rows, changes, strict=False):
        row |= change
    rows = [row for row in rows if row["state"]]
    return {line.what: line.good for line in soak_hostile.judged(rows, made)}


FAILED = {"state": "failed", "error": "a: no"}
STOPPED = {"state": "failed", "error": "took longer than 60 s", "attempts": 2}


def test_offences_of_outcomes_are_seen() -> None:
    assert all(judged().values())
    assert all(judged(FAILED, {**FAILED, "attempts": 2}).values())
    assert all(judged(STOPPED, STOPPED, STOPPED, ends="result").values())
    for changes in (
        [{"state": None}],
        [{"id": "stranger"}],
        [{"state": "waiting"}],
        [STOPPED] * 4,
        [{"attempts": 2}] * 4,
        [{**STOPPED, "error": "crashed the decoder (SIGSEGV)"}],
        [{"seconds": 99.0}],
        [{**FAILED, "error": "two\nlines"}],
        [{**FAILED, "error": ""}],
        [{**FAILED, "error": "x" * 3000}],
        [{**FAILED, "error": "an internal error (KeyError)"}],
    ):
        assert list(judged(*changes).values()).count(False) == 1, changes
    for ends, change in (("result", FAILED), ("error", {})):
        assert not judged(change, ends=ends)["ended otherwise than they must"]


def test_what_stops_files_is_said_by_its_kind() -> None:
    errors = ("needs more memory than 1 GiB", "made no progress for 120 s",
              "ended without an answer (exit code 1)")  # fmt: skip
    rows = [{"id": e, "state": "failed", "error": e, "seconds": 1, "attempts": 2} for e in errors]
    made = {error: {"kind": "a", "ends": "either"} for error in errors}
    (stopped,) = (f for f in soak_hostile.judged(rows, made) if f.what.startswith("stopped"))
    assert stopped.came.startswith("1 by memory, 1 by time, 1 by an end without an answer, 0 by")


def test_files_are_known_by_the_ids_that_a_batch_gives_them(tmp_path: Path) -> None:
    """Else names that cannot be printed were never looked at."""
    text = "kind,file,ends,what\nnames,names/bell\a.mp4,result,x\n"
    (tmp_path / hostile.MANIFEST).write_text(text)
    (id,) = soak_hostile.manifest(tmp_path)
    assert id.startswith("names/bell\\x07.mp4~")


LINES: dict[str, str | None] = {
    '7 openat(AT_FDCWD</w>, "in/a.mp4", O_RDONLY|O_CLOEXEC) = 3</w/in/a.mp4>': None,
    '7 openat(AT_FDCWD</w>, "in/a.mp4", O_RDWR) = 3</w/in/a.mp4>': "writes outside",
    '7 openat(AT_FDCWD</w>, "/w/out/x", O_WRONLY|O_CREAT, 0644) = 3</w/out/x>': None,
    '7 openat(5</w/out>, "../in/x", O_WRONLY|O_CREAT, 0644) = 3</w/in/x>': "writes outside",
    '7 rename("/w/out/x", "/w/in/y") = 0': "writes outside",
    '7 unlink("/w/in/a.mp4") = -1 ENOENT (No such file or directory)': "writes outside",
    '7 openat(AT_FDCWD</w>, "/etc/passwd", O_RDONLY) = 3</etc/passwd>': "outside inputs",
    '7 openat(AT_FDCWD</w>, "/w/se\\143ret/s", O_RDONLY <unfinished ...>': "of a secret",
    '7 newfstatat(AT_FDCWD</w>, "secret/s", 0x1, 0) = -1 ENOENT (No such file)': None,
    '7 stat("/etc/passwd", {st_mode=S_IFREG|0644, ...}) = 0': None,
    "7 socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0) = 4<socket:[1]>": "network call",
    '7 connect(4<socket:[1]>, {sa_family=AF_INET}, 16 <unfinished ...>': "call",
    '7 openat(AT_FDCWD</w>, "/proc/self/status", O_RDONLY) = 3</proc/7/status>': None,
    '7 openat(AT_FDCWD</w>, "/proc/1/environ", O_RDWR) = 3</proc/1/environ>': "writes outside",
    '7 openat(AT_FDCWD</w>, "/dev/null", O_RDWR) = 3</dev/null>': None,
    f'7 execve("{sys.executable}", ["python", "-m", "x"], 0x7f /* 9 vars */) = 0': None,
    '7 execve("/usr/bin/curl", ["curl", "a.b"], 0x7f /* 9 vars */) = 0': "starts another program",
    '7 execveat(5</usr>, "bin/curl", ["curl"], 0x7f /* 9 vars */, 0) = 0': "starts another program",
    '7 execve("/w/secret/s", ["s"], 0x7f /* 9 vars */) = -1 EACCES (No)': "of a secret",
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_offences_in_a_log_are_seen(line: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(line + "\n")
    judge = traced.Judge([Path("/w/in")], [Path("/w/out")], [Path("/w/secret")], Path("/w"))
    _, offences = traced.judged([log], judge)
    expected = LINES[line]
    assert len(offences) == (expected is not None)
    assert expected is None or expected in offences[0]


def test_a_call_that_is_interrupted_is_one_call(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        '7 openat(AT_FDCWD</w>, "/etc/shadow", O_RDONLY <unfinished ...>\n'
        '8 openat(AT_FDCWD</w>, "/w/in/a", O_RDONLY) = 3</w/in/a>\n'
        "7 <... openat resumed>) = 4</etc/shadow>\n"
    )
    counts, offences = traced.judged([log], traced.Judge([Path("/w/in")], [Path("/w/out")]))
    assert counts == {"read": 2}
    assert len(offences) == 1


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    for name in ("in", "secret"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret" / "s").write_text("x")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "secret" / "s")
    (tmp_path / "in" / "b").symlink_to("/etc/hostname")
    judge = traced.Judge([tmp_path / "in"], [tmp_path / "out"], [tmp_path / "secret"])
    seen = [
        judge.offence(traced.Access("open", str(tmp_path / "in" / name), False)) or ""
        for name in ("a", "b")
    ]
    assert "of a secret" in seen[0]
    assert "leads elsewhere" in seen[1]
