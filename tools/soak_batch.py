"""What the parts of the soak share: clips, runs of `maven batch`, what a folder of results is."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_pieces import copy_piece

OUTPUT = ("results", "index.parquet", "errors.csv", "index.html", "batch.sqlite")
OF_THE_RUN = ("seconds", "finished", "attempts")  # columns of the index, not of the file
COPIED = (".mp4", ".mov", ".avi", ".mkv")  # containers whose packets can be copied as they are


@dataclass(frozen=True)
class Found:
    """One line of the report: what was looked at, what came of it, whether it is as asked."""

    what: str
    came: str
    good: bool


def make_clips(sources: Path, folder: Path, number: int, seed: int, length_s: float = 3.0) -> Path:
    """Fill a folder with pieces of clips, of a third of `length_s` up to it, not encoded anew."""
    random_ = random.Random(seed)
    found = sorted(path for path in sources.iterdir() if path.suffix in COPIED)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        source = found[index % len(found)]
        until_s = random_.uniform(length_s / 3, length_s)
        suffix = ".mkv" if source.suffix == ".avi" else source.suffix
        copy_piece(folder / f"{index:03d}_{source.stem}{suffix}", until_s, source=source)
    return folder


def command(inputs: Path, out: Path, *options: str) -> list[str]:
    """The command line of a batch without recognition of words, as a user would type it."""
    begin = [sys.executable, "-m", "maven.cli", "batch", str(inputs), "-o", str(out)]
    return [*begin, "--asr", "none", *options]


def start(inputs: Path, out: Path, *options: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a batch in a process group of its own."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command(inputs, out, *options), stdout=file, stderr=file, start_new_session=True
        )


def finish(inputs: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a batch to its end."""
    line = command(inputs, out, *options)
    return subprocess.run(line, capture_output=True, text=True, check=False)


def fingerprint(out: Path) -> dict[str, str]:
    """Everything of an output that may not differ: results by their bytes, the index by its rows.

    Returns:
        hashes by relative path; of the index, one a row by its id.
    """
    import pyarrow.parquet as parquet

    hashes = {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((out / "results").rglob("*"))
        if path.is_file()
    }
    for row in parquet.read_table(out / "index.parquet").to_pylist():
        kept = {name: value for name, value in row.items() if name not in OF_THE_RUN}
        hashes[f"index: {row['id']}"] = hashlib.sha256(repr(kept).encode()).hexdigest()
    return hashes


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """Names of what is not equal in two fingerprints."""
    return sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )


def left_over(out: Path) -> list[str]:
    """Files in an output folder that do not belong there when nothing runs."""
    strangers = [path for path in out.iterdir() if path.name not in OUTPUT]
    results = (out / "results").rglob("*")
    strangers += [p for p in results if p.is_file() and p.suffix != ".parquet"
                  and p.name != "_batch.json"]  # fmt: skip
    return sorted(path.relative_to(out).as_posix() for path in strangers)


def fresh(folder: Path) -> Path:
    """Remove a folder, to begin anew."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def shown(found: Sequence[Found]) -> str:
    """Write findings as rows of a Markdown table."""
    return "\n".join(f"| {f.what} | {f.came} | {'yes' if f.good else '**no**'} |" for f in found)
