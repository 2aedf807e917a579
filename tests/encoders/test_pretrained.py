"""How the paper's networks are run: passes side by side, weights in bfloat16, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.encoders.paper import HubertAudio, RobertaText, SwinVisual
from maven.encoders.pretrained import MAX_CROPS, MAX_PASSES, side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 80), threads=st.integers(1, 12))
def test_passes_cover_the_crops_in_order(n: int, threads: int) -> None:
    before = torch.get_num_threads()
    crops = np.arange(n, dtype=np.uint8)[:, None, None, None]
    sizes, within, names = [], [], set()

    def encode(part: Any) -> torch.Tensor:
        sizes.append(len(part))
        within.append(torch.get_num_threads())
        names.add(threading.get_ident())
        return torch.from_numpy(part[:, 0, 0, 0])

    torch.set_num_threads(threads)
    try:
        features = side_by_side(encode, crops)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(torch.cat(features).numpy(), np.arange(n))
    assert max(sizes) <= MAX_CROPS
    assert len(names) <= min(threads, MAX_PASSES, len(sizes))
    assert max(within) * min(threads, MAX_PASSES, len(sizes)) <= threads


@pytest.mark.usefixtures("two_threads")
def test_passes_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)

    def encode(part: Any) -> torch.Tensor:
        both.wait()
        return torch.zeros(len(part))

    assert len(torch.cat(side_by_side(encode, np.zeros((8, 1, 1, 3), np.uint8)))) == 8


@pytest.mark.usefixtures("two_threads")
def test_a_failing_pass_is_heard_of_and_leaves_no_trace() -> None:
    def encode(part: Any) -> torch.Tensor:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        side_by_side(encode, np.zeros((8, 1, 1, 3), np.uint8))
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_passes_side_by_side_are_one_pass_after_the_other(swin_dir: Path) -> None:
    swin = SwinVisual(swin_dir, precision="fp32")
    crops = np.random.default_rng(0).integers(0, 256, (11, 56, 56, 3), dtype=np.uint8)
    beside = swin(crops)
    torch.set_num_threads(1)
    np.testing.assert_allclose(beside, swin(crops), atol=1e-6)


def autocast_alone(model: Any, **inputs: torch.Tensor) -> np.ndarray:
    """The network with float32 weights, which autocast casts in the pass."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return model.eval()(**inputs).last_hidden_state.float().numpy()


def test_weights_cast_once_are_those_that_autocast_casts(
    swin_dir: Path, hubert_dir: Path, roberta_dir: Path
) -> None:
    """Equal to the last bit; what autocast leaves in float32 stays so."""
    pixels = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    cases: list[tuple[Any, Any, dict[str, torch.Tensor]]] = [
        (SwinVisual(swin_dir, precision="bf16"), transformers.SwinModel, {"pixel_values": pixels}),
        (
            HubertAudio(hubert_dir, precision="bf16"),
            transformers.HubertModel,
            {"input_values": torch.from_numpy(np.sin(np.arange(8000.0))[None]).float()},
        ),
        (
            RobertaText(roberta_dir, precision="bf16"),
            transformers.RobertaModel,
            {"input_ids": torch.arange(5, 60)[None]},
        ),
    ]
    for encoder, network, inputs in cases:
        expected = autocast_alone(network.from_pretrained(encoder.folder), **inputs)
        states = encoder.run("last_hidden_state", **inputs)
        assert states.dtype == torch.float32
        np.testing.assert_array_equal(states.numpy(), expected)
        kinds = {
            type(module).__name__: weight.dtype
            for module in encoder._model.modules()
            for weight in module.parameters(recurse=False)
        }
        assert kinds["Packed"] == torch.bfloat16
        assert "Linear" not in kinds
        assert kinds["LayerNorm"] == torch.float32


def test_in_float32_no_weight_is_cast(hubert_dir: Path) -> None:
    model = HubertAudio(hubert_dir, precision="fp32")._model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_on_a_processor_one_network_runs_at_a_time(swin_dir: Path, hubert_dir: Path) -> None:
    swin, hubert = SwinVisual(swin_dir), HubertAudio(hubert_dir)
    done = threading.Event()

    def hear() -> None:
        hubert(np.zeros(1600, np.float32))
        done.set()

    thread = threading.Thread(target=hear)
    with swin.alone():
        thread.start()
        assert not done.wait(0.2)
    thread.join(20)
    assert done.is_set()


def test_a_crop_for_each_cell_of_the_networks_grid_is_worth_encoding(swin_dir: Path) -> None:
    assert SwinVisual(swin_dir).rate_hz == 10.0
