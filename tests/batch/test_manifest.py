"""Manifests: what tables are read, what becomes of bad ones, what of bad rows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from maven.batch.manifest import Row, rows
from maven.batch.sources import InputError


def of_csv(text: str | bytes) -> list[Row]:
    data = text.encode() if isinstance(text, str) else text
    return list(rows(io.BytesIO(data), "list.csv"))


def of_parquet(columns: dict[str, Any]) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    file.seek(0)
    return list(rows(file, "list.parquet"))


def problem(row: Row) -> str:
    assert row.problem is not None
    return row.problem


def test_all_columns_and_times() -> None:
    found = of_csv(
        "id,Path, END ,start,transcript,mood\n"
        "a,clips/a.mp4,2.5,1,a.srt,gay\n"
        "b,b.mp4,1:02:03.5,01:02.25,,\n"
        "\n"
        ",c.mp4,,90:00,,sad\n"
    )
    assert found == [
        Row("list.csv, line 2", "clips/a.mp4", "a.srt", "a", 1.0, 2.5),
        Row("list.csv, line 3", "b.mp4", None, "b", 62.25, 3723.5),
        Row("list.csv, line 5", "c.mp4", None, None, 5400.0, None),
    ]


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("ending", [b"\r\n", b"\n", b"\r"])
@pytest.mark.parametrize("delimiter", [b",", b";", b"\t"])
def test_what_spreadsheets_write(start: bytes, ending: bytes, delimiter: bytes) -> None:
    lines = [[b"path", b"id"], ['"Größe, 1; \t.mp4"'.encode(), b"x"]]
    found = of_csv(start + ending.join(delimiter.join(line) for line in lines) + ending)
    assert found == [Row("list.csv, line 2", "Größe, 1; \t.mp4", None, "x")]


def test_a_row_is_named_by_its_first_line() -> None:
    found = of_csv('path,id\n"two\nlines.mp4",1\n"b ""quoted"".mp4",2\n')
    assert [(row.where, row.path) for row in found] == [
        ("list.csv, line 2", "two\nlines.mp4"),
        ("list.csv, line 4", 'b "quoted".mp4'),
    ]


def test_bytes_that_are_no_utf8_stay_a_file_name() -> None:
    import os

    assert os.fsencode(of_csv(b"path\nJos\xe9.mp4\n")[0].path) == b"Jos\xe9.mp4"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.mp4,5,5,", "start 5 is not before end 5"),
        ("a.mp4,7,5,", "start 7 is not before end 5"),
        ("a.mp4,,0,", "start 0 is not before end 0"),
        ("a.mp4,-1,5,", "start is '-1'; accepted: seconds, mm:ss or h:mm:ss"),
        ('a.mp4,"1,5",5,', "start is '1,5'"),
        ("a.mp4,1:75,,", "start is '1:75'"),
        ("a.mp4,1:60:00,,", "start is '1:60:00'"),
        ("a.mp4,inf,,", "start is 'inf'"),
        ("a.mp4,,1e999,", "end is '1e999'"),
        ("a.mp4,٣,,", "start is"),
        (",1,2,", "path is empty"),
        ("  ,1,2,", "path is empty"),
        ("a.mp4,1,2", "got 3 cells; accepted: 4"),
        ("a,b.mp4,1,2,", "got 5 cells; accepted: 4"),
        ("a.mp4\0,1,2,", "path is"),
    ],
)
def test_a_bad_row_says_so_and_the_others_count(row: str, said: str) -> None:
    found = of_csv(f"path,start,end,transcript\nok.mp4,,nan,\n{row}\nok2.mp4,0,1,\n")
    assert [r.path for r in found if not r.problem] == ["ok.mp4", "ok2.mp4"]
    assert problem(found[1]).startswith("list.csv, line 3: ")
    assert said in problem(found[1])
    assert problem(found[1]).isprintable()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "list.csv: is empty"),
        (b"\n\n \n", "list.csv: is empty"),
        (b"file,start\na.mp4,1\n", "line 1: no column 'path', only 'file', 'start'"),
        (b"path,id,path\n", "line 1: two columns 'path'"),
        (b'path\na.mp4\n"b.mp4\n', "line 3: no CSV (unexpected end of data)"),
        (b'path\n"a"b.mp4\n', "line 2: no CSV"),
        ("path\na.mp4\n".encode("utf-16"), "is UTF-16 or no text"),
        (b"PAR1\0\0\0\0", "is UTF-16 or no text"),
        (b"path\n" + b"a" * 2_000_000, "line 2: is too long"),
        (b'path\n"' + b"a\n" * 100_000, "line 2: no CSV (field larger than field limit"),
        (b"x" * 2_000_000, "line 1: is too long"),
    ],
)
def test_what_is_no_manifest_gets_one_line(data: bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        of_csv(data)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_parquet_as_pandas_writes_it() -> None:
    found = of_parquet(
        {
            "path": ["a.mp4", "b.mp4", None, "d.mp4"],
            "id": [1.0, float("nan"), 3.0, None],
            "start": [0.5, float("nan"), None, 2.0],
            "end": ["0:07", None, "", "1"],
            "other": [[1], [], None, [2]],
        }
    )
    assert found[0] == Row("list.parquet, row 1", "a.mp4", None, "1", 0.5, 7.0)
    assert found[1] == Row("list.parquet, row 2", "b.mp4")
    assert problem(found[2]) == "list.parquet, row 3: path is empty; accepted: a file or a URL"
    assert found[2].id == "3"
    assert problem(found[3]) == "list.parquet, row 4: start 2 is not before end 1"


def test_an_index_names_parts_as_it_does() -> None:
    found = of_parquet({"id": ["a"], "path": ["a.mp4"], "start_s": [1.0], "end_s": [2.5]})
    assert found == [Row("list.parquet, row 1", "a.mp4", None, "a", 1.0, 2.5)]
    with pytest.raises(InputError, match="two columns 'start'; accepted: one"):
        of_csv("path,start,start_s\na.mp4,1,1\n")


def test_a_bad_row_keeps_its_id() -> None:
    found = of_csv("path,id,start\na.mp4,first,x\n,second,1\na\0.mp4,third,1\n")
    assert [(row.id, bool(row.problem)) for row in found] == [
        ("first", True), ("second", True), ("third", True),
    ]  # fmt: skip


def test_parquet_of_other_types() -> None:
    import decimal

    import pyarrow as pa

    found = of_parquet(
        {
            "path": pa.array([b"Jos\xe9.mp4", b"b.mp4"]),
            "id": pa.array([7, 2**62]),
            "start": pa.array([decimal.Decimal("1.25"), None]),
            "end": pa.array([2, None], pa.int8()),
            "transcript": pa.array(["a.srt", "a.srt"]).dictionary_encode(),
        }
    )
    assert found[0] == Row("list.parquet, row 1", "Jos\udce9.mp4", "a.srt", "7", 1.25, 2.0)
    assert found[1].id == str(2**62)
    nested = of_parquet({"path": [{"a": 1}, None], "start": [True, True]})
    assert "path is {'a': 1}; accepted: text" in problem(nested[0])
    assert "start is True" in problem(of_parquet({"path": ["a"], "start": [True]})[0])


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"path\na.mp4\n", b"PAR1" + b"\xff" * 100 + b"PAR1"]
)
def test_what_is_no_parquet_gets_one_line(data: bytes) -> None:
    with pytest.raises(InputError, match=r"list\.parquet: cannot be read as Parquet") as caught:
        list(rows(io.BytesIO(data), "list.parquet"))
    assert str(caught.value).isprintable()


def test_a_damaged_parquet_file_gets_one_line(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": [f"clip{k}.mp4" for k in range(5000)]}), path)
    data = bytearray(path.read_bytes())
    data[100:300] = bytes(200)
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        list(rows(io.BytesIO(data), "list.parquet"))
