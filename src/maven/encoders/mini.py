"""The three embedded encoders from their weights: a face CNN, a voice CNN and a word lexicon.

They follow the protocols of `base.py`, run on a laptop's processor and are trained by
`maven.pretrain` and `maven.lexicon`. Weights are one safetensors file a modality, stored as fp16.
The lexicon needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maven.encoders.base import fingerprint
from maven.encoders.words import BUCKETS, Lexicon, MiniText
from maven.tensors import check_finite, check_size

if TYPE_CHECKING:
    from torch import Tensor

    from maven.encoders.base import AudioEncoder, TextEncoder, VisualEncoder

MAX_BYTES = 2**28  # of weights
PREPROCESSING = 2  # to be raised with every change to what the networks are given


def _visual(content: bytes, fingerprint: str, device: str) -> VisualEncoder:
    from safetensors.torch import load

    from maven.encoders.faces import FaceNet, MiniVisual

    tensors, net = load(content), FaceNet()
    check_finite(tensors.values())
    net.load_state_dict({k: v.to(net.state_dict()[k].dtype) for k, v in tensors.items()})
    return MiniVisual(net, fingerprint, device)


def _audio(content: bytes, fingerprint: str, device: str) -> AudioEncoder:
    """Names begin with the number of their network: `0.mix.0.weight`."""
    from safetensors.torch import load

    from maven.encoders.voices import MiniAudio, VoiceNet

    by_number: dict[str, dict[str, Tensor]] = {}
    tensors = load(content)
    check_finite(tensors.values())
    for name, tensor in tensors.items():
        number, _, rest = name.partition(".")
        by_number.setdefault(number, {})[rest] = tensor
    if not by_number:
        raise RuntimeError("there is no network in the weights of the voice encoder")
    nets = []
    for number in sorted(by_number):
        net = VoiceNet()
        net.load_state_dict(
            {k: v.to(net.state_dict()[k].dtype) for k, v in by_number[number].items()}
        )
        nets.append(net)
    return MiniAudio(nets, fingerprint, device)


def _text(content: bytes, fingerprint: str, device: str) -> TextEncoder:
    from safetensors.numpy import load

    tensors = load(content)
    table, idf, bias = (tensors[k].astype(np.float32) for k in ("table", "idf", "bias"))
    if not all(np.isfinite(part).all() for part in (table, idf, bias)):
        raise ValueError("numbers in it are not finite")
    shapes = table.shape, idf.shape, bias.shape
    if shapes != ((BUCKETS, 2), (BUCKETS,), (2,)):
        raise RuntimeError(f"table, idf and bias have the shapes {shapes}, not a lexicon's")
    lexicon = Lexicon(table, idf, bias)
    if "names" in tensors:
        names, added = tensors["names"], tensors["added"].astype(np.float32)
        if (*names.shape, 2) != added.shape:
            raise RuntimeError(f"names and added have the shapes {names.shape} and {added.shape}")
        lexicon = replace(lexicon, names=names, added=added)
    return MiniText(lexicon, fingerprint)


LOADERS: dict[str, Callable[[bytes, str, str], Any]] = {
    "visual": _visual,
    "audio": _audio,
    "text": _text,
}


def load_mini(modality: str, weights: Path, device: str) -> Any:
    """Load the embedded encoder of a modality ("visual", "audio", "text") from its weights file.

    Raises:
        OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError: the file is not
            such weights.
        ImportError: it needs torch, which is not installed.
    """
    check_size(weights, MAX_BYTES)
    mark = mini_fingerprint(modality, weights)
    return LOADERS[modality](weights.read_bytes(), mark, device)


def mini_fingerprint(modality: str, weights: Path) -> str:
    """Fingerprint of the embedded encoder of a modality with the weights of this file."""
    settings = {"kind": "mini", "modality": modality, "preprocessing": PREPROCESSING}
    return fingerprint(settings, [weights])
