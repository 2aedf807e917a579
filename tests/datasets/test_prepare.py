"""What is prepared: storage, trimming, alignment by the detector, whole files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from maven.datasets import prepare
from maven.datasets.corpora import Faces, Utterance, read_faces, read_speech
from maven.datasets.prepare import (
    MARGIN_FRAMES,
    MEL_STEP,
    MEL_ZERO,
    prepare_faces,
    prepare_speech,
    restore_mel,
    save,
)
from maven.encoders.faces import CROP_PX
from maven.encoders.voices import log_mel, mel_filters
from maven.faces.crop import TEMPLATE_PX, TEMPLATE_SIDE_PX
from maven.faces.detect import CenterFace
from maven.media import AUDIO_RATE_HZ, read_audio
from media_factory import write_clip


def utterance(path: Path) -> Utterance:
    return Utterance(path, "happy", (0.8, 0.5), "someone", "female", "train")


def burst(before_s: float, loud_s: float, after_s: float) -> np.ndarray:
    """A faint hiss with a loud buzz in it: (1, n) float32 at 16 kHz."""
    random = np.random.default_rng(0)
    n = round((before_s + loud_s + after_s) * AUDIO_RATE_HZ)
    sound = random.normal(0, 1e-3, n)
    first, stop = round(before_s * AUDIO_RATE_HZ), round((before_s + loud_s) * AUDIO_RATE_HZ)
    sound[first:stop] += 0.3 * random.normal(size=stop - first)
    return sound[None].astype(np.float32)


def write_flac(path: Path, sound: np.ndarray) -> Path:
    return write_clip(path, sound=sound, sound_rate_hz=AUDIO_RATE_HZ, sound_codec="flac")


# --- speech ------------------------------------------------------------------------------------


def test_mels_survive_their_storage() -> None:
    random = np.random.default_rng(0)
    mel = random.uniform(-MEL_ZERO * MEL_STEP, (255 - MEL_ZERO) * MEL_STEP, (500, 64))
    stored = (mel / MEL_STEP + MEL_ZERO).round().clip(0, 255).astype(np.uint8)
    assert np.abs(restore_mel(stored) - mel).max() <= MEL_STEP / 2 + 1e-6
    assert restore_mel(stored).dtype == np.float32


def test_speech_is_trimmed_to_its_loud_part(tmp_path: Path) -> None:
    clips = [burst(1.0, 0.8, 0.7), burst(0.0, 0.5, 0.0), burst(0.1, 1.2, 2.0)]
    paths = [write_flac(tmp_path / f"{k}.flac", clip) for k, clip in enumerate(clips)]
    seen: list[tuple[int, int]] = []
    mels, bounds = prepare_speech(
        [utterance(path) for path in paths], lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert mels.dtype == np.uint8
    assert bounds[0] == 0
    assert bounds[-1] == len(mels)
    lengths = np.diff(bounds)
    np.testing.assert_allclose(lengths, (80 + 2 * MARGIN_FRAMES, 50, 10 + 120 + 20), atol=5)

    for k, path in enumerate(paths):  # the loud part is whole, and where it should be
        sound = read_audio(path)
        assert sound is not None
        whole = log_mel(torch.from_numpy(sound.samples), mel_filters()).T.numpy()
        kept = restore_mel(mels[bounds[k] : bounds[k + 1]])
        loud = whole.max(1) > whole.max() - 6
        assert (kept.max(1) > whole.max() - 6 - MEL_STEP).sum() >= loud.sum()
        first = max(int(np.flatnonzero(whole.max(1) > whole.max() - prepare.SILENCE)[0]) - 20, 0)
        stored = whole[first : first + len(kept)]
        assert np.abs(kept - stored).max() <= MEL_STEP / 2 + 1e-5


def test_no_speech() -> None:
    mels, bounds = prepare_speech([])
    assert mels.shape == (0, 64)
    assert bounds.tolist() == [0]


def test_real_speech(data_dir: Path) -> None:
    everyone = read_speech(data_dir)
    some = [everyone[0], everyone[-1]]  # nEMO in Opus, RAVDESS in FLAC
    mels, bounds = prepare_speech(some)
    lengths = np.diff(bounds)
    assert (lengths > 80).all()
    for k, clip in enumerate(some):
        sound = read_audio(clip.path)
        assert sound is not None
        assert lengths[k] <= len(sound.samples) // 160
        kept = restore_mel(mels[bounds[k] : bounds[k + 1]])
        whole = log_mel(torch.from_numpy(sound.samples), mel_filters()).numpy()
        energy = np.exp(kept).sum() / np.exp(whole).sum()
        assert energy == pytest.approx(1, abs=0.05)


# --- faces -------------------------------------------------------------------------------------


def landmarks_in(crop: np.ndarray) -> np.ndarray | None:
    """Where the detector sees the landmarks in a crop (56, 56), in its pixels, (5, 2)."""
    side, border = 224, 40
    large = cv2.resize(crop, (side, side), interpolation=cv2.INTER_CUBIC)
    large = cv2.copyMakeBorder(large, *[border] * 4, cv2.BORDER_REPLICATE)
    found = CenterFace(side_px=side + 2 * border)(np.repeat(large[:, :, None], 3, 2))
    if not found:
        return None
    scale = side / CROP_PX
    return np.asarray((found[0].landmarks_px - border + 0.5) / scale - 0.5)


def test_real_faces_are_aligned(data_dir: Path) -> None:
    faces = read_faces(data_dir)
    some = Faces(faces.images[:24], faces.emotions[:24], faces.splits[:24])
    seen: list[tuple[int, int]] = []
    crops = prepare_faces(some, lambda done, total: seen.append((done, total)))
    assert crops.shape == (24, CROP_PX, CROP_PX)
    assert crops.dtype == np.uint8
    assert seen[-1] == (24, 24)
    template = (TEMPLATE_PX + 0.5) * CROP_PX / TEMPLATE_SIDE_PX - 0.5
    found = [landmarks for crop in crops if (landmarks := landmarks_in(crop)) is not None]
    assert len(found) > 15
    away = np.stack(found) - template  # (n, 5, 2)
    assert np.abs(np.median(away, 0)).max() < 2.5  # in pixels; the eyes are 18 apart
    assert np.median(np.linalg.norm(away[:, :2], axis=2)) < 2.5


def likeness(pictures: np.ndarray, others: np.ndarray) -> float:
    """Median correlation of pictures (n, h, w) with others."""
    flat = np.stack((pictures, others)).reshape(2, len(pictures), -1).astype(np.float64)
    centred = flat - flat.mean(2, keepdims=True)
    products = (centred[0] * centred[1]).sum(1)
    return float(np.median(products / np.linalg.norm(centred, axis=2).prod(0)))


def test_turned_faces_are_turned_back(data_dir: Path) -> None:
    """The same faces, tilted by 15 degrees, give nearly the same crops."""
    images = read_faces(data_dir).images[:21]
    images = images[images.std((1, 2)) > 1]  # some are blank
    turn = cv2.getRotationMatrix2D((23.5, 23.5), 15, 0.9)
    tilted = np.stack(
        [cv2.warpAffine(i, turn, (48, 48), borderMode=cv2.BORDER_REPLICATE) for i in images]
    )
    names = np.full(len(images), "happy")
    straight, again = (prepare_faces(Faces(i, names, names)) for i in (images, tilted))
    middle = np.s_[:, 14:46, 12:44]
    assert likeness(straight[middle], again[middle]) > 0.75
    assert (
        likeness(straight[middle], again[middle]) > likeness(images[middle], tilted[middle]) + 0.1
    )


def test_images_without_a_face_are_cut_at_the_mean_landmarks() -> None:
    """Five dots where the landmarks lie in the mean come to lie at the template."""
    image = np.full((1, 48, 48), 90, np.uint8)
    for x, y in prepare.MEAN_LANDMARKS:
        image[0, round(y * 48), round(x * 48)] = 255
    crops = prepare_faces(Faces(image, np.array(["happy"]), np.array(["train"])))
    bright = crops[0].astype(np.float64) - 90
    template = (TEMPLATE_PX + 0.5) * CROP_PX / TEMPLATE_SIDE_PX - 0.5
    rows, columns = np.mgrid[:CROP_PX, :CROP_PX]
    for x, y in template:
        near = bright * ((columns - x) ** 2 + (rows - y) ** 2 < 16)
        assert near.sum() > 50
        middle = np.array([(near * columns).sum(), (near * rows).sum()]) / near.sum()
        np.testing.assert_allclose(middle, (x, y), atol=1.5)


def test_no_images() -> None:
    faces = Faces(np.zeros((0, 48, 48), np.uint8), np.array([], str), np.array([], str))
    assert prepare_faces(faces).shape == (0, CROP_PX, CROP_PX)


# --- files -------------------------------------------------------------------------------------


def test_save_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "made" / "here" / "parts.npz"
    arrays = {"numbers": np.arange(5), "names": np.array(["a", "bb"])}
    save(path, **arrays)
    with np.load(path) as content:
        assert set(content) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(content[name], array)
    assert [p.name for p in path.parent.iterdir()] == ["parts.npz"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "parts.npz"
    save(path, numbers=np.arange(5))
    before = path.read_bytes()

    def break_off(file: Path, **_: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", break_off)
    with pytest.raises(OSError, match="disk full"):
        save(path, numbers=np.arange(6))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["parts.npz"]
