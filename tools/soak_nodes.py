"""A Ray cluster of two nodes on this machine, of which one is killed in the middle of a batch."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from soak_batch import (
    Found,
    command,
    differences,
    fingerprint,
    finish,
    fresh,
    left_over,
    make_clips,
)
from two_nodes import two_nodes

WITHIN_S = 1800.0


def nodes(sources: Path, work: Path, number: int, seed: int, length_s: float) -> list[Found]:
    """Run a batch on both nodes, kill one after a third of the clips, compare with a local run.

    Args:
        sources: real clips.
        work: where clips, outputs and logs go.
        number: of clips.
        seed: of their lengths.
        length_s: of the longest.
    """
    clips = make_clips(sources, work / "longer", number, seed, length_s)
    began_s = time.monotonic()
    local = finish(clips, fresh(work / "local"), "--workers", "2")
    local_s = time.monotonic() - began_s
    wanted, out = fingerprint(work / "local"), fresh(work / "on-ray")
    folder = Path(tempfile.mkdtemp(prefix="r"))  # short: it holds sockets
    try:
        with two_nodes(folder) as cluster, (work / "on-ray.log").open("wb") as log:
            line = command(clips, out, "--engine", "ray", "--address", cluster.address)
            began_s = time.monotonic()
            process = subprocess.Popen(line, stdout=log, stderr=log)
            while process.poll() is None and _results(out) < number // 3:
                time.sleep(0.05)
            before = _results(out)
            killed = cluster.kill_one()
            code = process.wait(WITHIN_S)
            took_s = time.monotonic() - began_s
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    wrong = differences(fingerprint(out), wanted) + left_over(out)
    return [
        Found(
            f"{number} clips on two nodes, one killed after {before}",
            f"{_results(out)} results, exit code {code}, {took_s:.0f} s"
            f" (local, two workers: {local_s:.0f} s); {len(killed)} processes killed",
            code == local.returncode == 0 and 0 < before < number,
        ),
        Found(
            "differences from the local run, files left over",
            ", ".join(wrong[:5]) or "none", not wrong,
        ),
    ]  # fmt: skip


def _results(out: Path) -> int:
    return len(list(out.glob("results/*/*.parquet")))
