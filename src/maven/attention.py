"""Attention to what is near in time, in blocks, so that its cost grows with the length alone.

Axes: `b` batch, `t` frame on the grid, `n` block of frames, `c` frame of a block, `s` frame
attended to, `h` head, `d` width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maven.config import SLACK_S

KNOTS = 8  # of the time bias, on either side of zero
KNOT_SCALE_S = 0.1  # the bias resolves this much near zero, ever less further away


class Dropout(nn.Module):
    """Dropout whose masks can be drawn sample by sample: see `seeded_dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generators: Sequence[torch.Generator] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop from (b, ...) in training."""
        if not self.training or self.p == 0:
            return x
        if self.generators is None:
            return F.dropout(x, self.p)
        keep = [torch.rand(x.shape[1:], generator=g, device=g.device) for g in self.generators]
        return x * (torch.stack(keep).to(x.device) >= self.p) / (1 - self.p)


@contextmanager
def seeded_dropout(network: nn.Module, generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Draw each sample's masks from its own generator, however a batch is shared out."""
    layers = [module for module in network.modules() if isinstance(module, Dropout)]
    for layer in layers:
        layer.generators = generators
    try:
        yield
    finally:
        for layer in layers:
            layer.generators = None


@dataclass(frozen=True)
class Nearness:
    """Which frames lie near which: blocks of `c` frames, each with the `s` frames around it.

    Attributes:
        block: frames in a block, `c`.
        alone: whether the one block holds all frames, so that s is c; else s is 3 c.
        within: (b, n, c, s) bool.
        basis: (b, n, c, s, 2 KNOTS + 1), where a signed distance in time falls between the bias's
            knots: two numbers that sum to 1; None without a time bias.
    """

    block: int
    alone: bool
    within: Tensor
    basis: Tensor | None

    @staticmethod
    def of(
        time_s: Tensor, radius_s: float | None, time_bias: bool = True, block: int | None = None
    ) -> Nearness:
        """Compare monotone frame times (b, t); b may be 1 for a batch that shares one grid.

        Args:
            time_s: seconds.
            radius_s: how far a frame sees; None: everywhere.
            time_bias: whether to say where distances fall between the bias's knots.
            block: frames that a radius spans at most, where that is known; nothing then depends on
                the times' values or their number but the result, as an exported graph needs it.
        """
        t = time_s.shape[1]
        if radius_s is None:
            size, alone = t, True
        else:
            size = _block(time_s, radius_s) if block is None else block
            alone = block is None and size >= t
        near = Nearness(size, alone, torch.empty(0), None)
        own, others = near.queries(time_s[..., None]), near.keys(time_s[..., None])
        real = near.keys(torch.ones_like(time_s[:1, :, None], dtype=torch.bool))[..., 0]
        distance_s = others.transpose(-1, -2) - own  # (b, n, c, s)
        within = real[:, :, None].expand_as(distance_s)
        if radius_s is None:
            return Nearness(size, alone, within, None)
        within = within & (distance_s.abs() <= radius_s + SLACK_S)
        basis = time_basis(distance_s, radius_s) if time_bias else None
        return Nearness(size, alone, within, basis)

    def queries(self, x: Tensor) -> Tensor:
        """Cut (b, t, d) into blocks (b, n, c, d), the last one padded."""
        if self.alone:
            return x[:, None]
        b, t, d = x.shape
        n = (t + self.block - 1) // self.block  # ONNX rounds quotients towards zero
        return F.pad(x, (0, 0, 0, n * self.block - t)).view(b, n, self.block, d)

    def keys(self, x: Tensor) -> Tensor:
        """Gather what lies around each block, (b, t, d) -> (b, n, s, d), padded at the ends."""
        own = self.queries(x)
        if self.alone:
            return own
        wide = F.pad(own, (0, 0, 0, 0, 1, 1))
        return torch.cat((wide[:, :-2], wide[:, 1:-1], wide[:, 2:]), 2)


def time_basis(distance_s: Tensor, radius_s: float) -> Tensor:
    """Say where signed distances (...) fall between the time bias's knots: (..., 2 KNOTS + 1)."""
    scaled = torch.log1p(distance_s.abs() / KNOT_SCALE_S) / math.log1p(radius_s / KNOT_SCALE_S)
    place = (KNOTS * (1 + distance_s.sign() * scaled)).clamp(0, 2 * KNOTS)
    knots = torch.arange(2 * KNOTS + 1, dtype=place.dtype, device=place.device)
    return (1 - (place[..., None] - knots).abs()).clamp_min(0)


def _block(time_s: Tensor, radius_s: float) -> int:
    """Frames that a radius spans at most, by bisection; all frames where that saves nothing."""
    t = time_s.shape[1]
    low, high = 1, t  # low frames apart may be near, high are not
    while high - low > 1:
        middle = (low + high) // 2
        apart_s = (time_s[:, middle:] - time_s[:, :-middle]).abs()
        low, high = (middle, high) if (apart_s <= radius_s + SLACK_S).any() else (low, middle)
    return low if 3 * low < t else t


class Attention(nn.Module):
    """Multi-head attention to frames near in time, with a bias by signed distance in seconds."""

    def __init__(self, width: int, heads: int, time_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # a key bias cancels in the softmax
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.time_bias = nn.Parameter(torch.zeros(heads, 2 * KNOTS + 1)) if time_bias else None

    def forward(
        self, queries: Tensor, keys: Tensor, observed: Tensor, near: Nearness
    ) -> tuple[Tensor, Tensor]:
        """Attend from queries (b, t, d) to keys (b, t, d) where `observed` (b, t) holds.

        Returns:
            (b, t, d), zero where nothing was within reach, and (b, t) bool: whether something was.
        """
        b, t, d = queries.shape
        around = near.keys(observed[..., None]).transpose(-1, -2)  # (b, n, 1, s)
        allowed = near.within & around  # (b, n, c, s)
        heard = allowed.any(-1)
        closed = ~allowed & heard[..., None]  # an unheard row stays open: its NaN would spread
        bias = queries.new_zeros(()) if near.basis is None else self._bias(near.basis)
        mask = torch.where(closed[:, :, None], -torch.inf, bias)  # (b, n, h, c, s)

        def split(x: Tensor) -> Tensor:
            heads = x.view(*x.shape[:3], self.heads, d // self.heads)
            return heads.transpose(2, 3).flatten(0, 1)

        attended = F.scaled_dot_product_attention(
            split(near.queries(self.query(queries))),  # (b n, h, c, d / h)
            split(near.keys(self.key(keys))),
            split(near.keys(self.value(keys))),
            attn_mask=mask.flatten(0, 1),
        )
        joined = attended.transpose(1, 2).reshape(b, -1, d)[:, :t]
        heard = heard.reshape(b, -1)[:, :t]
        return self.output(joined) * heard[..., None], heard

    def weights(
        self,
        query: Tensor,
        keys: Tensor,
        observed: Tensor,
        distance_s: Tensor,
        radius_s: float | None,
    ) -> Tensor:
        """Say where one frame looks: the weights that `forward` gives to the others' values.

        Args:
            query: the frame (b, d).
            keys: all frames (b, t, d), of which it may see those `observed` (b, t).
            distance_s: (b, t), how far after the frame each lies.
            radius_s: how far it looks; None: everywhere.

        Returns:
            (b, h, t), >= 0; they sum to 1, or are all 0 where nothing is within reach.
        """
        b, t, d = keys.shape
        q = self.query(query).view(b, self.heads, 1, -1)
        k = self.key(keys).view(b, t, self.heads, -1).transpose(1, 2)
        scores: Tensor = (q * k).sum(-1) / math.sqrt(d / self.heads)  # (b, h, t)
        seen = observed
        if radius_s is not None:
            seen = seen & (distance_s.abs() <= radius_s + SLACK_S)
            if self.time_bias is not None:
                basis = time_basis(distance_s, radius_s).to(scores.dtype)
                scores = scores + (basis @ self.time_bias.T).transpose(1, 2)
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
        return scores.softmax(-1).nan_to_num(0.0)

    def _bias(self, basis: Tensor) -> Tensor:
        """Read the bias table at distances (b, n, c, s, k) -> (b, n, h, c, s)."""
        assert self.time_bias is not None
        bias: Tensor = basis.to(self.time_bias.dtype) @ self.time_bias.T
        return bias.movedim(-1, 2)
