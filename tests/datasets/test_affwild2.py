"""Finding the videos of a tree in its real shapes; labels, samples and folds against plain code."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from affwild2_factory import label, write
from maven.datasets import affwild2
from maven.datasets.affwild2 import (
    CHALLENGE,
    CorpusError,
    Video,
    face_frames,
    has_header,
    read_corpus,
    read_labels,
)


def named(videos: list[Video]) -> list[tuple[str, str]]:
    return [(video.split, video.name) for video in videos]


# --- which videos there are ---------------------------------------------------------------------


def test_a_tree_as_it_is_downloaded(tmp_path: Path) -> None:
    texts = tmp_path / "Third ABAW Annotations"
    for split, name in (
        ("train", "video59"),
        ("train", "video59_right"),
        ("train", "10-60-1280x720_left"),
        ("val", "1-30-1280x720"),
        ("val", "сон № 7"),
        ("test", "test-000"),
    ):
        label(texts, split, name)
    write(texts / CHALLENGE / "Train_Set" / ".DS_Store")
    write(texts / CHALLENGE / "Train_Set" / "._video59.txt", b"\0\5\x16\7")
    write(tmp_path / "__MACOSX" / CHALLENGE / "Train_Set" / "video59.txt")
    write(texts / "EXPR_Classification_Challenge" / "Train_Set" / "video60.txt", "Neutral\n0\n")
    video59 = write(tmp_path / "batch1" / "video59.MP4")
    write(tmp_path / "batch1" / "._video59.mp4")
    both = write(tmp_path / "new_vids" / "more" / "deep" / "10-60-1280x720.avi")
    write(tmp_path / "a" / "b" / "c" / "d" / "1-30-1280x720.mp4")  # too deep
    faces = tmp_path / "crops" / "cropped_aligned"
    for name in ("video59", "video59_right", "2-30-640x360_left", ".cache"):
        write(faces / name / "00001.jpg")
    write(faces / "video59" / "clip.mp4")  # not looked into
    later = write(tmp_path / "cropped_aligned_new_50_vids" / "cropped_aligned" / "video93" / "x")
    unseen = write(tmp_path / "batch2" / "video12.mkv")

    videos = read_corpus(tmp_path)
    assert named(videos) == [
        ("train", "10-60-1280x720_left"),
        ("train", "video59"),
        ("train", "video59_right"),
        ("val", "1-30-1280x720"),
        ("val", "сон № 7"),
        ("test", "2-30-640x360_left"),
        ("test", "test-000"),
        ("test", "video12"),
        ("test", "video93"),
    ]
    by_name = {video.name: video for video in videos}
    right = by_name["video59_right"]
    assert (right.media, right.faces) == (video59, faces / "video59_right")
    assert (right.media_name, right.person) == ("video59", "right")
    assert (by_name["video59"].media, by_name["video59"].person) == (video59, "")
    assert by_name["10-60-1280x720_left"].media == both
    assert by_name["1-30-1280x720"].media is None
    assert by_name["video93"].faces == later.parent
    assert (by_name["video12"].media, by_name["video12"].labels) == (unseen, None)
    assert by_name["test-000"].labels == texts / CHALLENGE / "Test_Set" / "test-000.txt"
    assert not {"video60", "clip", "more"} & set(by_name)


@pytest.mark.parametrize("folder", [".", "Annotations", "annotations", "x/5th ABAW/labels"])
def test_label_folders_anywhere_up_to_three_folders_down(tmp_path: Path, folder: str) -> None:
    label(tmp_path / folder, "val", "video1")
    assert named(read_corpus(tmp_path)) == [("val", "video1")]


def test_label_folders_too_deep_are_none(tmp_path: Path) -> None:
    label(tmp_path / "a/b/c/d", "val", "video1")
    with pytest.raises(CorpusError, match="no VA_Estimation_Challenge"):
        read_corpus(tmp_path)


def test_no_corpus_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "media" / "video1.mp4")
    write(tmp_path / "bare" / CHALLENGE / "notes.txt")
    for name in ("empty", "media", "bare", "missing", "media/video1.mp4"):
        with pytest.raises(CorpusError) as caught:
            read_corpus(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_two_label_folders_of_a_split_are_refused_two_splits_apart_are_not(tmp_path: Path) -> None:
    label(tmp_path / "2nd ABAW", "train", "video1")
    label(tmp_path / "public", "val", "video2")
    assert named(read_corpus(tmp_path)) == [("train", "video1"), ("val", "video2")]
    label(tmp_path / "3rd ABAW", "train", "video1")
    with pytest.raises(CorpusError, match=r"two label folders .*2nd ABAW.*3rd ABAW"):
        read_corpus(tmp_path)


def test_media_of_a_name_of_its_own_and_first_of_several(tmp_path: Path) -> None:
    for name in ("video1_left", "video2_right", "video3"):
        label(tmp_path, "train", name)
    own = write(tmp_path / "v" / "video1_left.mp4")
    write(tmp_path / "v" / "video2_right.mp4")
    base = write(tmp_path / "v" / "video2.mp4")
    write(tmp_path / "v" / "deeper" / "video3.mp4")
    first = write(tmp_path / "v" / "video3.avi")
    videos = read_corpus(tmp_path)
    assert named(videos) == [
        ("train", f"video{k}{p}") for k, p in ((1, "_left"), (2, "_right"), (3, ""))
    ]
    assert [video.media for video in videos] == [own, base, first]


def test_names_in_either_unicode_form_meet(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "vidéo_ü") for form in ("NFC", "NFD"))
    labels = label(tmp_path, "train", composed)
    media = write(tmp_path / f"{apart}.mp4")
    faces = write(tmp_path / "cropped_aligned" / apart / "00001.jpg").parent
    assert read_corpus(tmp_path) == [Video(composed, "train", labels, media, faces)]


def test_links_broken_circular_and_good(tmp_path: Path) -> None:
    root = tmp_path / "root"
    label(root, "train", "video1")
    (root / CHALLENGE / "Train_Set" / "video2.txt").symlink_to("nowhere")
    elsewhere = write(tmp_path / "disk" / "video1.mp4")
    (root / "again").symlink_to(root)  # its labels are not a second set
    (root / "circle").symlink_to("circle")
    (root / "video2.mp4").symlink_to("nowhere.mp4")
    (root / "linked").symlink_to(elsewhere.parent)
    one, two = read_corpus(root)
    assert one.media == root / "linked" / "video1.mp4"
    assert (two.name, two.media) == ("video2", None)
    assert two.labels is not None
    with pytest.raises(CorpusError, match=r"video2.txt: No such file"):
        read_labels(two.labels)


def test_closed_folders_are_passed_over_but_not_those_of_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(tmp_path, "train", "video1")
    write(tmp_path / "lost+found" / "video1.mp4")
    closed = [tmp_path / "lost+found"]
    scandir = os.scandir

    def guarded(path: Path) -> Any:
        if Path(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert [video.media for video in read_corpus(tmp_path)] == [None]
    assert affwild2.scan(tmp_path).unread == [(closed[0], "Permission denied")]
    closed[:] = [tmp_path]
    with pytest.raises(CorpusError, match="Permission denied"):
        read_corpus(tmp_path)
    closed[:] = []

    def locked(folder: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", locked)
    with pytest.raises(CorpusError, match="Train_Set: Permission denied"):
        read_corpus(tmp_path)


# --- labels -------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.just("-5"),
    st.just("-5.0"),
    st.integers(-9, 9).map(str),
    st.floats(-1, 1, width=32).map(repr),
    st.floats(-1, 1).map(lambda x: f"{x:.3e}"),
    st.floats(-1, 1).map(lambda x: f"{x:+.6f}"),
)
SPACES = st.text(" \t", max_size=2)
LINES = st.tuples(SPACES, VALUES, SPACES, SPACES, VALUES, SPACES).map(
    lambda p: f"{p[0]}{p[1]}{p[2]},{p[3]}{p[4]}{p[5]}"
)


def plain(lines: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The oracle: line by line."""
    pairs = [[np.float32(float(x.strip())) for x in line.split(",")] for line in lines]
    return np.array(pairs, np.float32).reshape(-1, 2)


def read_text(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    with TemporaryDirectory() as folder:
        return read_labels(write(Path(folder) / "video.txt", text))


@given(
    st.lists(LINES, max_size=30),
    st.sampled_from(["", "valence,arousal", "Valence, Arousal ", "\ufeffvalence,arousal"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["", "\n", "\n\n \n"]),
)
def test_labels_as_a_plain_reader_has_them(
    lines: list[str], header: str, newline: str, tail: str
) -> None:
    text = newline.join([header] * bool(header) + lines) + tail.replace("\n", newline)
    read = read_text(text)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, plain(lines))


@given(
    st.lists(LINES, max_size=12),
    st.integers(0, 11),
    st.sampled_from(
        [
            *("", "0.1", "0.1,", ",0.1", "0.1,0.2,0.3", "0.1;0.2", "nan,0", "0,inf", "-Infinity,0"),
            *("1_0,0", "0x1,0", "0,1e39", "1e400,0", "a,b", "0.1 0.2,0", "０,0", "0,0#", '"0","0"'),
            *("valence,arousal", "arousal,valence", "0,0\0", "1j,0", "0,True", "--1,0"),
        ]
    ),
    st.booleans(),
)
def test_a_line_that_is_not_two_numbers_is_named(
    lines: list[str], place: int, bad: str, header: bool
) -> None:
    place = min(place, len(lines))
    assume(bad or place < len(lines))  # a blank line at the end is none
    assume(bad != "valence,arousal" or header or place)  # there it is the header
    lines.insert(place, bad)
    lines = ["valence,arousal"] * header + lines
    with pytest.raises(CorpusError, match=rf"video\.txt: line {place + header + 1}: ") as caught:
        read_text("\n".join(lines))
    assert "\n" not in str(caught.value)


@settings(max_examples=300)
@given(st.text("01.,-+e \t\n\r_naif\0\x0b\x1c\x85\xa0\u2028\u3000", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        labels = read_text(text)
    except CorpusError:
        return
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    np.testing.assert_array_equal(labels, plain(lines if lines != [""] else []))


def test_no_frame_is_lost_to_the_header(tmp_path: Path) -> None:
    """Fault 8: the published reader skips it twice, and every frame takes its neighbour's label."""
    rows = [f"0.{k},-0.{k}" for k in range(1, 10)]
    headed = write(tmp_path / "a.txt", "\n".join(["valence,arousal", *rows, ""]))
    bare = write(tmp_path / "b.txt", "\n".join(rows))
    assert (has_header(headed), has_header(bare)) == (True, False)
    for path in (headed, bare):
        labels = read_labels(path)
        assert labels.shape == (9, 2)
        np.testing.assert_allclose(labels[:, 0], np.arange(1, 10) / 10, rtol=1e-6)


def test_labels_outside_stay_and_files_that_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "video.txt", "valence,arousal\n-5,-5\n1.5,-0.25\n-5,0.5\n")
    assert read_labels(path).tolist() == [[-5, -5], [1.5, -0.25], [-5, 0.5]]
    assert read_labels(write(tmp_path / "empty.txt")).shape == (0, 2)
    assert not has_header(tmp_path / "empty.txt")
    for bad in (tmp_path, tmp_path / "missing.txt"):
        with pytest.raises(CorpusError, match=str(bad)):
            read_labels(bad)
    with pytest.raises(CorpusError, match="line 1"):
        read_labels(write(tmp_path / "binary.txt", bytes(range(128, 256))))


# --- faces --------------------------------------------------------------------------------------


def test_face_frames(tmp_path: Path) -> None:
    for name in ("00010.jpg", "00002.jpg", "100000.jpg", "00000.jpg", "1.jpg", "012345.jpg"):
        write(tmp_path / name)
    for name in ("00003.png", "00004.JPG", ".00005.jpg", "00006.jpg.part", "٠٠٠٠١.jpg"):
        write(tmp_path / name)
    frames = face_frames(Video("v", "train", None, None, tmp_path))
    assert frames.tolist() == [2, 10, 100000]
    assert frames.dtype == np.int64
    assert face_frames(Video("v", "train", None, None, None)).tolist() == []
    with pytest.raises(CorpusError, match="gone"):
        face_frames(Video("v", "train", None, None, tmp_path / "gone"))
