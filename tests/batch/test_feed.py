"""Rows for a reader: none is dropped that it has not taken, old ones are."""

from __future__ import annotations

import asyncio

import pytest

from maven.batch import feed
from maven.batch.feed import GONE, KEPT, feed_class

pytest.importorskip("ray")


def test_rows_wait_until_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "KEPT", 10)
    rows = feed_class().__ray_metadata__.modified_class()
    n = 3 * KEPT

    async def read() -> None:
        await rows.put([str(number) for number in range(n)])
        await rows.put([None])
        assert [await rows.take(index) for index in range(n)] == list(map(str, range(n)))
        assert await rows.take(n) is None
        assert len(rows._rows) == 11  # what a reader that is started again may need
        assert await rows.take(n - 10) == str(n - 10)
        assert await rows.take(0) == GONE

    asyncio.run(read())
