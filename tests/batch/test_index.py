from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maven.batch import index, result
from maven.batch.ledger import File, Outcome, Wanted
from small_batch import record_of

TASK = {"path": "/v/a.mp4", "transcript": None, "start_s": 1.0, "end_s": None, "size_bytes": 9}
FILE = File(10, 1, 1, "ab")


def rows(count: int) -> Iterator[dict[str, Any]]:
    for k in range(count):
        failed = k % 10 == 3
        known = Outcome("failed" if failed else "done", error=f"{k}: no video" if failed else None)
        yield index.row(f"clip {k}", Wanted(k, f"clip {k}", TASK, "", ""), known)


def write(folder: Path, given: Iterator[dict[str, Any]]) -> tuple[Path, Path]:
    table, errors = folder / "index.parquet", folder / "errors.csv"
    index.write(given, table, errors)
    return table, errors


def test_a_row_a_file_in_order(tmp_path: Path) -> None:
    count = index.GROUP_ROWS + 7
    table, errors = write(tmp_path, rows(count))
    file = pq.ParquetFile(table)
    assert (file.num_row_groups, file.metadata.num_rows) == (2, count)
    assert file.schema_arrow.names == list(index.COLUMNS)
    assert file.read()["id"].to_pylist() == [f"clip {k}" for k in range(count)]
    with errors.open(newline="") as lines:
        failed = list(csv.DictReader(lines))
    assert [row["id"] for row in failed] == [f"clip {k}" for k in range(3, count, 10)]
    assert failed[0] == {
        "id": "clip 3", "path": "/v/a.mp4", "error": "3: no video", "attempts": "0", "seconds": "",
    }  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["errors.csv", "index.parquet"]


def test_what_a_row_says(tmp_path: Path) -> None:
    finished = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=timezone.utc)
    known = Outcome(
        "done", record=record_of("text"), file=FILE, attempts=2, seconds=1.5,
        finished_ms=round(finished.timestamp() * 1000),
    )  # fmt: skip
    made = index.row("a", Wanted(0, "a", TASK, "s", ""), known)
    table, _ = write(tmp_path, iter([made]))
    (row,) = pq.ParquetFile(table).read().to_pylist()
    assert row["finished"] == finished
    assert row["result"] == result.place("a")
    assert (row["start_s"], row["end_s"], row["size_bytes"]) == (1.0, None, 9)
    assert (row["attempts"], row["seconds"], row["faces"]) == (2, 1.5, 1)
    assert (row["valence"], row["arousal"], row["notes"]) == (0.04, None, "no words")


@pytest.mark.parametrize(
    ("todo", "state", "expected"),
    [("", "done", "done"), ("changed", "done", "waiting"), ("failed", "failed", "failed")],
)
def test_the_state_of_a_row(todo: str, state: str, expected: str) -> None:
    made = index.row("a", Wanted(0, "a", TASK, "", todo), Outcome(state, file=FILE))
    assert made["state"] == expected
    assert made["result"] == result.place("a")  # it lies there still
    assert index.row("a", None, Outcome(state))["result"] is None
    assert index.row("a", Wanted(0, "a", TASK, "", "new"), None)["state"] == "waiting"


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x.mp4", "@SUM(A1)", "\tx", "＝x"])
def test_names_are_no_formulas(tmp_path: Path, name: str) -> None:
    made = index.row(name, None, Outcome("failed", error=f"{name}: cut"))
    table, errors = write(tmp_path, iter([made]))
    with errors.open(newline="", encoding="utf-8") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["id"], row["error"]) == (f"'{name}", f"'{name}: cut")
    assert pq.ParquetFile(table).read()["id"].to_pylist() == [name]


def test_lines_and_quotes_in_names(tmp_path: Path) -> None:
    name = 'a "b", c\nd;\udcff.mp4'
    task = {**TASK, "path": name}
    made = index.row("x", Wanted(0, "x", task, "", ""), Outcome("failed", error="cut"))
    _, errors = write(tmp_path, iter([made]))
    with errors.open(newline="", encoding="utf-8") as lines:
        (row,) = csv.DictReader(lines)
    assert row["path"] == name.replace("\udcff", r"\udcff")


def test_a_failure_leaves_both_as_they_were(tmp_path: Path) -> None:
    paths = write(tmp_path, rows(10))
    before = [path.read_bytes() for path in paths]

    def stops() -> Iterator[dict[str, Any]]:
        yield from rows(5)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(tmp_path, stops())
    assert [path.read_bytes() for path in paths] == before
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_index_has_its_columns(tmp_path: Path) -> None:
    table, errors = write(tmp_path, iter(()))
    read = pq.ParquetFile(table).read()
    assert (read.num_rows, read.column_names) == (0, list(index.COLUMNS))
    assert read.schema.field("finished").type == pa.timestamp("ms", tz="UTC")
    assert errors.read_text() == "id,path,error,attempts,seconds\n"


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, second = write(tmp_path, rows(50)), write(tmp_path / "again", rows(50))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_what_signs_a_url_is_not_shown() -> None:
    signed = "https://host/a.mp4?X-Amz-Signature=abc&part=1"
    assert "abc" not in index.shown(signed)
    assert index.shown("/data/a.mp4?X-Amz-Signature=abc") == "/data/a.mp4?X-Amz-Signature=abc"
