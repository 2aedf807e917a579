"""Times of frames against decoding; face crops against OpenCV and the crops of inference."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven import media
from maven.datasets import frames
from maven.datasets.affwild2 import CorpusError, Video
from maven.datasets.frames import (
    crops_hash,
    crops_of,
    frame_notes,
    frame_times,
    packet_times,
    read_crop,
    stretched,
)
from maven.encoders.faces import CROP_PX
from maven.faces.crop import TEMPLATE_PX, crop
from media_factory import clicks, write_clip

Image = npt.NDArray[np.uint8]

ODD_CLIPS = (
    *("face_then_no_face.mov", "no_face.mp4", "six_faces_360p.mp4", "talk_face1_22fps.mp4"),
    *("grid_s1_bbaf2n.mpg", "talk_ntsc_2997.mp4", "three_faces_720p.avi"),
)
ODD_TIMES_S = (0.5, 0.53, 0.6, 0.61, 0.7, 0.9, 1.0, 1.4, 1.45, 1.5, 1.6, 1.62)


def decoded_times(path: Path) -> list[float]:
    return [frame.time_s for frame in media.frames(path)]


# --- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_CLIPS)
def test_times_of_real_clips_are_those_of_decoding(clips_dir: Path, name: str) -> None:
    times_s = frame_times(clips_dir / name)
    assert times_s is not None
    np.testing.assert_allclose(times_s, decoded_times(clips_dir / name), rtol=0, atol=1e-9)
    assert (packet_times(clips_dir / name) is None) == name.endswith(".avi")  # reordered pictures


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mov", "mpeg4")]
)
def test_times_come_from_packets_in_their_order_of_showing(
    tmp_path: Path, name: str, codec: str
) -> None:
    times_s = [k / 25 for k in range(1, 13)] if codec == "mpeg4" else ODD_TIMES_S
    path = write_clip(tmp_path / name, frame_times_s=times_s, video_codec=codec)
    found = packet_times(path)
    assert found is not None
    np.testing.assert_allclose(found, decoded_times(path), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found, times_s, atol=1e-3)


def test_avi_with_reordered_pictures_is_decoded(tmp_path: Path) -> None:
    times_s = [k / 25 for k in range(20)]
    options = {"bf": "2"}
    path = write_clip(tmp_path / "a.avi", frame_times_s=times_s, video_options=options)
    assert packet_times(path) is None
    np.testing.assert_array_equal(frame_times(path), decoded_times(path))


def test_avi_in_order_is_not(tmp_path: Path) -> None:
    times_s = [k / 25 for k in range(20)]
    path = write_clip(tmp_path / "a.avi", frame_times_s=times_s, video_codec="mpeg4")
    np.testing.assert_array_equal(packet_times(path), decoded_times(path))


def test_a_count_that_does_not_fit_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", frame_times_s=ODD_TIMES_S)
    decoded = []
    monkeypatch.setattr(
        frames.media, "frames", lambda path: decoded.append(path) or iter(()), raising=True
    )
    for count in (None, 11, 12, 13):
        frame_times(path, count)
    assert decoded == []
    frame_times(path, 14)
    assert decoded == [path]


def test_a_restarting_clock_is_decoded(tmp_path: Path) -> None:
    """Two recordings in one transport stream: the clock of the second begins anew."""
    times_s = [2 + k / 25 for k in range(50)]
    first = write_clip(tmp_path / "1.ts", frame_times_s=times_s)
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() * 2)
    assert packet_times(path) is None
    np.testing.assert_array_equal(frame_times(path), decoded_times(path))


def test_sound_has_no_frames(tmp_path: Path) -> None:
    assert frame_times(write_clip(tmp_path / "a.mp4", sound=clicks([0.1], 0.5))) is None


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("text")
    with pytest.raises(media.MediaError, match=r"a\.mp4"):
        frame_times(tmp_path / "a.mp4")


@given(st.lists(st.floats(1e-3, 2.0), max_size=20), st.integers(0, 40))
def test_times_are_cut_or_carried_on(steps_s: list[float], count: int) -> None:
    times_s = np.cumsum(steps_s)
    out = stretched(times_s, count)
    assert out.shape == (count,)
    assert (np.diff(out) > 0).all()
    common = min(count, len(times_s))
    np.testing.assert_array_equal(out[:common], times_s[:common])
    if common > 1:
        period_s = np.median(np.diff(times_s))
        np.testing.assert_allclose(np.diff(out[len(times_s) - 1 :]), period_s)
    if not len(times_s):
        np.testing.assert_array_equal(out, stretched(None, count))
        np.testing.assert_allclose(out * 30, np.arange(count))


@pytest.mark.parametrize(
    ("held", "count", "said"),
    [
        (0, 5, "index / 30 Hz"),
        (5, 5, ""),
        (4, 5, ""),
        (6, 5, ""),
        (3, 5, "5 frames are asked for, the media holds 3: the last times are extrapolated"),
        (7, 5, "5 frames are asked for, the media holds 7: the rest is left out"),
    ],
)
def test_what_is_said_of_times(held: int, count: int, said: str) -> None:
    notes = frame_notes(held, count)
    assert len(notes) == (said != "")
    assert all(said in note for note in notes)


# --- crops -----------------------------------------------------------------------------------


@pytest.fixture
def picture() -> Image:
    """A smooth picture in colours, (240, 240, 3) RGB."""
    small = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8)
    return np.asarray(cv2.resize(small, (240, 240), interpolation=cv2.INTER_CUBIC), np.uint8)


def write_jpg(path: Path, rgb: Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = [cv2.IMWRITE_JPEG_QUALITY, 100]
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]), flags)
    return path


def test_a_crop_of_its_own_size_is_taken_as_it_is(tmp_path: Path, picture: Image) -> None:
    path = write_jpg(tmp_path / "1.jpg", picture[:112, :112])
    image = read_crop(path, 112)
    stored = cv2.imread(str(path))
    assert image is not None
    assert stored is not None
    np.testing.assert_array_equal(image, stored[..., ::-1])


@pytest.mark.parametrize("stored_px", [112, 224])
@pytest.mark.parametrize("size_px", [CROP_PX, 112, 224])
def test_a_crop_is_what_inference_cuts_out_of_the_frame(
    tmp_path: Path,
    picture: Image,
    stored_px: int,
    size_px: int,
) -> None:
    landmarks_px = TEMPLATE_PX + np.array((50, 40))
    path = write_jpg(tmp_path / "1.jpg", crop(picture, landmarks_px, stored_px))
    image = read_crop(path, size_px)
    wanted = crop(picture, landmarks_px, size_px)
    assert image is not None
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).mean() < 2.5


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "end only", "folder"])
def test_what_is_no_picture_is_no_face(tmp_path: Path, picture: Image, damage: str) -> None:
    path = write_jpg(tmp_path / "1.jpg", picture[:112, :112])
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        content = {"empty": b"", "text": b"no", "cut": whole[: len(whole) // 2]}
        path.write_bytes(content.get(damage, b"x" * 40 + b"\xff\xd9"))
    assert read_crop(path, CROP_PX) is None
    assert isinstance(crops_hash([(1, path)]), str)


def test_crops_are_listed_by_number(tmp_path: Path) -> None:
    folder = tmp_path / "video5"
    folder.mkdir()
    for name in ("00010.jpg", "00002.jpg", "100000.jpg", "00000.jpg", "a.jpg", ".DS_Store"):
        (folder / name).write_bytes(b"")
    crops = crops_of(Video("video5", "train", None, None, folder))
    assert [(number, path.name) for number, path in crops] == [
        (2, "00002.jpg"),
        (10, "00010.jpg"),
        (100000, "100000.jpg"),
    ]
    assert crops_of(Video("video5", "train", None, None, None)) == []
    with pytest.raises(CorpusError, match="video6"):
        crops_of(Video("video6", "train", None, None, tmp_path / "video6"))


def test_the_hash_is_of_numbers_and_contents_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "1.jpg", tmp_path / "2.jpg"
    one.write_bytes(b"one")
    other.write_bytes(b"two")
    whole = crops_hash([(1, one), (2, other)])
    os.utime(one, (0, 0))
    assert crops_hash([(1, one), (2, other)]) == whole
    assert crops_hash([(1, one), (3, other)]) != whole
    assert crops_hash([(2, one), (1, other)]) != whole
    assert crops_hash([(1, one)]) != whole
    other.write_bytes(b"twi")  # the same size
    assert crops_hash([(1, one), (2, other)]) != whole
