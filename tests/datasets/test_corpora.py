"""The corpora's layouts in tiny folders, their label arithmetic and splits, and the real counts."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from maven.datasets.corpora import PROXY_VA, read_faces, read_sentences, read_speech
from maven.encoders.mini import FACE_CLASSES, VOICE_CLASSES


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write_table(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


# --- what the table says -----------------------------------------------------------------------


def test_the_proxies_are_those_of_the_source() -> None:
    """Russell & Mehrabian 1977, pleasure and arousal; "calm" is the project's own."""
    assert PROXY_VA == {
        "happy": (0.81, 0.51),
        "surprise": (0.40, 0.67),
        "angry": (-0.51, 0.59),
        "fear": (-0.64, 0.60),
        "disgust": (-0.60, 0.35),
        "sad": (-0.63, -0.27),
        "neutral": (0.0, 0.0),
        "calm": (0.30, -0.40),
    }
    assert set(PROXY_VA) == set(VOICE_CLASSES) == {*FACE_CLASSES, "calm"}
    assert all(np.hypot(*va) <= 1 for va in PROXY_VA.values())


# --- sentences ---------------------------------------------------------------------------------


def test_sentences(tmp_path: Path) -> None:
    rows = [
        ("a1", "train", "3.0", "3.0", "2.9", "Nothing, really."),
        ("a2", "train", "5", "1", "3", 'She said "yes",\nand left.'),
        ("a3", "dev", "1.0", "4.2", "3", "Żółć"),
        ("a4", "test", "2.5", "3.5", "3", "Held back."),
    ]
    names = ("id", "split", "V", "A", "D", "text")
    table = [dict(zip(names, row, strict=True)) for row in rows]
    write_table(tmp_path / "text" / "one.csv", table[:3])
    write_table(tmp_path / "text" / "two.csv", table[3:])
    sentences = read_sentences(tmp_path)
    assert sentences.texts == [row[-1] for row in rows]
    assert sentences.splits.tolist() == ["train", "train", "val", "test"]
    assert sentences.va.dtype == np.float32
    np.testing.assert_allclose(sentences.va, [(0, 0), (1, -1), (-1, 0.6), (-0.25, 0.25)], atol=1e-6)


# --- speech ------------------------------------------------------------------------------------


def test_ravdess(tmp_path: Path) -> None:
    folder = tmp_path / "speech" / "ravdess"
    for actor in (1, 2, 16, 17, 20, 21):
        for emotion, intensity in ((1, 1), (5, 1), (5, 2), (2, 1), (8, 2)):
            name = f"03-01-{emotion:02}-{intensity:02}-02-01-{actor:02}.flac"
            touch(folder / f"Actor_{actor:02}" / name)
    touch(folder / "Actor_01" / "notes.txt")
    touch(folder / "Actor_01" / ".DS_Store")
    utterances = read_speech(tmp_path)
    assert len(utterances) == 30
    assert utterances == sorted(utterances, key=lambda u: u.path)
    assert all(u.path.is_file() for u in utterances)
    assert {(u.speaker, u.sex, u.split) for u in utterances} == {
        ("ravdess-01", "male", "train"),
        ("ravdess-02", "female", "train"),
        ("ravdess-16", "female", "train"),
        ("ravdess-17", "male", "val"),
        ("ravdess-20", "female", "val"),
        ("ravdess-21", "male", "train"),
    }
    of_one = {(u.emotion, u.va) for u in utterances if u.speaker == "ravdess-17"}
    assert {e: Counter(x for x, _ in of_one)[e] for e in ("angry", "neutral")} == {
        "angry": 2,
        "neutral": 1,
    }
    labels = {k: [va for e, va in of_one if e == k] for k, _ in of_one}
    assert labels["neutral"] == [(0.0, 0.0)]
    assert labels["surprise"] == [(0.40, 0.67)]
    np.testing.assert_allclose(labels["calm"], [(0.225, -0.3)])
    np.testing.assert_allclose(sorted(labels["angry"]), [(-0.51, 0.59), (-0.3825, 0.4425)])


def test_all_emotions_of_ravdess(tmp_path: Path) -> None:
    """The codes are those of Livingstone & Russo 2018."""
    for code in range(1, 9):
        name = f"03-01-{code:02}-02-01-01-03.wav"
        touch(tmp_path / "speech" / "ravdess" / "Actor_03" / name)
    assert [u.emotion for u in read_speech(tmp_path)] == [
        "neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise",
    ]  # fmt: skip
    assert all(u.va == PROXY_VA[u.emotion] for u in read_speech(tmp_path))


def test_nemo(tmp_path: Path) -> None:
    folder = tmp_path / "speech" / "nemo"
    names = ("anger", "fear", "happiness", "sadness", "surprised", "neutral")
    rows = [
        {
            "file_id": f"AB0_{name}_1.wav",
            "emotion": name,
            "raw_text": "Zdanie.",
            "speaker_id": "   AB0",
            "gender": "female",
        }
        for name in (*names, "fear")
    ]
    rows[-1]["file_id"] = "AB0_fear_2.wav"  # in the table, but its clip is not there
    write_table(folder / "data.tsv", rows, "\t")
    for name in names:
        touch(folder / f"AB0_{name}_1.ogg")
    utterances = read_speech(tmp_path)
    assert len(utterances) == 6
    assert {u.path.stem.split("_")[1]: u.emotion for u in utterances} == {
        "anger": "angry",
        "fear": "fear",
        "happiness": "happy",
        "sadness": "sad",
        "surprised": "surprise",
        "neutral": "neutral",
    }
    assert {(u.speaker, u.sex, u.split) for u in utterances} == {("nemo-AB0", "female", "train")}
    assert all(u.va == PROXY_VA[u.emotion] for u in utterances)


# --- faces -------------------------------------------------------------------------------------


def test_faces(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    images = np.arange(4 * 48 * 48, dtype=np.int64).reshape(4, 48, 48).astype(np.uint8)
    np.savez(
        folder / "a.npz",
        images=images,
        labels=np.array([2, 0, 1, 2]),
        usage=np.array(["Training", "PublicTest", "PrivateTest", "Training"]),
        classes=np.array(["angry", "neutral", "surprise"]),
    )
    np.savez(
        folder / "b.npz",
        images=images[:1],
        labels=np.array([0]),
        classes=np.array(["happy"]),
    )
    faces = read_faces(tmp_path)
    np.testing.assert_array_equal(faces.images, np.concatenate((images, images[:1])))
    assert faces.emotions.tolist() == ["surprise", "angry", "neutral", "surprise", "happy"]
    assert faces.splits.tolist() == ["train", "val", "test", "train", "train"]
    np.testing.assert_allclose(
        faces.va, [(0.4, 0.67), (-0.51, 0.59), (0, 0), (0.4, 0.67), (0.81, 0.51)]
    )
    assert faces.va.dtype == np.float32


def test_missing_folders_are_empty(tmp_path: Path) -> None:
    sentences, faces = read_sentences(tmp_path), read_faces(tmp_path)
    assert (sentences.texts, sentences.va.shape, sentences.splits.shape) == ([], (0, 2), (0,))
    assert (faces.images.shape, faces.va.shape, faces.splits.shape) == ((0, 48, 48), (0, 2), (0,))
    assert read_speech(tmp_path) == []
    (tmp_path / "speech" / "nemo").mkdir(parents=True)
    assert read_speech(tmp_path) == []


# --- the real ones -----------------------------------------------------------------------------


def test_the_real_sentences(data_dir: Path) -> None:
    sentences = read_sentences(data_dir)
    assert Counter(sentences.splits.tolist()) == {"train": 8062, "val": 1000}
    assert np.abs(sentences.va).max() <= 1
    assert len(sentences.texts) == len(sentences.va)


def test_the_real_speech(data_dir: Path) -> None:
    utterances = read_speech(data_dir)
    counts = Counter((u.speaker.split("-")[0], u.split) for u in utterances)
    assert counts == {("ravdess", "train"): 960, ("ravdess", "val"): 240, ("nemo", "train"): 4481}
    held_out = {u.speaker for u in utterances if u.split == "val"}
    assert held_out == {f"ravdess-{actor}" for actor in range(17, 21)}
    assert not held_out & {u.speaker for u in utterances if u.split == "train"}
    assert {u.sex for u in utterances} == {"female", "male"}
    speakers = Counter(u.speaker for u in utterances)
    assert len(speakers) == 29
    assert all(speakers[f"ravdess-{actor:02}"] == 60 for actor in range(1, 21))
    assert all(u.speaker == u.speaker.strip() and " " not in u.speaker for u in utterances)


@pytest.mark.parametrize(("split", "count"), [("train", 28_709), ("val", 3_589)])
def test_the_real_faces(data_dir: Path, split: str, count: int) -> None:
    faces = read_faces(data_dir)
    assert (faces.splits == split).sum() == count
    assert faces.images.shape == (28_709 + 3_589, 48, 48)
    assert set(faces.emotions.tolist()) == set(FACE_CLASSES)
