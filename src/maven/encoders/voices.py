"""The embedded audio encoder: a small network on log mels from which the level is taken out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maven.media import AUDIO_RATE_HZ

Floats = npt.NDArray[np.float32]

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


def bin_free(relative: Tensor) -> Tensor:
    """Take each bin's mean within `LEVEL_S` of a frame out of level-free log mels (..., 64, t).

    What is left are the movements of the spectrum, without the lasting colour of a voice or a
    microphone. Frames weigh by how far they stand above the floor: silence has no say.
    """
    weight = (relative - FLOOR).mean(-2, keepdim=True) + 1e-3
    radius = round(LEVEL_S * AUDIO_RATE_HZ / MEL_HOP)

    def around(x: Tensor) -> Tensor:  # sums; running ones in float32 would lose what is small
        flat = x.double().cumsum(-1).reshape(-1, 1, x.shape[-1])
        ends = F.pad(F.pad(flat, (radius + 1, 0)), (0, radius), "replicate")
        sums = ends[..., 2 * radius + 1 :] - ends[..., : -2 * radius - 1]
        return sums.to(x.dtype).reshape(x.shape)

    return relative - around(relative * weight) / around(weight)


def two_views(relative: Tensor) -> Tensor:
    """Pair level-free log mels (b, 64, t) with `bin_free` ones, scaled: (b, 2, 64, t // 4 * 4)."""
    mel = relative[..., : relative.shape[-1] // VOICE_STRIDE * VOICE_STRIDE]
    return torch.stack(((mel + 3.0) / 3.0, bin_free(mel) / 2.0), 1)


class VoiceNet(nn.Module):
    """Level-free log mels (b, 64, t) at 100 Hz -> (b, t // 4, 160) at 25 Hz; 0.6 M weights."""

    width = 160
    dilations = (1, 2, 4, 8, 16)

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
            *block(2, 24, 5, (2, 2)), *block(24, 48, 3, (2, 2)), *block(48, 96, 3, (2, 1)),
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
        """Embed level-free mels (b, 64, t) -> (b, t // 4, 160)."""
        return self.embed(two_views(mel))

    def embed(self, views: Tensor) -> Tensor:
        """Embed `two_views` (b, 2, 64, t) -> (b, t / 4, 160)."""
        maps = self.spectral(views)  # (b, 128, 4, t / 4)
        x = self.mix(maps.flatten(1, 2))
        for layer in self.temporal:
            x = x + layer(x)
        return x.transpose(1, 2)  # type: ignore[no-any-return]

    def pool(self, frames: Tensor, seen: Tensor | None = None) -> Tensor:
        """Pool frames (b, t, 160), those `seen` (b, t), to utterances (b, 160).

        It is the mean of the plain mean and the one weighted by the network's attention.
        """
        if seen is None:
            seen = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        score = self.attention(frames)[..., 0].masked_fill(~seen, -torch.inf)
        weighted: Tensor = (score.softmax(1)[..., None] * frames).sum(1)
        mean = (frames * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        return (weighted + mean) / 2

    def answer(self, frames: Tensor) -> Tensor:
        """Read frames (b, t, 160) -> valence, arousal, eight class logits, salience (b, t, 11)."""
        return torch.cat((self.affect(frames), self.classes(frames), self.attention(frames)), -1)


def numbered(nets: Sequence[VoiceNet]) -> dict[str, Tensor]:
    """Collect the weights of several networks, each name after its network's number: `0.mix...`."""
    return {f"{i}.{k}": v for i, net in enumerate(nets) for k, v in net.state_dict().items()}


def mean_answer(nets: Sequence[VoiceNet], mel: Tensor) -> Tensor:
    """Mean answer of several networks to log mels (64, t): (t // 4, 11)."""
    views = two_views(level_free(mel)[None])
    return torch.stack([net.answer(net.embed(views))[0] for net in nets]).mean(0)


class MiniAudio:
    """Several `VoiceNet`s as an audio encoder: the mean of their answers.

    Each was trained from another seed; strangers are where they differ, and their mean is better
    there than any of them. It passes on answers, as `MiniVisual` does.
    """

    width = 2 + len(VOICE_CLASSES) + 1
    rate_hz = AUDIO_RATE_HZ / MEL_HOP / VOICE_STRIDE
    context_s = 6.0  # twice 2 s of level, 1.4 s of convolutions

    def __init__(self, nets: Sequence[VoiceNet], fingerprint: str, device: str) -> None:
        self.name, self.fingerprint = "mini-voice", fingerprint
        self.nets, self._device = [net.to(device).eval() for net in nets], device
        self._filters = mel_filters().to(device)

    def __call__(self, samples: Floats) -> Floats:
        """Encode samples (n,) at 16 kHz -> (n // 640, 11)."""
        if len(samples) < MEL_HOP * VOICE_STRIDE:
            return np.zeros((0, self.width), np.float32)
        return self.answer(log_mel(torch.from_numpy(samples).to(self._device), self._filters))

    @torch.inference_mode()
    def answer(self, mel: Tensor) -> Floats:
        """Encode log mels (64, t) -> (t // 4, 11)."""
        answers: Floats = mean_answer(self.nets, mel.to(self._device)).cpu().numpy()
        return answers

    @torch.inference_mode()
    def utterance(self, mel: Tensor) -> tuple[Floats, Floats]:
        """Read one utterance's log mels (64, t): (valence, arousal) (2,), class shares (8,)."""
        views = two_views(level_free(mel.to(self._device))[None])
        frames = [net.embed(views) for net in self.nets]
        pooled = [net.pool(x) for net, x in zip(self.nets, frames, strict=True)]
        va = torch.stack([net.affect(x)[0] for net, x in zip(self.nets, pooled, strict=True)])
        logits = [net.classes(x)[0] for net, x in zip(self.nets, pooled, strict=True)]
        shares = torch.stack(logits).softmax(-1)
        return va.mean(0).cpu().numpy(), shares.mean(0).cpu().numpy()
