"""Model folders: what is saved comes back, and what is no model is refused in one line."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save_file

from maven import checkpoint
from maven.checkpoint import (
    Model,
    ModelCard,
    ModelError,
    available,
    choose_device,
    fetch,
    find,
    load,
    load_network,
    read_card,
    save,
    write_card,
)
from maven.config import MavenConfig
from maven.encoders.base import EncoderError
from maven.intervals import SETS, Intervals, name_of
from maven.model import Maven
from toy_mini import Bomb


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Calls of the network, every one of which fails."""
    made: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> NoReturn:
        made.append(arguments)
        raise OSError("the tests have no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("MAVEN_MODELS", raising=False)
    return made


@pytest.fixture
def copy(toy: Path, tmp_path: Path) -> Path:
    """A model folder to break."""
    return Path(shutil.copytree(toy, tmp_path / "copy"))


def refusal(error: type[Exception], call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    """Return the one line with which a call is refused."""
    with pytest.raises(error) as refused:
        call(*arguments, **named)
    message = str(refused.value)
    assert message
    assert "\n" not in message
    assert len(message) < 500
    return message


# Round trip


def test_what_is_saved_comes_back_bit_for_bit(toy: Path, model: Model, tmp_path: Path) -> None:
    config = MavenConfig(9, 11, 8, width=16, join_width=16, radius_s=1.3, dropout=0.1)
    network = Maven(config)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.uniform_(-1e3, 1e3)
    card = ModelCard(
        "näme",
        config,
        model.card.encoders,
        0.7,
        {"seed": 3, "ccc": [0.1, 0.2]},
        rest=((0.1, -0.2), (0.0, 0.3), (0.01, 0.0)),
    )
    folder = shutil.copytree(toy, tmp_path / "new" / "model")
    save(network, card, folder)

    again = load(str(folder), device="cpu")
    assert again.card == card
    assert not again.network.training
    state = again.network.state_dict()
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor), name
    weights = (folder / "model.safetensors").read_bytes()
    assert again.weights_hash == hashlib.sha256(weights).hexdigest()
    assert {path.name for path in folder.iterdir()} == {path.name for path in toy.iterdir()}

    save(again.network, again.card, tmp_path / "twin")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "twin" / name).read_bytes() == (folder / name).read_bytes()


def test_half_precision_weights_run_in_full(copy: Path) -> None:
    path = copy / "model.safetensors"
    halves = {name: tensor.half() for name, tensor in from_bytes(path.read_bytes()).items()}
    save_file(halves, path)
    state = load(copy, device="cpu").network.state_dict()
    for name, tensor in halves.items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], tensor.float())


def test_a_model_that_cannot_be_described_leaves_no_trace(model: Model, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save(model.network, replace(model.card, training={"when": object()}), tmp_path / "new")
    assert not (tmp_path / "new").exists()


# Where models are


def test_models_are_found_by_name_and_folder(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find("mini") == checkpoint.MINI_FOLDER
    assert find(str(toy)) == toy
    monkeypatch.chdir(toy.parent)
    assert find("toy") == Path("toy")
    monkeypatch.chdir(tmp_path)
    assert "toy" in refusal(ModelError, find, "toy")
    monkeypatch.setenv("MAVEN_MODELS", str(toy.parent))
    assert find("toy") == toy


def test_paper_has_no_published_weights(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAVEN_MODELS", str(toy.parent))
    message = refusal(ModelError, load, "paper")
    assert "train" in message
    assert "MAVEN_MODELS/paper" in message


@pytest.mark.parametrize("name", ["nosuch", "", "./nobody/nothing", "/nobody/nothing", "a/b/c"])
def test_what_is_nowhere_is_refused(name: str, calls: list[Any]) -> None:
    refusal(ModelError, load, name)
    assert calls == []


def test_a_folder_without_a_model_is_not_taken_for_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[Any]
) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert "config.json" in refusal(ModelError, load, "runs/one")
    assert calls == []


def test_a_hub_id_that_is_not_on_disk(calls: list[Any]) -> None:
    assert "offline" in refusal(ModelError, load, "nobody/nothing-of-the-kind", offline=True)
    assert calls == []
    message = refusal(ModelError, load, "nobody/nothing-of-the-kind")
    assert "hub cannot be reached" in message
    assert calls != []


def test_a_model_of_the_hub_comes_without_pickles(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(toy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert fetch("someone/model", offline=True) == toy
    assert asked["name"] == "someone/model"
    assert asked["local_files_only"] is True
    assert not any(Path("weights.bin").match(pattern) for pattern in asked["allow_patterns"])
    for file in ("model.safetensors", "onnx/network.onnx"):
        assert any(fnmatch(file, pattern) for pattern in asked["allow_patterns"])


def test_models_at_hand_are_listed(toy: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MINI_FOLDER", toy)
    (name, where, size, what), (paper, nowhere, *_) = available()
    assert (name, where) == ("toy", "in the package")
    megabytes = sum(path.stat().st_size for path in toy.iterdir()) / 1e6
    assert float(size.split()[0]) == pytest.approx(megabytes, abs=0.1)
    assert what.count("mini") == 3
    assert (paper, nowhere) == ("paper", "nowhere")

    (copy / "config.json").write_text("{}")
    copy.rename(copy.parent / "paper")
    monkeypatch.setenv("MAVEN_MODELS", str(copy.parent))
    assert [name for name, *_ in available()] == ["toy", "paper"]
    assert "broken" in available()[1][3]


def test_the_package_lists_models_even_without_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "MINI_FOLDER", tmp_path / "gone")
    assert [name for name, *_ in available()] == ["paper"]
    assert "config.json" in refusal(ModelError, load, "mini")


# Devices


def test_devices_that_are_not_here_are_refused() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for device in ("banana", "", "cuda:x", "cudagpu", f"cuda:{torch.cuda.device_count()}", "CPU"):
        assert repr(device)[1:-1] in refusal(ModelError, choose_device, device)


# What is broken

Change = Callable[[dict[str, Any]], Any]


def changed(**values: Any) -> Change:
    return lambda content: content | values


def network(**values: Any) -> Change:
    return lambda content: content | {"config": content["config"] | values}


BROKEN_CONFIGS: dict[str, Change] = {
    "list": lambda content: [content],
    "number": lambda content: 3,
    "empty": lambda content: {},
    "no encoders": lambda content: {k: v for k, v in content.items() if k != "encoders"},
    "encoders are a list": changed(encoders=["mini"]),
    "encoders are names": changed(encoders={"visual": "mini"}),
    "smoothing is a word": changed(smoothing_s="long"),
    "rest is of two": changed(rest=[[0.1, 0.2], [0.0, 0.0]]),
    "rest is not finite": changed(rest=[[0.1, 0.2], [0.0, 0.0], [float("nan"), 0.0]]),
    "config is null": changed(config=None),
    "unknown field": network(colour="red"),
    "width is zero": network(width=0),
    "width is a word": network(width="wide"),
    "width is immense": network(visual_width=10**15),
    "heads do not divide": network(heads=3),
    "layers are not whole": network(join_layers=1.5),
    "radius is NaN": network(radius_s=float("nan")),
}


@pytest.mark.parametrize("change", BROKEN_CONFIGS.values(), ids=BROKEN_CONFIGS)
def test_broken_configurations_are_refused(copy: Path, change: Change) -> None:
    path = copy / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert str(copy) in refusal(ModelError, load, copy, device="cpu")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'"' * 3])
def test_configurations_that_are_not_json_are_refused(copy: Path, content: bytes) -> None:
    (copy / "config.json").write_bytes(content)
    assert "config.json" in refusal(ModelError, read_card, copy)


def test_encoders_that_do_not_fit_are_refused(copy: Path) -> None:
    path = copy / "config.json"
    content = json.loads(path.read_text())
    content["encoders"]["visual"]["kind"] = "hubert"
    path.write_text(json.dumps(content))
    assert "hubert" in refusal(EncoderError, load, copy, device="cpu")

    config = MavenConfig(9, 64, 8, width=16, join_width=16)
    content["encoders"]["visual"]["kind"] = "mini"
    path.write_text(json.dumps(content))
    save(Maven(config), replace(read_card(copy), config=config), copy)
    message = refusal(ModelError, load, copy, device="cpu")
    assert "64 audio features" in message
    assert "11" in message


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[bytes]:
    yield pickle.dumps(Bomb(tmp_path / "exploded"))
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_goes_off_when_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["model", "visual", "audio", "text"])
def test_pickles_are_never_unpickled(copy: Path, name: str, bomb: bytes) -> None:
    (copy / f"{name}.safetensors").write_bytes(bomb)
    error = ModelError if name == "model" else EncoderError
    assert f"{name}.safetensors" in refusal(error, load, copy, device="cpu")


def test_a_pickle_beside_the_weights_is_not_looked_at(copy: Path, bomb: bytes) -> None:
    for name in ("pytorch_model.bin", "model.pt", "weights.pkl"):
        (copy / name).write_bytes(bomb)
    load(copy, device="cpu")
    (copy / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(ModelError, load, copy, device="cpu")


def test_weights_of_something_else_are_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    whole = path.read_bytes()
    tensors = from_bytes(whole)
    for content in (b"", b"weights", whole[:-1], whole[: len(whole) // 2], bytes(1000)):
        path.write_bytes(content)
        assert "model.safetensors" in refusal(ModelError, load, copy, device="cpu")
    some = dict(list(tensors.items())[1:])
    missing = next(iter(tensors))
    save_file(some, path)
    assert missing in refusal(ModelError, load, copy, device="cpu")
    save_file({**tensors, "more": torch.zeros(2)}, path)
    assert "more" in refusal(ModelError, load, copy, device="cpu")
    save_file({name: torch.zeros(2, 2, 2) for name in tensors}, path)
    assert "shape" in refusal(ModelError, load, copy, device="cpu")
    path.unlink()
    path.mkdir()
    assert "model.safetensors" in refusal(ModelError, load, copy, device="cpu")


# --- intervals ----------------------------------------------------------------------------------


def test_intervals_are_kept_in_the_card_and_models_without_have_none(copy: Path) -> None:
    weights = (copy / "model.safetensors").read_bytes()
    card = read_card(copy)
    assert card.intervals is None
    assert "intervals" not in json.loads((copy / "config.json").read_text())
    intervals = Intervals(0.9, 30, {name_of(pattern): np.full((2, 2, 2), 0.25) for pattern in SETS})
    write_card(replace(card, intervals=intervals), copy)
    again = load_network(copy, device="cpu").card.intervals
    assert again is not None
    assert again.to_json() == intervals.to_json()
    assert (copy / "model.safetensors").read_bytes() == weights


def test_broken_intervals_are_refused_in_one_line(copy: Path) -> None:
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(content | {"intervals": {"nominal": 0.9}}))
    assert "does not describe a model: it lacks 'offsets'" in refusal(ModelError, read_card, copy)
