"""A reliability diagram: the share that intervals cover over the share that they should cover."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maven.features import NAMES
from maven.files import whole
from maven.intervals import NOMINAL, Covered
from maven.render.plot import COLOURS, FAINT, GREY, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDES = ("valence", "arousal")
BAND = 0.03  # to either side of the nominal share
DPI = 100
# Okabe & Ito (2008), one a set of modalities; dashes tell how many there are.
SET_COLOURS = ("#000000", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#E69F00")
DASHES = {1: (0, (1, 1)), 2: (0, (4, 2)), 3: "solid"}


def reliability(
    measured: Mapping[float, Mapping[str, Covered]], path: Path | None = None
) -> Figure:
    """Draw measured over nominal coverage, of all frames and by what was observed.

    Args:
        measured: what `maven.intervals.coverage` gives, by nominal share.
        path: of a PNG, written beside and renamed.

    Raises:
        ValueError: no shares, or no frame to draw.
    """
    from matplotlib.figure import Figure

    shares = sorted(measured)
    if not shares or any("all" not in measured[share] for share in shares):
        raise ValueError("a reliability diagram needs coverage of some frames at a nominal share")
    named = measured[min(shares, key=lambda share: abs(share - NOMINAL))]
    names = [name for name in named if name.startswith("observed ")]
    figure = Figure(figsize=(9.0, 5.0), layout="constrained")
    for axes, side in zip(figure.subplots(1, 2, sharey=True), SIDES, strict=True):
        low, high = shares[0] - 0.02, min(shares[-1] + 0.02, 1)
        ideal = np.array([low, high])
        axes.fill_between(ideal, ideal - BAND, ideal + BAND, color=FAINT, lw=0, zorder=0)
        axes.plot(ideal, ideal, color=GREY, lw=0.8, zorder=1)
        for name, colour in zip(names, SET_COLOURS, strict=False):
            known = [share for share in shares if name in measured[share]]
            axes.plot(
                known,
                [getattr(measured[share][name], side) for share in known],
                color=colour,
                ls=DASHES[name.count("+") + 1],
                lw=1.1,
                label=f"{_seen(name)}  ({getattr(named[name], f'width_{side}'):.2f})",
            )
        axes.plot(
            shares,
            [getattr(measured[share]["all"], side) for share in shares],
            color=COLOURS[side],
            lw=3,
            alpha=0.75,
            marker="o",
            ms=4.5,
            label=f"all frames  ({getattr(named['all'], f'width_{side}'):.2f})",
        )
        axes.set(xlim=(low, high), title=side, xlabel="nominal share", xticks=shares)
        axes.set_xticks(shares, [f"{share:.0%}" if k % 2 == 0 else "" for k, share in
                                 enumerate(shares)])  # fmt: skip
        axes.grid(color=FAINT, lw=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        legend = axes.legend(
            loc="lower right", fontsize=7.5, frameon=False, labelcolor=INK,
            title="observed  (mean width at 90 %)", title_fontsize=7.5,
        )  # fmt: skip
        legend._legend_box.align = "left"
    left = figure.axes[0]
    left.set_ylabel(f"share of frames covered (grey: within {BAND:.0%} points)".replace("%", ""))
    left.yaxis.set_major_formatter(_percent)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            figure.savefig(part, format="png", dpi=DPI)
    return figure


def _percent(value: float, _: float) -> str:
    return f"{value:.0%}"


def _seen(name: str) -> str:
    return " + ".join(NAMES[m] for m in name.removeprefix("observed ").split("+"))
