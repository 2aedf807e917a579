"""The stream of tasks where Ray, nodes or seats fail; with Ray itself: test_cluster.py."""

from __future__ import annotations

import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from maven.batch import driver
from maven.batch.attendant import WorkerError
from maven.batch.driver import AT_WORK_S, RETURNS, SILENT_S, Stream
from maven.batch.seat import Place
from maven.batch.worker import Limits

PLACE = Place({"model": "mini"}, Limits(time_s=0.0), "", "")


class Said:
    """Takes down what a stream tells the parent process."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def say(self, content: bytes = b"", **message: Any) -> None:
        self.messages.append({**message, "content": content})


class Seats:
    """A stream with two seats over a feed that only remembers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said, self.fed, self.n = Said(), list[str | None](), 2
        self.stream = Stream(None, self.said)  # type: ignore[arg-type]
        self.stream._feed = SimpleNamespace(put=SimpleNamespace(remote=self.fed.extend))
        self.stream._resources = {"num_cpus": 1.0, "memory": 2.0**30}
        monkeypatch.setattr(driver, "capacity", lambda _: self.n)
        monkeypatch.setattr(driver, "WATCHED_EVERY_S", 0.01)

    def take(self, **message: Any) -> None:
        self.stream._take({"message": json.dumps(message), "content": b"x"})

    def unfit(self, name: str | None, seat: str) -> None:
        self.take(unfit="a: No space left on device", seat=seat, id=name)


@pytest.fixture
def seats(monkeypatch: pytest.MonkeyPatch) -> Seats:
    return Seats(monkeypatch)


def outcome(name: str) -> dict[str, Any]:
    return {"outcome": {"id": name, "state": "done"}, "result": True}


def test_a_task_that_a_seat_cannot_do_is_done_by_another(seats: Seats) -> None:
    seats.take(about={"plain": 1}, host="a")
    for name in "pq":
        seats.stream.add({"id": name})
    seats.fed.clear()
    for _ in range(RETURNS):
        seats.unfit("p", "first")
    assert seats.fed == ['{"id": "p"}'] * RETURNS
    seats.unfit("p", "first")
    seats.take(**outcome("q"))
    _, given_back, done = seats.said.messages
    assert given_back["outcome"]["error"] == "a: No space left on device"
    assert (given_back["outcome"]["id"], given_back["outcome"]["again"]) == ("p", True)
    assert given_back["bytes"] is None
    assert (done["outcome"]["id"], done["bytes"], done["content"]) == ("q", 1, b"x")
    seats.take(**outcome("q"))  # again, as where a node died
    assert len(seats.said.messages) == 3


def test_where_no_seat_is_fit_the_batch_ends(seats: Seats) -> None:
    with pytest.raises(WorkerError, match="No space left"):
        seats.unfit(None, "first")  # nobody has ever been fit
    seats.take(about={"plain": 1}, host="a")
    for name in "pq":
        seats.stream.add({"id": name})
    seats.unfit("p", "first")
    seats.take(**outcome("q"))
    seats.unfit("p", "first")
    with pytest.raises(WorkerError, match="No space left"):
        seats.unfit("p", "second")


def test_no_node_left_is_said(seats: Seats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ALONE_S", 0.1)
    threading.Thread(target=seats.stream._watch, args=(PLACE,), daemon=True).start()
    time.sleep(0.3)
    assert seats.said.messages == []
    seats.n = 0
    end_s = time.monotonic() + 20.0
    while not seats.said.messages and time.monotonic() < end_s:
        time.sleep(0.01)
    unfit = "no node is left that has 1 cores, 1.0 GiB"
    assert seats.said.messages == [{"unfit": unfit, "content": b""}]


def test_a_dataset_that_has_lost_its_rows_is_ended(
    seats: Seats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "SILENT_S", 0.2)
    monkeypatch.setattr(driver, "ALONE_S", 0.0)
    seats.take(about={"plain": 1}, host="a")

    threading.Thread(target=seats.stream._watch, args=(PLACE,), daemon=True).start()
    time.sleep(0.4)
    assert seats.fed == []  # nothing is waited for
    seats.stream.add({"id": "p"})
    end_s = time.monotonic() + 20.0
    while None not in seats.fed and time.monotonic() < end_s:
        time.sleep(0.01)
    assert seats.fed[:2] == ['{"id": "p"}', None]
    seats.n = 0  # ends the watch


def test_a_dataset_whose_tasks_may_take_long_is_not_ended(seats: Seats) -> None:
    def lost(silent_s: float, limits: Limits) -> bool:
        return seats.stream._lost(silent_s, Place({"model": "mini"}, limits, "", ""))

    assert lost(SILENT_S + 1, Limits())  # no seat has said what it is
    seats.take(about={"plain": 1}, host="a")
    assert not lost(10 * AT_WORK_S, Limits())  # nothing is waited for
    for name, size_bytes in (("p", 10), ("q", 500_000)):
        seats.stream.add({"id": name, "size_bytes": size_bytes})
    allowed_s = Limits().longest_s({"model": "mini"}, None, 500_000)
    assert SILENT_S < allowed_s < AT_WORK_S
    assert not lost(SILENT_S + allowed_s - 1, Limits())
    assert lost(SILENT_S + allowed_s + 1, Limits())
    assert lost(SILENT_S + 61, Limits(time_s=60.0))
    seats.stream.add({"id": "r", "size_bytes": 10**10})
    assert not lost(AT_WORK_S, Limits())
    assert lost(SILENT_S + AT_WORK_S + 1, Limits())
