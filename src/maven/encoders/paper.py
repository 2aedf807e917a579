"""The paper's three encoders: Swin-B, HuBERT-base, RoBERTa-base (eqs. 1-12), frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from maven.encoders.base import EncoderError, Floats, Pixels, pieces
from maven.encoders.hub import WEIGHTS
from maven.encoders.pretrained import Architecture, Pretrained, load_tokenizer, side_by_side
from maven.media import AUDIO_RATE_HZ

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # what Swin was trained with, used where a folder is silent
IMAGENET_STD = (0.229, 0.224, 0.225)
VISUAL_RATE_HZ = 10.0  # the grid of every preset
CUDA_CROPS = 64  # in one pass
MAX_PIECES = 8
VARIANCE_FLOOR = 1e-7  # Wav2Vec2FeatureExtractor; noise below -70 dB of full scale stays small
HUBERT_CONTEXT_S = 2.5  # its positional convolution reaches 1.28 s; its attention, all of the input


class SwinVisual(Pretrained):
    """Swin (Liu et al. 2021) on aligned face crops: the mean of the last stage, eqs. 1-4."""

    architecture = Architecture(
        "swin", "SwinModel", (("config.json",), WEIGHTS), ("preprocessor_config.json",)
    )
    rate_hz: float | None = VISUAL_RATE_HZ

    def _prepare(self) -> dict[str, object]:
        self.size_px: int = self.config.image_size
        said = self.preprocessor()
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
        if not len(crops):
            return np.empty((0, self.width), np.float32)
        gain, bias = self.upload(self._gain), self.upload(self._bias)

        def encode(part: Pixels) -> torch.Tensor:
            pixels = self.upload(part) * gain + bias
            return self.run("pooler_output", pixel_values=pixels.movedim(-1, 1))

        if self.device.type == "cuda":
            starts = range(0, len(crops), CUDA_CROPS)
            features = [encode(crops[k : k + CUDA_CROPS]) for k in starts]
        else:
            with self.alone():
                features = side_by_side(encode, crops)
        return torch.cat(features).cpu().numpy()


class HubertAudio(Pretrained):
    """HuBERT (Hsu et al. 2021) on the waveform: the states of its last layer, eqs. 5-7.

    The samples of one call are brought to zero mean and unit variance together, as the model's own
    preprocessing does, and HuBERT-base normalises its first layer over the same samples once more
    (group norm over time): a vector depends on the call as a whole. That is stable because
    `encode_audio` shows windows of one fixed length, somewhat longer than HuBERT's training crops.
    """

    architecture = Architecture(
        "hubert", "HubertModel", (("config.json",), WEIGHTS), ("preprocessor_config.json",)
    )
    context_s = HUBERT_CONTEXT_S

    def _prepare(self) -> dict[str, object]:
        hop, field = 1, 1  # samples from one vector to the next, 320; seen by one vector, 400
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            field += (kernel - 1) * hop
            hop *= stride
        self._hop = hop
        self._pad = (field - hop) // 2  # 40: centres vector k on (k + 0.5) hops
        self.rate_hz = AUDIO_RATE_HZ / hop

        said = self.preprocessor()
        rate_hz = said.get("sampling_rate", AUDIO_RATE_HZ)
        if rate_hz != AUDIO_RATE_HZ:
            raise EncoderError(
                f"{self.folder}: hears sound at {rate_hz} Hz; accepted: {AUDIO_RATE_HZ} Hz"
            )
        self._normalise: bool = said.get("do_normalize", True)
        return {"normalise": self._normalise, "pad": self._pad}

    def __call__(self, samples: Floats) -> Floats:
        """Encode samples (n,) at 16 kHz -> (floor(n / 320), width)."""
        if samples.size < self._hop:
            return np.empty((0, self.width), np.float32)
        heard = samples.astype(np.float64)
        if self._normalise:
            heard = (heard - heard.mean()) / np.sqrt(heard.var() + VARIANCE_FLOOR)
        # floor((n + 2 pad - 400) / 320) + 1 = floor(n / 320) vectors
        padded = self.upload(np.pad(heard, self._pad)[None].astype(np.float32))
        with self.alone():
            states = self.run("last_hidden_state", input_values=padded)  # (1, m, width)
        return states.squeeze(0).cpu().numpy()


class RobertaText(Pretrained):
    """RoBERTa (Liu et al. 2019) on words: each the mean of its sub-words' states, eqs. 8-12.

    A text beyond the network's 512 tokens is read in overlapping pieces, each token with a quarter
    of a piece on both sides. A word without sub-words (an empty string) gets zeros.
    """

    architecture = Architecture(
        "roberta",
        "RobertaModel",
        (("config.json",), ("tokenizer.json", "vocab.json"), WEIGHTS),
        ("merges.txt", "tokenizer_config.json"),
        (("add_pooling_layer", False),),
    )

    def _prepare(self) -> dict[str, object]:
        config = self.config
        # Positions count from pad_token_id + 1; two of the tokens are <s> and </s>.
        self._size: int = config.max_position_embeddings - config.pad_token_id - 1 - 2
        self._tokenizer = load_tokenizer(self.folder, config.vocab_size)
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
        before, after = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        states = np.empty((len(ids), self.width), np.float32)
        cut = list(pieces(len(ids), self._size, self._size // 4))  # all of one length
        for first in range(0, len(cut), MAX_PIECES):
            part = cut[first : first + MAX_PIECES]
            batch = np.array([[before, *ids[held], after] for held, _ in part], np.int64)
            with self.alone():
                result = self.run("last_hidden_state", input_ids=self.upload(batch))[:, 1:-1]
            for piece, (held, kept) in zip(result.cpu().numpy(), part, strict=True):
                states[kept] = piece[kept.start - held.start : kept.stop - held.start]
        return states
