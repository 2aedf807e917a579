"""A batch of hostile files under strace: each ends as a result or as one line, nothing gets out."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soak_batch import Found, command, fresh, left_over

TOOLS = Path(__file__).parent
LIMIT_S = 60.0  # for one file
SLACK_S = 15.0  # for a kill on a busy machine, and the start of the next worker
MEMORY_GIB = 2.0  # of one process
FEW, FEW_FILES = 0.02, 3  # of all files, or so many, may be what limits stop
STOPPED = {  # by what -> what their errors say
    "memory": ("needs more memory", "was killed"),
    "time": ("took longer", "took more time", "no progress"),
    "an end without an answer": ("ended without an answer",),
    "a crash": ("crashed",),
    "anything else": ("",),
}
LONGEST_LINE = 2100  # characters of an error
NO_LINE = ("internal error", "Traceback")

Rows = Sequence[dict[str, Any]]


def hostile(clips: Path, work: Path, count: int | None, seed: int) -> list[Found]:
    """Make the corpus, have a batch do all of it, and look at what it opened.

    Args:
        clips: real clips that the corpus is made from.
        work: where corpus, output and logs go.
        count: of hostile files, taken evenly from those that are made fast; None: all there are.
        seed: of the corpus.
    """
    import pyarrow.parquet as parquet

    corpus, out, logs = fresh(work / "hostile"), fresh(work / "ended"), fresh(work / "traces")
    secrets = fresh(work / "secrets")
    logs.mkdir()
    make = [sys.executable, str(TOOLS / "hostile.py"), str(clips), "-o", str(corpus)]
    make += ["--seed", str(seed), "--secrets", str(secrets)]
    make += [] if count is None else ["--count", str(count)]
    subprocess.run(make, check=True, capture_output=True)
    made = manifest(corpus)
    others = _others(corpus, made, work / "others.csv")
    limits = ("--time-limit", str(LIMIT_S), "--memory-limit", str(MEMORY_GIB))
    line = command(corpus, out, str(others), *limits)
    if traced := shutil.which("strace") is not None:
        trace = ["strace", "-ff", "-y", "--seccomp-bpf", "-e", "trace=%file,%network"]
        line = [*trace, "-o", str(logs / "log"), *line]
    began_s = time.monotonic()
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # beside the installed files
    ran = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    took_s = time.monotonic() - began_s
    rows = parquet.read_table(out / "index.parquet").to_pylist()
    found = judged(rows, made)
    calm = ran.returncode in (0, 1) and "Traceback" not in ran.stderr
    said = (ran.stderr.strip().splitlines() or ["nothing"])[-1].replace(f"{work}/", "")
    found.append(
        Found("the batch itself", f"exit code {ran.returncode}, {took_s:.0f} s; {said}", calm)
    )
    found.append(
        Found("files left over", ", ".join(left_over(out)[:5]) or "none", not left_over(out))
    )
    if not traced:
        return [*found, Found("files and sockets opened", "not looked at: no strace", False)]
    judge = [sys.executable, str(TOOLS / "traced.py"), *map(str, sorted(logs.iterdir()))]
    judge += ["--input", str(corpus), "--input", str(others), "--out", str(out)]
    judge += ["--secret", str(secrets)]
    looked = subprocess.run(judge, capture_output=True, text=True, check=False)
    lines = (looked.stdout + looked.stderr).strip().splitlines() or ["nothing"]
    came = "; ".join(lines[-2:] if looked.returncode == 0 else lines[-6:])
    return [*found, Found("files and sockets opened (strace)", came, looked.returncode == 0)]


def manifest(corpus: Path) -> dict[str, dict[str, str]]:
    """What the corpus holds, by the id that a batch gives it: kind, file, ends, what."""
    from maven.batch.items import id_of

    with (corpus / "manifest.csv").open(
        newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        return {id_of(row["file"]): row for row in csv.DictReader(file)}


def _others(corpus: Path, made: dict[str, dict[str, str]], target: Path) -> Path:
    """List in a manifest what a folder's listing leaves out: files without a name of media."""
    from maven.batch.items import items

    listed = {item.path for item in items([str(corpus)])}
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "id"))
        for id, case in made.items():
            path = str((corpus / case["file"]).absolute())
            if path not in listed and path.isprintable():
                writer.writerow((path, id))
    return target


def judged(rows: Rows, made: dict[str, dict[str, str]]) -> list[Found]:
    """Look at how the files ended: rows of the index, and what was made, by the same ids."""
    states = Counter(row["state"] for row in rows)
    kinds = len({case["kind"] for case in made.values()})
    ended = {row["id"].rstrip("/"): row for row in rows}  # a folder's has one at its end
    missing = len(made.keys() - ended.keys())
    errors = {id: row["error"] or "" for id, row in ended.items() if row["state"] == "failed"}
    odd = [
        id
        for id, error in errors.items()
        if not error.isprintable()
        or not 0 < len(error) <= LONGEST_LINE
        or any(words in error for words in NO_LINE)
    ]
    by = Counter(_stopped_by(row) for row in rows if row["attempts"] > 1)
    unlike = [
        id
        for id, row in ended.items()
        if row["attempts"] <= 1
        and (made.get(id, {}).get("ends"), row["state"])
        in (("error", "done"), ("result", "failed"))
    ]
    slowest_s = max(row["seconds"] or 0.0 for row in rows)
    count = f"{states['done']} with a result, {states['failed']} with one line, {missing} with none"
    everyone = made.keys() == ended.keys() and set(states) <= {"done", "failed"}
    most = int(max(FEW * len(made), FEW_FILES))
    return [
        Found(f"{len(made)} files of {kinds} kinds", count, everyone),
        Found(f"stopped, of which {most} may be, but none by a crash",
              ", ".join(f"{by[how]} by {how}" for how in STOPPED),
              by.total() <= most and not by["a crash"]),
        Found("longest of one file", f"{slowest_s:.1f} s (limit {LIMIT_S:g} s)",
              slowest_s < LIMIT_S + SLACK_S),
        Found("errors that are no line to read, or of our own making",
              ", ".join(odd[:5]) or "none", not odd),
        Found("ended otherwise than they must", ", ".join(unlike[:5]) or "none", not unlike),
    ]  # fmt: skip


def _stopped_by(row: dict[str, Any]) -> str:
    """Say what stopped a file; a batch tries those that were stopped, and no others, again."""
    error = row["error"] or ""
    return next(how for how, said in STOPPED.items() if any(words in error for words in said))
