"""Weights from elsewhere: checkpoints of the published code, and BEiT to start from.

The published code saves `best_model.pth`, a plain state dict, in two variants that are told apart
by their names. Its attention has key biases, ours none: a key bias adds the same to all scores of a
query, which the softmax takes away again, so nothing is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maven.config import BEIT_BASE, MavenConfig, preset
from maven.encoders.base import EncoderError
from maven.encoders.hub import WEIGHTS, folder_of
from maven.model import Maven

BEIT = "microsoft/beit-base-patch16-224-pt22k"
LETTERS = {"v": "visual", "a": "audio", "t": "text"}  # attn_v2a: video asks, audio answers
PROJECTIONS = {"video_proj": "visual", "audio_proj": "audio", "text_proj": "text"}
BEIT_HEAD = 64  # width of one of BEiT's heads, at all its sizes
OTHER_HEADS = 4  # assumed where the width is no multiple of it

CROSS = re.compile(r"multihead_attention\.attn_([vat])2([vat])\.(in_proj|out_proj)[._](\w+)")
PROJECT = re.compile(r"multihead_attention\.(\w+_proj)\.(weight|bias)")
BEIT_LAYER = re.compile(r"(?:beit\.)?encoder\.layer\.(\d+)\.(.+)")
LAYER = re.compile(r"beit3_encoders\.(\d+)\.layer\.(\d+)\.(.+)")
REST = {
    "multihead_attention.layer_norm": "enhance.shared",
    "projection_layer": "join",
    **{f"regressor.fc.{k}": f"head.layers.{k}" for k in (0, 3, 6)},
}
IN_LAYER = {
    "attention.attention.query.weight": "attention.query.weight",
    "attention.attention.query.bias": "attention.query.bias",
    "attention.attention.key.weight": "attention.key.weight",
    "attention.attention.value.weight": "attention.value.weight",
    "attention.attention.value.bias": "attention.value.bias",
    "attention.output.dense.weight": "attention.output.weight",
    "attention.output.dense.bias": "attention.output.bias",
    "intermediate.dense.weight": "feed.0.weight",
    "intermediate.dense.bias": "feed.0.bias",
    "output.dense.weight": "feed.3.weight",
    "output.dense.bias": "feed.3.bias",
    "layernorm_before.weight": "norm_before.weight",
    "layernorm_before.bias": "norm_before.bias",
    "layernorm_after.weight": "norm_after.weight",
    "layernorm_after.bias": "norm_after.bias",
    "lambda_1": "scale_attention",
    "lambda_2": "scale_feed",
}
# Of BEiT's patches in the plane, which frames in time have not; the published code never reads it.
SPATIAL = "relative_position_bias"


class ConvertError(Exception):
    """A file holds no weights that can be taken over; the message is one line."""


@dataclass(frozen=True)
class Converted:
    """A published checkpoint as a network of ours, which preset it is, and what was assumed."""

    network: Maven
    preset: str
    notes: tuple[str, ...]


def read_published(path: Path) -> dict[str, Tensor]:
    """Read a published checkpoint's state dict; nothing in the file is executed.

    Raises:
        ConvertError: it is not there, or holds anything but named tensors.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # of the unpickler: whatever a damaged or hostile file provokes
        raise ConvertError(f"{path}: not a PyTorch checkpoint of tensors alone") from error
    for name in ("state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(x, Tensor) for x in content.values()):
        raise ConvertError(f"{path}: holds no state dict of named tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def convert_published(
    state: Mapping[str, Tensor], heads: int = 2, join_heads: int | None = None
) -> Converted:
    """Turn a published state dict, of either variant, into a network of ours.

    Args:
        state: names and tensors.
        heads: of the cross-modal attention, which no tensor tells; the published code has 2.
        join_heads: of the BEiT layers; None for one head every 64 numbers, as BEiT has.

    Raises:
        ConvertError: the names or shapes are not those of the published code.
    """
    notes = []
    ours: dict[str, Tensor] = {}
    try:
        depth = 1 + max((int(m[2]) for name in state if (m := LAYER.fullmatch(name))), default=-1)
        for name, tensor in state.items():
            for ours_name, part in _renamed(name, tensor.float(), depth):
                ours[ours_name] = part
        ours |= {k: v for m in LETTERS.values() for k, v in _moments(m, ours)}
        config = _config(ours, depth, heads, join_heads)
        network = Maven(config)
        network.load_state_dict(ours)
    except (LookupError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConvertError(f"not a checkpoint of the published code: {reason}") from error
    if depth and join_heads is None and config.join_width % BEIT_HEAD:
        notes.append(
            f"the file does not say how many heads its BEiT layers have: took {config.join_heads}"
        )
    return Converted(network.eval(), "reference-beit" if depth else "reference-mlp", tuple(notes))


def _renamed(name: str, tensor: Tensor, depth: int) -> list[tuple[str, Tensor]]:
    """Give our names, and parts, of a published tensor; none for a bias that does nothing."""
    if match := CROSS.fullmatch(name):
        path = f"paths.{LETTERS[match[1]]}_from_{LETTERS[match[2]]}"
        if match[3] == "out_proj":
            return [(f"{path}.output.{match[4]}", tensor)]
        kinds = ("query", "key", "value")
        parts = zip(kinds, tensor.chunk(3), strict=True)
        return [
            (f"{path}.{kind}.{match[4]}", part.clone())
            for kind, part in parts
            if (kind, match[4]) != ("key", "bias")
        ]
    if (match := PROJECT.fullmatch(name)) and match[1] in PROJECTIONS:
        return [(f"project.{PROJECTIONS[match[1]]}.linear.{match[2]}", tensor)]
    if match := LAYER.fullmatch(name):
        if SPATIAL in match[3]:
            return []
        if match[3] in IN_LAYER:
            index = int(match[1]) * depth + int(match[2])
            return [(f"layers.{index}.{IN_LAYER[match[3]]}", tensor)]
    stem, _, last = name.rpartition(".")
    if stem in REST:
        return [(f"{REST[stem]}.{last}", tensor)]
    raise ConvertError(f"not a checkpoint of the published code: it has no tensor named {name!r}")


def _moments(modality: str, ours: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    width = ours.get(f"project.{modality}.linear.weight", torch.empty(0, 0)).shape[1]
    names = (f"project.{modality}.mean", f"project.{modality}.scale")
    return list(zip(names, (torch.zeros(width), torch.ones(width)), strict=True))


def _config(
    ours: Mapping[str, Tensor], depth: int, heads: int, join_heads: int | None
) -> MavenConfig:
    """Read the sizes off the tensors."""
    widths = {m: ours[f"project.{m}.linear.weight"].shape[1] for m in LETTERS.values()}
    config = preset(
        "reference-beit" if depth else "reference-mlp",
        widths,
        width=ours["project.visual.linear.weight"].shape[0],
        heads=heads,
        head_widths=tuple(ours[f"head.layers.{k}.bias"].shape[0] for k in (0, 3)),
    )
    if not depth:
        return config
    join_width = ours["join.weight"].shape[0]
    usual = OTHER_HEADS if join_width % BEIT_HEAD else join_width // BEIT_HEAD
    return replace(
        config,
        join_width=join_width,
        join_heads=join_heads or usual,
        join_layers=depth,
        join_branches=sum(name.startswith("layers.") for name in ours) // (depth * len(IN_LAYER)),
        join_feed=ours["layers.0.feed.0.bias"].shape[0],
    )


def start(network: Maven, source: str, offline: bool) -> list[str]:
    """Start the BEiT layers from trained ones; "auto": from `BEIT` where it fits and can be had.

    Returns:
        A line that says so where "auto" found none.

    Raises:
        ConvertError, EncoderError: as `start_beit`, for any other source.
    """
    if source != "auto":
        start_beit(network, source, offline=offline)
        return []
    config = network.config
    if not config.join_layers or any(getattr(config, k) != v for k, v in BEIT_BASE.items()):
        return []
    try:
        start_beit(network, offline=offline)
    except EncoderError as error:
        return [f"the BEiT layers start from random weights: {error}"]
    return []


def start_beit(network: Maven, source: str | Path = BEIT, *, offline: bool = False) -> None:
    """Start the BEiT layers from a trained BEiT, layer by layer, in each branch from its first.

    A network with more layers than the model begins again at its first: two encoders one after the
    other, as the paper has them. The place of patches in the plane is left behind.

    Raises:
        ConvertError: the model's layers have other sizes.
        EncoderError: the model is neither on disk nor to be fetched.
    """
    folder = folder_of(source, required=[["config.json"], WEIGHTS], offline=offline)
    layers = _beit_layers(folder)
    config = network.config
    wanted = (config.join_width, config.join_heads, config.join_feed or 4 * config.join_width)
    try:
        given = (
            layers[0]["norm_before.bias"].shape[0],
            json.loads((folder / "config.json").read_text())["num_attention_heads"],
            layers[0]["feed.0.bias"].shape[0],
        )
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ConvertError(f"{folder}: not a BEiT: {error!r:.200}") from error
    if wanted != given:
        raise ConvertError(
            f"{source}: its layers have width, heads and inner width {given}, the network's"
            f" {wanted}: set join_width, join_heads and join_feed alike"
        )
    for k, ours in enumerate(network.layers):
        named = layers[k % config.join_layers % len(layers)]
        try:
            missing = ours.load_state_dict(named, strict=False).missing_keys
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ConvertError(f"{source}: its layers are not a BEiT's: {reason}") from error
        assert set(missing) <= {"attention.time_bias"}, missing


def _beit_layers(folder: Path) -> list[dict[str, Tensor]]:
    """Read the layers of a BEiT folder under our names, as they stand in its weights file."""
    path = next(folder / name for name in WEIGHTS if (folder / name).is_file())
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path)
        except (OSError, SafetensorError, ValueError) as error:
            raise ConvertError(f"{path}: cannot be read ({error!s:.200})") from error
    else:
        state = read_published(path)
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if (match := BEIT_LAYER.fullmatch(name)) and match[2] in IN_LAYER:
            layers.setdefault(int(match[1]), {})[IN_LAYER[match[2]]] = tensor.float()
    if not layers or any(len(layer) != len(IN_LAYER) for layer in layers.values()):
        raise ConvertError(f"{path}: holds no layers of a BEiT encoder")
    return [layers[k] for k in sorted(layers)]
