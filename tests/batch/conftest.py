"""What tests of a batch share: a folder on which nothing waits for a disk, jobs of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from small_batch import in_memory

TESTS = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with in_memory(tmp_path) as folder:
        yield folder


@pytest.fixture(scope="module", autouse=True)
def _jobs_are_found() -> Iterator[None]:
    """Let workers find the jobs of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        yield
