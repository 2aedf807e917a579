"""Extraction that is killed, media that cannot be read, what cannot be had."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maven import media as decoding
from maven.checkpoint import ModelError
from maven.datasets.affwild2 import CorpusError
from maven.extract import extract
from maven.media import media_hash
from maven.recognise import RecogniserError
from maven.store import StoreError, read_manifest
from maven.transcribe import Transcriber
from small_corpus import SRT, entries, run, write_labels, write_place
from toy_mini import save_toy_mini

KILLED = """
import sys
from pathlib import Path
from maven.extract import extract

root, store, model = map(Path, sys.argv[1:])
said = lambda *progress: print(*progress, flush=True)
extract(root, store, str(model), device="cpu", offline=True, progress=said)
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a model folder and a finished store, not to be changed."""
    return write_place(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def place(pristine: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(pristine, tmp_path / "place"))


def test_an_extraction_killed_again_and_again_is_completed(pristine: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("corpus", "toy"):
        (place / name).symlink_to(pristine / name)
    program = [sys.executable, "-c", KILLED, *(place / n for n in ("corpus", "store", "toy"))]
    held: list[dict[str, tuple[int, int]]] = []
    for line in ("video59: voice", "video59_right: words", "4-30-352x352: faces"):
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any(said.startswith(line) for said in process.stdout)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not (place / "store" / "toy.json").exists()
        held.append(entries(place))
    assert len(held[0]) < len(held[-1])
    assert run(place) == read_manifest(pristine / "store")
    whole = entries(place)
    assert whole.keys() == entries(pristine).keys()
    for before in held:
        kept = {path: mark for path, mark in before.items() if "/." not in path}
        assert {path: whole[path] for path in kept} == kept
    for path in whole:
        assert (place / path).read_bytes() == (pristine / path).read_bytes()


def test_a_video_that_fails_does_not_stop_the_rest(place: Path) -> None:
    root = place / "corpus"
    (root / "batch1" / "video59.srt").write_bytes(b"\x00\x01\x02 not a transcript")
    write_labels(root, "Validation_Set", "nothing", 5)
    write_labels(root, "Validation_Set", "no_media", 5).write_text("valence,arousal\n0.1;0.2\n")
    manifest = run(place)
    reasons = dict(manifest.failed)
    assert [clip.name for clip in manifest.clips] == ["4-30-352x352"]
    assert "video59.srt" in reasons["video59"]
    assert "no_media.txt: line 2" in reasons["no_media"]
    assert reasons["nothing"] == "neither a media file nor face crops"


def test_media_that_may_not_be_read_are_left_out(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guarded(path: Path) -> str:
        if path.name == "video59.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return media_hash(path)

    monkeypatch.setattr(decoding, "media_hash", guarded)
    reasons = dict(run(place).failed)
    assert reasons.keys() == {"video59", "video59_right", "broken"}
    assert reasons["video59"] == "batch1/video59.mp4: Permission denied"


def test_nothing_at_all_that_can_be_read(tmp_path: Path) -> None:
    write_labels(tmp_path / "corpus", "Train_Set", "a", 5)
    write_labels(tmp_path / "corpus", "Train_Set", "b", 5)
    save_toy_mini(tmp_path / "toy")
    with pytest.raises(StoreError, match="none of its 2 videos can be read: a: neither a media"):
        run(tmp_path)
    assert not (tmp_path / "store").exists()


def test_a_video_of_no_frames_is_left_out(place: Path) -> None:
    write_labels(place / "corpus", "Train_Set", "video59", 0)
    assert dict(run(place).failed)["video59"].startswith("batch1/video59.mp4: not one frame")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def test_a_damaged_entry_is_made_anew_and_that_is_said(place: Path) -> None:
    """One entry of every kind, damaged in one way or another."""
    arrays = place / "store" / "arrays"
    before = {p: p.read_bytes() for p in arrays.rglob("*") if p.is_file()}
    damaged = [next((arrays / kind).rglob("*.npy")) for kind in ("audio", "words", "labels")]
    for path in damaged:
        flip(path)
    cut = next((arrays / "visual").rglob("values.npy"))
    os.truncate(cut, cut.stat().st_size // 2)
    next((arrays / "frames").rglob("sums.json")).unlink()
    lines: list[str] = []
    assert run(place, note=lines.append) == read_manifest(place / "store")
    assert {p: p.read_bytes() for p in arrays.rglob("*") if p.is_file()} == before
    assert len(lines) == 5
    for path in damaged:
        assert f"{path}: damaged (its content has changed); made anew" in lines
    assert any(line.endswith("sums.json: damaged (no checksums: of an earlier maven); made anew")
               for line in lines)  # fmt: skip
    lines.clear()
    run(place, note=lines.append)
    assert lines == []


def test_another_corpus_does_not_take_the_place_of_the_first(place: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    shutil.rmtree(place / "corpus" / "cropped_aligned" / "no_media")
    (place / "corpus" / "VA_Estimation_Challenge" / "Validation_Set" / "no_media.txt").unlink()
    assert len(run(place, note=lines.append).clips) == 3
    assert lines == [
        f"{place / 'corpus'}: has no longer 1 of the 5 videos that {place / 'store' / 'toy.json'}"
        " lists, no_media for one; they are left out"
    ]
    other = tmp_path / "other"
    shutil.copytree(place / "corpus", other)
    (other / "VA_Estimation_Challenge" / "Train_Set" / "video59_right.txt").unlink()
    shutil.rmtree(other / "cropped_aligned" / "video59_right")
    before = (place / "store" / "toy.json").read_bytes()
    with pytest.raises(StoreError, match=r"other: has not 1 of the 4 videos .*toy\.json lists, of"):
        extract(other, place / "store", str(place / "toy"), device="cpu", offline=True)
    assert (place / "store" / "toy.json").read_bytes() == before


def test_a_corpus_of_the_same_names_is_told_by_its_media(place: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    settings: dict[str, Any] = {"device": "cpu", "offline": True, "note": lines.append}
    moved = Path(shutil.copytree(place / "corpus", tmp_path / "moved"))
    assert extract(moved, place / "store", str(place / "toy"), **settings).root == "moved"
    path = place / "store" / "toy.json"
    assert lines == [f"{path}: listed the corpus 'corpus', which {moved} takes the place of"]
    for media in (place / "corpus" / "batch1").glob("*.mp4"):
        media.write_bytes(media.read_bytes() + b"\0\0\0\x08free")
    with pytest.raises(StoreError, match=r"corpus: its videos have the names of those that .*toy"):
        run(place)
    assert read_manifest(place / "store").root == "moved"


def test_of_two_corpora_at_once_the_first_stays(place: Path, tmp_path: Path) -> None:
    shutil.rmtree(place / "store")
    other = tmp_path / "other"
    write_labels(other, "Train_Set", "elsewhere", 5)
    faces = place / "corpus" / "cropped_aligned" / "no_media"
    shutil.copytree(faces, other / "cropped_aligned" / "elsewhere")

    def meanwhile(what: str, done: int, total: int) -> None:
        if done == total:
            extract(other, place / "store", str(place / "toy"), device="cpu", offline=True)

    with pytest.raises(StoreError, match=r"has not 1 of the 1 videos that .* 'other', elsewhere"):
        run(place, progress=meanwhile)
    assert [clip.name for clip in read_manifest(place / "store").clips] == ["elsewhere"]


# --- what changes while it is read ---------------------------------------------------------------


def changed_while_read(place: Path, change: Callable[[], object], at: str, spared: int = 0) -> str:
    """Extract video59; return why it is left out. No entry that the store then has is a wrong one.

    Args:
        place: with the corpus.
        change: is done once, when it is reported that this
        at: is done to the video, after the report was
        spared: so many times.
    """
    shutil.rmtree(place / "store")
    waiting = [change, *[lambda: None] * spared]

    def report(what: str, done: int, total: int) -> None:
        if what == f"video59: {at}" and waiting:
            waiting.pop()()

    with pytest.raises(StoreError, match="none of its 1 videos can be read") as caught:
        run(place, progress=report, names={"video59"})
    run(place, names={"video59"})
    held = {path: (place / path).read_bytes() for path in entries(place)}
    shutil.rmtree(place / "store")
    run(place, names={"video59"})
    for path in entries(place):
        assert held[path] == (place / path).read_bytes(), path
    return str(caught.value).partition(": video59: ")[2]


def test_media_that_change_while_they_are_read(place: Path) -> None:
    batch = place / "corpus" / "batch1"
    reason = changed_while_read(
        place, lambda: shutil.copy(batch / "4-30-352x352.mp4", batch / "video59.mp4"), "voice"
    )
    assert reason == "batch1/video59.mp4: changed while it was read; run `maven features` again"


def test_media_that_change_between_two_people(place: Path) -> None:
    batch = place / "corpus" / "batch1"

    def report(what: str, done: int, total: int) -> None:
        if (what, done) == ("video59", 1):
            shutil.copy(batch / "4-30-352x352.mp4", batch / "video59.mp4")

    one, other = run(place, progress=report, names={"video59", "video59_right"}).clips
    assert other.media_sha256 == media_hash(batch / "video59.mp4") != one.media_sha256
    assert other.audio != one.audio


def test_crops_that_change_while_they_are_read(place: Path) -> None:
    crops = place / "corpus" / "cropped_aligned" / "video59"
    again = shutil.copy(crops / "00008.jpg", place / "kept.jpg")
    reason = changed_while_read(
        place, lambda: shutil.copy(again, crops / "00001.jpg"), "faces", spared=3
    )
    assert "cropped_aligned/video59: changed while it was read; run `maven feat" in reason


def test_a_transcript_that_changes_while_it_is_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, find = place / "corpus" / "batch1" / "video59.srt", Transcriber.find

    def late(self: Transcriber, *given: Any, **options: Any) -> Any:
        monkeypatch.undo()
        path.write_text(SRT.replace("happy", "sad"))
        return find(self, *given, **options)

    monkeypatch.setattr(Transcriber, "find", late)
    reason = changed_while_read(place, lambda: None, "words")
    assert "video59.mp4: its transcript changed while it was read; run `maven feat" in reason


def test_what_cannot_be_had_is_said_before_anything_is_read(place: Path) -> None:
    with pytest.raises(CorpusError):
        extract(place / "toy", place / "store", "mini", device="cpu", offline=True)
    with pytest.raises(ModelError, match="no model named nowhere"):
        extract(place / "corpus", place / "store", "nowhere", device="cpu", offline=True)
    with pytest.raises(ModelError, match="no device tpu"):
        extract(place / "corpus", place / "store", "mini", device="tpu", offline=True)
    with pytest.raises(RecogniserError, match="accepted: 'auto'"):
        run(place, asr="ears")


def test_progress_counts_the_videos(place: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run(place, progress=lambda *progress: told.append(progress))
    assert {total for *_, total in told} == {5}
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert told[-1] == ("no_media", 5, 5)
    assert ("video59: voice", 1, 5) in told
