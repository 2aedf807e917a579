"""What an ablation found: tables in Markdown and CSV, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from maven.ablate import Trial, Variant
from maven.config import MODALITIES
from maven.features import NAMES
from maven.files import whole

FIGURES = ("ccc_valence", "ccc_arousal", "ccc_mean")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def markdown(trials: Sequence[Trial]) -> str:
    """Write the tables: each variant's CCC, mean and standard deviation (n - 1) over the seeds."""
    rows = _rows(trials)
    first = _mean(rows[0][1]) if rows[0][1] else None
    lines = [
        "| | | CCC valence | CCC arousal | mean | against the first row |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for variant, done in rows:
        if not done:
            lines.append(f"| {variant.group} | {variant.name} | failed | | | |")
            continue
        cells = [_spread([t.scores["as trained"][name] for t in done]) for name in FIGURES]
        gap = "" if first is None else _signed(_mean(done) - first)
        lines.append(f"| {variant.group} | {variant.name} | {' | '.join(cells)} | {gap} |")
    blocks = ["\n".join(lines)]
    everything, done = rows[0]
    if any(name.startswith("without") for trial in done for name in trial.scores):
        blocks.append(_bereft(rows))
    if done and everything.name == "default" and done[0].smoothed:
        blocks.append(_smoothing(done))
    failed = [f"- {t.variant.name}, seed {t.seed}: {t.failed}" for t in trials if t.failed]
    return "\n\n".join([*blocks, *(["\n".join(failed)] if failed else [])]) + "\n"


def _rows(trials: Sequence[Trial]) -> list[tuple[Variant, list[Trial]]]:
    """Group trials that did not fail by variant, in their order."""
    names = list(dict.fromkeys(t.variant.name for t in trials))
    groups = [[t for t in trials if t.variant.name == name] for name in names]
    return [(group[0].variant, [t for t in group if t.failed is None]) for group in groups]


def _bereft(rows: Sequence[tuple[Variant, list[Trial]]]) -> str:
    """Compare the network trained on everything, a modality missing, with one trained without."""
    lines = [
        "| missing | trained on all, a third of it missing | trained on all, all of it missing"
        " | trained without it | a third: gain | all: gain |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    everything = rows[0][1]
    for m in MODALITIES:
        rest = [other for other in MODALITIES if other != m]
        without = next(done for v, done in rows if v.changes.get("modalities") == rest)
        if not without:
            continue
        third, gone = (
            [t.scores[f"{what} {m}"]["ccc_mean"] for t in everything]
            for what in ("without a third of", "without")
        )
        trained = [t.scores["as trained"]["ccc_mean"] for t in without]
        gains = (_signed(mean(x) - mean(trained)) for x in (third, gone))
        cells = (_spread(third), _spread(gone), _spread(trained), *gains)
        lines.append(f"| {NAMES[m]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _smoothing(done: Sequence[Trial]) -> str:
    lines = ["| smoothing, half-width in s | mean CCC |", "|---:|---:|"]
    for width_s in done[0].smoothed:
        lines.append(f"| {width_s:g} | {_spread([t.smoothed[width_s] for t in done])} |")
    return "\n".join(lines)


def _mean(done: Sequence[Trial]) -> float:
    return mean(t.scores["as trained"]["ccc_mean"] for t in done)


def _spread(values: Sequence[float]) -> str:
    about = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{about}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def write_ablation(trials: Sequence[Trial], folder: Path, title: str) -> list[Path]:
    """Write ablation.md, ablation.csv (a row a trial and condition) and ablation.png."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"ablation.{suffix}" for suffix in ("md", "csv", "png")]
    with whole(paths[0]) as part:
        part.write_text(markdown(trials), encoding="utf-8")
    with whole(paths[1]) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("group", "variant", "seed", "condition", *FIGURES, "failed"))
        for t in trials:
            head = (t.variant.group, t.variant.name, t.seed)
            if t.failed is not None:
                writer.writerow((*head, "", "", "", "", t.failed))
            for condition, scores in t.scores.items():
                writer.writerow((*head, condition, *(f"{scores[n]:.6f}" for n in FIGURES), ""))
    with whole(paths[2]) as part:
        draw(trials, part, title)
    return paths


def draw(trials: Sequence[Trial], path: Path, title: str) -> None:
    """Draw each variant's mean CCC: a dot a seed, a bar and a number for their mean."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _rows(trials)
    groups = list(dict.fromkeys(variant.group for variant, _ in rows))
    figure = Figure(figsize=(8, 1.6 + 0.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    beside = axes.get_yaxis_transform()  # x in widths of the axes, y in rows
    axes.text(1.02, 1.01, "mean ± sd", transform=axes.transAxes, fontsize=8, va="bottom")
    for y, (variant, done) in enumerate(rows):
        scores = [t.scores["as trained"]["ccc_mean"] for t in done]
        colour = COLOURS[groups.index(variant.group) % len(COLOURS)]
        said = _spread(scores) if scores else "failed"
        axes.text(1.02, y, said, transform=beside, fontsize=9, color="#333333", va="center")
        if scores:
            axes.plot([mean(scores)] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2.5)
        axes.plot(scores, [y] * len(scores), "o", color=colour, markersize=5, alpha=0.6,
                  markeredgecolor="white", markeredgewidth=0.5, zorder=3)  # fmt: skip
    if rows[0][1]:
        axes.axvline(_mean(rows[0][1]), color="#888888", linewidth=0.8, linestyle=":", zorder=0)
    for k, group in enumerate(groups):
        axes.plot([], [], color=COLOURS[k % len(COLOURS)], linewidth=2.5, label=group)
    axes.set_yticks(range(len(rows)), [variant.name for variant, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("mean of the CCCs of valence and arousal, validation\n"
                    "(dot: one seed; dotted line: the first row)")  # fmt: skip
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(groups) > 1:
        figure.legend(loc="outside lower center", ncols=len(groups), frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
