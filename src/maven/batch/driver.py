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
import shutil
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

from maven.batch.attendant import WorkerError
from maven.batch.connection import capacity, connected, needs
from maven.batch.feed import feed_class, source_class
from maven.batch.seat import ABOUT, Place, Seat
from maven.batch.worker import failed

SHUT_DOWN_WITHIN_S, TIDIED_WITHIN_S = 8.0, 5.0
FAILURES = 3  # of the stream, one after the other without an outcome between
RETURNS = 2  # of a task, by seats that cannot work
WATCHED_EVERY_S = 3.0
ALONE_S = 60.0  # without a node that can hold a seat: none is awaited any more
# Without an outcome, beyond the time that open tasks may take, of which a day counts (large files
# may take years): a dataset may have lost rows, the next one takes them.
SILENT_S, AT_WORK_S = 1800.0, 86_400.0


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
        stream.serve(*connected(opening, voice.say))
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
        self._out, self._speaking = out, threading.Lock()

    def say(self, content: bytes = b"", **message: Any) -> None:
        """Tell the parent something; nothing where it has gone."""
        with self._speaking, contextlib.suppress(BrokenPipeError):
            self._out.write(json.dumps(message).encode() + b"\n" + content)
            self._out.flush()


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
        self._came_s = time.monotonic()  # when a task or an outcome came last
        self._unfit: set[str] = set()  # seats that could not work since an outcome came
        self._returned = Counter[str]()  # how often each open task was given back

    def add(self, task: dict[str, Any] | None) -> None:
        """Take a task, or the end of the tasks that were asked for; from any thread."""
        with self._news:
            text, self._came_s = None, time.monotonic()
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
        threading.Thread(target=self._watch, args=(place,), daemon=True).start()
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
                self._unfit.clear()  # these will be other seats
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
            max_tasks_in_flight_per_actor=2,  # see `maven.batch.cluster.SOON_BYTES`
        )
        done = tasks.map(Seat, fn_constructor_args=[place], compute=pool, **self._resources)
        batches = done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
        return (row for batch in batches for row in batch.to_pylist())

    def _watch(self, place: Place) -> None:
        """Say so where no node is left, and end a dataset from which nothing comes any more."""
        fit_s = time.monotonic()
        while True:
            time.sleep(WATCHED_EVERY_S)
            now_s = time.monotonic()
            with contextlib.suppress(Exception):  # of Ray
                if self._seats():
                    fit_s = now_s
            if now_s - fit_s > ALONE_S:
                self._voice.say(unfit=f"no node is left that has {needs(self._resources)}")
                return
            with self._news:
                if self._feed is not None and self._lost(now_s - self._came_s, place):
                    self._came_s = now_s
                    self._feed.put.remote([None])

    def _lost(self, silent_s: float, place: Place) -> bool:
        """Tell whether nothing has come for longer than any task that is open may take."""
        if silent_s <= SILENT_S or not (self._open or self._about is None):
            return False
        sizes = [json.loads(text).get("size_bytes") for text in self._open.values()]
        longest_s = [place.limits.longest_s(place.job, None, size) for size in sizes]
        return silent_s > SILENT_S + min(max(longest_s, default=0.0), AT_WORK_S)

    def _take(self, row: dict[str, Any]) -> None:
        message = json.loads(row["message"])
        if "unfit" in message:
            outcome = self._given_back(message)
            if outcome is not None:
                self._done(outcome, None)
            return
        if "about" in message:
            self._compare(message["about"], message["host"])
        if "outcome" in message:
            self._unfit.clear()
            self._done(message["outcome"], row["content"] if message["result"] else None)

    def _done(self, outcome: dict[str, Any], content: bytes | None) -> None:
        with self._news:
            if self._open.pop(outcome["id"], None) is None:
                return  # done twice, where a node died
            self._returned.pop(outcome["id"], None)
            self._n_done += 1
            self._came_s = time.monotonic()
        size = None if content is None else len(content)
        self._voice.say(content or b"", outcome=outcome, bytes=size, seats=self._seats())

    def _given_back(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Have a task done by another seat, while one is fit; a failure where none does it.

        Raises:
            WorkerError: none is fit.
        """
        self._unfit.add(message["seat"])
        if self._about is None or len(self._unfit) >= self._seats():
            raise WorkerError(message["unfit"])
        name = message["id"]
        with self._news:
            if name not in self._open:
                return None
            self._returned[name] += 1
            if self._returned[name] > RETURNS:
                return failed(name, message["unfit"], again=True)
            if self._feed is not None:
                self._feed.put.remote([self._open[name]])
        return None

    def _compare(self, about: dict[str, Any], host: str) -> None:
        """Hold that every worker answers as the first one does."""
        if self._about is None:
            self._about = about
            self._voice.say(about=about, seats=self._seats())
        elif about != self._about:
            names = sorted(about.keys() | self._about.keys())
            other = ", ".join(name for name in names if about.get(name) != self._about.get(name))
            raise WorkerError(f"the machines of the cluster do not agree: {other} on {host}")

    def _seats(self) -> int:
        there = capacity(self._resources)
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
