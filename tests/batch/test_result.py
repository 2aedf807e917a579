from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import maven
from demo_pieces import copy_piece
from maven.batch import result
from maven.batch.result import ResultError
from maven.pipeline import Analysis, analyze
from maven.render import tables
from maven.rows import Boxes
from toy_mini import save_toy_mini

IDS = ("a/b c.mp4", "интервью 7.mov", "_hidden.mp4", "x#1.5-2.5", "..")


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    folder = tmp_path_factory.mktemp("result")
    model = maven.load(save_toy_mini(folder / "toy"), device="cpu")
    return analyze(copy_piece(folder / "piece.mp4"), model, asr="none")


@pytest.fixture(scope="module")
def record(analysis: Analysis) -> dict[str, Any]:
    return {"key": "ab" * 16, "media_sha256": "cd" * 32, **result.of(analysis)}


@pytest.fixture
def written(analysis: Analysis, record: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "x.parquet"
    result.write(analysis, IDS[1], record, path)
    return path


def test_a_result_is_the_long_table_with_the_id_first(analysis: Analysis, written: Path) -> None:
    table = pq.ParquetFile(written).read()
    assert table.column_names == ["id", *tables.COLUMNS]
    frame = table.to_pandas()
    assert set(frame.pop("id")) == {IDS[1]}
    pd.testing.assert_frame_equal(tables.conform(frame), analysis.frames, check_exact=True)
    assert json.loads(table.schema.metadata[b"maven"]) == analysis.provenance
    assert table.schema.field("theta").metadata[b"unit"] == b"rad"


def test_the_footer_gives_back_id_and_record(record: dict[str, Any], written: Path) -> None:
    assert result.record(written) == {"id": IDS[1], **record}


def test_the_numbers_are_those_of_the_rows(analysis: Analysis, record: dict[str, Any]) -> None:
    rows = analysis.frames
    for name in ("valence", "arousal", "intensity"):
        assert record[name] == pytest.approx(rows[name].mean(), abs=1e-12)
    assert record["face_share"] == pytest.approx(rows["has_face"].mean())
    assert record["speech_share"] == pytest.approx(rows["has_speech"].mean())
    assert record["words_share"] == 0
    assert (record["rows"], record["faces"]) == (len(rows), 1)
    step_s = rows["time_s"].diff().median()
    assert record["duration_s"] == pytest.approx(rows["time_s"].iloc[-1] + step_s, abs=1e-6)
    assert record["notes"] == list(analysis.notes)


def test_without_an_answer_there_are_no_means(analysis: Analysis) -> None:
    rows = analysis.rows
    nobody = replace(rows.people[0], track_id=None, boxes=Boxes.of(None))
    silence = np.zeros(len(rows.time_s), bool)
    unanswered = replace(rows, people=(nobody,), has_speech=silence)
    found = result.of(replace(analysis, rows=unanswered, tracks=()))
    assert (found["valence"], found["arousal"], found["intensity"]) == (None, None, None)
    assert (found["faces"], found["face_share"]) == (0, 0)
    json.dumps(found, allow_nan=False)


def test_equal_results_are_equal_to_the_last_byte(
    analysis: Analysis, record: dict[str, Any], written: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / "y.parquet"
    other.parent.mkdir()
    result.write(analysis, IDS[1], dict(record), other)
    assert other.read_bytes() == written.read_bytes()
    assert [path.name for path in other.parent.iterdir()] == ["y.parquet"]


def test_places_are_told_apart_and_can_be_read_by_everyone() -> None:
    places = {id: result.place(id) for id in (*IDS, "A/B c.mp4", "a_b c.mp4", "é" * 400, "é.mp4")}
    assert len({place.lower() for place in places.values()}) == len(places)
    for id, place in places.items():
        digest = hashlib.sha256(id.encode()).hexdigest()
        folder, part, name = place.split("/")
        assert (folder, part) == ("results", f"part={digest[:2]}")
        assert name.endswith(f"{digest[:16]}.parquet")
        assert name.isascii()
        assert len(name) < 100
        assert name[0] not in "._-"  # what readers of folders leave out
    assert places[IDS[0]].split("/")[2].startswith("a-b-c-mp4-")


@pytest.fixture
def folder(analysis: Analysis, record: dict[str, Any], tmp_path: Path) -> Path:
    """A batch's folder with five results."""
    for id in IDS:
        path = tmp_path / "batch" / result.place(id)
        path.parent.mkdir(parents=True, exist_ok=True)
        result.write(analysis, id, record, path)
    (tmp_path / "batch" / "results" / "_batch.json").write_text("{}")
    return tmp_path / "batch" / "results"


def test_all_results_are_one_table(analysis: Analysis, folder: Path) -> None:
    whole = pd.read_parquet(folder)
    assert list(whole.columns) == ["id", *tables.COLUMNS, "part"]
    assert whole.groupby("id").size().to_dict() == dict.fromkeys(IDS, len(analysis.frames))
    dataset = pa.dataset.dataset(folder, partitioning="hive")
    some = dataset.to_table(filter=pa.dataset.field("id") == IDS[1], columns=["id", "valence"])
    np.testing.assert_array_equal(
        some["valence"].to_pandas(), analysis.frames["valence"].astype(float)
    )


def test_duckdb_reads_all_results(analysis: Analysis, folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    query = f"SELECT id, avg(valence), count(*) FROM '{folder}/*/*.parquet' GROUP BY id"
    found = {id: (mean, n) for id, mean, n in duckdb.sql(query).fetchall()}
    mean = analysis.frames["valence"].mean()
    assert found == {id: (pytest.approx(mean), len(analysis.frames)) for id in IDS}


def test_a_flipped_byte_of_a_row_is_seen_by_who_reads_it(written: Path) -> None:
    content = bytearray(written.read_bytes())
    content[len(content) // 4] ^= 0x10
    written.write_bytes(content)
    with pytest.raises(OSError, match=r"(?i)crc"):
        pq.ParquetFile(written, page_checksum_verification=True).read()


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_a_cut_result_is_refused(written: Path, keep: float) -> None:
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ResultError, match=r"^\S+x\.parquet: not a Parquet file, or cut off$"):
        result.record(written)


def test_a_result_without_its_middle_is_refused(written: Path) -> None:
    content = written.read_bytes()
    written.write_bytes(content[:100] + content[400:])
    with pytest.raises(ResultError, match="cut: holds fewer bytes than its rows take"):
        result.record(written)


def test_any_damage_of_a_footer_is_refused_or_harmless(
    written: Path, record: dict[str, Any]
) -> None:
    content = written.read_bytes()
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    random = np.random.default_rng(7)

    def refusal() -> str | None:
        try:
            result.record(written)
        except ResultError as error:
            return str(error)
        return None

    lines = []
    for at in random.integers(begin, len(content), 300):
        damaged = bytearray(content)
        damaged[at] ^= 1 << random.integers(8)
        written.write_bytes(damaged)
        lines.append(refusal())
    assert sum(line is not None for line in lines) > 20
    assert not any("\n" in line for line in lines if line)
    written.write_bytes(content)
    assert result.record(written) == {"id": IDS[1], **record}


def test_what_is_not_a_result_is_refused(
    analysis: Analysis, record: dict[str, Any], tmp_path: Path
) -> None:
    (predicted,) = analysis.save(tmp_path, ["parquet"], "predicted")
    with pytest.raises(ResultError, match=r"predicted\.parquet: not a result of maven batch"):
        result.record(predicted)
    wrong = tmp_path / "wrong.parquet"
    result.write(analysis, "a", record | {"rows": 3}, wrong)
    with pytest.raises(ResultError, match="its record does not fit its rows"):
        result.record(wrong)
    metadata = {"maven.batch": json.dumps({"id": "a", "rows": 1})}
    pq.write_table(pa.table({"id": ["a"]}).replace_schema_metadata(metadata), wrong)
    with pytest.raises(ResultError, match="other columns than this version of maven writes"):
        result.record(wrong)
    with pytest.raises(ResultError, match="No such file"):
        result.record(tmp_path / "none.parquet")
    with pytest.raises(ResultError, match="Is a directory"):
        result.record(tmp_path)


def test_without_pyarrow_there_is_one_line(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\nfrom maven.batch import result\n"
        "result.record(Path('x'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip().endswith(
        "TableError: Parquet needs pyarrow: pip install 'maven[parquet]'"
    )
