"""Clips on the grid, and windows of them that depend on seed, epoch and sample alone."""

from __future__ import annotations

import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affwild2_factory import label
from maven.config import MODALITIES
from maven.datasets.affwild2 import folds, read_corpus
from maven.datasets.clips import (
    Batch,
    Clip,
    Stream,
    Windows,
    grid_labels,
    hashed,
    load_clips,
    moment_sample,
    only,
    split_clips,
)
from maven.features import Features
from maven.metrics import valid_labels
from maven.store import ClipKeys, Recording, Store, StoreError, load_entry, read_manifest
from maven.timeline import uniform_grid
from planted import RATE_HZ, WIDTHS, planted, write_store

# --- from the store ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder)
    return folder


def test_clips_lie_on_a_uniform_grid_past_their_last_frame(store: Path) -> None:
    clips = load_clips(store, RATE_HZ)
    assert [c.name for c in clips] == [f"video{k}" for k in range(6)]
    assert [c.split for c in clips] == ["train"] * 4 + ["val"] * 2
    for k, clip in enumerate(clips):
        assert len(clip.frame_s) == len(clip.frame_labels) == 100 + 10 * k
        grid_s = clip.features.time_s
        np.testing.assert_allclose(np.diff(grid_s), 1 / RATE_HZ)
        assert grid_s[0] == clip.frame_s[0] == 0.04
        assert grid_s[-1] >= clip.frame_s[-1]
        for m, width in WIDTHS.items():
            assert clip.features.values[m].shape == (len(grid_s), width)
            assert clip.features.values[m].dtype == np.float32
            assert clip.features.observed[m].shape == (len(grid_s),)
            assert not clip.features.values[m][~clip.features.observed[m]].any()
        assert clip.features.observed["audio"].mean() == pytest.approx(5 / 10, abs=0.2)
        assert clip.labels.shape == (len(grid_s), 2)


def test_labels_on_the_grid_are_means_of_the_valid_frames_nearest(store: Path) -> None:
    for clip in load_clips(store, RATE_HZ, "val"):
        apart_s = np.abs(clip.frame_s[:, None] - clip.features.time_s)
        nearest = (apart_s - 1e-9 * np.arange(apart_s.shape[1])).argmin(1)  # the later of two
        valid = valid_labels(*clip.frame_labels.T)
        assert not valid.all()
        for k, found in enumerate(clip.labels):
            own = clip.frame_labels[(nearest == k) & valid]
            np.testing.assert_allclose(found, own.mean(0) if len(own) else [-5, -5], rtol=1e-5)


@given(st.integers(0, 2**32), st.integers(1, 40), st.floats(0.2, 4.0))
@settings(max_examples=50, deadline=None)
def test_grid_labels_at_any_frame_rate(seed: int, frames: int, rate_hz: float) -> None:
    random = np.random.default_rng(seed)
    frame_s = np.cumsum(random.uniform(0.01, 0.5, frames))
    labels = random.uniform(-1, 1, (frames, 2)).astype(np.float32)
    labels[random.uniform(size=frames) < 0.3] = -5
    grid_s = uniform_grid(frame_s[0], frame_s[-1] + 1 / rate_hz, rate_hz)
    found = grid_labels(frame_s, labels, grid_s)
    assert found.dtype == np.float32
    valid = valid_labels(*labels.T)
    apart_s = np.abs(frame_s[:, None] - grid_s)
    clear = np.sort(apart_s, 1)[:, :2] @ [-1, 1] > 1e-6  # between two grid times either is right
    if not clear.all():
        return
    nearest = apart_s.argmin(1)
    for k in range(len(grid_s)):
        own = labels[(nearest == k) & valid]
        np.testing.assert_allclose(found[k], own.mean(0) if len(own) else [-5, -5], atol=1e-5)


def test_splits_and_unlabelled_videos(store: Path) -> None:
    assert [c.name for c in load_clips(store, RATE_HZ, "val")] == ["video4", "video5"]
    assert len(load_clips(store, RATE_HZ, ("train", "val"))) == 6
    assert load_clips(store, RATE_HZ, "test") == []
    assert grid_labels(np.arange(3.0), np.zeros((0, 2), np.float32), np.arange(4.0)).tolist() == (
        [[-5.0, -5.0]] * 4
    )


def test_what_lies_on_the_grid_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path)
    first = load_clips(tmp_path, RATE_HZ)
    loads = []

    def load(store: Store, keys: ClipKeys) -> Recording:
        loads.append(keys)
        return load_entry(store, keys)

    monkeypatch.setattr("maven.datasets.clips.load_entry", load)
    again = load_clips(tmp_path, RATE_HZ)
    assert not loads
    for one, other in zip(first, again, strict=True):
        for m in MODALITIES:
            np.testing.assert_array_equal(one.features.values[m], other.features.values[m])
            np.testing.assert_array_equal(one.features.observed[m], other.features.observed[m])
        np.testing.assert_array_equal(one.labels, other.labels)
    other_rate = load_clips(tmp_path, 2 * RATE_HZ)
    assert len(loads) == 6
    assert len(other_rate[0].features.time_s) > 1.9 * len(first[0].features.time_s)
    loads.clear()  # other features are never read from the old entries
    manifest = write_store(tmp_path, name="changed")
    assert len(load_clips(tmp_path, RATE_HZ, manifest=manifest.name)) == 6
    assert len(loads) == 6


def test_clips_hold_no_files_open(store: Path) -> None:
    """A corpus has more clips than a process may have files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
    try:
        clips = [load_clips(store, RATE_HZ) for _ in range(20)]  # of six clips each
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert sum(c.features.values["visual"].sum() for part in clips for c in part) != 0


def test_the_values_are_read_from_disk_and_never_written(store: Path) -> None:
    clip = load_clips(store, RATE_HZ)[0]
    before = clip.features.values["visual"].copy()
    clip.features.values["visual"][:] = 7.0  # of this process alone
    again = load_clips(store, RATE_HZ)[0]
    np.testing.assert_array_equal(again.features.values["visual"], before)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    manifest = write_store(tmp_path)
    key = manifest.clips[0].visual
    assert key is not None
    place = tmp_path / "arrays" / "visual" / key[:2] / key / "values.npy"
    place.write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"values\.npy"):
        load_clips(tmp_path, 3.0)


def test_a_store_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no feature store"):
        load_clips(tmp_path, RATE_HZ)


# --- folds -------------------------------------------------------------------------------------


def named(names: dict[str, tuple[str, int]]) -> list[Clip]:
    return [planted(len(n), frames, split, name=n) for n, (split, frames) in names.items()]


NAMES = {
    **{f"video{k}": ("train", 20 + 7 * k % 31) for k in range(20)},
    "video30_left": ("train", 25), "video30_right": ("train", 30), "video31_1": ("train", 12),
    "video31_2": ("train", 44), "v1": ("val", 10), "v2_left": ("val", 11), "t1": ("test", 9),
}  # fmt: skip


def test_the_official_split() -> None:
    train, val = split_clips(named(NAMES), "official")
    assert {c.name for c in val} == {"v1", "v2_left"}
    assert {c.name for c in train} == {n for n, (s, _) in NAMES.items() if s == "train"}
    assert [c.name for c in split_clips(named(NAMES), 0)[1]] == [c.name for c in val]


def test_folds_are_those_of_the_corpus(tmp_path: Path) -> None:
    clips = named(NAMES)
    for clip in clips:
        label(tmp_path, clip.split, clip.name, len(clip.frame_labels))
    expected = folds(read_corpus(tmp_path))
    held: Counter[str] = Counter()
    for k in range(6):
        train, val = split_clips(clips, k)
        assert {c.name for c in val} == {v.name for v in expected[k]}
        assert {c.name for c in train} | {c.name for c in val} == set(NAMES) - {"t1"}
        assert len(train) + len(val) == len(NAMES) - 1
        held.update(c.name for c in val)
    assert set(held.values()) == {1}
    assert set(held) == set(NAMES) - {"t1"}


@pytest.mark.parametrize("fold", [6, -1, "train", None, True, 1.5])
def test_no_such_fold(fold: object) -> None:
    with pytest.raises(ValueError, match="official or 0 to 5"):
        split_clips(named(NAMES), fold)  # type: ignore[arg-type]


def test_only_some_modalities() -> None:
    clips = [planted(k) for k in range(3)]
    for clip, whole in zip(only(clips, ("visual", "text")), clips, strict=True):
        assert not clip.features.observed["audio"].any()
        assert not clip.features.values["audio"].any()
        assert clip.features.values["text"] is whole.features.values["text"]
        assert clip.labels is whole.labels


def test_moments_are_of_observed_frames_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [planted(k, frames=30 + k) for k in range(7)]
    for m in MODALITIES:
        whole = np.concatenate([c.features.values[m][c.features.observed[m]] for c in clips])
        found = moment_sample(clips, m)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, whole)
        monkeypatch.setattr("maven.datasets.clips.MOMENT_FRAMES", 50)
        stride = -(-len(whole) // 50)
        np.testing.assert_array_equal(moment_sample(clips, m), whole[::stride])
        monkeypatch.undo()
    assert moment_sample(only(clips, ("visual",)), "audio").shape == (0, WIDTHS["audio"])


# --- windows -----------------------------------------------------------------------------------


def numbered(lengths: list[int]) -> list[Clip]:
    """Clips whose visual features say which clip and frame they are."""
    clips = []
    for k, length in enumerate(lengths):
        clip = planted(k, frames=length)
        values = dict(clip.features.values)
        values["visual"] = np.zeros((length, 6), np.float32)
        values["visual"][:, 0], values["visual"][:, 1] = k, np.arange(length)
        observed = {m: np.ones(length, bool) for m in MODALITIES}
        features = Features(clip.features.time_s, values, observed)
        clips.append(Clip(clip.name, "train", features, clip.labels, clip.frame_s, clip.labels))
    return clips


def all_of(windows: Windows, epoch: int) -> list[Batch]:
    return [windows.batch(epoch, step) for step in range(windows.steps_per_epoch)]


@given(
    st.lists(st.integers(2, 60), min_size=1, max_size=6),
    st.integers(1, 25),
    st.integers(1, 5),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_frame_is_in_exactly_one_window(
    lengths: list[int], frames: int, size: int, epoch: int
) -> None:
    clips = numbered(lengths)
    windows = Windows(clips, frames / RATE_HZ, size, seed=3)
    seen: Counter[tuple[int, int]] = Counter()
    count = 0
    for batch in all_of(windows, epoch):
        b, t = batch.observed["visual"].shape
        assert t == frames
        assert batch.values["audio"].shape == (b, t, WIDTHS["audio"])
        assert batch.target.shape == (b, t, 2)
        assert batch.seeds.shape == (b,)
        torch.testing.assert_close(batch.time_s, torch.arange(t).double()[None] / RATE_HZ)
        count += b
        for k in range(b):
            inside = batch.observed["visual"][k]
            assert inside.any()
            for m in MODALITIES:
                assert torch.equal(batch.observed[m][k], inside)
                assert not batch.values[m][k][~inside].any()
            assert (batch.target[k][~inside] == -5).all()
            own, number = batch.values["visual"][k][inside][:, :2].T.long()
            assert (own == own[0]).all()
            assert (number.diff() == 1).all()
            seen.update((int(own[0]), int(n)) for n in number)
            labels = torch.from_numpy(clips[int(own[0])].labels)[number]
            assert torch.equal(batch.target[k][inside], labels)
    assert seen == Counter((k, n) for k, length in enumerate(lengths) for n in range(length))
    assert windows.steps_per_epoch == -(-count // size)
    assert count <= sum(n / frames + 1.5 for n in lengths)
    assert count == sum(len(b.seeds) for b in all_of(windows, epoch + 1))


def equal(one: Batch, other: Batch) -> bool:
    pairs = [(one.target, other.target), (one.seeds, other.seeds), (one.time_s, other.time_s)]
    pairs += [(one.values[m], other.values[m]) for m in MODALITIES]
    pairs += [(one.observed[m], other.observed[m]) for m in MODALITIES]
    return all(torch.equal(a, b) for a, b in pairs)


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    clips = numbered([37, 50, 64, 20])
    windows = Windows(clips, 3.0, 4, seed=1)
    straight = [all_of(windows, epoch) for epoch in (1, 2, 3)]
    fresh = Windows(numbered([37, 50, 64, 20]), 3.0, 4, seed=1)
    assert equal(fresh.batch(3, 2), straight[2][2])  # no matter what came before
    assert equal(fresh.batch(1, 0), straight[0][0])
    other = Windows(clips, 3.0, 4, seed=2)
    for one, two in ((straight[0], straight[1]), (straight[0], all_of(other, 1))):
        assert not any(equal(a, b) for a, b in zip(one, two, strict=True))
    seeds = [int(s) for epoch in straight for batch in epoch for s in batch.seeds]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0


def test_offsets_and_order_change_from_epoch_to_epoch() -> None:
    clips = numbered([200])
    windows = Windows(clips, 8.0, 100, seed=0)
    starts, orders = set(), set()
    for epoch in range(60):
        batch = windows.batch(epoch, 0)
        numbers = batch.values["visual"][..., 1]
        first = [int(n[o][0]) for n, o in zip(numbers, batch.observed["visual"], strict=True)]
        starts.add(sorted(first)[1] % 40)
        orders.add(tuple(np.argsort(first)))
    assert len(starts) > 15
    assert len(orders) > 40


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_processes_share_a_batch(world: int) -> None:
    windows = Windows(numbered([37, 50, 64]), 3.0, 4, seed=1)
    for step in range(windows.steps_per_epoch):
        whole = windows.batch(2, step)
        b = len(whole.seeds)
        for rank in range(world):
            part = windows.batch(2, step, rank, world)
            if rank < b:
                assert torch.equal(part.seeds, whole.seeds[rank::world])
                assert torch.equal(part.target, whole.target[rank::world])
                assert torch.equal(part.values["visual"], whole.values["visual"][rank::world])
            else:  # takes part, and counts nothing
                assert part.target.shape == (1, 15, 2)
                assert (part.target == -5).all()
                assert not any(part.observed[m].any() for m in MODALITIES)


def draw(random: np.random.Generator) -> tuple[Features, np.ndarray]:
    clip = planted(int(random.integers(1 << 30)), frames=12)
    return clip.features, clip.labels


def test_a_stream_draws_by_epoch_step_and_sample() -> None:
    stream, again = Stream(draw, 3, 5, seed=4), Stream(draw, 3, 5, seed=4)
    assert stream.steps_per_epoch == 3
    batches = [stream.batch(e, s) for e in (1, 2) for s in range(3)]
    assert equal(again.batch(2, 1), batches[4])
    assert len({int(s) for batch in batches for s in batch.seeds}) == 30
    assert not torch.equal(batches[0].target[0], batches[0].target[1])
    assert batches[0].time_s.shape == (1, 12)
    whole = batches[0]
    for rank in range(2):
        part = stream.batch(1, 0, rank, 2)
        assert torch.equal(part.target, whole.target[rank::2])
        assert torch.equal(part.values["text"], whole.values["text"][rank::2])
        assert torch.equal(part.seeds, whole.seeds[rank::2])
    assert (stream.batch(1, 0, 6, 8).target == -5).all()


def test_hashes_are_well_spread() -> None:
    one = hashed(0, 1, np.arange(4096))
    assert len(set(one.tolist())) == 4096
    bits = (one[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 0.04
    flipped = hashed(0, 2, np.arange(4096)) ^ one
    changed = ((flipped[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean()
    assert changed == pytest.approx(0.5, abs=0.01)
    assert hashed(1, 0, np.arange(3)).tolist() != hashed(0, 1, np.arange(3)).tolist()


def test_a_batch_moves_but_its_seeds_stay() -> None:
    moved = Windows(numbered([20]), 2.0, 2).batch(1, 0).to("meta")
    assert moved.target.device.type == moved.values["visual"].device.type == "meta"
    assert moved.seeds.device.type == "cpu"


def test_the_store_still_reads_what_lies_beside_the_grids(store: Path) -> None:
    load_clips(store, RATE_HZ)
    manifest = read_manifest(store)
    assert len(load_entry(Store(store), manifest.clips[0]).frame_s) == 100
