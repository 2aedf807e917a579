"""Alignment: the similarity against least squares, the crop against known pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from maven.faces.crop import TEMPLATE_PX, crop, similarity
from maven.faces.detect import CenterFace
from maven.media import frames

ANGLES_RAD = st.floats(-np.pi, np.pi)
SHIFTS_PX = st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000))
POINTS_PX = st.lists(
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=5, max_size=5
).map(np.array)


def matrix_of(angle_rad: float, scale: float, shift_px: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(angle_rad), scale * np.sin(angle_rad)
    return np.array([[c, -s, shift_px[0]], [s, c, shift_px[1]]])


def apply(matrix: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    return points_px @ matrix[:, :2].T + matrix[:, 2]


def least_squares(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """x' = a x - b y + c, y' = b x + a y + d, by numpy's solver."""
    rows = [[x, -y, 1, 0] for x, y in src] + [[y, x, 0, 1] for x, y in src]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.concatenate([dst[:, 0], dst[:, 1]]))[0]
    return np.array([[a, -b, c], [b, a, d]])


def landmarks_at(
    centre_px: tuple[float, float], eyes_px: float, angle_rad: float = 0.0
) -> np.ndarray:
    """The template's landmarks around a place, `eyes_px` between the eyes."""
    centred = TEMPLATE_PX - TEMPLATE_PX.mean(axis=0)
    scale = eyes_px / np.linalg.norm(TEMPLATE_PX[1] - TEMPLATE_PX[0])
    return apply(matrix_of(angle_rad, scale, centre_px), centred)


def expected_px(size_px: int) -> np.ndarray:
    """The template in a crop of another size: edges scale, centres are half a pixel in."""
    return (TEMPLATE_PX + 0.5) * size_px / 112 - 0.5


@given(ANGLES_RAD, st.floats(0.05, 20), SHIFTS_PX)
def test_similarity_recovers_a_transform(angle_rad, scale, shift_px):
    matrix = matrix_of(angle_rad, scale, shift_px)
    recovered = similarity(TEMPLATE_PX, apply(matrix, TEMPLATE_PX))
    np.testing.assert_allclose(recovered, matrix, atol=1e-6)


@given(POINTS_PX, POINTS_PX)
def test_similarity_is_least_squares_and_never_mirrors(src, dst):
    assume(src.std(axis=0).min() > 1)
    try:
        matrix = similarity(src, dst)
    except ValueError:
        assume(False)
    np.testing.assert_allclose(matrix, least_squares(src, dst), atol=1e-6, rtol=1e-6)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 7.0),
        np.full((5, 2), np.nan),
        np.where(np.arange(10).reshape(5, 2) == 3, np.inf, TEMPLATE_PX),
        np.full((5, 2), 1e6) + np.arange(10).reshape(5, 2) * 1e-9,
    ],
)
def test_degenerate_landmarks(landmarks):
    with pytest.raises(ValueError, match="landmarks"):
        crop(np.zeros((50, 50, 3), np.uint8), landmarks)


def test_mirrored_points_fix_no_rotation():
    triangle = np.array([[1, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
    with pytest.raises(ValueError, match="mirror"):
        similarity(triangle, triangle * [1, -1])


def test_absurdly_large_landmarks_are_still_a_crop():
    found = crop(np.full((64, 64, 3), 9, np.uint8), TEMPLATE_PX * 1e5, 112)
    assert (found == 9).all()


@settings(max_examples=25, deadline=None)
@given(
    ANGLES_RAD,
    st.floats(15, 160),
    st.tuples(st.floats(180, 220), st.floats(180, 220)),
    st.sampled_from([48, 64, 112, 224]),
)
def test_landmarks_land_on_the_template(angle_rad, eyes_px, centre_px, size_px):
    landmarks = landmarks_at(centre_px, eyes_px, angle_rad)
    y, x = np.mgrid[:400, :400]
    radius_px = eyes_px / 12
    for k in range(5):
        distance = np.hypot(x - landmarks[k, 0], y - landmarks[k, 1])
        dot = np.clip(255 * np.exp(-((distance / radius_px) ** 2)), 0, 255)
        picture = np.repeat(dot[..., None].round().astype(np.uint8), 3, axis=2)
        weights = crop(picture, landmarks, size_px)[..., 1].astype(float)
        rows, columns = np.mgrid[:size_px, :size_px]
        found = [(columns * weights).sum(), (rows * weights).sum()] / weights.sum()
        np.testing.assert_allclose(found, expected_px(size_px)[k], atol=0.5)


@settings(max_examples=25, deadline=None)
@given(ANGLES_RAD, st.floats(4, 120), st.sampled_from([32, 64, 112]))
def test_a_gradient_is_sampled_where_the_similarity_says(angle_rad, eyes_px, size_px):
    landmarks = landmarks_at((300, 300), eyes_px, angle_rad)
    y, x = np.mgrid[:600, :600]
    picture = np.stack([x * 0.4, y * 0.4, (x + y) * 0.2], axis=2).round().astype(np.uint8)
    inverse = least_squares(expected_px(size_px), landmarks)
    rows, columns = np.mgrid[:size_px, :size_px]
    source = apply(inverse, np.stack([columns, rows], axis=-1).reshape(-1, 2))
    inside = ((source > 1) & (source < 598)).all(axis=1)
    expected = np.stack([source[:, 0], source[:, 1], source.mean(axis=1)], axis=1) * 0.4
    found = crop(picture, landmarks, size_px).reshape(-1, 3).astype(float)
    np.testing.assert_allclose(found[inside], expected[inside], atol=1.5)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_the_picture_changes_nothing(turns: int):
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (320, 320), interpolation=cv2.INTER_CUBIC)
    landmarks = landmarks_at((150, 170), 60, 0.2)
    turned = landmarks
    for _ in range(turns):  # rot90 takes the pixel (x, y) to (y, 319 - x)
        turned = np.stack([turned[:, 1], 319 - turned[:, 0]], axis=1)
    upright = crop(picture, landmarks).astype(int)
    again = crop(np.ascontiguousarray(np.rot90(picture, turns)), turned).astype(int)
    assert np.abs(upright - again).mean() < 0.5


def test_a_large_face_does_not_alias():
    rows, columns = np.mgrid[:900, :900]
    board = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    landmarks = landmarks_at((450, 450), 190, 0.1)
    fine = crop(board, landmarks, 64)
    assert fine.std() < 4
    assert fine.mean() == pytest.approx(127.5, abs=1)
    bilinear = cv2.warpAffine(board, similarity(landmarks, expected_px(64)), (64, 64))
    assert bilinear.std() > 20


@pytest.mark.parametrize("centre_px", [(0, 0), (63, 20), (-500, 900)])
def test_past_the_edge_the_last_pixels_are_repeated(centre_px):
    picture = np.full((64, 64, 3), (10, 20, 30), np.uint8)
    found = crop(picture, landmarks_at(centre_px, 30), 56)
    assert found.shape == (56, 56, 3)
    assert found.dtype == np.uint8
    assert (found == (10, 20, 30)).all()


@pytest.mark.parametrize(
    "name",
    [
        "expressive_audio_512.mp4",
        "grid_s1_bbaf2n.mpg",
        "silent_happy_256.mp4",
        "talk_face5_524.mp4",
        "talk_portrait_1080x1920.mp4",
    ],
)
def test_a_real_face_is_found_again_at_the_template(name: str, clips_dir: Path):
    detector = CenterFace()
    rgb = next(iter(frames(clips_dir / name))).rgb
    face = crop(rgb, detector(rgb)[0].landmarks_px, 224)
    again = detector(np.pad(face, ((112, 112), (112, 112), (0, 0)), mode="edge"))[0]
    errors_px = np.linalg.norm(again.landmarks_px - 112 - expected_px(224), axis=1)
    assert errors_px.mean() < 0.05 * 224


def test_a_mirrored_face_gets_the_mirrored_crop() -> None:
    rng = np.random.default_rng(0)
    frame = cv2.GaussianBlur(rng.integers(0, 256, (200, 240, 3), dtype=np.uint8), (0, 0), 3)
    landmarks_px = TEMPLATE_PX * 1.1 + (60, 30) + rng.normal(0, 2, (5, 2))
    mirrored_px = landmarks_px[[1, 0, 2, 4, 3]].copy()
    mirrored_px[:, 0] = frame.shape[1] - 1 - mirrored_px[:, 0]
    first = crop(frame, landmarks_px, 56)
    second = crop(np.ascontiguousarray(frame[:, ::-1]), mirrored_px, 56)[:, ::-1]
    assert np.abs(first.astype(int) - second).max() <= 2


def bilinear(rgb: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """Each point (n, 2) between its four pixels; past the edge the last pixels are repeated."""
    corner = np.floor(points_px).astype(int)
    x, y = (points_px - corner).T[..., None]
    last = np.array(rgb.shape[1::-1]) - 1

    def at(step_x: int, step_y: int) -> np.ndarray:
        columns, rows = np.clip(corner + np.array([step_x, step_y]), 0, last).T
        return rgb[rows, columns].astype(float)

    upper = at(0, 0) * (1 - x) + at(1, 0) * x
    lower = at(0, 1) * (1 - x) + at(1, 1) * x
    return upper * (1 - y) + lower * y


def with_opencv(rgb: np.ndarray, landmarks_px: np.ndarray, size_px: int) -> np.ndarray:
    """Drawn by OpenCV at so large a multiple that no pixel is skipped, then averaged down."""
    matrix = similarity(landmarks_px, expected_px(size_px))
    factor = max(1, int(np.ceil(1 / np.hypot(*matrix[:, 0]))))
    matrix = matrix * factor
    matrix[:, 2] += (factor - 1) / 2
    side = size_px * factor
    replicate = cv2.BORDER_REPLICATE
    large = cv2.warpAffine(rgb, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=replicate)
    return cv2.resize(large, (size_px, size_px), interpolation=cv2.INTER_AREA)


@settings(max_examples=50, deadline=None)
@given(
    ANGLES_RAD,
    st.floats(1.01, 3.0),
    st.tuples(st.floats(-10, 58), st.floats(-10, 58)),
    st.sampled_from([48, 56, 112]),
)
def test_a_face_no_larger_than_the_crop_is_interpolated(angle_rad, scale, centre_px, size_px):
    noise = np.random.default_rng(7).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    eyes_px = np.linalg.norm(TEMPLATE_PX[1] - TEMPLATE_PX[0]) * size_px / 112 / scale
    landmarks = landmarks_at(centre_px, eyes_px, angle_rad)
    rows, columns = np.mgrid[:size_px, :size_px]
    inverse = least_squares(expected_px(size_px), landmarks)
    exact = bilinear(noise, apply(inverse, np.stack([columns, rows], axis=-1).reshape(-1, 2)))
    found = crop(noise, landmarks, size_px).reshape(-1, 3)
    assert np.abs(found - exact).max() <= 1.01


@pytest.mark.parametrize("name", ["talk_portrait_1080x1920.mp4", "silent_happy_256.mp4"])
def test_a_large_face_is_averaged_as_by_opencv(name: str, clips_dir: Path):
    rgb = next(iter(frames(clips_dir / name))).rgb
    landmarks = CenterFace()(rgb)[0].landmarks_px
    found, expected = (f(rgb, landmarks, 56).astype(float) for f in (crop, with_opencv))
    assert np.abs(found - expected).mean() < 1
    assert abs(np.diff(found, axis=1).std() / np.diff(expected, axis=1).std() - 1) < 0.05
