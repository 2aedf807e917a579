"""Analyse a corpus of `hostile.py` in workers of a batch, and judge how every file ended.

    python tools/hostile_judge.py FOLDER --work DIR [--workers 2] [--part 1/4] [--out FILE.json]

Each must end as its manifest says, in a result or in one line, within the limits of time and
memory; at most `FEW` of them may be what the limits stopped. Prints counts and every offence, and
exits with 1 where there is one.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hostile import MANIFEST
from maven.batch.local import Local
from maven.batch.worker import Limits

FEW = 0.02  # of all files, or FEW_FILES
FEW_FILES = 3
SLACK_S = 15.0  # for a kill on a busy machine, and the start of the next worker
JOB = {
    "kind": "analyse", "model": "mini", "asr": "none", "faces": "main", "rate_hz": None,
    "device": "cpu", "runtime": "auto", "threads": 1, "offline": True,
}  # fmt: skip

Row = Mapping[str, str]


def manifest(folder: Path) -> list[Row]:
    """Read what is in a corpus."""
    path = folder / MANIFEST
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def analysed(
    folder: Path, rows: Sequence[Row], work: Path, workers: int, limits: Limits
) -> dict[str, dict[str, Any]]:
    """Analyse these files of a corpus in workers; give the outcome by file name."""
    tasks = [
        {
            "id": ascii(row["file"])[1:-1], "path": str((folder / row["file"]).absolute()),
            "transcript": None, "start_s": None, "end_s": None, "known": None,
            "size_bytes": _size(folder / row["file"]),
        }
        for row in rows
    ]  # fmt: skip
    names = {task["id"]: row["file"] for task, row in zip(tasks, rows, strict=True)}
    found: dict[str, dict[str, Any]] = {}
    with Local(JOB, work, workers, limits) as engine:
        for outcome in engine.run(iter(tasks)):
            if names[outcome["id"]] in found:
                raise AssertionError(f"{outcome['id']} ended twice")
            found[names[outcome["id"]]] = outcome
            if outcome.get("file"):
                Path(outcome["file"]).unlink()
    return found


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def offences(row: Row, outcome: Mapping[str, Any] | None, limits: Limits) -> list[str]:
    """Say what is wrong with how a file ended; nothing, where it ended well."""
    if outcome is None:
        return ["it has no outcome"]
    found = []
    state, error = outcome["state"], outcome.get("error")
    if state == "failed":
        if not error or not error.isprintable() or "Traceback" in error or len(error) > 2100:
            found.append(f"its error is not one line to read: {error!a}")
        if error and "internal" in error:
            found.append(f"an error that nobody foresaw: {error}")
    elif state != "done":
        found.append(f"it ended as {state!r}")
    stopped = outcome.get("again")
    if not stopped and (row["ends"], state) in (("error", "done"), ("result", "failed")):
        found.append(f"it should have ended in {row['ends']}, and is {state}: {error or ''}")
    longest_s = limits.longest_s(JOB, None, None) if limits.time_s is None else limits.time_s
    if limits.time_s is not None and outcome["seconds"] > longest_s + SLACK_S:
        found.append(f"it took {outcome['seconds']:.0f} s")
    if (outcome.get("peak_bytes") or 0) > limits.memory(JOB) + 2**30:  # and what is no data: code
        found.append(f"it took {outcome['peak_bytes']} bytes of memory")
    return found


def judged(
    rows: Sequence[Row], outcomes: Mapping[str, Mapping[str, Any]], limits: Limits
) -> tuple[list[str], list[str]]:
    """Return all offences, and what the limits stopped; a line each."""
    wrong = [
        f"{row['file']!a} ({row['what']}): {offence}"
        for row in rows
        for offence in offences(row, outcomes.get(row["file"]), limits)
    ]
    stopped = [
        f"{row['file']!a} ({row['what']}): {outcomes[row['file']]['error']}"
        for row in rows
        if outcomes.get(row["file"], {}).get("again")
    ]
    if len(stopped) > max(FEW * len(rows), FEW_FILES):
        wrong.append(f"the limits stopped {len(stopped)} of {len(rows)} files")
    return wrong, stopped


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", default="1/1", help="k/n: every n-th file from the k-th on")
    parser.add_argument("--time", type=float, default=60.0, help="seconds that a file may take")
    parser.add_argument("--out", type=Path, help="outcomes as JSON")
    given = parser.parse_args()
    k, n = map(int, given.part.split("/"))
    rows = manifest(given.folder)[k - 1 :: n]
    limits = Limits(time_s=given.time)
    given.work.mkdir(parents=True, exist_ok=True)
    outcomes = analysed(given.folder, rows, given.work, given.workers, limits)
    wrong, stopped = judged(rows, outcomes, limits)
    if given.out:
        told = [dict(row) | {"outcome": outcomes.get(row["file"])} for row in rows]
        given.out.write_text(json.dumps(told, indent=1) + "\n")
    counts = Counter(
        (row["kind"], outcomes[row["file"]]["state"]) for row in rows if row["file"] in outcomes
    )
    for (kind, state), count in sorted(counts.items()):
        print(f"{kind:12} {state:7} {count}")
    print(*(f"stopped: {line}" for line in stopped), sep="\n")
    print(*wrong, f"{len(rows)} files, {len(stopped)} stopped, {len(wrong)} offences", sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
