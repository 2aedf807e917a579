"""The three embedded encoders from their weights: a face CNN, a voice CNN and a word lexicon.

They follow the protocols of `base.py`, run on a laptop's processor and are trained by
`maven.pretrain` and `maven.lexicon`. Weights are one safetensors file a modality, stored as fp16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from maven.encoders.base import fingerprint
from maven.encoders.faces import FaceNet, MiniVisual
from maven.encoders.voices import MiniAudio, VoiceNet
from maven.encoders.words import BUCKETS, Lexicon, MiniText

if TYPE_CHECKING:
    from maven.encoders.base import AudioEncoder, TextEncoder, VisualEncoder

PREPROCESSING = 2  # to be raised with every change to what the networks are given


def _visual(tensors: dict[str, Tensor], fingerprint: str, device: str) -> VisualEncoder:
    net = FaceNet()
    net.load_state_dict({k: v.to(net.state_dict()[k].dtype) for k, v in tensors.items()})
    return MiniVisual(net, fingerprint, device)


def _audio(tensors: dict[str, Tensor], fingerprint: str, device: str) -> AudioEncoder:
    """Names begin with the number of their network: `0.mix.0.weight`."""
    by_number: dict[str, dict[str, Tensor]] = {}
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


def _text(tensors: dict[str, Tensor], fingerprint: str, device: str) -> TextEncoder:
    table, idf, bias = (tensors[k].float().numpy() for k in ("table", "idf", "bias"))
    shapes = table.shape, idf.shape, bias.shape
    if shapes != ((BUCKETS, 2), (BUCKETS,), (2,)):
        raise RuntimeError(f"table, idf and bias have the shapes {shapes}, not a lexicon's")
    lexicon = Lexicon(table, idf, bias)
    if "names" in tensors:
        names, added = tensors["names"].numpy(), tensors["added"].float().numpy()
        if (*names.shape, 2) != added.shape:
            raise RuntimeError(f"names and added have the shapes {names.shape} and {added.shape}")
        lexicon = replace(lexicon, names=names, added=added)
    return MiniText(lexicon, fingerprint)


LOADERS: dict[str, Callable[[dict[str, Tensor], str, str], Any]] = {
    "visual": _visual,
    "audio": _audio,
    "text": _text,
}


def load_mini(modality: str, weights: Path, device: str) -> Any:
    """Load the embedded encoder of a modality ("visual", "audio", "text") from its weights file.

    Raises:
        OSError, KeyError, RuntimeError, safetensors.SafetensorError: the file is not such weights.
    """
    from safetensors.torch import load

    settings = {"kind": "mini", "modality": modality, "preprocessing": PREPROCESSING}
    tensors = load(weights.read_bytes())
    return LOADERS[modality](tensors, fingerprint(settings, [weights]), device)
