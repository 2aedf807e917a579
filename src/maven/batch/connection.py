"""The connection with Ray, for `maven.batch.driver`: joined or started, and what its nodes hold."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from maven.batch.attendant import WorkerError
from maven.batch.local import LARGE_NEEDED_BYTES, NEEDED_BYTES, default_workers, groups
from maven.batch.seat import Place, packed, this_machine
from maven.batch.worker import Limits, uses_gpu
from maven.confine import cores

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
REACHED_WITHIN_S, JOINED_WITHIN_S = 10.0, 60.0
LEAST_STORE_BYTES, STORE_BYTES_PER_WORKER = 128 * 2**20, 32 * 2**20  # results on their way


def connected(opening: dict[str, Any], say: Callable[..., None]) -> tuple[Place, dict[str, float]]:
    """Connect with a Ray cluster, or with one started for this.

    Args:
        opening: what the parent process sends first.
        say: tells it that this hangs, where Ray would wait for ever.

    Returns:
        What seats are told; the resources of a seat.

    Raises:
        WorkerError: no Ray, no such cluster, or none of its nodes is large enough.
    """
    job, address, (work, temporary) = opening["job"], opening["address"], opening["folders"]
    limits = Limits(**opening["limits"])
    threads = job.get("threads") or 1
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
    if address is None:
        os.environ |= _own_environment()
    else:
        check_address(address)
    with _explained("Ray cannot be used"):
        import ray
    if address is None:
        _start(temporary, job, threads, opening["workers"])
    else:
        _join(address, say)
    gpu = _wants_gpu(job, ray.cluster_resources())
    resources = {"num_cpus": float(threads), "num_gpus": float(gpu)}
    resources["memory"] = float(needed_bytes(job))
    _check_nodes(resources, own=address is None)
    place = Place(job, limits, work, this_machine())
    folder = Path(job.get("model") or "")
    if address is not None and job.get("model") and folder.is_dir():
        content, content_hash = packed(folder)
        model = ray.put(content)
        place = Place(job, limits, work, place.machine, model, content_hash)
    return place, resources


def _own_environment() -> dict[str, str]:
    """Settings of a cluster that only this batch uses: no chatter, loopback only, a token."""
    return {
        # The name is about other systems; off, it keeps every socket of Ray on 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",  # others on this machine could run code in it otherwise
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_memory_monitor_refresh_ms": "0",  # workers have limits of their own
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        # What no one looks at, and costs a part of every core:
        "RAY_enable_metrics_collection": "0",
        "RAY_task_events_report_interval_ms": "0",
        "RAY_event_stats": "0",
        "RAY_enable_timeline": "0",
    }


def check_address(address: str) -> None:
    """Look whether somebody answers at an address of a cluster, which Ray would try for minutes.

    Raises:
        WorkerError: nobody does, or it is no address.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        accepted = 'accepted: "auto" or HOST:PORT of a cluster that this machine is a node of'
        raise WorkerError(f"{address}: no address of a Ray cluster; {accepted}")
    if host in LOOPBACK:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise WorkerError(f"{address}: no Ray cluster answers there ({error})") from error


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Make one line of whatever Ray raises."""
    try:
        yield
    except ImportError as error:
        needs = 'the engine ray needs Ray: pip install "maven[ray]"'
        raise WorkerError(f"{needs} ({error})") from error
    except WorkerError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WorkerError(f"{what}: {lines[0] if lines else type(error).__name__}") from error


def _start(temporary: str, job: dict[str, Any], threads: int, workers: int | None) -> None:
    """Start Ray on this machine, with room for as many workers as the engine local has."""
    import ray

    workers = workers or default_workers(job, len(groups(cores(), threads)))
    with _explained("Ray does not start"):
        ray.init(
            **_quiet(),
            num_cpus=workers * threads,
            include_dashboard=False,
            object_store_memory=LEAST_STORE_BYTES + workers * STORE_BYTES_PER_WORKER,
            _memory=workers * needed_bytes(job),
            _node_ip_address="127.0.0.1",
            _temp_dir=temporary,
        )


def _join(address: str, say: Callable[..., None]) -> None:
    import ray

    silent = f"{address}: no Ray cluster, or it did not answer within {JOINED_WITHIN_S:g} s"
    deadline = threading.Timer(JOINED_WITHIN_S, say, kwargs={"unfit": silent})
    deadline.daemon = True
    deadline.start()

    package = str(Path(__file__).resolve().parents[1])
    environment = {"py_modules": [package], "excludes": ["**/__pycache__"]}
    try:
        with _explained(f"{address}: cannot join the Ray cluster"):
            ray.init(address, **_quiet(), runtime_env=environment)
    finally:
        deadline.cancel()


def _quiet() -> dict[str, Any]:
    import logging

    return {"log_to_driver": False, "logging_level": logging.ERROR}


def needed_bytes(job: dict[str, Any]) -> int:
    """How much memory a worker is counted with when Ray looks for a place for it."""
    return NEEDED_BYTES if job.get("model", "mini") == "mini" else LARGE_NEEDED_BYTES


def _wants_gpu(job: dict[str, Any], there: dict[str, float]) -> bool:
    if str(job.get("device")).startswith("cuda"):
        return True
    return there.get("GPU", 0) >= 1 and uses_gpu(job)


def _check_nodes(resources: dict[str, float], own: bool) -> None:
    """Refuse to wait for ever where no node can hold a seat."""
    if not capacity(resources):
        import ray

        nodes = sum(node["Alive"] for node in ray.nodes())
        lack = "this machine lacks that" if own else f"none of the cluster's {nodes} nodes has that"
        raise WorkerError(f"a worker needs {needs(resources)}; {lack}")


def needs(resources: dict[str, float]) -> str:
    """Say in words what a seat needs."""
    cores_needed, memory_bytes = resources["num_cpus"], resources["memory"]
    gpu = ", a GPU" if resources.get("num_gpus") else ""
    return f"{cores_needed:g} cores, {memory_bytes / 2**30:.1f} GiB{gpu}"


def capacity(resources: dict[str, float]) -> int:
    """Count the seats that the cluster has room for."""
    import ray

    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    wanted = {names[name]: amount for name, amount in resources.items() if amount}
    return sum(
        min(int(node["Resources"].get(name, 0) // amount) for name, amount in wanted.items())
        for node in ray.nodes()
        if node["Alive"]
    )
