"""Models on disk: a folder with `config.json` and `model.safetensors`, never a pickle.

config.json holds the network's configuration, the encoders it was trained on, the smoothing chosen
with its weights, its intervals, and where it comes from. Encoder sources are hub ids, or paths
relative to the folder. With, or instead of, the weights of the network and of embedded encoders of
face and voice, the folder may hold their graphs (`onnx/`, see `maven.portable`), which need no
torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maven.config import MODALITIES, MavenConfig, config_from
from maven.encoders.build import EncoderSpec, build
from maven.files import whole
from maven.intervals import Intervals
from maven.portable import GRAPHS, GraphError, portable, read_folder
from maven.tensors import check_finite, check_header, check_size

if TYPE_CHECKING:
    from maven.encoders.base import Encoders
    from maven.model import Maven
    from maven.portable import OnnxNetwork

MINI_FOLDER = Path(__file__).parent / "weights" / "mini"
MODELS_VARIABLE = "MAVEN_MODELS"  # a folder of model folders, found by name
RUNTIMES = ("auto", "onnx", "torch")
LARGEST_WEIGHTS_BYTES, LARGEST_CARD_BYTES = 2**33, 2**24
BAD_CONTENT = (  # what reading JSON of any content may raise
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
)
# Of a hub's model: no pickle
FETCHED = ("*.json", "*.safetensors", "*.onnx", "*.txt", "*.md", "LICENSE*")


class ModelError(Exception):
    """A model cannot be found or is not one; the message is one line."""


Rest = tuple[tuple[float, float], ...]  # (valence, arousal) of each modality
NO_REST: Rest = ((0.0, 0.0),) * len(MODALITIES)


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says of itself.

    Attributes:
        name: the folder's name.
        config: of the network.
        encoders: how to build each modality's encoder.
        smoothing_s: half-width of the box filter over the answer, chosen on validation data.
        training: seeds, versions, settings, data hashes and figures.
        intervals: calibrated with that smoothing; None where they were not.
        rest: what face, voice and words each add to (valence, arousal) where nobody expresses
            anything: `maven.inference.resting`. The origin where it was not measured.
    """

    name: str
    config: MavenConfig
    encoders: dict[str, EncoderSpec]
    smoothing_s: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)
    intervals: Intervals | None = None
    rest: Rest = NO_REST


@dataclass(frozen=True)
class Model:
    """A network ready to answer, with its encoders.

    Attributes:
        card: what it says of itself.
        network: in eval mode on `device`.
        encoders: frozen, on `device`.
        weights_hash: sha256 of the network's weights file.
        device: "cpu" or "cuda[:N]".
        runtime: "onnx" or "torch".
    """

    card: ModelCard
    network: Maven | OnnxNetwork
    encoders: Encoders
    weights_hash: str
    device: str
    runtime: str


def save(network: Maven, card: ModelCard, folder: Path) -> None:
    """Write a model folder; the configuration last, so that a folder with one is whole."""
    from safetensors.torch import save as to_bytes

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    described = _described(card)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "model.safetensors", to_bytes(tensors))
    write(folder / "config.json", described)


def write_card(card: ModelCard, folder: Path) -> None:
    """Write the config.json of a model folder anew."""
    write(folder / "config.json", _described(card))


def _described(card: ModelCard) -> bytes:
    content = {
        "name": card.name,
        "config": asdict(card.config),
        "encoders": {m: asdict(spec) for m, spec in card.encoders.items()},
        "smoothing_s": card.smoothing_s,
        "training": card.training,
        "rest": card.rest,
    }
    if card.intervals is not None:
        content["intervals"] = card.intervals.to_json()
    return (json.dumps(content, indent=2) + "\n").encode()


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole(path) as part:
        part.write_bytes(content)


def find(name: str) -> Path:
    """Find the folder of a model: `mini`, a folder, or a name in the folder $MAVEN_MODELS.

    Raises:
        ModelError: there is none.
    """
    if name == "mini":
        return MINI_FOLDER
    folder = Path(name)
    if (folder / "config.json").is_file():
        return folder
    if folder.is_dir():
        raise ModelError(f"{name} is no model folder: it lacks config.json")
    shelf = os.environ.get(MODELS_VARIABLE)
    if shelf and (Path(shelf) / name / "config.json").is_file():
        return Path(shelf) / name
    if name == "paper":
        raise ModelError(
            "no weights of the paper's network are published: train them, then give their folder"
            f" (--model FOLDER) or put it at ${MODELS_VARIABLE}/paper"
        )
    raise ModelError(f"no model named {name}: give mini, a model folder or a hub id (owner/name)")


def fetch(name: str, offline: bool) -> Path:
    """Find a model folder, or fetch it from a hub when `name` is a hub id (owner/name).

    Raises:
        ModelError: it is neither on disk nor to be fetched.
    """
    try:
        return find(name)
    except ModelError:
        if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(
            snapshot_download(
                name, local_files_only=offline, etag_timeout=5, allow_patterns=list(FETCHED)
            )
        )
    except Exception as error:  # the hub's client raises a dozen kinds
        if offline:
            reason = "not on disk, and --offline forbids fetching"
        elif isinstance(error, LocalEntryNotFoundError):
            reason = "not on disk, and the hub cannot be reached"
        elif isinstance(error, RepositoryNotFoundError):
            reason = "not on the hub, or not open to this user"
        else:
            reason = _one_line(error)
        raise ModelError(f"cannot fetch the model {name}: {reason}") from error


def read_card(folder: Path) -> ModelCard:
    """Read a model folder's config.json.

    Raises:
        ModelError: it is missing or does not describe a model.
    """
    path = folder / "config.json"
    try:
        check_size(path, LARGEST_CARD_BYTES)
        content = json.loads(path.read_text(encoding="utf-8"))
        return ModelCard(
            str(content["name"]),
            config_from(content["config"]),
            {m: EncoderSpec(**spec) for m, spec in content["encoders"].items()},
            float(content.get("smoothing_s", 0.0)),
            content.get("training", {}),
            Intervals.from_json(content["intervals"]) if content.get("intervals") else None,
            _rest(content["rest"]) if "rest" in content else NO_REST,
        )
    except BAD_CONTENT as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else _one_line(error)
        raise ModelError(f"{path} does not describe a model: {reason}") from error


def _rest(values: Any) -> Rest:
    rest = tuple((float(valence), float(arousal)) for valence, arousal in values)
    if len(rest) != len(MODALITIES) or not all(math.isfinite(v) for pair in rest for v in pair):
        raise ValueError(f"rest is {values!r}, needs (valence, arousal) of {len(MODALITIES)}")
    return rest


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@dataclass(frozen=True)
class Network:
    """A network ready to answer on features, without encoders.

    Attributes:
        card: what it says of itself.
        network: in eval mode on `device`.
        weights_hash: sha256 of its weights file.
        folder: where it was found.
        device: "cpu" or "cuda[:N]".
    """

    card: ModelCard
    network: Maven
    weights_hash: str
    folder: Path
    device: str


def load_network(
    name: str | Path = "mini", *, device: str = "auto", offline: bool = False
) -> Network:
    """Load a model's network alone, for features that are there already; arguments as in `load`.

    Raises:
        ModelError: there is no such model, its files do not fit together, or torch is missing.
    """
    folder = fetch(str(name), offline)
    return _network(folder, read_card(folder), choose_device(device))


def _network(folder: Path, card: ModelCard, device: str) -> Network:
    need_torch(card.name)
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    from maven.model import Maven

    path = folder / "model.safetensors"
    if not path.exists() and (folder / GRAPHS["network"]).exists():
        raise ModelError(f"{folder} holds an exported model, without {path.name}: --runtime onnx")
    try:
        check_size(path, LARGEST_WEIGHTS_BYTES)
        with torch.device("meta"):  # costs nothing, whatever the sizes in config.json
            wanted = {k: tuple(v.shape) for k, v in Maven(card.config).state_dict().items()}
        check_header(path, wanted)
        content = path.read_bytes()
        tensors = {k: v.float() for k, v in from_bytes(content).items()}
        check_finite(tensors.values())
        network = Maven(card.config)
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} does not hold this network's weights: {_one_line(error)}"
        ) from error
    weights_hash = hashlib.sha256(content).hexdigest()
    return Network(card, network.to(device).eval(), weights_hash, folder, device)


def load(
    name: str | Path = "mini",
    *,
    device: str = "auto",
    offline: bool = False,
    runtime: str = "auto",
    threads: int | None = None,
) -> Model:
    """Load a model by name, folder or hub id.

    Args:
        name: "mini" (in the package), "paper", a model folder, or a hub id (owner/name).
        device: "auto" (a GPU when there is one), "cpu" or "cuda[:N]".
        offline: never fetch anything.
        runtime: "onnx" (onnxruntime on the processor), "torch", or "auto": onnx where the folder
            has graphs of all that needs one, and `device` is auto or cpu.
        threads: that one pass through a network may use; None for what the runtime thinks best.
            With torch it holds for the whole process.

    Raises:
        ModelError: there is no such model, its files do not fit together, or it does not run so.
        EncoderError: an encoder cannot be built.
    """
    if runtime not in RUNTIMES:
        raise ModelError(f"no runtime {runtime}; accepted: {', '.join(RUNTIMES)}")
    folder = fetch(str(name), offline)
    card = read_card(folder)
    graphs = portable(folder, card.encoders)
    if runtime == "auto":
        runtime = "onnx" if graphs and device in ("auto", "cpu") else "torch"
    if runtime == "onnx":
        if device not in ("auto", "cpu"):
            raise ModelError(f"the runtime onnx runs on the processor; got the device {device}")
        if not graphs:
            raise ModelError(
                f"{folder} lacks graphs for the runtime onnx: `maven export` makes them"
                " for models with mini's encoders"
            )
        try:
            made = read_folder(folder, card.config, card.encoders, threads)
        except GraphError as error:
            raise ModelError(str(error)) from error
        model = Model(card, made.network, made.encoders, made.weights_hash, "cpu", runtime)
    else:
        found = _network(folder, card, choose_device(device))
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        encoders = build(card.encoders, folder=folder, device=found.device, offline=offline)
        model = Model(card, found.network, encoders, found.weights_hash, found.device, runtime)
    for modality in MODALITIES:
        wanted, width = card.config.input_width(modality), getattr(model.encoders, modality).width
        if width != wanted:
            raise ModelError(
                f"{folder} does not fit together: its network takes {wanted} {modality}"
                f" features, its encoder gives {width}"
            )
    return model


def need_torch(name: str) -> None:
    """Refuse to go on without torch.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"{name} needs torch, which is not installed: pip install 'maven[torch]'"
        ) from error


def choose_device(device: str) -> str:
    """Turn "auto" into the best device here, and check any other.

    Raises:
        ModelError: no such device.
    """
    try:
        import torch
    except ImportError:
        gpus = 0
    else:
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if gpus else "cpu"
    cuda = re.fullmatch(r"cuda(?::(\d{1,4}))?", device)
    if device != "cpu" and not (cuda and int(cuda[1] or 0) < gpus):
        raise ModelError(f"no device {device} here; accepted: auto, cpu, or cuda[:N] with a GPU")
    return device


def available() -> list[tuple[str, str, str, str]]:
    """List the models at hand: name, where, size, and what it is."""
    shelf = os.environ.get(MODELS_VARIABLE)
    folders = [MINI_FOLDER] if (MINI_FOLDER / "config.json").is_file() else []
    if shelf and Path(shelf).is_dir():
        folders += sorted(path.parent for path in Path(shelf).glob("*/config.json"))
    rows = []
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        try:
            kinds = [spec.kind for spec in read_card(folder).encoders.values()]
            what = "encoders: " + ", ".join(kinds)
        except ModelError as error:
            what = f"broken: {error}"
        where = "in the package" if folder == MINI_FOLDER else str(folder)
        rows.append((folder.name, where, f"{size / 1e6:.1f} MB", what))
    if not any(name == "paper" for name, *_ in rows):
        rows.append(("paper", "nowhere", "", "Swin-B, HuBERT, RoBERTa; weights to be trained"))
    return rows
