"""Models as ONNX: the network and the embedded encoders, each checked against PyTorch.

An exported folder has config.json, the graphs in `onnx/`, and the words' lexicon as it is. Lengths
are dynamic. `maven.portable` runs it, without torch.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maven.checkpoint import fetch, load_network, write_card
from maven.config import MODALITIES, SLACK_S, MavenConfig
from maven.encoders.build import build
from maven.encoders.faces import CROP_PX, MiniVisual
from maven.encoders.voices import (
    MEL_FFT,
    MEL_HOP,
    MEL_WINDOW,
    VOICE_STRIDE,
    MiniAudio,
    VoiceNet,
    mean_answer,
    mel_filters,
)
from maven.graphs import ExportError, apart, checked, write_graph
from maven.media import AUDIO_RATE_HZ
from maven.model import Maven, read_head
from maven.portable import GRAPHS, OnnxAudio, OnnxNetwork, OnnxVisual, read_graph

NEEDED = ("onnx", "onnxscript", "onnxruntime")
COPIED = ("LICENSE*", "*.md")  # go along with the weights
HOP = MEL_HOP * VOICE_STRIDE  # samples a vector of the voice
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: the model folder.
        differences: largest absolute difference of each graph from PyTorch.
        left_out: modalities that have no graph, and the kind of their encoder.
    """

    folder: Path
    differences: dict[str, float]
    left_out: dict[str, str]


def export(name: str | Path, folder: Path, *, offline: bool = False) -> Exported:
    """Write a model as a folder of ONNX graphs, which needs no torch: `--runtime onnx`.

    Of encoders that are not embedded ones no graph is made.

    Args:
        name: a model with its weights, as `maven.checkpoint.load` takes it.
        folder: is made; it must not be there yet, or be empty.
        offline: never fetch anything.

    Raises:
        ExportError: the folder is taken, a package is missing, or a graph differs from PyTorch by
            more than `maven.graphs.TOLERANCE`. Nothing is left behind then.
        ModelError, EncoderError: there is no such model.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already: give a new folder")
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise ExportError(f"needs {', '.join(missing)}: pip install 'maven[export]'")
    source = fetch(str(name), offline)
    found = load_network(source, device="cpu")
    specs = found.card.encoders
    embedded = all(spec.kind == "mini" for spec in specs.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
        part = Path(made) / folder.name
        paths = {graph: part / file for graph, file in GRAPHS.items()}
        (part / "onnx").mkdir(parents=True)
        differences = {
            "network": export_network(found.network, paths["network"], found.weights_hash)
        }
        if embedded:
            encoders = build(specs, folder=source, device="cpu", offline=offline)
            assert isinstance(encoders.visual, MiniVisual)
            assert isinstance(encoders.audio, MiniAudio)
            differences["visual"] = export_visual(encoders.visual, paths["visual"])
            differences["audio"] = export_audio(encoders.audio, paths["audio"])
            shutil.copyfile(source / specs["text"].source, part / "text.safetensors")
            specs = {m: replace(spec, source=f"{m}.safetensors") for m, spec in specs.items()}
        for path in (path for pattern in COPIED for path in source.glob(pattern)):
            shutil.copyfile(path, part / path.name)
        write_card(replace(found.card, encoders=specs), part)
        part.replace(folder)
    left_out = {} if embedded else {m: spec.kind for m, spec in specs.items()}
    return Exported(folder, differences, left_out)


# --- the network -------------------------------------------------------------------------------


class Fusion(nn.Module):
    """`Maven` as the graph has it: one window, several ways of muting it.

    In: one (t, d_m) a modality; observed (s, t, 3) bool; time_s (t,) from the window's first frame,
    float32. Out: (s, t, 2).
    """

    def __init__(self, network: Maven, block: int | None) -> None:
        super().__init__()
        self.network, self.block = network, block

    def forward(
        self, visual: Tensor, audio: Tensor, text: Tensor, observed: Tensor, time_s: Tensor
    ) -> Tensor:
        """Answer."""
        ways = observed.shape[0]
        values = zip(MODALITIES, (visual, audio, text), strict=True)
        features = {m: x[None].expand(ways, -1, -1) for m, x in values}
        muted = {m: observed[..., k] for k, m in enumerate(MODALITIES)}
        outputs = self.network.outputs(features, muted, time_s[None], self.block)
        return read_head(outputs, self.network.config.head)


def block_of(config: MavenConfig) -> int | None:
    """Frames of the network's own grid that its radius spans; None where it sees all."""
    if config.radius_s is None:
        return None
    return max(1, math.floor((config.radius_s + SLACK_S) * config.rate_hz))


def export_network(network: Maven, path: Path, weights_sha256: str) -> float:
    """Write and check the network's graph; returns its largest difference from PyTorch."""
    config, block = network.config, block_of(network.config)
    values, observed, time_s = window(config, 3, 3 * (block or 20) + 11, seed=0)
    inputs = (
        *(torch.from_numpy(values[m]) for m in MODALITIES),
        torch.from_numpy(np.stack([observed[m] for m in MODALITIES], -1)),
        torch.from_numpy(time_s - time_s[0]).float(),
    )
    dims = torch.export.Dim("ways"), torch.export.Dim("frames")
    shapes: dict[str, dict[int, Any]] = {m: {0: dims[1]} for m in MODALITIES}
    shapes |= {"observed": dict(enumerate(dims)), "time_s": {0: dims[1]}}
    about = {"part": "network", "block": block, "weights_sha256": weights_sha256}
    write_graph(Fusion(network, block).eval(), inputs, shapes, path, about)
    graph = OnnxNetwork(read_graph(path, "network", 1), config)
    size = block or 20
    sizes = ((7, 5 * size), (1, 1), (2, 2), (3, size), (2, size + 1), (1, 12 * size + 7))
    given = (window(config, ways, t, seed) for ways, t in sizes for seed in range(3))
    return checked(path, (apart(graph.answers(*x), network.answers(*x)) for x in given))


def window(
    config: MavenConfig, ways: int, t: int, seed: int
) -> tuple[dict[str, Array], dict[str, Array], npt.NDArray[np.float64]]:
    """Values, masks and times of a random window: some frames, or all of some modality, unseen."""
    random = np.random.default_rng(seed)
    values = {
        m: random.normal(size=(t, config.input_width(m))).astype(np.float32) for m in MODALITIES
    }
    observed = {m: random.uniform(size=(ways, t)) < 0.7 for m in MODALITIES}
    if seed:
        observed["visual"][:] = False
    if seed > 1:
        observed["audio"][: ways // 2 + 1] = observed["text"][: ways // 2 + 1] = False
    return values, observed, 1e4 * seed + np.arange(t) / config.rate_hz


# --- the encoders ------------------------------------------------------------------------------


def export_visual(encoder: MiniVisual, path: Path) -> float:
    """Write and check the visual encoder's graph; returns its largest difference from PyTorch."""
    about = {
        "part": "visual",
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "width": encoder.width,
        "size_px": encoder.size_px,
        "precision": "fp32",
    }
    write_graph(
        encoder.mirrored,
        (torch.from_numpy(faces(5)),),
        {"crops": {0: torch.export.Dim("n")}},
        path,
        about,
    )
    graph = OnnxVisual(read_graph(path, "visual", 1))
    given = (faces(n) for n in (1, 2, 33))
    return checked(path, (apart(graph(x), encoder(x)) for x in given))


def faces(n: int) -> npt.NDArray[np.uint8]:
    """Pictures (n, 56, 56, 3): smooth ones, noise, and, first, one of a single grey."""
    random = np.random.default_rng(n)
    coarse = random.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    smooth = coarse.repeat(CROP_PX // 8, 1).repeat(CROP_PX // 8, 2)
    smooth[::2] = random.integers(0, 256, smooth[::2].shape, dtype=np.uint8)
    smooth[:1] = 128
    return smooth


class Voices(nn.Module):
    """`MiniAudio` as the graph has it: samples (n,) -> (n // 640, 11); the DFT is a convolution."""

    waves: Tensor
    filters: Tensor

    def __init__(self, nets: list[VoiceNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        place = np.arange(MEL_WINDOW) + (MEL_FFT - MEL_WINDOW) // 2
        turns = np.outer(np.arange(MEL_FFT // 2 + 1), place) / MEL_FFT
        waves = np.concatenate((np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)))
        waves *= torch.hann_window(MEL_WINDOW, dtype=torch.float64).numpy()
        self.register_buffer("waves", torch.from_numpy(waves).float()[:, None])  # (514, 1, 400)
        self.register_buffer("filters", mel_filters())

    def forward(self, samples: Tensor) -> Tensor:
        """Answer; n is 640 or more."""
        pad = (MEL_WINDOW - MEL_HOP) // 2
        parts = F.conv1d(F.pad(samples, (pad, pad))[None, None], self.waves, stride=MEL_HOP)
        real, imaginary = parts.split(MEL_FFT // 2 + 1, 1)  # (1, 257, n // 160)
        mel = (self.filters.T @ (real * real + imaginary * imaginary) + 1e-10).log()
        return mean_answer(list(self.nets), mel[0])  # type: ignore[arg-type]


def export_audio(encoder: MiniAudio, path: Path) -> float:
    """Write and check the audio encoder's graph; returns its largest difference from PyTorch."""
    about = {
        "part": "audio",
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "width": encoder.width,
        "rate_hz": encoder.rate_hz,
        "context_s": encoder.context_s,
        "hop": HOP,
    }
    write_graph(
        Voices(encoder.nets).eval(),
        (torch.from_numpy(sound(5 * AUDIO_RATE_HZ + 77)),),
        {"samples": {0: torch.export.Dim("n", min=HOP)}},
        path,
        about,
    )
    graph = OnnxAudio(read_graph(path, "audio", 1))
    lengths = (HOP, 2 * HOP - 1, 40_000, 32 * AUDIO_RATE_HZ + 333)
    given = (np.zeros(3 * HOP, np.float32), *(sound(n) for n in lengths))
    return checked(path, (apart(graph(x), encoder(x)) for x in given))


def sound(n: int) -> npt.NDArray[np.float32]:
    """Sound (n,) with pauses: noise and tones of a changing level."""
    random = np.random.default_rng(n)
    time_s = np.arange(n) / AUDIO_RATE_HZ
    level = 0.2 * np.maximum(0, np.sin(2 * np.pi * 0.6 * time_s + 1))
    tone = np.sin(2 * np.pi * (170 * time_s + 10 * np.sin(2 * np.pi * 1.1 * time_s)))
    samples = level * (tone + 0.3 * random.normal(size=n))
    return samples.astype(np.float32)  # type: ignore[no-any-return]
