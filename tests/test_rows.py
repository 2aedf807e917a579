"""Rows in chunks against the same rows at once, and against each row computed alone."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.config import MODALITIES
from maven.inference import Series
from maven.intervals import SETS, Intervals, name_of
from maven.observe import SeenFace
from maven.render import tables
from maven.rows import Boxes, Person, Rows
from maven.timeline import uniform_grid

REST = ((0.05, 0.0), (0.0, -0.05), (0.02, 0.02))
INTERVALS = Intervals(0.9, 10, {name_of(p): np.full((2, 2, 2), 0.1 * (4 - len(p))) for p in SETS})


def series(seconds: float, seed: int, unknown: bool) -> Series:
    """A random answer at 10 Hz; where wanted, nothing is known for stretches of it."""
    random = np.random.default_rng(seed)
    time_s = uniform_grid(0.0, seconds, 10.0)
    contributions = random.uniform(-0.3, 0.3, (len(time_s), 3, 2))
    if unknown:
        gone = np.repeat(random.uniform(size=len(time_s) // 5 + 1) < 0.4, 5)
        contributions[gone[: len(time_s)]] = np.nan
    return Series(time_s, contributions.sum(1), contributions)


def boxes(seen: np.ndarray, seed: int) -> Boxes:
    random = np.random.default_rng(seed)
    k = int(seen.sum())
    sides = random.uniform(0, 600, (k, 4)).astype(np.float32)
    return Boxes(np.flatnonzero(seen), sides, random.uniform(size=k).astype(np.float32))


def made(t: int, people: int = 2, seed: int = 0, intervals: Intervals | None = INTERVALS) -> Rows:
    """`t` rows a person at uneven times, with what was observed at random."""
    random = np.random.default_rng(seed)
    time_s = np.cumsum(random.uniform(0.02, 0.08, t))
    length_s = float(time_s[-1]) + 0.1
    return Rows(
        "clip.mp4",
        time_s,
        random.uniform(size=t) < 0.5,
        random.uniform(size=t) < 0.5,
        tuple(
            Person(k + 1, series(length_s, seed + k, k > 0), boxes(random.uniform(size=t) < 0.6, k))
            for k in range(people)
        ),
        intervals,
        REST,
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 100), st.integers(0, 50))
def test_where_the_table_is_cut_changes_nothing(t: int, rows: int, seed: int) -> None:
    table = made(t, seed=seed)
    cut, whole = list(table.chunks(rows)), list(table.chunks(10**6))
    assert len(whole) == 2
    assert max(len(chunk["frame"]) for chunk in cut) <= rows
    assert all(len(set(chunk["face_id"])) == 1 for chunk in cut)
    for name in tables.COLUMNS:
        one, other = (np.concatenate([chunk[name] for chunk in c]) for c in (cut, whole))
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes() or (one == other).all(), name


def test_each_row_is_what_its_person_and_time_say() -> None:
    table = made(60, seed=3)
    frame = tables.joined(table.chunks(7))
    assert len(frame) == 120
    for person, (_, rows) in zip(table.people, frame.groupby("face_id"), strict=True):
        assert rows["frame"].tolist() == list(range(60))
        assert rows["time_s"].tolist() == table.time_s.tolist()
        known = np.isfinite(person.series.va[:, 0])
        for k, row in enumerate(rows.itertuples(index=False)):
            at = np.flatnonzero(person.boxes.rows == k)
            observed = [len(at) > 0, bool(table.has_speech[k]), bool(table.has_text[k])]
            assert [row.has_face, row.has_speech, row.has_text] == observed
            box = [row.face_x, row.face_y, row.face_w, row.face_h, row.face_score]
            if observed[0]:
                assert box == [*person.boxes.boxes_px[at[0]], person.boxes.scores[at[0]]]
            else:
                assert np.isnan(box).all()
            va = [
                np.interp(table.time_s[k], person.series.time_s[known], person.series.va[known, j])
                for j in range(2)
            ]
            weights = [row.visual_weight, row.audio_weight, row.text_weight]
            if not any(observed):
                assert np.isnan([row.valence, row.arousal, row.intensity, *weights]).all()
                continue
            np.testing.assert_allclose([row.valence, row.arousal], va, atol=1e-12)
            assert row.intensity == pytest.approx(np.hypot(*va))
            half = 0.1 * (4 - sum(observed))
            np.testing.assert_allclose(
                [row.valence_low, row.valence_high], np.clip([va[0] - half, va[0] + half], -1, 1)
            )
            assert sum(weights) == pytest.approx(1)
            assert [w > 0 for w in weights] == observed


def test_rows_keep_no_features() -> None:
    face = SeenFace(3)
    assert Boxes.of(None).part(0, 4).shape == (4, 5)
    assert np.isnan(Boxes.of(None).part(0, 4)).all()
    kept = Boxes.of(face)
    assert set(vars(kept)) == {"rows", "boxes_px", "scores"}
    assert np.isnan(kept.part(2, 5)).all()


def test_whether_anything_was_answered() -> None:
    table = made(50)
    assert table.answered()
    silent = np.zeros(50, bool)
    nobody = Person(None, series(9.0, 0, unknown=False), Boxes.of(None))
    assert not Rows("x", table.time_s, silent, silent, (nobody,), None, REST).answered()
    late = silent.copy()
    late[-1] = True
    assert Rows("x", table.time_s, late, silent, (nobody,), None, REST).answered()


def test_without_intervals_there_are_none() -> None:
    (chunk,) = made(40, people=1, intervals=None).chunks()
    assert np.isnan(chunk["valence_low"]).all()
    assert np.isfinite(chunk["valence"]).any()


def written_peak(t: int, folder: Path) -> int:
    """Bytes held at most while the rows are made and written as CSV."""
    table = made(t, people=1)
    tracemalloc.start()
    tables.write(table.chunks(), {}, folder, "x", ["csv"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_a_long_table_is_written_in_the_memory_of_a_short_one(tmp_path: Path) -> None:
    short, long = written_peak(2500, tmp_path), written_peak(25_000, tmp_path)
    # As numbers alone the 22,500 rows more are 4 MB; which of the answers are known is 0.3 MB.
    assert long < short + 0.5e6
    assert sum(1 for _ in (tmp_path / "x.csv").open()) == 25_001


def test_the_columns_are_those_of_the_network() -> None:
    (chunk,) = made(5, people=1).chunks()
    assert list(chunk) == list(tables.COLUMNS)
    assert [n for n in chunk if n.endswith("_weight")] == [f"{m}_weight" for m in MODALITIES]
