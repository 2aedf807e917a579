"""A frozen network of transformers: from a folder onto its device, and run there.

Each is loaded from a folder, or from the hub where it is not on disk yet (`hub.folder_of`), and
never trained. docs/performance.md has what the ways to run it gain.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from maven.encoders.base import EncoderError, Pixels, fingerprint
from maven.encoders.hub import WEIGHTS, folder_of

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16"]

UNUSED = {"masked_spec_embed"}  # weights that only training reads: they may be missing
MAX_CROPS = 4  # in one pass on a processor: its activations stay in the cache
MAX_PASSES = 8  # at the same time

_PROCESSOR = threading.Lock()  # two networks on one would wait for each other's threads


@dataclass(frozen=True)
class Architecture:
    """A network of transformers: its type in config.json, its class, its files, its options."""

    kind: str
    model: str
    required: tuple[tuple[str, ...], ...]  # of each group one file; all enter the fingerprint
    optional: tuple[str, ...]
    options: tuple[tuple[str, bool], ...] = ()


class Pretrained:
    """A frozen network of transformers on its device: what the three encoders share.

    Args:
        source: a folder, or an id on the hub such as facebook/hubert-base-ls960.
        revision: branch, tag or commit on the hub.
        offline: never use the network.
        device: "cpu", "cuda" or "cuda:N".
        precision: "auto" takes bfloat16 where the machine is fast at it.

    Raises:
        EncoderError: the model is not to be had, or is not of the encoder's architecture.
    """

    architecture: ClassVar[Architecture]

    def __init__(
        self,
        source: str | Path,
        *,
        revision: str | None = None,
        offline: bool = False,
        device: str = "cpu",
        precision: Precision = "auto",
    ) -> None:
        wanted = self.architecture
        self.folder = folder_of(
            source,
            required=wanted.required,
            optional=wanted.optional,
            revision=revision,
            offline=offline,
        )
        found = _read_json(self.folder / "config.json").get("model_type")
        if found != wanted.kind:
            raise EncoderError(
                f"{source}: holds a model of type {found!r}; accepted here: {wanted.kind!r}"
            )
        self.device = _device(device)
        self._bf16 = precision == "bf16" or (precision == "auto" and _bf16_is_fast(self.device))
        model = _load(wanted, self.folder)
        self.config = model.config
        self._model = model.float().eval().requires_grad_(False)
        if self._bf16:
            _halve(self._model)
            if self.device.type == "cpu":
                _pack(self._model)
        self._model.to(self.device)
        self.width: int = model.config.hidden_size
        files = [
            next(self.folder / name for name in names if (self.folder / name).is_file())
            for names in wanted.required
        ]
        self.fingerprint = fingerprint({"kind": wanted.kind, **self._prepare()}, files)

    @property
    def name(self) -> str:
        """The architecture's name."""
        return self.architecture.kind

    def _prepare(self) -> dict[str, object]:
        """Set up what surrounds the network; return its settings, which enter the fingerprint."""
        raise NotImplementedError

    def upload(self, values: npt.NDArray[Any]) -> torch.Tensor:
        """Bring an array to the device; where that is a GPU, without waiting for it."""
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def run(self, output: str, **inputs: torch.Tensor) -> torch.Tensor:
        """Run the network; return the named output as float32 on the device."""
        import torch

        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16),
        ):
            result: torch.Tensor = self._model(**inputs)[output]
        return result.float()

    def alone(self) -> contextlib.AbstractContextManager[object]:
        """Let no other of these networks run on the processor meanwhile."""
        return _PROCESSOR if self.device.type == "cpu" else contextlib.nullcontext()

    def preprocessor(self) -> dict[str, Any]:
        """What the folder says of how its inputs are prepared; empty where it is silent."""
        path = self.folder / "preprocessor_config.json"
        return _read_json(path) if path.is_file() else {}


def _load(wanted: Architecture, folder: Path) -> Any:
    """Load a network of transformers, with all of its weights."""
    try:
        import transformers
    except ImportError as error:
        raise EncoderError(
            "transformers is not installed, and the paper's encoders need it: "
            "pip install 'maven[paper]'"
        ) from error
    try:
        with _quiet():
            model, report = getattr(transformers, wanted.model).from_pretrained(
                folder,
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                weights_only=True,  # of a pytorch_model.bin: tensors, nothing is executed
                use_safetensors=(folder / WEIGHTS[0]).is_file(),
                **dict(wanted.options),
            )
    except Exception as error:  # a damaged file raises whatever its reader meets
        raise EncoderError(
            f"{folder}: cannot be loaded as {wanted.model} ({_reason(error)})"
        ) from error
    missing = sorted(set(report["missing_keys"]) - UNUSED)
    if missing:
        raise EncoderError(
            f"{folder}: lacks {len(missing)} weights of {wanted.model}, such as {missing[0]}"
        )
    return model


def side_by_side(encode: Callable[[Pixels], torch.Tensor], crops: Pixels) -> list[torch.Tensor]:
    """Encode crops in small passes, one a thread of torch where torch has several.

    Threads that share a pass wait for the slowest of them after every layer, which costs most when
    decoding and detection take turns with them.
    """
    import torch

    threads = torch.get_num_threads()
    workers = min(threads, len(crops), MAX_PASSES)
    size = min(MAX_CROPS, math.ceil(len(crops) / workers))
    parts = [crops[k : k + size] for k in range(0, len(crops), size)]
    workers = min(workers, len(parts))
    if workers == 1:
        return [encode(part) for part in parts]
    limit = (torch.set_num_threads, (threads // workers,))
    try:
        with ThreadPoolExecutor(workers, "pass", *limit) as pool:
            return list(pool.map(encode, parts))
    finally:
        torch.set_num_threads(threads)  # in part the number is the process', not the thread's


def _halve(model: Any) -> None:
    """Cast the weights of linear maps and convolutions to bfloat16, once.

    Autocast casts those of a frozen network anew in every pass, to the same values.
    """
    import torch
    from torch.nn.utils import parametrize

    for module in model.modules():
        kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)
        # a parametrised weight is computed in every pass, in float32
        if isinstance(module, kinds) and not parametrize.is_parametrized(module):
            module.to(torch.bfloat16)


def _pack(model: Any) -> None:
    """Keep the weights of linear maps in the order in which oneDNN reads them.

    Otherwise it reorders them in every pass. The operators are those of the graphs that
    torch.compile makes with `freezing`, which costs a minute at each start.
    """
    import torch

    operators = torch.ops.mkldnn
    if not hasattr(operators, "_linear_pointwise"):  # a build of torch without oneDNN
        return

    class Packed(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.packed, self.bias = operators._reorder_linear_weight(linear.weight), linear.bias

        def forward(self, x: torch.Tensor) -> Any:
            half = x.to(torch.bfloat16)
            return operators._linear_pointwise(half, self.packed, self.bias, "none", [], "")

    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is torch.nn.Linear:
                setattr(module, name, Packed(child))


def load_tokenizer(folder: Path, vocabulary: int) -> Any:
    """Load the tokenizer of a RoBERTa.

    Raises:
        EncoderError: it cannot be read, or has more tokens than the network's vocabulary.
    """
    from transformers import RobertaTokenizerFast

    try:
        with _quiet():
            tokenizer = RobertaTokenizerFast.from_pretrained(
                folder, local_files_only=True, add_prefix_space=True
            )
    except Exception as error:  # as in _load
        raise EncoderError(
            f"{folder}: its tokenizer cannot be loaded ({_reason(error)})"
        ) from error
    # Without its files a tokenizer loads all the same, with a few special tokens; 256 are bytes.
    if not 256 < len(tokenizer) <= vocabulary:
        raise EncoderError(
            f"{folder}: its tokenizer has {len(tokenizer)} tokens, its network {vocabulary}"
        )
    return tokenizer


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' bars and notes, and put its settings back afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EncoderError(f"device {name!r}; accepted: cpu, cuda, cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EncoderError(f"device {name!r}: torch sees {torch.cuda.device_count()} of them here")
    return device


def _bf16_is_fast(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Older versions of torch do not say: float32 is right everywhere.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderError(f"{path}: not JSON ({_reason(error)})") from error
    if not isinstance(content, dict):
        raise EncoderError(f"{path}: a JSON object is expected, not {content!r:.40}")
    return content


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
