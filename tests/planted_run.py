"""Runs of a planted problem in processes of their own: under torchrun, or killed and resumed.

    python planted_run.py train STORE RUN [KEY=VALUE]...
    python planted_run.py kill STORE FOLDER SEED

`kill` trains FOLDER/undisturbed in one go, and FOLDER/killed with a SIGKILL at many moments, each
time in a child that is forked from here, so that the imports are paid for once. It prints a line
for each: which moment, whether it was killed, and the epoch of the checkpoint then.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401
import torch

from maven.recipe import parse_overrides, resolve
from maven.runs import Run
from maven.train import run_training
from planted import TINY

EPOCHS = 16
BETWEEN = 0.1  # seconds at most from a run's first step to a kill at random: one or two epochs
# (file that is renamed into place, how often it may be first, what happens then). A resumed run
# first writes .log and, where there is a best epoch, best/.model and best/.config once more.
SAVING = (
    (".environment", 0, "after"), (".config", 0, "half"), (".last", 0, "half"),
    (".last", 0, "before"), (".last", 0, "after"), (".log", 0, "half"), (".model", 0, "before"),
    (".log", 1, "before"), (".model", 1, "half"), (".model", 1, "after"), (".config", 1, "before"),
    (".last", 1, "half"), (".log", 1, "after"),
)  # fmt: skip
ENDING = ((".curves", 0, "half"), (".curves", 0, "after"), (".config", 1, "after"))


def config(store: Path) -> dict[str, Any]:
    network = {k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()}
    train = {
        "epochs": EPOCHS, "batch": 5, "window_s": 4.0, "learning_rate": 5e-3, "seed": 3,
        "device": "cpu", "smoothing_s": [0.0, 0.4, 0.8],
    }  # fmt: skip
    return {"features": str(store), "name": "toy", "network": network, "train": train}


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_a_rename(prefix: str, spared: int, what: str) -> None:
    """Make this process end when a file whose name begins so is renamed into place."""
    rename, left = Path.replace, [spared]

    def replace(self: Path, target: Path) -> Path:
        meant = self.name.startswith(prefix) and not left[0]
        left[0] -= self.name.startswith(prefix)
        if meant and what == "half":
            os.truncate(self, self.stat().st_size // 2)
        if meant and what != "after":
            end()
        done = rename(self, target)
        if meant:
            end()
        return done

    Path.replace = replace  # type: ignore[method-assign, assignment]


def after_a_while(seconds: float) -> Callable[[dict[str, Any]], None]:
    """Make this process end so long after its first step."""
    begun = threading.Event()

    def wait() -> None:
        begun.wait()
        time.sleep(seconds)
        end()

    threading.Thread(target=wait, daemon=True).start()
    return lambda _: begun.set()


def attempt(store: Path, run: Path, *moment: Any) -> bool:
    """Train in a child until it is done or killed; whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            report: Callable[[dict[str, Any]], None] = lambda _: None  # noqa: E731
            if len(moment) == 1:
                report = after_a_while(*moment)
            elif moment:
                at_a_rename(*moment)
            resume = (run / "config.yaml").exists()
            run_training(resolve(config(store)), run, resume=resume, report=report)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a child failed")
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def kill(store: Path, folder: Path, seed: int) -> None:
    assert not attempt(store, folder / "undisturbed")
    chance, run = random.Random(seed), folder / "killed"
    moments: list[tuple[Any, ...]] = list(SAVING)
    for _ in range(4):  # not before the first file is there
        moments.insert(chance.randint(2, len(moments)), (chance.uniform(0, BETWEEN),))
    for moment in [*moments, *ENDING]:
        killed = attempt(store, run, *moment)
        print(*moment, killed, Run(run).progress().epoch)
    assert not attempt(store, run)


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, store, place, *rest = sys.argv[1:]
    if command == "kill":
        kill(Path(store), Path(place), int(rest[0]))
    else:
        run_training(resolve(config(Path(store)), parse_overrides(rest)), place)
