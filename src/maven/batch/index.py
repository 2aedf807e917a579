"""What became of each file of a batch: `index.parquet`, a row a file, and `errors.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from maven.batch import result, sources
from maven.batch.ledger import DONE, WAITING, Outcome, Wanted
from maven.files import whole

COLUMNS: dict[str, str] = {  # name -> type
    "id": "string",
    "path": "string",
    "state": "string",  # done, failed or waiting
    "error": "string",
    "attempts": "int64",
    "duration_s": "float64",
    "start_s": "float64",
    "end_s": "float64",
    "rows": "int64",
    "faces": "int64",
    "valence": "float64",
    "arousal": "float64",
    "intensity": "float64",
    "face_share": "float64",
    "speech_share": "float64",
    "words_share": "float64",
    "seconds": "float64",
    "size_bytes": "int64",
    "result": "string",
    "media_sha256": "string",
    "finished": "timestamp",
    "notes": "string",
}
ERRORS = ("id", "path", "error", "attempts", "seconds")
ASKED = ("path", "start_s", "end_s", "size_bytes")  # of a task
GROUP_ROWS = 20_000
FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def write(rows: Iterable[Mapping[str, Any]], table: Path, errors: Path) -> None:
    """Write a row of `COLUMNS` a file into `table`, those that failed into `errors` as well.

    Both are written in one pass and take their places at its end. `finished` is in milliseconds
    since 1970, UTC. In the CSV an apostrophe stands before what a spreadsheet would take for a
    formula (names begin as others like); the table has everything as it is.

    Raises:
        OSError: they cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet

    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "timestamp": pa.timestamp("ms", tz="UTC"),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    with ExitStack() as stack:
        part = stack.enter_context(whole(errors, durable=True))
        part_of_table = stack.enter_context(whole(table, durable=True))
        file = stack.enter_context(part.open("w", encoding="utf-8", newline=""))
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(ERRORS)
        # A file of Python's: what it raises says why, where pyarrow's own hides it.
        target = stack.enter_context(part_of_table.open("wb"))
        writer = stack.enter_context(
            pyarrow.parquet.ParquetWriter(
                target, schema, compression="zstd", write_page_checksum=True
            )
        )
        group: list[Mapping[str, Any]] = []
        for row in rows:
            if row["state"] == "failed":
                lines.writerow([_cell(row[name]) for name in ERRORS])
            group.append(row)
            if len(group) == GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group.clear()
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))


def row(id: str, wanted: Wanted | None, known: Outcome | None) -> dict[str, Any]:
    """Make the row of a file, of today or not, of which something is known or not."""
    known = known or Outcome(WAITING)
    state = known.state
    if wanted is not None and wanted.todo and state == DONE:
        state = WAITING
    task = (wanted.task if wanted is not None else known.task) or {}
    record = dict(known.record or {})
    values = {
        **{name: record.get(name) for name in COLUMNS},
        **{name: task.get(name) for name in ASKED},
        "id": id,
        "state": state,
        "error": known.error,
        "attempts": known.attempts,
        "seconds": known.seconds,
        "result": None if known.file is None else result.place(id),
        "finished": known.finished_ms,
        "notes": "; ".join(record.get("notes", ())) or None,
    }
    return {k: shown(v) if isinstance(v, str) else v for k, v in values.items()}


def shown(text: str) -> str:
    r"""Return text that any file takes: bytes of a name that are no UTF-8 as \udcff.

    What signs a URL is left out.
    """
    return sources.shown(text).encode("utf-8", "backslashreplace").decode()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
