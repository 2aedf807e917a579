"""`maven batch` as a user types it: real clips, real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from commands import Outcome, Run, runner
from demo_pieces import copy_piece
from maven.batch.run import Progress
from maven.batch.state import Counts
from maven.batching import clock, described, later, line
from maven.render import tables
from soak_batch import differences, fingerprint, left_over
from soak_kills import kills

QUICK = ("--asr", "none", "--rate", "5", "--workers", "2")


@pytest.fixture
def maven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pieces of the demo clip, one below another folder, one with words beside."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "below").mkdir()
    for number, name in enumerate(("a.mp4", "b.mp4", "below/a.mp4", "c.mp4")):
        copy_piece(folder / name, 0.5 + 0.2 * number)
    (folder / "b.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwhat a day\n")
    return folder


@pytest.fixture(scope="module")
def calm(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed batch leaves."""
    out = tmp_path_factory.mktemp("calm") / "out"
    ran = subprocess.run(command(clips, out), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return out


def command(clips: Path, out: Path) -> list[str]:
    begin = [sys.executable, "-m", "maven.cli", "batch", str(clips), "-o", str(out)]
    return [*begin, *QUICK]


def index(out: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in parquet.read_table(out / "index.parquet").to_pylist()}


def test_a_folder_becomes_a_data_set(clips: Path, calm: Path, maven: Run) -> None:
    rows = index(calm)
    assert list(rows) == ["a.mp4", "b.mp4", "c.mp4", "below/a.mp4"]
    assert {row["state"] for row in rows.values()} == {"done"}
    assert rows["b.mp4"]["words_share"] > 0
    assert left_over(calm) == []
    table = parquet.read_table(calm / "results").to_pandas()
    assert table.groupby("id").size().to_dict() == {k: row["rows"] for k, row in rows.items()}
    assert "below/a.mp4" in (calm / "index.html").read_text(encoding="utf-8")

    alone = maven("predict", clips / "b.mp4", "--asr", "none", "--rate", 5, "-o", "alone",
                  "--threads", 1, "--format", "parquet")  # fmt: skip
    assert alone.code == 0, alone.err
    expected = tables.read(Path("alone/b.parquet"))
    found = table[table.id == "b.mp4"].drop(columns=["id", "part"]).reset_index(drop=True)
    assert tables.conform(found).equals(expected)


def test_again_there_is_nothing_to_do(clips: Path, calm: Path, maven: Run) -> None:
    before = fingerprint(calm)
    for options in ((), ("--dry-run",)):
        ran = maven("batch", clips, "-o", calm, *QUICK, *options)
        assert ran.code == 0, ran.err
        assert ": 4 files: 0 to do, 4 done already" in ran.out
    assert fingerprint(calm) == before


def test_a_manifest_names_parts_words_and_what_is_not_there(clips: Path, maven: Run) -> None:
    Path("list.csv").write_text(
        "path,id,transcript,start,end\n"
        f"{clips / 'c.mp4'},part,{clips / 'b.srt'},0.3,0.8\n"
        f"{clips / 'gone.mp4'},gone,,,\n"
        f"{clips / 'b.srt'},text,,,\n"
    )
    ran = maven("batch", "list.csv", "-o", "out", *QUICK)
    assert ran.code == 1
    rows = index(Path("out"))
    assert [(k, row["state"]) for k, row in rows.items()] == [
        ("part", "done"), ("gone", "failed"), ("text", "failed"),
    ]  # fmt: skip
    table = parquet.read_table(Path("out") / str(rows["part"]["result"])).to_pandas()
    assert table.time_s.between(0.3, 0.8, inclusive="left").all()
    assert table.has_text.any()
    assert "gone.mp4" in str(rows["gone"]["error"])
    assert "not a media file" in str(rows["text"]["error"])
    assert ran.err.splitlines()[-1] == "maven: 2 of 3 files failed: out/errors.csv"


def test_killed_again_and_again_it_ends_the_same(clips: Path, tmp_path: Path) -> None:
    found = kills(clips, tmp_path, 4, 1, QUICK)
    assert all(line.good for line in found), found


def test_a_polite_end_keeps_what_is_done(clips: Path, calm: Path, tmp_path: Path) -> None:
    out, more = tmp_path / "out", tmp_path / "more"
    more.mkdir()
    for number in range(20):  # so many that it is not done before the signal comes
        (more / f"{number}.mp4").hardlink_to(clips / "c.mp4")
    line = [*command(clips, out), str(more)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end_s = time.monotonic() + 60
    while len(list(out.glob("results/*/*.parquet"))) < 2 and time.monotonic() < end_s:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("maven: stopped; what is finished is kept")
    done = [out / str(row["result"]) for row in index(out).values() if row["state"] == "done"]
    assert 1 <= len(done) < 24
    written = [path.stat().st_mtime_ns for path in done]
    subprocess.run(command(clips, out), capture_output=True, check=True)
    assert [path.stat().st_mtime_ns for path in done] == written
    expected = fingerprint(calm)
    assert not expected.keys() & differences(fingerprint(out), expected)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "nothing"),
        (["here", "--engine", "spark"], "--engine: got 'spark'; accepted: local, ray"),
        (["here", "--workers", "0"], "--workers: got 0"),
        (["here", "--threads", "0"], "--threads: got 0"),
        (["here", "--address", "auto"], "--address: of a Ray cluster"),
        (["here", "--faces", "none"], "--faces: got 'none'"),
        (["here", "--rate", "-1"], "--rate: got '-1'"),
        (["here", "--memory-limit", "0.1"], "--memory-limit: got 0.1"),
        (["here", "--time-limit", "0"], "--time-limit: got 0"),
        (["here"], "names no media file"),
        (["list.csv"], "path"),
    ],
)
def test_what_is_refused_at_once(maven: Run, arguments: list[str], says: str) -> None:
    Path("here").mkdir()
    Path("list.csv").write_text("file,name\na.mp4,a\n")
    ran: Outcome = maven("batch", *arguments, "-o", "out", "--asr", "none")
    assert ran.code == 2
    assert says in ran.message
    assert not Path("out").exists()


def test_a_model_that_is_not_there(maven: Run, clips: Path) -> None:
    ran = maven("batch", clips, "-o", "out", "--model", "nowhere", "--asr", "none")
    assert ran.code == 1
    assert "no model named nowhere" in ran.message
    assert not Path("out").exists()


def test_what_is_refused_later_leaves_no_folder(maven: Run, clips: Path) -> None:
    Path("list.csv").write_text(f"path,id\n{clips / 'a.mp4'},x\n{clips / 'b.mp4'},x\n")
    for arguments in (["list.csv"], [clips, "--device", "cuda:7"]):
        ran = maven("batch", *arguments, "-o", "out", "--asr", "none")
        assert ran.code == 1
        assert ran.message
        assert not Path("out").exists()


def test_workers_are_told_everything(
    maven: Run, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def engine_for(engine: str, job: dict[str, Any], *options: Any) -> None:
        told.extend((dict(job), options[-1]))
        raise KeyboardInterrupt

    monkeypatch.setattr("maven.batching.engine_for", engine_for)
    maven("batch", clips, "-o", "out", "--asr", "none", "--memory-limit", "1.5")
    job, limits = told
    assert job["asr"] == "none"
    assert limits == {"memory_bytes": 3 * 2**29, "time_s": None}


def test_plans_and_progress_in_words() -> None:
    counts = Counts(new=1200, failed=2, done=30, problems=1)
    assert described(counts) == (
        "1,233 files: 1,202 to do (1,200 new, 2 failed before, 1 that cannot be read),"
        " 30 done already"
    )
    progress = Progress(30, 2, 1200, 600.0, 60.0, 4000.0)
    assert line(progress) == (
        "1:06:40 left, 30 of 1,200, 2 failed, 30.0 files a minute, 10.0 x real time"
    )
    assert line(later(progress, 60.0)).startswith("1:05:40 left, 30 of 1,200, 2 failed, 15.0 files")
    assert line(later(replace(progress, left_s=5.0), 60.0)).startswith("0:00:01 left")
    assert clock(59.6) == "0:01:00"


def test_a_file_that_became_another_and_fails_loses_its_result(maven: Run, clips: Path) -> None:
    Path("here").mkdir()
    media = Path("here/a.mp4")
    media.write_bytes((clips / "a.mp4").read_bytes())
    assert maven("batch", "here", "-o", "out", *QUICK).code == 0
    result = Path("out") / str(index(Path("out"))["a.mp4"]["result"])
    media.write_bytes(bytes(media.stat().st_size))  # of the same size
    assert maven("batch", "here", "-o", "out", *QUICK).code == 1
    assert not result.exists()
    row = index(Path("out"))["a.mp4"]
    assert (row["state"], row["result"]) == ("failed", None)
