"""A batch of text files: what a file says is its content, and what an engine would make of it.

The real output folder, with real result files of a few rows, at a millisecond a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from maven.batch import result
from maven.batch.items import Item
from maven.batch.state import Counts, State
from maven.pipeline import Analysis
from maven.render import tables

SETTINGS: dict[str, Any] = {"maven": "1", "model": {"name": "toy", "weights_sha256": "aa" * 32}}
OTHER: dict[str, Any] = {"maven": "1", "model": {"name": "toy", "weights_sha256": "bb" * 32}}


class Made:
    """An analysis as far as a result is made of it: ten rows that follow from a text."""

    def __init__(self, text: str, settings: Mapping[str, Any]) -> None:
        self.provenance = {**settings, "media": {"sha256": sha256(text)}}
        self._values = np.random.default_rng(len(text)).uniform(-1, 1, 10)

    def chunks(self) -> Iterator[tables.Chunk]:
        values: dict[str, Any] = {}
        for name, (dtype, _, _) in tables.COLUMNS.items():
            if dtype == "string":
                values[name] = np.full(10, "x", object)
            elif dtype == "Int64":
                values[name] = np.arange(10) if name == "frame" else np.zeros(10, np.int64)
            else:
                values[name] = self._values > 0 if dtype == "bool" else self._values
        yield values


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where there is such: neither a kill nor a fault asks the disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def write_clips(folder: Path, texts: Mapping[str, str]) -> Path:
    """Write files by name with what they say."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def record_of(text: str) -> dict[str, Any]:
    return {
        "key": result.key_of(sha256(text), None, None, None),
        "media_sha256": sha256(text), "transcript_sha256": None,
        "duration_s": 0.4, "rows": 10, "faces": 1, "valence": len(text) / 100, "arousal": None,
        "intensity": 0.5, "face_share": 1.0, "speech_share": 0.0, "words_share": 0.0,
        "notes": ["no words"],
    }  # fmt: skip


def item(path: Path, **values: Any) -> Item:
    """What the listing says of a file."""
    if not path.exists():
        return Item(path.name, str(path), None, None, None, None, "", "no such file")
    about = path.stat()
    signature = json.dumps([about.st_size, about.st_mtime_ns, about.st_ctime_ns])
    base = Item(path.name, str(path), None, None, None, about.st_size, signature, None)
    return replace(base, **values)


def items(folder: Path) -> list[Item]:
    return [item(path) for path in sorted(folder.iterdir())]


def analysed(task: dict[str, Any], work: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an engine makes of a file that says "bad ..", "hangs .." or anything else."""
    text = Path(task["path"]).read_text()
    record = record_of(text)
    base = {"id": task["id"], "error": None, "again": False, "seconds": 0.5, "record": record}
    if task["known"] and task["known"]["key"] == record["key"]:
        return {**base, "state": "same", "file": None}
    if text.startswith(("bad", "hangs")):
        failure = {"error": f"{task['id']}: {text}", "again": text.startswith("hangs")}
        return {**base, **failure, "state": "failed", "file": None}
    file = work / f"{sha256(task['id'])}.parquet"
    result.write(cast(Analysis, Made(text, settings)), task["id"], record, file)
    return {**base, "state": "done", "file": str(file)}


def batch(
    inputs: Iterable[Item],
    folder: Path,
    settings: Mapping[str, Any] = SETTINGS,
    *,
    stop_after: int | None = None,
    did: Callable[[dict[str, Any]], None] = lambda outcome: None,
) -> tuple[Counts, list[str]]:
    """Run a batch as `maven.batch.run` does; tell of every outcome."""
    with State(folder) as state:
        state.settle(settings)
        counts = state.plan(inputs)
        number = 0
        for attempt in (1, 2):
            for task in state.tasks(attempt):
                if number == stop_after:
                    return counts, state.notes
                outcome = analysed(task, state.work, settings)
                state.commit(outcome)
                did(outcome)
                number += 1
        state.write_index()
        return counts, state.notes


def contents(folder: Path) -> dict[str, bytes]:
    """What a folder holds; of the database only that it is there, of the index all but times."""
    import pyarrow.parquet as pq

    found: dict[str, bytes] = {}
    for base, folders, names in os.walk(folder):
        found |= {f"{Path(base, name).relative_to(folder)}/": b"" for name in folders}
        for name in names:
            path = Path(base, name)
            found[str(path.relative_to(folder))] = path.read_bytes()
    found["batch.sqlite"] = b""
    if "index.parquet" in found:
        table = pq.ParquetFile(folder / "index.parquet").read()
        rows = table.drop_columns(["seconds", "finished", "attempts"]).to_pylist()
        found["index.parquet"] = json.dumps(rows).encode()
    return found
