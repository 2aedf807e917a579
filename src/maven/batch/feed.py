"""Tasks into a Ray Data dataset as they come, one row a block.

Ray Data reads sources that are there from the beginning; a list in its place would hold a batch's
tasks in memory, or end and begin the workers, with the model that each has loaded, in waves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

KEPT = 10_000  # rows already taken that a reader may ask for again
GONE = ""  # in the place of an older one


def feed_class() -> Any:
    """Make the actor class through which tasks go to a dataset's reader; None is their end."""
    import asyncio

    import ray

    class Feed:
        def __init__(self) -> None:
            self._rows: dict[int, str | None] = {}
            self._first, self._n, self._news = 0, 0, asyncio.Condition()

        async def put(self, rows: list[str | None]) -> None:
            async with self._news:
                for row in rows:
                    self._rows[self._n] = row
                    self._n += 1
                self._news.notify_all()

        async def take(self, index: int) -> str | None:
            async with self._news:
                await self._news.wait_for(lambda: index < self._n)
                while self._first < index - KEPT:
                    self._rows.pop(self._first)
                    self._first += 1
                return self._rows.get(index, GONE)

    return ray.remote(num_cpus=0)(Feed)


def source_class() -> Any:
    """Make the data source that reads a feed to its end.

    Rows are asked for by index: a reader that dies is started again by Ray, which takes its rows
    for the same ones as before and goes on after those that it has.
    """
    import itertools

    import pyarrow as pa
    import ray
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class Tasks(Datasource):  # type: ignore[misc]
        def __init__(self, feed: Any) -> None:
            super().__init__()
            self._feed = feed

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
            feed = self._feed

            def read() -> Iterator[pa.Table]:
                for index in itertools.count():
                    task = ray.get(feed.take.remote(index))
                    if task is None:
                        return
                    yield pa.table({"task": [task]})

            about = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(read, about)]

    return Tasks
