"""The three small embedded encoders: a face CNN, a voice CNN and a word lexicon.

They follow the protocols of `base.py`, run on a laptop's processor and are trained from scratch by
`maven.pretrain`. Weights are one safetensors file a modality, stored as fp16.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maven.encoders.base import fingerprint
from maven.media import AUDIO_RATE_HZ

if TYPE_CHECKING:
    from maven.encoders.base import AudioEncoder, TextEncoder, VisualEncoder

Floats = npt.NDArray[np.float32]

PREPROCESSING = 1  # to be raised with every change to what the networks are given

# --- face ------------------------------------------------------------------------------------

CROP_PX = 56  # the aligned crop that the encoder asks for
FACE_PX = 48  # the part of it that the network sees, in training at a random offset
FACE_TOP_PX, FACE_LEFT_PX = 6, 4  # rows 6:54, columns 4:52: mouth and chin in, hair out
FACE_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
FACE_BATCH = 64


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut, (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return F.relu(x + self.body(x))


def _down(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


class FaceNet(nn.Module):
    """Grey faces (n, 1, 48, 48) in [0, 1] -> (n, 128); 1.1 M weights, 80 M multiply-adds."""

    width = 128

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(1, 48, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(inplace=True),
            Residual(48), _down(48, 96), Residual(96), _down(96, 192), Residual(192),
        )  # fmt: skip
        self.embed = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(192 * 2, self.width), nn.BatchNorm1d(self.width), nn.ReLU()
        )
        self.classes = nn.Linear(self.width, len(FACE_CLASSES))
        self.affect = nn.Linear(self.width, 2)

    def forward(self, faces: Tensor) -> Tensor:
        """Embed faces (n, 1, 48, 48), each standardised by its own mean and spread."""
        mean = faces.mean((1, 2, 3), keepdim=True)
        spread = faces.std((1, 2, 3), keepdim=True).clamp_min(0.05)
        maps = self.maps((faces - mean) / spread)
        pooled = torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), 1)
        return self.embed(pooled)  # type: ignore[no-any-return]

    def answer(self, embedded: Tensor) -> Tensor:
        """Read embeddings (n, 128) -> valence, arousal and seven class logits (n, 9)."""
        return torch.cat((self.affect(embedded), self.classes(embedded)), -1)


def grey_faces(crops: Tensor) -> Tensor:
    """Turn RGB crops (n, 56, 56, 3) uint8 into grey ones (n, 1, 56, 56) in [0, 1], BT.601."""
    weights = torch.tensor((0.299, 0.587, 0.114), device=crops.device)
    return (crops.float() @ weights / 255.0)[:, None]


class MiniVisual:
    """`FaceNet` as a visual encoder: the mean answer to a crop and its mirror image.

    It passes on what its network learned to say (valence, arousal, class logits), not the embedding
    before it: those nine numbers mean the same on faces seen in training and on new ones, while the
    embedding of a face that was learned by heart does not.
    """

    size_px = CROP_PX
    width = 2 + len(FACE_CLASSES)

    def __init__(self, net: FaceNet, fingerprint: str, device: str) -> None:
        self.name, self.fingerprint = "mini-face", fingerprint
        self.net, self._device = net.to(device).eval(), device

    @torch.inference_mode()
    def __call__(self, crops: npt.NDArray[np.uint8]) -> Floats:
        """Encode crops (n, 56, 56, 3) uint8 -> (n, 9)."""
        out = np.empty((len(crops), self.width), np.float32)
        for start in range(0, len(crops), FACE_BATCH):
            batch = torch.from_numpy(crops[start : start + FACE_BATCH]).to(self._device)
            top, left = FACE_TOP_PX, FACE_LEFT_PX
            faces = grey_faces(batch)[:, :, top : top + FACE_PX, left : left + FACE_PX]
            both = self.net.answer(self.net(torch.cat((faces, faces.flip(3)))))
            out[start : start + len(batch)] = both.unflatten(0, (2, -1)).mean(0).cpu().numpy()
        return out


# --- voice -----------------------------------------------------------------------------------

MEL_BINS = 64
MEL_HOP = 160  # samples: 100 frames a second
MEL_WINDOW = 400
MEL_FFT = 512
MEL_LOW_HZ, MEL_HIGH_HZ = 60.0, 7600.0
LEVEL_S = 2.0  # loudness is measured within this much on either side, and taken out
FLOOR = -9.0  # log power, relative to that loudness (-39 dB), below which nothing is heard
VOICE_STRIDE = 4  # mel frames a vector: 25 vectors a second
VOICE_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "calm")


def mel_filters() -> Tensor:
    """Triangular filters (257, 64) on the HTK mel scale, each of unit sum."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (MEL_LOW_HZ, MEL_HIGH_HZ))
    edges_hz = 700 * (10 ** (np.linspace(low, high, MEL_BINS + 2) / 2595) - 1)
    bins_hz = np.linspace(0, AUDIO_RATE_HZ / 2, MEL_FFT // 2 + 1)[:, None]
    rise = (bins_hz - edges_hz[:-2]) / np.diff(edges_hz)[:-1]
    fall = (edges_hz[2:] - bins_hz) / np.diff(edges_hz)[1:]
    filters = np.maximum(0, np.minimum(rise, fall))
    return torch.from_numpy((filters / filters.sum(0).clip(1e-9)).astype(np.float32))


def log_mel(samples: Tensor, filters: Tensor) -> Tensor:
    """Log mel power of samples (n,) at 16 kHz -> (64, n // 160); frame k is at 10 k + 5 ms."""
    frames = len(samples) // MEL_HOP
    pad = (MEL_FFT - MEL_HOP) // 2
    padded = F.pad(samples, (pad, pad + MEL_FFT))[: (frames - 1) * MEL_HOP + MEL_FFT]
    if not frames:
        return samples.new_zeros(MEL_BINS, 0)
    window = F.pad(
        torch.hann_window(MEL_WINDOW, device=samples.device), [(MEL_FFT - MEL_WINDOW) // 2] * 2
    )
    spectrum = torch.fft.rfft(padded.unfold(0, MEL_FFT, MEL_HOP) * window)
    power: Tensor = spectrum.abs().square() @ filters
    return (power + 1e-10).log().T


def level_free(mel: Tensor) -> Tensor:
    """Take the loudness within `LEVEL_S` of each frame out of log mels (..., 64, t); floor them.

    A gain on the sound then changes nothing; vocal effort stays visible in the spectrum's shape.
    """
    power = mel.exp().mean(-2, keepdim=True)  # (..., 1, t)
    radius = round(LEVEL_S * AUDIO_RATE_HZ / MEL_HOP)
    flat = power.reshape(-1, 1, power.shape[-1])
    level = F.avg_pool1d(flat, 2 * radius + 1, 1, radius, count_include_pad=False)
    relative = mel - level.reshape(power.shape).clamp_min(1e-9).log()
    return relative.clamp_min(FLOOR)


class VoiceNet(nn.Module):
    """Level-free log mels (b, 64, t) at 100 Hz -> (b, t // 4, 128) at 25 Hz; 0.4 M weights."""

    width = 128
    dilations = (1, 2, 4, 8)

    def __init__(self) -> None:
        super().__init__()

        def block(
            width_in: int, width_out: int, size: int, stride: tuple[int, int]
        ) -> list[nn.Module]:
            return [
                nn.Conv2d(width_in, width_out, size, stride, size // 2, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(inplace=True),
            ]

        self.spectral = nn.Sequential(
            *block(1, 24, 5, (2, 2)), *block(24, 48, 3, (2, 2)), *block(48, 96, 3, (2, 1)),
            nn.Dropout2d(0.1), *block(96, 128, 3, (2, 1)), nn.Dropout2d(0.1),
        )  # fmt: skip
        self.mix = nn.Sequential(
            nn.Conv1d(128 * MEL_BINS // 16, self.width, 1, bias=False),
            nn.BatchNorm1d(self.width),
            nn.ReLU(inplace=True),
        )
        self.temporal = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(self.width, self.width, 3, padding=d, dilation=d, bias=False),
                nn.BatchNorm1d(self.width),
                nn.ReLU(inplace=True),
                nn.Dropout(0.1),
            )
            for d in self.dilations
        )
        self.attention = nn.Linear(self.width, 1)  # pools frames to an utterance, in training
        self.classes = nn.Linear(self.width, len(VOICE_CLASSES))
        self.affect = nn.Linear(self.width, 2)

    def forward(self, mel: Tensor) -> Tensor:
        """Embed level-free mels (b, 64, t) -> (b, t // 4, 128)."""
        mel = mel[..., : mel.shape[-1] // VOICE_STRIDE * VOICE_STRIDE]
        maps = self.spectral((mel[:, None] + 3.0) / 3.0)  # (b, 128, 4, t / 4)
        x = self.mix(maps.flatten(1, 2))
        for layer in self.temporal:
            x = x + layer(x)
        return x.transpose(1, 2)  # type: ignore[no-any-return]

    def answer(self, frames: Tensor) -> Tensor:
        """Read frames (b, t, 128) -> valence, arousal, eight class logits, salience (b, t, 11)."""
        return torch.cat((self.affect(frames), self.classes(frames), self.attention(frames)), -1)


class MiniAudio:
    """`VoiceNet` as an audio encoder; it passes on its network's answer, as `MiniVisual` does."""

    width = 2 + len(VOICE_CLASSES) + 1
    rate_hz = AUDIO_RATE_HZ / MEL_HOP / VOICE_STRIDE
    context_s = 3.0  # 2 s of level, 0.8 s of convolutions

    def __init__(self, net: VoiceNet, fingerprint: str, device: str) -> None:
        self.name, self.fingerprint = "mini-voice", fingerprint
        self.net, self._device = net.to(device).eval(), device
        self._filters = mel_filters().to(device)

    @torch.inference_mode()
    def __call__(self, samples: Floats) -> Floats:
        """Encode samples (n,) at 16 kHz -> (n // 640, 11)."""
        if len(samples) < MEL_HOP * VOICE_STRIDE:
            return np.zeros((0, self.width), np.float32)
        mel = log_mel(torch.from_numpy(samples).to(self._device), self._filters)
        answers: Floats = self.net.answer(self.net(level_free(mel)[None]))[0].cpu().numpy()
        return answers


# --- words -----------------------------------------------------------------------------------

BUCKETS = 1 << 17
TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[!?]+|\.{2,}")
SENTENCE_END = re.compile(r"[.!?…]['\"’”»)\]]*$")
MAX_SENTENCE_WORDS = 40
NEAR_WORDS = 3


def ngrams(tokens: Sequence[str]) -> list[list[int]]:
    """Hash each token's n-grams: itself, the pair with the one before, characters 2 to 5."""
    grams = []
    for k, token in enumerate(tokens):
        names = ["w" + token] + (["b" + tokens[k - 1] + " " + token] if k else [])
        marked = f"<{token}>"
        for size in range(2, 6):
            names += ["c" + marked[j : j + size] for j in range(len(marked) - size + 1)]
        grams.append([zlib.crc32(name.encode()) % BUCKETS for name in names])
    return grams


def tokenise(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """Split words into lower-case tokens; the second list says which word each comes from."""
    tokens, owners = [], []
    for k, word in enumerate(words):
        for token in TOKEN.findall(word.lower().replace("’", "'")):
            tokens.append(token)
            owners.append(k)
    return tokens, owners


def sentence_weights(grams: Sequence[Sequence[int]], idf: Floats) -> dict[int, float]:
    """TF-IDF of one sentence: sublinear counts times idf, of unit Euclidean length."""
    ids, counts = np.unique(np.concatenate([*map(np.asarray, grams), []]), return_counts=True)
    ids = ids.astype(int)
    weights = (1 + np.log(counts)) * idf[ids]
    weights /= max(float(np.linalg.norm(weights)), 1e-6)
    return dict(zip(ids.tolist(), weights.tolist(), strict=True))


class MiniText:
    """A lexicon of n-grams learned by ridge regression, as a text encoder.

    Each n-gram has a weight towards valence and one towards arousal. A word's vector (8,) holds
    what its own n-grams add to its sentence, what the words within 3 of it add, and the whole
    sentence's score, each as (valence, arousal), then how much of the sentence was known and its
    length; scores are on the scale of the labels.
    """

    width = 8

    def __init__(self, table: Floats, idf: Floats, bias: Floats, fingerprint: str) -> None:
        self.name, self.fingerprint = "mini-words", fingerprint
        self._table, self._idf, self._bias = table, idf, bias  # (buckets, 2), (buckets,), (2,)

    def __call__(self, words: Sequence[str]) -> Floats:
        """Embed words -> (len(words), 8); sentences end at . ! ? or after 40 words."""
        out = np.zeros((len(words), self.width), np.float32)
        start = 0
        for k, word in enumerate(words):
            full = k - start + 1 == MAX_SENTENCE_WORDS or k == len(words) - 1
            if full or SENTENCE_END.search(word):
                out[start : k + 1] = self._sentence(words[start : k + 1])
                start = k + 1
        return out

    def score(self, text: str) -> Floats:
        """Return the (valence, arousal) (2,) of one whole text."""
        words = text.split()
        return self._sentence(words)[0, 4:6] if words else self._bias

    def _sentence(self, words: Sequence[str]) -> Floats:
        tokens, owners = tokenise(words)
        grams = ngrams(tokens)
        weights = sentence_weights(grams, self._idf)
        own = np.zeros((len(words), 2), np.float32)
        known = 0
        occurrences: dict[int, int] = {}
        for ids in grams:
            for gram in ids:
                occurrences[gram] = occurrences.get(gram, 0) + 1
        for ids, owner in zip(grams, owners, strict=True):
            for gram in ids:
                own[owner] += weights[gram] / occurrences[gram] * self._table[gram]
            known += bool(self._idf[ids[0]] > 0)
        sums = np.concatenate((np.zeros((1, 2), np.float32), own.cumsum(0)))
        index = np.arange(len(words))
        near = sums[np.minimum(index + NEAR_WORDS + 1, len(words))]
        near = near - sums[np.maximum(index - NEAR_WORDS, 0)]
        whole = np.broadcast_to(self._bias + own.sum(0), own.shape)
        rest = np.full((len(words), 2), (known / max(len(tokens), 1), np.log1p(len(tokens)) / 3))
        return np.concatenate((own, near, whole, rest), 1).astype(np.float32)


# --- loading ---------------------------------------------------------------------------------


def _visual(tensors: dict[str, Tensor], fingerprint: str, device: str) -> VisualEncoder:
    net = FaceNet()
    net.load_state_dict({k: v.to(net.state_dict()[k].dtype) for k, v in tensors.items()})
    return MiniVisual(net, fingerprint, device)


def _audio(tensors: dict[str, Tensor], fingerprint: str, device: str) -> AudioEncoder:
    net = VoiceNet()
    net.load_state_dict({k: v.to(net.state_dict()[k].dtype) for k, v in tensors.items()})
    return MiniAudio(net, fingerprint, device)


def _text(tensors: dict[str, Tensor], fingerprint: str, device: str) -> TextEncoder:
    table, idf, bias = (tensors[k].float().numpy() for k in ("table", "idf", "bias"))
    shapes = table.shape, idf.shape, bias.shape
    if shapes != ((BUCKETS, 2), (BUCKETS,), (2,)):
        raise RuntimeError(f"table, idf and bias have the shapes {shapes}, not a lexicon's")
    return MiniText(table, idf, bias, fingerprint)


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
