"""What a benchmark ran on, where its clips are, and how its figures are printed and recorded."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("MAVEN_DATA", Path(__file__).parents[2] / "shared" / "data"))
PACKAGES = ("maven", "torch", "av", "onnxruntime", "pillow", "numpy", "pandas")


def describe() -> str:
    """Return the processor, cores, Python and package versions in one line."""
    names = [line for line in _cpuinfo() if line.startswith("model name")]
    processor = names[0].split(":")[1].strip() if names else platform.processor()
    versions = ", ".join(_versions())
    python = platform.python_version()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {python}, {versions}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and range of repeated runs: `5.1 (5.0-5.3)`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


class Report:
    """Markdown on standard output, and the same figures as JSON where `--json FILE` asks for it."""

    def __init__(self, title: str, path: Path | None) -> None:
        self._path = path
        self._content: dict[str, Any] = {"title": title, "machine": describe(), "tables": {}}
        self._title, self._said = title, ""
        print(f"## {title}\n\n{describe()}", flush=True)

    def table(self, name: str, columns: Sequence[str]) -> None:
        """Begin a table."""
        self._rows = self._content["tables"].setdefault(name, [])
        self._print(f"\n{name}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")

    def row(self, cells: Sequence[object], **figures: Any) -> None:
        """Print a row of the table; the figures, unrounded, go into the record."""
        self._print(f"| {' | '.join(map(str, cells))} |")
        self._rows.append(figures)

    def say(self, text: str, **figures: Any) -> None:
        """Print a line below the table."""
        self._print(f"\n{text}")
        self._content.update(figures)

    def put_into(self, page: Path) -> None:
        """Put all that was printed into a page, between its mark `TITLE` and the mark's end."""
        put_into(page, {self._title: self._said.strip()})

    def close(self) -> None:
        """Write the record."""
        if self._path is not None:
            self._path.write_text(json.dumps(self._content, indent=1) + "\n")

    def _print(self, text: str) -> None:
        print(text, flush=True)
        self._said += f"{text}\n"


def put_into(page: Path, texts: Mapping[str, str]) -> None:
    """Put texts into a page, each between `<!-- measured by PROGRAM: NAME -->` and `<!-- end -->`.

    What has no such marks in the page is left out; what else stands there stays as it is.
    """
    whole = page.read_text(encoding="utf-8")
    for name, text in texts.items():
        parts = re.compile(
            rf"(<!-- measured by \S+: {re.escape(name)} -->)\n.*?(?=<!-- end -->)", re.DOTALL
        )
        whole = parts.sub(lambda found, text=text: f"{found[1]}\n\n{text}\n\n", whole)
    page.write_text(whole, encoding="utf-8")


def arguments(description: str, *, runs: int = 3) -> argparse.ArgumentParser:
    """Return a parser with `--runs` and `--json`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--runs", type=int, default=runs, help="repetitions of each figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="record of the figures")
    return parser


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"no {name}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
