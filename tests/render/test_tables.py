from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.render import tables

from .frames import cut, nothing, person, speak, without

PROVENANCE = {"model": "mini", "sha256": "ab" * 32, "version": "0.1.0", "note": "a --> b\n\nc"}
FORMATS_MD = (
    "file, face_id, frame, time_s, valence, arousal, theta, intensity, valence_low, valence_high, "
    "arousal_low, arousal_high, visual_weight, audio_weight, text_weight, has_face, has_speech, "
    "has_text, face_x, face_y, face_w, face_h, face_score, emotion"
)
CLOCK = r"(\d{2,}:[0-5]\d:[0-5]\d\.\d{3})"
CUE = re.compile(rf"{CLOCK} --> {CLOCK}\n((?:.+\n?)+)")


@pytest.fixture
def gappy() -> pd.DataFrame:
    """Two people; the second unanswered for 1 s, without a face for 2 s, without intervals."""
    second = without(person(2, seed=4), slice(50, 75), "answer")
    second = without(second, slice(25, 75), "face")
    return pd.concat([person(1), without(second, slice(None), "interval")], ignore_index=True)


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def cues(path: Path) -> list[tuple[float, float, list[str]]]:
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    assert blocks[0] == "WEBVTT"
    assert blocks[1].startswith("NOTE\n")
    assert "-->" not in blocks[1]
    found = []
    for block in blocks[2:]:
        match = CUE.fullmatch(block)
        assert match, block
        lines = match.group(3).strip().split("\n")
        found.append((seconds(match.group(1)), seconds(match.group(2)), lines))
    return found


def test_the_columns_are_those_of_the_documented_table() -> None:
    assert ", ".join(tables.COLUMNS) == FORMATS_MD
    assert all(column.meaning for column in tables.COLUMNS.values())


def test_parquet_returns_the_same_table(gappy: pd.DataFrame, tmp_path: Path) -> None:
    (path,) = tables.write(gappy, PROVENANCE, tmp_path, "a.b", ["parquet"])
    assert path.name == "a.b.parquet"
    pd.testing.assert_frame_equal(tables.read(path), gappy, check_exact=True)


def test_parquet_has_types_nulls_and_provenance(gappy: pd.DataFrame, tmp_path: Path) -> None:
    (path,) = tables.write(gappy, PROVENANCE, tmp_path, "x", ["parquet"])
    table = pq.read_table(path)
    assert json.loads(table.schema.metadata[b"maven"]) == PROVENANCE
    assert {f.name: str(f.type) for f in table.schema}["face_id"] == "int64"
    assert str(table.schema.field("has_face").type) == "bool"
    for name in tables.COLUMNS:
        assert table[name].null_count == gappy[name].isna().sum(), name
    values = table["valence"].drop_null().to_numpy()
    assert np.isfinite(values).all()  # no NaN hides among the values


def test_csv_returns_the_same_table(gappy: pd.DataFrame, tmp_path: Path) -> None:
    (path,) = tables.write(gappy, PROVENANCE, tmp_path, "x", ["csv"])
    pd.testing.assert_frame_equal(tables.read(path), gappy, check_exact=False, rtol=1e-7, atol=0)
    header, first, *_ = path.read_text(encoding="utf-8").splitlines()
    assert header == FORMATS_MD.replace(" ", "")
    assert "nan" not in path.read_text(encoding="utf-8").lower()
    assert first.split(",")[15] == "True"


def test_csv_keeps_a_file_called_na_and_awkward_names(tmp_path: Path) -> None:
    for name in ("NA", 'x, "y".mp4', "ж.mp4"):
        (path,) = tables.write(person(file=name, duration_s=0.2), {}, tmp_path, "x", ["csv"])
        assert set(tables.read(path)["file"]) == {name}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=1, max_size=30),
    st.floats(0, 9000),
)
def test_any_values_survive_both_files(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], start_s: float
) -> None:
    frame = person(duration_s=len(values) / 25, start_s=start_s)
    frame["valence"] = values
    folder = tmp_path_factory.mktemp("t")
    csv, parquet = tables.write(frame, {}, folder, "x", ["csv", "parquet"])
    pd.testing.assert_frame_equal(tables.read(parquet), frame, check_exact=True)
    pd.testing.assert_frame_equal(
        tables.read(csv), frame, check_exact=False, rtol=1e-7, atol=1e-300
    )


def test_nothing_observed_survives(tmp_path: Path) -> None:
    frame = nothing()
    for path in tables.write(frame, {}, tmp_path, "x", ["csv", "parquet"]):
        pd.testing.assert_frame_equal(tables.read(path), frame)
    (vtt,) = tables.write(frame, {}, tmp_path, "x", ["vtt"])
    assert cues(vtt) == []


def test_json_is_strict_and_complete(gappy: pd.DataFrame, tmp_path: Path) -> None:
    words = speak(8)
    (path,) = tables.write(gappy, PROVENANCE, tmp_path, "x", ["json"], words)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["provenance"] == PROVENANCE
    assert content["words"][3] == {
        "text": words[3].text,
        "start_s": words[3].start_s,
        "end_s": words[3].end_s,
        "segment": 0,
        "confidence": None,
    }
    assert list(content["columns"]) == list(tables.COLUMNS)
    assert content["columns"]["theta"]["unit"] == "rad"
    assert len(content["rows"]) == len(gappy)
    unanswered = content["rows"][200 + 60]
    assert unanswered["valence"] is None
    assert unanswered["emotion"] is None
    assert unanswered["has_face"] is False
    valence = [np.nan if row["valence"] is None else row["valence"] for row in content["rows"]]
    np.testing.assert_allclose(valence, gappy["valence"], rtol=1e-7)


def test_vtt_says_each_half_second_who_feels_what(gappy: pd.DataFrame, tmp_path: Path) -> None:
    (path,) = tables.write(gappy, PROVENANCE, tmp_path, "x", ["vtt"])
    found = cues(path)
    assert [(start, end) for start, end, _ in found] == [(k / 2, (k + 1) / 2) for k in range(16)]
    # Rows 50-74 of the second person, 2-3 s, have no answer.
    assert [len(lines) for _, _, lines in found] == [2, 2, 2, 2, 1, 1] + [2] * 10
    rows = gappy[(gappy["face_id"] == 1) & (gappy["time_s"] >= 1.0) & (gappy["time_s"] < 1.5)]
    v, a = rows["valence"].mean(), rows["arousal"].mean()
    assert re.fullmatch(r"Person 1: [A-Z][a-z]+  v [+-]\d\.\d\d a [+-]\d\.\d\d", found[2][2][0])
    assert found[2][2][0].endswith(f"v {v:+.2f} a {a:+.2f}")


def test_vtt_of_a_clip_that_starts_late_ends_with_it(tmp_path: Path) -> None:
    (path,) = tables.write(person(duration_s=3.2, start_s=3599.9), {}, tmp_path, "x", ["vtt"])
    found = cues(path)
    assert found[0][0] == 3599.5
    assert found[-1][1] == pytest.approx(3603.1, abs=1e-3)


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'xlsx'; accepted: csv, parquet, json, vtt"):
        tables.write(person(), {}, tmp_path / "out", "x", ["csv", "xlsx"])
    assert not (tmp_path / "out").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    tables.write(person(), {"a": 1}, tmp_path, "x", ["json"])
    before = (tmp_path / "x.json").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        tables.write(person(), {"a": float("nan")}, tmp_path, "x", ["json"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_bytes() == before


@pytest.mark.parametrize("rows", [1, 7, 200, 1000])
def test_where_a_table_is_cut_changes_no_file(
    gappy: pd.DataFrame, tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "GROUP_ROWS", 150)
    formats, words = ("csv", "json", "vtt", "parquet"), speak(8)
    *texts, parquet = tables.write(gappy, PROVENANCE, tmp_path, "whole", formats, words)
    chunks = cut(gappy, rows)
    *others, in_groups = tables.write(chunks, PROVENANCE, tmp_path, "cut", formats, words)
    for one, other in zip(texts, others, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert pq.read_table(parquet).equals(pq.read_table(in_groups), check_metadata=True)
    sizes = pq.ParquetFile(in_groups).metadata
    groups = [sizes.row_group(k).num_rows for k in range(sizes.num_row_groups)]
    assert sum(groups) == 400
    assert all(150 <= size < 150 + rows for size in groups[:-1])


def test_csv_is_what_pandas_writes(gappy: pd.DataFrame, tmp_path: Path) -> None:
    gappy.loc[3, "file"] = 'x, "y"\n.mp4'
    gappy.loc[4, ["valence", "arousal", "theta"]] = [-0.0, 1e-300, 123456789.123]
    (path,) = tables.write(gappy, {}, tmp_path, "x", ["csv"])
    expected = gappy.to_csv(index=False, float_format="%.8g", lineterminator="\n")
    assert path.read_text(encoding="utf-8") == expected


def test_chunks_and_the_whole_table_are_the_same(gappy: pd.DataFrame) -> None:
    for frame in (gappy, nothing()):
        joined = tables.joined(cut(frame, 33))
        pd.testing.assert_frame_equal(joined, frame, check_exact=True)


WITHOUT_PYARROW = """
import sys
from pathlib import Path

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
from maven.render import tables
folder = Path(sys.argv[1])
frame = tables.read(folder / "with.csv")
assert {str(frame[name].dtype) for name in ("file", "emotion")} == {"string"}
tables.write(frame, {}, folder, "without", ["csv", "json", "vtt"])
tables.check_formats(["csv"])
for ask in (
    lambda: tables.check_formats(["csv", "parquet"]),
    lambda: tables.write(frame, {}, folder / "new", "x", ["csv", "parquet"]),
    lambda: tables.read(folder / "with.parquet"),
):
    try:
        ask()
    except tables.TableError as error:
        assert str(error) == "Parquet needs pyarrow: pip install 'maven[parquet]'", error
    else:
        raise AssertionError("not refused")
assert not (folder / "new").exists()
"""


def test_without_pyarrow_there_is_all_but_parquet(gappy: pd.DataFrame, tmp_path: Path) -> None:
    read_back = tables.read(tables.write(gappy, {}, tmp_path, "with", ["csv", "parquet"])[0])
    tables.write(read_back, {}, tmp_path, "with", ["csv", "json", "vtt"])
    subprocess.run([sys.executable, "-c", WITHOUT_PYARROW, tmp_path], check=True)
    for ending in ("csv", "json", "vtt"):
        one, other = (tmp_path / f"{stem}.{ending}" for stem in ("with", "without"))
        assert one.read_bytes() == other.read_bytes()


def test_formats_are_checked_before_the_work() -> None:
    tables.check_formats(list(tables.WRITERS))
    with pytest.raises(ValueError, match=r"'xlsx'; accepted: csv, parquet, json, vtt"):
        tables.check_formats(["csv", "xlsx"])


def test_other_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="missing \\['valence'\\], unknown \\['joy'\\]"):
        tables.conform(person().rename(columns={"valence": "joy"}))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.json: accepted are \.csv and \.parquet"):
        tables.read(tmp_path / "x.json")


def test_people_come_in_order_and_a_voice_without_face_has_a_name() -> None:
    both = pd.concat([person(7, duration_s=1), person(2, duration_s=1)])
    assert [name for name, _ in tables.people(both)] == ["Person 2", "Person 7"]
    assert [name for name, _ in tables.people(nothing())] == ["Voice"]


def test_durations_follow_the_true_times_and_missing_rows() -> None:
    rows = person(duration_s=0.24)
    rows["time_s"] = [0.0, 0.1, 0.15, 0.35, 0.4, 0.5]
    np.testing.assert_allclose(tables.durations_s(rows), [0.1, 0.05, 0.2, 0.05, 0.1, 0.1])
    np.testing.assert_allclose(tables.durations_s(rows.iloc[[0, 2, 3]]), [0.075, 0.2, 0.1375])
    assert len(tables.durations_s(rows.iloc[:1])) == 1
