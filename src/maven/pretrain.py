"""Trains the embedded networks of faces and voices.

Each network learns the emotion class and the proxy (valence, arousal) together. Nothing of the
validation part is used but to print figures now and then; the last weights (an exponential
moving average) are kept, not the best. Products are taken in bf16, sums and weights in fp32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maven.augment import augment_faces, augment_voices
from maven.encoders.faces import FACE_LEFT_PX, FACE_PX, FACE_TOP_PX, FaceNet
from maven.encoders.voices import VoiceNet, level_free
from maven.losses import ccc_loss
from maven.metrics import ccc

Log = Callable[[dict[str, Any]], None]

SCORE_EVERY = 5  # epochs
SMALL_PX = 36
SMOOTHING = 0.1  # of class labels
PATIENCE = 0.9  # of class labels that are revised: the share that stays at each pass


@dataclass(frozen=True)
class PretrainConfig:
    """How one encoder is trained.

    Attributes:
        epochs: passes over the training part.
        batch: samples a step; all of them where there are fewer.
        learning_rate: the peak of the one-cycle schedule (AdamW).
        weight_decay: AdamW's.
        ema: decay of the moving average of the weights that is kept.
        class_weight: share of the cross-entropy against the CCC loss on proxy (valence, arousal).
        small_until: share of the training in which faces are seen at 36 instead of 48 px: more
            passes in the same time.
        revise_from: share of the training after which a sample's class is no longer what its label
            says, but a running mean of that and what the network answers (Huang, Zhang & Zhang
            2020, "Self-Adaptive Training: beyond Empirical Risk Minimization"): a tenth of the
            labels of FER2013 are wrong. 1 never revises.
        seed: of everything random.
    """

    epochs: int = 40
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 5e-2
    ema: float = 0.998
    class_weight: float = 0.5
    small_until: float = 0.0
    revise_from: float = 1.0
    seed: int = 0


@dataclass
class Labelled:
    """Samples of one split on a device: inputs (n, ...), class ids (n,), (valence, arousal) (n, 2).

    `lengths` (n,) says how much of each input is filled, and `weights` (n,) how often it is drawn.
    """

    inputs: Tensor
    classes: Tensor
    va: Tensor
    lengths: Tensor | None = None
    weights: Tensor | None = None


def train_faces(train: Labelled, val: Labelled, config: PretrainConfig, log: Log) -> FaceNet:
    """Train a face network on grey crops (n, 56, 56) uint8."""

    def forward(net: nn.Module, batch: Labelled, share: float) -> tuple[Tensor, Tensor]:
        side_px = SMALL_PX if share < config.small_until else FACE_PX
        embedded = net(augment_faces(batch.inputs.float()[:, None] / 255, side_px))
        return net.classes(embedded), net.affect(embedded)  # type: ignore[operator]

    def predict(net: nn.Module, batch: Labelled) -> tuple[Tensor, Tensor]:
        top, left = FACE_TOP_PX, FACE_LEFT_PX
        faces = batch.inputs[:, None, top : top + FACE_PX, left : left + FACE_PX].float() / 255
        embedded = (net(faces) + net(faces.flip(3))) / 2
        return net.classes(embedded), net.affect(embedded)  # type: ignore[operator]

    torch.manual_seed(config.seed)
    net: FaceNet = _fit(FaceNet(), train, val, config, forward, predict, log)
    return net


def train_voices(train: Labelled, val: Labelled, config: PretrainConfig, log: Log) -> VoiceNet:
    """Train a voice network on log mels (n, 64, t), each filled for `lengths` frames."""

    def pool(net: Any, mel: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
        frames = net(level_free(mel))  # (b, t, d)
        seen = torch.arange(frames.shape[1], device=mel.device) < (filled[:, None] / 4).ceil()
        pooled = net.pool(frames, seen)
        return net.classes(pooled), net.affect(pooled)

    def forward(net: nn.Module, batch: Labelled, share: float) -> tuple[Tensor, Tensor]:
        assert batch.lengths is not None
        return pool(net, *augment_voices(batch.inputs, batch.lengths))

    def predict(net: nn.Module, batch: Labelled) -> tuple[Tensor, Tensor]:
        assert batch.lengths is not None
        return pool(net, batch.inputs, batch.lengths)

    torch.manual_seed(config.seed)
    net: VoiceNet = _fit(VoiceNet(), train, val, config, forward, predict, log)
    return net


Forward = Callable[[nn.Module, Labelled, float], tuple[Tensor, Tensor]]  # and the share trained
Predict = Callable[[nn.Module, Labelled], tuple[Tensor, Tensor]]


def _fit(
    net: Any,
    train: Labelled,
    val: Labelled,
    config: PretrainConfig,
    forward: Forward,
    predict: Predict,
    log: Log,
) -> Any:
    device = train.inputs.device
    net = net.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(net).eval()
    optimiser = torch.optim.AdamW(
        net.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    size = min(config.batch, len(train.classes))
    steps = config.epochs * (len(train.classes) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=steps, pct_start=0.15
    )
    beliefs: Tensor | None = None  # (n, classes) what the classes of the samples are taken to be
    step = 0
    for epoch in range(config.epochs):
        net.train()
        losses = []
        for chosen, batch in _batches(train, size):
            share = step / steps
            with torch.autocast(device.type, torch.bfloat16):
                classes, va = (out.float() for out in forward(net, batch, share))
            if beliefs is None:
                beliefs = smoothed(train.classes, classes.shape[1])
            if share >= config.revise_from:
                beliefs[chosen] = revised(beliefs[chosen], classes.detach())
            entropy = F.cross_entropy(classes, beliefs[chosen])
            agreement = ccc_loss(va, batch.va)
            loss = config.class_weight * entropy + (1 - config.class_weight) * agreement
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
            step += 1
            _average(average, net, min(config.ema, step / (step + 10)))
        figures = {"epoch": epoch, "loss": torch.stack(losses).mean().item()}
        if epoch % SCORE_EVERY == 0 or epoch == config.epochs - 1:
            figures |= score(average, val, predict)
        log(figures)
    return average


def _average(average: nn.Module, net: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def _batches(data: Labelled, size: int) -> Iterator[tuple[Tensor, Labelled]]:
    count = len(data.classes) // size * size
    if data.weights is None:
        order = torch.randperm(len(data.classes), device=data.inputs.device)[:count]
    else:
        order = torch.multinomial(data.weights, count, replacement=True)
    for chosen in order.split(size):
        yield (
            chosen,
            Labelled(
                data.inputs[chosen],
                data.classes[chosen],
                data.va[chosen],
                None if data.lengths is None else data.lengths[chosen],
            ),
        )


def smoothed(classes: Tensor, count: int) -> Tensor:
    """Turn class ids (n,) into distributions (n, count) that leave a tenth to all."""
    return F.one_hot(classes, count) * (1 - SMOOTHING) + SMOOTHING / count


def revised(beliefs: Tensor, logits: Tensor) -> Tensor:
    """Move distributions over classes (n, classes) a tenth of the way to what was answered."""
    return PATIENCE * beliefs + (1 - PATIENCE) * logits.softmax(1)


@torch.no_grad()
def score(net: nn.Module, val: Labelled, predict: Predict) -> dict[str, float]:
    """Class accuracy and CCC of valence and arousal over a split."""
    hits, predicted = [], []
    for start in range(0, len(val.classes), 256):
        part = slice(start, start + 256)
        lengths = None if val.lengths is None else val.lengths[part]
        batch = Labelled(val.inputs[part], val.classes[part], val.va[part], lengths)
        with torch.autocast(val.inputs.device.type, torch.bfloat16):
            classes, va = (out.float() for out in predict(net, batch))
        hits.append((classes.argmax(1) == val.classes[part]).float())
        predicted.append(va)
    predicted_va, true = torch.cat(predicted).double().cpu().numpy(), val.va.double().cpu().numpy()
    return {
        "accuracy": torch.cat(hits).mean().item(),
        "ccc_valence": ccc(predicted_va[:, 0], true[:, 0]),
        "ccc_arousal": ccc(predicted_va[:, 1], true[:, 1]),
    }
