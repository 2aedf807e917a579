"""The MAVEN network: three feature sequences in, valence and arousal in polar form out.

Ahire et al., "MAVEN: Multi-modal Attention for Valence-Arousal Emotion Network", CVPR Workshops
2025; equation numbers are the paper's. The file reads bottom up. Axes: `b` batch, `t` frame on the
grid, `s` frame attended to, `h` head, `d` width, `m` modality.

This is the preset `default`: six cross-modal paths over time-aligned sequences, each frame
attending to what lies within `radius_s` of it, with masks for whatever was not observed. As every
attention is local, a frame's answer depends on `reach_s` of its surroundings and on nothing else,
so a long video cut into overlapping windows gives the answer of the whole.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODALITIES = ("visual", "audio", "text")
PATHS = tuple((to, of) for to in MODALITIES for of in MODALITIES if to != of)  # six, eqs. 13-14
KNOTS = 8  # of the time bias, on either side of zero
KNOT_SCALE_S = 0.1  # the bias resolves this much near zero, ever less further away
SLACK_S = 1e-4  # distances are differences of float32 seconds
RIM = 1 - 1e-6  # float32 would round tanh up to 1


@dataclass(frozen=True)
class MavenConfig:
    """What defines a network.

    Attributes:
        visual_width, audio_width, text_width: widths of the encoders' features.
        width: common width of the three projections and the six paths (fig. 3).
        heads: attention heads of the paths and the refinement.
        join_width: width of the joined sequence and the BEiT layers (eqs. 19-20).
        join_heads: attention heads of the BEiT layers.
        join_layers: number of BEiT layers (eq. 25).
        radius_s: how far one attention looks to either side, in seconds.
        rate_hz: rate of the grid that the network was trained on.
        dropout: dropout in the paths, the layers and the head.
    """

    visual_width: int
    audio_width: int
    text_width: int
    width: int = 96
    heads: int = 4
    join_width: int = 128
    join_heads: int = 4
    join_layers: int = 2
    radius_s: float = 2.0
    rate_hz: float = 10.0
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name not in ("dropout", "join_layers") and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value!r}")
        if self.join_layers < 0:
            raise ValueError(f"join_layers must be 0 or more, got {self.join_layers!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout!r}")
        if self.width % self.heads or self.join_width % self.join_heads:
            raise ValueError("width and join_width must be multiples of their numbers of heads")

    @property
    def reach_s(self) -> float:
        """How much of its surroundings a frame's answer depends on: every attention, end to end."""
        return (self.radius_s + SLACK_S) * (2 + self.join_layers)

    def input_width(self, modality: str) -> int:
        """Width of one modality's features."""
        return int(getattr(self, f"{modality}_width"))


@dataclass(frozen=True)
class Nearness:
    """Which frames lie within reach of which, and where their distance falls on the bias's knots.

    Attributes:
        within: (b, t, s) bool.
        knot: (b, t, s) index of the knot below the signed distance in time.
        share: (b, t, s) in [0, 1], the part of the next knot.
    """

    within: Tensor
    knot: Tensor
    share: Tensor

    @staticmethod
    def of(time_s: Tensor, radius_s: float) -> Nearness:
        """Compare frame times (b, t); b may be 1 for a batch that shares one grid."""
        distance_s = time_s[:, None, :] - time_s[:, :, None]  # (b, t, s)
        scaled = torch.log1p(distance_s.abs() / KNOT_SCALE_S) / math.log1p(radius_s / KNOT_SCALE_S)
        place = (KNOTS * (1 + distance_s.sign() * scaled)).clamp(0, 2 * KNOTS)
        knot = place.floor().clamp_max(2 * KNOTS - 1)
        return Nearness(distance_s.abs() <= radius_s + SLACK_S, knot.long(), place - knot)


class Attention(nn.Module):
    """Multi-head attention to frames near in time, with a bias by signed distance in seconds."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # a key bias cancels in the softmax (BEiT)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.time_bias = nn.Parameter(torch.zeros(heads, 2 * KNOTS + 1))

    def forward(
        self, queries: Tensor, keys: Tensor, observed: Tensor, near: Nearness
    ) -> tuple[Tensor, Tensor]:
        """Attend from queries (b, t, d) to keys (b, s, d) where `observed` (b, s) holds.

        Returns:
            (b, t, d), zero where nothing was within reach, and (b, t) bool: whether something was.
        """
        allowed = near.within & observed[:, None, :]  # (b, t, s)
        heard = allowed.any(-1)
        table = self.time_bias  # (h, 2 KNOTS + 1)
        share = near.share.to(table.dtype)
        bias = torch.lerp(table[:, near.knot], table[:, near.knot + 1], share)  # (h, b, t, s)
        closed = ~allowed & heard[..., None]  # an unheard row stays open: its NaN would spread
        bias = bias.transpose(0, 1).masked_fill(closed[:, None], -torch.inf)

        def split(x: Tensor) -> Tensor:
            b, t, d = x.shape
            return x.view(b, t, self.heads, d // self.heads).transpose(1, 2)  # (b, h, t, d / h)

        attended = F.scaled_dot_product_attention(
            split(self.query(queries)),
            split(self.key(keys)),
            split(self.value(keys)),
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
        )
        joined = self.output(attended.transpose(1, 2).flatten(2))
        return joined * heard[..., None], heard


class Projection(nn.Module):
    """One modality's features, standardised by the training set's moments, to the common width."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width_in))
        self.register_buffer("scale", torch.ones(width_in))
        self.linear = nn.Linear(width_in, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        """Project (b, t, d_m) -> (b, t, d)."""
        return self.norm(self.linear((features - self.mean) / self.scale))  # type: ignore[no-any-return, operator]


class BeitLayer(nn.Module):
    """A BEiT encoder layer: pre-norm, layer scale, no key bias, relative (here time) bias."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_before, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.scale_attention = nn.Parameter(0.1 * torch.ones(width))
        self.scale_feed = nn.Parameter(0.1 * torch.ones(width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, observed: Tensor, near: Nearness) -> Tensor:
        """(b, t, d) -> (b, t, d), attending where `observed` (b, t) holds."""
        normed = self.norm_before(x)
        x = x + self.dropout(
            self.scale_attention * self.attention(normed, normed, observed, near)[0]
        )
        return x + self.dropout(self.scale_feed * self.feed(self.norm_after(x)))  # type: ignore[no-any-return]


class PolarHead(nn.Module):
    """Three linear layers (eqs. 27-29) to a vector u, read in polar form (eqs. 30-31).

    The direction is that of u, the intensity tanh |u|. Valence and arousal, u tanh |u| / |u|, then
    lie inside the unit disc and are smooth in u everywhere: no wrap at theta = pi, no kink at zero
    intensity, where a separate angle would be undefined.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, width // 2), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width // 2, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, d) -> (valence, arousal) (b, t, 2), inside the unit disc."""
        return to_disc(self.layers(x))


def to_disc(u: Tensor) -> Tensor:
    """Map the plane onto the open unit disc, u -> u tanh |u| / |u|, along the last axis."""
    length = (u.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    return u * (RIM * length.tanh() / length)


class Maven(nn.Module):
    """The network. `forward` takes tensors; `maven.inference` takes features of any length."""

    def __init__(self, config: MavenConfig) -> None:
        super().__init__()
        self.config = config
        width, heads, dropout = config.width, config.heads, config.dropout
        self.project = nn.ModuleDict(
            {m: Projection(config.input_width(m), width) for m in MODALITIES}
        )
        self.missing = nn.ParameterDict(
            {m: nn.Parameter(0.02 * torch.randn(width)) for m in MODALITIES}
        )
        self.paths = nn.ModuleDict(
            {f"{to}_from_{of}": Attention(width, heads, dropout) for to, of in PATHS}
        )
        self.enhance = nn.ModuleDict({m: nn.LayerNorm(width) for m in MODALITIES})
        self.refine = nn.ModuleDict({m: Attention(width, heads, dropout) for m in MODALITIES})
        self.refine_norm = nn.ModuleDict({m: nn.LayerNorm(width) for m in MODALITIES})
        self.join = nn.Linear(3 * width, config.join_width)
        self.layers = nn.ModuleList(
            BeitLayer(config.join_width, config.join_heads, dropout)
            for _ in range(config.join_layers)
        )
        self.norm = nn.LayerNorm(config.join_width)
        self.head = PolarHead(config.join_width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, features: dict[str, Tensor], observed: dict[str, Tensor], time_s: Tensor
    ) -> Tensor:
        """Predict (valence, arousal) (b, t, 2).

        Args:
            features: one (b, t, d_m) a modality; values where `observed` is False do not matter.
            observed: one (b, t) bool a modality.
            time_s: finite frame times (b, t), or (1, t) where the batch shares them; float64 far
                from zero, whatever the weights are. Frames that no modality observed, such as
                padding, change nothing elsewhere.
        """
        near = Nearness.of(time_s, self.config.radius_s)
        own = {
            m: torch.where(
                observed[m][..., None],
                self.project[m](features[m].masked_fill(~observed[m][..., None], 0.0)),
                self.missing[m],
            )
            for m in MODALITIES
        }
        refined, anything = [], torch.stack([observed[m] for m in MODALITIES]).any(0)
        for m in MODALITIES:
            total = own[m]
            count = torch.ones_like(total[..., :1])
            for of in MODALITIES:
                if of != m:
                    path, heard = self.paths[f"{m}_from_{of}"](own[m], own[of], observed[of], near)
                    total = total + path
                    count = count + heard[..., None]
            enhanced = self.enhance[m](self.dropout(total / count))
            again, _ = self.refine[m](enhanced, enhanced, anything, near)  # eqs. 15-18
            refined.append(self.refine_norm[m](enhanced + again))
        x = self.join(torch.cat(refined, -1))
        for layer in self.layers:
            x = layer(x, anything, near)
        return self.head(self.norm(x))  # type: ignore[no-any-return]

    def fit_moments(self, modality: str, features: Tensor) -> None:
        """Set a modality's standardisation from training features (n, d_m)."""
        projection = self.project[modality]
        projection.mean.copy_(features.mean(0))  # type: ignore[operator]
        projection.scale.copy_(features.std(0).clamp_min(1e-3))  # type: ignore[operator]


def config_from(values: dict[str, Any]) -> MavenConfig:
    """Make a configuration from a mapping, for instance of a config.json.

    Raises:
        ValueError: an unknown or missing field, or a value out of range.
    """
    try:
        return MavenConfig(**values)
    except TypeError as error:
        raise ValueError(f"not a network configuration: {error}") from None
