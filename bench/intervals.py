"""How well prediction intervals hold on videos that they were not calibrated on.

python bench/intervals.py [--model mini] [--store runs/store] [--split val] [--other STORE]
                          [--parts runs/mini/parts_val.npz] [-o docs/pictures/reliability.png]

STORE holds the features of a composed corpus (`maven data compose`, `maven features`). By default
its videos are dealt into two halves; each is covered by the intervals of the other, whose sources
it shares. With --other, the videos of that store are covered by the intervals of all of the first.
With --parts, sequences composed of features as well (no picture is decoded), whose halves share no
face, speaker and sentence. The first table has the frames as they come; some sets of modalities are
rare there. The second has the same videos with every set of modalities muted as well; -o draws it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from machine import describe
from maven.checkpoint import load_network
from maven.datasets import compose
from maven.features import Features
from maven.inference import answer
from maven.intervals import NOMINAL, Covered, Frames, Intervals, coverage, fit, gather
from maven.matching import clips_of
from maven.render.reliability import reliability
from maven.timeline import Times

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from mini_parts import read_parts

SHARES = tuple(float(share) for share in np.arange(50, 100, 5) / 100)
BAND = (0.87, 0.93)
SEQUENCES, SECONDS = 40, 45.0  # of each half of the parts
Measured = dict[float, dict[str, Covered]]
Answer = Callable[[Features], Times]


def measure(pairs: list[tuple[Frames, Frames]]) -> tuple[Measured, Measured]:
    """Fit on the first of each pair, measure on the second: as it comes, and muted as well."""
    fitted = {share: [fit(known, share) for known, _ in pairs] for share in SHARES}
    others = [other for _, other in pairs]
    as_it_comes = [other.of(~other.muted) for other in others]
    return covered_by(fitted, as_it_comes), covered_by(fitted, others)


def covered_by(fitted: dict[float, list[Intervals]], others: list[Frames]) -> Measured:
    """Coverage of the k-th frames by the k-th intervals, by share; groups weigh their frames."""
    measured = {}
    for share, made in fitted.items():
        found: dict[str, list[Covered]] = {}
        for intervals, new in zip(made, others, strict=True):
            held = coverage(intervals, new.va, new.labels, new.observed)
            for name, covered in held.items():
                found.setdefault(name, []).append(covered)
        measured[share] = {name: pooled(parts) for name, parts in found.items()}
    return measured


def pooled(parts: list[Covered]) -> Covered:
    """Join the same group of several measurements."""
    frames = [part.frames for part in parts]
    names = ("valence", "arousal", "width_valence", "width_arousal")
    means = (np.average([getattr(part, name) for part in parts], weights=frames) for name in names)
    return Covered(sum(frames), *map(float, means))


def halves(frames: Frames) -> list[tuple[Frames, Frames]]:
    """Every other video, and the rest; and the reverse."""
    even = frames.video % 2 == 0
    return [(frames.of(even), frames.of(~even)), (frames.of(~even), frames.of(even))]


def disjoint(path: Path, rate_hz: float, answered: Answer) -> list[tuple[Frames, Frames]]:
    """Answered sequences of two halves of the parts, which share no source; and the reverse."""
    parts, rng = read_parts(path, rate_hz), np.random.default_rng(0)
    faces_half = rng.permutation(len(parts.faces)) % 2
    sentences_half = rng.permutation(len(parts.sentences)) % 2
    speakers_half = np.unique(parts.speakers, return_inverse=True)[1] % 2
    made = []
    for half in range(2):
        kept = (np.flatnonzero(x == half) for x in (faces_half, speakers_half, sentences_half))
        own = parts.only(*kept)
        drawn = (compose.compose(own, SECONDS, rng) for _ in range(SEQUENCES))
        made.append(gather(answered, drawn))
    return [(made[0], made[1]), (made[1], made[0])]


def table(title: str, measured: Measured) -> None:
    """Print coverage and mean width by nominal share, and by group at 90 %."""
    print(f"\n{title}\n")
    print("| | frames | covered valence | covered arousal | width valence | width arousal | |")
    print("|---|---|---|---|---|---|---|")
    rows = [(f"all, nominal {share:.0%}", measured[share]["all"], False) for share in SHARES]
    rows += [(f"{name}, nominal 90%", row, True) for name, row in measured[NOMINAL].items()]
    for name, row, judged in rows:
        inside = all(BAND[0] <= value <= BAND[1] for value in (row.valence, row.arousal))
        said = ("" if inside else f"outside {BAND[0]:.0%}-{BAND[1]:.0%}") if judged else ""
        print(
            f"| {name} | {row.frames} | {row.valence:.3f} | {row.arousal:.3f}"
            f" | {row.width_valence:.2f} | {row.width_arousal:.2f} | {said} |"
        )


def main() -> None:
    """Print the tables, and draw the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--store", type=Path, default=Path("runs/store"))
    parser.add_argument("--split", default="val")
    parser.add_argument("--other", type=Path)
    parser.add_argument("--parts", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    arguments = parser.parse_args()
    found = load_network(arguments.model, device="cpu")

    def answered(features: Features) -> Times:
        return answer(found.network, features, found.card.smoothing_s)

    def videos(store: Path) -> Frames:
        with clips_of(found, store, arguments.split) as (clips, _):
            return gather(answered, ((clip.features, clip.labels) for clip in clips))

    print(describe())
    known = videos(arguments.store)
    count = len(np.unique(known.video))
    if arguments.other is None:
        title, pairs = f"{arguments.store}: {count} videos, halves swapped", halves(known)
    else:
        other = videos(arguments.other)
        title = (
            f"calibrated on {count} videos of {arguments.store}, measured on"
            f" {len(np.unique(other.video))} of {arguments.other}"
        )
        pairs = [(known, other)]
    as_it_comes, muted_too = measure(pairs)
    table(f"{title}; as they come", as_it_comes)
    table(f"{title}; muted as well", muted_too)
    if arguments.parts is not None:
        rate_hz = found.card.config.rate_hz
        title = f"{2 * SEQUENCES} sequences of {SECONDS:g} s of features, no source shared"
        table(title, measure(disjoint(arguments.parts, rate_hz, answered))[0])
    if arguments.out is not None:
        reliability(muted_too, arguments.out)
        print(f"\nWrote {arguments.out}")


if __name__ == "__main__":
    main()
