"""What all commands share: refusing, and errors in one line that names the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from maven.store import StoreError
from maven.terminal import (
    check_files,
    check_folder,
    check_writable,
    check_writable_file,
    one_line_errors,
    progress_bar,
    refuse,
)


@pytest.mark.parametrize(
    ("error", "about", "line"),
    [
        (StoreError("x.json: damaged"), None, "x.json: damaged"),
        (StoreError("two\n lines"), Path("a/b.yaml"), "a/b.yaml: two lines"),
        (StoreError("b.yaml: line 3"), Path("a/b.yaml"), "b.yaml: line 3"),
        (
            OSError(28, "No space left on device"),
            None,
            "OSError: [Errno 28] No space left on device",
        ),
        (KeyError("k"), None, "KeyError: 'k' (a fault in maven: --debug shows where)"),
        (StoreError("bad"), Path("a/two\nlines.mp4"), r"a/two\nlines.mp4: bad"),
        (StoreError("a/two\nl.mp4:\nbad"), Path("a/two\nl.mp4"), r"a/two\nl.mp4: bad"),
        (
            OSError(2, "No", "b\n.mp4"),
            Path("b\n.mp4"),
            r"FileNotFoundError: [Errno 2] No: 'b\n.mp4'",
        ),
        (StoreError("x  y.mp4: bad"), Path("x  y.mp4"), "x  y.mp4: bad"),
        (StoreError("\x1b[2Jgone"), None, r"\x1b[2Jgone"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_an_error_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], error: Exception, about: Path | None, line: str, debug: bool
) -> None:
    with pytest.raises(typer.Exit) as ended, one_line_errors(debug, about):
        raise error
    assert ended.value.exit_code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(f"maven: {line}\n")
    assert ("Traceback" in captured.err) == debug
    assert debug or captured.err.count("\n") == 1


def test_names_of_two_lines_are_refused_in_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c\n").mkdir()
    for check, name in (
        (check_files, "a\nb"), (check_files, "c\n"), (check_folder, "a\nb"),
        (check_writable_file, "c\n"),
    ):  # fmt: skip
        with pytest.raises(typer.Exit):
            check([tmp_path / name] if check is check_files else tmp_path / name)
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert name.replace("\n", "\\n") in said


def test_a_refusal_inside_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, one_line_errors(True):
        refuse("no such thing")
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == "maven: no such thing\n"


def test_an_interruption_is_no_error() -> None:
    with pytest.raises(KeyboardInterrupt), one_line_errors(False):
        raise KeyboardInterrupt


def test_what_is_there_and_can_be_written_passes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_files([tmp_path / "file"])
    check_folder(tmp_path)
    check_writable(tmp_path)
    check_writable(tmp_path / "new" / "folder")
    check_writable_file(tmp_path / "file")
    check_writable_file(tmp_path / "new" / "folder" / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_not_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for check, path in (
        (check_folder, "file"), (check_folder, "none"), (check_writable, "file"),
        (check_writable, "file/new"), (check_writable_file, "."), (check_writable_file, "file/a"),
    ):  # fmt: skip
        with pytest.raises(typer.Exit) as ended:
            check(tmp_path / path)
        assert ended.value.exit_code == 2
        assert capsys.readouterr().err.count("\n") == 1
    if os.name == "posix" and os.geteuid() != 0:  # root writes anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(typer.Exit):
            check_writable(tmp_path / "locked" / "new")


def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("clip") as report:
        report("faces", 0.5, 2.0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", [("evaluate", "mini", "."), ("export", "mini", "-o", "new")])
def test_what_needs_torch_says_so_in_one_line_where_it_is_missing(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        f"sys.argv = ['maven', *{command!r}]\n"
        "from maven.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'maven[torch]'" in done.stderr
    assert not list(tmp_path.iterdir())
