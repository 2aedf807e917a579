"""A seeded part of the hostile files: each ends as it should, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import hostile
import hostile_judge
import maven
import traced
from hostile_judge import judged, manifest

ASSETS = Path(maven.__file__).parent / "assets"
TOOLS = Path(hostile.__file__).parent
COUNT = 45
LEAST_FULL = 500


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "corpus"
    hostile.make(ASSETS, folder, 0, COUNT, secrets(folder))
    return folder


def secrets(folder: Path) -> Path:
    return folder.with_name("secrets")


def test_the_same_seed_gives_the_same_files(corpus: Path, tmp_path: Path) -> None:
    hostile.make(ASSETS, tmp_path / "again", 0, COUNT, secrets(corpus))
    for row in manifest(corpus):
        one, other = corpus / row["file"], tmp_path / "again" / row["file"]
        assert one.is_symlink() == other.is_symlink()
        if one.is_file() and not one.is_symlink():
            assert one.read_bytes() == other.read_bytes(), row["file"]
    assert len(manifest(corpus)) == COUNT
    assert len({row["kind"] for row in manifest(corpus)}) >= 10


def test_there_are_as_many_as_are_wanted(tmp_path: Path) -> None:
    kept = hostile.Material(ASSETS, tmp_path)
    cases = [*hostile.damaged(kept, 0), *hostile.lies(kept), *hostile.times(kept)]
    assert len(cases) > LEAST_FULL
    assert len({(case.kind, case.name) for case in cases}) == len(cases)
    assert max(Counter(case.kind for case in cases).values()) < 2 * len(cases) / 3


@pytest.mark.timeout(240)
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_each_ends_as_it_should_and_nothing_else_is_touched(corpus: Path, tmp_path: Path) -> None:
    """Links lead out of the folder of whoever follows them: a batch's listing does not."""
    for row in manifest(corpus):
        if row["kind"] == "links":
            (corpus / row["file"]).unlink(missing_ok=True)
    work, log = tmp_path / "work", tmp_path / "log"
    work.mkdir()
    calls = ["strace", "-f", "-y", "-qq", "-e", "trace=%file,%network", "-o", str(log)]
    judge = [hostile_judge.__file__, str(corpus), "--work", str(work), "--out", str(work / "told")]
    # OpenCV, imported by another test, leaves a search of the current folder in it.
    environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    command = [*calls, sys.executable, *judge]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert f"{COUNT} files" in run.stdout
    counts, offences = traced.judged(
        [log], traced.Judge([corpus, TOOLS], [work], [secrets(corpus)])
    )
    assert not offences
    assert counts["read"] > COUNT
    assert counts["written"] > 0


# How they are judged


def test_offences_of_outcomes_are_seen() -> None:
    row = {"kind": "names", "file": "a", "ends": "result", "what": "x"}
    good = {"state": "done", "error": None, "seconds": 1.0, "again": False, "peak_bytes": 1}
    limits = hostile_judge.Limits(time_s=10.0)
    bad = [
        {"state": "failed", "error": "a: no"},
        {"state": "failed", "error": "two\nlines"},
        {"state": "odd"},
        {"seconds": 99.0},
        {"peak_bytes": 2**40},
    ]
    assert judged([row], {"a": good}, limits) == ([], [])
    for change in bad:
        assert judged([row], {"a": good | change}, limits)[0]
    assert judged([row], {}, limits)[0]
    stopped = good | {"state": "failed", "error": "took longer than 10 s", "again": True}
    assert judged([row] * 3, {"a": stopped}, limits)[0] == []
    assert "stopped 9 of 9" in judged([row] * 9, {"a": stopped}, limits)[0][-1]


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
