"""Time and memory of the network by window length: one forward pass, one training step.

python bench/network.py [--runs 5] [--presets LIST] [--widths mini|paper] [--full]

Each cell runs in a process of its own; memory is what the pass adds to the peak of that process.
The presets other than `default` have their full size only with --full; else all share the sizes of
`default`, so that what differs is how they attend.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from machine import describe
from maven.config import MODALITIES, PRESETS, preset
from maven.model import Maven

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
WIDTHS = {"mini": (9, 11, 8), "paper": (1024, 768, 768)}
SAME_SIZES = {
    "width": 96, "heads": 4, "join_width": 128, "join_heads": 4, "join_layers": 2,
    "join_feed": 512, "head_widths": (128, 64),
}  # fmt: skip


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, widths: str, full: bool, length: int, runs: int) -> dict[str, float]:
    """Time one window of `length` frames at 10 Hz, in inference and in training."""
    sizes = dict(zip(MODALITIES, WIDTHS[widths], strict=True))
    network = Maven(preset(name, sizes, **({} if full else SAME_SIZES)))
    random = torch.Generator().manual_seed(0)
    features = {m: torch.randn(1, length, sizes[m], generator=random) for m in MODALITIES}
    observed = {m: torch.rand(1, length, generator=random) < 0.8 for m in MODALITIES}
    time_s = torch.arange(length, dtype=torch.float64)[None] / 10
    before = peak_mb()
    figures = {}
    for kind in ("forward", "training"):
        network.train(kind == "training")
        seconds = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            with torch.set_grad_enabled(kind == "training"):
                va = network(features, observed, time_s)
                if kind == "training":
                    va.square().mean().backward()
            seconds.append(time.perf_counter() - began)
        figures[f"{kind}_s"] = statistics.median(seconds[1:])
        figures[f"{kind}_mb"] = peak_mb() - before
    return figures


def main() -> None:
    """Print the table, or measure one cell where --cell asks for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--widths", choices=WIDTHS, default="mini")
    parser.add_argument("--full", action="store_true", help="published sizes of the presets")
    parser.add_argument("--cell", nargs=2, metavar=("PRESET", "LENGTH"))
    given = parser.parse_args()
    if given.cell:
        name, length = given.cell
        print(json.dumps(measure(name, given.widths, given.full, int(length), given.runs)))
        return
    print(describe(), f"{torch.get_num_threads()} threads", sep=", ")
    print(
        "| preset | frames | forward, ms | us a frame | MB | training step, ms | us a frame | MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    options = [*sys.argv[1:]]
    for name in given.presets.split(","):
        for length in LENGTHS:
            command = [sys.executable, __file__, *options, "--cell", name, str(length)]
            cell = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            row = [name, str(length)]
            for kind in ("forward", "training"):
                seconds, mb = cell[f"{kind}_s"], cell[f"{kind}_mb"]
                row += [f"{1e3 * seconds:.1f}", f"{1e6 * seconds / length:.0f}", f"{mb:.0f}"]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
