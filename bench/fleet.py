"""A batch on many workers, simulated: who is free when, who reads, what the one parent commits.

Events are the moments at which a worker is free for its next file, in a heap; a second heap has the
moments at which a reader's place at the storage is free. The parent lists all files first, commits
outcomes one by one as they come, and writes the index last, as `maven batch` does.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SIMULATED = 40_000  # files of a pass that are played through; what is beyond goes on at their pace
LEAST_WORKERS = 200  # to which a large fleet is made smaller
ENOUGH = 0.8  # efficiency of a fleet that is worth its price
HOUR_S = 3600.0


@dataclass(frozen=True)
class Costs:
    """Measured seconds.

    Attributes:
        compute_s: of a worker, a second of video.
        file_s: of a worker, a file, beside its length.
        row_s: that the engine adds to a file.
        start_s: from a worker's start until its model is loaded.
        plan_s, commit_s, index_s: of the parent, a file: listed and looked at; result and row
            written durably; in the index.
    """

    compute_s: float
    file_s: float = 0.0
    row_s: float = 0.0
    start_s: float = 0.0
    plan_s: float = 0.0
    commit_s: float = 0.0
    index_s: float = 0.0


@dataclass(frozen=True)
class Load:
    """What is to be done.

    Attributes:
        hours: of video, in all.
        mean_s, sigma, most_s: lengths of files are log-normal with this mean; sigma of the
            logarithm; none is longer than the last.
        bits_s: of video and sound together.
        hangs: share of files that hang and are stopped, twice.
        crashes: share of files that end their worker, at any moment of their work, twice.
        hang_s: until a worker that says nothing is ended.
        largest_first: the longest files are begun first, as `maven batch` does; else in the order
            in which they are drawn.
    """

    hours: float
    mean_s: float = 1200.0
    sigma: float = 0.8
    most_s: float = 4 * HOUR_S
    bits_s: float = 2.5e6
    hangs: float = 0.0
    crashes: float = 0.0
    hang_s: float = 120.0
    largest_first: bool = True

    @property
    def files(self) -> int:
        """How many files that is."""
        return max(1, round(self.hours * HOUR_S / self.mean_s))

    def lengths_s(self, count: int, seed: int) -> Floats:
        """Draw lengths (count,), scaled so that their mean is `mean_s`."""
        drawn = np.random.default_rng(seed).lognormal(-(self.sigma**2) / 2, self.sigma, count)
        drawn = np.minimum(drawn * self.mean_s, self.most_s)
        return np.asarray(drawn * (self.mean_s / drawn.mean()), np.float64)


@dataclass(frozen=True)
class Fleet:
    """What it is done on.

    Attributes:
        workers: processes of one core each.
        parents: commands beside each other, each with its share of files and workers.
        node_workers: workers of one machine.
        storage_bytes_s: what the storage gives in all.
        connection_bytes_s: what one reader gets of it.
        node_life_h: mean time between two losses of a machine; its files in work are done again.
        node_back_s: from a loss until its workers are ready again.
        deaths_h: of a worker without its file's fault, an hour of work; such files are done again.
    """

    workers: int
    parents: int = 1
    node_workers: int = 64
    storage_bytes_s: float = math.inf
    connection_bytes_s: float = math.inf
    node_life_h: float = math.inf
    node_back_s: float = 300.0
    deaths_h: float = 0.0


@dataclass(frozen=True)
class Run:
    """How it went.

    Attributes:
        wall_s: from the command to the written index.
        plan_s, index_s: parts of it, before and after all work.
        useful_s: of workers, for work whose result was kept, reading included.
        wasted_s: of workers, for work that was lost, stopped or failed.
        efficiency: useful seconds of all that workers were there.
        parent, storage: share of the time between planning and index that they were busy.
        commit_wait_s: mean time from a file's end to its commit's begin, first pass.
        longest_s: of a single file.
    """

    wall_s: float
    plan_s: float
    index_s: float
    useful_s: float
    wasted_s: float
    efficiency: float
    parent: float
    storage: float
    commit_wait_s: float
    longest_s: float

    @property
    def bottleneck(self) -> str:
        """What a larger fleet would wait for."""
        between_s = self.wall_s - self.plan_s - self.index_s
        if self.efficiency > ENOUGH:
            return "cores"
        shares = {
            "listing": self.plan_s / self.wall_s,
            "index": self.index_s / self.wall_s,
            "commits": self.parent * between_s / self.wall_s,
            "storage": self.storage * between_s / self.wall_s,
            "longest file": self.longest_s / self.wall_s,
        }
        return max(shares, key=lambda name: shares[name])


@dataclass(frozen=True)
class _Pass:
    """One pass over files: when the last was committed, and which are to be done again."""

    end_s: float
    useful_s: float
    wasted_s: float
    read_s: float
    wait_s: float
    again: tuple[int, ...]


def simulate(costs: Costs, fleet: Fleet, load: Load, seed: int = 0) -> Run:
    """Play a batch through.

    Several parents do not know of each other: each has its share of files, workers and storage. As
    many of them are played as have `SIMULATED` files together; the slowest ends the batch. Where
    files are many, a fleet k times smaller is played: a kth of workers, files and storage, and a
    parent k times slower.
    """
    files = max(1, load.files // fleet.parents)
    workers = max(1, fleet.workers // fleet.parents)
    k = max(1, min(files // SIMULATED, workers // LEAST_WORKERS))
    costs = replace(
        costs, plan_s=costs.plan_s * k, commit_s=costs.commit_s * k, index_s=costs.index_s * k
    )
    share = 1 / (fleet.parents * k)
    fleet = replace(fleet, workers=workers // k, storage_bytes_s=fleet.storage_bytes_s * share)
    files = max(1, files // k)
    count = min(files, SIMULATED)
    parents = max(1, min(fleet.parents, SIMULATED // count))
    drawn_s = load.lengths_s(count * parents, seed).reshape(parents, count)
    runs = [play(costs, fleet, load, files, seed + n, row) for n, row in enumerate(drawn_s)]
    slowest = max(runs, key=lambda run: run.wall_s)
    useful_s = sum(run.useful_s for run in runs) / parents
    return replace(
        slowest,
        useful_s=useful_s * fleet.parents * k,
        wasted_s=sum(run.wasted_s for run in runs) / parents * fleet.parents * k,
        efficiency=useful_s / (fleet.workers * slowest.wall_s),
    )


def play(costs: Costs, fleet: Fleet, load: Load, files: int, seed: int, lengths_s: Floats) -> Run:
    """Play a batch of one parent through.

    Args:
        lengths_s: of its files, or of as many of them as are to be played through.
    """
    if load.largest_first:
        lengths_s = -np.sort(-lengths_s)
    luck = random.Random(seed)
    losses = _Losses(fleet, luck)
    plan_s, index_s = files * costs.plan_s, files * costs.index_s
    fates = [_fate(load, luck) for _ in lengths_s]
    first = _play(costs, fleet, load, lengths_s, fates, plan_s + costs.start_s, files, losses, luck)
    passes = [first]
    if first.again:
        again = np.array(first.again)
        more = round(len(again) * files / len(lengths_s))
        again = np.resize(again, min(more, SIMULATED))
        if load.largest_first:
            again.sort()  # they are numbered from the longest on
        rest = [fates[k] for k in again]
        passes.append(
            _play(costs, fleet, load, lengths_s[again], rest, first.end_s, more, losses, luck)
        )
    end_s = passes[-1].end_s
    wall_s = end_s + index_s
    useful_s = sum(p.useful_s for p in passes)
    between_s = end_s - plan_s
    places, _ = _places(fleet)
    return Run(
        wall_s=wall_s,
        plan_s=plan_s,
        index_s=index_s,
        useful_s=useful_s,
        wasted_s=sum(p.wasted_s for p in passes),
        efficiency=useful_s / (fleet.workers * wall_s),
        parent=min(1.0, files * costs.commit_s / between_s),
        storage=sum(p.read_s for p in passes) / (places * between_s) if places else 0.0,
        commit_wait_s=first.wait_s,
        longest_s=float(lengths_s.max()) * costs.compute_s + costs.file_s,
    )


def _fate(load: Load, luck: random.Random) -> str:
    drawn = luck.random()
    if drawn < load.hangs:
        return "hangs"
    return "crashes" if drawn < load.hangs + load.crashes else "well"


def _places(fleet: Fleet) -> tuple[int, float]:
    """How many read at once without waiting, and what each gets; 0: everyone."""
    if math.isinf(fleet.storage_bytes_s):
        return 0, fleet.connection_bytes_s
    if math.isinf(fleet.connection_bytes_s):
        return 1, fleet.storage_bytes_s
    places = max(1, math.floor(fleet.storage_bytes_s / fleet.connection_bytes_s))
    return places, fleet.storage_bytes_s / places


class _Losses:
    """When machines are lost, drawn as far as they are asked for."""

    def __init__(self, fleet: Fleet, luck: random.Random) -> None:
        self._mean_s, self._luck = fleet.node_life_h * HOUR_S, luck
        self._at_s: dict[int, list[float]] = {}

    def between(self, node: int, begin_s: float, end_s: float) -> float | None:
        """First loss of a machine after `begin_s` and up to `end_s`."""
        if math.isinf(self._mean_s):
            return None
        at_s = self._at_s.setdefault(node, [self._luck.expovariate(1 / self._mean_s)])
        while at_s[-1] <= end_s:
            at_s.append(at_s[-1] + self._luck.expovariate(1 / self._mean_s))
        first_s = at_s[bisect_right(at_s, begin_s)]
        return first_s if first_s <= end_s else None


def _play(
    costs: Costs,
    fleet: Fleet,
    load: Load,
    lengths_s: Floats,
    fates: list[str],
    begin_s: float,
    files: int,
    losses: _Losses,
    luck: random.Random,
) -> _Pass:
    """Play one pass through, from when all workers are ready; `files`: that there are in truth."""
    places, bytes_s = _places(fleet)
    free = [(begin_s, worker) for worker in range(min(fleet.workers, len(lengths_s)))]
    reading = [begin_s] * places
    waiting = list(enumerate(lengths_s.tolist()))[::-1]
    lost: list[tuple[float, int, float]] = []  # (from when, number, length)
    begins_s, ends_s = [], []
    useful_s = wasted_s = read_all_s = 0.0
    again: list[int] = []
    while waiting or lost:
        now_s, worker = free[0]
        if lost and (lost[0][0] <= now_s or not waiting):
            from_s, number, length_s = heapq.heappop(lost)
            now_s = max(now_s, from_s)
        else:
            number, length_s = waiting.pop()
        read_s = length_s * load.bits_s / 8 / bytes_s
        work_s = costs.row_s + costs.file_s + length_s * costs.compute_s
        ready_s, well = now_s, fates[number] == "well"
        if places:
            ready_s = max(now_s, reading[0])
            heapq.heapreplace(reading, ready_s + read_s)
        read_all_s += read_s
        if fates[number] == "hangs":
            work_s = load.hang_s
        elif fates[number] == "crashes":
            work_s *= luck.random()
        elif fleet.deaths_h:
            death_s = luck.expovariate(fleet.deaths_h / HOUR_S)
            well, work_s = death_s > work_s, min(death_s, work_s)
        end_s = ready_s + read_s + work_s
        restart_s = 0.0 if well else costs.start_s
        loss_s = losses.between(worker // fleet.node_workers, now_s, end_s)
        if loss_s is not None:
            heapq.heappush(lost, (loss_s, number, length_s))
            wasted_s += loss_s - now_s
            heapq.heapreplace(free, (loss_s + fleet.node_back_s, worker))
            continue
        if well:
            useful_s += read_s + work_s
        else:
            wasted_s += read_s + work_s + restart_s
            again.append(number)
        begins_s.append(now_s)
        ends_s.append(end_s)
        heapq.heapreplace(free, (end_s + restart_s, worker))
    # Of all of them, as if they were many: nobody waits for the last one's end, or for the first's.
    worked_s = sum(until_s for until_s, _ in free) / len(free) - begin_s
    behind_s = np.sort(begins_s) - begin_s + np.arange(len(begins_s), 0, -1) * costs.commit_s
    pace_s = max(worked_s, float(behind_s.max()))
    return _committed(
        np.sort(ends_s),
        costs.commit_s,
        files,
        pace_s,
        _Pass(0.0, useful_s, wasted_s, read_all_s, 0.0, tuple(again)),
    )


def _committed(ends_s: Floats, commit_s: float, files: int, pace_s: float, played: _Pass) -> _Pass:
    """Commit one by one, in the order of their ends; add the files that were not played through.

    Each that was played stands for as many of its length, which take `pace_s` each time.
    """
    numbers = np.arange(len(ends_s))
    begins_s = np.maximum.accumulate(ends_s - numbers * commit_s) + numbers * commit_s
    done_s = begins_s + commit_s
    times = files / len(ends_s)
    end_s = float(done_s[-1])
    if times > 1:
        end_s += (times - 1) * pace_s
    return replace(
        played,
        end_s=end_s,
        useful_s=played.useful_s * times,
        wasted_s=played.wasted_s * times,
        read_s=played.read_s * times,
        wait_s=float((begins_s - ends_s).mean()),
    )
