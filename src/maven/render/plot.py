"""One picture a clip: the course over time, what was observed, and the path on the circumplex."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from maven import circumplex
from maven.files import whole
from maven.render import tables
from maven.render.tables import Floats

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from maven.transcript import Word

# Okabe & Ito (2008): told apart by the colour-blind, and as dark and light in grey.
COLOURS = {"valence": "#0072B2", "arousal": "#E69F00"}
INK = "#333333"
GREY = "#888888"
FAINT = "#DDDDDD"
NEUTRAL_COLOUR = "#F0F0F0"

DPI = 200
FORMATS = (".png", ".pdf", ".svg")
WIDTH_IN = 12.0
ALONE_IN = 5.2  # height of the row of a person alone
ROW_IN = 3.9  # and of each of several
TITLE_IN, TITLE_LETTERS = 0.4, 110
LEFT_IN, COURSE_IN = 0.75, 6.75  # the course: left edge, width
STRIPS_IN, WORDS_IN = 0.45, 0.55
BELOW_IN, ABOVE_IN = 0.5, 0.3  # room for the time axis and for the legend

PEOPLE = 4  # drawn at most: those seen longest
COURSE_POINTS = 400  # a reader tells no more apart
PATH_POINTS = 150
THIN_FROM_S = 100.0  # clips longer than this are drawn with thinner lines
WORD_ROWS = 3
WORD_GAP_PX = 6.0
WORDS_WORTH = 0.15  # a smaller share of the words than this is no longer a text: none is written
CLOCK_FROM_S = 150.0  # clips longer than this have a time axis in minutes
CLOCK_STEPS_S = (30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
SMALL = 7.5  # points
SERIES = ("valence", "arousal", "valence_low", "valence_high", "arousal_low", "arousal_high")

Intended = tuple[Floats, Floats, Floats]


def plot(
    frame: pd.DataFrame,
    words: Sequence[Word] = (),
    path: Path | None = None,
    title: str | None = None,
    intended: Intended | None = None,
) -> Figure:
    """Draw a table of results, a row a person, and save the picture where a path is given.

    What is not known is a gap in every curve. Long clips are drawn as means of neighbouring
    frames, so that no more is on the paper than can be seen.

    Args:
        frame: the long table.
        words: written under the course where they fit.
        path: .png, .pdf or .svg; written beside and renamed.
        title: by default the name of the media file.
        intended: times in seconds, valence and arousal, (t,) each, of a clip that was made to
            show them: drawn dashed.

    Raises:
        ValueError: the path has another suffix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path is not None and path.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot draw {path}: accepted are {', '.join(FORMATS)}")
    everyone = list(tables.people(frame))
    longest = sorted(range(len(everyone)), key=lambda i: -int(everyone[i][1]["has_face"].sum()))
    people = [everyone[i] for i in sorted(longest[:PEOPLE])]
    row_in = ALONE_IN if len(people) < 2 else ROW_IN
    height_in = row_in * max(len(people), 1) + TITLE_IN
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    if title is None:
        title = str(frame["file"].iloc[0]) if len(frame) else "nothing"
    if len(people) < len(everyone):
        title += f"   (the {PEOPLE} of {len(everyone)} people seen longest)"
    title = "".join(c if ord(c) in glyphs() else "?" for c in title)
    title = title if len(title) < TITLE_LETTERS else f"{title[: TITLE_LETTERS - 3]}..."
    place = (0.15 / WIDTH_IN, 1 - 0.25 / height_in)
    figure.text(*place, title, size=11, weight="bold", va="center", parse_math=False)
    for i, (name, rows) in enumerate(people):
        bottom_in = row_in * (len(people) - 1 - i)
        panel = _Panel(figure, bottom_in, row_in, tables.limits_s(frame))
        panel.course(name if len(people) > 1 else "", rows, intended)
        panel.observed(rows, words)
        panel.path(rows, intended)
    if path is not None:
        save_figure(figure, path)
    return figure


def thin(rows: pd.DataFrame, points: int) -> tuple[Floats, dict[str, Floats], int]:
    """Return times (n,), series (n,) and how many grid frames each is the mean of, n <~ points.

    A mean over less than half of its frames is NaN, and a NaN stands wherever rows are missing.
    """
    grid_frame = rows["frame"].to_numpy(np.int64)
    time_s = rows["time_s"].to_numpy(np.float64)
    first, last = int(grid_frame[0]), int(grid_frame[-1])
    width = -(-(last - first + 1) // points)
    group = (grid_frame - first) // width
    n = int(group[-1]) + 1
    frames = np.minimum(width, last - first + 1 - np.arange(n) * width)

    def mean(values: Floats) -> Floats:
        known = np.isfinite(values)
        count = np.bincount(group[known], minlength=n)
        total = np.bincount(group[known], values[known], minlength=n)
        return np.where(2 * count >= frames, total / np.maximum(count, 1), np.nan)

    series = {name: mean(rows[name].to_numpy(np.float64)) for name in SERIES}
    times = np.interp(first + width * np.arange(n) + (frames - 1) / 2, grid_frame, time_s)
    return times, series, width


@dataclass(frozen=True)
class _Panel:
    """The row of one person: three axes of a common time on the left, the circle on the right."""

    figure: Figure
    bottom_in: float
    height_in: float
    limits_s: tuple[float, float]

    def axes(self, left_in: float, bottom_in: float, width_in: float, height_in: float) -> Axes:
        """Add axes at a place in inches, counted from the panel's lower left corner."""
        whole = self.figure.get_figheight()
        bottom = (self.bottom_in + bottom_in) / whole
        size = (width_in / WIDTH_IN, height_in / whole)
        return self.figure.add_axes((left_in / WIDTH_IN, bottom, *size))

    def course(self, name: str, rows: pd.DataFrame, intended: Intended | None) -> None:
        """Draw valence and arousal over time, with their intervals where there are any."""
        bottom_in = BELOW_IN + WORDS_IN + STRIPS_IN
        height_in = self.height_in - bottom_in - ABOVE_IN
        axes = self.axes(LEFT_IN, bottom_in, COURSE_IN, height_in)
        times, series, _ = thin(rows, COURSE_POINTS)
        width = 1.6 if np.ptp(self.limits_s) < THIN_FROM_S else 0.9
        axes.axhline(0, color=GREY, linewidth=0.6)
        handles = []
        for what, colour in COLOURS.items():
            low, high = series[f"{what}_low"], series[f"{what}_high"]
            axes.fill_between(times, low, high, color=colour, alpha=0.18, linewidth=0)
            handles += axes.plot(times, series[what], color=colour, linewidth=width, label=what)
            alone = _alone(series[what])
            axes.plot(times[alone], series[what][alone], ".", color=colour, clip_on=False)
        if intended is not None:
            for values, colour in zip(intended[1:], COLOURS.values(), strict=True):
                axes.plot(intended[0], values, "--", color=colour, linewidth=1.0)
            handles += axes.plot([], [], "--", color=INK, linewidth=1.0, label="intended")
        if not np.isfinite(series["valence"]).any():
            axes.text(0.5, 0.6, "no answer", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_xlim(self.limits_s)
        axes.set_ylim(-1.05, 1.05)
        axes.set_yticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "+0.5", "+1"])
        axes.tick_params(labelsize=SMALL, labelbottom=False, bottom=False)
        axes.grid(color=FAINT, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_title(name, loc="left", size=9, weight="bold", pad=5)
        _legend(axes, handles, loc="lower right", anchor=(1.0, 1.0))
        time_axis(axes, self.limits_s)

    def observed(self, rows: pd.DataFrame, words: Sequence[Word]) -> None:
        """Draw strips of what was observed and, under them, the words that fit."""
        strips = self.axes(LEFT_IN, BELOW_IN + WORDS_IN, COURSE_IN, STRIPS_IN)
        for i, column in enumerate(tables.OBSERVED):
            strips.axhline(-i, color=FAINT, linewidth=2, zorder=0)
            strips.broken_barh(spans_s(rows, column), (-i - 0.27, 0.54), color=INK, linewidth=0)
        strips.set_yticks([0, -1, -2], ["face", "speech", "words"])
        strips.set_ylim(-2.5, 0.5)
        strips.tick_params(labelsize=SMALL, left=False, labelbottom=False, bottom=False)
        strips.spines[:].set_visible(False)
        strips.set_xlim(self.limits_s)

        below = self.axes(LEFT_IN, BELOW_IN, COURSE_IN, WORDS_IN)
        below.set_xlim(self.limits_s)
        below.set_ylim(-WORD_ROWS, 0)
        below.set_yticks([])
        below.tick_params(labelsize=SMALL)
        below.spines[["top", "right", "left"]].set_visible(False)
        unit = time_axis(below, self.limits_s)
        below.set_xlabel(f"time ({unit})", size=SMALL + 0.5, labelpad=2)
        written = write_words(below, words)
        if written < len(words):
            n = len(words)
            note = f"{written} of\n{n} words" if written else f"{n} words:\nno room"
            style: dict[str, Any] = {"size": 6, "color": GREY, "ha": "right", "va": "center"}
            below.text(-0.008, 0.5, note, transform=below.transAxes, **style)

    def path(self, rows: pd.DataFrame, intended: Intended | None) -> None:
        """Draw the path through the circumplex, coloured by time."""
        import matplotlib
        from matplotlib.collections import LineCollection
        from matplotlib.colors import ListedColormap, Normalize
        from matplotlib.lines import Line2D

        side_in = min(self.height_in - 0.4, 3.7)
        bottom_in = 0.4 + (self.height_in - 0.4 - side_in) / 2
        middle_in = (LEFT_IN + COURSE_IN + WIDTH_IN - 0.7) / 2
        axes = self.axes(middle_in - side_in / 2, bottom_in, side_in, side_in)
        _draw_circle(axes)

        # Without its palest end, which white paper swallows.
        colours = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.92, 256)))
        norm = Normalize(*self.limits_s)
        times, series, frames = thin(rows, PATH_POINTS)
        points = np.stack([series["valence"], series["arousal"]], axis=-1)  # (n, 2)
        known = np.isfinite(points.sum(axis=-1))
        joined = np.flatnonzero(known[:-1] & known[1:])
        lines = LineCollection(
            list(np.stack([points[joined], points[joined + 1]], axis=1)),
            cmap=colours,
            norm=norm,
            linewidth=1.8 if np.ptp(self.limits_s) < THIN_FROM_S else 0.8,
            capstyle="round",
            zorder=3,
        )
        lines.set_array(times[joined])
        axes.add_collection(lines)
        alone = _alone(points.sum(axis=-1))
        x, y = points[alone].T
        axes.scatter(x, y, c=times[alone], cmap=colours, norm=norm, s=6)
        marks: list[tuple[str, dict[str, Any]]] = []
        for label, marker, i in (("start", "o", 0), ("end", "s", -1)):
            if known.any():
                marks.append((label, {"marker": marker, "mfc": "white", "mec": "black"}))
                x, y = points[np.flatnonzero(known)[i]]
                axes.plot(x, y, zorder=4 + i, ms=7, **marks[-1][1])
        marks.append(("neutral", {"marker": "o", "mfc": NEUTRAL_COLOUR, "mec": GREY}))
        handles = [Line2D([], [], label=label, ls="", ms=7, **style) for label, style in marks]
        if intended is not None:
            dashed = axes.plot(intended[1], intended[2], "--", color=INK, linewidth=0.8, zorder=2)
            dashed[0].set_label("intended")
            handles += dashed
        _legend(axes, handles, loc="upper center", anchor=(0.5, 0.03))
        span_s = frames * float(np.median(tables.durations_s(rows)))
        if frames > 1 and span_s > 0.25:
            note = f"each point the mean of {span_s:.2g} s"
            axes.text(0, -1.43, note, size=SMALL - 1, color=GREY, ha="center", va="center")

        bar_in = side_in * 0.7
        side = self.axes(WIDTH_IN - 0.72, bottom_in + (side_in - bar_in) / 2, 0.1, bar_in)
        self.figure.colorbar(lines, cax=side)
        side.tick_params(labelsize=SMALL - 0.5, length=2)
        unit = time_axis(side, self.limits_s, vertical=True)
        side.set_title(f"time\n({unit})", size=SMALL - 0.5)
        side.spines[:].set_visible(False)


def _draw_circle(axes: Axes) -> None:
    from matplotlib.patches import Circle

    axes.set_xlim(-1.27, 1.27)
    axes.set_ylim(-1.27, 1.27)
    axes.set_aspect("equal")
    axes.axis("off")
    for k, name in enumerate(circumplex.SECTORS):
        edge = k * circumplex.SECTOR_RAD
        inner = circumplex.NEUTRAL_INTENSITY
        colour, width = (GREY, 0.8) if k % 3 == 0 else (FAINT, 0.6)
        x, y = circumplex.to_cartesian(np.full(2, edge), np.array([inner, 1.0]))
        axes.plot(x, y, color=colour, linewidth=width, zorder=1)
        middle = circumplex.region_centre_rad(name)
        # Along the circle, and never upside down.
        turn = np.degrees(middle) - 90 if middle > 0 else np.degrees(middle) + 90
        place = (1.085 * np.cos(middle), 1.085 * np.sin(middle))
        axes.text(*place, name, size=SMALL + 0.5, rotation=turn, ha="center", va="center")
    axes.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor=INK, linewidth=1.0))
    axes.add_patch(Circle((0, 0), inner, facecolor=NEUTRAL_COLOUR, edgecolor=GREY, linewidth=0.6))
    style: dict[str, Any] = {"size": SMALL, "color": GREY, "ha": "center", "va": "center"}
    axes.text(1.21, 0, "valence +", rotation=-90, **style)
    axes.text(0, 1.21, "arousal +", **style)


def write_words(axes: Axes, words: Sequence[Word]) -> int:
    """Write the words that fit, none over another, and return how many."""
    left_px = axes.bbox.x0 - 1
    right_px = axes.bbox.x1 + 0.3 * DPI
    texts, spans = [], []
    for word in words:
        spoken = word.text.strip() if glyphs().issuperset(map(ord, word.text)) else ""
        text = axes.text(word.start_s, 0, spoken, size=SMALL - 0.5, va="center", parse_math=False)
        box = text.get_window_extent()
        texts.append(text)
        spans.append((box.x0, box.x1) if spoken else (-np.inf, -np.inf))

    def fit(order: Iterable[int]) -> dict[int, int]:  # word -> row, first come first served
        rows: list[list[tuple[float, float]]] = [[] for _ in range(WORD_ROWS)]
        placed = {}
        for i in order:
            x0, x1 = spans[i][0] - WORD_GAP_PX, spans[i][1] + WORD_GAP_PX
            free = [k for k, row in enumerate(rows) if all(x1 < a or b < x0 for a, b in row)]
            if free and left_px <= spans[i][0] and spans[i][1] <= right_px:
                rows[free[0]].append(spans[i])
                placed[i] = free[0]
        return placed

    # As they are read; if too many are left out, the long ones first, for they say more.
    placed = fit(range(len(words)))
    if len(placed) < 0.8 * len(words):
        placed = fit(sorted(range(len(words)), key=lambda i: len(words[i].text.strip()) < 4))
    if len(placed) < WORDS_WORTH * len(words):
        placed = {}
    for i, row in placed.items():
        texts[i].set_y(-row - 0.5)
    for i in set(range(len(words))) - set(placed):
        texts[i].remove()
    return len(placed)


def spans_s(rows: pd.DataFrame, column: str) -> list[tuple[float, float]]:
    """Return (start, length) in seconds of each stretch in which a flag is set."""
    length_s = tables.durations_s(rows)
    time_s = rows["time_s"].to_numpy(np.float64)
    grid_frame = rows["frame"].to_numpy(np.int64)
    on = np.flatnonzero(rows[column].to_numpy(bool))
    stretches = np.split(on, np.flatnonzero(np.diff(grid_frame[on]) > 1) + 1) if len(on) else []
    return [
        (float(time_s[s[0]]), float(time_s[s[-1]] + length_s[s[-1]] - time_s[s[0]]))
        for s in stretches
    ]


def _alone(values: Floats) -> npt.NDArray[np.intp]:
    """Return where a value has no known neighbour, so that no line would show it."""
    known = np.pad(np.isfinite(values), 1)
    return np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])


def time_axis(axes: Axes, limits_s: tuple[float, float], vertical: bool = False) -> str:
    """Put ticks on a time axis and return its unit."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

    axis = axes.yaxis if vertical else axes.xaxis
    length_s = limits_s[1] - limits_s[0]
    if length_s <= CLOCK_FROM_S:
        axis.set_major_locator(MaxNLocator(6 if vertical else 10, steps=[1, 2, 5, 10]))
        return "s"
    step = next((s for s in CLOCK_STEPS_S if length_s / s <= 10), CLOCK_STEPS_S[-1])
    axis.set_major_locator(MultipleLocator(step))
    axis.set_major_formatter(FuncFormatter(lambda s, _: f"{s // 60:.0f}:{s % 60:02.0f}"))
    return "min:s"


def _legend(
    axes: Axes,
    handles: Sequence[Line2D],
    loc: Literal["lower right", "upper center"],
    anchor: tuple[float, float],
) -> None:
    style: dict[str, Any] = {"frameon": False, "fontsize": SMALL + 0.5, "borderaxespad": 0.2}
    axes.legend(handles=handles, loc=loc, bbox_to_anchor=anchor, ncols=len(handles), **style)


@cache
def glyphs() -> frozenset[int]:
    """Return the code points that the font can draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure beside its place and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        figure.savefig(part, format=path.suffix[1:].lower(), dpi=DPI)
