"""A small corpus into the store by worker processes: the same bytes, whatever happens to them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

import maven
from maven.batch import corpus
from maven.batch.corpus import extract_by
from maven.batch.extracting import task_of, video_of
from maven.batch.local import Local
from maven.batch.worker import Limits
from maven.datasets.affwild2 import read_corpus
from maven.store import Manifest, StoreError, read_manifest
from served import processes, wait_until
from small_corpus import write_place

# Extracts, but for two videos: one ends its worker each time, the other the first time.
ODD = """
import os, signal
from pathlib import Path
from maven.batch import extracting

def prepare(job):
    prepared = extracting.prepare(job)
    def do(task, folder, say, do=prepared.do):
        name, mark = task["video"]["name"], Path(job["store"] + ".seen")
        if name == "no_media" or (name == "video59_right" and not mark.exists()):
            if name == "video59_right":
                mark.touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        return do(task, folder, say)
    prepared.do = do
    return prepared
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a model folder and a store that one process has made, not to be changed."""
    return write_place(tmp_path_factory.mktemp("pristine"))


def job(pristine: Path, store: Path, kind: str = "features") -> dict[str, Any]:
    return {
        "kind": kind, "store": str(store), "model": str(pristine / "toy"), "asr": "none",
        "device": "cpu", "threads": 1, "offline": True,
    }  # fmt: skip


def by_workers(
    pristine: Path, store: Path, workers: int, kind: str = "features", **options: Any
) -> Manifest:
    def engine_for(work: Path) -> AbstractContextManager[Any]:
        return Local(job(pristine, store, kind), work, workers=workers, limits=Limits())

    return extract_by(engine_for, pristine / "corpus", store, **options)


def content(store: Path) -> dict[str, bytes]:
    """All files of a store, and nothing else in it."""
    assert not [path for path in store.rglob("*") if path.name.startswith(".")]
    assert sorted(path.name for path in store.iterdir()) == ["arrays", "toy.json"]
    files = [path for path in store.rglob("*") if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def test_a_video_comes_back_from_its_task(pristine: Path) -> None:
    for video in read_corpus(pristine / "corpus"):
        assert video_of(task_of(video)["video"]) == video


def test_a_video_that_crashes_is_left_out_with_its_reason(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that were damaged are made anew by the workers."""
    (tmp_path / "odd.py").write_text(ODD)
    package = str(Path(maven.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), package]))
    store = tmp_path / "store"
    shutil.copytree(pristine / "store", store)
    place = read_manifest(store).clips[0].labels
    assert place is not None
    damaged = store / "arrays" / "labels" / place[:2] / place / "labels.npy"
    os.truncate(damaged, 100)
    notes: list[str] = []
    manifest = by_workers(pristine, store, 1, "odd:prepare", note=notes.append)
    assert [clip.name for clip in manifest.clips] == ["video59", "video59_right", "4-30-352x352"]
    reasons = dict(manifest.failed)
    assert reasons["no_media"] == "cropped_aligned/no_media: crashed the decoder (SIGSEGV)"
    assert reasons["broken"].startswith("batch1/broken.mp4: not a media file")
    assert (tmp_path / "store.seen").exists()
    (note,) = notes
    assert note.startswith(f"{damaged}: damaged (100 bytes, not ")
    assert note.endswith("; made anew")


def test_killed_it_goes_on_and_writes_what_one_process_writes(
    pristine: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-m", "maven.cli", "features", str(pristine / "corpus")]
    command += ["-o", str(store), "--encoders", str(pristine / "toy"), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(before := list(store.glob("arrays/*/*/[!.]*"))) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    assert processes(store)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_ino for path in before}
    assert not (store / "toy.json").exists()
    assert list(store.glob("work/.*"))
    wait_until(lambda: not processes(store))  # in which they write
    told: list[tuple[str, int, int]] = []
    manifest = by_workers(pristine, store, 2, progress=lambda *progress: told.append(progress))
    assert manifest == read_manifest(store)
    assert [name for name, _ in manifest.failed] == ["broken"]
    assert content(store) == content(pristine / "store")
    assert {path: path.stat().st_ino for path in before} == kept
    assert {name for name, *_ in told} == {video.name for video in read_corpus(pristine / "corpus")}
    assert [(done, total) for _, done, total in told] == [(k, 5) for k in range(1, 6)]


class Answers:
    """Stands for an engine whose workers say what a test wants."""

    def __init__(self, record: dict[str, Any], state: str, again: Iterable[str] = ()) -> None:
        self._record, self._state, self._again = record, state, again

    def about(self) -> dict[str, Any]:
        return {"name": "toy", "encoders": {}, "settings": {}, "detection": {}}

    def run(self, tasks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for task in tasks:
            yield {
                "id": task["id"], "state": self._state, "error": "x: no",
                "again": task["id"] in self._again, "record": self._record,
            }  # fmt: skip


def answered(pristine: Path, store: Path, record: dict[str, Any], state: str) -> Manifest:
    @contextmanager
    def engine_for(work: Path) -> Iterator[Any]:
        os.utime(work, (0, 0))
        yield Answers(record, state)
        assert time.time() - work.stat().st_mtime < 60  # touched, so that nobody takes it for old

    return extract_by(engine_for, pristine / "corpus", store)


def test_progress_counts_what_has_ended(pristine: Path, tmp_path: Path) -> None:
    ids = [task_of(video)["id"] for video in read_corpus(pristine / "corpus")]
    told: list[tuple[int, int]] = []
    with pytest.raises(StoreError, match="none of its 5 videos"):
        extract_by(
            lambda _: nullcontext(Answers({}, "failed", again=ids[:2])),
            pristine / "corpus",
            tmp_path / "store",
            progress=lambda _, done, total: told.append((done, total)),
        )
    assert told == [(k, 5) for k in range(1, 6)]


def test_what_is_no_fault_of_a_video_stops_all(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "SEEN_WITHIN_S", 0.2)
    store = tmp_path / "store"
    with pytest.raises(StoreError, match="cannot be written"):
        answered(pristine, store, {"store": "x: cannot be written"}, "failed")
    with pytest.raises(StoreError, match="none of its 5 videos can be read: broken: x: no"):
        answered(pristine, store, {}, "failed")
    keys = dict.fromkeys(("visual", "audio", "words", "labels"))
    clip = {"name": "a", "split": "train", "person": "", "media_sha256": None, **keys}
    clip |= {"frames": "0" * 32, "notes": []}
    with pytest.raises(StoreError, match="features of a are not here; the store must be one"):
        answered(pristine, store, {"clip": clip, "mended": []}, "done")
    assert not store.exists()
