"""Pictures of an evaluation: angles, predicted against true, courses of three videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maven.circumplex import NEUTRAL_INTENSITY, to_polar
from maven.evaluate import Answers, Evaluation
from maven.features import NAMES
from maven.files import whole
from maven.render.plot import COLOURS, DPI, FAINT, GREY, INK, SMALL
from maven.render.tables import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

    from maven.timeline import Mask

SECTORS = 24  # of the roses
CELLS = 51  # of the densities, along each side: odd, so that rest is the middle of one
DENSITY = "cividis"  # even in lightness, and the same to the colour-blind
LETTERS = 70  # of a video's name
TICKS = ([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "+0.5", "+1"])
SIDES = ("valence", "arousal")
ROUND = ("left", "left", "center", "right", "right", "right", "center", "left")  # of rose ticks


def save_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Draw `angles.png`, `predicted_against_true.png` and `courses.png` into a folder."""
    paths = []
    for name, draw in PICTURES.items():
        paths.append(folder / f"{name}.png")
        figure = draw(evaluation)
        with whole(paths[-1]) as part:
            figure.savefig(part, format="png", dpi=DPI)
    return paths


def angles(evaluation: Evaluation) -> Figure:
    """How theta is distributed, in labels and answers (the paper's figure 4), and the plane."""
    both = {"labels": _valid(evaluation)[0], "predictions": _valid(evaluation)[1]}
    figure = _figure(9.0, 8.8)
    roses, planes = figure.subfigures(2, 1, height_ratios=(1, 1), squeeze=False)[:, 0]
    shares, neutral = {}, {}
    for name, va in both.items():
        theta_rad, intensity = to_polar(va[:, 0], va[:, 1])
        strong = theta_rad[intensity >= NEUTRAL_INTENSITY]
        counts, _ = np.histogram(np.mod(strong, 2 * np.pi), SECTORS, (0, 2 * np.pi))
        shares[name] = 100 * counts / max(len(strong), 1)
        neutral[name] = 100 * (1 - len(strong) / len(va))
    top = max(1.1 * max(max(values) for values in shares.values()), 1.0)
    emptiest = int(np.argmin(shares["labels"] + shares["predictions"]))
    for k, name in enumerate(both):
        _rose(roses.add_subplot(1, 2, k + 1, projection="polar"), shares[name], top)
        roses.axes[k].set_title(f"{name}: theta", size=10, weight="bold", pad=12)
        note = f"without {neutral[name]:.1f} % of the frames, of intensity below"
        roses.axes[k].set_xlabel(f"{note} {NEUTRAL_INTENSITY}", size=SMALL, color=GREY, labelpad=8)
        roses.axes[k].set_rlabel_position((emptiest + 0.5) * 360 / SECTORS)
    axes = planes.subplots(1, 2)
    images = [_density(axes[k], both[name][:, 0], both[name][:, 1]) for k, name in enumerate(both)]
    _share_scale(planes, axes, images)
    for k, name in enumerate(both):
        axes[k].set_title(f"{name}: valence and arousal", size=10, weight="bold")
        axes[k].set_xlabel("valence", size=9)
        axes[k].set_ylabel("arousal", size=9)
        turn = np.linspace(0, 2 * np.pi, 200)
        axes[k].plot(np.cos(turn), np.sin(turn), color=GREY, linewidth=0.8)
        axes[k].axhline(0, color=FAINT, linewidth=0.5, zorder=0)
        axes[k].axvline(0, color=FAINT, linewidth=0.5, zorder=0)
    return figure


def predicted_against_true(evaluation: Evaluation) -> Figure:
    """Answers over labels as densities, with the line on which they would agree."""
    labels, va = _valid(evaluation)
    figure = _figure(9.0, 4.2)
    axes = figure.subplots(1, 2)
    images = [_density(axes[k], labels[:, k], va[:, k]) for k in range(2)]
    _share_scale(figure, axes, images)
    for k, name in enumerate(SIDES):
        ccc = _signed(getattr(evaluation.abaw, f"ccc_{name}"))
        axes[k].plot([-1, 1], [-1, 1], "--", color=INK, linewidth=1.0)
        axes[k].set_title(f"{name}: CCC {ccc}", size=10, weight="bold")
        axes[k].set_xlabel(f"{name} in the labels", size=9)
        axes[k].set_ylabel(f"{name} predicted", size=9)
    return figure


def courses(evaluation: Evaluation) -> Figure:
    """Labels and answers over time of the best, the median and the worst video by mean CCC."""
    chosen = _extremes([video.scores.ccc_mean for video in evaluation.videos])
    figure = _figure(11.0, 3.5 * len(chosen))
    parts = figure.subfigures(len(chosen), 1, squeeze=False)[:, 0]
    for part, (i, place) in zip(parts, chosen.items(), strict=True):
        video = evaluation.videos[i]
        name = video.name if len(video.name) <= LETTERS else f"{video.name[: LETTERS - 3]}..."
        name = "".join(c if c.isascii() and c.isprintable() else "?" for c in name)
        ccc = [_signed(getattr(video.scores, f"ccc_{side}")) for side in SIDES]
        figures = f"CCC valence {ccc[0]}, arousal {ccc[1]}"
        part.suptitle(f"{place}: {name}   {figures}", size=10, weight="bold", x=0.01, ha="left",
                      parse_math=False)  # fmt: skip
        _course(part, evaluation.answers[i])
    return figure


PICTURES = {
    "angles": angles,
    "predicted_against_true": predicted_against_true,
    "courses": courses,
}


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")  # + 0.0: no minus before a zero


def _valid(evaluation: Evaluation) -> tuple[Floats, Floats]:
    """Labels and answers (n, 2) of all frames that count."""
    labels = [video.labels[video.valid] for video in evaluation.answers]
    return (
        np.concatenate(labels).astype(np.float64),
        np.concatenate([video.va[video.valid] for video in evaluation.answers]),
    )


def _rose(axes: Any, shares: Floats, top: float) -> None:
    width = 2 * np.pi / SECTORS
    axes.bar((np.arange(SECTORS) + 0.5) * width, shares, width, color=COLOURS["valence"],
             edgecolor="white", linewidth=0.5, zorder=2)  # fmt: skip
    axes.set_ylim(0, top)
    axes.set_xticks(
        np.arange(8) * np.pi / 4,
        ["valence\n+", "45°", "arousal +", "135°", "valence\n−", "−135°", "arousal −", "−45°"],
    )
    for label, side in zip(axes.get_xticklabels(), ROUND, strict=True):
        label.set_horizontalalignment(side)
    axes.tick_params(labelsize=SMALL, pad=3)
    axes.yaxis.set_major_locator(_whole_numbers())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines["polar"].set_color(GREY)


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, steps=[1, 2, 5, 10], prune="lower")


def _density(axes: Axes, x: Floats, y: Floats) -> Any:
    """Draw the share of points in each cell of [-1, 1]^2, in %, cells without any left white."""
    edges = np.linspace(-1, 1, CELLS + 1)
    counts, _, _ = np.histogram2d(x, y, (edges, edges))
    shares = np.ma.masked_equal(100 * counts.T / len(x), 0)
    axes.set_aspect("equal")
    axes.set_xlim(-1.03, 1.03)
    axes.set_ylim(-1.03, 1.03)
    axes.set_xticks(*TICKS)
    axes.set_yticks(*TICKS)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    return axes.pcolormesh(edges, edges, shares, cmap=DENSITY, rasterized=True)


def _share_scale(figure: Figure | SubFigure, axes: Any, images: Sequence[Any]) -> None:
    """Give densities side by side one logarithmic scale, and draw it."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import NullFormatter

    low = min(float(image.get_array().min()) for image in images)
    high = max(float(image.get_array().max()) for image in images)
    for image in images:
        image.set_norm(LogNorm(min(low, high / 10), high))
    bar = figure.colorbar(images[0], ax=list(axes), shrink=0.85, pad=0.02)
    bar.set_label("frames in a cell (%)", size=9)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(labelsize=SMALL)


def _extremes(ccc_mean: Sequence[float]) -> dict[int, str]:
    """Index -> what it is: best, median and worst; of few videos one can be several."""
    ranked = sorted(range(len(ccc_mean)), key=lambda i: -ccc_mean[i])
    places: dict[int, str] = {}
    for place, i in (
        ("best", ranked[0]),
        ("median", ranked[len(ranked) // 2]),
        ("worst", ranked[-1]),
    ):
        places[i] = f"{places[i]} and {place}" if i in places else place
    return {i: f"{place[0].upper()}{place[1:]}" for i, place in places.items()}


def _course(part: SubFigure, video: Answers) -> None:
    panels = part.subplots(3, 1, sharex=True, height_ratios=(4, 4, 1.5))
    out = ~video.valid[:, None]
    labels, va = np.where(out, np.nan, video.labels), np.where(out, np.nan, video.va)
    handles: list[Line2D] = []
    for k, name in enumerate(SIDES):
        axes = panels[k]
        axes.axhline(0, color=GREY, linewidth=0.6)
        label = axes.plot(video.time_s, labels[:, k], color=INK, linewidth=1.0, label="labels")
        handles[:1] = label
        handles += axes.plot(video.time_s, va[:, k], color=COLOURS[name], linewidth=1.4,
                             label=f"{name} predicted")  # fmt: skip
        axes.set_ylim(-1.05, 1.05)
        axes.set_yticks(*TICKS)
        axes.set_ylabel(name, size=9)
        axes.tick_params(labelsize=SMALL, bottom=False)
        axes.grid(color=FAINT, linewidth=0.5)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    panels[0].legend(handles=handles, frameon=False, fontsize=SMALL + 0.5, ncols=3,
                     loc="lower right", borderaxespad=0, bbox_to_anchor=(1.0, 1.02))  # fmt: skip
    strips = panels[2]
    for k in range(len(NAMES)):
        strips.axhline(-k, color=FAINT, linewidth=2, zorder=0)
        spans = _spans_s(video.time_s, video.observed[:, k])
        strips.broken_barh(spans, (-k - 0.27, 0.54), color=INK, linewidth=0)
    strips.set_yticks([0, -1, -2], list(NAMES.values()))
    strips.set_ylim(-2.5, 0.5)
    strips.tick_params(axis="y", labelsize=SMALL, left=False)
    strips.tick_params(axis="x", labelsize=SMALL)
    strips.spines[["top", "right", "left"]].set_visible(False)
    strips.set_xlabel("time (s)", size=SMALL + 0.5)
    strips.set_xlim(video.time_s[0], max(video.time_s[-1], video.time_s[0] + 0.1))
    part.align_ylabels(panels[:2])


def _spans_s(time_s: Floats, on: Mask) -> list[tuple[float, float]]:
    """Return (start, length) in seconds of each stretch of frames (n,) in which a flag is set."""
    turns = np.diff(np.concatenate(([0], on.astype(np.int8), [0])))
    step_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.04
    edges_s = np.append(time_s, time_s[-1] + step_s)
    starts_s, ends_s = edges_s[np.flatnonzero(turns > 0)], edges_s[np.flatnonzero(turns < 0)]
    return list(zip(starts_s.tolist(), (ends_s - starts_s).tolist(), strict=True))
