"""Stages in threads: order, bounds, errors and endings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.threads import StoppedError, ahead, beside


def alive() -> int:
    return threading.active_count()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 8))
def test_items_come_in_order_and_the_thread_ends(items: list[int], size: int) -> None:
    before = alive()
    assert list(ahead(items, size)) == items
    assert alive() == before


def test_no_more_than_the_queue_holds_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for k in range(100):
            made.append(k)
            yield k

    stream = ahead(items(), 3)
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(made) <= 1 + 3 + 1  # taken, queued, and one that waits for a place
    stream.close()
    assert len(made) <= 6


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("here")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(KeyError, match="here"):
        next(stream)


def test_closing_ends_the_thread_and_closes_what_it_read_in_that_thread() -> None:
    closed_in: list[int] = []

    def items() -> Iterator[int]:
        try:
            k = 0
            while True:
                yield (k := k + 1)
        finally:
            closed_in.append(threading.get_ident())

    before = alive()
    outer = ahead(inner := ahead(items(), 1), 1)
    assert [next(outer), next(outer)] == [1, 2]
    outer.close()
    inner.close()
    assert alive() == before
    assert len(closed_in) == 1
    assert closed_in[0] != threading.get_ident()


def test_a_call_beside_runs_meanwhile_and_gives_its_result() -> None:
    started = threading.Event()

    def call(check: Callable[[], None]) -> str:
        started.set()
        return "heard"

    with beside(call) as running:
        assert started.wait(5)
        calls: list[None] = []
        assert running.wait(lambda: calls.append(None)) == "heard"
        assert calls


def test_what_a_call_beside_raises_is_raised_where_it_is_waited_for() -> None:
    def call(check: Callable[[], None]) -> str:
        raise ValueError("deaf")

    with beside(call) as running, pytest.raises(ValueError, match="deaf"):
        running.wait(lambda: None)


def test_a_call_beside_is_stopped_when_the_block_is_left_early() -> None:
    ended: list[str] = []

    def call(check: Callable[[], None]) -> None:
        try:
            while True:
                check()
                time.sleep(0.01)
        except StoppedError:
            ended.append("stopped")
            raise

    before = alive()
    with pytest.raises(KeyError), beside(call):
        raise KeyError
    assert ended == ["stopped"]
    assert alive() == before
