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

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from maven.attention import Attention, Dropout, Nearness
from maven.config import MODALITIES, PATHS, MavenConfig

RIM = 1 - 1e-6  # float32 would round tanh up to 1
BEIT_EPS = 1e-12  # of BEiT's layer norms


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

    @torch.inference_mode()
    def answers(
        self,
        values: Mapping[str, npt.NDArray[np.float32]],
        observed: Mapping[str, npt.NDArray[np.bool_]],
        time_s: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """Answer one window of arrays: see `maven.inference.Network`."""
        device = next(self.parameters()).device
        muted = {m: torch.tensor(observed[m], device=device) for m in MODALITIES}
        ways = len(muted[MODALITIES[0]])
        features = {
            m: torch.tensor(values[m], device=device).expand(ways, -1, -1) for m in MODALITIES
        }
        out = self(features, muted, torch.from_numpy(time_s).to(device)[None])  # float64
        answers: npt.NDArray[np.float64] = out.double().cpu().numpy()
        return answers

    def outputs(
        self,
        features: dict[str, Tensor],
        observed: dict[str, Tensor],
        time_s: Tensor,
        block: int | None = None,
    ) -> Tensor:
        """Predict what the head writes (b, t, 2): theta and intensity of a "theta" head, say.

        `block` is that of `Nearness.of`, the other arguments those of `forward`.
        """
        near = Nearness.of(time_s, self.config.radius_s, self.config.time_bias, block)
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
