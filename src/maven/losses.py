"""Losses over frames, masked: 1 - CCC with a gradient, and the squared error beside it."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8


def ccc_loss(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """1 - CCC, averaged over the last axis; all other axes are frames taken together.

    Args:
        predicted: (..., k) for k dimensions (valence, arousal).
        target: (..., k); frames outside [-1, 1] in any dimension never count (-5 marks them).
        mask: (...,) bool, frames that count.

    Returns:
        A scalar in [0, 2] with a gradient, in float32 or better; 1 where fewer than two frames
        count.
    """
    valid = (target.abs() <= 1).all(-1)
    if mask is not None:
        valid = valid & mask
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    x, y = predicted[valid].to(dtype), target[valid].to(dtype)
    if len(x) < 2:
        return x.sum() * 0 + 1
    x_mean, y_mean = x.mean(0), y.mean(0)
    covariance = ((x - x_mean) * (y - y_mean)).mean(0)
    spread = x.var(0, correction=0) + y.var(0, correction=0) + (x_mean - y_mean) ** 2
    return (1 - 2 * covariance / (spread + EPSILON)).mean()


def mse_loss(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error over frames that count, as in `ccc_loss`; 0 where none does."""
    valid = (target.abs() <= 1).all(-1)
    if mask is not None:
        valid = valid & mask
    error = torch.where(valid[..., None], predicted - target, 0.0)
    return error.square().sum() / (valid.sum().clamp_min(1) * target.shape[-1])
