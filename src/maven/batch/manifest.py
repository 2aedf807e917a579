"""Manifests: tables of what is to be done, CSV (UTF-8, with a header) or Parquet, row by row.

Columns: `path`; if there are such, `transcript`, `id`, `start` and `end` (seconds, or "mm:ss" and
"h:mm:ss", with a fraction if need be; also named `start_s` and `end_s`). Others are ignored. CSV
from a spreadsheet may be parted by semicolons or tabs. A row that cannot be used says so itself;
the others count.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from maven.batch.sources import InputError, reason
from maven.files import printable

SUFFIXES = (".csv", ".parquet")
COLUMNS = ("path", "transcript", "id", "start", "end")
ALSO = {"start_s": "start", "end_s": "end"}  # as an index has them
DELIMITERS = ",;\t"
MAX_TIME_S = 1e8  # as in transcripts: what is later is no time
LONGEST_CELL, LONGEST_LINE = 2**15, 2**20  # characters: paths and URLs are shorter
BATCH_ROWS = 4096
CLOCK = re.compile(r"(?:(\d{1,5}):)?(\d{1,5}):([0-5]?\d(?:\.\d{0,9})?)", re.ASCII)
SECONDS = re.compile(r"\d{1,12}(?:\.\d{0,30})?(?:[eE][+-]?\d{1,3})?|\.\d{1,30}", re.ASCII)
TIMES = "seconds, mm:ss or h:mm:ss, from 0"


@dataclass(frozen=True)
class Row:
    """One row as it is written; times in seconds.

    `where` names it for people; `problem` is what is wrong with it, one line, else None.
    """

    where: str
    path: str
    transcript: str | None = None
    id: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    problem: str | None = None


def rows(file: BinaryIO, name: str) -> Iterator[Row]:
    """Read a manifest of a name with one of `SUFFIXES`; it is not kept in memory.

    Raises:
        InputError: it is no such table, or has no column `path`.
    """
    shown = printable(name)
    if name.lower().endswith(".parquet"):
        return _parquet_rows(file, shown)
    return _csv_rows(file, shown)


def _csv_rows(file: BinaryIO, name: str) -> Iterator[Row]:
    head = file.read(64)
    file.seek(0)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or head.count(0) > len(head) // 4:
        raise InputError(f"{name}: is UTF-16 or no text; accepted: CSV as UTF-8")
    # Bytes that are no UTF-8 may be a file's name, so they are kept.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _cells(text, name)
    finally:
        text.detach()


def _cells(text: io.TextIOWrapper, name: str) -> Iterator[Row]:
    first = text.readline(LONGEST_LINE)
    counts = [first.count(c) for c in DELIMITERS]
    delimiter = DELIMITERS[counts.index(max(counts))]
    reader = csv.reader(_lines(first, text, name), delimiter=delimiter, strict=True)
    columns: dict[str, int] | None = None
    width = line = 0
    try:
        for cells in reader:
            line, first_line = reader.line_num, line + 1
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns, width = _columns(cells, f"{name}, line {first_line}"), len(cells)
                continue
            where = f"{name}, line {first_line}"
            if len(cells) != width:
                problem = f"{where}: got {len(cells)} cells; accepted: {width}, as in the header"
                yield Row(where, cells[columns["path"]] if columns["path"] < len(cells) else "",
                          problem=problem)  # fmt: skip
                continue
            yield _row(where, {column: cells[k] for column, k in columns.items()})
    except csv.Error as error:
        raise InputError(f"{name}, line {line + 1}: no CSV ({reason(error)})") from None
    if columns is None:
        raise InputError(f"{name}: is empty; accepted: a header with `path`, then rows")


def _lines(first: str, text: io.TextIOWrapper, name: str) -> Iterator[str]:
    """Give the lines; a file without line ends must not fill memory."""
    line, number = first, 1
    while line:
        if len(line) >= LONGEST_LINE:
            raise InputError(f"{name}, line {number}: is too long; accepted: a manifest as CSV")
        yield line
        line, number = text.readline(LONGEST_LINE), number + 1


def _columns(header: list[Any], where: str) -> dict[str, int]:
    """Find the columns in a header."""
    names = [str(name).strip().lower() for name in header]
    names = [ALSO.get(name, name) for name in names]
    for name in COLUMNS:
        if names.count(name) > 1:
            raise InputError(f"{where}: two columns {name!r}; accepted: one")
    if "path" not in names:
        found = ", ".join(f"'{printable(n[:40])}'" for n in names[:8])
        raise InputError(f"{where}: no column 'path', only {found}; accepted: {', '.join(COLUMNS)}")
    return {name: names.index(name) for name in COLUMNS if name in names}


def _parquet_rows(file: BinaryIO, name: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        columns = _columns(table.schema_arrow.names, name)
        names = [table.schema_arrow.names[k] for k in columns.values()]
        number = 0
        for batch in table.iter_batches(BATCH_ROWS, columns=names, use_threads=False):
            values = [batch.column(batch.schema.names.index(n)).to_pylist() for n in names]
            for cells in zip(*values, strict=True):
                number += 1
                yield _row(f"{name}, row {number}", dict(zip(columns, cells, strict=True)))
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{name}: cannot be read as Parquet ({reason(error)})") from None


def _row(where: str, cells: Mapping[str, Any]) -> Row:
    """Read the cells of a row; what is wrong becomes its problem."""
    path: str | None = None
    named: str | None = None
    try:
        named = _text(cells.get("id"), "id")
        path = _text(cells.get("path"), "path")
        if path is None:
            raise ValueError("path is empty; accepted: a file or a URL")
        transcript = _text(cells.get("transcript"), "transcript")
        start_s, end_s = (_seconds(cells.get(column), column) for column in ("start", "end"))
        if end_s is not None and (start_s or 0.0) >= end_s:
            raise ValueError(f"start {start_s or 0.0:g} is not before end {end_s:g}")
    except ValueError as error:
        return Row(where, path or "", id=named, problem=f"{where}: {error}")
    return Row(where, path, transcript, named, start_s, end_s)


def _text(value: Any, column: str) -> str | None:
    """Read a path or an id; None where there is none. Whole numbers are names too."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():  # whole numbers beside missing ones
        value = int(value)
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{column} is {_shown(value)}; accepted: text")
    if len(value) > LONGEST_CELL or "\0" in value:
        raise ValueError(f"{column} is {_shown(value)}; accepted: a name")
    return value if value.strip() else None


def _seconds(value: Any, column: str) -> float | None:
    """Read a time; None where there is none."""
    if value is None:
        return None
    seconds: float | None = None
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("", "nan"):
            return None
        clock = CLOCK.fullmatch(text)
        if clock and (clock[1] is None or int(clock[2]) < 60):
            seconds = int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3])
        elif SECONDS.fullmatch(text):
            seconds = float(text)
    elif not isinstance(value, (bool, bytes)):
        try:
            seconds = float(value)
        except (TypeError, ValueError, OverflowError):
            seconds = None
        if seconds is not None and math.isnan(seconds):
            return None
    if seconds is None or not 0 <= seconds <= MAX_TIME_S:
        raise ValueError(f"{column} is {_shown(value)}; accepted: {TIMES}")
    return seconds


def _shown(value: Any) -> str:
    """Show what came, short, on one line."""
    return printable(repr(value)[:60])
