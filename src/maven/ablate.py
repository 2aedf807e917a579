"""Runs that differ in one thing, side by side on the same features, seeds and epochs.

A grid names its variants; each is trained with every seed in a folder of its own, several at once.
Finished runs are kept, so an interrupted ablation goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from maven.checkpoint import load_network
from maven.config import MODALITIES, preset
from maven.datasets.clips import Clip, load_clips, only, split_clips
from maven.evaluate import without_a_third
from maven.files import whole
from maven.recipe import TrainError, resolve
from maven.runs import Run
from maven.store import read_manifest
from maven.train import run_training
from maven.validate import score

PUBLISHED_RECIPE = {"mask_invalid": False, "drop_modality": 0.0, "drop_stretch": 0.0}


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        name: for people.
        group: rows that belong together.
        changes: what departs from the configuration, by its keys.
    """

    name: str
    group: str
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return "".join(c if c.isalnum() else "-" for c in self.name).strip("-")


def _subsets() -> list[Variant]:
    sizes = (combinations(MODALITIES, k) for k in (3, 2, 1))
    names = {"visual": "face", "audio": "voice", "text": "words"}
    return [
        Variant(" + ".join(names[m] for m in kept), "trained on", {"modalities": list(kept)})
        for kept in chain.from_iterable(sizes)
    ]


GRIDS: dict[str, list[Variant]] = {
    "modalities": _subsets(),
    "components": [
        Variant("default", "as it is"),
        Variant("no relative time", "taken away", {"network": {"time_bias": False}}),
        Variant("no refinement", "taken away", {"network": {"refine": False}}),
        Variant("no BEiT layers", "taken away", {"network": {"join_layers": 0}}),
        Variant("no modality dropout", "taken away",
                {"train": {"drop_modality": 0.0, "drop_stretch": 0.0}}),
        Variant("attention to the whole window", "changed", {"network": {"radius_s": None}}),
        Variant("Cartesian head", "changed", {"network": {"head": "cartesian"}}),
        Variant("angle and intensity head", "changed", {"network": {"head": "theta"}}),
        Variant("loss 1 - CCC alone", "changed", {"train": {"mse_weight": 0.0}}),
        Variant("loss MSE alone", "changed", {"train": {"loss": "mse"}}),
        Variant("pooled voice and words", "published fault",
                {"network": {"pooled": ["audio", "text"]}}),
        Variant("CCC without gradient", "published fault",
                {"train": {"loss": "ccc-no-gradient"}}),
        Variant("MSE on theta", "published fault",
                {"network": {"head": "theta"}, "train": {"loss": "theta"}}),
        Variant("-5 learnt as labels", "published fault", {"train": {"mask_invalid": False}}),
    ],
    "presets": [
        Variant("default", "our recipe", {"preset": "default"}),
        Variant("paper", "our recipe", {"preset": "paper"}),
        Variant("reference-mlp", "our recipe", {"preset": "reference-mlp"}),
        Variant("reference-beit", "our recipe", {"preset": "reference-beit"}),
        Variant("reference-beit, windows of 10 s", "our recipe",
                {"preset": "reference-beit", "network": {"window_s": 10.0}}),
        Variant("reference-mlp as published", "published recipe",
                {"preset": "reference-mlp", "train": {"loss": "theta", **PUBLISHED_RECIPE}}),
        Variant("reference-beit as published", "published recipe",
                {"preset": "reference-beit",
                 "train": {"loss": "ccc-no-gradient", **PUBLISHED_RECIPE}}),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One variant trained with one seed.

    Attributes:
        variant: which.
        seed: of the training.
        scores: CCCs on the validation part: "as trained", and what else was asked of the network.
        smoothed: mean CCC by half-width of the smoothing, in seconds.
        failed: why there are none.
    """

    variant: Variant
    seed: int
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    smoothed: dict[float, float] = field(default_factory=dict)
    failed: str | None = None


def ablate(
    config: Mapping[str, Any],
    grid: str,
    seeds: int,
    folder: Path,
    jobs: int = 1,
    report: Callable[[Trial, int, int], None] = lambda trial, done, total: None,
) -> list[Trial]:
    """Train every variant of a grid with seeds 0, 1, ...; variant by variant in the answer.

    Args:
        config: of the training, see `maven.recipe`; it is what "default" means among the
            components.
        grid: key of `GRIDS`.
        seeds: how many.
        folder: for the runs; what is finished in it is kept.
        jobs: runs at once, each in a process with its share of the cores.
        report: told each trial as it is done, how many are done, and how many there are.

    Raises:
        TrainError: the configuration is wrong, or a process was killed.
        StoreError: the features are not there or damaged.
    """
    wanted = [(v, seed) for v in GRIDS[grid] for seed in range(seeds)]
    configs = [_resolved(config, variant, seed) for variant, seed in wanted]
    places = [folder / variant.folder / f"seed-{seed}" for variant, seed in wanted]
    trials: dict[int, Trial] = {}
    _place_clips(configs[0])
    with ProcessPoolExecutor(jobs, get_context("spawn"), _share_cores, (jobs,)) as pool:
        futures = {
            pool.submit(run_one, resolved, place, grid): k
            for k, (resolved, place) in enumerate(zip(configs, places, strict=True))
        }
        try:
            for future in as_completed(futures):
                k = futures[future]
                variant, seed = wanted[k]
                trials[k] = Trial(variant, seed, **future.result())
                report(trials[k], len(trials), len(wanted))
        except BrokenExecutor as error:
            raise TrainError(
                f"a training process was killed, perhaps for want of memory; {len(trials)} of"
                f" {len(wanted)} runs are finished and kept: run it again, with fewer jobs"
            ) from error
        finally:  # an interruption does not wait for what has not begun
            pool.shutdown(wait=False, cancel_futures=True)
    return [trials[k] for k in range(len(wanted))]


def _place_clips(config: Mapping[str, Any]) -> None:
    """Put the clips on the grid once, before several processes want to."""
    store, encoders = config["features"], config["encoders"]
    widths = read_manifest(store, encoders).widths
    try:
        network = preset(config["preset"], widths, **config["network"])
    except ValueError as error:
        raise TrainError(f"network: {error}") from error
    load_clips(store, network.rate_hz, ("train", "val"), encoders)


def _resolved(config: Mapping[str, Any], variant: Variant, seed: int) -> dict[str, Any]:
    resolved = resolve(config, variant.changes)
    settings = resolved["train"]
    # the same number of epochs for all
    changes = {"train": {"seed": seed, "patience": settings["epochs"]}, "name": variant.folder}
    return resolve(resolved, changes)


def _share_cores(jobs: int) -> None:
    import torch

    torch.set_num_threads(max(torch.get_num_threads() // jobs, 1))


def run_one(resolved: Mapping[str, Any], folder: Path, grid: str) -> dict[str, Any]:
    """Train and score one variant, or read what was found before; the fields of a `Trial`."""
    try:
        return _run(resolved, folder, grid)
    except Exception as error:  # too little memory for this one, say: the others go on
        ours = type(error).__module__.startswith("maven.")
        reason = str(error) if ours else f"{type(error).__name__}: {error}"
        return {"failed": " ".join(reason.split())}


def _run(resolved: Mapping[str, Any], folder: Path, grid: str) -> dict[str, Any]:
    run, path = Run(folder), folder / "result.json"
    begun = (folder / "config.yaml").is_file()
    if begun:
        _check_begun(run, resolved)
    if path.is_file():
        kept = json.loads(path.read_text())
        smoothed = {float(k): v for k, v in kept["smoothed"].items()}
        return {"scores": kept["scores"], "smoothed": smoothed}
    result = run_training(resolved, folder, resume=begun)
    scores = {"as trained": _ccc(result)}
    if grid == "modalities" and set(resolved["modalities"]) == set(MODALITIES):
        scores |= _bereft(resolved, folder / "best")
    found = {"scores": scores, "smoothed": result["smoothed"]}
    with whole(path) as part:
        part.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _check_begun(run: Run, resolved: Mapping[str, Any]) -> None:
    before, now = run.config(), dict(resolved)
    if changed := [name for name in now if before.get(name) != now[name]]:
        raise TrainError(
            f"{run.folder} holds a run of another configuration: other {', '.join(changed)}; give"
            " another folder"
        )
    manifest = read_manifest(now["features"], now["encoders"])
    if run.environment()["data"]["sha256"] != manifest.sha256:
        raise TrainError(f"{run.folder} holds a run on other features; give another folder")


def _ccc(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(figures[name]) for name in ("ccc_valence", "ccc_arousal", "ccc_mean")}


def _bereft(resolved: Mapping[str, Any], model: Path) -> dict[str, dict[str, float]]:
    """Score a network that was trained on everything while a modality is missing."""
    found = load_network(model, device=resolved["train"]["device"])
    clips = load_clips(
        resolved["features"], found.card.config.rate_hz, ("train", "val"), resolved["encoders"]
    )
    _, val = split_clips(clips, resolved["fold"])
    scores = {}
    for m in MODALITIES:
        rest = [other for other in MODALITIES if other != m]
        scores[f"without {m}"] = score(found.network, only(val, rest))
        scores[f"without a third of {m}"] = score(found.network, _thinned(val, m))
    return scores


def _thinned(clips: Sequence[Clip], modality: str) -> list[Clip]:
    return [
        replace(clip, features=without_a_third(clip.features, modality, seed))
        for seed, clip in enumerate(clips)
    ]
