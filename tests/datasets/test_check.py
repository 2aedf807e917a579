"""Each thing that does not fit is found, and named, in small trees with real media in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import pytest

from affwild2_factory import faces, label, write
from maven.container import MediaError, decoded, opened, pick
from maven.datasets.affwild2 import CHALLENGE, CorpusError, read_corpus
from maven.datasets.check import Finding, check, count_frames, summary
from media_factory import tone, write_clip

KINDS = {"labels", "frames", "media", "faces", "names", "split"}
MISSING = Finding("", "labels", "note", "no label files of val (Validation_Set)")


def clip(path: Path, frames: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, frame_times_s=[k / 25 for k in range(frames)])


def whole(root: Path, name: str, frames: int = 5, split: str = "train") -> Path:
    """Write a video in which everything fits; return its label file."""
    clip(root / "videos" / f"{name}.mp4", frames)
    faces(root / "cropped_aligned" / name, frames)
    return label(root, split, name, frames)


def found(root: Path, video: str | None = None) -> list[tuple[str, str, str]]:
    """Return (kind, severity, detail), of one video if one is named."""
    findings = check(root)
    for finding in findings:
        assert finding.kind in KINDS
        assert finding.severity in ("error", "note")
        assert "\n" not in finding.detail
    return [
        (f.kind, f.severity, f.detail)
        for f in findings
        if f != MISSING and video in (None, f.video)
    ]


def test_a_tree_in_which_everything_fits(tmp_path: Path) -> None:
    whole(tmp_path, "train-000")
    whole(tmp_path, "1-30-1280x720", 7, "val")
    label(tmp_path, "train", "video1", 5)
    label(tmp_path, "train", "video1_right", 5)
    clip(tmp_path / "batch1" / "video1.avi", 5)
    for name in ("video1", "video1_right"):
        faces(tmp_path / "cropped_aligned" / name, [2, 5])
    clip(tmp_path / "video2.mp4", 4)  # of the test set, without labels
    faces(tmp_path / "cropped_aligned" / "video2", 4)
    steps: list[tuple[int, int]] = []
    assert check(tmp_path, progress=lambda done, total: steps.append((done, total))) == []
    assert steps == [(k, 5) for k in range(1, 6)]


def test_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusError):
        check(tmp_path)


# --- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("valence,arousal\r\n" + "0.1,-0.2\r\n" * 5 + "\r\n", []),
        ("0.1,0.2\n" * 5, [("labels", "error", "the header valence,arousal is missing")]),
        ("valence,arousal\n0,0\n0,0\n0;0\n0,0\n0,0\n", [("labels", "error", "line 4: got '0;0'")]),
        (
            "valence,arousal\n0,0\n0.5,1.25\n-5,-5\n-2,0\n0,0\n",
            [
                ("labels", "error", "frames outside [-1, 1] and not -5: 2; the first: 0.5,1.25 of"),
                ("labels", "note", "frames marked invalid (-5): 1 of 5 (20.0%)"),
            ],
        ),
        ("valence,arousal\n" + "-5,0.5\n" * 5, [("labels", "error", "(-5): 5 of 5 (100.0%)")]),
        (
            "valence,arousal\n",
            [
                ("labels", "error", "no labels"),
                ("frames", "error", "0 labels, 5 frames"),
                ("faces", "error", "faces beyond the last label (0): 5, up to 5"),
            ],
        ),
    ],
)
def test_label_files(tmp_path: Path, text: str, expected: list[tuple[str, str, str]]) -> None:
    path = whole(tmp_path, "video1")
    path.write_bytes(text.encode())
    findings = found(tmp_path)
    assert [finding[:2] for finding in findings] == [wanted[:2] for wanted in expected]
    for (_, _, detail), (_, _, said) in zip(findings, expected, strict=True):
        assert said in detail


@pytest.mark.parametrize(
    ("labels_n", "severity"), [(6, "note"), (4, "note"), (5, None), (7, "error"), (3, "error")]
)
def test_labels_against_frames(tmp_path: Path, labels_n: int, severity: str | None) -> None:
    label(tmp_path, "train", "video1", labels_n)
    clip(tmp_path / "video1.mp4", 5)
    faces(tmp_path / "cropped_aligned" / "video1", 3)
    (*findings,) = found(tmp_path)
    assert [f[:2] for f in findings] == ([("frames", severity)] if severity else [])
    for _, _, detail in findings:
        assert detail.startswith(f"{labels_n} labels, 5 frames in video1.mp4")
        assert ("organisers" in detail) is (labels_n == 6)


# --- media --------------------------------------------------------------------------------------


def test_frames_are_counted_as_they_decode(tmp_path: Path, clips_dir: Path) -> None:
    """An edit list cuts three frames away; an avi declares twice the frames it holds."""
    for name, frames_n in (
        ("no_face.mp4", 95),
        ("three_faces_720p.avi", 434),
        ("grid_s1_bbaf2n.mpg", 75),
        ("face_then_no_face.mov", 169),
    ):
        assert count_frames(clips_dir / name) == frames_n
    with opened(clips_dir / "no_face.mp4") as container:
        stream = pick(container, "video")
        assert stream is not None
        assert stream.frames == 98
        assert sum(1 for _ in decoded("no_face.mp4", container, stream)) == 95


def test_frames_with_b_frames_and_in_avi(tmp_path: Path) -> None:
    times_s = [k / 25 for k in range(40)]
    options = {"bf": "3", "g": "12"}
    mp4 = write_clip(tmp_path / "a.mp4", frame_times_s=times_s, video_options=options)
    mkv = write_clip(tmp_path / "a.mkv", frame_times_s=times_s, sound=tone(300, 1.6))
    avi = write_clip(tmp_path / "a.avi", frame_times_s=times_s, video_codec="mpeg4")
    assert [count_frames(path) for path in (mp4, mkv, avi)] == [40, 40, 40]


def test_media_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("cut", "noise", "empty", "sound"):
        label(tmp_path, "train", name, 5)
        faces(tmp_path / "cropped_aligned" / name, 5)
    content = clip(tmp_path / "cut.mp4", 5).read_bytes()
    write(tmp_path / "cut.mp4", content[: len(content) // 2])
    write(tmp_path / "noise.mp4", b"noise" * 100)
    write(tmp_path / "empty.mp4")
    write_clip(tmp_path / "sound.mp4", sound=tone(300, 0.5))
    findings = found(tmp_path)
    assert [finding[:2] for finding in findings] == [("media", "error")] * 4
    said = ("cut off", "empty file", "not a media file", "holds no video")
    for part, (_, _, detail) in zip(said, findings, strict=True):
        assert part in detail
    with pytest.raises(MediaError, match="no video"):
        count_frames(tmp_path / "sound.mp4")


def test_a_person_without_a_media_file_of_the_base_name(tmp_path: Path) -> None:
    label(tmp_path, "train", "video1_left", 5)
    clip(tmp_path / "video1_left.mp4", 5)
    label(tmp_path, "train", "video2_right", 5)
    clip(tmp_path / "video9.mp4", 5)
    faces(tmp_path / "cropped_aligned" / "video2_right", 5)
    faces(tmp_path / "cropped_aligned" / "video1_left", 5)
    assert found(tmp_path, "video1_left") == [
        ("media", "note", "no media file video1; taken: video1_left.mp4")
    ]
    assert found(tmp_path, "video2_right") == [
        ("media", "note", "no media file video2 (the name without _right)")
    ]


def test_nothing_but_labels(tmp_path: Path) -> None:
    label(tmp_path, "train", "video1")
    assert found(tmp_path) == [
        ("media", "error", "no media file video1"),
        ("faces", "error", "no folder of faces"),
    ]


def test_one_name_in_two_places(tmp_path: Path) -> None:
    whole(tmp_path, "video1")
    faces(tmp_path / "cropped_aligned_new_50_vids" / "video1", 5)
    clip(tmp_path / "batch2" / "video1.avi", 5)
    media, face = found(tmp_path)
    assert media[:2] == ("media", "note")
    assert media[2].startswith("2 media files video1; taken: ")
    assert face[:2] == ("faces", "note")
    assert face[2].endswith(str(Path("cropped_aligned") / "video1"))


def test_both_persons_share_one_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("video1", "video1_left", "video1_right"):
        label(tmp_path, "train", name, 5)
        faces(tmp_path / "cropped_aligned" / name, 5)
    clip(tmp_path / "video1.mp4", 5)
    opens: list[Any] = []
    real = av.open

    def counted(*args: Any, **kwargs: Any) -> Any:
        opens.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(av, "open", counted)
    assert found(tmp_path) == []
    assert len(opens) == 1


# --- faces --------------------------------------------------------------------------------------


def test_faces_beyond_the_labels_or_the_frames(tmp_path: Path) -> None:
    for name, last in (("video1", 6), ("video2", 7)):
        label(tmp_path, "train", name, 5)
        clip(tmp_path / f"{name}.mp4", 5)
        faces(tmp_path / "cropped_aligned" / name, [1, last])
    faces(tmp_path / "cropped_aligned" / "video3", 7)  # of the test set
    clip(tmp_path / "video3.mp4", 5)
    assert found(tmp_path) == [
        ("faces", "note", "faces beyond the last label (5): 1, up to 6"),
        ("faces", "error", "faces beyond the last label (5): 1, up to 7"),
        ("faces", "error", "faces beyond the last frame (5): 2, up to 7"),
    ]


def test_faces_that_are_not_there(tmp_path: Path) -> None:
    for name in ("video1", "video2", "video3"):
        label(tmp_path, "train", name, 5)
    clip(tmp_path / "video1.mp4", 5)
    clip(tmp_path / "video2.mp4", 5)
    for name in ("video2", "video3"):
        (tmp_path / "cropped_aligned" / name).mkdir(parents=True)
    assert found(tmp_path) == [
        ("faces", "note", "no folder of faces"),
        ("faces", "note", "no faces in their folder"),
        ("media", "note", "no media file video3"),
        ("faces", "error", "no faces in their folder"),
    ]


def test_pictures_that_are_none(tmp_path: Path) -> None:
    whole(tmp_path, "video1", 9)
    folder = tmp_path / "cropped_aligned" / "video1"
    good = (folder / "00002.jpg").read_bytes()
    for number in (3, 4, 6, 8):
        write(folder / f"{number:05d}.jpg")
    write(folder / "00001.jpg", b"no picture at all")
    write(folder / "00005.jpg", good[: len(good) // 2])
    (folder / "00007.jpg").unlink()
    (folder / "00007.jpg").symlink_to("nowhere.jpg")
    assert found(tmp_path) == [
        ("faces", "error", "empty or out of reach: 5 (00003.jpg, 00004.jpg, 00006.jpg, ...)"),
        ("faces", "error", "not decoded, of 3 sampled: 2 (00001.jpg, 00005.jpg)"),
    ]


def test_strange_file_names(tmp_path: Path) -> None:
    whole(tmp_path, "video1")
    folder = tmp_path / "cropped_aligned" / "video1"
    for name in ("1.jpg", "00000.jpg", "00002.png", "zz\nz", ".DS_Store", "._00001.jpg"):
        write(folder / name)
    ((kind, severity, detail),) = found(tmp_path)
    assert (kind, severity) == ("names", "note")
    assert detail == "files of faces not named %05d.jpg: 4 (00000.jpg, 00002.png, 1.jpg, ...)"


# --- the corpus as a whole ----------------------------------------------------------------------


def test_names_in_two_splits(tmp_path: Path) -> None:
    whole(tmp_path, "video1")
    label(tmp_path, "val", "video1", 5)
    whole(tmp_path, "video2")
    label(tmp_path, "val", "video2_right", 5)
    faces(tmp_path / "cropped_aligned" / "video2_right", 5)
    faces(tmp_path / "cropped_aligned" / "video2_left", 5)  # of the test set
    assert check(tmp_path) == [
        Finding("video1", "split", "error", "labels in train and val"),
        Finding(
            *("video2", "split", "note"),
            "may show the same people: video2 (train), video2_right (val)",
        ),
    ]


def test_a_split_without_labels_and_what_was_passed_over(tmp_path: Path) -> None:
    whole(tmp_path, "video1")
    (tmp_path / "old.mp4").symlink_to("nowhere.mp4")
    passed = Finding("", "names", "note", f"{tmp_path / 'old.mp4'} was passed over: a broken link")
    assert check(tmp_path) == [MISSING, passed]


@pytest.mark.skipif(os.name != "posix", reason="file names are text there")
def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / CHALLENGE / "Train_Set")
    os.makedirs(folder)  # noqa: PTH103 - bytes
    try:
        Path(os.fsdecode(folder + b"/caf\xe9.txt")).write_text("no labels")
    except OSError:
        pytest.skip("this file system takes text only")
    findings = check(tmp_path)
    assert findings[0].video == "caf?"
    for finding in findings:
        f"{finding.video} {finding.detail}".encode()


def test_a_folder_of_faces_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole(tmp_path, "video1")
    closed, scandir = tmp_path / "cropped_aligned" / "video1", os.scandir

    def guarded(path: Path) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert found(tmp_path) == [("faces", "error", f"{closed}: Permission denied")]


# --- summary ------------------------------------------------------------------------------------


def test_summary(tmp_path: Path) -> None:
    whole(tmp_path, "video1", 50)
    label(tmp_path, "train", "video1_left", 50)
    rows = "0.5,0.5\n" * 15 + "-5,-5\n" * 3 + "0,2\n" * 2
    write(label(tmp_path, "val", "video2"), f"valence,arousal\n{rows}")
    write(label(tmp_path, "val", "video3"), "no labels")
    clip(tmp_path / "video4.mp4", 25)
    result = summary(read_corpus(tmp_path))
    assert list(result) == ["train", "val", "test"]
    assert result["train"] == {
        **{"videos": 2, "frames": 100, "valid_share": 1.0},
        "minutes": pytest.approx(2 / 60, abs=0.1 / 60),  # two persons of one video of 2 s
    }
    assert result["val"] == {"videos": 2, "frames": 20, "valid_share": 0.75, "minutes": None}
    test = result["test"]
    assert (test["videos"], test["frames"], test["valid_share"]) == (1, None, None)
    assert test["minutes"] == pytest.approx(1 / 60, abs=0.1 / 60)


def test_summary_of_nothing() -> None:
    assert summary([]) == {}
