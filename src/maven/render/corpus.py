"""What was found in a corpus, as a table in the terminal and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maven.files import whole

if TYPE_CHECKING:
    from rich.console import Console

    from maven.datasets.check import Finding

COLUMNS = ("video", "kind", "severity", "detail")


def print_findings(
    counts: Mapping[str, Mapping[str, float | None]],
    findings: Sequence[Finding],
    console: Console,
) -> None:
    """Print what a corpus holds (`maven.datasets.check.summary`) and what does not fit in it."""
    from rich.table import Table
    from rich.text import Text

    splits = Table(box=None, pad_edge=False)
    splits.add_column("split")
    for name in ("videos", "frames", "valid", "minutes"):
        splits.add_column(name, justify="right")
    for split, row in counts.items():
        frames, valid, minutes = row["frames"], row["valid_share"], row["minutes"]
        splits.add_row(
            split,
            f"{row['videos']:.0f}",
            "none labelled" if frames is None else f"{frames:,.0f}",
            "" if valid is None else f"{100 * valid:.1f} %",
            "unknown" if minutes is None else f"{minutes:.1f}",
        )
    console.print(splits)
    if findings:
        console.print()
        table = Table(box=None, pad_edge=False)
        for name in COLUMNS:
            table.add_column(name, overflow="fold")
        for finding in findings:
            style = "bold" if finding.severity == "error" else ""
            cells = (finding.video or "(corpus)", finding.kind, finding.severity, finding.detail)
            table.add_row(*map(Text, cells), style=style)
        console.print(table)
    errors = sum(finding.severity == "error" for finding in findings)
    console.print(f"\n{_count(errors, 'error')}, {_count(len(findings) - errors, 'note')}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def write_findings(findings: Sequence[Finding], path: Path) -> None:
    """Write findings as CSV, whole or not at all."""
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(finding, name) for name in COLUMNS] for finding in findings)
