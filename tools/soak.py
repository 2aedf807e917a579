"""Long trials of what must never go wrong: kills, lost nodes, hostile files, damage, odd texts.

    python tools/soak.py -o soak-out [--clips FOLDER] [--parts kills,nodes] [--into PAGE.md]

prints a table a part; with --into, it takes its place in a page, between `<!-- measured by
tools/soak.py: TITLE -->` and `<!-- end -->`. `make soak` runs all of it and puts it into
docs/reliability.md. Exit code 1 where anything is not as asked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from demo_pieces import DEMO
from soak_batch import COPIED, Found, fresh, make_clips, shown
from soak_faults import faults
from soak_hostile import hostile
from soak_kills import kills
from soak_nodes import nodes

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from machine import DATA, describe, put_into

REPOSITORY = Path(__file__).parent.parent
NUMBER = 60  # clips of a batch
KILLS = 100
CASES = 1_000_000
SHORT_S, LONG_S = 3.0, 12.0  # clips of batches that are killed, and of the cluster's
TEST_S = 900  # of one test; one that is killed at all of its moments takes minutes
TITLES = {
    "kills": "Killed",
    "nodes": "A node lost",
    "faults": "Damaged or foreign state",
    "hostile": "Hostile files",
    "texts": "Texts: transcripts, labels, manifests",
    "tests": "Stores, checkpoints, limits: their tests",
}


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of all it makes")
    parser.add_argument("--clips", type=Path, default=DATA / "clips", help="else the demo's")
    parser.add_argument("--parts", default=",".join(TITLES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--into", type=Path, metavar="PAGE", help="a page with a place for it")
    parser.add_argument("--keep", action="store_true", help="do not remove what was made")
    options = parser.parse_args()
    clips, state = _clips(options.clips), _state()
    work: Path = fresh(options.out / "work")
    work.mkdir(parents=True)
    work = work.absolute()
    seed, workers = options.seed, ("--workers", str(min(os.cpu_count() or 1, 2)))
    short = work / "clips"

    def batch() -> Path:
        return short if short.exists() else make_clips(clips, short, NUMBER, seed, SHORT_S)

    parts: dict[str, Callable[[], list[Found]]] = {
        "kills": lambda: kills(batch(), work, KILLS, seed, workers),
        "nodes": lambda: nodes(clips, work, NUMBER, seed, LONG_S),
        "faults": lambda: faults(batch(), work, workers),
        "hostile": lambda: hostile(clips, work, None, seed),
        "texts": lambda: _texts(seed),
        "tests": lambda: _tests(seed),
    }
    wanted = options.parts.split(",")
    if unknown := set(wanted) - set(parts):
        parser.error(f"--parts: got {', '.join(unknown)}; accepted: {', '.join(parts)}")
    good = True
    for name in wanted:
        began_s = time.monotonic()
        found = parts[name]()
        good &= all(line.good for line in found)
        minutes = (time.monotonic() - began_s) / 60
        rows = shown(found).replace(f"{work}/", "")
        table = f"| what | came | as asked |\n|---|---|---|\n{rows}"
        day = time.strftime("%Y-%m-%d", time.gmtime())
        text = f"{day}, {minutes:.1f} minutes{state}; {describe()}; seed {seed}.\n\n{table}"
        print(f"\n### {TITLES[name]}\n\n{text}\n", flush=True)
        if options.into is not None:
            put_into(options.into, {TITLES[name]: text})
    if not options.keep:
        shutil.rmtree(work)
    sys.exit(0 if good else 1)


def _clips(folder: Path) -> Path:
    """Give the folder of clips, or that of the demo clip where it holds none."""
    held = folder.is_dir() and any(path.suffix in COPIED for path in folder.iterdir())
    return folder if held else DEMO.parent


def _state() -> str:
    """Say of which state of the repository the report is, before that is written into it."""
    line = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return f", at {commit.stdout.strip()}" if commit.returncode == 0 else ""


def _texts(seed: int) -> list[Found]:
    """Every parser of texts that people send, on made and mutated ones."""
    line = [sys.executable, str(REPOSITORY / "tools" / "fuzz.py"), "--cases", str(CASES)]
    line += ["--seed", str(seed), "--processes", "2"]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    last = (ran.stdout.strip().splitlines() or [ran.stderr.strip()[-200:]])[-1]
    return [Found(f"{CASES:,} cases", last, ran.returncode == 0)]


def _tests(seed: int) -> list[Found]:
    """The tests of what damage is noticed where no batch is needed to show it, at all moments."""
    names = ("test_store*.py", "test_checkpoint*.py", "test_confine.py", "test_train_resume.py",
             "batch/test_*.py")  # fmt: skip
    files = [str(path) for name in names for path in sorted((REPOSITORY / "tests").glob(name))]
    line = [sys.executable, "-m", "pytest", "--durations=0", f"--timeout={TEST_S}", *files]
    more = os.environ | {"MAVEN_SOAK": "1", "MAVEN_KILL_SEED": str(seed)}
    ran = subprocess.run(
        line, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=more
    )
    last = (ran.stdout.strip().splitlines() or ["nothing"])[-1]
    return [Found(f"{len(files)} files of tests", last.strip("= "), ran.returncode == 0)]


if __name__ == "__main__":
    main()
