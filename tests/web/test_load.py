"""Several uploads at once: all finish, memory and answers stay within bounds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from demo_pieces import copy_piece
from served import Server, serving

UPLOADS = 4
MEMORY_BYTES = 3 * 2**30
ANSWER_S = 0.2  # the aim, at the 95th percentile; bench/serve.py measures it
BUSY = 3.0  # times as long where other tests run beside


def memory_bytes(server: Server) -> int:
    """Memory of a server and of its workers (proportional sets: shared pages count once)."""
    assert server.process is not None
    total, waiting = 0, [server.process.pid]
    while waiting:
        pid = waiting.pop()
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:  # it has just ended
            continue
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="looks at processes")
def test_uploads_at_once_all_finish_and_the_page_answers_meanwhile(tmp_path: Path) -> None:
    piece = copy_piece(tmp_path / "piece.mp4", 2.0)
    with serving(tmp_path / "data", "--workers", "2") as server:
        with ThreadPoolExecutor(UPLOADS) as pool:
            sent = list(pool.map(lambda k: server.send(piece, f"{k}.mp4"), range(UPLOADS)))
        assert [answer.status for answer in sent] == [201] * UPLOADS
        took_s, most_bytes = [], 0
        while True:
            began = time.monotonic()
            clips = server.get("/api/clips").json["clips"]
            took_s.append(time.monotonic() - began)
            most_bytes = max(most_bytes, memory_bytes(server))
            if not any(clip["state"] in ("queued", "running") for clip in clips):
                break
            time.sleep(0.05)
        assert {(clip["state"], clip["error"]) for clip in clips} == {("done", None)}
        assert {clip["name"] for clip in clips} == {f"{k}.mp4" for k in range(UPLOADS)}
        assert most_bytes < MEMORY_BYTES
        assert np.percentile(took_s, 95) < BUSY * ANSWER_S
