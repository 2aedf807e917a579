"""Clips stay on disk: what a process reads of a store, verifies of it, and keeps of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from maven.datasets.clips import Windows, load_clips, moment_sample
from maven.store import StoreError
from planted import RATE_HZ, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder)
    load_clips(folder, RATE_HZ)  # which puts them on the grid
    return folder


def resident_bytes(store: Path) -> int:
    """How much of a store's files is mapped into this process and in memory."""
    total_kb, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.partition(" ")[0]:
            ours = str(store) in line
        elif ours and line.startswith("Rss:"):
            total_kb += int(line.split()[1])
    return 1024 * total_kb


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_nothing_of_a_store_stays_in_memory(store: Path) -> None:
    """Not what was verified, not what moments and batches were made of; nor are files held open."""
    clips = load_clips(store, RATE_HZ)
    held = clips[0].features.values["visual"]
    assert held.sum() != 0
    assert 0 < resident_bytes(store) <= 8192  # what is in use
    del held
    moment_sample(clips, "visual")
    windows = Windows(clips, 4.0, 5)
    for step in range(windows.steps_per_epoch):
        windows.batch(1, step)
    assert resident_bytes(store) == 0
    opened = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.exists()]
    assert not [name for name in opened if str(store) in name]


def test_each_process_verifies_its_share(tmp_path: Path) -> None:
    """A flipped byte in the last of six clips: of three processes, the third one says so."""
    manifest = write_store(tmp_path)
    for clip in load_clips(tmp_path, RATE_HZ):
        assert clip.features.values["visual"].any()
    place = manifest.clips[5].labels
    assert place is not None
    path = tmp_path / "arrays" / "labels" / place[:2] / place / "labels.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    names = [clip.name for clip in manifest.clips]
    for rank in (0, 1):
        loaded = load_clips(tmp_path, RATE_HZ, rank=rank, world=3)
        assert [clip.name for clip in loaded] == names
    for rank, world in ((2, 3), (0, 1)):
        with pytest.raises(StoreError, match=r"labels\.npy: damaged \(its content has changed\)"):
            load_clips(tmp_path, RATE_HZ, rank=rank, world=world)


def test_a_damaged_grid_is_made_anew(tmp_path: Path) -> None:
    """Of several processes, another one may have read it before: none of them goes on."""
    write_store(tmp_path)
    load_clips(tmp_path, RATE_HZ)
    grids = sorted((tmp_path / "arrays" / "grid").rglob("visual.npy"))
    before = [path.read_bytes() for path in grids]
    for world in (1, 2):
        grids[0].write_bytes(before[0][:-1] + bytes([before[0][-1] ^ 1]))
        said = []
        for rank in range(world):
            try:
                load_clips(tmp_path, RATE_HZ, rank=rank, world=world)
            except StoreError as error:
                said.append(str(error))
        assert len(said) == world - 1
        assert all(
            line.endswith("content has changed); made anew; run this again") for line in said
        )
        assert [path.read_bytes() for path in grids] == before
    load_clips(tmp_path, RATE_HZ, world=2)
