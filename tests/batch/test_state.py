from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from maven.batch import result
from maven.batch.items import Item
from maven.batch.state import Counts, State, StateError
from small_batch import (
    OTHER,
    SETTINGS,
    analysed,
    batch,
    contents,
    item,
    items,
    record_of,
    write_clips,
)

TEXTS = {"a.mp4": "one", "b.mp4": "bad header", "c.mp4": "three", "d.mp4": "hangs", "e.mp4": "five"}


@pytest.fixture
def clips(folder: Path) -> Path:
    return write_clips(folder / "clips", TEXTS)


@pytest.fixture
def out(folder: Path) -> Path:
    return folder / "out"


def index(out: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pq.ParquetFile(out / "index.parquet").read().to_pylist()}


def done(out: Path, clips: Path, settings: dict[str, Any] = SETTINGS) -> dict[str, str]:
    """Run it and tell what was done."""
    outcomes: dict[str, str] = {}
    batch(items(clips), out, settings, did=lambda o: outcomes.update({o["id"]: o["state"]}))
    return outcomes


def test_all_is_done_once_and_what_failed_is_tried_again(clips: Path, out: Path) -> None:
    counts, notes = batch(items(clips), out)
    assert (counts, notes) == (Counts(new=5, todo_bytes=27), [])
    rows = index(out)
    assert list(rows) == list(TEXTS)
    assert [row["state"] for row in rows.values()] == ["done", "failed", "done", "failed", "done"]
    assert [row["attempts"] for row in rows.values()] == [1, 1, 1, 2, 1]
    assert rows["b.mp4"]["error"] == "b.mp4: bad header"
    for name in ("a.mp4", "c.mp4", "e.mp4"):
        row, text = rows[name], TEXTS[name]
        assert row["result"] == result.place(name)
        assert result.record(out / row["result"]) == {"id": name, **record_of(text)}
        assert (row["valence"], row["arousal"], row["notes"]) == (len(text) / 100, None, "no words")
        assert (row["path"], row["size_bytes"]) == (str(clips / name), len(text))
    assert sorted(p.name for p in out.iterdir()) == [
        "batch.sqlite", "errors.csv", "index.parquet", "results",
    ]  # fmt: skip
    # Again: only what failed.
    before = contents(out)
    counts, _ = batch(items(clips), out)
    assert (counts.todo, counts.failed, counts.done) == (2, 2, 3)
    assert contents(out) == before


def test_only_what_changed_is_done_again(clips: Path, out: Path) -> None:
    done(out, clips)
    (clips / "a.mp4").write_text("one more")
    (clips / "c.mp4").touch()
    (clips / "f.mp4").write_text("new")
    with State(out) as state:
        state.settle(SETTINGS)
        counts = state.plan(items(clips))
        keys = {task["id"]: task["known"] for task in state.tasks(1)}
    assert (counts.new, counts.changed, counts.failed, counts.done) == (1, 2, 2, 1)
    assert keys["a.mp4"] == {"key": record_of("one")["key"]}
    assert keys["f.mp4"] is None
    tried = done(out, clips)
    assert tried == {"a.mp4": "done", "c.mp4": "same", "f.mp4": "done"} | {
        "b.mp4": "failed", "d.mp4": "failed",
    }  # fmt: skip
    assert index(out)["a.mp4"]["media_sha256"] == record_of("one more")["media_sha256"]
    assert set(done(out, clips)) == {"b.mp4", "d.mp4"}


def test_what_has_no_signature_is_looked_at_every_time(clips: Path, out: Path) -> None:
    listed = [item(clips / "a.mp4", signature="")]
    batch(listed, out)
    outcomes: list[str] = []
    batch(listed, out, did=lambda outcome: outcomes.append(outcome["state"]))
    assert outcomes == ["same"]


def test_a_failure_takes_an_older_result_of_other_content(clips: Path, out: Path) -> None:
    done(out, clips)
    (clips / "a.mp4").write_text("bad now")
    done(out, clips)
    row = index(out)["a.mp4"]
    assert (row["state"], row["result"], row["valence"]) == ("failed", None, None)
    assert not (out / result.place("a.mp4")).exists()


def failed(out: Path, listed: Item, key: str | None = None) -> bool:
    """Have a file fail, whose content had a key or was not read; tell whether its result stays."""
    with State(out) as state:
        state.settle(SETTINGS)
        state.plan([listed])
        failure = {"id": listed.id, "state": "failed", "error": "killed", "seconds": 1.0}
        state.commit({**failure, "record": None if key is None else {"key": key}})
        (row,) = (row for row in state.rows() if row["id"] == listed.id)
    assert row["state"] == "failed"
    assert (out / result.place(listed.id)).exists() == (row["result"] is not None)
    return row["result"] is not None


def test_only_other_content_loses_its_result(clips: Path, out: Path) -> None:
    clip, key = clips / "a.mp4", record_of("one")["key"]
    batch([item(clip)], out)
    clip.touch()
    assert failed(out, item(clip))  # touched: nothing says that it is another
    assert failed(out, item(clip), key)
    (clip.parent / "moved").mkdir()
    clip = clip.rename(clip.parent / "moved" / "a.mp4")
    assert failed(out, item(clip))
    clip.write_text("two")
    assert failed(out, item(clip))  # of the same size: nobody knows
    assert not failed(out, item(clip), record_of("two")["key"])
    for changed in ({"size_bytes": 4}, {"end_s": 0.5}):
        clip.write_text("one")
        batch([item(clip)], out)
        assert not failed(out, item(clip, **changed))


def test_a_part_never_has_the_result_of_another(clips: Path, out: Path) -> None:
    """Not even where the result was taken over, so that nothing is known but what it says."""
    batch([item(clips / "a.mp4")], out)
    (out / "batch.sqlite").unlink()
    assert failed(out, item(clips / "a.mp4"))
    (out / "batch.sqlite").unlink()
    assert not failed(out, item(clips / "a.mp4", start_s=1.0))


def test_another_file_does_not_take_the_place_of_a_result(
    clips: Path, out: Path, folder: Path
) -> None:
    first, other = clips / "a.mp4", folder / "day2" / "a.mp4"
    batch([item(first)], out)
    other.parent.mkdir()
    before = contents(out)
    for text in ("another", "two"):  # of the same size as well
        other.write_text(text)
        with pytest.raises(StateError) as caught:
            batch([item(other)], out)
        assert str(caught.value) == (
            f"an earlier file and one of today have the id 'a.mp4': {first} and {other}; give them"
            " ids in a manifest, or do them into two folders"
        )
        assert contents(out) == before
    tried: list[str] = []

    def again(path: Path) -> str:
        batch([item(path)], out, did=lambda outcome: tried.append(outcome["state"]))
        return tried.pop()

    other.write_text("one")
    assert again(other) == "same"  # a copy
    first.unlink()
    first.hardlink_to(other)
    other.write_text("new")
    assert again(first) == "done"  # by another name
    # A folder that was renamed: nothing is left at the old path.
    moved = clips.rename(folder / "renamed") / "a.mp4"
    moved.write_text("newer")
    assert again(moved) == "done"
    assert index(out)["a.mp4"]["media_sha256"] == record_of("newer")["media_sha256"]


def test_a_failure_to_read_leaves_the_result(clips: Path, out: Path) -> None:
    batch([item(clips / "a.mp4", signature="")], out)
    with State(out) as state:
        state.settle(SETTINGS)
        state.plan([item(clips / "a.mp4", signature="")])
        (task,) = state.tasks(1)
        failure = {"id": task["id"], "state": "failed", "error": "no\nnetwork", "again": False}
        assert state.commit({**failure, "seconds": 1.0, "record": {}}) == 3
        (row,) = state.rows()
    assert (row["state"], row["error"]) == ("failed", r"no\nnetwork")
    assert row["result"] == result.place("a.mp4")
    assert (out / row["result"]).exists()
    outcomes: list[str] = []
    batch(items(clips)[:1], out, did=lambda outcome: outcomes.append(outcome["state"]))
    assert (outcomes, index(out)["a.mp4"]["state"]) == (["same"], "done")


def test_a_file_that_is_gone_today_keeps_its_result(clips: Path, out: Path) -> None:
    done(out, clips)
    listed = items(clips)
    (clips / "a.mp4").rename(clips.parent / "away.mp4")
    listed[0] = item(clips / "a.mp4")
    counts, _ = batch(listed, out)
    assert (counts.problems, counts.done) == (1, 2)
    row = index(out)["a.mp4"]
    assert (row["state"], row["error"]) == ("failed", "no such file")
    assert (out / row["result"]).exists()
    (clips.parent / "away.mp4").rename(clips / "a.mp4")
    assert done(out, clips)["a.mp4"] == "same"


def test_earlier_inputs_keep_their_rows(clips: Path, out: Path) -> None:
    done(out, clips)
    counts, notes = batch(items(clips)[4:], out)
    assert (counts, len(notes)) == (Counts(done=1), 1)
    assert "2 files are of earlier runs" in notes[0]
    assert list(index(out)) == ["e.mp4", "a.mp4", "c.mp4"]  # what failed left nothing
    assert len((out / "errors.csv").read_text().splitlines()) == 1
    (out / result.place("c.mp4")).unlink()
    _, notes = batch(items(clips)[4:], out)
    assert "1 result is gone: done again where wanted" in notes
    assert list(index(out)) == ["e.mp4", "a.mp4"]
    counts, _ = batch(items(clips), out)
    assert (counts.new, counts.done) == (3, 2)


def test_a_result_that_is_gone_is_made_again(clips: Path, out: Path) -> None:
    done(out, clips)
    before = contents(out)
    (out / result.place("c.mp4")).unlink()
    counts, _ = batch(items(clips), out)
    assert (counts.missing, counts.done) == (1, 2)
    assert contents(out) == before


def test_an_interrupted_batch_says_what_waits(clips: Path, out: Path) -> None:
    batch(items(clips), out, stop_after=2)
    with State(out) as state:
        state.settle(SETTINGS)
        state.plan(items(clips))
        state.write_index()
        states = [row["state"] for row in state.rows()]
    assert states == ["waiting", "failed", "done", "waiting", "waiting"]  # the largest first
    assert [row["state"] for row in index(out).values()] == states
    assert list(index(out)) == list(TEXTS)


def test_results_may_come_as_bytes(clips: Path, out: Path, folder: Path) -> None:
    with State(out) as state:
        state.settle(SETTINGS)
        state.plan(items(clips)[:1])
        (task,) = state.tasks(1)
        outcome = analysed(task, state.work, SETTINGS)
        sent = {"file": None, "content": Path(outcome["file"]).read_bytes()}
        state.commit({**outcome, **sent})
    batch(items(clips)[:1], folder / "moved")
    assert (out / result.place("a.mp4")).read_bytes() == (
        folder / "moved" / result.place("a.mp4")
    ).read_bytes()


def test_two_files_with_one_id_are_refused(clips: Path, out: Path) -> None:
    twice = [*items(clips), item(clips / "c.mp4", id="a.mp4")]
    with pytest.raises(StateError, match=r"two inputs have the id 'a.mp4': .*a.mp4 and .*c.mp4"):
        batch(twice, out)
    assert batch([*items(clips), *items(clips)], out)[0].total == 5  # listed twice, done once


def test_parts_of_one_file(clips: Path, out: Path) -> None:
    parts = [item(clips / "a.mp4", id=f"a#{k}", start_s=k, end_s=k + 1.0) for k in (0.0, 1.0)]
    assert batch(parts, out)[0].new == 2
    assert [(row["start_s"], row["end_s"]) for row in index(out).values()] == [(0, 1), (1, 2)]
    moved = [replace(parts[0], end_s=0.5), parts[1]]
    assert batch(moved, out)[0].changed == 1


def test_names_that_are_no_text(clips: Path, out: Path) -> None:
    path = str(clips / "a\udcff.mp4")
    odd = replace(item(clips / "a.mp4"), path=path, problem="a\udcff.mp4: no file")
    batch([odd], out)
    row = index(out)["a.mp4"]
    assert row["path"] == str(clips / r"a\udcff.mp4")
    assert row["error"] == r"a\udcff.mp4: no file"
    with State(out) as state:
        state.settle(SETTINGS)
        state.plan([replace(odd, problem=None)])
        assert [task["path"] for task in state.tasks(1)] == [odd.path]


def test_a_url_that_is_signed_anew_is_the_same_file(clips: Path, out: Path) -> None:
    def signed(key: str, signature: str = "1") -> Item:
        url, words = (f"https://h/{name}?v=1&X-Amz-Signature={key}" for name in ("a.mp4", "a.srt"))
        return Item("a.mp4", url, words, None, None, 3, signature, None)

    with State(out) as state:
        state.settle(SETTINGS)
        assert state.plan([signed("K1"), signed("K2")]).total == 1
        (task,) = state.tasks(1)
        here = {**task, "path": str(clips / "a.mp4")}
        state.commit(analysed(here, state.work, SETTINGS))
    with State(out) as state:
        state.settle(SETTINGS)
        assert state.plan([signed("K3")]) == Counts(done=1)
        assert state.plan([signed("K4", "2")]).changed == 1
        (task,) = state.tasks(1)
        assert task["path"] == signed("K4").path
        assert task["transcript"] == signed("K4").transcript


def test_urls_of_unknown_state_that_look_the_same_are_two(out: Path) -> None:
    """Here `key` is no signature."""
    urls = ("https://h/get?key=a.mp4", "https://h/get?key=b.mp4")
    listed = [Item("get", url, None, None, None, None, "", None) for url in urls]
    with State(out) as state:
        state.settle(SETTINGS)
        with pytest.raises(StateError, match="two inputs have the id 'get'"):
            state.plan(listed)
    with State(out) as state:
        state.settle(SETTINGS)
        assert state.plan([listed[0]] * 2).total == 1


def stamps(folder: Path) -> dict[Path, tuple[int, ...]]:
    stats = {path: path.stat() for path in (folder, *folder.rglob("*"))}
    return {path: (s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in stats.items()}


def test_a_dry_run_writes_nothing(clips: Path, out: Path) -> None:
    with State(out, dry_run=True) as state:
        state.settle(SETTINGS)
        assert state.plan(items(clips)).new == 5
        assert not state.work.exists()
    assert not out.exists()
    done(out, clips)
    (out / result.place("c.mp4")).unlink()
    (out / result.place("e.mp4")).write_bytes(b"cut")
    (out / ".index.1.parquet").touch()
    before = stamps(out)
    with State(out, dry_run=True) as state:
        state.settle(SETTINGS)
        counts = state.plan(items(clips))
        assert (counts.done, counts.missing, counts.failed) == (1, 2, 2)
        assert len(state.notes) == 2
    with State(out, dry_run=True) as state:
        state.settle(OTHER)
        assert state.plan(items(clips)).new == 5
        assert state.notes[0].startswith("the settings changed (model.weights_sha256)")
    assert stamps(out) == before


def test_one_batch_at_a_time(clips: Path, out: Path) -> None:
    with State(out) as state:
        state.settle(SETTINGS)
        for dry_run in (False, True):
            with pytest.raises(StateError, match="in use by another maven batch"):
                State(out, dry_run=dry_run)
        (state.work / "x").touch()
    done(out, clips)
    with State(out, dry_run=True), State(out, dry_run=True):
        pass


def test_the_database_alone_locks_where_folders_cannot(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maven.batch.output.fcntl", None)
    out.mkdir()
    with State(out), pytest.raises(StateError, match="in use by another maven batch"):
        State(out)
    # What another program reads meanwhile.
    other = sqlite3.connect(out / "batch.sqlite")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError, match="in use"):
        State(out)
    other.close()
    with State(out):
        pass


def test_settings_are_kept_as_json(out: Path) -> None:
    with State(out) as state:
        state.settle({**SETTINGS, "sizes": (1, 2)})
        assert state.settings["sizes"] == [1, 2]
        state.plan([])
    said = json.loads((out / "results" / "_batch.json").read_text())
    assert said["settings"] == {**SETTINGS, "sizes": [1, 2]}
