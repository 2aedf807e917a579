"""Trains the mini encoders: faces and voices by gradient descent, words by ridge regression.

Each network learns the emotion class and the proxy (valence, arousal) together. Nothing of the
validation part is used but to print figures now and then; the last weights (an exponential
moving average) are kept, not the best. Products are taken in bf16, sums and weights in fp32.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maven.encoders.mini import (
    BUCKETS,
    CROP_PX,
    FACE_LEFT_PX,
    FACE_PX,
    FACE_TOP_PX,
    FLOOR,
    MEL_BINS,
    FaceNet,
    VoiceNet,
    level_free,
    ngrams,
    sentence_weights,
    tokenise,
)
from maven.losses import ccc_loss
from maven.metrics import ccc

Log = Callable[[dict[str, Any]], None]

SCORE_EVERY = 5  # epochs


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
        seed: of everything random.
    """

    epochs: int = 40
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 5e-2
    ema: float = 0.998
    class_weight: float = 0.5
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
    weights: Tensor | None = field(default=None)


def train_faces(train: Labelled, val: Labelled, config: PretrainConfig, log: Log) -> FaceNet:
    """Train a face network on grey crops (n, 56, 56) uint8."""

    def forward(net: nn.Module, batch: Labelled) -> tuple[Tensor, Tensor]:
        embedded = net(augment_faces(batch.inputs.float()[:, None] / 255))
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

    def pool(net: nn.Module, mel: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
        frames = net(level_free(mel))  # (b, t, d)
        seen = torch.arange(frames.shape[1], device=mel.device) < (filled[:, None] / 4).ceil()
        score = net.attention(frames)[..., 0].masked_fill(~seen, -torch.inf)  # type: ignore[operator]
        pooled = (score.softmax(1)[..., None] * frames).sum(1)
        mean = (frames * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        both = (pooled + mean) / 2
        return net.classes(both), net.affect(both)  # type: ignore[operator]

    def forward(net: nn.Module, batch: Labelled) -> tuple[Tensor, Tensor]:
        assert batch.lengths is not None
        return pool(net, *augment_voices(batch.inputs, batch.lengths))

    def predict(net: nn.Module, batch: Labelled) -> tuple[Tensor, Tensor]:
        assert batch.lengths is not None
        return pool(net, batch.inputs, batch.lengths)

    torch.manual_seed(config.seed)
    net: VoiceNet = _fit(VoiceNet(), train, val, config, forward, predict, log)
    return net


Forward = Callable[[nn.Module, Labelled], tuple[Tensor, Tensor]]


def _fit(
    net: Any,
    train: Labelled,
    val: Labelled,
    config: PretrainConfig,
    forward: Forward,
    predict: Forward,
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
    step = 0
    for epoch in range(config.epochs):
        net.train()
        losses = []
        for batch in _batches(train, size):
            with torch.autocast(device.type, torch.bfloat16):
                classes, va = (out.float() for out in forward(net, batch))
            entropy = F.cross_entropy(classes, batch.classes, label_smoothing=0.1)
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


def _batches(data: Labelled, size: int) -> Iterator[Labelled]:
    count = len(data.classes) // size * size
    if data.weights is None:
        order = torch.randperm(len(data.classes), device=data.inputs.device)[:count]
    else:
        order = torch.multinomial(data.weights, count, replacement=True)
    for chosen in order.split(size):
        yield Labelled(
            data.inputs[chosen],
            data.classes[chosen],
            data.va[chosen],
            None if data.lengths is None else data.lengths[chosen],
        )


@torch.no_grad()
def score(net: nn.Module, val: Labelled, predict: Forward) -> dict[str, float]:
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


def augment_faces(faces: Tensor) -> Tensor:
    """Turn, scale, mirror, blur, relight and cover faces (n, 1, 56, 56) -> (n, 1, 48, 48)."""
    n, device = len(faces), faces.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape, device=device).uniform_(low, high)

    angle, scale = uniform(-0.22, 0.22), uniform(0.88, 1.12) * FACE_PX / CROP_PX
    mirror = uniform(-1, 1).sign()
    matrix = torch.stack(
        (
            torch.stack(
                (mirror * scale * angle.cos(), -scale * angle.sin(), uniform(-0.09, 0.09)), 1
            ),
            torch.stack(
                (mirror * scale * angle.sin(), scale * angle.cos(), uniform(-0.02, 0.16)), 1
            ),
        ),
        1,
    )
    grid = F.affine_grid(matrix, [n, 1, FACE_PX, FACE_PX], align_corners=False)
    faces = F.grid_sample(faces, grid, padding_mode="border", align_corners=False)
    small = F.interpolate(faces, scale_factor=0.5, mode="area")
    small = F.interpolate(small, size=FACE_PX, mode="bilinear", align_corners=False)
    blur = (uniform(0, 1, 1, 1, 1) < 0.3) * uniform(0, 1, 1, 1, 1)
    faces = faces + blur * (small - faces)
    mean = faces.mean((1, 2, 3), keepdim=True)
    faces = mean + (faces - mean) * uniform(0.5, 1.5, 1, 1, 1)
    ramp = torch.linspace(-1, 1, FACE_PX, device=device)
    faces = (
        faces + uniform(-0.15, 0.15, 1, 1, 1) * ramp + uniform(-0.1, 0.1, 1, 1, 1) * ramp[:, None]
    )
    faces = faces + torch.randn_like(faces) * uniform(0, 0.04, 1, 1, 1)
    size, row, column = uniform(6, 18, 1, 1), uniform(0, 48, 1, 1), uniform(0, 48, 1, 1)
    index = torch.arange(FACE_PX, device=device, dtype=torch.float32)
    inside = ((index - row).abs() < size / 2).transpose(1, 2) & ((index - column).abs() < size / 2)
    covered = (inside & (uniform(0, 1, 1, 1) < 0.4))[:, None]
    return torch.where(covered, faces.mean((1, 2, 3), keepdim=True), faces)


def augment_voices(mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Cut to 1.0-2.4 s, retune, reverberate, add noise to and mask log mels (n, 64, t)."""
    n, bins, total = mel.shape
    device = mel.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape, device=device).uniform_(low, high)

    frames = int(torch.randint(100, min(total, 240) + 1, ()))
    start = (uniform(0, 1) * (lengths - frames).clamp_min(0)).long()
    index = (start[:, None] + torch.arange(frames, device=device)).clamp_max(total - 1)
    mel = mel.gather(2, index[:, None].expand(n, bins, frames))
    lengths = (lengths - start).clamp(1, frames)
    # Pitch and formants: bins stretched by up to 8 % about the lowest.
    place = (torch.arange(bins, device=device) * uniform(0.92, 1.08, 1)).clamp(0, bins - 1)
    low = place.floor().long().clamp_max(bins - 2)
    share = (place - low)[..., None]
    mel = (
        mel.gather(1, low[..., None].expand(-1, -1, frames)) * (1 - share)
        + mel.gather(1, low[..., None].expand(-1, -1, frames) + 1) * share
    )
    # Reverberation: power leaks into the next frames, with a decay of 0.1-0.5 s to -60 dB.
    power = mel.exp()
    decay_s = torch.where(uniform(0, 1) < 0.4, uniform(0.1, 0.5), 1e-3 * uniform(1, 2))
    lag_s = torch.arange(30, device=device) * 0.01
    tail = 10 ** (-6 * lag_s / decay_s[:, None]) * torch.where(lag_s > 0, 0.3, 1.0)
    padded = F.pad(power, (29, 0)).transpose(0, 1)  # (bins, n, t + 29)
    power = F.conv1d(padded, tail.flip(1)[:, None], groups=n).transpose(0, 1)
    # Noise of random colour, 0 to 40 dB under the speech.
    slope = uniform(-2, 0.5, 1) * torch.linspace(0, 3, bins, device=device)
    colour = (slope + torch.randn(n, bins, device=device) * 0.5).exp()
    colour = colour / colour.mean(1, keepdim=True)
    speech = power.sum((1, 2)) / (bins * lengths)
    level = speech * 10 ** (-uniform(0, 40) / 10) * (uniform(0, 1) < 0.7)
    flicker = torch.empty_like(power).exponential_()
    power = power + level[:, None, None] * colour[..., None] * (0.5 + 0.5 * flicker)
    mel = (power + 1e-10).log()
    # Codecs: everything above 3.4 kHz or so gone.
    cut = (uniform(0, 1, 1) < 0.15) & (torch.arange(bins, device=device) > uniform(44, 60, 1))
    mel = torch.where(cut[..., None], mel - 12.0, mel)
    # Masks (SpecAugment): up to 10 bins, up to 0.2 s.
    width, first = uniform(0, 10, 1), uniform(0, bins, 1)
    position = torch.arange(bins, device=device)
    hidden = ((position >= first) & (position < first + width))[..., None]
    width, first = uniform(0, 20, 1), uniform(0, frames, 1)
    position = torch.arange(frames, device=device)
    hidden = hidden | ((position >= first) & (position < first + width))[:, None]
    silent = torch.arange(frames, device=device) >= lengths[:, None]
    floor = mel.amax((1, 2), keepdim=True) + 2 * FLOOR
    return torch.where(hidden | silent[:, None], floor, mel), lengths


def pad_mels(
    mels: Sequence[npt.NDArray[np.float32]], frames: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Stack log mels (t, 64) of any lengths into (n, 64, frames), cut or padded with a floor."""
    out = np.empty((len(mels), MEL_BINS, frames), np.float32)
    lengths = np.array([min(len(mel), frames) for mel in mels])
    for k, mel in enumerate(mels):
        out[k] = mel.max() + 2 * FLOOR
        out[k, :, : lengths[k]] = mel[:frames].T
    return out, lengths


@dataclass(frozen=True)
class Lexicon:
    """The words encoder's weights: table (buckets, 2), idf (buckets,), bias (2,)."""

    table: npt.NDArray[np.float32]
    idf: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def fit_words(
    texts: Sequence[str], va: npt.NDArray[np.float32], ridge: float, min_count: int = 2
) -> Lexicon:
    """Fit (valence, arousal) (n, 2) to TF-IDF of hashed n-grams by ridge regression.

    The weights are stretched so that predictions have the labels' spread: ridge shrinks them, and
    CCC, unlike correlation, punishes that. The factor comes from predictions of held-out tenths.
    """
    grams = [ngrams(tokenise(text.split())[0]) for text in texts]
    count = np.zeros(BUCKETS)
    for sentence in grams:
        count[list({gram for ids in sentence for gram in ids})] += 1
    known = count >= min_count
    idf = np.where(known, np.log((1 + len(texts)) / (1 + count)) + 1, 0).astype(np.float32)
    rows = [sentence_weights(sentence, idf) for sentence in grams]
    matrix = _sparse(rows)
    target = torch.from_numpy(va.astype(np.float64))
    bias = target.mean(0)
    held_out = torch.empty_like(target)
    part = torch.arange(len(rows)) % 10
    for k in range(10):
        weight = _ridge(_sparse([r for r, p in zip(rows, part, strict=True) if p != k]),
                        (target - bias)[part != k], ridge)  # fmt: skip
        held_out[part == k] = (
            _sparse([r for r, p in zip(rows, part, strict=True) if p == k]) @ weight
        )
    stretch = (target - bias).std(0) / held_out.std(0).clamp_min(1e-9)  # 0 where nothing is known
    table = _ridge(matrix, target - bias, ridge) * stretch
    return Lexicon(table.float().numpy(), idf, bias.float().numpy())


def _sparse(rows: Sequence[dict[int, float]]) -> Tensor:
    lengths = np.cumsum([0, *map(len, rows)])
    columns = np.array([gram for row in rows for gram in row], np.int64)
    values = np.array([weight for row in rows for weight in row.values()], np.float64)
    return torch.sparse_csr_tensor(
        torch.from_numpy(lengths), torch.from_numpy(columns), torch.from_numpy(values),
        (len(rows), BUCKETS), check_invariants=False,
    )  # fmt: skip


def _ridge(matrix: Tensor, target: Tensor, ridge: float, steps: int = 60) -> Tensor:
    """Solve (X'X + ridge) w = X'y by conjugate gradients on the dual, (n,) unknowns a column."""
    transposed = matrix.to_sparse_coo().t().coalesce().to_sparse_csr()
    answer = torch.zeros_like(target)
    residual = target.clone()
    direction = residual.clone()
    energy = residual.square().sum(0)
    for _ in range(steps):
        image = matrix @ (transposed @ direction) + ridge * direction
        length = energy / (direction * image).sum(0).clamp_min(1e-30)
        answer += length * direction
        residual -= length * image
        new_energy = residual.square().sum(0)
        direction = residual + (new_energy / energy.clamp_min(1e-30)) * direction
        energy = new_energy
        if math.sqrt(energy.max().item()) < 1e-8:
            break
    weights: Tensor = transposed @ answer
    return weights
