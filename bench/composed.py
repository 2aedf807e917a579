"""The composed validation corpus, clean and degraded: CCC of all modalities and of each alone.

python bench/composed.py [--model mini] [--sources DATA] [--work runs/composed] [--seed 0]

Composes the corpus as `maven data compose --split val` does, degrades a copy of it (`degrade.py`),
extracts the features of both as `maven features` does, and scores them as `maven evaluate` does: at
every labelled frame of all videos together, where a modality on its own is interpolated over the
frames at which it was not observed. What is in WORK is used again: after an interruption, or with
other weights, only what is missing is made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from degrade import Degradation, degrade
from machine import DATA, describe
from maven.checkpoint import Network, load_network
from maven.config import MODALITIES
from maven.datasets.clips import Clip, load_clips
from maven.datasets.plan import gather, plan_video, record, voice
from maven.datasets.write import write_corpus
from maven.evaluate import Evaluation, evaluate
from maven.extract import extract
from maven.features import NAMES, Features
from maven.matching import manifest_for
from maven.metrics import Scores, score
from maven.validate import predict

SPLIT = "val"
ABOVE = 0.08  # the best single modality
MAY_LOSE = 0.05


def told(stage: str) -> Callable[[int, int], None]:
    """Say on stderr how far a stage is, a line every five videos."""

    def progress(done: int, total: int) -> None:
        if done % 5 == 0 or done == total:
            print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)

    return progress


def composed(sources: Path, root: Path, videos: int, seconds: float, seed: int) -> None:
    """Compose the corpus, or what is missing of it."""
    if (root / f"prediction_sample_{SPLIT}.txt").is_file():  # the last that is written
        made = json.loads((root / f"compose_{SPLIT}.json").read_text(encoding="utf-8"))
        asked = {"videos": videos, "seconds": seconds, "seed": seed}
        if {name: made[name] for name in asked} != asked:
            raise SystemExit(f"{root}: holds another corpus than is asked for ({asked}); delete it")
        if made["plans"][f"{SPLIT}-000"] != first_plan(sources, seconds, seed):
            raise SystemExit(
                f"{root}: the composer or DATA has changed since; delete {root.parent}"
            )
        return
    write_corpus(sources, SPLIT, videos, seconds, seed, root, told("composing"))


def first_plan(sources: Path, seconds: float, seed: int) -> dict[str, Any]:
    """What the record says of the first video, as it would be composed now."""
    material = gather(sources, SPLIT)
    voices = lru_cache(256)(lambda clip: voice(material.clips[clip].path))
    plan = plan_video(material, SPLIT, seed, 0, seconds, voices)
    planned: dict[str, Any] = json.loads(json.dumps(record(plan, material, sources)))
    return planned


def features_of(found: Network, root: Path, store: Path, name: str) -> list[Clip]:
    """Extract the features of a corpus and load its clips."""
    say = told(f"features of {root.name}")
    encoders = "mini" if name == "mini" else str(found.folder)
    extract(
        root, store, encoders, device=found.device, offline=True, split=SPLIT,
        progress=lambda what, done, total: None if ":" in what else say(done, total),
    )  # fmt: skip
    manifest = manifest_for(found, store)
    if manifest.failed:
        raise SystemExit(f"{root}: cannot be read: {manifest.failed}")
    return load_clips(store, found.card.config.rate_hz, SPLIT, manifest.name)


def crossed(clean: Sequence[Clip], poor: Sequence[Clip], modality: str) -> list[Clip]:
    """The clean clips with one modality of the degraded ones."""
    mixed = []
    for one, other in zip(clean, poor, strict=True):
        assert (one.name, len(one.features.time_s)) == (other.name, len(other.features.time_s))
        features = Features(
            one.features.time_s,
            {**one.features.values, modality: other.features.values[modality]},
            one.features.observed | {modality: other.features.observed[modality]},
        )
        mixed.append(replace(one, features=features))
    return mixed


def singles(evaluation: Evaluation) -> dict[str, Scores]:
    """The scores of each modality on its own."""
    return {c.modality: c.scores for c in evaluation.conditions if c.change == "only"}


def line(name: str, scores: Scores, note: str = "") -> str:
    """A row of the table."""
    figures = (scores.ccc_valence, scores.ccc_arousal, scores.ccc_mean)
    return f"| {name} | {' | '.join(f'{x:.3f}' for x in figures)} | {note} |"


def table(title: str, evaluation: Evaluation) -> None:
    """Print the scores of a corpus, all modalities and each alone."""
    print(f"\n| {title} | CCC valence | CCC arousal | mean | |\n|---|---|---|---|---|")
    print(line("face, voice and words", evaluation.abaw))
    if evaluation.intervals:
        spans = (
            "{:.3f} to {:.3f}".format(*evaluation.intervals[name])
            for name in ("ccc_valence", "ccc_arousal", "ccc_mean")
        )
        print(f"| 95 %, over videos | {' | '.join(spans)} | |")
    for modality, scores in singles(evaluation).items():
        print(line(f"{NAMES[modality]} only", scores))


def feature_space(found: Network) -> None:
    """Print what the recipe measured on sequences composed of features, for comparison."""
    figures = found.card.training.get("figures", {})
    if figures:
        print(
            "\n| composed in feature space, before smoothing | CCC valence | CCC arousal | mean |"
        )
        print("|---|---|---|---|")
    for name, row in figures.items():
        values = (row[f"ccc_{what}"] for what in ("valence", "arousal", "mean"))
        print(f"| {name} | {' | '.join(f'{x:.3f}' for x in values)} |")


def main() -> None:
    """Print the tables and what is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini", help="mini, or a model folder")
    parser.add_argument("--sources", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=Path("runs/composed"))
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=0, help="of the corpus")
    given = parser.parse_args()
    print(describe())
    found = load_network(given.model, device="cpu", offline=True)
    print(f"Model {found.card.name}, weights {found.weights_hash[:12]}", flush=True)
    roots = {name: given.work / name for name in ("clean", "degraded")}
    how = Degradation()
    composed(given.sources, roots["clean"], given.videos, given.seconds, given.seed)
    degrade(roots["clean"], SPLIT, given.sources, roots["degraded"], how, told("degrading"))
    clips = {
        name: features_of(found, root, given.work / f"store-{name}", given.model)
        for name, root in roots.items()
    }
    clean, poor = (
        evaluate(found.network, chosen, found.card.smoothing_s) for chosen in clips.values()
    )
    table(f"{given.videos} composed videos of {given.seconds:g} s", clean)
    table(
        f"with noise {how.snr_db:g} dB under the voice (half white, half babble), crops blurred by"
        f" {how.blur_px:g} px and shifted by up to {100 * how.shift:g} %,"
        f" {100 * how.word_error_rate:g} % of words wrong",
        poor,
    )
    for modality, name in NAMES.items():
        mixed = crossed(clips["clean"], clips["degraded"], modality)
        va = predict(found.network, mixed, (found.card.smoothing_s,))[0]
        labels = np.concatenate([clip.frame_labels for clip in mixed])
        print(line(f"all, only the {name} degraded", score(labels, va)))
    best = max((scores.ccc_mean, m) for m, scores in singles(clean).items())
    gain, loss = clean.abaw.ccc_mean - best[0], clean.abaw.ccc_mean - poor.abaw.ccc_mean
    print("\n| what is asked | measured | met |\n|---|---|---|")
    print(
        f"| mean CCC of all: best single modality + {ABOVE} | {clean.abaw.ccc_mean:.3f},"
        f" {NAMES[best[1]]} only {best[0]:.3f}: {gain:+.3f} | {'yes' if gain >= ABOVE else 'no'} |"
    )
    print(
        f"| degraded: loses at most {MAY_LOSE} | {poor.abaw.ccc_mean:.3f}: loses {loss:.3f} |"
        f" {'yes' if loss <= MAY_LOSE else 'no'} |"
    )
    print("\nShare of the grid at which a modality was observed:")
    for name, chosen in clips.items():
        shares = (
            f"{NAMES[m]} {np.concatenate([c.features.observed[m] for c in chosen]).mean():.2f}"
            for m in MODALITIES
        )
        print(f"- {name}: {', '.join(shares)}")
    feature_space(found)


if __name__ == "__main__":
    main()
