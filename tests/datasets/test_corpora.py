"""The corpora's layouts in tiny folders, their label arithmetic and splits, and the real counts."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from maven.datasets.corpora import (
    PROXY_VA,
    SourcesError,
    fingerprints,
    read_faces,
    read_sentences,
    read_speech,
)
from maven.encoders.faces import FACE_CLASSES
from maven.encoders.voices import VOICE_CLASSES


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
    for actor in (1, 2, 16, 17, 20, 21, 24, 25):
        for emotion, intensity in ((1, 1), (5, 1), (5, 2), (2, 1), (8, 2)):
            name = f"03-01-{emotion:02}-{intensity:02}-02-01-{actor:02}.flac"
            touch(folder / f"Actor_{actor:02}" / name)
    touch(folder / "Actor_01" / "notes.txt")
    touch(folder / "Actor_01" / ".DS_Store")
    utterances = read_speech(tmp_path)
    assert len(utterances) == 40
    assert utterances == sorted(utterances, key=lambda u: u.path)
    assert all(u.path.is_file() for u in utterances)
    assert {(u.speaker, u.sex, u.split) for u in utterances} == {
        ("ravdess-01", "male", "train"),
        ("ravdess-02", "female", "train"),
        ("ravdess-16", "female", "train"),
        ("ravdess-17", "male", "val"),
        ("ravdess-20", "female", "val"),
        ("ravdess-21", "male", "test"),
        ("ravdess-24", "female", "test"),
        ("ravdess-25", "male", "train"),
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
    again = read_faces(tmp_path, unstated="test")
    assert again.splits.tolist() == ["train", "val", "test", "train", "test"]


def test_missing_folders_are_empty(tmp_path: Path) -> None:
    sentences, faces = read_sentences(tmp_path), read_faces(tmp_path)
    assert (sentences.texts, sentences.va.shape, sentences.splits.shape) == ([], (0, 2), (0,))
    assert (faces.images.shape, faces.va.shape, faces.splits.shape) == ((0, 48, 48), (0, 2), (0,))
    assert read_speech(tmp_path) == []
    (tmp_path / "speech" / "nemo").mkdir(parents=True)
    assert read_speech(tmp_path) == []


# --- what cannot be used -----------------------------------------------------------------------

GOOD_ARRAYS = {
    "images": np.zeros((3, 4, 4), np.uint8),
    "labels": np.array([0, 1, 1]),
    "classes": np.array(["happy", "sad"]),
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": None}, r"lacks 'images'; needed: images, labels, classes"),
        ({"classes": None}, "lacks 'classes'"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8)}, r"images are uint8 \(3, 4, 4, 3\)"),
        ({"images": np.zeros((3, 4, 4))}, "images are float64"),
        ({"labels": np.array([0, 1])}, "not of the same number"),
        ({"usage": np.array(["Training"])}, "not of the same number"),
        ({"labels": np.array([0, 1, 2])}, "not all numbers of its 2 classes"),
        ({"labels": np.array([0, 1, -1])}, "not all numbers of its 2 classes"),
        ({"labels": np.array([0.0, 1, 1])}, "not all numbers of its 2 classes"),
        ({"classes": np.array(["happy", "contempt"])}, "class 'contempt'; accepted: happy, "),
        ({"images": np.array([None, {}], object)}, "not an .npz file that can be read"),
    ],
)
def test_odd_images(tmp_path: Path, change: dict[str, np.ndarray], said: str) -> None:
    (tmp_path / "faces").mkdir()
    path = tmp_path / "faces" / "odd.npz"
    arrays = {k: v for k, v in (GOOD_ARRAYS | change).items() if v is not None}
    np.savez(path, **arrays)
    with pytest.raises(SourcesError, match=said) as caught:
        read_faces(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "npy"])
def test_damaged_images(tmp_path: Path, kind: str) -> None:
    (tmp_path / "faces").mkdir()
    path = tmp_path / "faces" / "odd.npz"
    np.savez_compressed(path, **GOOD_ARRAYS)
    half = path.read_bytes()[: path.stat().st_size // 2]
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.arange(3))
    else:
        path.write_bytes({"empty": b"", "text": b"no zip", "cut": half}[kind])
    with pytest.raises(SourcesError, match=r"odd.npz: not an .npz file that can be read"):
        read_faces(tmp_path)


def test_images_of_two_sizes(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    np.savez(tmp_path / "faces" / "a.npz", **GOOD_ARRAYS)
    np.savez(
        tmp_path / "faces" / "b.npz", **(GOOD_ARRAYS | {"images": np.zeros((3, 5, 4), np.uint8)})
    )
    with pytest.raises(SourcesError, match=r"images of several sizes \[\(4, 4\), \(5, 4\)\]"):
        read_faces(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"split,A,text\ntrain,3,Hello\n", "lacks the column V; needed: split, V, A, text"),
        (b"", "lacks the column split"),
        (b"split,V,A,text\ntrain,3,3,Yes\ntrain,3\n", "line 3: fewer fields than columns"),
        (b"split,V,A,text\ntrain,3,high,Yes\n", "line 2: A is 'high'; accepted: 1 to 5"),
        (b"split,V,A,text\ntrain,6,3,Yes\n", "line 2: V is '6'; accepted: 1 to 5"),
        (b"split,V,A,text\ntrain,nan,3,Yes\n", "line 2: V is 'nan'"),
        (b"split,V,A,text\ntrain,3,3,\xff\xfe\n", "not a table that can be read"),
    ],
)
def test_odd_sentences(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "text").mkdir()
    path = tmp_path / "text" / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(SourcesError, match=said) as caught:
        read_sentences(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    table = "split,V,A,text\ntrain,3,3,Yes.\n"
    (tmp_path / "text" / "one.csv").write_text(table, encoding="utf-8-sig")
    assert read_sentences(tmp_path).texts == ["Yes."]


@pytest.mark.parametrize("name", ["03-01-09-01-01-01-03", "03-01-03-01-01-01-0x"])
def test_odd_names_of_ravdess(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "speech" / "ravdess" / "Actor_03" / f"{name}.flac")
    with pytest.raises(SourcesError, match=f"{name}.flac: not a name of RAVDESS"):
        read_speech(tmp_path)


def test_odd_tables_of_nemo(tmp_path: Path) -> None:
    table = tmp_path / "speech" / "nemo" / "data.tsv"
    row = {"file_id": "a.wav", "emotion": "bored", "speaker_id": "A", "gender": "female"}
    write_table(table, [row], "\t")
    with pytest.raises(SourcesError, match=r"data.tsv, line 2: .* class 'bored'; accepted: happy"):
        read_speech(tmp_path)
    write_table(table, [{"file_id": "a.wav"}], "\t")
    with pytest.raises(SourcesError, match="lacks the column emotion"):
        read_speech(tmp_path)


# --- fingerprints ------------------------------------------------------------------------------


def test_fingerprints_follow_the_content_and_not_the_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "faces").mkdir(parents=True)
        (folder / "faces" / "a.npz").write_bytes(b"images")
        write_table(folder / "text" / "a.csv", [{"split": "train"}])
        touch(folder / "speech" / "ravdess" / "Actor_01" / "a.flac")
    one, two = tmp_path / "one", tmp_path / "two"
    before = fingerprints(one)
    assert before == fingerprints(two)
    assert list(before) == ["faces/a.npz", "text/a.csv", "speech"]
    assert before["faces/a.npz"] == hashlib.sha256(b"images").hexdigest()
    (two / "faces" / "a.npz").write_bytes(b"Images")
    (two / "speech" / "ravdess" / "Actor_01" / "a.flac").write_bytes(b"x")
    after = fingerprints(two)
    assert {name for name in before if before[name] != after[name]} == {"faces/a.npz", "speech"}


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
