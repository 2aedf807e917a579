"""The MAVEN network: three feature sequences in, valence and arousal in polar form out.

Ahire et al., "MAVEN: Multi-modal Attention for Valence-Arousal Emotion Network", CVPR Workshops
2025; equation numbers are the paper's. The file reads bottom up. Axes: `b` batch, `t` frame on the
grid, `d` width, `m` modality.

One network, four presets (`PRESETS`): `default`, `paper`, and the two variants of the published
code, `reference-mlp` and `reference-beit`. They differ in `MavenConfig` alone.

In `default` a frame attends to what lies within `radius_s` of it, with masks for whatever was not
observed. As every attention is local, a frame's answer depends on `reach_s` of its surroundings and
on nothing else, so a long video cut into overlapping windows gives the answer of the whole, and
time and memory grow with its length alone. In the others it attends to its whole window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from maven.attention import SLACK_S, Attention, Dropout, Nearness

MODALITIES = ("visual", "audio", "text")
PATHS = tuple((to, of) for to in MODALITIES for of in MODALITIES if to != of)  # six, eqs. 13-14
HEADS = ("polar", "theta", "cartesian")
RIM = 1 - 1e-6  # float32 would round tanh up to 1
BEIT_EPS = 1e-12  # of BEiT's layer norms

PUBLISHED: dict[str, Any] = {
    "width": 512, "heads": 2, "radius_s": None, "time_bias": False, "masked": False,
    "inner_norms": False, "head_widths": (512, 256), "dropout": 0.1,
}  # fmt: skip
BEIT_BASE: dict[str, Any] = {"join_width": 768, "join_heads": 12, "join_feed": 3072}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": PUBLISHED | BEIT_BASE | {"join_layers": 24, "head": "theta", "head_dropout": 0.2},
    "reference-mlp": PUBLISHED
    | {"pooled": ("audio", "text"), "shared_norm": True, "refine": False, "head": "theta"}
    | {"join": False, "join_layers": 0, "head_dropout": (0.5, 0.3)},
    "reference-beit": PUBLISHED
    | {"pooled": ("audio", "text"), "shared_norm": True, "refine": False, "head": "cartesian"}
    | BEIT_BASE
    | {"join_layers": 12, "join_branches": 2, "head_dropout": (0.5, 0.3)},
}


@dataclass(frozen=True)
class MavenConfig:
    """What defines a network.

    Attributes:
        visual_width, audio_width, text_width: widths of the encoders' features.
        width: common width of the three projections and the six paths (fig. 3).
        heads: attention heads of the paths and the refinement.
        join: whether the three sequences are joined by a linear map (eqs. 19-20); else they are
            concatenated.
        join_width: width of the joined sequence and the BEiT layers.
        join_heads: attention heads of the BEiT layers.
        join_layers: BEiT layers one after the other (eq. 25), in each branch.
        join_branches: how many such stacks read the same sequence; their ends are concatenated.
        join_feed: inner width of the BEiT layers; None for four times join_width.
        radius_s: how far one attention looks to either side, in seconds; None: the whole window.
        window_s: length of a window where radius_s is None; otherwise of no effect.
        rate_hz: rate of the grid that the network was trained on.
        dropout: dropout in the paths and the layers.
        head: "polar" (no wrap, inside the disc), "theta" (angle and intensity, eqs. 30-31) or
            "cartesian" (valence and arousal).
        head_widths: of the predictor's two hidden layers; None for join_width and half of it.
        head_dropout: after each of the two; None for `dropout`, one number for both.
        time_bias: whether attention knows how far away in time a frame lies.
        masked: whether attention leaves out what was not observed, and a learned vector stands for
            it; else zeros stand for it, as in the published code.
        pooled: modalities of which only the mean over the window is seen.
        refine: whether the enhanced sequences are refined by self-attention (eqs. 15-18).
        shared_norm: whether the three enhancements share one LayerNorm.
        inner_norms: whether the projections and the last BEiT layer end in a LayerNorm.
        pool_time: one answer a window, from the mean over its frames (eq. 26).
    """

    visual_width: int
    audio_width: int
    text_width: int
    width: int = 96
    heads: int = 4
    join: bool = True
    join_width: int = 128
    join_heads: int = 4
    join_layers: int = 2
    join_branches: int = 1
    join_feed: int | None = None
    radius_s: float | None = 2.0
    window_s: float = 10.0
    rate_hz: float = 10.0
    dropout: float = 0.2
    head: str = "polar"
    head_widths: tuple[int, int] | None = None
    head_dropout: float | tuple[float, float] | None = None
    time_bias: bool = True
    masked: bool = True
    pooled: tuple[str, ...] = ()
    refine: bool = True
    shared_norm: bool = False
    inner_norms: bool = True
    pool_time: bool = False

    def __post_init__(self) -> None:
        for name in ("head_widths", "head_dropout", "pooled"):
            if isinstance(value := getattr(self, name), list):  # from JSON or YAML
                object.__setattr__(self, name, tuple(value))
        for field in fields(self):
            value = getattr(self, field.name)
            sizes = ("int", "float", "int | None", "float | None")
            if field.type not in sizes or field.name in ("dropout", "join_layers"):
                continue
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{field.name} must be above 0, got {value!r}")
        if self.join_layers < 0:
            raise ValueError(f"join_layers must be 0 or more, got {self.join_layers!r}")
        for value in (self.dropout, *self.head_dropouts):
            if not 0 <= value < 1:
                raise ValueError(f"dropout must be in [0, 1), got {value!r}")
        if self.width % self.heads or self.join_width % self.join_heads:
            raise ValueError("width and join_width must be multiples of their numbers of heads")
        if self.head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {self.head!r}")
        if not set(self.pooled) <= set(MODALITIES):
            raise ValueError(f"pooled must be of {', '.join(MODALITIES)}, got {self.pooled!r}")
        if not self.join and self.join_layers:
            raise ValueError("without join there can be no join_layers")

    @property
    def head_dropouts(self) -> tuple[float, ...]:
        """Dropout after each hidden layer of the predictor."""
        given = self.dropout if self.head_dropout is None else self.head_dropout
        return given if isinstance(given, tuple) else (given, given)

    @property
    def local(self) -> bool:
        """Whether an answer depends on `reach_s` of its surroundings and nothing else."""
        return self.radius_s is not None and not self.pooled and not self.pool_time

    @property
    def reach_s(self) -> float:
        """How much of its surroundings is read for a frame's answer.

        Every attention end to end, which is all that the answer can depend on; a quarter of the
        window where attention is not local.
        """
        if self.radius_s is None or not self.local:
            return self.window_s / 4
        return (self.radius_s + SLACK_S) * (1 + self.refine + self.join_layers)

    def input_width(self, modality: str) -> int:
        """Width of one modality's features."""
        return int(getattr(self, f"{modality}_width"))


def preset(name: str, widths: dict[str, int], **changes: Any) -> MavenConfig:
    """Make the configuration of a preset for feature `widths` of each modality.

    Raises:
        ValueError: an unknown preset or field, or a value out of range.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; accepted: {', '.join(PRESETS)}")
    if not PRESETS[name].get("join", True):  # sizes of what it lacks mean nothing to it
        changes = {k: v for k, v in changes.items() if k not in ("join", "join_layers")}
    return config_from({f"{m}_width": widths[m] for m in MODALITIES} | PRESETS[name] | changes)


class Projection(nn.Module):
    """One modality's features, standardised by the training set's moments, to the common width."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width_in: int, width: int, norm: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width_in))
        self.register_buffer("scale", torch.ones(width_in))
        self.linear = nn.Linear(width_in, width)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, features: Tensor, observed: Tensor, pooled: bool = False) -> Tensor:
        """Project (b, t, d_m) -> (b, t, d); zeros stand for what was not `observed` (b, t)."""
        x = ((features - self.mean) / self.scale).masked_fill(~observed[..., None], 0.0)
        if pooled:
            count = observed.sum(1)[:, None, None].clamp_min(1)
            x = (x.sum(1, keepdim=True) / count).expand_as(x)
        return self.norm(self.linear(x))  # type: ignore[no-any-return]


class BeitLayer(nn.Module):
    """A BEiT encoder layer: pre-norm, layer scale, no key bias, relative (here time) bias."""

    def __init__(self, config: MavenConfig) -> None:
        super().__init__()
        width, feed = config.join_width, config.join_feed or 4 * config.join_width
        self.norm_before = nn.LayerNorm(width, eps=BEIT_EPS)
        self.norm_after = nn.LayerNorm(width, eps=BEIT_EPS)
        self.attention = Attention(width, config.join_heads, config.time_bias)
        self.feed = nn.Sequential(
            nn.Linear(width, feed), nn.GELU(), Dropout(config.dropout), nn.Linear(feed, width)
        )
        self.scale_attention = nn.Parameter(0.1 * torch.ones(width))
        self.scale_feed = nn.Parameter(0.1 * torch.ones(width))
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, observed: Tensor, near: Nearness) -> Tensor:
        """(b, t, d) -> (b, t, d), attending where `observed` (b, t) holds."""
        normed = self.norm_before(x)
        attended, _ = self.attention(normed, normed, observed, near)
        x = x + self.dropout(self.scale_attention * attended)
        return x + self.dropout(self.scale_feed * self.feed(self.norm_after(x)))  # type: ignore[no-any-return]


class Predictor(nn.Module):
    """Three linear layers (eqs. 27-29) to the two numbers that a head reads."""

    def __init__(self, width_in: int, widths: tuple[int, int], dropouts: tuple[float, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width_in, widths[0]), nn.ReLU(), Dropout(dropouts[0]),
            nn.Linear(widths[0], widths[1]), nn.ReLU(), Dropout(dropouts[1]),
            nn.Linear(widths[1], 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, d) -> (b, t, 2)."""
        return self.layers(x)  # type: ignore[no-any-return]


def to_disc(u: Tensor) -> Tensor:
    """Map the plane onto the open unit disc, u -> u tanh |u| / |u|, along the last axis.

    The polar form (eqs. 30-31) without its faults: the direction is that of u, the intensity
    tanh |u|. Valence and arousal lie inside the unit disc and are smooth in u everywhere: no wrap
    at theta = pi, no kink at zero intensity, where a separate angle would be undefined.
    """
    length = (u.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    return u * (RIM * length.tanh() / length)


def read_head(outputs: Tensor, head: str) -> Tensor:
    """Read a predictor's outputs (..., 2) as valence and arousal (..., 2): see `MavenConfig`."""
    if head == "polar":
        return to_disc(outputs)
    if head == "theta":
        theta, intensity = outputs.unbind(-1)
        return torch.stack((intensity * theta.cos(), intensity * theta.sin()), -1)
    return outputs


class Maven(nn.Module):
    """The network. `forward` takes tensors; `maven.inference` takes features of any length."""

    def __init__(self, config: MavenConfig) -> None:
        super().__init__()
        self.config = c = config
        self.project = nn.ModuleDict(
            {m: Projection(c.input_width(m), c.width, c.inner_norms) for m in MODALITIES}
        )
        self.missing = nn.ParameterDict(
            {m: nn.Parameter(0.02 * torch.randn(c.width)) for m in MODALITIES if c.masked}
        )
        self.paths = nn.ModuleDict(
            {f"{to}_from_{of}": Attention(c.width, c.heads, c.time_bias) for to, of in PATHS}
        )
        norms = ("shared",) if c.shared_norm else MODALITIES
        self.enhance = nn.ModuleDict({m: nn.LayerNorm(c.width) for m in norms})
        refined = MODALITIES if c.refine else ()
        self.refine = nn.ModuleDict({m: Attention(c.width, c.heads, c.time_bias) for m in refined})
        self.refine_norm = nn.ModuleDict({m: nn.LayerNorm(c.width) for m in refined})
        self.join = nn.Linear(3 * c.width, c.join_width) if c.join else nn.Identity()
        self.layers = nn.ModuleList(
            BeitLayer(c) for _ in range(c.join_branches * c.join_layers)
        )  # branch after branch
        joined = c.join_branches * c.join_width if c.join else 3 * c.width
        self.norm = nn.LayerNorm(joined) if c.inner_norms else nn.Identity()
        widths = c.head_widths or (c.join_width, c.join_width // 2)
        self.head = Predictor(joined, widths, c.head_dropouts)
        self.dropout = Dropout(c.dropout)

    def forward(
        self, features: dict[str, Tensor], observed: dict[str, Tensor], time_s: Tensor
    ) -> Tensor:
        """Predict (valence, arousal) (b, t, 2).

        Args:
            features: one (b, t, d_m) a modality; values where `observed` is False do not matter.
            observed: one (b, t) bool a modality.
            time_s: finite, monotone frame times (b, t), or (1, t) where the batch shares them;
                float64 far from zero, whatever the weights are. Frames that no modality observed,
                such as padding, change nothing elsewhere.
        """
        return read_head(self.outputs(features, observed, time_s), self.config.head)

    def outputs(
        self, features: dict[str, Tensor], observed: dict[str, Tensor], time_s: Tensor
    ) -> Tensor:
        """Predict what the head writes (b, t, 2): theta and intensity of a "theta" head, say."""
        near = Nearness.of(time_s, self.config.radius_s, self.config.time_bias)
        anything = torch.stack([observed[m] for m in MODALITIES]).any(0)
        enhanced = self.enhanced(features, observed, near)
        if self.config.refine:
            for m, own in enhanced.items():
                again, _ = self.refine[m](own, own, anything, near)  # eqs. 15-18
                enhanced[m] = self.refine_norm[m](own + again)
        x = self.join(torch.cat([enhanced[m] for m in MODALITIES], -1))
        depth, branches = self.config.join_layers, []
        for branch in range(self.config.join_branches):
            end = x
            for layer in self.layers[branch * depth : (branch + 1) * depth]:
                end = layer(end, anything, near)
            branches.append(end)
        x = self.norm(torch.cat(branches, -1))
        if self.config.pool_time:
            mean = (x * anything[..., None]).sum(1, keepdim=True)
            x = (mean / anything.sum(1)[:, None, None].clamp_min(1)).expand_as(x)
        return self.head(x)  # type: ignore[no-any-return]

    def enhanced(
        self, features: dict[str, Tensor], observed: dict[str, Tensor], near: Nearness
    ) -> dict[str, Tensor]:
        """Give each modality's sequence (b, t, d) after its two cross-modal paths."""
        config = self.config
        own, seen = self.projected(features, observed)
        enhanced = {}
        for m in MODALITIES:
            total = own[m]
            count = torch.ones_like(total[..., :1])
            for of in MODALITIES:
                if of != m:
                    path, heard = self.paths[f"{m}_from_{of}"](own[m], own[of], seen[of], near)
                    total = total + path
                    count = count + heard[..., None]
            norm = self.enhance["shared" if config.shared_norm else m]
            enhanced[m] = norm(self.dropout(total / count))
        return enhanced

    def projected(
        self, features: dict[str, Tensor], observed: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Give each modality's projection (b, t, d), and where others may look at it (b, t)."""
        config = self.config
        anything = torch.stack([observed[m] for m in MODALITIES]).any(0)
        own, seen = {}, {}
        for m in MODALITIES:
            own[m] = self.project[m](features[m], observed[m], m in config.pooled)
            seen[m] = observed[m] if config.masked else anything
            if config.masked and m in config.pooled:
                seen[m] = observed[m].any(1, keepdim=True) & anything
            if config.masked:
                own[m] = torch.where(seen[m][..., None], own[m], self.missing[m])
        return own, seen

    def looks(
        self, features: dict[str, Tensor], observed: dict[str, Tensor], time_s: Tensor, frame: int
    ) -> dict[tuple[str, str], Tensor]:
        """Say where a frame looks on each of the six `PATHS`: weights (b, h, t) of the frames.

        Arguments as in `forward`; weights as in `Attention.weights`.
        """
        own, seen = self.projected(features, observed)
        distance_s = time_s - time_s[:, frame, None]
        looks = {}
        for to, of in PATHS:
            path = self.paths[f"{to}_from_{of}"]
            assert isinstance(path, Attention)
            looks[to, of] = path.weights(
                own[to][:, frame], own[of], seen[of], distance_s, self.config.radius_s
            )
        return looks

    def fit_moments(self, modality: str, features: Tensor) -> None:
        """Set a modality's standardisation from training features (n, d_m)."""
        projection = self.project[modality]
        assert isinstance(projection, Projection)
        projection.mean.copy_(features.mean(0))
        projection.scale.copy_(features.std(0).clamp_min(1e-3))


def config_from(values: dict[str, Any]) -> MavenConfig:
    """Make a configuration from a mapping, for instance of a config.json.

    Raises:
        ValueError: an unknown or missing field, or a value out of range.
    """
    try:
        return MavenConfig(**values)
    except TypeError as error:
        raise ValueError(f"not a network configuration: {error}") from None
