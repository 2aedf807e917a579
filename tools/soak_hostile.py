"""A batch of hostile files under strace: each ends as a result or as one line, nothing gets out."""

from __future__ import annotations

import csv
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
MEMORY_GB = 2.0  # of one process
STOPPED = ("took longer", "needs more memory", "crashed", "no progress", "killed", "ended without")

Rows = Sequence[dict[str, Any]]


def hostile(clips: Path, work: Path, number: int, seed: int) -> list[Found]:
    """Make the corpus, have a batch do all of it, and look at what it opened.

    Args:
        clips: real clips that the corpus is made from.
        work: where corpus, output and logs go.
        number: of hostile files, at least.
        seed: of the corpus.
    """
    import pyarrow.parquet as parquet

    corpus, out, logs = fresh(work / "hostile"), fresh(work / "ended"), fresh(work / "traces")
    secrets = fresh(work / "secrets")
    logs.mkdir()
    make = [sys.executable, str(TOOLS / "hostile.py"), str(clips), "-o", str(corpus)]
    subprocess.run(
        [*make, "--seed", str(seed), "--secrets", str(secrets)], check=True, capture_output=True
    )
    made = _made(corpus)
    others = _others(corpus, made, work / "others.csv")
    limits = ("--time-limit", str(LIMIT_S), "--memory-limit", str(MEMORY_GB))
    line = command(corpus, out, str(others), *limits)
    if traced := shutil.which("strace") is not None:
        trace = ["strace", "-ff", "-y", "--seccomp-bpf", "-e", "trace=%file,%network"]
        line = [*trace, "-o", str(logs / "log"), *line]
    began_s = time.monotonic()
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    took_s = time.monotonic() - began_s
    rows = parquet.read_table(out / "index.parquet").to_pylist()
    found = _judged(rows, made, number)
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
    judged = subprocess.run(
        [*judge, "--secret", str(secrets)], capture_output=True, text=True, check=False
    )
    lines = (judged.stdout + judged.stderr).strip().splitlines() or ["nothing"]
    came = "; ".join(lines[-2:] if judged.returncode == 0 else lines[-6:])
    return [*found, Found("files and sockets opened (strace)", came, judged.returncode == 0)]


def _made(corpus: Path) -> dict[str, dict[str, str]]:
    """What the corpus holds, by the name of the file: kind, ends, what."""
    with (corpus / "manifest.csv").open(
        newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def _others(corpus: Path, made: dict[str, dict[str, str]], target: Path) -> Path:
    """List in a manifest what a folder's listing leaves out: files without a name of media."""
    from maven.batch.items import items

    listed = {item.path for item in items([str(corpus)])}
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "id"))
        for name in made:
            path = str((corpus / name).absolute())
            if path not in listed and path.isprintable():
                writer.writerow((path, name))
    return target


def _judged(rows: Rows, made: dict[str, dict[str, str]], number: int) -> list[Found]:
    """Look at how the files ended."""
    states = Counter(row["state"] for row in rows)
    kinds = len({case["kind"] for case in made.values()})
    errors = [(row["id"], row["error"]) for row in rows if row["state"] == "failed"]
    odd = [id for id, error in errors if not error or not error.isprintable()]
    odd += [id for id, error in errors if error and "internal error" in error]
    stopped = Counter(words for _, error in errors for words in STOPPED if error and words in error)
    unlike = [
        row["id"]
        for row in rows
        if (made.get(row["id"], {}).get("ends"), row["state"])
        in (("error", "done"), ("result", "failed"))
        and not any(words in (row["error"] or "") for words in STOPPED)
    ]
    slowest_s = max(row["seconds"] or 0.0 for row in rows)
    count = f"{states['done']} with a result, {states['failed']} with one line"
    everyone = len(rows) >= number and set(states) <= {"done", "failed"}
    by = ", ".join(f"{n} '{words}'" for words, n in stopped.most_common()) or "none"
    return [
        Found(f"{len(rows)} files of {kinds} kinds", count, everyone),
        Found("stopped by a limit, or crashed", by, not stopped["crashed"]),
        Found("longest of one file", f"{slowest_s:.1f} s (limit {LIMIT_S:g} s)",
              slowest_s < LIMIT_S + SLACK_S),
        Found("errors that are no line to read, or of our own making",
              ", ".join(odd[:5]) or "none", not odd),
        Found("ended otherwise than they must", ", ".join(unlike[:5]) or "none", not unlike),
    ]  # fmt: skip
