"""Losses over frames, masked, from sums that add up over the processes that share a batch.

The gradient of 1 - CCC needs the moments of the whole batch. Each process sums its own frames, the
sums are added up (`Reduce`), and the gradient flows through the own part alone: the mean of the
processes' gradients, times their number, is then the gradient of one process with all frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-8

Reduce = Callable[[Tensor], Tensor]  # a tensor without gradient -> its sum over all processes


@dataclass(frozen=True)
class Sums:
    """Sums in float64 over the frames that count: how many, x, y, x^2, y^2, xy (k,) each."""

    n: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor


def counted(target: Tensor, mask: Tensor | None = None, mask_invalid: bool = True) -> Tensor:
    """Say which frames (...,) of labels (..., k) count: inside [-1, 1], and where `mask` holds.

    Without `mask_invalid` the labels -5 count as if they were some: the published code's fault.
    """
    valid = (target.abs() <= 1).all(-1)
    if not mask_invalid:
        valid = target.isfinite().all(-1)
    return valid if mask is None else valid & mask


def sums(predicted: Tensor, target: Tensor, counts: Tensor, reduce: Reduce | None = None) -> Sums:
    """Sum predictions and targets (..., k) over the frames where `counts` (...,) holds."""
    kept = counts[..., None]
    x, y = (torch.where(kept, series, 0).double().flatten(0, -2) for series in (predicted, target))
    n = counts.sum().double().expand(x.shape[-1])
    rows = torch.stack((n, x.sum(0), y.sum(0), (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)))
    if reduce is not None:
        rows = rows + (reduce(rows.detach().clone()) - rows).detach()
    return Sums(rows[0, 0], *rows[1:])


def disagreement(s: Sums) -> Tensor:
    """1 - CCC (population moments), averaged over the dimensions; 1 for fewer than two frames."""
    n = s.n.clamp_min(1)
    x, y = s.x / n, s.y / n
    covariance = s.xy / n - x * y
    spread = (s.xx / n - x * x) + (s.yy / n - y * y) + (x - y) ** 2
    return torch.where(s.n < 2, 1.0, (1 - 2 * covariance / (spread + EPSILON)).mean())


def squared_error(s: Sums) -> Tensor:
    """Mean over frames and dimensions; 0 where no frame counts."""
    return (s.xx - 2 * s.xy + s.yy).mean() / s.n.clamp_min(1)


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
    loss = disagreement(sums(predicted, target, counted(target, mask)))
    return loss.to(torch.promote_types(predicted.dtype, torch.float32))


def mse_loss(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error over frames that count, as in `ccc_loss`; 0 where none does."""
    loss = squared_error(sums(predicted, target, counted(target, mask)))
    return loss.to(torch.promote_types(predicted.dtype, torch.float32))


def polar_target(target: Tensor) -> Tensor:
    """Turn (valence, arousal) (..., 2) into (theta, intensity), theta in [-pi, pi].

    Nothing treats the wrap: +pi and -pi, one emotion, are 2 pi apart, as in the published code.
    """
    valence, arousal = target.unbind(-1)
    return torch.stack((torch.atan2(arousal, valence), torch.hypot(valence, arousal)), -1)


# Sums and the weight of the squared error beside 1 - CCC -> scalar, float64. The last two are
# faults of the published code, to measure what they cost: its CCC goes through .item() and teaches
# nothing; and a squared error on an angle breaks at the wrap.
LOSSES: dict[str, Callable[[Sums, float], Tensor]] = {
    "ccc": lambda s, mse_weight: disagreement(s) + mse_weight * squared_error(s),
    "mse": lambda s, mse_weight: squared_error(s),
    "ccc-no-gradient": lambda s, mse_weight: squared_error(s) + disagreement(s).detach(),
    "theta": lambda s, mse_weight: squared_error(s),
}


def batch_loss(
    name: str,
    predicted: Tensor,
    target: Tensor,
    counts: Tensor,
    mse_weight: float = 0.0,
    reduce: Reduce | None = None,
) -> Tensor:
    """Loss of a batch that processes share, with the gradient of this one's part.

    Args:
        name: key of `LOSSES`.
        predicted: (..., 2) valence and arousal, but for "theta" theta and intensity.
        target: (..., 2) valence and arousal.
        counts: (...,) bool, see `counted`.
        mse_weight: of the squared error beside 1 - CCC.
        reduce: adds up over the processes; None for one process.
    """
    if name == "theta":
        target = polar_target(target)
    return LOSSES[name](sums(predicted, target, counts, reduce), mse_weight)
