"""The paper's three encoders through transformers: Swin-B, HuBERT-base, RoBERTa-base (eqs. 1-12).

Each is loaded from a folder, or from the hub where it is not on disk yet (`hub.folder_of`), frozen,
and never trained.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from maven.encoders.base import EncoderError, Floats, Pixels, fingerprint, pieces
from maven.encoders.hub import WEIGHTS, folder_of
from maven.media import AUDIO_RATE_HZ

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16"]

UNUSED = {"masked_spec_embed"}  # weights that only training reads: they may be missing

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # what Swin was trained with, used where a folder is silent
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_CROPS = (8, 64)  # in one pass of the network, without and with CUDA
MAX_PIECES = 8
VARIANCE_FLOOR = 1e-7  # Wav2Vec2FeatureExtractor; noise below -70 dB of full scale stays small
HUBERT_CONTEXT_S = 2.5  # its positional convolution reaches 1.28 s; its attention, all of the input


@dataclass(frozen=True)
class _Architecture:
    """A network of transformers: its type in config.json, its class, its files, its options."""

    kind: str
    model: str
    required: tuple[tuple[str, ...], ...]  # of each group one file; all enter the fingerprint
    optional: tuple[str, ...]
    options: tuple[tuple[str, bool], ...] = ()


class _Pretrained:
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

    architecture: ClassVar[_Architecture]

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
        self._folder = folder_of(
            source,
            required=wanted.required,
            optional=wanted.optional,
            revision=revision,
            offline=offline,
        )
        found = _read_json(self._folder / "config.json").get("model_type")
        if found != wanted.kind:
            raise EncoderError(
                f"{source}: holds a model of type {found!r}; accepted here: {wanted.kind!r}"
            )
        self._device = _device(device)
        self._bf16 = precision == "bf16" or (precision == "auto" and _bf16_is_fast(self._device))
        model = _load(wanted, self._folder)
        self._config = model.config
        self._model = model.float().eval().requires_grad_(False).to(self._device)
        self.width: int = model.config.hidden_size
        files = [
            next(self._folder / name for name in names if (self._folder / name).is_file())
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

    def _run(self, output: str, **inputs: torch.Tensor) -> Floats:
        """Run the network; return the named output as float32 on the host."""
        import torch

        inputs = {name: value.to(self._device) for name, value in inputs.items()}
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16),
        ):
            result: torch.Tensor = self._model(**inputs)[output]
        return result.float().cpu().numpy()

    def _preprocessor(self) -> dict[str, Any]:
        path = self._folder / "preprocessor_config.json"
        return _read_json(path) if path.is_file() else {}


class SwinVisual(_Pretrained):
    """Swin (Liu et al. 2021) on aligned face crops: the mean of the last stage, eqs. 1-4."""

    architecture = _Architecture(
        "swin", "SwinModel", (("config.json",), WEIGHTS), ("preprocessor_config.json",)
    )

    def _prepare(self) -> dict[str, object]:
        self.size_px: int = self._config.image_size
        said = self._preprocessor()
        scale = said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0
        normalise = said.get("do_normalize", True)
        mean = said.get("image_mean", IMAGENET_MEAN) if normalise else (0.0, 0.0, 0.0)
        std = said.get("image_std", IMAGENET_STD) if normalise else (1.0, 1.0, 1.0)
        self._gain = (scale / np.array(std)).astype(np.float32)  # (3,)
        self._bias = (-np.array(mean) / np.array(std)).astype(np.float32)
        return {"scale": scale, "mean": mean, "std": std}

    def __call__(self, crops: Pixels) -> Floats:
        """Encode RGB crops (n, size_px, size_px, 3) uint8 -> (n, width)."""
        import torch

        expected = (self.size_px, self.size_px, 3)
        if crops.shape[1:] != expected or crops.dtype != np.uint8:
            raise ValueError(
                f"crops are {crops.shape[1:]} {crops.dtype}; accepted: {expected} uint8"
            )
        features = np.empty((len(crops), self.width), np.float32)
        gain, bias = torch.from_numpy(self._gain), torch.from_numpy(self._bias)
        size = MAX_CROPS[self._device.type == "cuda"]
        for start in range(0, len(crops), size):
            part = slice(start, start + size)
            pixels = torch.from_numpy(np.ascontiguousarray(crops[part])) * gain + bias
            features[part] = self._run("pooler_output", pixel_values=pixels.movedim(-1, 1))
        return features


class HubertAudio(_Pretrained):
    """HuBERT (Hsu et al. 2021) on the waveform: the states of its last layer, eqs. 5-7.

    The samples of one call are brought to zero mean and unit variance together, as the model's own
    preprocessing does, and HuBERT-base normalises its first layer over the same samples once more
    (group norm over time): a vector depends on the call as a whole. That is stable because
    `encode_audio` shows windows of one fixed length, somewhat longer than HuBERT's training crops.
    """

    architecture = _Architecture(
        "hubert", "HubertModel", (("config.json",), WEIGHTS), ("preprocessor_config.json",)
    )
    context_s = HUBERT_CONTEXT_S

    def _prepare(self) -> dict[str, object]:
        hop, field = 1, 1  # samples from one vector to the next, 320; seen by one vector, 400
        for kernel, stride in zip(self._config.conv_kernel, self._config.conv_stride, strict=True):
            field += (kernel - 1) * hop
            hop *= stride
        self._hop = hop
        self._pad = (field - hop) // 2  # 40: centres vector k on (k + 0.5) hops
        self.rate_hz = AUDIO_RATE_HZ / hop

        said = self._preprocessor()
        rate_hz = said.get("sampling_rate", AUDIO_RATE_HZ)
        if rate_hz != AUDIO_RATE_HZ:
            raise EncoderError(
                f"{self._folder}: hears sound at {rate_hz} Hz; accepted: {AUDIO_RATE_HZ} Hz"
            )
        self._normalise: bool = said.get("do_normalize", True)
        return {"normalise": self._normalise, "pad": self._pad}

    def __call__(self, samples: Floats) -> Floats:
        """Encode samples (n,) at 16 kHz -> (floor(n / 320), width)."""
        import torch

        if samples.size < self._hop:
            return np.empty((0, self.width), np.float32)
        heard = samples.astype(np.float64)
        if self._normalise:
            heard = (heard - heard.mean()) / np.sqrt(heard.var() + VARIANCE_FLOOR)
        # floor((n + 2 pad - 400) / 320) + 1 = floor(n / 320) vectors
        padded = torch.from_numpy(np.pad(heard, self._pad)[None]).float()
        states = self._run("last_hidden_state", input_values=padded)  # (1, m, width)
        return states.squeeze(0)


class RobertaText(_Pretrained):
    """RoBERTa (Liu et al. 2019) on words: each the mean of its sub-words' states, eqs. 8-12.

    A text beyond the network's 512 tokens is read in overlapping pieces, each token with a quarter
    of a piece on both sides. A word without sub-words (an empty string) gets zeros.
    """

    architecture = _Architecture(
        "roberta",
        "RobertaModel",
        (("config.json",), ("tokenizer.json", "vocab.json"), WEIGHTS),
        ("merges.txt", "tokenizer_config.json"),
        (("add_pooling_layer", False),),
    )

    def _prepare(self) -> dict[str, object]:
        config = self._config
        # Positions count from pad_token_id + 1; two of the tokens are <s> and </s>.
        self._size: int = config.max_position_embeddings - config.pad_token_id - 1 - 2
        self._tokenizer = _tokenizer(self._folder, config.vocab_size)
        return {"size": self._size, "prefix": " ", "pool": "mean"}

    def __call__(self, words: Sequence[str]) -> Floats:
        """Encode words -> (len(words), width)."""
        features = np.zeros((len(words), self.width), np.float32)
        # Lone surrogates, from a subtitle file in a wrong encoding, are no text to the tokeniser.
        clean = [word.encode(errors="replace").decode() for word in words]
        tokens = self._tokenizer(
            clean, is_split_into_words=True, add_special_tokens=False, verbose=False
        )
        if not tokens.input_ids:
            return features
        owners = np.array(tokens.word_ids())  # (s,): the word of each token
        np.add.at(features, owners, self._states(tokens.input_ids))
        features /= np.maximum(1, np.bincount(owners, minlength=len(words)))[:, None]
        return features

    def _states(self, ids: list[int]) -> Floats:
        """Last hidden states (s, width) of tokens (s,)."""
        import torch

        before, after = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        states = np.empty((len(ids), self.width), np.float32)
        cut = list(pieces(len(ids), self._size, self._size // 4))  # all of one length
        for first in range(0, len(cut), MAX_PIECES):
            part = cut[first : first + MAX_PIECES]
            batch = torch.tensor([[before, *ids[held], after] for held, _ in part])
            result = self._run("last_hidden_state", input_ids=batch)[:, 1:-1]
            for piece, (held, kept) in zip(result, part, strict=True):
                states[kept] = piece[kept.start - held.start : kept.stop - held.start]
        return states


def _load(wanted: _Architecture, folder: Path) -> Any:
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
                folder, local_files_only=True, output_loading_info=True, **dict(wanted.options)
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


def _tokenizer(folder: Path, vocabulary: int) -> Any:
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
    except ValueError as error:
        raise EncoderError(f"{path}: not JSON ({_reason(error)})") from error
    if not isinstance(content, dict):
        raise EncoderError(f"{path}: a JSON object is expected, not {content!r:.40}")
    return content


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
