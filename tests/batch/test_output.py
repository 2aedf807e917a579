"""Whose results lie in the output folder, and what else people leave there."""

from __future__ import annotations

from pathlib import Path

import pytest

from maven.batch.output import WORK
from small_batch import OTHER, batch, contents, items, write_clips


@pytest.fixture
def clips(folder: Path) -> Path:
    return write_clips(folder / "clips", {name: name for name in "abc"})


def test_hidden_files_of_others_do_not_hinder_going_back(clips: Path) -> None:
    """As the Finder leaves them wherever somebody has looked."""
    out = clips.parent / "out"
    batch(items(clips), out)
    before = contents(out)
    (out / "results" / ".DS_Store").write_bytes(b"1")
    batch(items(clips), out, OTHER, stop_after=0)
    names = [f"results/{part}.DS_Store" for part in ("", "part=00/", "part=01/")]
    for name in names:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"2")
    assert batch(items(clips), out)[0].done == 3
    found = contents(out)
    assert sorted(name for name in found if name.endswith(".DS_Store")) == names
    assert {name: found[name] for name in before} == before
    assert batch(items(clips), out, OTHER)[0].new == 3
    assert batch(items(clips), out)[0].done == 3


def test_a_kill_between_two_settings_leaves_hidden_files_too(clips: Path) -> None:
    out = clips.parent / "out"
    batch(items(clips), out)
    batch(items(clips), out, OTHER, stop_after=0)
    (out / "results" / ".DS_Store").write_bytes(b"2")
    (out / "results" / "_batch.json").write_bytes(b"cut")
    assert batch(items(clips), out)[0].done == 3


def test_scratch_files_have_a_folder_that_nobody_else_has(clips: Path) -> None:
    out = clips.parent / "out"
    batch(items(clips), out)
    (out / "work").mkdir()
    (out / "work" / "precious").touch()
    (out / WORK).mkdir()
    (out / WORK / "of a killed one").touch()
    batch(items(clips), out)
    assert (out / "work" / "precious").exists()
    assert not (out / WORK).exists()
