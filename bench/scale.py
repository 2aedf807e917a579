"""What ten thousand hours take: a simulated fleet, fed with times that are measured here.

python bench/scale.py [--json FILE] [--measured FILE] [--against FILE] [--picture FILE]
    [--device cuda] [--files 500] [--rows 200] [--runs 3] [--into docs/scale.md]

First the parts of a batch are measured (`costs.py`, some minutes), or read with `--measured` from
the `--json` of another run. Then batches of a thousand to ten million hours are played through
(`fleet.py`, seconds). `--against` takes the `--json` of `bench/batch.py`, whose clips must lie
where they did, and compares its runs with what the simulation foretells. `--into` puts the tables
into a page, each between `<!-- measured by bench/scale.py: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import costs
from fleet import ENOUGH, HOUR_S, Costs, Fleet, Load, Run, simulate
from foretell import foretell
from machine import Report, arguments, put_into

HOURS = (1e3, 1e5, 1e7)
BATCHES = {f"{hours:,.0f} h": Load(hours) for hours in HOURS}  # files of 20 minutes
BATCHES["1,000 h of 10 s clips"] = Load(1e3, mean_s=10.0, sigma=0.3)
WORKERS = (1, 10, 100, 1_000, 10_000, 100_000)
NODE_WORKERS = 64  # cores of a machine
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")

# Assumed, not measured: bytes a second in all, and of one reader.
FILE_SERVER, BUCKET = (1e9, 1e8), (5e10, 5e7)
# Assumed: a file in ten thousand hangs, one in a thousand ends its worker, a machine is lost every
# thousand hours, a worker without anybody's fault every ten thousand.
TROUBLE = {"hangs": 1e-4, "crashes": 1e-3}
LOSSES = {"node_life_h": 1e3, "deaths_h": 1e-4}


class Tables(Report):
    """A report that keeps its tables as text, by name."""

    def __init__(self, title: str, path: Path | None) -> None:
        super().__init__(title, path)
        self._lines: dict[str, list[str]] = {}

    def table(self, name: str, columns: Sequence[str]) -> None:
        """Begin a table."""
        super().table(name, columns)
        self._last = self._lines[name] = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]

    def row(self, cells: Sequence[object], **figures: Any) -> None:
        """Add a row."""
        super().row(cells, **figures)
        self._last.append(f"| {' | '.join(map(str, cells))} |")

    def put_into(self, page: Path) -> None:
        """Put the tables where a page names them; those of other runs stay as they are."""
        put_into(page, {name: "\n".join(lines) for name, lines in self._lines.items()})


def measure(runs: int, files: int, rows: int, device: str) -> dict[str, Any]:
    """Measure all parts of a batch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workers = {form: asdict(costs.worker(folder, form, runs)) for form in costs.FORMATS}
        found: dict[str, Any] = {"workers": workers}
        if device != "cpu":
            found["gpu"] = {
                form: asdict(costs.worker(folder, form, runs, runtime="torch", device=device))
                for form in costs.FORMATS
            }
        found["attended"] = asdict(costs.attended(folder))
        found["engines"] = {
            name: asdict(costs.engine(name, folder, rows)) for name in ("local", "ray")
        }
        clip = costs.clip_path(folder, costs.TYPICAL, costs.SHORT_S)
        found["parent"] = asdict(costs.parent(folder, clip, files))
        found["features"] = {"mini": costs.feature_bytes_s()}
    return found


def costs_of(found: dict[str, Any], engine: str) -> Costs:
    """Turn what was measured into the simulation's costs, of the typical format."""
    worker, parent = found["workers"][costs.TYPICAL], found["parent"]
    of_engine = found["engines"][engine]
    return Costs(
        compute_s=worker["compute_s"],
        file_s=worker["file_s"],
        row_s=of_engine["row_s"],
        start_s=found["attended"]["start_s"],
        plan_s=parent["plan_s"],
        commit_s=parent["commit_s"] + of_engine["driver_s"],
        index_s=parent["index_s"],
    )


def one_parent(workers: int) -> Fleet:
    """A Ray cluster with one command, on a file server."""
    return Fleet(workers, 1, NODE_WORKERS, *FILE_SERVER, **LOSSES)


def one_parent_bucket(workers: int) -> Fleet:
    """A Ray cluster with one command, on object storage."""
    return Fleet(workers, 1, NODE_WORKERS, *BUCKET, **LOSSES)


def a_parent_a_machine(workers: int) -> Fleet:
    """A command a machine, each with its own part of the manifest, on object storage."""
    return Fleet(workers, math.ceil(workers / NODE_WORKERS), NODE_WORKERS, *BUCKET, **LOSSES)


WAYS = {
    "one command with Ray, file server": ("ray", one_parent),
    "one command with Ray, object storage": ("ray", one_parent_bucket),
    "a command a machine, object storage": ("local", a_parent_a_machine),
}


def show_measured(report: Report, found: dict[str, Any]) -> None:
    """Print what the simulation is fed with."""
    workers = found["workers"]
    report.table("Processor seconds of one core, a second of video", ("stage", *workers))
    for stage in costs.STAGES:
        values = [worker["stages"][stage] for worker in workers.values()]
        report.row((stage, *(f"{v:.4f}" for v in values)), stage=stage, seconds=values)
    rest = [worker["compute_s"] - sum(worker["stages"].values()) for worker in workers.values()]
    report.row(("the rest", *(f"{v:.4f}" for v in rest)), stage="rest", seconds=rest)
    total = [worker["compute_s"] for worker in workers.values()]
    report.row(("all", *(f"**{v:.3f}**" for v in total)), stage="all", seconds=total)
    report.row(("times real time, one core", *(f"{1 / v:.1f}" for v in total)))
    report.row(("core hours of 1,000 hours", *(f"{1000 * v:.0f}" for v in total)))
    values = [worker["file_s"] for worker in workers.values()]
    report.row(("a file, beside its length, s", *(f"{v:.2f}" for v in values)))
    values = [worker["bits_s"] for worker in workers.values()]
    report.row(("Mbit a second of these clips", *(f"{v / 1e6:.1f}" for v in values)))
    attended, parent, engines = found["attended"], found["parent"], found["engines"]
    values = [attended["peaks_mb"][form] for form in workers]
    report.row(("peak memory of a worker, MB", *(f"{v:.0f}" for v in values)))

    report.table("Other parts", ("what", "measured"))
    for what, value in {
        "a worker until its model is loaded": f"{attended['start_s']:.2f} s",
        "result, a file": f"{attended['result_bytes'] / 1e3:.0f} kB",
        "result, an hour of video at 25 rows a second":
            f"{attended['result_bytes_s'] * HOUR_S / 1e6:.1f} MB",
        "features of `mini`, an hour of one face, before compression":
            f"{found['features']['mini'] * HOUR_S / 1e6:.1f} MB",
        "parent, a file: listed from a manifest and planned": f"{parent['plan_s'] * 1e3:.2f} ms",
        "parent, a file: committed durably": f"{parent['commit_s'] * 1e3:.1f} ms",
        "parent, a file: in index and page": f"{parent['index_s'] * 1e3:.2f} ms",
        "parent, a file that is done: found at the next start": f"{parent['again_s'] * 1e3:.2f} ms",
        "database and index, a file": f"{parent['bytes'] / 1e3:.1f} kB",
        "start of the engine local / ray":
            " / ".join(f"{engines[e]['start_s']:.1f} s" for e in engines),
        "row of the engine local / ray":
            " / ".join(f"{engines[e]['row_s'] * 1e3:.0f} ms" for e in engines),
        "processor of Ray's driver, a row": f"{engines['ray']['driver_s'] * 1e3:.0f} ms",
    }.items():  # fmt: skip
        report.row((what, value))
    if "gpu" in found:
        report.table("With a GPU, one process", ("format", "times real time"))
        for form, worker in found["gpu"].items():
            report.row((form, f"{1 / worker['wall_s']:.1f}"), format=form, **worker)
    else:
        report.say("No GPU was measured: `--device cuda` measures one where there is one.")


def show_prices(report: Report, found: dict[str, Any]) -> None:
    """Print what so many hours cost: machine hours and storage."""
    columns = ("hours of video", "files", *(f"core hours, {form}" for form in found["workers"]),
               f"machine hours, {costs.TYPICAL}")  # fmt: skip
    report.table(f"Computing; files of 20 minutes, machines of {NODE_WORKERS} cores", columns)
    for hours in HOURS:
        cores = [
            hours * worker["compute_s"] + Load(hours).files * worker["file_s"] / HOUR_S
            for worker in found["workers"].values()
        ]
        machines = cores[list(found["workers"]).index(costs.TYPICAL)] / NODE_WORKERS
        cells = (f"{hours:,.0f}", f"{Load(hours).files:,}", *(f"{c:,.0f}" for c in cores))
        report.row((*cells, f"{machines:,.0f}"), hours=hours, core_hours=cores)
    rates = (0.5e6, 1e6, 2.5e6, 5e6)
    columns = ("hours of video", *(f"videos at {r / 1e6:g} Mbit/s" for r in rates),
               "results", "features of `mini`", "database and index")  # fmt: skip
    report.table("Storage", columns)
    attended, parent = found["attended"], found["parent"]
    for hours in HOURS:
        files = Load(hours).files
        sizes = [hours * HOUR_S * rate / 8 for rate in rates]
        sizes.append(hours * HOUR_S * attended["result_bytes_s"] + files * attended["result_bytes"])
        sizes.append(hours * HOUR_S * found["features"]["mini"])
        sizes.append(files * parent["bytes"])
        report.row((f"{hours:,.0f}", *map(size, sizes)), hours=hours, bytes=sizes)


def size(count: float) -> str:
    """Write bytes with a unit."""
    power = min(max(int(math.log10(count)) // 3, 1), 5)
    scaled = count / 1000**power
    return f"{scaled:,.0f} {UNITS[power]}" if scaled >= 10 else f"{scaled:.1f} {UNITS[power]}"


def show_fleets(report: Report, found: dict[str, Any]) -> dict[str, dict[str, list[Run]]]:
    """Print efficiency and bottleneck against workers, for each way to run."""
    runs: dict[str, dict[str, list[Run]]] = {}
    for way, (engine, fleet) in WAYS.items():
        report.table(
            f"Efficiency and what a larger fleet would wait for: {way}",
            ("workers", *BATCHES),
        )
        given = costs_of(found, engine)
        for workers in WORKERS:
            row = []
            for batch, load in BATCHES.items():
                run = simulate(given, fleet(workers), replace(load, **TROUBLE))
                runs.setdefault(way, {}).setdefault(batch, []).append(run)
                row.append(run)
            cells = [f"{run.efficiency:.0%} ({run.bottleneck}; {span(run.wall_s)})" for run in row]
            report.row((f"{workers:,}", *cells), workers=workers, runs=[asdict(r) for r in row])
    return runs


def span(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    for unit, length_s in (("years", 365 * 86400), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.3g} {unit}"
    return f"{seconds:.0f} s"


def show_limits(report: Report, found: dict[str, Any]) -> None:
    """Print where each part is full, by arithmetic alone; and what a good order brings."""
    load = Load(HOURS[0])
    report.table("Where each part is full, workers", ("what", "720p, 20 minutes", "720p, 10 s"))
    short = replace(load, mean_s=10.0)
    busy = {name: costs_of(found, engine) for name, engine in (("local", "local"), ("ray", "ray"))}

    def work_s(given: Costs, mean_s: float) -> float:
        return given.file_s + given.row_s + mean_s * given.compute_s

    lines = {
        "file server, 1 GB/s": lambda mean_s: FILE_SERVER[0] / (mean_s * load.bits_s / 8)
        * work_s(busy["local"], mean_s),
        "object storage, 50 GB/s": lambda mean_s: BUCKET[0] / (mean_s * load.bits_s / 8)
        * work_s(busy["local"], mean_s),
        "commits of one parent": lambda mean_s: work_s(busy["local"], mean_s)
        / busy["local"].commit_s,
        "commits and Ray's driver": lambda mean_s: work_s(busy["ray"], mean_s)
        / busy["ray"].commit_s,
    }  # fmt: skip
    for what, full in lines.items():
        values = [full(mean_s) for mean_s in (load.mean_s, short.mean_s)]
        report.row((what, *(f"{v:,.0f}" for v in values)), what=what, workers=values)
    report.table("Listing before, index after the work of one parent", ("hours", "list", "index",
                 "next start, all done"))  # fmt: skip
    parent = found["parent"]
    for hours in HOURS:
        spans = [Load(hours).files * parent[k] for k in ("plan_s", "index_s", "again_s")]
        report.row((f"{hours:,.0f}", *map(span, spans)), hours=hours, seconds=spans)
    given, fleet = costs_of(found, "ray"), one_parent_bucket(300)
    by_chance, sorted_ = (
        simulate(given, fleet, Load(HOURS[0], largest_first=first)) for first in (False, True)
    )
    report.say(
        f"300 workers, {HOURS[0]:,.0f} h: {span(by_chance.wall_s)} in the order of the list,"
        f" {span(sorted_.wall_s)} with the longest files first."
    )
    sound = simulate(given, one_parent_bucket(100), Load(HOURS[1], **TROUBLE))
    spot = replace(one_parent_bucket(100), node_life_h=24.0)
    bad = simulate(given, spot, Load(HOURS[1], hangs=0.01, crashes=0.01))
    report.say(
        f"Work that is lost, of all: {sound.wasted_s / (sound.wasted_s + sound.useful_s):.2%} with"
        f" the faults assumed; {bad.wasted_s / (bad.wasted_s + bad.useful_s):.1%} where a file in a"
        " hundred hangs, one in a hundred crashes, and a machine is lost every day."
    )


def draw(runs: dict[str, dict[str, list[Run]]], path: Path) -> None:
    """Draw efficiency against workers."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(runs), figsize=(12, 4.2), sharey=True)
    for axes, (way, batches) in zip(panels, runs.items(), strict=True):
        for (batch, row), marker in zip(batches.items(), "osD^", strict=True):
            values = [100 * run.efficiency for run in row]
            axes.plot(WORKERS, values, marker=marker, label=batch)
        axes.axhline(100 * ENOUGH, color="0.7", linewidth=0.8, linestyle="--")
        axes.set(xscale="log", ylim=(0, 104), xlabel="workers (cores)", title=way)
        axes.title.set_size(10)
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_ylabel("efficiency, %")
    panels[0].legend(frameon=False, loc="lower left", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, play through, print."""
    parser = arguments(__doc__)
    parser.add_argument("--measured", type=Path, metavar="FILE", help="--json of an earlier run")
    parser.add_argument("--against", type=Path, metavar="FILE", help="--json of bench/batch.py")
    parser.add_argument("--picture", type=Path, metavar="FILE")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the tables into this page")
    parser.add_argument("--files", type=int, default=500, help="that the parent commits")
    parser.add_argument("--rows", type=int, default=200, help="that the engines are measured with")
    parser.add_argument("--device", default="cpu", help="cuda: measure a GPU as well")
    given = parser.parse_args()
    report = Tables("Past one machine", given.json)
    if given.measured:
        found = json.loads(given.measured.read_text())["measured"]
    else:
        found = measure(given.runs, given.files, given.rows, given.device)
    report.say("Measured on one core, one thread.", measured=found)
    show_measured(report, found)
    began = time.monotonic()
    show_prices(report, found)
    runs = show_fleets(report, found)
    show_limits(report, found)
    report.say(f"Simulated in {time.monotonic() - began:.1f} s.")
    if given.picture:
        draw(runs, given.picture)
    if given.against:
        foretell(report, json.loads(given.against.read_text()), costs_of(found, "local"))
    if given.into:
        report.put_into(given.into)
    report.close()


if __name__ == "__main__":
    main()
