"""What a network is: `MavenConfig`, and its four presets; nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

MODALITIES = ("visual", "audio", "text")
PATHS = tuple((to, of) for to in MODALITIES for of in MODALITIES if to != of)  # six, eqs. 13-14
HEADS = ("polar", "theta", "cartesian")
MAX_SIZE, MAX_LAYERS = 2**16, 2**8  # of anything; no network comes near
SLACK_S = 1e-4  # distances are differences of float32 seconds

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
            if value is not None and value > MAX_SIZE:
                raise ValueError(f"{field.name} must be up to {MAX_SIZE}, got {value!r}")
        if not 0 <= self.join_layers <= MAX_LAYERS or self.join_branches > MAX_LAYERS:
            raise ValueError(
                f"join_layers must be 0 to {MAX_LAYERS}, join_branches 1 to {MAX_LAYERS}, got"
                f" {self.join_layers!r} and {self.join_branches!r}"
            )
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


def config_from(values: dict[str, Any]) -> MavenConfig:
    """Make a configuration from a mapping, for instance of a config.json.

    Raises:
        ValueError: an unknown or missing field, or a value out of range.
    """
    try:
        return MavenConfig(**values)
    except TypeError as error:
        raise ValueError(f"not a network configuration: {error}") from None
