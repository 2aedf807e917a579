"""What drove an answer, for a reader who knows nothing of networks: a picture and a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maven.config import MODALITIES, PATHS
from maven.drivers import AXES, Looks, Moment, WordEffect
from maven.features import NAMES
from maven.render import tables
from maven.render.plot import COLOURS as COURSE_COLOURS
from maven.render.plot import (
    DPI,
    FAINT,
    FORMATS,
    GREY,
    INK,
    SMALL,
    WIDTH_IN,
    glyphs,
    save_figure,
    spans_s,
    time_axis,
    write_words,
)
from maven.render.summary import WORDS_AROUND_S
from maven.timeline import Times

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console

    from maven.transcript import Word

# Okabe & Ito (2008), those that the course does not use: told apart by the colour-blind.
COLOURS = dict(zip(MODALITIES, ("#56B4E9", "#D55E00", "#009E73"), strict=True))
TEXT_ON = dict(zip(MODALITIES, ("black", "white", "white"), strict=True))
DARK_TEXT = "#00664A"  # of words, dark enough to read
UNSEEN = "#C8C8C8"

HEIGHT_IN = 8.6
LEFT_IN, COURSE_IN = 0.95, 6.75
RIGHT_IN = 8.1
COURSE = (6.05, 1.85)  # bottom and height in inches, from the picture's lower edge
PUSHES = ((4.67, 1.13), (3.32, 1.08))
STRIPS, WORDS, SEEN = (2.8, 0.4), (2.4, 0.36), (0.62, 1.15)
LIST_TOP_IN = 8.0
ITEM_IN = 1.45  # of one moment in the list
LISTED = 4  # moments that the list has room for
SHIFT_IN = 0.3  # room for the names of the paths
LOOKS_NOTE = (
    "Each row is one of the network's six paths between face,",
    "voice and words. The darker, the more it looks there.",
    "It shows where the network looked, not what its answer",
    "depends on: that is measured above, by leaving things out.",
)
COURSE_POINTS = 800
WORDS_SHOWN = 3
WORTH = 0.02  # a word that changes the answer by less is not named
STYLE: dict[str, Any] = {"size": SMALL, "color": INK, "va": "center", "parse_math": False}
QUOTE = 52  # letters of a moment's words


@dataclass(frozen=True)
class Scene:
    """What a picture shows; see `maven.explanation.Explanation`."""

    file: str
    person: str
    frame: pd.DataFrame
    contributions: Times
    moments: Sequence[Moment]
    chosen: Moment | None
    looks: Looks | None
    words: Sequence[Word]
    notes: Sequence[str]


def draw(scene: Scene, path: Path | None = None) -> Figure:
    """Draw the course, the contributions under it, the moments beside it, and one's attention.

    Raises:
        ValueError: the path has another suffix than .png, .pdf or .svg.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path is not None and path.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot draw {path}: accepted are {', '.join(FORMATS)}")
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    title = f"{scene.file}: what drove the answer for {scene.person}"
    _write(figure, 0.15, HEIGHT_IN - 0.22, title, size=11, weight="bold")
    limits_s = tables.limits_s(scene.frame)
    _course(_axes(figure, LEFT_IN, *COURSE), scene, limits_s)
    for j, place in enumerate(PUSHES):
        _pushes(_axes(figure, LEFT_IN, *place), scene, j, limits_s)
    _observed(figure, scene, limits_s)
    _list(figure, scene)
    if scene.looks is not None and scene.chosen is not None:
        _attention(figure, scene, scene.looks)
    if path is not None:
        save_figure(figure, path)
    return figure


def _axes(figure: Figure, left_in: float, bottom_in: float, height_in: float,
          width_in: float = COURSE_IN) -> Axes:  # fmt: skip
    size = (width_in / WIDTH_IN, height_in / HEIGHT_IN)
    return figure.add_axes((left_in / WIDTH_IN, bottom_in / HEIGHT_IN, *size))


def _write(figure: Figure, left_in: float, middle_in: float, text: str, **style: Any) -> None:
    figure.text(left_in / WIDTH_IN, middle_in / HEIGHT_IN, printable(text), **(STYLE | style))


def printable(text: str) -> str:
    """Replace what the font cannot draw."""
    return "".join(c if ord(c) in glyphs() else "?" for c in text)


def _frame(axes: Axes, limits_s: tuple[float, float]) -> None:
    axes.set_xlim(limits_s)
    axes.tick_params(labelsize=SMALL, labelbottom=False, bottom=False)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    time_axis(axes, limits_s)


def _mark(axes: Axes, scene: Scene) -> None:
    for number, moment in enumerate(scene.moments, 1):
        axes.axvline(moment.time_s, color=INK, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1.5)
        if axes.get_gid() == "course":
            _badge(axes, number, (moment.time_s, 1.03), moment is scene.chosen)


def _badge(axes: Axes, number: int, place: tuple[float, float], chosen: bool) -> None:
    box = {"boxstyle": "circle,pad=0.25", "facecolor": INK if chosen else "white", "edgecolor": INK}
    axes.text(
        *place, str(number), transform=axes.get_xaxis_transform(), size=SMALL, ha="center",
        va="bottom", color="white" if chosen else INK, bbox=box, zorder=5,
    )  # fmt: skip


def _course(axes: Axes, scene: Scene, limits_s: tuple[float, float]) -> None:
    axes.set_gid("course")
    rows = scene.frame
    times = rows["time_s"].to_numpy(np.float64)
    axes.axhline(0, color=GREY, linewidth=0.6)
    for what, colour in COURSE_COLOURS.items():
        low, value, high = (
            rows[name].to_numpy(np.float64) for name in (f"{what}_low", what, f"{what}_high")
        )
        axes.fill_between(times, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(times, value, color=colour, linewidth=1.6, label=what)
    if not rows["valence"].notna().any():
        axes.text(0.5, 0.6, "no answer", transform=axes.transAxes, ha="center", color=GREY)
    _frame(axes, limits_s)
    axes.set_ylim(-1.05, 1.05)
    axes.set_yticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "+0.5", "+1"])
    axes.set_ylabel("the answer", size=SMALL + 0.5)
    _mark(axes, scene)
    axes.legend(loc="lower left", ncols=2, frameon=False, fontsize=SMALL, borderaxespad=0.1)


def _pushes(axes: Axes, scene: Scene, axis: int, limits_s: tuple[float, float]) -> None:
    """Stack what raises the answer above zero and what lowers it below."""
    from matplotlib.ticker import MaxNLocator

    times = scene.frame["time_s"].to_numpy(np.float64)
    step = max(len(times) // COURSE_POINTS, 1)
    values, times = scene.contributions[::step, :, axis], times[::step]  # (t, 3)
    for sign in (1, -1):
        base = np.zeros(len(times))
        for k, m in enumerate(MODALITIES):
            top = base + sign * (sign * values[:, k]).clip(min=0)
            axes.fill_between(
                times, base, top, color=COLOURS[m], linewidth=0,
                label=NAMES[m] if sign > 0 else None,
            )  # fmt: skip
            base = top
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.plot(times, values.sum(1), color=INK, linewidth=1.1, label=f"{AXES[axis]} (their sum)")
    _frame(axes, limits_s)
    end = 1.1 * np.nanmax(np.abs(values).sum(1), initial=0.2)
    axes.set_ylim(-end, end)
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10], symmetric=True).tick_values(-end, end)
    ticks = ticks[np.abs(ticks) < 0.95 * end].round(9)
    axes.set_yticks(ticks, [f"{v:+g}".replace("-", "−") if v else "0" for v in ticks])
    axes.set_ylabel(f"what moves\n{AXES[axis]}", size=SMALL + 0.5)
    _mark(axes, scene)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.97), ncols=4, frameon=False, fontsize=SMALL,
        borderaxespad=0.1, handlelength=1.2, columnspacing=1.2,
    )  # fmt: skip


def _observed(figure: Figure, scene: Scene, limits_s: tuple[float, float]) -> None:
    strips = _axes(figure, LEFT_IN, *STRIPS)
    for i, (m, has) in enumerate(zip(MODALITIES, tables.OBSERVED, strict=True)):
        strips.axhline(-i, color=FAINT, linewidth=2, zorder=0)
        spans = spans_s(scene.frame, has)
        strips.broken_barh(spans, (-i - 0.3, 0.6), color=COLOURS[m], linewidth=0)
    strips.set_yticks([0, -1, -2], ["face seen", "voice heard", "words known"])
    strips.set_ylim(-2.5, 0.5)
    strips.tick_params(labelsize=SMALL - 0.5, left=False, labelbottom=False, bottom=False)
    strips.spines[:].set_visible(False)
    strips.set_xlim(limits_s)
    below = _axes(figure, LEFT_IN, *WORDS)
    below.set_xlim(limits_s)
    below.set_ylim(-3, 0)
    below.set_yticks([])
    below.tick_params(labelsize=SMALL)
    below.spines[["top", "right", "left"]].set_visible(False)
    below.set_xlabel(f"time ({time_axis(below, limits_s)})", size=SMALL + 0.5, labelpad=2)
    spans = [(m.time_s - WORDS_AROUND_S, m.time_s + WORDS_AROUND_S) for m in scene.moments]
    near = [w for w in scene.words if any(w.start_s < b and w.end_s > a for a, b in spans)]
    write_words(below, near)


def _list(figure: Figure, scene: Scene) -> None:
    """Write the moments with their shares, beside the course."""
    _write(figure, RIGHT_IN, HEIGHT_IN - 0.22, "The strongest moments", size=9, weight="bold")
    shown = scene.moments[:LISTED]
    for number, moment in enumerate(shown, 1):
        top_in = LIST_TOP_IN - (number - 1) * ITEM_IN
        axes = _axes(figure, RIGHT_IN, top_in - ITEM_IN, ITEM_IN, WIDTH_IN - RIGHT_IN - 0.15)
        axes.axis("off")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        _item(axes, number, moment, moment is scene.chosen)
    notes = [f"Note: {note}" for note in scene.notes]
    if len(scene.moments) > LISTED:
        notes.insert(0, f"and {len(scene.moments) - LISTED} more: see the JSON file")
    for k, note in enumerate(notes):
        bottom_in = LIST_TOP_IN - len(shown) * ITEM_IN - 0.05 - 0.17 * k
        if bottom_in > SEEN[0] + SEEN[1] + 0.3:
            _write(figure, RIGHT_IN, bottom_in, shortened(note, 62), color=GREY)


def _item(axes: Axes, number: int, moment: Moment, chosen: bool) -> None:
    def write(x: float, y: float, text: str, **style: Any) -> None:
        axes.text(x, y, printable(text), **(STYLE | style))

    box = {"boxstyle": "circle,pad=0.25", "facecolor": INK if chosen else "white", "edgecolor": INK}
    write(0.03, 0.93, str(number), ha="center", color="white" if chosen else INK, bbox=box)
    write(0.08, 0.93, f"{moment.time_s:.1f} s   {moment.emotion}", weight="bold", size=SMALL + 0.5)
    write(0.08, 0.81, "   ".join(_value(moment, axis) for axis in AXES))
    start = 0.08
    for m, driver in moment.drivers.items():
        width = 0.9 * driver.share
        axes.barh(0.69, width, 0.11, left=start, color=COLOURS[m], linewidth=0)
        if width > 0.15:
            style = {"ha": "center", "color": TEXT_ON[m], "size": SMALL - 0.5}
            write(start + width / 2, 0.685, f"{NAMES[m]} {driver.share:.0%}", **style)
        start += width
    for line, axis in enumerate(AXES):
        write(0.08, 0.575 - 0.11 * line, f"{axis}: {parts_line(moment, axis)}")
    below = [(f"said: “{shortened(moment.said, QUOTE)}”", INK)] if moment.said else []
    below += [(word_line(word), DARK_TEXT) for word in effects(moment)[:2]]
    gone = [NAMES[m] for m, driver in moment.drivers.items() if not driver.observed]
    below += [(f"not observed then: {', '.join(gone)}", GREY)] if gone else []
    for line, (text, colour) in enumerate(below[:4]):
        write(0.08, 0.355 - 0.11 * line, text, color=colour)


def parts_line(moment: Moment, axis: str) -> str:
    """Write what face, voice and words contribute on one axis."""
    drivers = moment.drivers.items()
    return ", ".join(f"{NAMES[m]} {getattr(driver, axis):+.2f}" for m, driver in drivers)


def _value(moment: Moment, axis: str) -> str:
    text = f"{axis} {getattr(moment, axis):+.2f}"
    if moment.interval is not None:
        low, high = moment.interval[:2] if axis == "valence" else moment.interval[2:]
        text += f" ({low:+.2f} to {high:+.2f})"
    return text


def shortened(text: str, letters: int) -> str:
    """Cut a text that is too long, with dots where it was cut."""
    return text if len(text) <= letters else f"{text[: letters - 1].rstrip()}…"


def effects(moment: Moment) -> list[WordEffect]:
    """Return the words that changed the answer most, if they changed it at all."""
    found = [w for w in moment.words if np.hypot(w.valence, w.arousal) >= WORTH]
    return found[:WORDS_SHOWN]


def word_line(word: WordEffect) -> str:
    """Write a word with the change that it makes."""
    return f"“{_bare(word.text)}” valence {word.valence:+.2f}, arousal {word.arousal:+.2f}"


def _bare(text: str) -> str:
    return text.strip(' .,;:!?…"“”()[]') or text


def _attention(figure: Figure, scene: Scene, looks: Looks) -> None:
    """Draw where the network looks at one moment, a row a path, grey where there was nothing."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    axes = _axes(figure, LEFT_IN + SHIFT_IN, *SEEN, COURSE_IN - SHIFT_IN)
    around_s = looks.around_s - looks.time_s
    step_s = np.diff(around_s)
    half_s = float(np.median(step_s)) / 2 if len(step_s) else 0.05
    edges_s = np.append(around_s - half_s, around_s[-1] + half_s)
    largest = max(float(weights.max()) for weights in looks.weights.values()) or 1.0
    for row, (to, of) in enumerate(PATHS):
        ends = (-row - 0.86, -row - 0.14)
        seen = looks.observed[of][None]
        gone, weights = np.where(seen, np.nan, 0), np.where(seen, looks.weights[to, of], np.nan)
        axes.pcolormesh(edges_s, ends, gone, cmap=ListedColormap([UNSEEN]))
        image = axes.pcolormesh(edges_s, ends, weights, cmap="Purples", vmin=0, vmax=largest)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_ylim(-len(PATHS), 0)
    labels = [f"{NAMES[to]} looks at {NAMES[of]}" for to, of in PATHS]
    axes.set_yticks(-0.5 - np.arange(len(PATHS)), labels)
    axes.tick_params(labelsize=SMALL - 0.5, left=False, pad=1)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("seconds before and after the moment", size=SMALL + 0.5, labelpad=2)

    number = 1 + next(k for k, moment in enumerate(scene.moments) if moment is scene.chosen)
    top_in = SEEN[0] + SEEN[1]
    title = f"Where the network looks at moment {number} ({looks.time_s:.1f} s)"
    _write(figure, LEFT_IN + SHIFT_IN, top_in + 0.13, title, size=9, weight="bold")
    for k, line in enumerate(LOOKS_NOTE):
        _write(figure, RIGHT_IN, top_in - 0.05 - 0.17 * k, line)
    side = _axes(figure, RIGHT_IN, SEEN[0] + 0.02, 0.1, 1.6)
    bar = figure.colorbar(image, cax=side, orientation="horizontal")
    bar.outline.set_visible(False)
    side.tick_params(labelsize=SMALL - 0.5, length=2)
    side.set_title("share of a row's attention", size=SMALL - 0.5, loc="left", pad=2)
    legend = _axes(figure, RIGHT_IN + 1.9, SEEN[0] - 0.02, 0.2, 1.6)
    legend.axis("off")
    legend.legend(
        handles=[Patch(color=UNSEEN, label="nothing observed")], loc="center left", frameon=False,
        fontsize=SMALL - 0.5, borderaxespad=0,
    )  # fmt: skip


def print_explanation(scene: Scene, console: Console) -> None:
    """Print the moments and what drove them, within 80 columns."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text(f"{scene.file}: what drove the answer for {scene.person}", style="bold"))
    if not scene.moments:
        console.print("  no answer: neither face, voice nor words were found")
    else:
        console.print("valence: -1 unpleasant, +1 pleasant; arousal: -1 calm, +1 excited")
    for number, moment in enumerate(scene.moments, 1):
        console.print(Text(f"\n{number}  at {moment.time_s:.1f} s  {moment.emotion}", style="bold"))
        console.print(Text("   " + ", ".join(_value(moment, axis) for axis in AXES)))
        if moment.said:
            console.print(Text(f"   said: “{shortened(moment.said, 64)}”"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for m, driver in moment.drivers.items():
            if not driver.observed and not (driver.valence or driver.arousal):
                table.add_row(f"   {NAMES[m]}", "", "not observed")
                continue
            moved = f"valence {driver.valence:+.2f}, arousal {driver.arousal:+.2f}"
            share = f"{driver.share:.0%}" if driver.observed else "not then"
            table.add_row(f"   {NAMES[m]}", Text(share, justify="right"), moved)
        console.print(table)
        for line, word in enumerate(effects(moment)):
            lead = "which words: " if line == 0 else " " * 13
            console.print(Text(f"   {lead}{word_line(word)}"))
    for note in scene.notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False)
