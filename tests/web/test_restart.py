"""The server is killed in the middle of a job and started again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from demo_pieces import copy_piece
from served import serving, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes")


def workers(folder: Path) -> list[int]:
    """Processes that work in a folder's clips."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if b"maven.web.worker" in command and os.fsencode(folder) in command:
                found.append(int(process.name))
    return found


def test_a_kill_in_the_middle_of_a_job_loses_nothing(tmp_path: Path) -> None:
    short, long = copy_piece(tmp_path / "short.mp4", 1.5), copy_piece(tmp_path / "long.mp4", 6.0)
    with serving(tmp_path / "data") as server:
        done = server.send(short).json["id"]
        server.finished(done)
        csv = server.get(f"/api/clips/{done}/files/csv").body
        working = server.send(long).json["id"]
        waiting = server.send(short, "waiting.mp4").json["id"]
        server.until(working, lambda clip: clip["stage"] == "faces")
        assert len(workers(server.folder)) == 1

        server.kill()
        wait_until(lambda: workers(server.folder) == [])

        (server.folder / "clips" / "orphan").mkdir()
        server.start()
        assert server.clip(done)["state"] == "done"
        assert server.get(f"/api/clips/{done}/files/csv").body == csv
        for clip in (working, waiting):
            finished = server.finished(clip)
            assert (finished["state"], finished["error"]) == ("done", None)
        assert server.clip(working)["name"] == "long.mp4"
        assert not (server.folder / "clips" / "orphan").exists()
        for clip in (done, working, waiting):
            assert server.ask("DELETE", f"/api/clips/{clip}").status == 204
        assert server.files() == []
        assert server.stop() == 0
