"""The training benchmark at toy size: both loops see the same frames, and both train."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from benches import benches
from maven.config import MODALITIES, PRESETS, MavenConfig, preset
from maven.metrics import valid_labels
from maven.model import Maven
from maven.store import Store, load_entry, read_manifest

WIDTHS = {"visual": 6, "audio": 5, "text": 4}
SMALL: dict[str, Any] = {
    "width": 8, "heads": 2, "join_width": 8, "join_heads": 2, "join_layers": 1, "join_feed": 16,
    "head_widths": (24, 16),
}  # fmt: skip
VIDEOS = 3
LENGTH_S = 20.0


def small(name: str, widths: dict[str, int] = WIDTHS, **changes: Any) -> MavenConfig:
    return preset(name, widths, **SMALL | changes)


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with benches("training") as modules:
        yield modules.training


@pytest.fixture(scope="module")
def root(bench: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both")
    bench.write_both(folder, VIDEOS, LENGTH_S, WIDTHS)
    return folder


def test_both_hold_the_same_frames_and_labels(bench: ModuleType, root: Path) -> None:
    store = Store(root / "store")
    clips = [c for c in read_manifest(root / "store").clips if c.split == "train"]
    assert len(clips) == VIDEOS
    assert [f.name for f in sorted((root / "published").iterdir())] == [c.name for c in clips]
    for keys in clips:
        held = load_entry(store, keys)
        assert held.visual is not None
        folders = sorted((root / "published" / keys.name).iterdir())
        seen = [torch.load(f / "frames_embedding.pt", weights_only=True).numpy() for f in folders]
        np.testing.assert_array_equal(np.concatenate(seen), held.visual.values)
        lines = [(f / "annotations.txt").read_text().splitlines()[1:] for f in folders]
        target, mask = bench.parse(lines, max(map(len, lines)))
        np.testing.assert_array_equal(target[mask].numpy(), held.labels)
        for m in ("audio", "text"):
            pooled = torch.load(folders[0] / f"{bench.FILES[m]}_embedding.pt", weights_only=True)
            assert pooled.shape == (1, WIDTHS[m])


def test_an_epoch_of_either_trains_on_each_of_them_once(bench: ModuleType, root: Path) -> None:
    labels = [
        load_entry(Store(root / "store"), c).labels
        for c in read_manifest(root / "store").clips
        if c.split == "train"
    ]
    expected = sorted(map(tuple, np.concatenate([x[valid_labels(*x.T)] for x in labels]).tolist()))
    assert 0 < len(expected) < sum(map(len, labels))

    sentences = bench.Sentences(root / "published")
    lines = [line for k in range(len(sentences)) for line in sentences[k][1]]
    va = [tuple(np.float32(x).item() for x in line.split(",")) for line in lines]
    assert sorted(pair for pair in va if -5 not in pair) == expected
    assert sentences.invalid == len(lines) - len(expected)

    ours = bench.Ours(root / "store", Maven(small("default", rate_hz=30.0)))
    batches = [ours.batch(1, step) for step in range(ours.steps_per_epoch)]
    targets = torch.cat([batch.target.flatten(0, 1) for batch in batches])
    targets = targets[(targets.abs() <= 1).all(-1)]
    assert sorted(map(tuple, targets.tolist())) == expected
    assert ours.run(0).frames == len(expected)


@pytest.mark.parametrize("name", ["reference-mlp", "reference-beit"])
@torch.no_grad()
def test_pooled_vectors_are_fed_as_the_presets_have_them(bench: ModuleType, name: str) -> None:
    network = Maven(small(name)).eval()
    for parameter in network.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape))
    b, t = 2, 7
    sizes = {"visual": t, "audio": 1, "text": 1}
    values = {m: torch.randn(b, sizes[m], WIDTHS[m]) for m in MODALITIES}
    mask = torch.ones(b, t, dtype=torch.bool)
    repeated = {m: x.expand(-1, t, -1) for m, x in values.items()}
    expected = network.outputs(repeated, dict.fromkeys(MODALITIES, mask), torch.arange(t)[None])
    actual = bench.pooled_outputs(network, values, mask)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "paper"])
def test_the_published_loop_trains(bench: ModuleType, root: Path, name: str) -> None:
    torch.manual_seed(0)
    network = Maven(small(name, rate_hz=30.0, dropout=0.0, head_dropout=0.0))
    loop = bench.Published(root / "published", network, 3)
    before = [parameter.clone() for parameter in network.parameters()]
    tally = loop.run(0)
    assert tally.steps == 1
    assert 0 < tally.frames <= loop.figures[2]
    assert all(map(math.isfinite, (*tally.losses, *loop.figures)))
    assert 0 < tally.reading_s < tally.seconds
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_its_agreement_has_the_moments_of_the_published_code(bench: ModuleType) -> None:
    """Unbiased variance, biased covariance."""
    x, y = torch.randn(2, 30, dtype=torch.float64)
    variance = np.var(x.numpy(), ddof=1) + np.var(y.numpy(), ddof=1)
    expected = 2 * np.cov(x, y, ddof=0)[0, 1] / (variance + (x.mean() - y.mean()).item() ** 2)
    assert bench.number_ccc(x, y) == pytest.approx(expected, rel=1e-6)


def test_the_command_prints_rows_and_ratios(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "WIDTHS", WIDTHS)
    monkeypatch.setattr(bench, "preset", small)
    monkeypatch.setattr(bench, "WARM_S", 0.0)
    arguments = ["--rounds", "2", "--seconds", "0", "--videos", "2", "--length", "8"]
    monkeypatch.setattr(sys, "argv", ["training.py", *arguments])
    bench.main()
    printed = capsys.readouterr().out
    assert "torch" in printed.splitlines()[0]
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")]
    assert rows == ["", "---", *bench.ROWS, "ratio", "---", *bench.RATIOS]
    assert "nan" not in printed
