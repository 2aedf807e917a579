"""What all commands share: refusing, errors in one line, progress.

Exit codes: 0 done, 1 a run failed, 2 the command line is wrong.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from maven.files import printable

if TYPE_CHECKING:
    from maven.observe import Progress

EXTRAS = {  # top-level module -> the extra that brings it
    "cv2": "train",
    "fastapi": "web",
    "faster_whisper": "whisper",
    "fsspec": "batch",
    "huggingface_hub": "hub",
    "lightning_fabric": "train",
    "onnx": "export",
    "onnxscript": "export",
    "pyarrow": "parquet",
    "ray": "ray",
    "tensorboardX": "train",
    "torch": "torch",
    "transformers": "paper",
    "uvicorn": "web",
    "websockets": "web",
}

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def refuse(message: str) -> NoReturn:
    """Say in one line what is wrong with the command line; exit code 2."""
    print(f"maven: {_one_line(message)}", file=sys.stderr)
    raise typer.Exit(2)


def check_files(paths: list[Path]) -> None:
    """Refuse what is not there, and folders."""
    for path in paths:
        if not path.exists():
            refuse(f"there is no file {_shown(path)}")
        if path.is_dir():
            refuse(f"{_shown(path)} is a folder; give files, for instance {_shown(path / '*')}")


def check_folder(path: Path) -> None:
    """Refuse what is no folder."""
    if not path.is_dir():
        refuse(f"there is no folder {_shown(path)}")


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written into."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        refuse(f"-o: cannot write into {_shown(folder)}")


def check_writable_file(path: Path) -> None:
    """Refuse a file that cannot be written."""
    if path.is_dir():
        refuse(f"-o: {_shown(path)} is a folder; give a file, for instance {_shown(path / 'name')}")
    check_writable(path.parent)


def lacking(error: Exception) -> str | None:
    """Say which extra brings the package that an error misses; None for other errors."""
    missing = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or missing not in EXTRAS:
        return None
    return f"this needs {missing}, which is not installed: pip install 'maven[{EXTRAS[missing]}]'"


@contextmanager
def one_line_errors(debug: bool, about: Path | None = None) -> Iterator[None]:
    """Turn errors into one line on stderr, which names the file they are about, and exit code 1."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        text, name = str(error), ""
        if about is not None and about.name:
            name = printable(about.name)
            text = text.replace(about.name, name)  # before its line breaks are taken for the text's
        message = _one_line(text) or type(error).__name__
        if extra := lacking(error):
            message = extra
        elif not type(error).__module__.startswith("maven."):
            message = f"{type(error).__name__}: {message}"
            if not isinstance(error, (OSError, ValueError)):
                message += " (a fault in maven: --debug shows where)"
        if about is not None and name not in message:
            message = f"{_shown(about)}: {message}"
        print(f"maven: {message}", file=sys.stderr)
        raise typer.Exit(1) from None


def _one_line(message: str) -> str:
    """Join lines; escape what cannot be printed."""
    return printable(re.sub(r"\s*[\r\n]+\s*", " ", message).strip())


def _shown(path: Path) -> str:
    return printable(str(path))


@contextmanager
def progress_bar(name: str) -> Iterator[Progress]:
    """Show a bar a stage on a terminal; elsewhere, nothing."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, int] = {}

        def report(stage: str, done: float, total: float | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"{name}: {stage}", total=total)
            bars.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield report
