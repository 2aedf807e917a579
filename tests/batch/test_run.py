"""A batch from beginning to end, with an engine that only pretends to analyse."""

from __future__ import annotations

import csv
import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from maven.batch import output, result
from maven.batch.items import items
from maven.batch.run import Meter, Progress, run
from maven.batch.state import Counts, State, StateError
from maven.render import tables

Task = dict[str, Any]


class Pretending:
    """Gives each file a table of three rows, or the outcome that a test wants; the last first."""

    def __init__(self, odd: dict[str, Callable[[Task], Task]] | None = None) -> None:
        self.odd, self.asked, self.work = odd or {}, [], Path()
        self.model = "toy"

    def __call__(self, work: Path) -> Pretending:
        self.work = work
        return self

    def __enter__(self) -> Pretending:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def about(self) -> dict[str, Any]:
        return {"model": self.model}

    def run(self, tasks: Iterable[Task]) -> Iterator[Task]:
        for task in sorted(tasks, key=lambda task: str(task["id"]), reverse=True):
            self.asked.append(task["id"])
            yield self.odd.get(task["id"], self.done)(task)

    def done(self, task: Task) -> Task:
        digest = hashlib.sha256(Path(task["path"]).read_bytes()).hexdigest()
        about = {"key": digest[:32], "media_sha256": digest, "transcript_sha256": None}
        record = {**about, "duration_s": 2.0, "rows": 3, "faces": 1, "notes": []}
        target = self.work / f"{len(self.asked)}.parquet"
        result.write(table(), task["id"], record, target)
        outcome = {"id": task["id"], "state": "done", "error": None, "again": False}
        return {**outcome, "seconds": 0.5, "file": str(target), "record": record}


def table() -> Any:
    """What `result.write` takes of an analysis, of three rows."""
    chunk = {}
    for name, column in tables.COLUMNS.items():
        values = np.zeros(3, bool) if column.dtype == "bool" else np.zeros(3)
        chunk[name] = np.full(3, "x", object) if column.dtype == "string" else values
    chunk["frame"] = np.arange(3)
    chunk["face_id"] = np.full(3, 1, object)
    return SimpleNamespace(chunks=lambda: iter([chunk]), provenance={"model": "toy"})


def failing(again: bool) -> Callable[[Task], Task]:
    def outcome(task: Task) -> Task:
        line = f"{task['path']}: took longer than 60 s"
        about = {"id": task["id"], "state": "failed", "error": line, "again": again}
        return {**about, "seconds": 60.0, "file": None, "record": None}

    return outcome


def index(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in parquet.read_table(folder / "index.parquet").to_pylist()}


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.mp4").write_bytes(name.encode() * 100)
    return folder


def test_everything_is_done_once_and_indexed(media: Path, tmp_path: Path) -> None:
    engine, out, told = Pretending(), tmp_path / "out", list[Progress]()
    plans: list[Counts] = []
    ended = run(
        items([str(media)]), out, engine, {},
        planned=lambda counts, _: plans.append(counts), tell=told.append,
    )  # fmt: skip
    assert plans == [ended.counts]
    assert (ended.counts.todo, ended.counts.total) == (3, 3)
    assert engine.asked == ["c.mp4", "b.mp4", "a.mp4"]
    assert [p.finished for p in told] == [1, 2, 3]
    assert ended.progress.media_s == 6.0
    rows = index(out)
    assert list(rows) == ["a.mp4", "b.mp4", "c.mp4"]
    assert {row["state"] for row in rows.values()} == {"done"}
    assert all((out / row["result"]).is_file() for row in rows.values())
    assert not (out / ".maven-work").exists()
    assert "a.mp4" in (out / "index.html").read_text(encoding="utf-8")

    again = Pretending()
    ended = run(items([str(media)]), out, again, {})
    assert again.asked == []
    assert (ended.counts.todo, ended.counts.done) == (0, 3)


def test_only_what_changed_failed_or_is_missing_is_done_again(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (media / "d.mp4").write_bytes(b"d")
    run(items([str(media)]), out, Pretending({"a.mp4": failing(False)}), {})
    (media / "b.mp4").write_bytes(b"other")
    (out / index(out)["c.mp4"]["result"]).unlink()
    engine = Pretending()
    counts = run(items([str(media)]), out, engine, {}).counts
    assert (counts.failed, counts.changed, counts.missing, counts.done) == (1, 1, 1, 1)
    assert sorted(engine.asked) == ["a.mp4", "b.mp4", "c.mp4"]


def test_what_hangs_is_tried_once_more_at_the_end(media: Path, tmp_path: Path) -> None:
    engine, out = Pretending({"c.mp4": failing(True), "b.mp4": failing(False)}), tmp_path / "out"
    told: list[Progress] = []
    ended = run(items([str(media)]), out, engine, {}, tell=told.append)
    assert engine.asked == ["c.mp4", "b.mp4", "a.mp4", "c.mp4"]
    assert (ended.progress.finished, ended.progress.failed) == (3, 2)
    assert [p.finished for p in told] == [1, 2, 3]
    rows = index(out)
    assert (rows["c.mp4"]["attempts"], rows["b.mp4"]["attempts"]) == (2, 1)
    assert rows["c.mp4"]["error"].endswith("took longer than 60 s")
    with (out / "errors.csv").open(encoding="utf-8", newline="") as file:
        assert sorted(row["id"] for row in csv.DictReader(file)) == ["b.mp4", "c.mp4"]


def test_the_second_try_may_go_well(media: Path, tmp_path: Path) -> None:
    engine, out = Pretending(), tmp_path / "out"
    engine.odd["b.mp4"] = lambda t: (
        failing(True)(t) if engine.asked.count("b.mp4") == 1 else engine.done(t)
    )
    ended = run(items([str(media)]), out, engine, {})
    assert ended.progress.failed == 0
    assert index(out)["b.mp4"]["state"] == "done"


def test_however_it_ends_what_is_done_is_in_the_index(media: Path, tmp_path: Path) -> None:
    def interrupted(task: Task) -> Task:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(items([str(media)]), out, Pretending({"b.mp4": interrupted}), {})
    states = {id: row["state"] for id, row in index(out).items()}
    assert states == {"a.mp4": "waiting", "b.mp4": "waiting", "c.mp4": "done"}
    engine = Pretending()
    run(items([str(media)]), out, engine, {})
    assert engine.asked == ["b.mp4", "a.mp4"]


@pytest.mark.parametrize("change", ["settings", "model"])
def test_other_settings_do_everything_anew_and_apart(
    media: Path, tmp_path: Path, change: str
) -> None:
    out, engine = tmp_path / "out", Pretending()
    run(items([str(media)]), out, Pretending(), {"faces": "main"})
    engine.model = "other" if change == "model" else engine.model
    settings = {"faces": "all" if change == "settings" else "main"}
    ended = run(items([str(media)]), out, engine, settings)
    assert len(engine.asked) == 3
    assert any("settings changed" in note for note in ended.notes)
    assert len(list(out.glob("results/*/*.parquet"))) == 3
    assert len(list(out.glob("earlier/*/*/*.parquet"))) == 3


def test_a_dry_run_writes_nothing_and_asks_nothing(media: Path, tmp_path: Path) -> None:
    engine, out = Pretending(), tmp_path / "out"
    ended = run(items([str(media)]), out, engine, {}, dry_run=True)
    assert ended.counts.todo == 3
    assert engine.asked == []
    assert not out.exists()
    assert not engine.work.exists()  # where the engine may have left files


def test_two_batches_do_not_share_a_folder(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def another(task: Task) -> Task:
        with pytest.raises(StateError, match="in use"):
            run(items([str(media)]), out, Pretending(), {})
        return engine.done(task)

    engine = Pretending({"b.mp4": another})
    assert run(items([str(media)]), out, engine, {}).progress.failed == 0


@pytest.mark.parametrize("ended", [False, True])
def test_who_is_refused_removes_nothing_of_another_batch(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """Both make the folder at once; the other one holds it first."""
    out, real, others = tmp_path / "out", output.held, list[State]()

    def held(folder: Path, *, shared: bool = False) -> AbstractContextManager[None]:
        monkeypatch.setattr(output, "held", real)
        others.append(State(folder))
        others[0].settle({})
        others[0].plan([])
        if ended:
            others[0].__exit__(None, None, None)
        return real(folder, shared=shared)

    monkeypatch.setattr(output, "held", held)
    twice = items([str(media), str(media / "a.mp4"), str(media / "b.mp4")])
    wrong = (replace(item, id="same") for item in twice)
    with pytest.raises(StateError, match="two inputs have" if ended else "in use"):
        run(wrong, out, Pretending(), {})
    others[0].__exit__(None, None, None)
    assert (out / "batch.sqlite").exists()


def test_a_folder_made_for_what_is_refused_goes_again(media: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("there", "not there"):
        wrong = (replace(item, id="same") for item in items([str(media)]))
        with pytest.raises(StateError, match="two inputs have"):
            run(wrong, tmp_path / name, Pretending(), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["media", "there"]


def test_a_folder_made_for_a_database_that_cannot_be_opened_goes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        path.touch()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("maven.batch.state.Ledger", full)
    with pytest.raises(StateError, match="full"):
        State(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_time_left_is_by_bytes_where_sizes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    meter = Meter(Counts(new=4, todo_bytes=100))
    assert meter.read().left_s is None
    now_s[0] += 10
    meter.count({"state": "done", "record": {"duration_s": 5.0}}, 20)
    assert meter.read().left_s == pytest.approx(40.0)
    unknown = Meter(Counts(new=4))
    now_s[0] += 10
    unknown.count({"state": "failed", "record": None}, None)
    assert unknown.read().left_s == pytest.approx(30.0)
