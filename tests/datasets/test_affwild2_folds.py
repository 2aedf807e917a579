"""Folds of the videos and the submission file, against plain code."""

from __future__ import annotations

import math
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affwild2_factory import label, write
from maven.datasets import affwild2
from maven.datasets.affwild2 import (
    CorpusError,
    Video,
    folds,
    group_of,
    read_corpus,
    read_sample,
    write_submission,
)

# --- submission ---------------------------------------------------------------------------------

SAMPLE_LINES = [
    "image_location,valence,arousal",
    "2-30-640x360/00001.jpg,0.5,-0.5",
    "2-30-640x360/00002.jpg,,",
    "video59_right/00010.jpg",
    "no, really/00001.jpg,",
    "имя с пробелом/100000.jpg,-5,-5",
]
LOCATIONS = [
    *("2-30-640x360/00001.jpg", "2-30-640x360/00002.jpg", "video59_right/00010.jpg"),
    *("no, really/00001.jpg", "имя с пробелом/100000.jpg"),
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_sample_with_and_without_values(tmp_path: Path, newline: str) -> None:
    path = write(tmp_path / "sample.txt", newline.join([*SAMPLE_LINES, "", ""]))
    assert read_sample(path) == LOCATIONS


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "line 1: got an empty file"),
        (SAMPLE_LINES[1:], "line 1: got '2-30-640x360/00001"),
        (["valence,arousal", "0.1,0.2"], "line 1"),
        (SAMPLE_LINES[:1], "no row"),
        ([*SAMPLE_LINES[:2], "", SAMPLE_LINES[2]], "line 3: got ''"),
        ([*SAMPLE_LINES[:2], "0.1,0.2"], "line 3"),
        ([SAMPLE_LINES[0], "a/00001.jpg,1,2,3"], "line 2"),
        ([SAMPLE_LINES[0], "a/00001.png,1,2"], "line 2"),
        ([*SAMPLE_LINES, SAMPLE_LINES[3]], "line 7: video59_right/00010.jpg stands in line 4 too"),
    ],
)
def test_what_is_no_sample_is_refused(tmp_path: Path, lines: list[str], said: str) -> None:
    path = write(tmp_path / "sample.txt", "\n".join(lines))
    with pytest.raises(CorpusError) as caught:
        read_sample(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


NAMES = st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1, max_size=8)
LOCATION = st.tuples(NAMES, st.integers(1, 200_000)).map(lambda p: f"{p[0]}/{p[1]:05d}.jpg")


@given(
    st.lists(
        st.tuples(LOCATION, *[st.floats(-1, 1, width=32)] * 2), min_size=1, unique_by=lambda r: r[0]
    )
)
def test_a_submission_comes_back(table: list[tuple[str, float, float]]) -> None:
    rows = [row for row, _, _ in table]
    va = np.array([pair for _, *pair in table], np.float32)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.txt"
        write_submission(path, rows, va)
        assert read_sample(path) == rows
        text = path.read_bytes().decode()
    assert text.startswith("image_location,valence,arousal\n")
    assert "\r" not in text
    written = [line.rsplit(",", 2)[1:] for line in text.split("\n")[1:-1]]
    np.testing.assert_array_equal(np.array(written, np.float64).astype(np.float32), va)


def test_a_submission_is_whole_and_finite(tmp_path: Path) -> None:
    path = tmp_path / "predictions.txt"
    write_submission(path, ["a/00001.jpg"], [[1 / 3, -1e-7 / 3]])
    assert path.read_text() == (
        "image_location,valence,arousal\na/00001.jpg,0.333333333,-3.33333333e-08\n"
    )
    before = path.read_bytes()
    for rows, va in (
        (["a/00001.jpg"], [[math.nan, 0]]),
        (["a/00001.jpg"], [[0, math.inf]]),
        (["a/00001.jpg", "a/00002.jpg"], [[0, 0]]),
        (["a/00001.jpg"], [0, 0]),
    ):
        with pytest.raises(ValueError, match=r"a submission of|no finite value"):
            write_submission(path, rows, va)
    with pytest.raises(UnicodeEncodeError):  # in the middle of writing
        write_submission(path, ["a/00001.jpg", "\ud800/00001.jpg"], np.zeros((2, 2)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- folds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("video59", "video59_right", True),
        ("video5_left", "video5_right", True),
        ("135-24-1920x1080_left", "135-24-1920x1080", True),
        ("12-24-1920x1080_part1", "12-24-1920x1080_part2", True),
        ("video10_1", "video10_2_left", True),
        ("5-60-1920x1080-1", "5-60-1920x1080-2", True),
        ("7-60-640x360-1", "7-60-640x360-2_right", True),
        ("video9", "video92", False),
        ("1-30-1280x720", "133-30-1280x720", False),
        ("1-30-1280x720", "1-30-1280x721", False),
        ("46-30-484x360", "46-30-484x368", False),
        ("train-000", "train-001", False),
        ("train_000", "train_001", False),
        ("clip_1", "clip_2", False),
    ],
)
def test_names_that_tell_the_same_person(one: str, other: str, together: bool) -> None:
    assert (group_of(one) == group_of(other)) is together


VIDEO_NAMES = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["video", "1-30-1280x72", "train-00"]),
    st.integers(0, 9),
    st.sampled_from(["", "", "_1", "_2", "_part1"]),
    st.sampled_from(["", "", "_left", "_right"]),
)


@settings(deadline=None)
@given(
    st.dictionaries(
        VIDEO_NAMES, st.tuples(st.sampled_from("ttttv"), st.integers(0, 40)), min_size=4
    ),
    st.integers(2, 6),
    st.randoms(),
)
def test_folds_cover_are_disjoint_and_do_not_depend_on_order(
    corpus: dict[str, tuple[str, int]], count: int, shuffler: random.Random
) -> None:
    with TemporaryDirectory() as folder:
        for name, (split, frames) in corpus.items():
            label(Path(folder), "val" if split == "v" else "train", name, frames)
        label(Path(folder), "test", "video900")
        videos = read_corpus(Path(folder))
        n_groups = len({group_of(n) for n, (split, _) in corpus.items() if split == "t"})
        if n_groups < count - 1 or not any(split == "v" for split, _ in corpus.values()):
            with pytest.raises(
                CorpusError, match=f"^{count} folds need at least 1 and {count - 1}"
            ):
                folds(videos, count)
            return
        dealt = folds(videos, count)
        shuffler.shuffle(videos)
        assert folds(videos, count) == dealt
    names = [[video.name for video in fold] for fold in dealt]
    assert len(names) == count
    assert all(names)
    assert set(names[0]) == {name for name, (split, _) in corpus.items() if split == "v"}
    assert sorted(name for fold in names for name in fold) == sorted(corpus)
    training = [{group_of(name) for name in fold} for fold in names[1:]]
    assert sum(map(len, training)) == len(set().union(*training)) == n_groups
    frames_of = {k: sum(corpus[name][1] for name in fold) for k, fold in enumerate(names[1:])}
    sizes: dict[str, int] = {}
    for name, (split, frames) in corpus.items():
        if split == "t":
            sizes[group_of(name)] = sizes.get(group_of(name), 0) + frames
    # Longest first into the emptiest: no two folds differ by more than the longest group.
    assert max(frames_of.values()) - min(frames_of.values()) <= max(sizes.values())


def test_six_folds_of_a_corpus_of_real_size_are_even() -> None:
    rng = random.Random(0)
    lengths = {f"{k}-30-1280x720": rng.randint(500, 20_000) for k in range(350)}
    videos = [Video(name, "train", Path(name), None, None) for name in lengths]
    videos += [Video("video1", "val", None, None, None)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(affwild2, "read_labels", lambda path: range(lengths[str(path)]))
        totals = [sum(lengths[v.name] for v in fold) for fold in folds(videos)[1:]]
    assert max(totals) / min(totals) < 1.001


def test_folds_need_two() -> None:
    with pytest.raises(ValueError, match="count"):
        folds([], 1)
