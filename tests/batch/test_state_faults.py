"""Folders that are not as they were left: said in one line, done again, never mixed."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from maven.batch import result
from maven.batch.state import State, StateError
from small_batch import OTHER, SETTINGS, analysed, batch, contents, items, write_clips

TEXTS = {"a": "one", "b": "bad", "c": "three", "d": "four"}


@pytest.fixture
def clips(folder: Path) -> Path:
    return write_clips(folder / "clips", TEXTS)


@pytest.fixture
def out(folder: Path, clips: Path) -> Path:
    """A batch that is done."""
    batch(items(clips), folder / "out")
    return folder / "out"


def again(out: Path, clips: Path) -> tuple[list[str], list[str]]:
    """Run it again; return what was done and what was said."""
    done: list[str] = []
    _, notes = batch(items(clips), out, did=lambda o: done.append(f"{o['id']} {o['state']}"))
    assert all("\n" not in note for note in notes)
    return [outcome for outcome in done if outcome != "b failed"], notes


def refused(out: Path, clips: Path) -> str:
    before = contents(out) if out.exists() else {}
    with pytest.raises(StateError) as caught:
        batch(items(clips), out)
    assert "\n" not in str(caught.value)
    assert not out.exists() or contents(out) == before
    return str(caught.value)


def test_a_result_with_a_flipped_byte_is_made_again(out: Path, clips: Path) -> None:
    before, path = contents(out), out / result.place("c")
    whole = path.read_bytes()
    for k in random.Random(3).sample(range(len(whole)), 8):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 64]) + whole[k + 1 :])
        done, notes = again(out, clips)
        assert done == ["c done"]
        assert notes == [f"damaged: {result.place('c')}: removed, done again where wanted"]
        assert contents(out) == before


def test_a_result_that_was_cut_is_made_again(out: Path, clips: Path) -> None:
    before, path = contents(out), out / result.place("c")
    for size in (0, 7, path.stat().st_size - 1):
        os.truncate(path, size)
        assert again(out, clips)[0] == ["c done"]
        assert contents(out) == before


def test_a_copy_is_looked_at_and_kept(out: Path, clips: Path, folder: Path) -> None:
    copy = folder / "copy"
    shutil.copytree(out, copy, copy_function=shutil.copyfile)
    assert again(copy, clips) == ([], [])
    assert contents(copy) == contents(out)


def test_without_the_database_results_are_taken_over(out: Path, clips: Path) -> None:
    before = contents(out)
    (out / "batch.sqlite").unlink()
    done, notes = again(out, clips)
    assert done == ["c same", "d same", "a same"]
    assert notes[0] == "batch.sqlite was missing: made anew from the results"
    assert notes[1].startswith("3 results are there without a row in batch.sqlite")
    assert contents(out) == before
    assert again(out, clips) == ([], [])


def test_taken_over_results_are_of_the_content_of_today(out: Path, clips: Path) -> None:
    (out / "batch.sqlite").unlink()
    os.truncate(out / result.place("d"), 99)
    (clips / "a").write_text("other")
    done, notes = again(out, clips)
    assert done == ["a done", "c same", "d done"]
    assert f"damaged: {result.place('d')}: removed, done again where wanted" in notes
    assert result.record(out / result.place("a"))["media_sha256"] == (
        pq.ParquetFile(out / "index.parquet").read()["media_sha256"][0].as_py()
    )


def test_a_damaged_database_is_kept_aside(out: Path, clips: Path) -> None:
    """A flip of any byte: it is found, or it does not matter."""
    before = contents(out)
    path, spare = out / "batch.sqlite", out.parent / "spare"
    whole, found = path.read_bytes(), 0
    shutil.copytree(out, spare)
    chance = random.Random(5)
    used = [k for k in range(len(whole)) if whole[k]]
    for k in [*range(0, 16, 5), *chance.sample(used, 12), *chance.sample(range(len(whole)), 3)]:
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :])
        done, notes = again(out, clips)
        assert set(done) <= {"a same", "c same", "d same"}, k
        aside = out / "batch.sqlite.damaged-1"
        if aside.exists():
            found += 1
            assert notes[0].startswith(("batch.sqlite was damaged (", "batch.sqlite is of another"))
            assert "kept as batch.sqlite.damaged-1" in notes[0]
            aside.unlink()
        assert contents(out) == before, k
        shutil.rmtree(out)
        shutil.copytree(spare, out)
    assert found > 8


def test_a_database_that_is_none_or_cut(out: Path, clips: Path) -> None:
    path = out / "batch.sqlite"
    whole = path.read_bytes()
    for number, content in enumerate([b"no database", whole[:5000], b"x" * 9000], start=1):
        path.write_bytes(content)
        (out / "batch.sqlite-journal").write_bytes(b"rubbish")
        again(out, clips)
        assert (out / f"batch.sqlite.damaged-{number}").read_bytes() == content
    assert not (out / "batch.sqlite-journal").exists()


def test_a_database_of_something_else_is_refused(folder: Path, clips: Path) -> None:
    other = sqlite3.connect(folder / "batch.sqlite")
    other.execute("CREATE TABLE songs (name TEXT)")
    other.close()
    before = (folder / "batch.sqlite").read_bytes()
    assert "not from a maven batch" in refused(folder, clips)
    assert (folder / "batch.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["results/notes.txt", "results/part=ab/x.parquet", "results/x.parquet",
             "results/part=zz/x", "results/part=00/.x.parquet", "results/part=ab/sub/x.parquet"]
)  # fmt: skip
def test_foreign_files_among_results_are_named(out: Path, clips: Path, name: str) -> None:
    (out / name).parent.mkdir(exist_ok=True, parents=True)
    (out / name).write_bytes(b"mine")
    message = refused(out, clips)
    assert "is not a result of maven batch" in message
    assert str(out / "results") in message
    assert (out / name).read_bytes() == b"mine"


def test_links_among_results_are_foreign(out: Path, clips: Path, folder: Path) -> None:
    elsewhere = folder / "elsewhere.parquet"
    path = out / result.place("c")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert "is not a result of maven batch" in refused(out, clips)
    assert elsewhere.exists()


def test_files_of_others_beside_are_left_alone(out: Path, clips: Path) -> None:
    mine = [".index.txt", "notes.txt", ".hidden.12.parquet", "index.2.parquet"]
    mine += ["results/.DS_Store", "work/precious"]
    left = [".index.123.parquet", ".errors.9.csv", ".index.9.html", "results/._batch.7.json"]
    place = Path(result.place("c"))
    left.append(str(place.with_name(f".{place.stem}.77.parquet")))
    left.append(".maven-work/half")
    for name in [*mine, *left]:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"x")
    again(out, clips)
    assert [name for name in mine if not (out / name).exists()] == []
    assert [name for name in left if (out / name).exists()] == []
    assert not (out / ".maven-work").exists()


@pytest.mark.parametrize(
    "name", [".maven-work", "results", "index.parquet", "index.html", "earlier"]
)
def test_a_folder_with_other_things_is_refused(folder: Path, clips: Path, name: str) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / name).mkdir()
    (folder / "mine" / name / "precious").touch()
    assert f"{name} is not from a maven batch" in refused(folder / "mine", clips)
    assert (folder / "mine" / name / "precious").exists()


def test_a_cut_index_is_said_and_written_anew(out: Path, clips: Path) -> None:
    before, path = contents(out), out / "index.parquet"
    os.truncate(path, path.stat().st_size // 2)
    assert again(out, clips) == ([], ["index.parquet was cut or damaged: it is written anew"])
    assert contents(out) == before
    (out / "errors.csv").write_text("")
    again(out, clips)
    assert contents(out) == before


def test_other_settings_are_never_mixed(out: Path, clips: Path, folder: Path) -> None:
    before = contents(out)
    batch(items(clips), folder / "fresh", OTHER)
    counts, notes = batch(items(clips), out, OTHER)
    assert counts.new == 4
    (earlier,) = (out / "earlier").iterdir()
    assert notes == [
        "the settings changed (model.weights_sha256): 3 earlier results are kept in"
        f" earlier/{earlier.name}; all is done again"
    ]
    now = {k: v for k, v in contents(out).items() if not k.startswith("earlier")}
    assert now == contents(folder / "fresh")
    # And back: nothing is done again but what failed.
    done, notes = again(out, clips)
    assert (done, len(notes)) == ([], 1)
    assert notes[0].endswith(f"those of earlier/{earlier.name} are used again")
    now = {k: v for k, v in contents(out).items() if not k.startswith("earlier")}
    assert now == before
    assert len(list((out / "earlier").iterdir())) == 1


def test_settings_without_results_leave_no_folder(folder: Path, clips: Path) -> None:
    out = folder / "out"
    batch(items(clips), out, SETTINGS, stop_after=0)
    batch(items(clips), out, OTHER)
    assert not (out / "earlier").exists()


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"key": "x", "settings": {"maven": "2"}}'])
def test_lost_settings_are_known_to_the_database(
    out: Path, clips: Path, content: bytes | None
) -> None:
    before, path = contents(out), out / "results" / "_batch.json"
    path.unlink() if content is None else path.write_bytes(content)
    done, notes = again(out, clips)
    assert (done, notes) == ([], ["results/_batch.json was gone or damaged: written anew"])
    assert contents(out) == before
    path.unlink() if content is None else path.write_bytes(content)
    (out / "batch.sqlite").write_bytes(b"gone")
    with pytest.raises(StateError, match="nobody knows the settings of the results beside it"):
        batch(items(clips), out)


def test_a_result_of_other_settings_is_refused(out: Path, clips: Path, folder: Path) -> None:
    batch(items(clips), folder / "other", OTHER)
    (out / "batch.sqlite").unlink()
    shutil.copy(folder / "other" / result.place("c"), out / result.place("c"))
    with pytest.raises(StateError, match=r"is of other settings \(model.weights_sha256\): move it"):
        batch(items(clips), out)


def test_a_disk_that_refuses_at_any_write(
    clips: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write fails in its turn: one line, nothing half-written, and the rest goes on."""
    batch(items(clips), folder / "whole")
    expected, out = contents(folder / "whole"), folder / "out"
    real, count, failing = os.fsync, 0, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    done: set[str] = set()
    for failing in range(1, 40):
        count = 0
        shutil.rmtree(out, ignore_errors=True)
        done.clear()
        try:
            batch(items(clips), out, did=lambda o: done.add(o["id"]))
        except StateError as error:
            said = str(error)
        else:
            break
        assert said == (
            f"cannot write into {out}: No space left on device; what was done stays, and the same"
            " command goes on from there"
        )
        assert list(out.rglob(".*")) == []
        failing = 0
        twice = {line.split()[0] for line in again(out, clips)[0] if line.endswith("done")}
        assert not twice & done
        assert contents(out) == expected
    assert failing > 10 or count > 10


def test_a_small_disk(clips: Path, folder: Path) -> None:
    """A limit on the size of files, which SQLite and everybody else meets."""
    resource = pytest.importorskip("resource")
    expected = None
    for limit_bytes in (0, 3000, 20_000, 30_000, None):
        out = folder / "out"
        child = os.fork()
        if child == 0:
            if limit_bytes is not None:
                import signal

                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
            try:
                batch(items(clips), out)
            except StateError as error:
                os._exit(3 if "\n" not in str(error) else 4)
            except BaseException:
                os._exit(5)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFEXITED(status)
        assert os.WEXITSTATUS(status) in (0, 3)
        if out.exists():
            for path in out.rglob("*.parquet"):
                pq.ParquetFile(path).read()
            assert list(out.rglob(".*")) == []
        expected = os.WEXITSTATUS(status)
    assert expected == 0


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX")
def test_a_folder_that_is_read_only(out: Path, clips: Path) -> None:
    """As another user, for whom rights count."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        shared = Path(name)
        shared.chmod(0o755)
        shutil.copytree(out, shared / "out")
        shutil.copytree(clips, shared / "clips")
        (shared / "empty").mkdir(mode=0o755)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            else:
                for path in (shared / "out", shared / "out" / "batch.sqlite", shared / "empty"):
                    path.chmod(0o555)
            said = []
            for target in (shared / "out", shared / "empty", shared / "empty" / "inner"):
                try:
                    State(target)
                except StateError as error:
                    said.append(str(error))
            with State(shared / "out", dry_run=True) as state:
                state.settle(SETTINGS)
                said.append(str(state.plan(items(shared / "clips")).changed))
            os.write(write, json.dumps(said).encode())
            os._exit(0)
        os.close(write)
        assert os.waitpid(child, 0)[1] == 0
        with os.fdopen(read) as pipe:
            *said, changed = json.loads(pipe.read())
        for path in (shared / "out", shared / "empty"):
            path.chmod(0o755)
    assert len(said) == 3
    assert all(line.startswith("cannot write into ") and "\n" not in line for line in said)
    assert changed == "3"  # other paths: they are looked at again


def test_a_result_file_that_is_no_file(out: Path, clips: Path, folder: Path) -> None:
    (clips / "a").write_text("new")
    with State(out) as state:
        state.settle(SETTINGS)
        state.plan(items(clips))
        task = next(iter(state.tasks(1)))
        outcome = analysed(task, state.work, SETTINGS)
        Path(outcome["file"]).unlink()
        Path(outcome["file"]).symlink_to("/etc/hostname")
        with pytest.raises(StateError, match="is not a result"):
            state.commit(outcome)
    assert result.record(out / result.place("a"))["media_sha256"]
