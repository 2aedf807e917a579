"""What the tests of the pages share: a browser, a server of their own, a short clip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import chromium
from demo_pieces import copy_piece
from served import Server, serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a face and a voice."""
    return copy_piece(tmp_path_factory.mktemp("piece") / "talk.mp4", 2.0)
