"""The tables, files and pictures of an evaluation."""

from __future__ import annotations

import csv
import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from rich.console import Console

from maven.evaluate import Evaluation, evaluate
from maven.intervals import SETS, Intervals, name_of
from maven.metrics import Scores
from maven.render.scores import VIDEO_COLUMNS, markdown, sheets, tables, write_evaluation
from scored_clips import clip, small_network

PROVENANCE = {"model": "small", "weights": "ab" * 32}
PICTURES = ("angles.png", "predicted_against_true.png", "courses.png")


@pytest.fixture(scope="module")
def result() -> Evaluation:
    videos = [
        clip("a", 8, seed=1),
        clip("video59_left", 6, seed=2),
        clip("blind [red]|", 3, seed=3, blind=True),
        clip("c", 9, seed=4),
    ]
    return evaluate(small_network(), videos, 0.3, bootstraps=100)


def printed(evaluation: Evaluation, columns: int = 100) -> str:
    out = io.StringIO()
    console = Console(file=out, width=columns)
    for table in tables(evaluation):
        console.print(table)
    return out.getvalue()


def test_the_tables_fit_into_100_columns_and_show_every_figure(result: Evaluation) -> None:
    text = printed(result)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
    for sheet in sheets(result):
        assert sheet.title in text
        for row in sheet.rows:
            assert all(cell.strip() in text for cell in row)
            assert len(row) == len(sheet.columns)
    for figure in (result.abaw.ccc_valence, result.abaw.ccc_mean, result.video_mean.ccc_mean):
        assert f"{figure:.4f}" in text
    for note in result.notes:
        assert note in " ".join(text.split())
    assert "blind [red]|" in text  # no markup


def test_long_names_are_folded_not_cut(result: Evaluation) -> None:
    name = "interview_" * 12
    longer = replace(result, videos=(replace(result.videos[0], name=name),))
    text = printed(longer)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    pieces = [line.split()[0] for line in text.splitlines() if "interview" in line]
    assert "".join(pieces) == name


def test_the_score_and_the_mean_over_videos_have_names_of_their_own(result: Evaluation) -> None:
    first, *others = sheets(result)
    rows = {row[0].strip(): row[1:] for row in first.rows}
    assert rows["CCC (the ABAW score is the mean)"][2] == f"{result.abaw.ccc_mean:.4f}"
    own = rows["mean over videos of their own CCC"]
    assert own[2] == f"{result.video_mean.ccc_mean:.4f}"
    assert result.intervals is not None
    low, high = result.intervals["ccc_mean"]
    assert rows["95 % interval, over videos"][2] == f"{low:.4f} to {high:.4f}"
    observed, taken, videos = others[1:]
    assert sum(int(row[1]) for row in observed.rows) == result.abaw.frames
    assert [row[0] for row in taken.rows][:5] == [
        "everything", "without face", "without voice", "without words", "without a third of face",
    ]  # fmt: skip
    for row, condition in zip(taken.rows[1:], result.conditions, strict=True):
        change = condition.scores.ccc_mean - result.abaw.ccc_mean
        assert float(row[4]) == pytest.approx(change, abs=5e-4)
    assert [row[:2] for row in videos.rows][1] == ("video59_left", "left")


def test_what_is_undefined_is_a_dash_and_no_zero_has_a_minus(result: Evaluation) -> None:
    nan = float("nan")
    scores = Scores(9, -0.00001, 0.0, -0.0, nan, nan, nan, nan, 0, nan, nan)
    bare = replace(result, abaw=scores, intervals=None)
    first, polar, *_ = sheets(bare)
    rows = {row[0].strip(): row[1:] for row in first.rows}
    assert rows["CCC (the ABAW score is the mean)"] == ("0.0000", "0.0000", "0.0000")
    assert rows["95 % interval, over videos"] == ("-", "-", "-")
    assert rows["RMSE"] == ("-", "-", "")
    assert polar.rows[0][1:] == ("-", "0")


def test_markdown_has_the_same_cells(result: Evaluation) -> None:
    text = markdown(result)
    blocks = text.split("### ")[1:]
    assert len(blocks) == len(list(sheets(result)))
    for block, sheet in zip(blocks, sheets(result), strict=True):
        lines = block.splitlines()
        assert lines[0] == sheet.title
        body = [line for line in lines if line.startswith("|")]
        assert len(body) == len(sheet.rows) + 2
        for line, row in zip(body[2:], sheet.rows, strict=True):
            cells = [cell.strip() for cell in line.replace("\\|", "\0").split("|")[1:-1]]
            assert cells == [cell.strip().replace("|", "\0") for cell in row]


def test_the_folder_holds_figures_tables_frames_and_pictures(
    result: Evaluation, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "scores"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = write_evaluation(result, folder, PROVENANCE)
    names = ["evaluation.json", "evaluation.md", "videos.csv", "frames.parquet", *PICTURES]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    read = json.loads((folder / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert read.pop("provenance") == PROVENANCE
    assert read == json.loads(json.dumps(result.to_json()))
    assert (folder / "evaluation.md").read_text() == markdown(result)
    for name in PICTURES:
        picture = cv2.imread(str(folder / name))
        assert picture is not None
        assert min(picture.shape[:2]) > 500
        assert picture.std() > 5
    first = {name: (folder / name).read_bytes() for name in names}
    write_evaluation(result, folder, PROVENANCE)
    assert {name: (folder / name).read_bytes() for name in names} == first


def test_a_row_a_video(result: Evaluation, tmp_path: Path) -> None:
    write_evaluation(result, tmp_path, PROVENANCE)
    with (tmp_path / "videos.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == VIDEO_COLUMNS
    for row, video in zip(rows, result.videos, strict=True):
        assert (row["name"], row["split"], row["person"]) == (video.name, "val", video.person)
        assert int(row["frames"]) == video.frames
        assert int(row["valid"]) == video.scores.frames
        assert int(row["filled"]) == video.filled
        for name in VIDEO_COLUMNS[6:]:
            assert float(row[name]) == pytest.approx(getattr(video.scores, name), rel=1e-7)


def test_a_row_a_frame(result: Evaluation, tmp_path: Path) -> None:
    write_evaluation(result, tmp_path, PROVENANCE)
    schema = pyarrow.parquet.read_schema(tmp_path / "frames.parquet")
    assert json.loads(schema.metadata[b"maven"]) == PROVENANCE
    frames = pd.read_parquet(tmp_path / "frames.parquet")
    assert list(frames["file"].unique()) == [video.name for video in result.answers]
    for name, rows in frames.groupby("file", observed=True):
        (video,) = (answered for answered in result.answers if answered.name == name)
        assert rows["frame"].tolist() == list(range(1, len(video.time_s) + 1))
        np.testing.assert_array_equal(rows["time_s"], video.time_s)
        np.testing.assert_array_equal(rows[["valence", "arousal"]], video.va)
        labels = rows[["label_valence", "label_arousal"]].to_numpy()
        np.testing.assert_array_equal(labels[video.valid], video.labels[video.valid])
        assert np.isnan(labels[~video.valid]).all()
        flags = rows[["has_face", "has_speech", "has_text"]]
        np.testing.assert_array_equal(flags, video.observed)
    # Whoever reads the file finds the score again.
    known = frames.dropna()
    x, y = known["valence"], known["label_valence"]
    spread = x.var(ddof=0) + y.var(ddof=0) + (x.mean() - y.mean()) ** 2
    found = 2 * np.cov(x, y, ddof=0)[0, 1] / spread
    assert found == pytest.approx(result.abaw.ccc_valence, abs=1e-12)


def test_intervals_have_a_table_of_what_they_cover(tmp_path: Path) -> None:
    offsets = {name_of(pattern): np.full((2, 2, 2), 0.5) for pattern in SETS}
    given = Intervals(0.9, 12, offsets)
    scored = evaluate(
        small_network(), [clip("a", 8, seed=1), clip("b", 6, seed=2)], 0.3, bootstraps=0,
        model_intervals=given,
    )  # fmt: skip
    labels = np.concatenate([video.labels for video in scored.answers])
    va = np.concatenate([video.va for video in scored.answers])
    seen = np.concatenate([video.observed.any(1) & video.valid for video in scored.answers])
    inside = (np.abs(labels - va) <= 0.5)[seen].mean(0)
    (sheet,) = (sheet for sheet in sheets(scored) if sheet.title.startswith("Intervals"))
    assert sheet.title == "Intervals, nominally 90%, where anything was observed"
    assert sheet.rows[0][:4] == ("all", str(seen.sum()), f"{inside[0]:.1%}", f"{inside[1]:.1%}")
    assert "observed: face + voice" in [row[0] for row in sheet.rows]
    assert max(len(line.rstrip()) for line in printed(scored).splitlines()) <= 100
    write_evaluation(scored, tmp_path, PROVENANCE)
    written = json.loads((tmp_path / "evaluation.json").read_text())["covered"]["all"]
    assert written["frames"] == seen.sum()
    assert written["width_valence"] <= 1
