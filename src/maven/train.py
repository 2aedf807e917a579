"""Trains the network on feature sequences: one visible loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maven.features import Features
from maven.inference import infer
from maven.losses import ccc_loss, mse_loss
from maven.metrics import ccc, valid_labels
from maven.model import MODALITIES, Maven
from maven.timeline import smooth

Log = Callable[[dict[str, Any]], None]
Sample = tuple[Features, np.ndarray[Any, np.dtype[np.float32]]]


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Attributes:
        steps: optimiser steps.
        batch: sequences a step.
        learning_rate: AdamW's peak; a linear warm-up over a tenth of the steps, then a cosine.
        weight_decay: AdamW's.
        clip: largest gradient norm.
        ema: decay of the moving average of the weights that is kept.
        mse_weight: weight of the squared error beside 1 - CCC.
        drop_modality: chance that a modality is taken away from a whole sequence.
        drop_stretch: chance that it is taken away from a stretch of it.
        feature_noise: spread of the noise on features, in their standard deviations.
        seed: of everything random.
    """

    steps: int = 1500
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    clip: float = 1.0
    ema: float = 0.995
    mse_weight: float = 0.5
    drop_modality: float = 0.2
    drop_stretch: float = 0.3
    feature_noise: float = 0.2
    seed: int = 0


def train(
    network: Maven,
    samples: Iterator[Sample],
    val: list[Sample],
    config: TrainConfig,
    log: Log,
    device: str = "cpu",
) -> Maven:
    """Train on an endless stream of sequences of one length; return the averaged weights."""
    torch.manual_seed(config.seed)
    network = network.to(device)
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    warm = max(config.steps // 10, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warm, 0.5 + 0.5 * np.cos(np.pi * step / config.steps)),
    )
    for step in range(1, config.steps + 1):
        network.train()
        values, observed, time_s, target = _batch(
            [next(samples) for _ in range(config.batch)], device
        )
        drop_modalities(observed, config)
        for m in MODALITIES:
            scale = network.get_buffer(f"project.{m}.scale")
            values[m] = values[m] + config.feature_noise * scale * torch.randn_like(values[m])
        anything = torch.stack(list(observed.values())).any(0)
        va = network(values, observed, time_s)
        loss = ccc_loss(va, target, anything) + config.mse_weight * mse_loss(va, target, anything)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            decay = min(config.ema, step / (step + 10))
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        if step % max(config.steps // 20, 1) == 0:
            log({"steps": step, "loss": loss.item()} | score(average, val))
    return average


def _batch(
    samples: list[Sample], device: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    def stack(arrays: list[Any]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(device)

    values = {m: stack([f.values[m] for f, _ in samples]) for m in MODALITIES}
    observed = {m: stack([f.observed[m] for f, _ in samples]) for m in MODALITIES}
    time_s = torch.from_numpy(samples[0][0].time_s).float().to(device)[None]
    return values, observed, time_s, stack([labels for _, labels in samples])


def drop_modalities(observed: dict[str, Tensor], config: TrainConfig) -> None:
    """Take modalities (b, t) away, whole or for a stretch, in place; never all three whole."""
    b, t = observed[MODALITIES[0]].shape
    device = observed[MODALITIES[0]].device
    gone = torch.rand(len(MODALITIES), b, device=device) < config.drop_modality
    gone[:, gone.all(0)] = False
    for k, m in enumerate(MODALITIES):
        start = torch.rand(b, 1, device=device) * t
        length = torch.rand(b, 1, device=device) * t / 2
        at = torch.arange(t, device=device)
        stretch = (at >= start) & (at < start + length)
        stretch &= torch.rand(b, 1, device=device) < config.drop_stretch
        observed[m] = observed[m] & ~gone[k][:, None] & ~stretch


def score(
    network: Maven, samples: list[Sample], keep: tuple[str, ...] = MODALITIES
) -> dict[str, float]:
    """CCC over all sequences' labelled frames, concatenated, with the modalities of `keep` only."""
    predicted, true = predict(network, samples, keep)
    return _agreement(np.concatenate(predicted), np.concatenate(true))


def _agreement(va: Any, labels: Any) -> dict[str, float]:
    known = np.isfinite(va[:, 0]) & valid_labels(labels[:, 0], labels[:, 1])
    valence = ccc(va[:, 0], labels[:, 0], known)
    arousal = ccc(va[:, 1], labels[:, 1], known)
    return {"ccc_valence": valence, "ccc_arousal": arousal, "ccc_mean": (valence + arousal) / 2}


def predict(
    network: Maven, samples: list[Sample], keep: tuple[str, ...] = MODALITIES
) -> tuple[list[Any], list[Any]]:
    """Answers (t, 2) and labels (t, 2) of each sequence, seen through the modalities of `keep`."""
    predicted, true = [], []
    for features, labels in samples:
        for m in MODALITIES:
            if m not in keep:
                features = features.without(m)
        predicted.append(infer(network, features).va)
        true.append(labels)
    return predicted, true


def choose_smoothing(
    network: Maven, samples: list[Sample], half_widths_s: tuple[float, ...]
) -> tuple[float, dict[float, float]]:
    """Find the half-width whose smoothed answers score best; also every half-width's mean CCC."""
    predicted, true = predict(network, samples)
    scores = {}
    for width_s in half_widths_s:
        smoothed = [
            smooth(features.time_s, va, width_s)
            for (features, _), va in zip(samples, predicted, strict=True)
        ]
        scores[width_s] = _agreement(np.concatenate(smoothed), np.concatenate(true))["ccc_mean"]
    return max(scores, key=lambda width_s: scores[width_s]), scores
