"""The simulated fleet against closed forms, and what the benches of batches are made of."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from benches import BENCH, benches
from demo_pieces import DEMO

FILES = 400
PROGRAMS = ("machine", "fleet", "packets", "predict", "stages", "batch", "costs", "foretell",
            "scale")  # fmt: skip


@pytest.fixture(scope="module")
def programs() -> Iterator[SimpleNamespace]:
    with benches(*PROGRAMS) as modules:
        yield modules


@pytest.fixture(scope="module")
def bench(programs: SimpleNamespace) -> Any:
    return programs.fleet


def equal(files: int, length_s: float = 100.0) -> np.ndarray[Any, Any]:
    return np.full(files, length_s)


def load(bench: SimpleNamespace, files: int, mean_s: float = 100.0, **others: Any) -> Any:
    return bench.Load(hours=files * mean_s / 3600, mean_s=mean_s, **others)


def test_one_worker_takes_the_sum_of_everything(bench: SimpleNamespace) -> None:
    costs = bench.Costs(0.2, file_s=0.5, row_s=0.1, start_s=3, plan_s=0.01, commit_s=0.02,
                        index_s=0.005)  # fmt: skip
    given = load(bench, FILES, bits_s=8e6)
    lengths_s = given.lengths_s(FILES, seed=3)
    fleet = bench.Fleet(1, connection_bytes_s=1e8)
    run = bench.play(costs, fleet, given, FILES, 0, lengths_s)
    each_s = 0.6 + lengths_s * 0.2 + lengths_s * 1e6 / 1e8
    expected_s = FILES * 0.015 + 3 + each_s.sum() + 0.02
    assert run.wall_s == pytest.approx(expected_s, rel=1e-12)
    assert run.efficiency == pytest.approx(each_s.sum() / expected_s, rel=1e-12)
    assert run.bottleneck == "cores"


@pytest.mark.parametrize("workers", [2, 7, 400, 1000])
def test_equal_files_without_limits_go_in_rounds(bench: SimpleNamespace, workers: int) -> None:
    run = bench.play(
        bench.Costs(0.1, start_s=2), bench.Fleet(workers), load(bench, FILES), FILES, 0,
        equal(FILES),
    )  # fmt: skip
    expected_s = 2 + math.ceil(FILES / workers) * 10
    assert run.wall_s == pytest.approx(expected_s, rel=1e-12)
    assert run.efficiency == pytest.approx(FILES * 10 / (workers * expected_s), rel=1e-12)


def test_a_slow_parent_bounds_the_pace(bench: SimpleNamespace) -> None:
    costs = bench.Costs(0.1, plan_s=0.1, commit_s=1.0, index_s=0.2)
    run = bench.play(costs, bench.Fleet(FILES), load(bench, FILES), FILES, 0, equal(FILES))
    assert run.wall_s == pytest.approx(FILES * 0.1 + 10 + FILES * 1.0 + FILES * 0.2, rel=1e-12)
    assert run.bottleneck == "commits"


@pytest.mark.parametrize("connections", [1, 5])
def test_a_slow_storage_bounds_the_pace(bench: SimpleNamespace, connections: int) -> None:
    given = load(bench, FILES, bits_s=8e6)  # 100 MB a file
    fleet = bench.Fleet(
        FILES, storage_bytes_s=1e8, connection_bytes_s=1e8 / connections
    )  # fmt: skip
    run = bench.play(bench.Costs(0.1), fleet, given, FILES, 0, equal(FILES))
    assert run.wall_s == pytest.approx(FILES * 1.0 + 10, rel=1e-9)
    assert run.storage == pytest.approx(FILES / (FILES + 10), rel=1e-9)
    assert run.bottleneck == "storage"


def test_throughput_keeps_within_the_bounds_of_closed_networks(bench: SimpleNamespace) -> None:
    """N workers at one storage: X <= min(N / (Z + D), 1 / D), >= N / (Z + N D)."""
    given = load(bench, 20_000, bits_s=8e5, largest_first=False)
    costs = bench.Costs(0.1)
    lengths_s = np.random.default_rng(0).exponential(100.0, 20_000)
    think_s, read_s = lengths_s.mean() * 0.1, lengths_s.mean() * 1e5 / 1e8
    for workers in (2, 20, 100, 300):
        fleet = bench.Fleet(workers, storage_bytes_s=1e8)
        run = bench.play(costs, fleet, given, 20_000, 0, lengths_s)
        pace = 20_000 / run.wall_s
        assert pace <= min(workers / (think_s + read_s), 1 / read_s) * 1.001
        assert pace >= workers / (think_s + workers * read_s) * 0.95


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_outcomes_wait_for_the_parent_as_in_an_m_d_1_queue(
    bench: SimpleNamespace, share: float
) -> None:
    """Files of exponential length end at random: mean wait = rho p / (2 (1 - rho))."""
    workers, files, mean_s = 200, 40_000, 10.0
    commit_s = share * mean_s / workers
    lengths_s = np.random.default_rng(1).exponential(mean_s, files)
    run = bench.play(
        bench.Costs(1.0, commit_s=commit_s), bench.Fleet(workers),
        load(bench, files, mean_s, largest_first=False), files, 0, lengths_s,
    )  # fmt: skip
    expected_s = share * commit_s / (2 * (1 - share))
    assert run.commit_wait_s == pytest.approx(expected_s, rel=0.1)


def test_the_smaller_fleet_stands_for_the_large_one(bench: SimpleNamespace) -> None:
    """Played through whole, and as `simulate` makes it smaller; commits and storage are busy."""
    costs = bench.Costs(0.15, 0.05, 0.01, 2.0, 1e-5, 8e-4, 1e-5)
    given = load(bench, 160_000, mean_s=100.0, sigma=0.3, hangs=1e-3, crashes=2e-3)
    fleet = bench.Fleet(4000, storage_bytes_s=1e10, connection_bytes_s=1e8)
    small = bench.simulate(costs, fleet, given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "SIMULATED", 1_000_000)
        whole = bench.simulate(costs, fleet, given)
    assert small.wall_s == pytest.approx(whole.wall_s, rel=0.03)
    assert small.efficiency == pytest.approx(whole.efficiency, rel=0.03)
    assert small.storage == pytest.approx(whole.storage, rel=0.05)


@pytest.mark.parametrize("largest_first", [True, False])
@pytest.mark.parametrize("limit", ["cores", "commits", "storage"])
def test_those_played_stand_for_those_that_are_not(
    bench: SimpleNamespace, limit: str, largest_first: bool
) -> None:
    costs = bench.Costs(0.15, 0.05, 0.01, 2.0, commit_s=0.2 if limit == "commits" else 0.0)
    bytes_s = 1e8 if limit == "storage" else 1e10
    fleet = bench.Fleet(150, storage_bytes_s=bytes_s, connection_bytes_s=1e8)
    given = load(bench, 80_000, bits_s=8e6, hangs=1e-3, largest_first=largest_first)
    whole, part = (
        bench.play(costs, fleet, given, 80_000, 0, given.lengths_s(count, seed=0))
        for count in (80_000, 10_000)
    )
    assert part.wall_s == pytest.approx(whole.wall_s, rel=0.01)
    assert part.efficiency == pytest.approx(whole.efficiency, rel=0.01)


def test_files_beyond_those_played_go_on_at_their_pace(bench: SimpleNamespace) -> None:
    costs, fleet = bench.Costs(0.15, commit_s=1e-3), bench.Fleet(10)
    short = bench.simulate(costs, fleet, load(bench, 40_000))
    long = bench.simulate(costs, fleet, load(bench, 4_000_000))
    assert long.wall_s == pytest.approx(100 * short.wall_s, rel=0.01)
    assert long.efficiency == pytest.approx(1.0, abs=0.01)


def test_what_hangs_and_crashes_is_done_twice_and_no_more(bench: SimpleNamespace) -> None:
    costs, fleet = bench.Costs(0.1, start_s=2.0), bench.Fleet(1)
    given = load(bench, FILES, hangs=1.0)
    run = bench.play(costs, fleet, given, FILES, 0, equal(FILES))
    assert run.wasted_s == pytest.approx(2 * FILES * (given.hang_s + 2.0))
    assert run.useful_s == 0
    crashing = replace(given, hangs=0.0, crashes=1.0)
    run = bench.play(costs, fleet, crashing, FILES, 0, equal(FILES))
    assert run.wasted_s == pytest.approx(2 * FILES * (10 / 2 + 2.0), rel=0.1)


def test_what_machines_lose_is_done_again_until_it_is_done(bench: SimpleNamespace) -> None:
    costs, given = bench.Costs(0.1, start_s=2.0), load(bench, 40_000)
    calm = bench.Fleet(40, node_workers=4)
    losing = replace(calm, node_life_h=0.5, node_back_s=60)
    dying = replace(calm, deaths_h=20.0)
    quiet, *rough = (
        bench.play(costs, fleet, given, 40_000, 0, equal(40_000)) for fleet in (calm, losing, dying)
    )
    assert quiet.wasted_s == 0
    assert rough[0].useful_s == pytest.approx(40_000 * 10)
    twice = (20 * 10 / 3600) ** 2  # of the files: their worker dies both times
    assert rough[1].useful_s == pytest.approx(40_000 * 10 * (1 - twice), rel=2e-3)
    for run in rough:
        assert run.wall_s > quiet.wall_s
        assert run.efficiency < quiet.efficiency
    # A worker's machine is lost every 1,800 s, and half a file with it.
    assert rough[0].wasted_s / (40 * rough[0].wall_s) == pytest.approx(10 / 2 / 1800, rel=0.4)


def test_equal_seeds_give_equal_runs(bench: SimpleNamespace) -> None:
    costs = bench.Costs(0.15, 0.05, 0.01, 2.0, 1e-4, 2e-3, 5e-5)
    fleet = bench.Fleet(500, storage_bytes_s=1e9, connection_bytes_s=1e8, node_life_h=100)
    given = bench.Load(1000, hangs=0.01, crashes=0.01)
    one, same, other = (bench.simulate(costs, fleet, given, seed) for seed in (1, 1, 2))
    assert one == same != other


def test_longest_files_first_shorten_the_end(bench: SimpleNamespace) -> None:
    costs, fleet = bench.Costs(0.15), bench.Fleet(100)
    given = bench.Load(1000)
    by_chance, sorted_ = (
        bench.simulate(costs, fleet, replace(given, largest_first=first)) for first in (False, True)
    )
    assert sorted_.wall_s < by_chance.wall_s
    assert sorted_.useful_s == pytest.approx(by_chance.useful_s)
    assert bench.simulate(costs, fleet, given) == sorted_  # as the command does it


def test_the_longest_first_keep_within_the_bound_of_graham(bench: SimpleNamespace) -> None:
    """Longest first takes at most 4/3 - 1/(3 m) of the best, which is no less than either bound."""
    given = load(bench, 120, sigma=1.2)
    lengths_s = given.lengths_s(120, seed=5)
    for workers in (3, 10, 30, 60):
        run = bench.play(bench.Costs(1.0), bench.Fleet(workers), given, 120, 0, lengths_s)
        best_s = max(lengths_s.sum() / workers, lengths_s.max())
        assert best_s <= run.wall_s * (1 + 1e-9)
        assert run.wall_s <= best_s * (4 / 3 - 1 / (3 * workers)) * (1 + 1e-9)


def test_the_second_pass_begins_with_the_longest_too(bench: SimpleNamespace) -> None:
    """All crash: both passes take the same lengths in the same order, on one worker or on many."""
    given = load(bench, 300, hangs=1.0, hang_s=50.0, bits_s=8e6)
    fleet = bench.Fleet(300, connection_bytes_s=1e8)
    lengths_s = given.lengths_s(300, seed=1)
    run = bench.play(bench.Costs(0.1), fleet, given, 300, 0, lengths_s)
    assert run.wall_s == pytest.approx(2 * (50 + lengths_s.max() / 100))


def test_parents_share_files_workers_and_storage(bench: SimpleNamespace) -> None:
    costs = bench.Costs(0.15, commit_s=0.2, plan_s=1e-3)
    given = bench.Load(100_000)
    one = bench.simulate(costs, bench.Fleet(4000), given)
    ten = bench.simulate(costs, bench.Fleet(4000, parents=10), given)
    assert one.bottleneck == "commits"
    assert ten.bottleneck == "cores"
    assert ten.plan_s == pytest.approx(one.plan_s / 10, rel=0.01)


def measured() -> dict[str, Any]:
    """What `scale.py` measures, made up."""
    worker = {"stages": {"decode": 0.05}, "compute_s": 0.15, "file_s": 0.1, "wall_s": 0.15}
    formats = ("256 px", "512 px", "720p", "1080p")
    engine = {"start_s": 1.0, "row_s": 0.02, "driver_s": 0.0}
    return {
        "workers": {form: worker | {"bits_s": 2.5e6} for form in formats},
        "attended": {
            "start_s": 0.5, "peaks_mb": dict.fromkeys(formats, 400.0), "result_bytes": 15e3,
            "result_bytes_s": 3e3,
        },
        "engines": {"local": engine, "ray": engine | {"driver_s": 0.01}},
        "parent": dict.fromkeys(("plan_s", "index_s", "again_s"), 1e-3)
        | {"commit_s": 0.01, "bytes": 2e3},
        "features": {"mini": 2e3},
    }  # fmt: skip


def test_the_command_prints_draws_and_fills_a_page(
    programs: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(programs.fleet, "SIMULATED", 2000)
    monkeypatch.setattr(programs.costs, "STAGES", {"decode": ()})
    given, page, picture = (tmp_path / name for name in ("given.json", "page.md", "scale.png"))
    record = tmp_path / "record.json"
    given.write_text(json.dumps({"measured": measured()}))
    page.write_text(
        "Before\n\n<!-- measured by bench/scale.py: Storage -->\nold\n<!-- end -->\nAfter"
    )
    monkeypatch.setattr(sys, "argv", [
        "scale.py", "--measured", str(given), "--json", str(record), "--picture", str(picture),
        "--into", str(page),
    ])  # fmt: skip
    programs.scale.main()
    printed = capsys.readouterr().out
    assert "nan" not in printed
    for way in programs.scale.WAYS:
        assert way in printed
    assert printed.count("| 100,000 |") >= 4
    text = page.read_text()
    assert "old" not in text
    assert text.startswith(
        "Before\n\n<!-- measured by bench/scale.py: Storage -->\n\n| hours of video"
    )
    assert text.endswith("11 PB | 22 PB | 108 TB | 72 TB | 60 GB |\n\n<!-- end -->\nAfter")
    assert picture.read_bytes().startswith(b"\x89PNG")
    content = json.loads(record.read_text())
    assert content["measured"] == measured()
    for name in content["tables"]:
        assert mark("bench/scale.py", name) in page_of_scale()


def test_a_report_goes_into_its_place_of_a_page(
    programs: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("1\n<!-- measured by bench/batch.py: maven batch -->\nold\n<!-- end -->\n2\n")
    report = programs.machine.Report("maven batch", None)
    report.table(r"60 clips, \1 s", ("engine", "time, s"))
    report.row(("local-1", 3.5), seconds=3.5)
    report.say("That is all.")
    for _ in range(2):  # the second time in the place of the first
        report.put_into(page)
    lines = page.read_text().splitlines()
    table = ["60 clips, \\1 s", "", "| engine | time, s |", "|---|---|", "| local-1 | 3.5 |"]
    mark = "<!-- measured by bench/batch.py: maven batch -->"
    assert lines == ["1", mark, "", *table, "", "That is all.", "", "<!-- end -->", "2"]
    assert "\n".join(table) in capsys.readouterr().out


def mark(program: str, name: str) -> str:
    return f"<!-- measured by {program}: {name} -->\n"


def page_of_scale() -> str:
    return (BENCH.parent / "docs" / "scale.md").read_text()


def test_the_record_of_a_batch_finds_its_clips_again(
    programs: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `--against` knew real clips by their names alone."""

    def run(inputs: Path, out: Path, *options: str) -> Any:
        out.mkdir()
        return programs.batch.Taken(2.0 if inputs.name == "clips" else 1.0, 5.0, 7.0)

    monkeypatch.setattr(programs.batch, "run", run)
    monkeypatch.chdir(DEMO.parent)
    (tmp_path / "clips").mkdir()
    made = programs.batch.pieces([Path(DEMO.name)], tmp_path / "clips", 2, 2.0)
    given = SimpleNamespace(configurations=("local-1",), runs=1)
    path = tmp_path / "record.json"
    report = programs.machine.Report("maven batch", path)
    programs.batch.side_by_side(report, tmp_path, made, given)
    programs.batch.dry_run(report, tmp_path, made[0].path, 3)
    report.close()
    record = json.loads(path.read_text())
    assert {clip[0] for clip in record["clips"]} == {str(DEMO)}
    assert record["dry_run_mb"] == 7.0  # of the command's processes, not of this one
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 4
    assert mark("bench/batch.py", "maven batch") in page_of_scale()


def test_pieces_are_long_enough_and_begin_at_zero(
    programs: SimpleNamespace, tmp_path: Path
) -> None:
    made = programs.batch.pieces([DEMO], tmp_path, 5, 2.0)
    assert len({piece.path for piece in made}) == 5
    for piece in made:
        with av.open(str(piece.path)) as container:
            times_s = [frame.time for frame in container.decode(video=0)]
            rate_hz = float(container.streams.video[0].average_rate)
        assert piece.length_s >= 2
        assert times_s[0] == pytest.approx(0, abs=0.1)
        assert len(times_s) == pytest.approx(piece.length_s * rate_hz, abs=2)
    with pytest.raises(ValueError, match="no clip is 5000 s long"):
        programs.batch.pieces([DEMO], tmp_path, 5, 5000.0)


def test_memory_and_processes_are_seen(programs: SimpleNamespace) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for _ in range(100):
            if children := programs.batch.family(process.pid)[1:]:
                break
            time.sleep(0.05)
        assert len(children) == 1
        assert 0.5 < programs.batch.memory_mb(children[0]) < 100
        process.stdin.write(b"\n")


def test_a_measured_run_is_foretold(
    programs: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six times the same piece: one worker takes six times as long as it alone, two three times."""
    rows = [
        {"configuration": name, "seconds": [11.0], "start_s": [1.0]}
        for name in ("local-1", "local-2", "ray-2")
    ]
    run = {"clips": [[str(DEMO), 0.0, 1.0, 1000]] * 6, "tables": {"6 clips, 6 s of video": rows}}
    path = tmp_path / "record.json"
    report = programs.machine.Report("Foretold", path)
    programs.foretell.foretell(report, run, programs.fleet.Costs(0.1))
    report.close()
    ((name, (one, two)),) = json.loads(path.read_text())["tables"].items()
    assert mark("bench/scale.py", name) in page_of_scale()
    assert one["measured_s"] == two["measured_s"] == 10
    assert one["foretold_s"] == pytest.approx(2 * two["foretold_s"])
    assert 0.05 < one["foretold_s"] / 6 < 5
