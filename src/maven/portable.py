"""Exported graphs as network and encoders: onnxruntime and numpy, no torch.

`maven.export` makes the graphs. Each carries what it is in its metadata, as JSON under `maven`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maven.config import MODALITIES, SLACK_S, MavenConfig
from maven.encoders.base import Encoders
from maven.encoders.build import KINDS, EncoderSpec, own_file
from maven.encoders.mini import MAX_BYTES as MAX_MINI_BYTES
from maven.encoders.mini import mini_fingerprint
from maven.files import sha256
from maven.tensors import check_size

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

GRAPHS = {part: f"onnx/{part}.onnx" for part in ("network", "visual", "audio")}
ABOUT = "maven"  # key of the metadata
MAX_BYTES = 2**31  # of a graph, as protobuf has it, and of the weights that it was made from
CROP_BATCH = 16  # from 8 on, more at once is not faster


class GraphError(Exception):
    """A file is no graph of ours, or cannot take what it was given; the message is one line."""


@dataclass(frozen=True)
class Graph:
    """An opened graph and what it says of itself."""

    session: InferenceSession
    about: dict[str, Any]

    def run(self, **inputs: npt.NDArray[Any]) -> Floats:
        """Give the one output for named inputs."""
        try:
            answer: Floats = self.session.run(None, inputs)[0]
        except Exception as error:  # as in `read_graph`
            reason = " ".join(str(error).split())[:200]
            raise GraphError(f"the graph of {self.about['part']} fails: {reason}") from error
        return answer


def read_graph(path: Path, part: str, threads: int | None = None) -> Graph:
    """Open an exported graph on the processor.

    Args:
        path: the file.
        part: key of `GRAPHS` that it must be.
        threads: of one pass; None for one a core. A thread that waits sleeps.

    Raises:
        GraphError: it cannot be read, or is something else.
    """
    import onnxruntime

    try:
        check_size(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise GraphError(f"{path}: not a graph of maven's: {error}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it keeps the most that any length needed, per length
    options.enable_mem_pattern = False
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        about = json.loads(session.get_modelmeta().custom_metadata_map[ABOUT])
        if not isinstance(about, dict) or about["part"] != part:
            found = str(about["part"]) if isinstance(about, dict) else "something else"
            raise GraphError(f"{path}: the graph of {found:.60}, not of {part}")
    except GraphError:
        raise
    except Exception as error:  # onnxruntime's kinds have no common parent of their own
        reason = (
            f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        )
        raise GraphError(f"{path}: not a graph of maven's: {reason[:200]}") from error
    return Graph(session, about)


class OnnxNetwork:
    """The network: `maven.inference.Network`."""

    def __init__(self, graph: Graph, config: MavenConfig) -> None:
        self.graph, self.config = graph, config

    def answers(
        self, values: Mapping[str, Floats], observed: Mapping[str, Mask], time_s: Times
    ) -> Times:
        """Answer one window of arrays: see `maven.inference.Network`.

        Raises:
            GraphError: the frames are denser than those that the graph was made for.
        """
        block, radius_s = self.graph.about.get("block"), self.config.radius_s
        if block is not None and radius_s is not None and len(time_s) > block + 1:
            apart_s = float((time_s[block + 1 :] - time_s[: -block - 1]).min())
            if apart_s <= radius_s + SLACK_S:
                raise GraphError(
                    f"an exported network takes at most {self.config.rate_hz:g} frames a second;"
                    f" got {block + 2} within {apart_s:.3f} s"
                )
        out = self.graph.run(
            **{m: np.ascontiguousarray(values[m], np.float32) for m in MODALITIES},
            observed=np.stack([observed[m] for m in MODALITIES], -1),
            time_s=(time_s - time_s[0]).astype(np.float32),
        )
        return out.astype(np.float64)


class OnnxVisual:
    """The embedded visual encoder: `maven.encoders.base.VisualEncoder`."""

    rate_hz = None

    def __init__(self, graph: Graph) -> None:
        about, self.graph = graph.about, graph
        self.name, self.fingerprint = str(about["name"]), str(about["fingerprint"])
        self.width, self.size_px = int(about["width"]), int(about["size_px"])

    def __call__(self, crops: npt.NDArray[np.uint8]) -> Floats:
        """Encode crops (n, size_px, size_px, 3) uint8 -> (n, d)."""
        out = np.empty((len(crops), self.width), np.float32)
        for start in range(0, len(crops), CROP_BATCH):
            part = slice(start, start + CROP_BATCH)
            out[part] = self.graph.run(crops=crops[part])
        return out


class OnnxAudio:
    """The embedded audio encoder: `maven.encoders.base.AudioEncoder`."""

    def __init__(self, graph: Graph) -> None:
        about, self.graph = graph.about, graph
        self.name, self.fingerprint = str(about["name"]), str(about["fingerprint"])
        self.width, self.rate_hz = int(about["width"]), float(about["rate_hz"])
        self.context_s, self._hop = float(about["context_s"]), int(about["hop"])

    def __call__(self, samples: Floats) -> Floats:
        """Encode samples (n,) at 16 kHz -> (n // hop, d)."""
        if len(samples) < self._hop:
            return np.zeros((0, self.width), np.float32)
        return self.graph.run(samples=samples)


@dataclass(frozen=True)
class Portable:
    """What `read_folder` gives; `weights_hash` is that of the network's weights file."""

    network: OnnxNetwork
    encoders: Encoders
    weights_hash: str


def portable(folder: Path, specs: Mapping[str, EncoderSpec]) -> bool:
    """Say whether a model folder has the graphs of all that needs one."""
    embedded = all(spec.kind == "mini" for spec in specs.values())
    return embedded and all((folder / file).is_file() for file in GRAPHS.values())


def read_folder(
    folder: Path, config: MavenConfig, specs: Mapping[str, EncoderSpec], threads: int | None = None
) -> Portable:
    """Open the graphs of a `portable` model folder, and its lexicon.

    Args:
        folder: of the model.
        config: of its network.
        specs: its encoders.
        threads: as in `read_graph`.

    Raises:
        GraphError: a file is no such graph, or was made from other weights than lie beside it.
        EncoderError: the lexicon cannot be read.
    """
    graphs = {part: read_graph(folder / file, part, threads) for part, file in GRAPHS.items()}
    weights_hash = str(graphs["network"].about.get("weights_sha256"))
    source = folder / "model.safetensors"
    try:
        if source.is_file():
            check_size(source, MAX_BYTES)
            _check(sha256(source) == weights_hash, folder / GRAPHS["network"], source)
        for modality in ("visual", "audio"):
            source = own_file(folder, specs[modality])
            if source.is_file():
                check_size(source, MAX_MINI_BYTES)
                mark = graphs[modality].about.get("fingerprint")
                same = mini_fingerprint(modality, source) == mark
                _check(same, folder / GRAPHS[modality], source)
    except (OSError, ValueError) as error:
        raise GraphError(f"{source}: no weights of maven's: {error}") from error
    text = KINDS["mini"].load("text", own_file(folder, specs["text"]), None, "cpu", True)
    try:
        encoders = Encoders(OnnxVisual(graphs["visual"]), OnnxAudio(graphs["audio"]), text)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise GraphError(f"{folder}: a graph does not say what it is: {error!r:.200}") from error
    return Portable(OnnxNetwork(graphs["network"], config), encoders, weights_hash)


def _check(same: bool, graph: Path, weights: Path) -> None:
    if not same:
        raise GraphError(f"{graph} was made from other weights than {weights.name}: export again")
