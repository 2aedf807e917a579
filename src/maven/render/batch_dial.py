"""The circumplex of a batch as SVG: a dot a file, or squares of more or less colour for many."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from maven.circumplex import NEUTRAL_INTENSITY, SECTOR_RAD, SECTORS

MOST_DOTS = 1500  # beyond, they would hide each other, and what there is in the middle
CELLS = 50  # squares from -1 to 1, along each axis
# As on the page of a clip (web/static/dial.js), in units of the picture.
RADIUS, RIM, NAMES = 160.0, 186.0, 168.0
ENDS = (
    (-154, -5, "dial-end", "unpleasant"),
    (154, -5, "dial-end dial-right", "pleasant"),
    (6, -139, "dial-end", "excited"),
    (6, 147, "dial-end", "calm"),
)


@dataclass
class Dots:
    """Where files lie: each of the first `MOST_DOTS`, and how many in each square."""

    total: int = 0
    first: list[tuple[float, float, str]] = field(default_factory=list)
    cells: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, valence: float, arousal: float, name: str) -> None:
        """Take in a file; its values are in [-1, 1]."""
        self.total += 1
        if len(self.first) < MOST_DOTS:
            self.first.append((valence, arousal, name))
        self.cells[_cell(valence), _cell(arousal)] += 1


def dial(dots: Dots) -> str:
    """Draw the circumplex with its files: an <svg> element."""
    label = f"Circumplex with {dots.total:,} files; their regions are listed beside it"
    return "\n".join((
        f'<svg class="dial" viewBox="-190 -190 380 380" role="img" aria-label="{label}">',
        *_face(),
        *(_squares(dots) if dots.total > MOST_DOTS else _dots(dots)),
        *(f'<text x="{x}" y="{y}" class="{kind}">{text}</text>' for x, y, kind, text in ENDS),
        "</svg>",
    ))  # fmt: skip


def _face() -> Iterator[str]:
    yield f'<circle r="{RIM:g}" class="dial-rim"/><circle r="{RADIUS:g}" class="dial-disc"/>'
    for k in range(len(SECTORS)):
        angle = k * SECTOR_RAD
        inner, outer = _polar(NEUTRAL_INTENSITY * RADIUS, angle), _polar(RIM, angle)
        yield f'<path class="dial-spoke" d="M{inner}L{outer}"/>'
    yield f'<circle r="{RADIUS / 2:g}" class="dial-ring"/>'
    yield f'<path class="dial-axis" d="M{-RADIUS:g} 0H{RADIUS:g}M0 {-RADIUS:g}V{RADIUS:g}"/>'
    yield f'<circle r="{NEUTRAL_INTENSITY * RADIUS:g}" class="dial-neutral"/>'
    for k, name in enumerate(SECTORS):
        yield f'<path id="sector-{k}" fill="none" d="{_baseline(k)}"/><text class="dial-name">'
        yield f'<textPath href="#sector-{k}" startOffset="50%">{name}</textPath></text>'


def _baseline(k: int) -> str:
    """The line a name stands on: turned round below, so that none stands on its head."""
    low, high = k * SECTOR_RAD, (k + 1) * SECTOR_RAD
    below = math.sin((low + high) / 2) < 0
    radius = NAMES + 10.5 if below else NAMES
    begin, end = (low, high) if below else (high, low)
    arc = f"A{radius:g} {radius:g} 0 0 {0 if below else 1}"
    return f"M{_polar(radius, begin)}{arc} {_polar(radius, end)}"


def _dots(dots: Dots) -> Iterator[str]:
    radius = 5 if dots.total <= 100 else 3.5
    for valence, arousal, name in dots.first:
        where = f'cx="{valence * RADIUS:.1f}" cy="{-arousal * RADIUS:.1f}"'
        title = f"{html.escape(name)}: {valence:+.2f}, {arousal:+.2f}"
        yield f'<circle class="batch-dot" {where} r="{radius}"><title>{title}</title></circle>'


def _squares(dots: Dots) -> Iterator[str]:
    size = 2 * RADIUS / CELLS
    most = math.log1p(max(dots.cells.values()))
    for (i, j), count in sorted(dots.cells.items()):
        x, y = i * size - RADIUS, RADIUS - (j + 1) * size
        files = f"{count:,} file{'' if count == 1 else 's'}"
        yield (
            f'<rect class="batch-cell" x="{x:.1f}" y="{y:.1f}" width="{size:g}" height="{size:g}"'
            f' fill-opacity="{0.12 + 0.88 * math.log1p(count) / most:.2f}">'
            f"<title>{files}</title></rect>"
        )


def _cell(value: float) -> int:
    return min(max(math.floor((value + 1) / 2 * CELLS), 0), CELLS - 1)


def _polar(radius: float, angle_rad: float) -> str:
    return f"{radius * math.cos(angle_rad):.2f} {-radius * math.sin(angle_rad):.2f}"
