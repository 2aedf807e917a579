"""A Ray cluster of two nodes on this machine, in a process of its own, one of which can be killed.

python two_nodes.py CPUS: says the address, and on a line of input kills the node that no driver
joins, with its raylet and workers, by SIGKILL. Ends with its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all sockets on loopback
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_enable_worker_prestart": "0",
}
STORE_BYTES = 128 * 2**20
MEMORY_BYTES = 16 * 2**30  # that a node says it has


class TwoNodes:
    """The cluster, as a test sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in: IO[bytes] = process.stdin
        self._out: IO[bytes] = process.stdout
        self.address: str = json.loads(self._out.readline())["address"]

    def kill_one(self) -> list[int]:
        """Kill the second node; return the ids of its processes."""
        self._in.write(b"kill\n")
        self._in.flush()
        killed: list[int] = json.loads(self._out.readline())["killed"]
        return killed


@contextmanager
def two_nodes(folder: Path, cpus: int = 1) -> Iterator[TwoNodes]:
    """Have such a cluster while the block runs.

    Args:
        folder: for Ray's files; a short path.
        cpus: of each node.
    """
    with (folder / "two_nodes.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(cpus)],
            env=os.environ | ENVIRONMENT | {"RAY_TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        yield TwoNodes(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def family(pid: int) -> list[int]:
    """Name a process and those that it started, their own included (Linux)."""
    children = ""
    with suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # or one of its threads
                children += (thread / "children").read_text(encoding="ascii")
    return [pid, *(other for child in children.split() for other in family(int(child)))]


def main() -> None:
    """Serve one test."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cpus = int(sys.argv[1])

    from ray.cluster_utils import Cluster

    resources = {"num_cpus": cpus, "object_store_memory": STORE_BYTES, "memory": MEMORY_BYTES}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**resources, "include_dashboard": False},
    )
    second = cluster.add_node(**resources)
    cluster.wait_for_nodes()
    print(json.dumps({"address": cluster.address}), file=out, flush=True)
    for _ in sys.stdin:
        killed = family(second.all_processes["raylet"][0].process.pid)
        for pid in killed:
            with suppress(ProcessLookupError):  # the raylet's end has ended it
                os.kill(pid, signal.SIGKILL)
        print(json.dumps({"killed": killed}), file=out, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
