"""Stages that overlap: an iterator a few items ahead in a thread, a call beside the others.

Decoding, resizing and networks release Python's lock, so threads share the cores without copying a
frame from process to process. Every queue is bounded: the fastest stage waits for the slowest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

AHEAD = 4  # items; frames are the largest
POLL_S = 0.1  # how soon a waiting thread sees that nobody wants its items any more


class StoppedError(Exception):
    """Nobody waits for the result of a call beside any more."""


def ahead(items: Iterable[T], size: int = AHEAD) -> Generator[T]:
    """Yield the items of an iterable that runs in a thread of its own, up to `size` items ahead.

    What it raises is raised here, after the items before. Closing this generator ends the thread.
    """
    queue: Queue[tuple[T] | BaseException | None] = Queue(size)
    stop = threading.Event()

    def put(item: tuple[T] | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                queue.put(item, timeout=POLL_S)
            except Full:
                continue
            return True
        return False

    def run() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put((item,)):
                    return
            put(None)
        except BaseException as error:  # whatever it is, it belongs to who waits
            put(error)
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (got := queue.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got[0]
    finally:
        stop.set()
        thread.join()


class Beside(Generic[T]):
    """A call in a thread: `wait` gives its result or raises what it raised."""

    def __init__(self, call: Callable[[Callable[[], None]], T], stop: threading.Event) -> None:
        self._done: Queue[tuple[T] | BaseException] = Queue(1)

        def check() -> None:
            if stop.is_set():
                raise StoppedError

        def run() -> None:
            try:
                self._done.put((call(check),))
            except BaseException as error:
                self._done.put(error)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def wait(self, meanwhile: Callable[[], None]) -> T:
        """Wait for the result; `meanwhile` is called now and then in this thread."""
        while True:
            try:
                got = self._done.get(timeout=POLL_S)
            except Empty:
                meanwhile()
                continue
            meanwhile()
            if isinstance(got, BaseException):
                raise got
            return got[0]

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()


@contextmanager
def beside(call: Callable[[Callable[[], None]], T]) -> Iterator[Beside[T]]:
    """Run a call in a thread while the block runs.

    Args:
        call: gets a function that it calls now and then; it raises `StoppedError` once the block
            was left before the call was done.
    """
    stop = threading.Event()
    running = Beside(call, stop)
    try:
        yield running
    finally:
        stop.set()
        running.join()
