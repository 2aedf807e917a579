"""Shared fixtures: where the real clips are. One thread a process: tests run beside each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported anywhere

REPOSITORY = Path(__file__).parent.parent
GRID_CLIPS = ("bbaf2n", "bbwm4n", "lgwg2n", "pwbk1s", "srbu6n")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real material (MAVEN_DATA, else ../shared/data); its tests skip without it."""
    folder = Path(os.environ.get("MAVEN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real clips: {folder} is not there; set MAVEN_DATA")
    return folder


@pytest.fixture(scope="session")
def clips_dir(data_dir: Path) -> Path:
    return data_dir / "clips"
