"""The process that speaks with Ray, for `maven.batch.cluster`: one Ray Data stream of tasks.

Ray writes to its driver's terminal from C++, takes over its signals and leaves processes when it
is killed; in a process of its own all that stays away from the user's. Standard input brings
what to do, one JSON object a line, and its end means that the batch has ended, in whatever way.
Standard output: JSON lines; after {"outcome", "bytes"} as many bytes of the result.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maven.batch.attendant import WorkerError
from maven.batch.feed import feed_class, source_class
from maven.batch.local import LARGE_NEEDED_BYTES, NEEDED_BYTES, cores, default_workers, groups
from maven.batch.seat import ABOUT, Place, Seat, packed, this_machine
from maven.batch.worker import Limits

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
REACHED_WITHIN_S = 10.0
SHUT_DOWN_WITHIN_S, TIDIED_WITHIN_S = 8.0, 5.0
FAILURES = 3  # of the stream, one after the other without an outcome between
LEAST_STORE_BYTES, STORE_BYTES_PER_WORKER = 128 * 2**20, 32 * 2**20  # results on their way


def main() -> None:
    """Serve until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    voice = Voice(out)
    opening = json.loads(sys.stdin.readline())
    stream = Stream(opening["workers"], voice)
    hearing = threading.Thread(target=_hear, args=(stream, opening["folders"]), daemon=True)
    hearing.start()
    try:
        stream.serve(*connected(opening))
    except WorkerError as error:
        voice.say(unfit=" ".join(str(error).split()))
    except Exception as error:  # at the end too, when Ray is gone already
        traceback.print_exc()
        voice.say(unfit=f"Ray has failed: {type(error).__name__}: {' '.join(str(error).split())}")
    hearing.join()  # it tidies up


def _hear(stream: Stream, folders: list[str]) -> None:
    """Take in tasks; at the end of input leave, whatever else is done, with nothing left behind."""
    for line in sys.stdin:
        stream.add(json.loads(line).get("task"))
    ending = threading.Thread(target=_shut_down, daemon=True)
    ending.start()
    ending.join(SHUT_DOWN_WITHIN_S)
    end_s = time.monotonic() + TIDIED_WITHIN_S
    while time.monotonic() < end_s and any(os.path.lexists(folder) for folder in folders):
        for folder in folders:  # what has not ended yet may write into it
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)
    os._exit(0)


def _shut_down() -> None:
    with contextlib.suppress(Exception):
        import ray

        ray.shutdown()


class Voice:
    """Standard output, spoken into whole messages at a time."""

    def __init__(self, out: Any) -> None:
        self._out = out

    def say(self, content: bytes = b"", **message: Any) -> None:
        """Tell the parent something; nothing where it has gone."""
        with contextlib.suppress(BrokenPipeError):
            self._out.write(json.dumps(message).encode() + b"\n" + content)
            self._out.flush()


def connected(opening: dict[str, Any]) -> tuple[Place, dict[str, float]]:
    """Connect with a Ray cluster, or with one started for this.

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
        _join(address)
    gpu = _wants_gpu(job, ray.cluster_resources())
    resources = {"num_cpus": float(threads), "num_gpus": float(gpu)}
    resources["memory"] = float(needed_bytes(job))
    if address is not None:
        _check_nodes(resources)
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


def _join(address: str) -> None:
    import ray

    package = str(Path(__file__).resolve().parents[1])
    environment = {"py_modules": [package], "excludes": ["**/__pycache__"]}
    with _explained(f"{address}: cannot join the Ray cluster"):
        ray.init(address, **_quiet(), runtime_env=environment)


def _quiet() -> dict[str, Any]:
    import logging

    return {"log_to_driver": False, "logging_level": logging.ERROR}


def needed_bytes(job: dict[str, Any]) -> int:
    """How much memory a worker is counted with when Ray looks for a place for it."""
    return NEEDED_BYTES if job.get("model", "mini") == "mini" else LARGE_NEEDED_BYTES


def _wants_gpu(job: dict[str, Any], there: dict[str, float]) -> bool:
    device = str(job.get("device") or "cpu")
    return device.startswith("cuda") or (device == "auto" and there.get("GPU", 0) >= 1)


def _check_nodes(resources: dict[str, float]) -> None:
    """Refuse to wait for ever where no node can hold a seat."""
    if not _capacity(resources):
        import ray

        nodes = sum(node["Alive"] for node in ray.nodes())
        needs = f"{resources['num_cpus']:g} cores, {resources['memory'] / 2**30:.1f} GiB"
        if resources["num_gpus"]:
            needs += ", a GPU"
        raise WorkerError(f"a worker needs {needs}; none of the cluster's {nodes} nodes has that")


def _capacity(resources: dict[str, float]) -> int:
    """Count the seats that the cluster has room for."""
    import ray

    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    wanted = {names[name]: amount for name, amount in resources.items() if amount}
    return sum(
        min(int(node["Resources"].get(name, 0) // amount) for name, amount in wanted.items())
        for node in ray.nodes()
        if node["Alive"]
    )


class Stream:
    """Tasks in, outcomes out, each once, through Ray Data datasets one after the other.

    A dataset reads tasks from a feed as they come and maps each in a seat. What Ray loses for
    good (it does rows again by itself when an actor or a node dies) goes into the next dataset.
    """

    def __init__(self, workers: int | None, voice: Voice) -> None:
        self._workers, self._voice = workers, voice
        self._news = threading.Condition()  # also guards what follows
        self._open: dict[str, str] = {}  # id -> task, until its outcome came
        self._ended = False  # no more tasks in this run
        self._n_done = 0
        self._feed: Any = None  # of the dataset that runs
        self._about: dict[str, Any] | None = None
        self._resources: dict[str, float] = {}  # of a seat

    def add(self, task: dict[str, Any] | None) -> None:
        """Take a task, or the end of the tasks that were asked for; from any thread."""
        with self._news:
            text = None
            if task is None:
                self._ended = True
            else:
                text = self._open[task["id"]] = json.dumps(task)
            if self._feed is not None:
                self._feed.put.remote([text])
            self._news.notify_all()

    def serve(self, place: Place, resources: dict[str, float]) -> None:
        """Do what comes, for ever.

        Raises:
            WorkerError: no worker can be had, or they do not agree with each other.
        """
        self._resources = {name: amount for name, amount in resources.items() if amount}
        failures = 0
        while True:
            reason = "no reason is known"
            with self._news:
                while self._about is not None and not self._open and not self._ended:
                    self._news.wait()
                if self._about is not None and not self._open:
                    self._ended = False
                    self._voice.say(ended=True)
                    continue
                before = self._n_done
                rows = self._rows(place)
            try:
                for row in rows:
                    self._take(row)
            except WorkerError:
                raise
            except Exception as error:  # of Ray, whose exceptions share no class
                reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
            with self._news:
                self._feed = None
                lost = self._about is None or (self._n_done == before and bool(self._open))
            failures = failures + 1 if lost else 0
            if failures >= FAILURES:
                raise WorkerError(f"Ray loses what it is given: {reason}")

    def _rows(self, place: Place) -> Iterator[dict[str, Any]]:
        """Start a dataset over what is open and what will come."""
        import ray
        from ray.data import ActorPoolStrategy, read_datasource
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        _set_up_data()
        # With this process: if that node dies, so does this, and nothing waits for a lost feed.
        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        self._feed = feed_class().options(scheduling_strategy=here).remote()
        first: list[str | None] = [ABOUT] if self._about is None else []
        self._feed.put.remote([*first, *self._open.values(), *([None] if self._ended else [])])
        tasks = read_datasource(
            source_class()(self._feed),
            override_num_blocks=1,
            num_cpus=0,
            label_selector={"ray.io/node-id": node},
        )
        pool = ActorPoolStrategy(
            min_size=1,
            max_size=self._workers,
            initial_size=max(self._seats(), 1),
            max_tasks_in_flight_per_actor=1,
        )
        done = tasks.map(Seat, fn_constructor_args=[place], compute=pool, **self._resources)
        batches = done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
        return (row for batch in batches for row in batch.to_pylist())

    def _take(self, row: dict[str, Any]) -> None:
        message = json.loads(row["message"])
        if "unfit" in message:
            raise WorkerError(message["unfit"])
        if "about" in message:
            self._compare(message["about"], message["host"])
        outcome = message.get("outcome")
        if outcome is None:
            return
        with self._news:
            if self._open.pop(outcome["id"], None) is None:
                return  # done twice, where a node died
            self._n_done += 1
        content: bytes = row["content"]
        size = len(content) if message["result"] else None
        self._voice.say(content, outcome=outcome, bytes=size, room=self._room())

    def _compare(self, about: dict[str, Any], host: str) -> None:
        """Hold that every worker answers as the first one does."""
        if self._about is None:
            self._about = about
            self._voice.say(about=about, room=self._room())
        elif about != self._about:
            names = sorted(about.keys() | self._about.keys())
            other = ", ".join(name for name in names if about.get(name) != self._about.get(name))
            raise WorkerError(f"the machines of the cluster do not agree: {other} on {host}")

    def _room(self) -> int:
        """How many tasks to have at a time: one done and one waiting a seat, and one more."""
        return 2 * self._seats() + 1

    def _seats(self) -> int:
        there = _capacity(self._resources)
        return there if self._workers is None else min(there, self._workers)


def _set_up_data() -> None:
    """Rows on their own and at once, seats as long as there is work, nothing printed."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = 3
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    context.enable_progress_bars = False
    context.print_on_execution_start = False
