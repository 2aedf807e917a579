"""`maven live` on a file that stands in for a camera, as a real process and in this one."""

from __future__ import annotations

import csv
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from demo_pieces import DEMO, copy_piece
from maven.capture import CaptureError, Sources
from maven.media import AudioBlock, Frame
from maven.render.tables import COLUMNS
from maven.watching import LEFT_OUT, Inbox, joined

LIVE = "import typer; from maven.watching import live; typer.run(live)"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", LIVE, *map(str, arguments)]


def ran(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, check=False
    )


def test_a_file_is_watched_for_some_seconds_and_recorded(tmp_path: Path) -> None:
    done = ran("--camera", DEMO, "--seconds", "4", "--record", tmp_path / "trace.csv")
    assert (done.returncode, done.stderr) == (0, "")
    *said, summary, wrote = done.stdout.splitlines()
    assert 2 <= len(said) <= 4
    for each in said:
        assert re.match(r"0:0\d  valence .\d\.\d\d  arousal .\d\.\d\d  \w+ .* delay \d+ ms$", each)
    assert re.match(r"[4-6]\.\d s, \d+ answers, valence .* and arousal .* on average, ", summary)
    assert wrote == f"Wrote {tmp_path / 'trace.csv'}"
    with (tmp_path / "trace.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [name for name in COLUMNS if name not in LEFT_OUT]
    assert f" {len(rows)} answers" in summary
    times_s = np.array([float(row["time_s"]) for row in rows])
    assert min(np.diff(times_s)) == pytest.approx(0.1, abs=0.002)
    assert abs(times_s[0]) < 1
    assert times_s[-1] < 5
    assert sum(row["has_face"] == "True" for row in rows) > 0.7 * len(rows)
    assert any(row["has_speech"] == "True" for row in rows)
    assert [each.name for each in tmp_path.iterdir()] == ["trace.csv"]


def test_it_ends_with_the_file(tmp_path: Path) -> None:
    clip = copy_piece(tmp_path / "clip.mp4", 1.5)
    done = ran("--camera", clip, "--microphone", "none")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"face \d+%, speech 0%", done.stdout)


def test_ctrl_c_ends_it_with_a_summary(tmp_path: Path) -> None:
    record = tmp_path / "trace.csv"
    with subprocess.Popen(
        command("--camera", DEMO, "--record", record),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("0:01")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "answers, valence" in out
    assert len(record.read_text().splitlines()) > 5


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_picture(tmp_path: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with subprocess.Popen(
        command("--camera", DEMO, "--seconds", "1.5"),
        stdin=follower, stdout=follower, stderr=follower, env=environment,
    ) as process:  # fmt: skip
        os.close(follower)
        said = b""
        while process.poll() is None or select.select([leader], [], [], 0)[0]:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    said += os.read(leader, 65536)
                except OSError:  # the other end is closed
                    break
    os.close(leader)
    text = said.decode()
    assert process.returncode == 0
    for each in ("unpleasant", "Valence", "Voice", "no words live", "●", "answers, valence"):
        assert each in re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--camera", "nowhere.mp4"], 1, "the camera nowhere.mp4"),
        (["--camera", "7"], 1, "the camera 7 (/dev/video7) cannot be opened"),
        (["--seconds", "0"], 2, "--seconds: got 0"),
        (["--record", "no/such/folder.csv"], 2, "--record: cannot write"),
        (["--device", "tpu"], 2, "--device: got 'tpu'"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="names of Linux")
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], code: int, says: str) -> None:
    done = ran(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"maven: {says}")


def frame(k: int) -> Frame:
    return Frame(k, k / 30, np.zeros((2, 2, 3), np.uint8))


def block(k: int) -> AudioBlock:
    return AudioBlock(k / 10, np.zeros(1600, np.float32))


def waiting(pictures: Any = None, sound: Any = None) -> Inbox:
    return Inbox(Sources(pictures, sound, 0.0, ("test",)))


def test_the_newest_picture_and_a_second_of_sound_wait() -> None:
    inbox = waiting(map(frame, range(20)), map(block, range(25)))
    time.sleep(0.3)
    picture, sound = cast(Any, inbox.take(1.0))
    assert picture.index == 19
    assert [round(10 * each.start_s) for each in sound] == list(range(15, 25))
    assert inbox.left_out == 19
    assert inbox.take(1.0) is None


def test_sound_that_follows_on_itself_is_one_block() -> None:
    early, late = [block(k) for k in (3, 4, 5)], [block(9)]
    first, second = joined([*early, *late])
    assert (first.start_s, len(first.samples)) == (0.3, 4800)
    assert (second.start_s, len(second.samples)) == (0.9, 1600)
    assert list(joined([])) == []


def test_a_source_that_fails_is_noted_after_what_it_gave() -> None:
    def failing() -> Iterator[Frame]:
        yield frame(0)
        raise CaptureError("the camera 0 stopped")

    inbox = waiting(failing())
    time.sleep(0.2)
    assert str(inbox.fault) == "the camera 0 stopped"
    assert cast(Any, inbox.take(0.1))[0].index == 0


def test_nothing_yet_is_not_the_end() -> None:
    def slow() -> Iterator[Frame]:
        time.sleep(0.5)
        yield frame(0)

    inbox = waiting(slow())
    assert inbox.take(0.05) == (None, [])
    assert cast(Any, inbox.take(5.0))[0].index == 0
