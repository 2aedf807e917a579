"""Trains the network on features: one visible loop, for one process or several (torchrun)."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from maven.attention import seeded_dropout
from maven.checkpoint import MINI_FOLDER, ModelError, find
from maven.config import MODALITIES, preset
from maven.convert import start
from maven.datasets.clips import (
    Batch,
    Clip,
    Source,
    Windows,
    load_clips,
    moment_sample,
    only,
    split_clips,
)
from maven.encoders.build import EncoderSpec
from maven.launch import agree, launch
from maven.losses import Reduce, batch_loss, counted
from maven.metrics import valid_labels
from maven.model import Maven, read_head
from maven.recipe import TrainConfig, TrainError, parse_overrides, resolve, train_config
from maven.runs import Progress, Run, environment
from maven.store import Manifest, read_manifest
from maven.validate import choose_smoothing, predict, score

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "TrainConfig", "TrainError", "choose_smoothing", "launch", "parse_overrides", "predict",
    "run_training", "score", "train",
]  # fmt: skip

# A step: epoch, epochs, step, steps. The end of an epoch: these, a row of the log, best_epoch.
Report = Callable[[dict[str, Any]], None]


class Outputs(nn.Module):
    """What the head writes as a module of its own, for Fabric wraps `forward` alone."""

    def __init__(self, network: Maven) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, features: dict[str, Tensor], observed: dict[str, Tensor], time_s: Tensor
    ) -> Tensor:
        """Give `Maven.outputs` (b, t, 2)."""
        return self.network.outputs(features, observed, time_s)


def train(
    network: Maven,
    source: Source,
    val: Sequence[Clip],
    config: TrainConfig,
    run: Run | None = None,
    fabric: Fabric | None = None,
    report: Report = lambda _: None,
) -> Maven:
    """Train a network; return it with the averaged weights of the best validation epoch.

    Args:
        network: to begin with, its moments fitted.
        source: of batches.
        val: labelled clips to validate on.
        config: how.
        run: where to keep checkpoints and logs; one that has a checkpoint is gone on with.
        fabric: device, precision and processes; made from `config` where there is none.
        report: called at every step and at the end of every epoch, in the first process.

    Raises:
        TrainError: loss or gradient is not finite, or the run's folder cannot be written.
    """
    if config.loss == "theta" and network.config.head != "theta":
        raise TrainError(f"loss theta needs a network with head theta, got {network.config.head}")
    fabric = fabric or launch(config)
    network = network.to(fabric.device)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    best = copy.deepcopy(average)
    optimiser = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    module, stepper = fabric.setup(Outputs(network), optimiser)
    networks = {"weights": network, "average": average, "best": best}
    progress = run.restore(networks, optimiser) if run else Progress()
    writing = run if run and fabric.is_global_zero else None
    if writing:
        writing.rewind(progress)
        if progress.best_epoch:
            writing.write_best(best, progress)
    steps, world = source.steps_per_epoch, fabric.world_size
    reduce: Reduce | None = None
    if world > 1:
        reduce = partial(fabric.all_reduce, reduce_op="sum")  # type: ignore[assignment]
    while progress.epoch < config.epochs and (
        progress.epoch - progress.best_epoch < config.patience
    ):
        epoch, began, figures = progress.epoch + 1, time.perf_counter(), []
        place = {"epoch": epoch, "epochs": config.epochs, "steps": steps}
        network.train()
        for step in range(steps):
            rate = config.rate(progress.step, config.epochs * steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            batch = source.batch(epoch, step, fabric.global_rank, world).to(fabric.device)
            loss = _loss(module, network, batch, config, reduce)
            optimiser.zero_grad(set_to_none=True)
            fabric.backward(loss * world)  # the processes' gradients are averaged
            norm = fabric.clip_gradients(
                module, stepper, max_norm=config.clip, error_if_nonfinite=False
            )
            assert norm is not None
            stepper.step()
            progress.step += 1
            follow(average, network, min(config.ema, progress.step / (progress.step + 10)))
            frames = torch.stack(list(batch.observed.values())).any(0).sum()
            figures.append(torch.stack((loss.detach(), norm, frames)))  # read at the end: no wait
            if fabric.is_global_zero:
                report({**place, "step": step + 1})
        loss_mean, norm_mean, frames_mean = _checked(torch.stack(figures), progress, run)
        seconds = time.perf_counter() - began
        agreement = score(average, val, fabric=fabric)
        progress.epoch = epoch
        if not progress.best_epoch or agreement["ccc_mean"] > progress.best_score:
            progress.best_epoch, progress.best_score = epoch, agreement["ccc_mean"]
            best.load_state_dict(average.state_dict())
        row = {"epoch": epoch, "step": progress.step, "loss": loss_mean, "grad_norm": norm_mean}
        row |= {"lr": rate, "seconds": seconds}
        row |= {"frames_per_s": frames_mean * steps * world / seconds, **agreement}
        progress.history.append(row)
        if writing:
            writing.save(networks, optimiser, progress)
            writing.log(progress)
            if progress.best_epoch == epoch:
                writing.write_best(best, progress)
        if fabric.is_global_zero:
            report({**place, "step": steps, "best_epoch": progress.best_epoch, "row": row})
    if writing:
        writing.write_curves(progress)
    return best


def _loss(
    module: nn.Module, network: Maven, batch: Batch, config: TrainConfig, reduce: Reduce | None
) -> Tensor:
    """Loss of a batch; all that is random comes from each sample's own generator."""
    device = batch.target.device
    generators = [torch.Generator(device).manual_seed(seed) for seed in batch.seeds.tolist()]
    observed = drop_modalities(batch.observed, config, generators)
    values = add_noise(batch.values, network, config.feature_noise, generators)
    with seeded_dropout(network, generators):
        outputs = module(values, observed, batch.time_s)
    anything = torch.stack(list(observed.values())).any(0)
    counts = counted(batch.target, anything, config.mask_invalid)
    if config.loss != "theta":
        outputs = read_head(outputs, network.config.head)
    return batch_loss(config.loss, outputs, batch.target, counts, config.mse_weight, reduce)


def drop_modalities(
    observed: Mapping[str, Tensor], config: TrainConfig, generators: Sequence[torch.Generator]
) -> dict[str, Tensor]:
    """Take modalities (b, t) away, whole or for a stretch; never all three whole."""
    _, t = observed[MODALITIES[0]].shape
    draws = [torch.rand(4, len(MODALITIES), generator=g, device=g.device) for g in generators]
    whole, chance, start, length = torch.stack(draws, 1)[..., None]  # (b, m, 1) each
    gone = whole < config.drop_modality
    gone &= ~gone.all(1, keepdim=True)
    at = torch.arange(t, device=gone.device)
    stretch = (at >= start * t) & (at < start * t + length * t / 2)
    gone = gone | (stretch & (chance < config.drop_stretch))
    return {m: observed[m] & ~gone[:, k] for k, m in enumerate(MODALITIES)}


def add_noise(
    values: Mapping[str, Tensor],
    network: Maven,
    spread: float,
    generators: Sequence[torch.Generator],
) -> dict[str, Tensor]:
    """Add noise to features (b, t, d_m), in units of each feature's own spread."""
    if spread == 0:
        return dict(values)
    noisy = {}
    for m in MODALITIES:
        noise = torch.empty_like(values[m])
        for own, generator in zip(noise, generators, strict=True):
            own.normal_(generator=generator)
        noisy[m] = values[m] + noise * (spread * network.get_buffer(f"project.{m}.scale"))
    return noisy


@torch.no_grad()
def follow(average: Maven, network: Maven, decay: float) -> None:
    """Move averaged weights by 1 - decay of the way to the network's."""
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def _checked(figures: Tensor, progress: Progress, run: Run | None) -> list[float]:
    """Means over an epoch's steps (n, k); a stop where a loss or gradient norm is not finite."""
    wrong = (~figures.isfinite()).any(1).nonzero()
    if len(wrong):
        k = int(wrong[0])
        kept = run.kept() if run else "nothing was kept"
        raise TrainError(
            f"training stopped in epoch {progress.epoch + 1}, step {k + 1}: loss"
            f" {figures[k, 0]:g}, gradient norm {figures[k, 1]:g}; a smaller train.learning_rate"
            f" may help; {kept}"
        )
    return [float(mean) for mean in figures.double().mean(0)]


# --- from a configuration --------------------------------------------------------------------


def run_training(
    config: Mapping[str, Any] | None,
    folder: Path | str,
    resume: bool = False,
    report: Report = lambda _: None,
    offline: bool = False,
) -> dict[str, Any]:
    """Train as a configuration says, see `maven.recipe`; under torchrun call it in each process.

    Args:
        config: its keys; not read where a run is resumed.
        folder: of the run.
        resume: whether to go on with the run in `folder`, as it was configured.
        report: see `train`.
        offline: never fetch weights to start from.

    Returns:
        folder, epochs, best_epoch, ccc_valence, ccc_arousal and ccc_mean of the best epoch,
        smoothing_s; smoothed: the mean CCC by half-width; notes: lines for whoever trains.

    Raises:
        TrainError: the configuration, the clips or the run's folder do not allow it.
        StoreError: a feature file is missing or damaged.
        ConvertError, EncoderError: no such weights to start from.
        ModelError: no such device.
    """
    given = Run(folder).config() if resume else config or {}
    try:
        resolved = resolve(given)
    except TrainError as error:
        raise TrainError(f"{folder}: {error}" if resume else str(error)) from error
    settings = train_config(resolved)
    manifest = read_manifest(resolved["features"], resolved["encoders"])
    try:
        about = preset(resolved["preset"], manifest.widths, **resolved["network"])
    except ValueError as error:
        raise TrainError(f"network: {error}") from error
    if settings.loss == "theta" and about.head != "theta":
        raise TrainError(f"loss theta needs a network with head theta, got {about.head}")
    fabric = launch(settings)
    clips = load_clips(
        resolved["features"], about.rate_hz, ("train", "val"), resolved["encoders"],
        fabric.global_rank, fabric.world_size,
    )  # fmt: skip
    train_clips, val_clips = split_clips(only(clips, resolved["modalities"]), resolved["fold"])
    _check_parts(train_clips, val_clips, f"{resolved['features']}, fold {resolved['fold']}")
    names = {"train": [c.name for c in train_clips], "val": [c.name for c in val_clips]}
    data = {"manifest": manifest.name, "sha256": manifest.sha256, "clips": names}
    data["encoders"] = manifest.encoders
    run = Run(folder, *encoders_of(manifest))
    begun = run.environment()["data"] if resume else data
    agree(
        fabric,
        features=json.dumps(data),
        settings=json.dumps({**resolved, "features": None}, default=str),
        run=json.dumps(begun),
        checkpoint=str(run.progress().epoch),
    )
    if begun != data:  # in all processes alike, as they agree: none waits for another
        raise TrainError(f"{folder}: its features have changed since it began; begin a new run")
    if not resume and fabric.is_global_zero:
        run.begin(resolved, environment(settings.seed, fabric.world_size, data))
    torch.manual_seed(settings.seed)
    network = Maven(about)
    for m in MODALITIES:
        if len(sample := moment_sample(train_clips, m)) > 1:
            network.fit_moments(m, torch.from_numpy(sample))
    window_s, notes = settings.window_s, _notes(manifest, train_clips)
    if resolved["start"] and not run.last.exists():
        notes += start(network, resolved["start"], offline)
    if not about.local and window_s != about.window_s:
        window_s = about.window_s
        notes.append(f"windows of {window_s:g} s, the network's own, in place of train.window_s")
    source = Windows(train_clips, window_s, settings.batch, settings.seed)
    best = train(network, source, val_clips, settings, run, fabric, report)
    smoothing_s, smoothed = choose_smoothing(best, val_clips, settings.smoothing_s, fabric)
    progress = fabric.broadcast(run.progress() if fabric.is_global_zero else Progress())
    if fabric.is_global_zero:
        run.write_best(best, progress, smoothing_s, smoothed)
    return {
        "folder": str(folder),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        **progress.best_figures(),
        "smoothing_s": smoothing_s,
        "smoothed": smoothed,
        "notes": notes,
    }


def _notes(manifest: Manifest, train: Sequence[Clip]) -> list[str]:
    notes = []
    if manifest.failed:
        notes.append(f"{len(manifest.failed)} videos of the corpus have no features")
    blank = [clip.name for clip in train if not valid_labels(*clip.labels.T).any()]
    if blank:
        notes.append(f"{len(blank)} clips to train on have no valid label, {blank[0]} for one")
    return notes


def _check_parts(train: Sequence[Clip], val: Sequence[Clip], where: str) -> None:
    for part, what in ((train, "train"), (val, "validate")):
        if not part:
            raise TrainError(f"{where}: no clips to {what} on")
    if not any(valid_labels(*clip.labels.T).any() for clip in train):
        raise TrainError(f"{where}: not one valid label in the {len(train)} clips to train on")
    if not any(valid_labels(*clip.frame_labels.T).any() for clip in val):
        raise TrainError(f"{where}: not one valid label in the {len(val)} clips to validate on")


def encoders_of(manifest: Manifest) -> tuple[dict[str, EncoderSpec], dict[str, Path]]:
    """Find the encoders that features were made with: their specs, and files that a model needs.

    Raises:
        TrainError: the files are not here any more, or others.
    """
    specs = {
        m: EncoderSpec(about["kind"], about["source"], about["revision"])
        for m, about in manifest.encoders.items()
    }
    small = {m: spec.source for m, spec in specs.items() if spec.kind == "mini"}
    if not small:
        return specs, {}
    from maven.encoders.mini import load_mini

    try:
        folder = MINI_FOLDER if manifest.name == "mini" else find(manifest.name)
    except ModelError as error:
        raise TrainError(f"the encoders that made these features: {error}") from error
    for m, source in small.items():
        path = folder / source
        wanted = manifest.encoders[m]["fingerprint"]
        if not path.is_file() or load_mini(m, path, "cpu").fingerprint != wanted:
            raise TrainError(f"{path} did not make these features; run `maven features` again")
    files = [*small.values(), *(path.name for path in folder.glob("LICENSE*"))]
    return specs, {name: folder / name for name in files}
