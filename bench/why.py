"""Do the weights name the modality that carries the emotion? On sequences where only one does.

python bench/why.py --work runs/mini [--model NAME] [--sequences 20]

Sequences are composed of the validation parts (`tools/train_mini.py parts`), of which all but one
modality's are neutral by their own labels. Counted are frames in which all three are observed and
the label's intensity is 0.3 or more, and all frames in which the carrier is observed. The second
table keeps to parts that the encoders read right: there the cause is known to the network as well,
and what is left are errors of the weights; in the first, a neutral face that was read as an angry
one did drive the answer, and counts against them all the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from machine import describe
from maven.checkpoint import NO_REST, Network, Rest, load_network
from maven.config import MODALITIES
from maven.datasets.compose import Parts, compose
from maven.features import NAMES
from maven.inference import infer, resting

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from mini_parts import read_parts

STRONG = 0.3
SECONDS = 40.0
WANTED = 0.8
READ_NEUTRAL, READ_RIGHT = 0.25, 0.45  # from the own label to the encoder's answer


def read_right(parts: Parts, carrier: str) -> Parts:
    """Keep the parts whose encoder answers near their own labels."""
    answers = {
        "visual": (parts.faces[:, :2], parts.face_va),
        "audio": (np.stack([v[:, :2].mean(0) for v in parts.voices]), parts.voice_va),
        "text": (
            np.stack([s[:, 4:6].mean(0) if len(s) else [np.inf] * 2 for s in parts.sentences]),
            parts.sentence_va,
        ),
    }
    kept = {
        m: np.flatnonzero(
            np.linalg.norm(read - va, axis=1) <= (READ_RIGHT if m == carrier else READ_NEUTRAL)
        )
        for m, (read, va) in answers.items()
    }
    return parts.only(kept["visual"], kept["audio"], kept["text"])


def highest(
    found: Network, parts: Parts, carrier: str, rests: Sequence[Rest], count: int
) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """For each definition: shares (3,) of frames in which a modality has the highest weight.

    Returns:
        Shares of strong frames, shares of all in which the carrier is observed, and how many
        strong frames there were.
    """
    rng = np.random.default_rng(7)
    strong: list[list[np.ndarray]] = [[] for _ in rests]
    every: list[list[np.ndarray]] = [[] for _ in rests]
    for _ in range(count):
        features, labels = compose(parts, SECONDS, rng)
        series = infer(found.network, features, found.card.smoothing_s)
        observed = np.stack([features.observed[m] for m in MODALITIES], 1)
        counted = observed.all(1) & (np.linalg.norm(labels, axis=1) >= STRONG)
        there = observed[:, MODALITIES.index(carrier)]
        for k, rest in enumerate(rests):
            weights = series.weights(observed, rest)
            strong[k].append(weights[counted].argmax(1))
            every[k].append(weights[there].argmax(1))
    tables = []
    for one, other in zip(strong, every, strict=True):
        a, b = (np.bincount(np.concatenate(part), minlength=3) for part in (one, other))
        tables.append((a / a.sum(), b / b.sum(), int(a.sum())))
    return tables


def main() -> None:
    """Print a table for all parts and one for those that are read right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/mini"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--sequences", type=int, default=20)
    arguments = parser.parse_args()
    print(describe())
    found = load_network(arguments.model, device="cpu")
    rate_hz = found.card.config.rate_hz
    rng = np.random.default_rng(1)
    neutral = read_parts(arguments.work / "parts_train.npz", rate_hz).carried_by(None)
    clips = [compose(neutral, SECONDS, rng)[0] for _ in range(10)]
    measured = resting(found.network, clips, found.card.smoothing_s)
    rests = {
        "length of the contribution": NO_REST,
        "distance from rest, measured here": measured,
    }
    if found.card.rest != NO_REST:
        rests["distance from rest, as the model has it"] = found.card.rest
    print("rest measured here:", [tuple(round(v, 3) for v in pair) for pair in measured])
    every = read_parts(arguments.work / "parts_val.npz", rate_hz)
    for title, right in (("all parts", False), ("parts that the encoders read right", True)):
        print(f"\n{title}\n\n| carries | weight | frames | face | voice | words | at least 0.8 |")
        print("|---|---|---|---|---|---|---|")
        for carrier in MODALITIES:
            parts = every.carried_by(carrier)
            parts = read_right(parts, carrier) if right else parts
            results = highest(found, parts, carrier, list(rests.values()), arguments.sequences)
            for name, (strong, there, frames) in zip(rests, results, strict=True):
                held = "yes" if strong[MODALITIES.index(carrier)] >= WANTED else "no"
                cells = " | ".join(f"{a:.2f} ({b:.2f})" for a, b in zip(strong, there, strict=True))
                print(f"| {NAMES[carrier]} | {name} | {frames} | {cells} | {held} |", flush=True)
    print(
        "\nShares of frames with the highest weight: strong ones (all with the carrier observed)."
    )


if __name__ == "__main__":
    main()
