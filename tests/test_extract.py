"""A small corpus into the store: what is in it, and what is computed again."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from maven import extract as extraction
from maven import extractor, media, speech
from maven.extract import extract
from maven.store import read_manifest
from maven.transcript import Transcript, Word
from small_corpus import SRT, entries, kinds_made, recordings, run, write_labels, write_place
from toy_paper import save_toy_paper

WIDTHS = {"visual": 9, "audio": 11, "text": 8}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a model folder and a finished store, not to be changed."""
    return write_place(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def place(pristine: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(pristine, tmp_path / "place"))


# --- what is in it ---------------------------------------------------------------------------


def test_the_manifest_says_what_there_is(pristine: Path) -> None:
    manifest = read_manifest(pristine / "store")
    assert (manifest.name, manifest.root, manifest.widths) == ("toy", "corpus", WIDTHS)
    assert manifest.encoders["audio"]["kind"] == "mini"
    assert len(manifest.encoders["audio"]["fingerprint"]) == 16
    assert [(c.split, c.name, c.person) for c in manifest.clips] == [
        ("train", "video59", ""),
        ("train", "video59_right", "right"),
        ("val", "4-30-352x352", ""),
        ("val", "no_media", ""),
    ]
    content = (pristine / "corpus" / "batch1" / "video59.mp4").read_bytes()
    assert manifest.clips[0].media_sha256 == hashlib.sha256(content).hexdigest()
    notes = {clip.name: clip.notes for clip in manifest.clips}
    assert notes["video59"] == notes["video59_right"] == ()
    assert notes["4-30-352x352"] == ("no words",)
    assert notes["no_media"] == ("frame times are index / 30 Hz: there are no media with pictures",)
    (failure,) = manifest.failed
    assert failure[0] == "broken"
    assert failure[1].startswith("batch1/broken.mp4: not a media file")
    assert str(pristine) not in (pristine / "store" / "toy.json").read_text()


def test_two_people_of_one_medium_share_its_sound(pristine: Path) -> None:
    one, other, *_ = read_manifest(pristine / "store").clips
    assert (one.audio, one.words, one.frames) == (other.audio, other.words, other.frames)
    assert one.audio is not None
    assert one.words is not None
    assert one.visual != other.visual
    assert len(list((pristine / "store/arrays/audio").glob("*/*"))) == 2


def test_recordings_stand_on_the_clock_of_the_media(pristine: Path) -> None:
    held = recordings(pristine, read_manifest(pristine / "store"))
    first = held["video59"]
    path = pristine / "corpus" / "batch1" / "video59.mp4"
    times_s = [frame.time_s for frame in media.frames(path)]
    np.testing.assert_allclose(first.frame_s, times_s, atol=1e-9)
    assert first.labels.shape == (40, 2)
    np.testing.assert_array_equal(first.labels[::10], -5)
    assert first.visual is not None
    np.testing.assert_allclose(first.visual.times_s, np.delete(times_s, [2, 3, 4]), atol=1e-9)
    assert first.visual.values.dtype == np.float32
    assert first.audio is not None
    np.testing.assert_allclose(np.diff(first.audio.times_s), 1 / 25, atol=1e-9)
    assert 0 <= first.speech[0].start_s < first.speech[0].end_s <= first.audio.times_s[-1] + 0.1
    assert [word.text for word in first.words] == ["So", "happy", "today!"]
    assert first.words[0].start_s == pytest.approx(0.2)
    assert first.words[-1].end_s == pytest.approx(0.9)
    assert first.text.shape == (3, 8)


def test_one_label_more_than_frames_goes_on_by_a_period(pristine: Path) -> None:
    recording = recordings(pristine, read_manifest(pristine / "store"))["4-30-352x352"]
    path = pristine / "corpus" / "batch1" / "4-30-352x352.mp4"
    times_s = [frame.time_s for frame in media.frames(path)]
    assert len(recording.labels) == len(recording.frame_s) == len(times_s) + 1
    np.testing.assert_allclose(recording.frame_s[:-1], times_s, atol=1e-9)
    assert recording.frame_s[-1] == pytest.approx(times_s[-1] + 1 / 25)


def test_without_media_there_are_faces_at_a_usual_rate(pristine: Path) -> None:
    recording = recordings(pristine, read_manifest(pristine / "store"))["no_media"]
    np.testing.assert_allclose(recording.frame_s, np.arange(12) / 30)
    assert recording.visual is not None
    np.testing.assert_allclose(recording.visual.times_s, np.arange(9) / 30)
    assert recording.audio is None
    assert recording.words == ()


def test_faces_written_and_faces_found_agree(place: Path) -> None:
    """The shipped encoder on crops of 112 px, stored as JPEG, and on the same person's media."""
    stored = extract(place / "corpus", place / "store", "mini", device="cpu", offline=True)
    assert stored.name == "mini"
    shutil.rmtree(place / "corpus" / "cropped_aligned" / "video59")
    found = extract(place / "corpus", place / "store", "mini", device="cpu", offline=True)
    assert "detector" in found.settings
    one, other = (recordings(place, m)["video59"].visual for m in (stored, found))
    assert one is not None
    assert other is not None
    common = np.isin(other.times_s, one.times_s)
    np.testing.assert_array_equal(other.times_s[common], one.times_s)
    assert np.abs(other.values[common] - one.values)[:, :2].mean() < 0.05
    assert np.corrcoef(other.values[common].ravel(), one.values.ravel())[0, 1] > 0.98


def test_the_paper_s_encoders(place: Path) -> None:
    manifest = extract(
        place / "corpus",
        place / "store",
        str(save_toy_paper(place)),
        device="cpu",
        offline=True,
    )
    assert manifest.widths == {"visual": 32, "audio": 32, "text": 32}
    assert read_manifest(place / "store", "paper") == manifest
    recording = recordings(place, manifest)["video59"]
    assert recording.visual is not None
    assert recording.audio is not None
    count, seen_s = len(recording.visual.values), recording.visual.times_s
    assert abs(count - (10 * (seen_s[-1] - seen_s[0]) + 1)) < 1  # of 37 faces, ten a second
    assert recording.visual.values.shape == (count, 32)
    assert recording.audio.values.shape == (len(recording.audio.times_s), 32)
    assert recording.text.shape == (3, 32)
    assert read_manifest(place / "store", "toy").widths == WIDTHS


# --- what is computed again ------------------------------------------------------------------


def test_nothing_is_computed_twice(place: Path) -> None:
    before, manifest = entries(place), read_manifest(place / "store")
    for path in (place / "corpus").rglob("*"):
        os.utime(path)
    assert run(place) == manifest
    assert entries(place) == before


def test_another_text_encoder_encodes_the_words_anew_and_nothing_else(place: Path) -> None:
    before, manifest = entries(place), read_manifest(place / "store")
    weights = place / "toy" / "text.safetensors"
    save_file({k: v * 2 for k, v in load_file(weights).items()}, weights)
    changed = run(place)
    assert kinds_made(place, before) == ["words"]
    old, new = (recordings(place, m)["video59"] for m in (manifest, changed))
    assert new.words == old.words
    assert not np.array_equal(new.text, old.text)


def test_another_face_encoder_sees_the_faces_anew_and_nothing_else(place: Path) -> None:
    before = entries(place)
    weights = place / "toy" / "visual.safetensors"
    save_file({k: v + 1 for k, v in load_file(weights).items()}, weights)
    run(place)
    assert kinds_made(place, before) == ["visual"] * 4


def test_what_has_changed_on_disk_is_read_anew(place: Path) -> None:
    before = entries(place)
    crop = place / "corpus" / "cropped_aligned" / "video59" / "00007.jpg"
    shutil.copy(crop.with_name("00008.jpg"), crop)
    run(place)
    assert kinds_made(place, before) == ["visual"]

    before = entries(place)
    crop.write_bytes(b"")
    manifest = run(place)
    assert kinds_made(place, before) == ["visual"]
    seen = recordings(place, manifest)["video59"].visual
    assert seen is not None
    assert len(seen.times_s) == 36

    before = entries(place)
    write_labels(place / "corpus", "Train_Set", "video59", 39)
    manifest = run(place)
    assert kinds_made(place, before) == ["frames", "labels"]
    assert manifest.clips[0].notes == ("1 face crops beyond the last frame are left out",)

    before = entries(place)
    (place / "corpus" / "batch1" / "video59.srt").write_text(SRT.replace("happy", "sad"))
    manifest = run(place)
    assert kinds_made(place, before) == ["transcript", "words"]
    assert recordings(place, manifest)["video59"].words[1].text == "sad"

    before = entries(place)
    other = place / "corpus" / "batch1" / "4-30-352x352.mp4"
    shutil.copy(other, other.with_name("video59.mp4"))
    run(place)
    assert kinds_made(place, before) == ["frames", "frames", "transcript", "words"]


@pytest.mark.parametrize(
    ("module", "name", "kinds"),
    [
        (speech, "SPEECH_THRESHOLD", ["audio"] * 2 + ["transcript"] * 2 + ["words"]),
        (extractor, "CHUNK_S", ["audio"] * 2),
        (extractor.track, "NOISE_S", ["visual"]),
    ],
)
def test_another_setting_never_reads_the_old_entry(
    place: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, kinds: list[str]
) -> None:
    before, manifest = entries(place), read_manifest(place / "store")
    monkeypatch.setattr(module, name, getattr(module, name) * 0.9)
    assert run(place).sha256 != manifest.sha256
    assert kinds_made(place, before) == kinds
    monkeypatch.undo()
    assert run(place) == manifest


# --- words that must be recognised -----------------------------------------------------------


class Listener:
    """Stands for a transcriber whose recogniser may be missing."""

    missing: str | None = None
    asked: int = 0

    def __init__(self, asr: str, **options: Any) -> None:
        pass

    def find(self, path: Path, spans: Any, progress: Any) -> tuple[Transcript, str | None]:
        Listener.asked += 1
        word = Word("yes", spans[0].start_s, spans[0].end_s, 0)
        return Transcript(() if self.missing else (word,), "fake"), self.missing


def test_a_recogniser_that_comes_later_is_asked_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "Transcriber", Listener)
    monkeypatch.setattr(Listener, "missing", "no words: no weights")
    assert run(place, asr="auto").clips[2].words is None
    monkeypatch.setattr(Listener, "missing", None)
    recording = recordings(place, run(place, asr="auto"))["4-30-352x352"]
    assert [word.text for word in recording.words] == ["yes"]
    assert recording.words[0].start_s == recording.speech[0].start_s
    asked = Listener.asked
    run(place, asr="auto")
    assert Listener.asked == asked


def test_a_recogniser_is_known_by_its_weights(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "Transcriber", Listener)
    weights = place / "whisper" / "model.bin"
    weights.parent.mkdir()
    asr = f"whisper:{weights.parent}"
    seen = []
    for content in (b"one", b"two", b"one"):
        weights.write_bytes(content)
        seen.append(run(place, asr=asr))
    assert seen[0] == seen[2] != seen[1]
    assert str(place) not in str(seen[0].settings)
