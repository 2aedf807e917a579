"""Face detection: decoding against a written-out encoding, and real faces."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven.faces.detect import (
    CENTERFACE_PATH,
    MAX_OVERLAP,
    STRIDE_PX,
    CenterFace,
    Detection,
    DetectorError,
    Image,
    YuNet,
    decode,
    from_yunet,
    square_around,
    suppress,
)
from maven.media import frames

CLIPS = (
    "expressive_audio_512.mp4",
    "grid_s1_bbaf2n.mpg",
    "silent_fear_256.mp4",
    "talk_noisy_restaurant_720p.mp4",
    "talk_portrait_1080x1920.mp4",
)


@pytest.fixture(scope="module")
def centerface() -> CenterFace:
    return CenterFace()


@pytest.fixture(scope="module")
def pictures(clips_dir: Path) -> dict[str, Image]:
    """The first frame of a few clips with one face."""
    return {name: next(iter(frames(clips_dir / name))).rgb for name in CLIPS}


@given(
    st.integers(0, 9),
    st.integers(0, 13),
    st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=2),
    st.lists(st.floats(4, 300), min_size=2, max_size=2),
    st.lists(st.floats(-0.2, 1.2), min_size=10, max_size=10),
    st.floats(0.3, 1),
)
def test_decode_inverts_the_encoding(row, column, offset, size_px, relative, score):
    maps = [np.zeros((channels, 10, 14), np.float32) for channels in (1, 2, 2, 10)]
    width_px, height_px = size_px
    offset_y, offset_x = offset
    maps[0][0, row, column] = score
    maps[1][:, row, column] = np.log([height_px / 4, width_px / 4])
    maps[2][:, row, column] = offset_y, offset_x
    maps[3][:, row, column] = relative
    boxes, landmarks, scores = decode(*maps, min_score=0.3 - 1e-6)
    x = (column + 0.5 + offset_x) * STRIDE_PX - width_px / 2
    y = (row + 0.5 + offset_y) * STRIDE_PX - height_px / 2
    np.testing.assert_allclose(boxes, [[x, y, width_px, height_px]], rtol=1e-4, atol=1e-3)
    for k in range(5):
        expected = x + relative[2 * k + 1] * width_px, y + relative[2 * k] * height_px
        np.testing.assert_allclose(landmarks[0, k], expected, rtol=1e-4, atol=1e-2)
    assert scores == pytest.approx([score])


def test_decode_leaves_weak_cells_out():
    maps = [np.zeros((channels, 4, 4), np.float32) for channels in (1, 2, 2, 10)]
    maps[0][0, 1, 1], maps[0][0, 2, 2] = 0.29, 0.31
    boxes, landmarks, scores = decode(*maps, min_score=0.3)
    assert boxes.shape == (1, 4)
    assert landmarks.shape == (1, 5, 2)
    assert scores == pytest.approx([0.31])


@pytest.mark.parametrize("name", CLIPS)
def test_real_face(name: str, pictures: dict[str, Image], centerface: CenterFace):
    (face,) = centerface(pictures[name])
    assert face.score > 0.75
    assert face.box_px.dtype == face.landmarks_px.dtype == np.float32
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks_px
    assert left_eye[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    inside = (face.landmarks_px - face.box_px[:2]) / face.box_px[2:]
    assert ((inside > -0.1) & (inside < 1.1)).all()


def test_red_comes_first(pictures: dict[str, Image], centerface: CenterFace):
    def mean_score(order: slice) -> float:
        return np.mean([centerface(rgb[..., order])[0].score for rgb in pictures.values()])

    assert mean_score(slice(None)) > mean_score(slice(None, None, -1)) + 0.01


def test_boxes_follow_the_picture(pictures: dict[str, Image], centerface: CenterFace):
    rgb = pictures["silent_fear_256.mp4"]
    (face,) = centerface(rgb)
    (double,) = centerface(rgb.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_allclose(double.box_px, 2 * face.box_px, atol=0.05 * double.box_px[2])
    (mirrored,) = centerface(np.ascontiguousarray(rgb[:, ::-1]))
    flipped = mirrored.landmarks_px[[1, 0, 2, 4, 3]] * [-1, 1] + [rgb.shape[1] - 1, 0]
    np.testing.assert_allclose(flipped, face.landmarks_px, atol=0.1 * face.box_px[2])


def test_best_face_first_and_one_per_person(clips_dir: Path, centerface: CenterFace):
    rgb = next(iter(frames(clips_dir / "interview_two_faces_720p.mp4"))).rgb
    scores = [face.score for face in centerface(rgb)]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)


def as_found_near(rgb: Image, face: Detection, centerface: CenterFace) -> Detection:
    shifted = face.box_px + np.array([0.2, -0.1, 0, 0], np.float32) * face.box_px[2]
    (near,) = centerface.near(rgb, [shifted])
    return near


@pytest.mark.parametrize("name", CLIPS)
def test_looking_near_a_face_finds_the_same(
    name: str, pictures: dict[str, Image], centerface: CenterFace
):
    (face,) = centerface(pictures[name])
    near = as_found_near(pictures[name], face, centerface)
    errors = (near.landmarks_px - face.landmarks_px) / face.box_px[2]
    assert np.abs(errors).mean() < 0.03
    np.testing.assert_allclose(near.box_px, face.box_px, atol=0.15 * face.box_px[3])
    assert near.score > 0.6


def test_looking_near_one_of_two(clips_dir: Path, centerface: CenterFace):
    rgb = next(iter(frames(clips_dir / "interview_two_faces_720p.mp4"))).rgb
    for face in centerface(rgb):
        near = as_found_near(rgb, face, centerface)
        assert np.abs(near.box_px - face.box_px).max() < 0.2 * face.box_px[3]
    boxes_px = [face.box_px for face in centerface(rgb)]
    both = centerface.near(rgb, [*boxes_px, boxes_px[0] + np.float32(10)])  # each once
    assert len(both) == 2
    assert both[0].score >= both[1].score


@pytest.mark.parametrize("box", [(-90, -90, 40, 40), (5000, 0, 30, 30), (0, 0, 1e-3, 1e-3)])
def test_near_nothing(box: tuple[float, ...], centerface: CenterFace):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert centerface.near(noise, [np.array(box, np.float32)]) == []
    assert centerface.near(noise, []) == []


def test_a_face_on_the_edge_of_the_square_is_left_out(
    pictures: dict[str, Image], centerface: CenterFace
):
    rgb = pictures["talk_noisy_restaurant_720p.mp4"]
    (face,) = centerface(rgb)
    aside = face.box_px + np.array([1, 0, 0, 0], np.float32) * face.box_px[3]
    low, _ = square_around(aside)
    assert face.box_px[0] < low[0] < face.box_px[0] + face.box_px[2]
    assert centerface.near(rgb, [aside]) == []


@given(st.data())
def test_suppression_against_opencv(data: st.DataObject):
    number = st.floats(0, 100, width=32)
    count = data.draw(st.integers(0, 12))
    rows = data.draw(st.lists(st.tuples(*[number] * 4), min_size=count, max_size=count))
    boxes_px = np.array(rows, np.float32).reshape(-1, 4) + np.array([0, 0, 5, 5], np.float32)
    scores = np.random.default_rng(count).permutation(np.linspace(0.35, 0.95, count))
    expected = cv2.dnn.NMSBoxes(boxes_px.tolist(), scores.tolist(), 0.3, MAX_OVERLAP)
    assert suppress(boxes_px, scores.astype(np.float32)) == list(expected)


def test_no_face(clips_dir: Path, centerface: CenterFace):
    assert centerface(next(iter(frames(clips_dir / "no_face.mp4"))).rgb) == []


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (3, 700), (700, 1), (33, 31)])
def test_tiny_frames(shape: tuple[int, int], centerface: CenterFace):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert centerface(noise) == []


def test_fingerprint_tells_settings_apart(centerface: CenterFace):
    others = [CenterFace(side_px=256).fingerprint, CenterFace(min_score=0.5).fingerprint]
    assert len({centerface.fingerprint, *others}) == 3
    assert centerface.fingerprint == CenterFace(threads=2).fingerprint


@pytest.mark.parametrize("make", [lambda p: CenterFace(path=p), YuNet])
def test_wrong_files_are_one_clear_line(make, tmp_path: Path):
    text = tmp_path / "model.onnx"
    text.write_text("not a network")
    for path in (tmp_path / "missing.onnx", tmp_path, text):
        with pytest.raises(DetectorError) as caught:
            make(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_centerface_is_not_a_yunet():
    with pytest.raises(DetectorError, match="YuNet"):
        YuNet(CENTERFACE_PATH)


def test_another_network_is_not_centerface():
    silero = importlib.util.find_spec("silero_vad")
    assert silero is not None
    path = Path(silero.origin or "").parent / "data" / "silero_vad.onnx"
    with pytest.raises(DetectorError, match="not CenterFace"):
        CenterFace(path=path)


def test_yunet_rows():
    rows = np.array(
        [
            [10, 20, 30, 40, *range(1, 11), 0.6],
            [50, 60, 70, 80, *range(11, 21), 0.9],
        ],
        np.float32,
    )
    first, second = from_yunet(rows, scale=0.5)
    assert (first.score, second.score) == pytest.approx((0.9, 0.6))
    np.testing.assert_array_equal(first.box_px, [100, 120, 140, 160])
    np.testing.assert_array_equal(
        second.landmarks_px, [[2, 4], [6, 8], [10, 12], [14, 16], [18, 20]]
    )
    assert from_yunet(None, scale=1.0) == []


def test_import_is_cheap():
    code = (
        "import sys, maven.faces.detect, maven.faces.track, maven.faces.crop\n"
        "print({'cv2', 'onnxruntime', 'torch', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_faces_need_no_opencv_and_yunet_says_so():
    code = """
import sys
sys.modules["cv2"] = None
import numpy as np
from maven.faces.crop import TEMPLATE_PX, crop
from maven.faces.detect import CenterFace, DetectorError, YuNet
from maven.faces.track import track_faces
from maven.media import Frame
frames = [Frame(k, k / 25, np.zeros((90, 160, 3), np.uint8)) for k in range(3)]
print(len(list(track_faces(frames, CenterFace()))), crop(frames[0].rgb, TEMPLATE_PX).shape)
try:
    YuNet("yunet.onnx")
except DetectorError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "3 (112, 112, 3)"
    assert second == "YuNet needs OpenCV: pip install opencv-python-headless"
