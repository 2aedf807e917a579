"""Shared fixtures: real clips, toy models, commands. One thread each: tests run side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from commands import Run
    from maven.checkpoint import Model

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


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the embedded kind of model, weights alone, at random; not to be changed."""
    from toy_mini import save_toy_mini

    return save_toy_mini(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="session")
def model(toy: Path) -> Model:
    """The same, loaded."""
    import maven

    return maven.load(toy, device="cpu")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `paper` lies, in toy size."""
    from toy_paper import save_toy_paper

    return save_toy_paper(tmp_path_factory.mktemp("shelf")).parent


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs commands as a user types them, in an empty folder of their own, with one thread."""
    from commands import one_thread, runner

    with one_thread():
        yield runner(tmp_path, monkeypatch, capsys)
