"""Which runtime a model loads with, and graphs that do not fit their folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from maven.checkpoint import MINI_FOLDER, ModelError, load, load_network
from maven.encoders.base import EncoderError


def refusal(error: type[Exception], folder: Path, **asked: Any) -> str:
    """Return the one line with which loading is refused."""
    with pytest.raises(error) as refused:
        load(folder, **asked)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """A copy of the shipped model, which has weights and graphs."""
    return Path(shutil.copytree(MINI_FOLDER, tmp_path / "mini"))


def test_graphs_are_taken_where_they_are_there(toy: Path, mini: Path) -> None:
    assert load(mini, device="cpu").runtime == "onnx"
    assert load(mini, runtime="torch", device="cpu").runtime == "torch"
    assert load(toy).runtime == "torch"
    (mini / "onnx" / "audio.onnx").unlink()
    assert load(mini, device="cpu").runtime == "torch"
    assert "`maven export` makes them" in refusal(ModelError, mini, runtime="onnx")
    message = refusal(ModelError, toy, runtime="onnx")
    assert message.startswith(f"{toy} lacks graphs for the runtime onnx")


def test_runtimes_that_cannot_be_are_refused(mini: Path) -> None:
    accepted = "no runtime tensorflow; accepted: auto, onnx, torch"
    assert refusal(ModelError, mini, runtime="tensorflow") == accepted
    message = refusal(ModelError, mini, runtime="onnx", device="cuda:1")
    assert message == "the runtime onnx runs on the processor; got the device cuda:1"


def test_graphs_of_other_weights_are_refused(toy: Path, mini: Path) -> None:
    shutil.copyfile(toy / "visual.safetensors", mini / "visual.safetensors")
    message = refusal(ModelError, mini)
    assert message.endswith("visual.onnx was made from other weights than visual.safetensors:"
                            " export again")  # fmt: skip
    assert load(mini, runtime="torch", device="cpu").runtime == "torch"
    for modality in ("visual", "audio"):  # graphs need none beside them
        (mini / f"{modality}.safetensors").unlink()
    assert load(mini).runtime == "onnx"
    tensors = load_file(mini / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, mini / "model.safetensors")
    assert "network.onnx was made from other weights" in refusal(ModelError, mini)
    (mini / "model.safetensors").unlink()
    assert load(mini).runtime == "onnx"
    with pytest.raises(ModelError, match=r"without model\.safetensors"):
        load_network(mini)


@pytest.mark.parametrize("part", ["network", "visual", "audio", "text"])
def test_damaged_graphs_are_refused(mini: Path, part: str) -> None:
    path = mini / ("text.safetensors" if part == "text" else f"onnx/{part}.onnx")
    path.write_bytes(path.read_bytes()[:1000])
    error = EncoderError if part == "text" else ModelError
    assert path.name in refusal(error, mini, runtime="onnx")


@pytest.mark.parametrize("name", ["model", "visual", "audio"])
def test_weights_beside_graphs_are_looked_at_before_they_are_read(mini: Path, name: str) -> None:
    os.truncate(mini / f"{name}.safetensors", 2**36)  # sparse: nothing of it is on the disk
    message = refusal(ModelError, mini, runtime="onnx")
    assert f"{name}.safetensors: no weights of maven's: {2**36} bytes; accepted: up to" in message


def test_threads_hold_for_torch_too(toy: Path) -> None:
    before = torch.get_num_threads()
    try:
        load(toy, device="cpu", threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
