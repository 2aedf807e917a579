"""SIGKILLs at random moments of a batch: nothing is lost, doubled, half-written or left over."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from soak_batch import Found, differences, fingerprint, finish, fresh, left_over, start
from two_nodes import family

PATIENCE_S = 600.0  # of one run


def kills(clips: Path, work: Path, number: int, seed: int, options: tuple[str, ...]) -> list[Found]:
    """Kill batches of a folder of clips `number` times, then let them finish.

    A third of the kills hit the parent, a third one of its workers, a third all at once. A batch
    that finishes in spite of them is compared, removed, and begun again.

    Args:
        clips: the folder of clips.
        work: where outputs and logs go.
        number: of kills.
        seed: of moments and victims.
        options: of the command, such as the number of workers.
    """
    random_ = random.Random(seed)
    began_s = time.monotonic()
    calm = finish(clips, fresh(work / "calm"), *options)
    calm_s = time.monotonic() - began_s
    wanted = fingerprint(work / "calm")
    assert calm.returncode in (0, 1), calm.stderr
    out, log = fresh(work / "killed"), work / "killed.log"
    victims: Counter[str] = Counter()
    compared, wrong = 0, set[str]()
    while sum(victims.values()) < number:
        process = start(clips, out, *options, log=log)
        # From before the first clip to about a third of all: several kills a batch.
        moment_s = time.monotonic() + random_.uniform(0.1, 1.5 + calm_s / 3)
        ended = False
        while time.monotonic() < moment_s and not (ended := process.poll() is not None):
            time.sleep(0.02)
        if not ended:
            victim = random_.choice(("parent", "worker", "all"))
            if _kill(process.pid, victim, random_):
                victims[victim] += 1
            if victim == "worker":
                process.wait(PATIENCE_S)
                ended = True
        process.wait(PATIENCE_S)
        if ended and process.returncode in (0, 1):
            finish(clips, out, *options)  # what a killed worker had twice
            compared += 1
            wrong |= set(differences(fingerprint(out), wanted)) | set(left_over(out))
            fresh(out)
        elif ended:
            wrong.add(f"exit code {process.returncode}")
            break
    last = finish(clips, out, *options)
    wrong |= set(differences(fingerprint(out), wanted)) | set(left_over(out))
    compared += 1
    again = finish(clips, out, *options)
    killed = f"{sum(victims.values())} kills ({_counted(victims)})"
    said = f"{killed}, {compared} finished outputs compared"
    plan = again.stdout.splitlines()[0]
    return [
        Found("SIGKILL at random moments, then the same command", said, last.returncode == 0),
        Found(
            "differences from the undisturbed run, files left over",
            ", ".join(sorted(wrong)[:5]) or "none", not wrong,
        ),
        Found("the finished batch, once more", plan, " 0 to do" in plan),
    ]  # fmt: skip


def _kill(pid: int, victim: str, random_: random.Random) -> bool:
    """Kill a batch's parent, one of its workers, or everything; tell whether anybody was hit."""
    _, *children = family(pid)
    targets = {"parent": [pid], "all": [pid, *children]}.get(victim)
    if targets is None:
        targets = [random_.choice(children)] if children else []
    hit = False
    for target in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
            hit = True
    return hit


def _counted(victims: Counter[str]) -> str:
    return ", ".join(f"{number} of {name}" for name, number in sorted(victims.items()))
