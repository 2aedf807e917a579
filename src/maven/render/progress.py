"""What a training shows while it runs: bars on a terminal, else a line an epoch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[dict[str, Any]], None]


def epoch_line(event: dict[str, Any]) -> str:
    """Say in one line how an epoch went; a star marks the best so far."""
    row = event["row"]
    best = " *" if event["best_epoch"] == event["epoch"] else ""
    return (
        f"epoch {event['epoch']}/{event['epochs']}  loss {row['loss']:.4f}"
        f"  CCC valence {row['ccc_valence']:.4f} arousal {row['ccc_arousal']:.4f}"
        f" mean {row['ccc_mean']:.4f}{best}  {row['frames_per_s']:,.0f} frames/s"
    )


@contextmanager
def training_report() -> Iterator[Report]:
    """Yield a callback for `maven.train.train`; of several processes the first one shows it."""
    if int(os.environ.get("RANK", "0")):
        yield lambda event: None
        return
    if not sys.stderr.isatty():

        def lines(event: dict[str, Any]) -> None:
            if "row" in event:
                print(epoch_line(event), flush=True)

        yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("training", total=None)

        def show(event: dict[str, Any]) -> None:
            done = (event["epoch"] - 1) * event["steps"] + event.get("step", event["steps"])
            total = event["epochs"] * event["steps"]
            bars.update(task, completed=done, total=total,
                        description=f"epoch {event['epoch']}/{event['epochs']}")  # fmt: skip
            if "row" in event:
                bars.console.print(epoch_line(event), highlight=False)

        yield show
