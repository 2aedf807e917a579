"""What faces and voices may look and sound like: random changes for training, on tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from maven.encoders.faces import CROP_PX, FACE_PX
from maven.encoders.voices import FLOOR, MEL_BINS


def augment_faces(faces: Tensor, side_px: int = FACE_PX) -> Tensor:
    """Turn, scale, mirror, blur, sharpen, relight and cover faces (n, 1, 56, 56).

    Returns:
        (n, 1, side_px, side_px): the part that the network sees, at this size.
    """
    n, device = len(faces), faces.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape, device=device).uniform_(low, high)

    angle, scale = uniform(-0.22, 0.22), uniform(0.88, 1.12) * FACE_PX / CROP_PX
    mirror = uniform(-1, 1).sign()
    matrix = torch.stack(
        (
            torch.stack(
                (mirror * scale * angle.cos(), -scale * angle.sin(), uniform(-0.09, 0.09)), 1
            ),
            torch.stack(
                (mirror * scale * angle.sin(), scale * angle.cos(), uniform(-0.02, 0.16)), 1
            ),
        ),
        1,
    )
    grid = F.affine_grid(matrix, [n, 1, side_px, side_px], align_corners=False)
    faces = F.grid_sample(faces, grid, padding_mode="border", align_corners=False)
    # -1 sharpens (a camera's faces are crisper than those of the corpus), 1 halves the resolution.
    small = F.interpolate(faces, scale_factor=0.5, mode="area")
    small = F.interpolate(small, size=side_px, mode="bilinear", align_corners=False)
    blur = (uniform(0, 1, 1, 1, 1) < 0.5) * uniform(-0.7, 1, 1, 1, 1)
    faces = faces + blur * (small - faces)
    small = F.interpolate(faces, scale_factor=0.25, mode="area")
    small = F.interpolate(small, size=side_px, mode="bilinear", align_corners=False)
    blur = (uniform(0, 1, 1, 1, 1) < 0.1) * uniform(0, 0.8, 1, 1, 1)
    faces = faces + blur * (small - faces)
    mean = faces.mean((1, 2, 3), keepdim=True)
    faces = mean + (faces - mean) * uniform(0.5, 1.5, 1, 1, 1)
    ramp = torch.linspace(-1, 1, side_px, device=device)
    faces = (
        faces + uniform(-0.15, 0.15, 1, 1, 1) * ramp + uniform(-0.1, 0.1, 1, 1, 1) * ramp[:, None]
    )
    faces = faces + torch.randn_like(faces) * uniform(0, 0.04, 1, 1, 1)
    size = uniform(0.125, 0.375, 1, 1) * side_px
    row, column = uniform(0, side_px, 1, 1), uniform(0, side_px, 1, 1)
    index = torch.arange(side_px, device=device, dtype=torch.float32)
    inside = ((index - row).abs() < size / 2).transpose(1, 2) & ((index - column).abs() < size / 2)
    covered = (inside & (uniform(0, 1, 1, 1) < 0.4))[:, None]
    return torch.where(covered, faces.mean((1, 2, 3), keepdim=True), faces)


def augment_voices(mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Cut to 1.0-2.4 s, hasten, retune, reverberate, add noise to and mask log mels (n, 64, t)."""
    n, bins, total = mel.shape
    device = mel.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape, device=device).uniform_(low, high)

    frames = int(torch.randint(100, min(total, 240) + 1, ()))
    start = (uniform(0, 1) * (lengths - frames).clamp_min(0)).long()
    pace = uniform(0.88, 1.14, 1)
    index = start[:, None] + (torch.arange(frames, device=device) * pace).long()
    mel = mel.gather(2, index.clamp_max(total - 1)[:, None].expand(n, bins, frames))
    lengths = ((lengths - start) / pace[:, 0]).long().clamp(1, frames)
    # Pitch and formants: bins stretched by up to 14 % about the lowest, so that voices of women
    # and men overlap.
    place = (torch.arange(bins, device=device) * uniform(0.86, 1.14, 1)).clamp(0, bins - 1)
    low = place.floor().long().clamp_max(bins - 2)
    share = (place - low)[..., None]
    mel = (
        mel.gather(1, low[..., None].expand(-1, -1, frames)) * (1 - share)
        + mel.gather(1, low[..., None].expand(-1, -1, frames) + 1) * share
    )
    # Reverberation: power leaks into the next frames, with a decay of 0.1-0.5 s to -60 dB.
    power = mel.exp()
    decay_s = torch.where(uniform(0, 1) < 0.4, uniform(0.1, 0.5), 1e-3 * uniform(1, 2))
    lag_s = torch.arange(30, device=device) * 0.01
    tail = 10 ** (-6 * lag_s / decay_s[:, None]) * torch.where(lag_s > 0, 0.3, 1.0)
    padded = F.pad(power, (29, 0)).transpose(0, 1)  # (bins, n, t + 29)
    power = F.conv1d(padded, tail.flip(1)[:, None], groups=n).transpose(0, 1)
    mel = power.clamp_min(1e-10).log()
    level_db = torch.where(uniform(0, 1) < 0.7, uniform(0, 40), 99.0)
    mel = add_noise(mel, lengths, level_db)
    # Codecs: everything above 3.4 kHz or so gone.
    cut = (uniform(0, 1, 1) < 0.15) & (torch.arange(bins, device=device) > uniform(44, 60, 1))
    mel = torch.where(cut[..., None], mel - 12.0, mel)
    # Masks (SpecAugment): up to 10 bins, up to 0.2 s.
    width, first = uniform(0, 10, 1), uniform(0, bins, 1)
    position = torch.arange(bins, device=device)
    hidden = ((position >= first) & (position < first + width))[..., None]
    width, first = uniform(0, 20, 1), uniform(0, frames, 1)
    position = torch.arange(frames, device=device)
    hidden = hidden | ((position >= first) & (position < first + width))[:, None]
    silent = torch.arange(frames, device=device) >= lengths[:, None]
    floor = mel.amax((1, 2), keepdim=True) + 2 * FLOOR
    return torch.where(hidden | silent[:, None], floor, mel), lengths


def add_noise(mel: Tensor, lengths: Tensor, below_db: Tensor) -> Tensor:
    """Add flickering noise of random colour, `below_db` (n,) under the sound, to log mels.

    Args:
        mel: (n, 64, t), of which `lengths` (n,) frames are filled.
    """
    n, bins, _ = mel.shape
    device = mel.device
    power = mel.exp()
    slope = torch.empty(n, 1, device=device).uniform_(-2, 0.5)
    slope = slope * torch.linspace(0, 3, bins, device=device)
    colour = (slope + torch.randn(n, bins, device=device) * 0.5).exp()
    colour = colour / colour.mean(1, keepdim=True)
    level = power.sum((1, 2)) / (bins * lengths) * 10 ** (-below_db / 10)
    flicker = torch.empty_like(power).exponential_()
    power = power + level[:, None, None] * colour[..., None] * (0.5 + 0.5 * flicker)
    return (power + 1e-10).log()


def pad_mels(
    mels: Sequence[npt.NDArray[np.float32]], frames: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Stack log mels (t, 64) of any lengths into (n, 64, frames), cut or padded with a floor."""
    out = np.empty((len(mels), MEL_BINS, frames), np.float32)
    lengths = np.array([min(len(mel), frames) for mel in mels])
    for k, mel in enumerate(mels):
        out[k] = mel.max() + 2 * FLOOR
        out[k, :, : lengths[k]] = mel[:frames].T
    return out, lengths
