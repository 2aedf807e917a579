"""Kills at every moment: wherever it ends, the next run leaves what an undisturbed one would."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from maven.batch.ledger import Ledger, Outcome
from small_batch import OTHER, SETTINGS, batch, contents, items, write_clips

# Calls between which a kill can make a difference.
MOMENTS = {
    *("rename", "replace", "fsync", "unlink", "rmdir", "mkdir", "execute", "write", "close"),
    *("open", "write_table", "writerow", "flock", "scandir"),
}
KILLS, MOST_RUNS = 6, 200
TEXTS = {"a": "one", "b": "bad", "c": "three", "d": "hangs", "e": "five and more"}


def forked(run: Callable[[], object], kill_after_s: float | None = None) -> int:
    """Run it in a child; return the signal that ended it, 0 for none."""
    child = os.fork()
    if child == 0:
        try:
            run()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def profiled(moment: int, run: Callable[[], object]) -> int:
    """Run it until just before or after its n-th call of `MOMENTS`; return how many there were."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        if event in ("c_call", "c_return") and argument.__name__ in MOMENTS:
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


class Story:
    """A folder before, and a run on it that is disturbed."""

    def __init__(self, folder: Path) -> None:
        self.clips, self.before, self.out = (folder / n for n in ("clips", "before", "out"))
        write_clips(self.clips, TEXTS)
        self.before.mkdir()
        self.log = folder / "log"
        self.settings = SETTINGS

    def start(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(self.before, self.out)
        self.log.write_text("")

    def run(self) -> None:
        def did(outcome: dict[str, Any]) -> None:
            with self.log.open("a") as log:
                log.write(f"{outcome['id']} {outcome['state']}\n")

        batch(items(self.clips), self.out, self.settings, did=did)

    def outcomes(self) -> list[str]:
        return self.log.read_text().splitlines()


def first_run(folder: Path) -> Story:
    return Story(folder)


def later_run(folder: Path) -> Story:
    """Some done before, one of them changed, another now bad, one result gone."""
    story = Story(folder)
    batch(items(story.clips), story.before)
    (story.clips / "a").write_text("another one")
    (story.clips / "c").write_text("bad now")
    (story.clips / "f").write_text("new")
    return story


def other_settings(folder: Path) -> Story:
    """Results of these settings lie aside; those of others are where they belong."""
    story = Story(folder)
    batch(items(story.clips), story.before, OTHER, stop_after=3)
    batch(items(story.clips)[:2], story.before, SETTINGS)
    story.settings = OTHER
    return story


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("tell", [first_run, later_run, other_settings])
@pytest.mark.timeout(1200)  # of all moments
def test_killed_at_any_moment(tell: Callable[[Path], Story], folder: Path) -> None:
    story = tell(folder)
    story.start()
    story.run()  # what is imported only once is imported now
    story.start()
    moments: Sequence[int] = range(1, profiled(0, story.run) + 1)
    expected = contents(story.out)
    if "MAVEN_SOAK" not in os.environ:
        moments = sorted(random.Random(7).sample(moments, 10))
    for moment in moments:
        story.start()
        assert forked(partial(profiled, moment, story.run)) == signal.SIGKILL
        finished = story.outcomes()
        story.log.write_text("")
        story.run()
        assert contents(story.out) == expected, moment
        done = [line for line in finished if line.endswith("done")]
        assert not set(done) & set(story.outcomes()), moment  # nothing is done twice


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_again_and_again(folder: Path) -> None:
    story, chance = Story(folder), random.Random(11)
    for k in range(40):
        (story.clips / f"{k:03}").write_text(f"clip {k}" if k % 9 else f"bad {k}")
    story.start()
    began_s = time.monotonic()
    story.run()
    took_s = time.monotonic() - began_s
    expected = contents(story.out)
    story.start()
    kills = 0
    for _ in range(MOST_RUNS):
        if forked(story.run, chance.uniform(0, took_s / 3)):
            kills += 1
        else:  # it was done before it was killed
            story.start()
        if kills == KILLS:
            break
    assert kills == KILLS
    story.run()
    assert contents(story.out) == expected
    done = [line for line in story.outcomes() if line.endswith("done")]
    assert len(done) == len(set(done))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs to know what is synced")
def test_a_result_is_on_the_disk_before_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power loss may take is only what no row tells of."""
    story, safe, entries = Story(tmp_path), set[int](), set[Path]()
    real_fsync, real_put, rows = os.fsync, Ledger.put, 0

    def fsync(handle: int) -> None:
        real_fsync(handle)
        safe.add(os.fstat(handle).st_ino)
        opened = Path(f"/proc/self/fd/{handle}").resolve()
        if opened.is_dir():
            entries.update(opened.iterdir())

    def put(ledger: Ledger, key: str, id: str, place: str, outcome: Outcome) -> None:
        nonlocal rows
        if outcome.file is not None:
            path = story.out / place
            assert path.stat().st_ino in safe  # its content
            for name in (path, path.parent, path.parent.parent):  # and the names on the way
                assert name in entries
            rows += 1
        real_put(ledger, key, id, place, outcome)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Ledger, "put", put)
    story.run()
    assert rows == 3
