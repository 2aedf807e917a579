"""The line of work, with workers that are scripts of a few lines."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from maven.web import jobs as module
from maven.web.jobs import Jobs, NotEndedError, Options, StateError
from maven.web.shelf import Clip, NoClipError, Shelf, new_id
from served import has_ended, wait_until

SETTINGS = {"faces": "main", "asr": "none", "transcript": None}
SAY = "import json, os, sys, time\ndef say(**m): print(json.dumps(m), flush=True)\n"
DONE = "open('results.csv', 'w').close(); say(files=['csv'])"
FOREVER = "say(stage='faces', progress=0.25); open('view.json', 'w').close(); time.sleep(600)"

Serve = Callable[..., tuple[Shelf, Jobs]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start jobs whose workers run a script in the clip's folder."""
    made: list[tuple[Shelf, Jobs]] = []

    def start(script: str, workers: int = 1) -> tuple[Shelf, Jobs]:
        def run(folder: Path, threads: int) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-S", "-c", SAY + script], cwd=folder, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip

        monkeypatch.setattr(module, "start", run)
        shelf = Shelf(tmp_path / "data")
        jobs = Jobs(shelf, Options(workers=workers))
        made.append((shelf, jobs))
        jobs.start()
        return shelf, jobs

    yield start
    for shelf, jobs in made:
        jobs.close()
        shelf.close()


def put(shelf: Shelf, jobs: Jobs) -> Clip:
    clip_id = new_id()
    (shelf.clips_folder / clip_id).mkdir()
    (shelf.clips_folder / clip_id / "upload").write_bytes(b"media")
    clip = shelf.add(clip_id, "clip.mp4", 5, SETTINGS)
    jobs.wake()
    return clip


def until(shelf: Shelf, clip: Clip, *states: str) -> Clip:
    wait_until(lambda: shelf.clip(clip.id).state in states, lambda: shelf.clip(clip.id))
    return shelf.clip(clip.id)


def left(shelf: Shelf, clip: Clip) -> list[str]:
    return sorted(path.name for path in shelf.folder(clip.id).iterdir())


def running(shelf: Shelf, clip: Clip) -> None:
    wait_until(lambda: shelf.clip(clip.id).progress == 0.25)


def test_what_a_worker_says_is_what_the_clip_shows(serve: Serve) -> None:
    shelf, jobs = serve(
        "say(stage='checking', progress=0.0); say(length_s=12.5)\n"
        "say(stage='faces', progress=0.5)\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n" + DONE
    )
    clip = put(shelf, jobs)
    wait_until(lambda: shelf.clip(clip.id).progress == 0.5)
    seen = shelf.clip(clip.id)
    assert (seen.state, seen.stage, seen.length_s) == ("running", "faces", 12.5)
    (shelf.folder(clip.id) / "go").touch()
    seen = until(shelf, clip, "done")
    assert (seen.stage, seen.progress, seen.files, seen.error) == (None, 1.0, ("csv",), None)
    assert "results.csv" in left(shelf, clip)
    with pytest.raises(StateError, match="it is done: there is nothing to cancel"):
        jobs.cancel(clip.id)
    with pytest.raises(StateError, match="it is done; accepted: failed or cancelled"):
        jobs.again(clip.id)


def test_clips_go_in_turn_and_as_many_at_once_as_there_are_workers(serve: Serve) -> None:
    shelf, jobs = serve(FOREVER, workers=2)
    clips = [put(shelf, jobs) for _ in range(4)]
    for clip in clips[:2]:
        running(shelf, clip)
    assert [shelf.clip(c.id).state for c in clips] == ["running", "running", "queued", "queued"]
    jobs.cancel(clips[0].id)
    running(shelf, clips[2])


def test_cancel_leaves_the_upload_alone_and_again_starts_anew(serve: Serve) -> None:
    shelf, jobs = serve(FOREVER)
    clip, waiting = put(shelf, jobs), put(shelf, jobs)
    running(shelf, clip)
    jobs.cancel(waiting.id)
    assert shelf.clip(waiting.id).state == "cancelled"
    jobs.cancel(clip.id)
    seen = shelf.clip(clip.id)
    assert (seen.state, seen.stage, seen.progress) == ("cancelled", None, None)
    assert left(shelf, clip) == ["settings.json", "upload"]
    jobs.again(clip.id)
    running(shelf, clip)
    assert shelf.clip(clip.id).state == "running"


def test_a_kill_reaches_what_the_worker_started(serve: Serve, tmp_path: Path) -> None:
    child = tmp_path / "child"
    shelf, jobs = serve(
        f"import subprocess\np = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid)); {FOREVER}"
    )
    clip = put(shelf, jobs)
    running(shelf, clip)
    jobs.delete(clip.id)
    wait_until(lambda: has_ended(int(child.read_text())))


@pytest.mark.parametrize("at", ["waiting", "running", "done"])
def test_delete_takes_all_at_any_time(serve: Serve, at: str) -> None:
    shelf, jobs = serve(DONE if at == "done" else FOREVER)
    clip = put(shelf, jobs)
    other = put(shelf, jobs)
    until(shelf, clip, "done") if at == "done" else running(shelf, clip)
    gone = other if at == "waiting" else clip
    jobs.delete(gone.id)
    assert [c.id for c in shelf.clips()] == [({clip.id, other.id} - {gone.id}).pop()]
    assert gone.id not in {path.name for path in shelf.clips_folder.iterdir()}
    with pytest.raises(NoClipError):
        jobs.delete(gone.id)


@pytest.mark.parametrize(
    ("script", "error", "files"),
    [
        ("open('view.json', 'w').close(); say(error='cut off', spoiled=False)", "cut off",
         ["settings.json", "upload"]),
        ("say(error='a picture', spoiled=True)", "a picture", None),
        ("open('view.json', 'w').close(); os.abort()", "crashed", ["settings.json", "upload"]),
        ("os.kill(os.getpid(), 9)", "more time or memory", ["settings.json", "upload"]),
    ],
)  # fmt: skip
def test_failures_are_told_and_tidied(
    serve: Serve, script: str, error: str, files: list[str] | None
) -> None:
    shelf, jobs = serve(script)
    clip = put(shelf, jobs)
    seen = until(shelf, clip, "failed")
    assert error in (seen.error or "")
    if files is not None:
        assert left(shelf, clip) == files
        return
    assert list(shelf.clips_folder.iterdir()) == []
    with pytest.raises(StateError, match="its upload is gone"):
        jobs.again(clip.id)


def test_what_never_ends_is_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKED_WITHIN_S", 0.5)
    shelf, jobs = serve("time.sleep(600)")
    clip = put(shelf, jobs)
    assert "time" in (until(shelf, clip, "failed").error or "")


def test_a_worker_that_talks_nonsense_does_not_stop_the_line(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    shelf, jobs = serve("print('{', flush=True)")
    for clip in (put(shelf, jobs), put(shelf, jobs)):
        assert "crashed" in (until(shelf, clip, "failed").error or "")
    assert "JSONDecodeError" in capfd.readouterr().err


def test_a_worker_that_ends_within_a_line_has_crashed(serve: Serve) -> None:
    shelf, jobs = serve("""print('{"files": ["cs', end='', flush=True)""")
    assert "crashed" in (until(shelf, put(shelf, jobs), "failed").error or "")


def test_an_overlay_is_made_and_made_again(serve: Serve) -> None:
    shelf, jobs = serve(
        "task = json.load(open('settings.json'))\n"
        "if task['task'] == 'analysis':\n"
        f"  {DONE}\n"
        "else:\n"
        "  open('overlay.mp4', 'w').write(str(task['blur'])); say(progress=0.25)\n"
        "  if task['blur']: time.sleep(600)\n"
        "  say(files=['overlay'])"
    )
    clip = put(shelf, jobs)
    until(shelf, clip, "done")
    jobs.overlay(clip.id, blur=False)
    wait_until(lambda: shelf.clip(clip.id).overlay_state == "done")
    assert (shelf.folder(clip.id) / "overlay.mp4").read_text() == "False"
    assert shelf.clip(clip.id).files == ("csv",)

    jobs.overlay(clip.id, blur=True)
    wait_until(lambda: shelf.clip(clip.id).overlay_progress == 0.25)
    with pytest.raises(StateError, match="being made already"):
        jobs.overlay(clip.id, blur=True)
    jobs.cancel(clip.id)
    seen = shelf.clip(clip.id)
    assert (seen.state, seen.overlay_state) == ("done", "none")
    assert left(shelf, clip) == ["results.csv", "settings.json", "upload"]


def test_an_overlay_of_what_is_not_done_is_refused(serve: Serve) -> None:
    shelf, jobs = serve(FOREVER)
    clip = put(shelf, jobs)
    running(shelf, clip)
    with pytest.raises(StateError, match="it is running; accepted: done"):
        jobs.overlay(clip.id, blur=False)


def test_closing_ends_workers_and_the_next_start_goes_on(serve: Serve) -> None:
    shelf, jobs = serve(FOREVER)
    clip = put(shelf, jobs)
    running(shelf, clip)
    began = time.monotonic()
    jobs.close()
    assert time.monotonic() - began < 5
    assert shelf.clip(clip.id).state == "running"
    shelf.close()
    again, _ = serve(DONE)
    assert until(again, clip, "done").files == ("csv",)


def test_an_overlay_that_fails_never_takes_the_clip_with_it(serve: Serve) -> None:
    shelf, jobs = serve(
        f"if os.path.exists('results.csv'): say(error='cut off', spoiled=True)\nelse: {DONE}"
    )
    clip = put(shelf, jobs)
    until(shelf, clip, "done")
    jobs.overlay(clip.id, blur=False)
    wait_until(lambda: shelf.clip(clip.id).overlay_state == "failed")
    assert {"results.csv", "upload"} <= set(left(shelf, clip))


def test_a_database_that_fails_for_a_while_does_not_stop_the_line(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    asked: list[int] = []
    first = Shelf.first

    def failing(shelf: Shelf) -> object:
        asked.append(1)
        if len(asked) < 4:
            raise sqlite3.OperationalError("database or disk is full")
        return first(shelf)

    monkeypatch.setattr(Shelf, "first", failing)
    shelf, jobs = serve(DONE)
    until(shelf, put(shelf, jobs), "done")
    assert capfd.readouterr().err.count("OperationalError: database or disk is full") == 1


@pytest.mark.parametrize("script", [DONE, "print('{', flush=True)"])
def test_what_became_of_a_clip_waits_for_a_database_that_fails(
    script: str, serve: Serve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    change, asked = Shelf.change, list[int]()

    def failing(shelf: Shelf, clip_id: str, only_if: str = "TRUE", **values: Any) -> bool:
        if values["state"] != "running" and len(asked) < 3:
            asked.append(1)
            raise sqlite3.OperationalError("database or disk is full")
        return change(shelf, clip_id, only_if, **values)

    monkeypatch.setattr(Shelf, "change", failing)
    shelf, jobs = serve(script)
    seen = until(shelf, put(shelf, jobs), "done", "failed")
    assert seen.state == ("done" if script == DONE else "failed")
    assert capfd.readouterr().err.count("OperationalError: database or disk is full") == 1


def test_a_database_that_fails_to_the_end_does_not_hold_the_server_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, asked = Shelf.change, Event()

    def failing(shelf: Shelf, clip_id: str, only_if: str = "TRUE", **values: Any) -> bool:
        if values.get("state") != "done":
            return change(shelf, clip_id, only_if, **values)
        asked.set()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(module, "RETRY_S", 600.0)
    monkeypatch.setattr(Shelf, "change", failing)
    monkeypatch.setattr(module, "ENDED_WITHIN_S", 0.05)
    shelf, jobs = serve(DONE)
    clip = put(shelf, jobs)
    assert asked.wait(60)
    for end in (jobs.cancel, jobs.delete):
        with pytest.raises(NotEndedError, match="it does not end yet"):
            end(clip.id)
    jobs.close()
    assert not any(thread.is_alive() for thread in jobs._threads)
