"""The shelf: what is written is what is read, and what is deleted is gone."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from maven.web.shelf import Clip, NoClipError, Shelf, ShelfError, new_id

SETTINGS = {"faces": "main", "asr": "none", "transcript": None}


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "data")
    yield shelf
    shelf.close()


def put(shelf: Shelf, name: str = "clip.mp4") -> Clip:
    clip_id = new_id()
    (shelf.clips_folder / clip_id).mkdir()
    (shelf.clips_folder / clip_id / "upload").write_bytes(b"media")
    return shelf.add(clip_id, name, 5, SETTINGS)


def test_ids_are_long_and_differ() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert min(map(len, ids)) == 22  # 128 bits in base64


def test_a_clip_comes_back_as_it_was_put(shelf: Shelf) -> None:
    put(shelf, "<b>'; DROP TABLE clips; --")
    clip = put(shelf)
    assert [c.name for c in shelf.clips()] == ["clip.mp4", "<b>'; DROP TABLE clips; --"]
    assert clip == shelf.clip(clip.id)
    assert (clip.state, clip.overlay_state, clip.files) == ("queued", "none", ())
    assert clip.settings == SETTINGS


@pytest.mark.parametrize("wrong", ["", "x", "../data", "%", "_" * 22])
def test_what_is_no_id_is_no_path(shelf: Shelf, wrong: str) -> None:
    put(shelf)
    for ask in (shelf.clip, shelf.folder, shelf.ratings, shelf.delete):
        with pytest.raises(NoClipError):
            ask(wrong)


def test_the_line_is_first_come_first_served_and_an_overlay_waits_in_it(shelf: Shelf) -> None:
    one, two = put(shelf), put(shelf)
    assert [shelf.position(c) for c in (one, two)] == [0, 1]
    task, first = shelf.first() or ("", None)
    assert (task, first) == ("analysis", shelf.clip(one.id))
    assert shelf.clip(one.id).state == "running"
    assert shelf.position(shelf.clip(one.id)) is None
    shelf.change(one.id, state="done", files=("csv",))
    assert shelf.queue(one.id, "overlay", "state = 'done'", overlay_blur=True)
    three = put(shelf)
    assert [shelf.position(shelf.clip(c.id)) for c in (two, three)] == [0, 2]
    taken = [shelf.first() for _ in range(3)]
    assert [t and (t[0], t[1].id) for t in taken] == [
        ("analysis", two.id), ("overlay", one.id), ("analysis", three.id),
    ]  # fmt: skip
    assert shelf.first() is None
    assert shelf.clip(one.id).overlay_blur


def test_two_that_ask_at_once_never_get_the_same(shelf: Shelf) -> None:
    wanted = {put(shelf).id for _ in range(20)}
    got: list[str] = []

    def take() -> None:
        while (found := shelf.first()) is not None:
            got.append(found[1].id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 20
    assert set(got) == wanted


def test_a_change_happens_only_where_its_condition_holds(shelf: Shelf) -> None:
    clip = put(shelf)
    assert not shelf.change(clip.id, "state = 'running'", state="done")
    assert shelf.clip(clip.id).state == "queued"
    assert not shelf.change("nobody", state="done")


def test_deleted_is_deleted(shelf: Shelf) -> None:
    clip, other = put(shelf, "Zacharias-Zuckmayer.mp4"), put(shelf)
    shelf.add_rating(clip.id, {"rater": "Quentin-Quassel", "trace": [0.5] * 5000})
    kept = shelf.add_rating(other.id, {"rater": "somebody"})
    shelf.delete(clip.id)
    assert [c.id for c in shelf.clips()] == [other.id]
    assert [path.name for path in shelf.clips_folder.iterdir()] == [other.id]
    assert [rating["id"] for rating in shelf.ratings(other.id)] == [kept]
    for path in shelf.place.glob("maven.sqlite*"):
        assert b"Zuckmayer" not in path.read_bytes(), path.name
        assert b"Quassel" not in path.read_bytes(), path.name


def test_nobody_else_may_look(shelf: Shelf) -> None:
    put(shelf)
    for path in (shelf.place, shelf.clips_folder, shelf.incoming):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in shelf.place.glob("maven.sqlite*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_ratings(shelf: Shelf) -> None:
    clip, other = put(shelf), put(shelf)
    ids = [shelf.add_rating(clip.id, {"rater": name}) for name in ("a", "b")]
    assert [(r["rater"], r["id"]) for r in shelf.ratings(clip.id)] == [
        ("a", ids[0]), ("b", ids[1]),
    ]  # fmt: skip
    with pytest.raises(NoClipError, match="rating"):
        shelf.delete_rating(other.id, ids[0])
    shelf.delete_rating(clip.id, ids[0])
    assert [r["rater"] for r in shelf.ratings(clip.id)] == ["b"]
    with pytest.raises(NoClipError):
        shelf.add_rating("nobody", {})
    with pytest.raises(ValueError, match="JSON"):
        shelf.add_rating(clip.id, {"x": float("nan")})


def test_after_a_crash_database_and_folders_agree(tmp_path: Path) -> None:
    before = Shelf(tmp_path / "data")
    running, done, lost = put(before), put(before), put(before)
    before.change(running.id, state="running", stage="faces", progress=0.5)
    before.change(done.id, state="done", files=("csv",), overlay_state="running")
    (before.clips_folder / lost.id / "upload").unlink()
    (before.clips_folder / lost.id).rmdir()
    (before.clips_folder / "orphan").mkdir()
    (before.clips_folder / "orphan" / "upload").write_bytes(b"x")
    (before.incoming / "half").mkdir()
    (before.incoming / "transcript.srt").write_text("x")

    shelf = Shelf(tmp_path / "data")  # the first one was never closed
    shelf.recover()
    assert shelf.clip(running.id) == running
    assert shelf.clip(done.id).state == "done"
    assert shelf.clip(done.id).overlay_state == "queued"
    assert shelf.clip(lost.id).state == "failed"
    assert "gone" in (shelf.clip(lost.id).error or "")
    assert {p.name for p in shelf.clips_folder.iterdir()} == {running.id, done.id}
    assert list(shelf.incoming.iterdir()) == []
    shelf.close()
    before.close()


def test_folders_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shelf = Shelf(Path("data"))
    assert shelf.folder(put(shelf).id).parent == tmp_path / "data" / "clips"
    shelf.close()


def test_a_folder_is_one_servers(tmp_path: Path) -> None:
    first, second = Shelf(tmp_path / "data"), Shelf(tmp_path / "data")
    first.claim()
    with pytest.raises(ShelfError, match="another maven serve works in this folder"):
        second.claim()
    first.close()
    second.claim()
    second.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "maven.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(ShelfError, match=r"maven\.sqlite: not a database of maven"):
        Shelf(tmp_path)


@pytest.mark.parametrize("name", ["clips/p01/a.mp4", "incoming/b.mp4", "notes.txt"])
def test_a_folder_of_somebody_s_own_is_refused_and_stays_as_it_was(
    tmp_path: Path, name: str
) -> None:
    place = tmp_path / "study"
    (place / name).parent.mkdir(parents=True)
    (place / name).write_bytes(b"mine")
    place.chmod(0o755)
    with pytest.raises(ShelfError, match="study: holds other things"):
        Shelf(place)
    assert (place / name).read_bytes() == b"mine"
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_a_link_in_the_folder_is_removed_and_what_it_leads_to_is_not(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shelf = Shelf(tmp_path / "data")
    (shelf.clips_folder / "link").symlink_to(outside)
    shelf.recover()
    shelf.close()
    assert outside.is_dir()
    assert not (shelf.clips_folder / "link").is_symlink()
