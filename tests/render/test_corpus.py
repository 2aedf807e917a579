"""The findings of `maven data check` in a terminal of 80 columns, and as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from maven.datasets.check import Finding
from maven.render.corpus import COLUMNS, print_findings, write_findings

COUNTS: dict[str, dict[str, float | None]] = {
    "train": {"videos": 356, "frames": 2_098_765, "valid_share": 0.98765, "minutes": 1166.04},
    "val": {"videos": 2, "frames": 10, "valid_share": 0.0, "minutes": None},
    "test": {"videos": 162, "frames": None, "valid_share": None, "minutes": 3.0},
}
FINDINGS = [
    Finding("135-24-1920x1080_left", "frames", "error", "30 labels, 12 frames in 135-24.mp4"),
    Finding("video59_right", "faces", "note",
            "3 folders of faces; taken: /corpora/affwild2/batch2/cropped_aligned/video59_right"),
    Finding("[bold]a[/b", "names", "note", "files of faces not named %05d.jpg: 1 ([red].jpg)"),
    Finding("", "labels", "note", "no label files of val (Validation_Set)"),
]  # fmt: skip


def printed(findings: list[Finding], columns: int = 80) -> str:
    out = io.StringIO()
    print_findings(COUNTS, findings, Console(file=out, width=columns, highlight=False))
    return out.getvalue()


def test_what_the_corpus_holds_is_counted_by_split() -> None:
    _, train, val, test, *_ = (line.split() for line in printed([]).splitlines())
    assert train == ["train", "356", "2,098,765", "98.8", "%", "1166.0"]
    assert val == ["val", "2", "10", "0.0", "%", "unknown"]
    assert test == ["test", "162", "none", "labelled", "3.0"]


def test_every_word_is_read_at_80_columns() -> None:
    text = printed(FINDINGS)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for finding in FINDINGS:
        (row,) = [line for line in text.splitlines() if line.startswith(finding.video or "(corp")]
        assert row.split()[1:3] == [finding.kind, finding.severity]
    lines = [line.rstrip() for line in text.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("video59_right"))
    column = lines[start].index("3 folders")
    detail = "".join(line[column:] for line in lines[start : start + 3])
    assert "/corpora/affwild2/batch2/cropped_aligned/video59_right" in detail
    assert "[bold]a[/b" in text  # no markup
    assert "([red].jpg)" in text


@pytest.mark.parametrize(
    ("findings", "end"),
    [(FINDINGS, "1 error, 3 notes"), ([], "0 errors, 0 notes"), (FINDINGS[:2], "1 error, 1 note")],
)
def test_the_last_line_counts(findings: list[Finding], end: str) -> None:
    assert printed(findings).splitlines()[-1] == end


def test_findings_as_csv(tmp_path: Path) -> None:
    odd = Finding('a,"b"', "names", "note", "über; line")
    write_findings([*FINDINGS, odd], tmp_path / "findings.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["findings.csv"]
    with (tmp_path / "findings.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert rows == [[f.video, f.kind, f.severity, f.detail] for f in (*FINDINGS, odd)]
    write_findings([], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text().strip() == ",".join(COLUMNS)
