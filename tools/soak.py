"""Long trials of what must never go wrong: kills, lost nodes, hostile files, damage, odd texts.

    python tools/soak.py -o soak-out [--clips FOLDER] [--parts kills,nodes] [--into PAGE.md]

prints a table a part; with --into, it takes the place of the table of that part in a page. `make
soak` runs all of it and puts it into docs/reliability.md. Exit code 1 where anything is not as
asked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from maven.files import whole
from soak_batch import Found, fresh, make_clips, shown
from soak_faults import faults
from soak_hostile import hostile
from soak_kills import kills
from soak_nodes import nodes

REPOSITORY = Path(__file__).parent.parent
CLIPS = REPOSITORY.parent / "shared" / "data" / "clips"
NUMBER = 60  # clips of a batch
KILLS = 100
HOSTILE = 500
CASES = 1_000_000
SHORT_S, LONG_S = 3.0, 12.0  # clips of batches that are killed, and of the cluster's


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of all it makes")
    parser.add_argument("--clips", type=Path, default=_clips(), help="real ones; else the demo's")
    parser.add_argument("--parts", default="kills,nodes,faults,hostile,texts,tests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--into", type=Path, metavar="PAGE", help="a page with a place for it")
    parser.add_argument("--keep", action="store_true", help="do not remove what was made")
    options = parser.parse_args()
    work: Path = fresh(options.out / "work")
    work.mkdir(parents=True)
    work = work.absolute()
    seed, workers = options.seed, ("--workers", str(min(os.cpu_count() or 1, 2)))
    short = work / "clips"

    def batch() -> Path:
        return short if short.exists() else make_clips(options.clips, short, NUMBER, seed, SHORT_S)

    parts: dict[str, tuple[str, Callable[[], list[Found]]]] = {
        "kills": ("Killed", lambda: kills(batch(), work, KILLS, seed, workers)),
        "nodes": ("A node lost", lambda: nodes(options.clips, work, NUMBER, seed, LONG_S)),
        "faults": ("Damaged or foreign state", lambda: faults(batch(), work, workers)),
        "hostile": ("Hostile files", lambda: hostile(options.clips, work, HOSTILE, seed)),
        "texts": ("Texts: transcripts, labels, manifests", lambda: _texts(seed)),
        "tests": ("Stores, checkpoints, limits: their tests", _tests),
    }
    wanted = options.parts.split(",")
    if unknown := set(wanted) - set(parts):
        parser.error(f"--parts: got {', '.join(unknown)}; accepted: {', '.join(parts)}")
    good = True
    for name in wanted:
        title, part = parts[name]
        began_s = time.monotonic()
        found = part()
        good &= all(line.good for line in found)
        minutes = (time.monotonic() - began_s) / 60
        rows = shown(found).replace(f"{work}/", "")
        table = f"| what | came | as asked |\n|---|---|---|\n{rows}"
        section = f"### {title}\n\n{_when(minutes)}; seed {seed}.\n\n{table}\n"
        print(f"\n{section}", flush=True)
        if options.into is not None:
            put(section, options.into, [title for title, _ in parts.values()])
    if not options.keep:
        shutil.rmtree(work)
    sys.exit(0 if good else 1)


def _clips() -> Path:
    data = os.environ.get("MAVEN_DATA")
    return Path(data) / "clips" if data else CLIPS


def put(section: str, page: Path, titles: Sequence[str]) -> None:
    """Put a part's table between the marks of a page, in the place of the one that was there."""
    before, begin, rest = page.read_text(encoding="utf-8").partition("<!-- soak -->\n")
    held, end, after = rest.partition("<!-- end -->")
    if not begin or not end:
        raise ValueError(f"{page}: has no place for a report, <!-- soak --> to <!-- end -->")
    sections = {text.partition("\n")[0]: f"### {text}" for text in held.split("### ")[1:]}
    sections[section[4:].partition("\n")[0]] = section + "\n"
    ordered = "".join(sections[title] for title in titles if title in sections)
    with whole(page) as part:
        part.write_text(f"{before}{begin}{ordered}{end}{after}", encoding="utf-8")


def _when(minutes: float) -> str:
    """Say when, on what, and of which state of the repository."""
    sys.path.insert(0, str(REPOSITORY / "bench"))
    from machine import describe

    line = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    day = time.strftime("%Y-%m-%d", time.gmtime())
    state = f", at {commit.stdout.strip()}" if commit.returncode == 0 else ""
    return f"{day}, {minutes:.1f} minutes{state}; {describe()}"


def _texts(seed: int) -> list[Found]:
    """Every parser of texts that people send, on made and mutated ones."""
    line = [sys.executable, str(REPOSITORY / "tools" / "fuzz.py"), "--cases", str(CASES)]
    line += ["--seed", str(seed), "--processes", "2"]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    last = (ran.stdout.strip().splitlines() or [ran.stderr.strip()[-200:]])[-1]
    return [Found(f"{CASES:,} cases", last, ran.returncode == 0)]


def _tests() -> list[Found]:
    """The tests of what damage is noticed where no batch is needed to show it."""
    names = ("test_store*.py", "test_checkpoint*.py", "test_confine.py", "batch/test_*.py")
    files = [str(path) for name in names for path in sorted((REPOSITORY / "tests").glob(name))]
    line = [sys.executable, "-m", "pytest", "--durations=0", *files]
    ran = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    last = (ran.stdout.strip().splitlines() or ["nothing"])[-1]
    return [Found(f"{len(files)} files of tests", last.strip("= "), ran.returncode == 0)]


if __name__ == "__main__":
    main()
