"""One HTML page that sums up a batch: numbers, where its files lie, what failed, how to read on.

Rows pass once and only sums stay, so that a hundred thousand files need no more memory than a
thousand. The page is drawn here: it has no script and refers to nothing but the results beside it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from maven.circumplex import NEUTRAL, SECTORS, region
from maven.files import printable, whole
from maven.render.batch_dial import MOST_DOTS, Dots, dial

STATIC = Path(__file__).parents[1] / "web" / "static"
STYLES = ("base.css", "dial.css", "batch.css")
MOST_FILES = 500  # in the table
MOST_FAILURES = 200  # named
MOST_REASONS = 100  # told apart
MOST_UNANSWERED = 100  # named
AT_ONCE = 4096  # regions named, which costs as much as one
NAME_LENGTH = 120  # characters of a name that are shown
LINE_LENGTH = 300
NUMBER = re.compile(r"\d+(\.\d+)?")  # what tells apart lines of one reason
WHERE = re.compile(r"[^:]*, (line|row) \d+: ")  # in a manifest
LENGTHS_S = (5, 15, 30, 60, 120, 300, 900, 3600, math.inf)  # edges of the bars
LENGTH_NAMES = (
    *("under 5 s", "5 to 15 s", "15 to 30 s", "30 to 60 s", "1 to 2 min", "2 to 5 min"),
    *("5 to 15 min", "15 to 60 min", "1 hour or more"),
)
SHARES = {"face_share": "face", "speech_share": "speech", "words_share": "words"}
SETTINGS = {  # in the order in which they are shown, before others
    "model.name": "model",
    "settings.rate_hz": "rows",
    "settings.faces": "faces",
    "model.device": "computed on",
    "maven": "version of maven",
    "detector.name": "face detector",
    "model.runtime": "runtime",
    "recogniser": "speech recogniser",
    "model.weights_sha256": "weights, SHA-256",
    "model.card_sha256": "model card, SHA-256",
    "model.encoders.visual": "face encoder, fingerprint",
    "model.encoders.audio": "voice encoder, fingerprint",
    "model.encoders.text": "word encoder, fingerprint",
    "detector.fingerprint": "face detector, fingerprint",
}
READING = """import pandas
index = pandas.read_parquet("index.parquet")  # a row a file
rows = pandas.read_parquet("results")         # all rows of all files

# or, where they are more than memory holds:
import duckdb
duckdb.sql("SELECT id, avg(valence), avg(arousal) FROM 'results/*/*.parquet' GROUP BY id")"""


@dataclass
class _Sums:
    """What stays of the rows."""

    states: Counter[str] = field(default_factory=Counter)
    regions: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)
    shares_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SHARES, 0.0))
    media_s: float = 0.0
    work_s: float = 0.0
    unanswered: int = 0
    silent: list[Mapping[str, Any]] = field(default_factory=list)  # the first without an answer
    finished_ms: int = 0
    dots: Dots = field(default_factory=Dots)
    files: list[Mapping[str, Any]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)  # by reason
    failed: dict[str, list[str]] = field(default_factory=dict)  # by reason, the first names
    lines: dict[str, str] = field(default_factory=dict)  # by reason, as it was said
    named: int = 0
    answers: list[tuple[float, float]] = field(default_factory=list)  # that wait for their region

    def add(self, row: Mapping[str, Any]) -> None:
        self.states[row["state"]] += 1
        self.work_s += row["seconds"] or 0.0
        self.finished_ms = max(self.finished_ms, int(row["finished"] or 0))
        if len(self.files) < MOST_FILES:
            self.files.append(row)
        if row["state"] == "failed":
            self._fail(row)
        elif row["state"] == "done":
            self._answer(row)

    def _answer(self, row: Mapping[str, Any]) -> None:
        length_s = row["duration_s"] or 0.0
        self.media_s += length_s
        at = next(k for k, edge_s in enumerate(LENGTHS_S) if length_s < edge_s)
        self.lengths[LENGTH_NAMES[at]] += 1
        for name in SHARES:
            self.shares_s[name] += (row[name] or 0.0) * length_s
        if row["valence"] is None or row["arousal"] is None:
            self.unanswered += 1
            if len(self.silent) < MOST_UNANSWERED:
                self.silent.append(row)
            return
        self.dots.add(row["valence"], row["arousal"], _short(row["id"]))
        self.answers.append((row["valence"], row["arousal"]))
        if len(self.answers) == AT_ONCE:
            self.name_regions()

    def name_regions(self) -> None:
        if self.answers:
            self.regions.update(region(*np.array(self.answers).T).tolist())
            self.answers.clear()

    def _fail(self, row: Mapping[str, Any]) -> None:
        line = _line(row)
        reason = NUMBER.sub("…", line)
        if reason not in self.failures and len(self.failures) >= MOST_REASONS:
            reason = line = "other reasons"
        if self.lines.setdefault(reason, line) != line:
            self.lines[reason] = reason
        self.failures[reason] += 1
        names = self.failed.setdefault(reason, [])
        if self.named < MOST_FAILURES:
            names.append(row["id"])
            self.named += 1


def write_batch_page(
    rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any], target: Path
) -> Path:
    """Write the summary of a batch, in one file that needs nothing else.

    Args:
        rows: of `index.parquet`, one a file; they are read once and not kept.
        about: what is said beside them: "settings" (any JSON), and of the last run "media_s", how
            much was analysed, and "elapsed_s", in which time.
        target: the .html, written beside its place and renamed; results are linked from there.

    Returns:
        `target`.

    Raises:
        OSError: it cannot be written.
    """
    sums = _Sums()
    for row in rows:
        sums.add(row)
    sums.name_regions()
    title = html.escape(f"Batch {target.absolute().parent.name}")
    style = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    page = "\n".join((
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>",
        f'<header class="batch-head"><h1><bdi>{title}</bdi></h1>{_finished(sums)}</header>',
        *_tiles(sums, about),
        '<div class="batch-columns">',
        *_circumplex(sums),
        "<div>",
        *_regions(sums),
        *_observed(sums),
        *_lengths(sums),
        "</div>\n</div>",
        *_failed(sums),
        *_reading(sums),
        *_settings(about),
        *_table(sums),
        "</main>\n</body>\n</html>\n",
    ))  # fmt: skip
    with whole(target) as part:
        part.write_bytes(page.encode("utf-8", "backslashreplace"))
    return target


def _finished(sums: _Sums) -> str:
    if not sums.finished_ms:
        return '<p class="muted">No file is finished yet.</p>'
    at = datetime.fromtimestamp(sums.finished_ms / 1000, timezone.utc)
    return f'<p class="muted">Last file finished on {at:%Y-%m-%d at %H:%M} UTC.</p>'


def _tiles(sums: _Sums, about: Mapping[str, Any]) -> Iterator[str]:
    states = sums.states
    tiles = [("files", f"{states.total():,}", "")]
    for state in ("done", "failed", "waiting"):
        tiles.append((state, f"{states[state]:,}", f"batch-{state}" if states[state] else ""))
    tiles.append(("media analysed", _hours(sums.media_s), ""))
    tiles.append(("computing time", _hours(sums.work_s), ""))
    media_s, elapsed_s = about.get("media_s") or 0.0, about.get("elapsed_s") or 0.0
    if media_s and elapsed_s:
        tiles.append(("the last run took", _hours(elapsed_s), ""))
        tiles.append(("media analysed an hour", _hours(3600 * media_s / elapsed_s), ""))
    yield '<dl class="batch-tiles">'
    for name, value, kind in tiles:
        yield f'<div><dt>{name}</dt><dd class="{kind}">{value}</dd></div>'
    yield "</dl>"


def _circumplex(sums: _Sums) -> Iterator[str]:
    yield '<section class="panel"><h2>Where the files lie</h2>'
    yield f'<div class="batch-dial">{dial(sums.dots)}</div>'
    note = "Each dot is a file, at the mean of its valence and arousal."
    if sums.dots.total > MOST_DOTS:
        note = (
            "Each square is coloured by how many files have their mean of valence and arousal"
            f" there: up to {max(sums.dots.cells.values()):,} in one."
        )
    yield f'<p class="muted">{note if sums.dots.total else "No file has an answer yet."}</p>'
    if sums.unanswered:
        yield f"<details><summary>{_files(sums.unanswered)} without an answer</summary>"
        told = (f"{_text(_short(row['id']))}: {_text(_line(row))}" for row in sums.silent)
        yield from _names(told, sums.unanswered - len(sums.silent))
        yield "</details>"
    yield "</section>"


def _regions(sums: _Sums) -> Iterator[str]:
    found = {name: sums.regions[name] for name in (*SECTORS, NEUTRAL) if sums.regions[name]}
    if found:
        yield '<section class="panel"><h2>Regions</h2>'
        yield from _bars(dict(sorted(found.items(), key=lambda item: -item[1])))
        yield "</section>"


def _observed(sums: _Sums) -> Iterator[str]:
    if not sums.media_s:
        return
    yield '<section class="panel"><h2>What there was to go by</h2><table class="batch-bars">'
    for name, shown in SHARES.items():
        share = min(sums.shares_s[name] / sums.media_s, 1.0)
        bar = _bar(share, f"batch-{shown}")
        number = f'<td class="number">{share:.0%}</td>'
        yield f'<tr><th scope="row">{shown}</th><td>{bar}</td>{number}</tr>'
    yield '</table><p class="muted">Of the time of all files that are done.</p></section>'


def _lengths(sums: _Sums) -> Iterator[str]:
    found = [name for name in LENGTH_NAMES if sums.lengths[name]]
    if found:
        first, last = LENGTH_NAMES.index(found[0]), LENGTH_NAMES.index(found[-1])
        yield '<section class="panel"><h2>Lengths</h2>'
        yield from _bars({name: sums.lengths[name] for name in LENGTH_NAMES[first : last + 1]})
        yield "</section>"


def _bars(counts: Mapping[str, int]) -> Iterator[str]:
    yield '<table class="batch-bars">'
    for name, count in counts.items():
        bar = _bar(count / max(counts.values()), "batch-filled")
        yield (
            f'<tr><th scope="row">{name}</th><td>{bar}</td><td class="number">{count:,}</td></tr>'
        )
    yield "</table>"


def _bar(share: float, kind: str) -> str:
    """Draw a share; a style attribute would be against the page's own policy."""
    return (
        '<svg class="batch-bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="100" height="10"/><rect class="{kind}" width="{100 * share:.2f}"'
        ' height="10"/></svg>'
    )


def _failed(sums: _Sums) -> Iterator[str]:
    if not sums.failures:
        return
    total = sums.failures.total()
    yield f'<section class="panel"><h2>{_files(total)} failed</h2>'
    for k, (reason, count) in enumerate(sums.failures.most_common()):
        names = sums.failed[reason]
        yield f"<details{' open' if k == 0 and count <= 20 else ''}>"
        yield f"<summary>{count:,} × {_text(sums.lines[reason])}</summary>"
        yield from _names((_text(_short(name)) for name in names), count - len(names))
        yield "</details>"
    yield '<p class="muted">All of them: <a href="errors.csv">errors.csv</a>.</p></section>'


def _names(lines: Iterable[str], more: int) -> Iterator[str]:
    if listed := "".join(f"<li>{line}</li>" for line in lines):
        yield f'<ul class="batch-names">{listed}</ul>'
    if more:
        yield f'<p class="muted">{more:,} more are not named here.</p>'


def _reading(sums: _Sums) -> Iterator[str]:
    if sums.states.total():
        yield '<section class="panel"><h2>Reading all of it</h2>'
        yield f"<p>In this folder, with Python:</p><pre>{html.escape(READING)}</pre></section>"


def _table(sums: _Sums) -> Iterator[str]:
    total = sums.states.total()
    if not total:
        return
    first = f"The first {MOST_FILES:,} of {total:,} files" if total > MOST_FILES else "Files"
    yield f'<section class="panel"><h2>{first}</h2>'
    yield '<table class="batch-files"><thead><tr><th scope="col">file</th>'
    yield '<th scope="col" class="number">length</th><th scope="col" class="number">valence</th>'
    yield '<th scope="col" class="number">arousal</th></tr></thead><tbody>'
    for row in sums.files:
        length_s, state = row["duration_s"], html.escape(row["state"])
        yield f'<tr><th scope="row">{_text(_short(row["id"]))}</th>'
        yield f'<td class="number">{"" if length_s is None else _clock(length_s)}</td>'
        if state == "done" and None not in (row["valence"], row["arousal"]):
            yield f'<td class="number">{row["valence"]:+.2f}</td>'
            yield f'<td class="number">{row["arousal"]:+.2f}</td></tr>'
        else:
            shown = "no answer" if state == "done" else state
            yield f'<td colspan="2" class="batch-state batch-{state}">{shown}</td></tr>'
        below = [_text(_line(row))]
        if row["result"]:
            below.insert(0, f'<a href="{quote(row["result"], safe="/=")}">Parquet</a>')
        yield f'<tr class="batch-below"><td colspan="4">{" ".join(below)}</td></tr>'
    yield "</tbody></table></section>"


def _settings(about: Mapping[str, Any]) -> Iterator[str]:
    if flat := dict(_flat(about.get("settings"))):
        yield '<section class="panel"><details><summary>Model and settings</summary>'
        yield '<dl class="batch-settings">'
        for name in sorted(flat, key=[*SETTINGS, *flat].index):
            shown = _text(printable(_plain(name, flat[name])[:LINE_LENGTH]))
            yield f"<dt>{_text(_short(SETTINGS.get(name, name)))}</dt><dd>{shown}</dd>"
        yield "</dl></details></section>"


def _plain(name: str, value: str) -> str:
    if name == "settings.rate_hz":
        return "one for each frame" if value == "none" else f"{value} a second"
    return "off" if (name, value) == ("recogniser", "none") else value


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (model.name, mini) for each leaf of what JSON can hold."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, "none" if value is None else str(value)


def _line(row: Mapping[str, Any]) -> str:
    """Say why a file failed without its name, which differs where the reason does not; or notes."""
    if row["state"] != "failed":
        return printable(str(row["notes"] or "")[:LINE_LENGTH])
    error = str(row["error"] or "no reason was given")[: 8 * LINE_LENGTH]
    start = where.end() if (where := WHERE.match(error)) else 0
    path = str(row["path"] or "")
    known = {path, path.rpartition("/")[2], str(row["id"])}
    for name in sorted({*known, *map(printable, known)} - {""}, key=len, reverse=True):
        if error.startswith(f"{name}: ", start):
            error = error[:start] + error[start + len(name) + 2 :]
            break
    return printable(error[:LINE_LENGTH])


def _short(name: str) -> str:
    """Leave out the middle of a long name."""
    half = NAME_LENGTH // 2
    return printable(name if len(name) <= NAME_LENGTH else f"{name[:half]} … {name[-half:]}")


def _text(text: str) -> str:
    """Escape text that others chose; <bdi> keeps its direction from what stands around."""
    return f"<bdi>{html.escape(text)}</bdi>"


def _files(n: int) -> str:
    return f"{n:,} file{'' if n == 1 else 's'}"


def _clock(seconds: float) -> str:
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest_s:02}" if hours else f"{minutes}:{rest_s:02}"


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"
