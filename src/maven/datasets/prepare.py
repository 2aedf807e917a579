"""Corpora -> what the mini encoders train on: aligned crops and log mels, as two .npz files.

Decoding and face detection happen once, here; training then needs neither. Faces go through the
detector and the crop code that inference uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maven.datasets.corpora import Faces, Utterance
from maven.encoders.faces import CROP_PX
from maven.encoders.voices import MEL_BINS, log_mel, mel_filters
from maven.files import whole
from maven.media import read_audio

Progress = Callable[[int, int], None]

UPSCALED_PX, BORDER_PX = 128, 32  # a 48 px face is too small and too tight for the detector
MIN_FACE_SCORE = 0.2
# Where the landmarks of the found faces lie in the mean, as a share of the image's side.
MEAN_LANDMARKS = (
    (0.327, 0.411), (0.672, 0.400), (0.499, 0.601), (0.375, 0.750), (0.652, 0.741),
)  # fmt: skip
MEL_STEP, MEL_ZERO = 0.25, 128  # log mels are stored as uint8 in steps of 1 dB
SILENCE = 9.0  # log power under the clip's loudest frame: leading and trailing silence
MARGIN_FRAMES = 20


def prepare_faces(faces: Faces, progress: Progress | None = None) -> npt.NDArray[np.uint8]:
    """Align every image by its own landmarks, or the mean ones where none are found.

    Returns:
        (n, 56, 56) grey crops.
    """
    import cv2

    from maven.faces.crop import crop
    from maven.faces.detect import CenterFace

    detect = CenterFace(side_px=UPSCALED_PX + 2 * BORDER_PX, min_score=MIN_FACE_SCORE)
    crops = np.empty((len(faces.images), CROP_PX, CROP_PX), np.uint8)
    for k, image in enumerate(faces.images):
        scale = UPSCALED_PX / image.shape[0]
        large = cv2.resize(image, (UPSCALED_PX, UPSCALED_PX), interpolation=cv2.INTER_CUBIC)
        around = (BORDER_PX, BORDER_PX, BORDER_PX, BORDER_PX)
        large = cv2.copyMakeBorder(large, *around, cv2.BORDER_REPLICATE)
        found = detect(np.repeat(large[:, :, None], 3, 2))
        landmarks_px = np.array(MEAN_LANDMARKS) * image.shape[0]
        if found:
            landmarks_px = (found[0].landmarks_px - BORDER_PX + 0.5) / scale - 0.5
        crops[k] = crop(np.repeat(image[:, :, None], 3, 2), landmarks_px, CROP_PX)[:, :, 0]
        if progress:
            progress(k + 1, len(crops))
    return crops


def prepare_speech(
    utterances: Sequence[Utterance], progress: Progress | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Decode every clip to log mels, trim its silent ends and store them in steps of 1 dB.

    Returns:
        mels (frames of all clips, 64) uint8 and the clips' bounds in it (n + 1,).
    """
    import torch

    filters = mel_filters()
    mels: list[npt.NDArray[np.uint8]] = []
    bounds = [0]
    for k, utterance in enumerate(utterances):
        sound = read_audio(utterance.path)
        assert sound is not None, utterance.path
        mel = log_mel(torch.from_numpy(sound.samples), filters).T.numpy()  # (t, 64)
        power = mel.max(1)
        loud = np.flatnonzero(power > power.max() - SILENCE)
        mel = mel[max(loud[0] - MARGIN_FRAMES, 0) : loud[-1] + MARGIN_FRAMES]
        mels.append((mel / MEL_STEP + MEL_ZERO).round().clip(0, 255).astype(np.uint8))
        bounds.append(bounds[-1] + len(mel))
        if progress:
            progress(k + 1, len(utterances))
    return np.concatenate([np.zeros((0, MEL_BINS), np.uint8), *mels]), np.array(bounds)


def restore_mel(stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Undo the storage of log mels, any shape."""
    return (stored.astype(np.float32) - MEL_ZERO) * MEL_STEP


def save(path: Path, **arrays: npt.NDArray[np.generic]) -> None:
    """Write arrays to an .npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
