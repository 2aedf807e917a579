"""Models as ONNX: every kind of network, whole folders, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import typer
from onnx import TensorProto, numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import maven.export as exporting
from maven import graphs
from maven.checkpoint import ModelError, load, load_network, read_card, save
from maven.config import SLACK_S, MavenConfig, preset
from maven.export import block_of, export, export_network, sound, window
from maven.exporting import export as command
from maven.graphs import ExportError, checked, write_graph
from maven.model import Maven
from maven.portable import GRAPHS, OnnxNetwork, read_graph
from toy_mini import save_toy_mini
from toy_paper import save_toy_paper

WIDTHS = {"visual": 5, "audio": 4, "text": 3}
SMALL: dict[str, Any] = {"width": 16, "heads": 2, "head_widths": (16, 8)}
JOINED = SMALL | {"join_width": 16, "join_heads": 2, "join_layers": 1, "join_feed": 16}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model; its weights are in half precision, as those of mini."""
    folder = save_toy_mini(tmp_path_factory.mktemp("toy") / "toy")
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        save_file({k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}, path)
    (folder / "LICENSE").write_text("free\n")
    return folder


@pytest.fixture(scope="module")
def exported(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "new" / "toy"
    made = export(toy, out)
    assert made.folder == out
    assert made.differences.keys() == GRAPHS.keys()
    assert max(made.differences.values()) <= graphs.TOLERANCE
    assert made.left_out == {}
    return out


def lively(config: MavenConfig) -> Maven:
    """A network none of whose weights is where training begins."""
    torch.manual_seed(0)
    network = Maven(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def agrees(path: Path, network: Maven) -> None:
    graph = OnnxNetwork(read_graph(path, "network", 1), network.config)
    for ways, t in ((1, 1), (4, 37), (2, 260)):
        given = window(network.config, ways, t, seed=1)
        answers, expected = graph.answers(*given), network.answers(*given)
        assert np.ptp(expected) > 0.01 or t == 1
        np.testing.assert_allclose(answers, expected, atol=graphs.TOLERANCE)


@pytest.mark.parametrize("name", ["paper", "reference-beit"])
def test_every_preset_is_exported(name: str, tmp_path: Path) -> None:
    """`default` is that of the toy model, `reference-mlp` that of the command's test."""
    network, path = lively(preset(name, WIDTHS, **JOINED)), tmp_path / "network.onnx"
    assert export_network(network, path, "hash") < graphs.TOLERANCE
    assert read_graph(path, "network").about["weights_sha256"] == "hash"
    agrees(path, network)


@pytest.mark.parametrize(("radius_s", "rate_hz"), [(2.0, 10.0), (1.3, 10.0), (0.05, 10.0), (2, 30)])
def test_a_block_is_as_many_frames_as_a_radius_spans(radius_s: float, rate_hz: float) -> None:
    config = preset("default", WIDTHS, radius_s=radius_s, rate_hz=rate_hz)
    times_s = np.arange(200) / rate_hz
    near = np.count_nonzero(times_s[1:] <= radius_s + SLACK_S)
    assert block_of(config) == max(near, 1)
    assert block_of(preset("paper", WIDTHS)) is None


def test_an_exported_folder_is_the_model(toy: Path, exported: Path) -> None:
    names = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert names == {"LICENSE", "config.json", "text.safetensors", *GRAPHS.values()}
    assert read_card(exported) == read_card(toy)
    model, plain = load(exported, runtime="onnx"), load(toy, device="cpu")
    assert (model.runtime, plain.runtime) == ("onnx", "torch")
    assert model.weights_hash == plain.weights_hash
    assert model.encoders.fingerprint == plain.encoders.fingerprint
    assert load(exported).runtime == "onnx"
    with pytest.raises(ModelError, match=r"exported model, without model\.safetensors"):
        load(exported, runtime="torch")

    assert isinstance(plain.network, Maven)
    agrees(exported / GRAPHS["network"], plain.network)
    crops = np.random.default_rng(0).integers(0, 256, (19, 56, 56, 3), dtype=np.uint8)
    for pictures in (crops, crops[:1], crops[:0]):
        vectors = model.encoders.visual(pictures)
        np.testing.assert_allclose(vectors, plain.encoders.visual(pictures), atol=1e-4)
    for n in (0, 639, 640, 25_000, 200_000):
        samples = sound(n)
        vectors = model.encoders.audio(samples)
        np.testing.assert_allclose(vectors, plain.encoders.audio(samples), atol=1e-4)
    said = ["so", "happy", "today"]
    np.testing.assert_array_equal(model.encoders.text(said), plain.encoders.text(said))


def test_weights_of_half_precision_stay_so(exported: Path, toy: Path) -> None:
    model = onnx.load(exported / GRAPHS["visual"])
    kinds = {t.data_type for t in model.graph.initializer if np.prod(t.dims) > 1000}
    assert kinds == {TensorProto.FLOAT16}
    assert (exported / GRAPHS["visual"]).stat().st_size < 1.1 * (
        (toy / "visual.safetensors").stat().st_size
    )


def test_weights_of_full_precision_are_not_rounded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32), torch.randn(5, 64)
    path = tmp_path / "layer.onnx"
    shapes = {"input": {0: torch.export.Dim("n")}}
    write_graph(layer.eval(), (x,), shapes, path, {"part": "layer"})
    tensors = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    (weight,) = [t for t in tensors if t.size == 64 * 32]
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(np.sort(weight.ravel()), np.sort(layer.weight.detach().ravel()))
    answers = read_graph(path, "layer").run(input=x.numpy())
    np.testing.assert_allclose(answers, layer(x).detach(), atol=1e-5)


class Tiny(nn.Module):
    """Digital silence has a finite logarithm only if the graph keeps what is added to it."""

    def forward(self, x: Tensor) -> Tensor:
        """(n,) -> (n,)."""
        return (x + 1e-10).log()


def test_what_is_small_is_not_taken_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    x = torch.tensor([0.0, 1.0, 2.0])
    write_graph(Tiny(), (x,), {"x": {0: torch.export.Dim("n")}}, path, {"part": "tiny"})
    answers = read_graph(path, "tiny").run(x=x.numpy())
    np.testing.assert_allclose(answers, np.log(x.numpy() + 1e-10), rtol=1e-5)


# --- refused -----------------------------------------------------------------------------------


def test_a_graph_that_is_off_leaves_nothing_behind(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(network: Maven, path: Path, weights_sha256: str) -> float:
        path.write_bytes(b"half of a graph")
        return checked(path, [1e-6, 2e-4])

    monkeypatch.setattr(exporting, "export_network", broken)
    with pytest.raises(ExportError, match=r"^network\.onnx: differs from PyTorch by 2\.0e-04"):
        export(toy, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_differences_are_checked() -> None:
    path = Path("network.onnx")
    assert checked(path, [1e-6, 2e-6]) == 2e-6
    for one, other in ((np.zeros(3), np.zeros(4)), (np.full(3, np.nan), np.zeros(3))):
        with pytest.raises(ExportError, match="differs from PyTorch by inf"):
            checked(path, [graphs.apart(one, other)])

    def fails() -> Any:
        raise RuntimeError("in the\nmiddle")
        yield

    with pytest.raises(ExportError, match=r"network\.onnx: onnxruntime cannot run it: in the mid"):
        checked(path, fails())


def test_what_pytorch_cannot_export_is_one_line(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if float(x.sum()) > 0 else x

    with pytest.raises(ExportError, match=r"^odd\.onnx: PyTorch cannot export") as refused:
        write_graph(Odd(), (torch.ones(3),), {"x": {}}, tmp_path / "odd.onnx", {})
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_taken_and_models_that_are_not_there(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    for taken in (tmp_path / "full", tmp_path / "full" / "letter.txt", toy):
        with pytest.raises(ExportError, match="is there already"):
            export(toy, taken)
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
    with pytest.raises(ModelError, match="no model named nosuch"):
        export("nosuch", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_its_packages_it_says_which(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "NEEDED", ("onnx", "not_there_at_all"))
    with pytest.raises(
        ExportError, match=r"^needs not_there_at_all: pip install 'maven\[export\]'"
    ):
        export(toy, tmp_path / "out")


# --- the command -------------------------------------------------------------------------------


def test_the_command_and_the_network_alone_of_other_encoders(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    card = read_card(save_toy_paper(tmp_path))
    network = lively(preset("reference-mlp", WIDTHS, **SMALL))
    save(network, replace(card, name="small", config=network.config), tmp_path / "small")
    out = tmp_path / "made" / "out"
    done = CliRunner().invoke(app, [str(tmp_path / "small"), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "no graph of the audio encoder, which is of kind hubert" in done.output
    assert f"Wrote {out}: largest differences from PyTorch: network" in done.output
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {"config.json", GRAPHS["network"]}
    about = read_graph(out / GRAPHS["network"], "network").about
    assert about["weights_sha256"] == load_network(tmp_path / "small").weights_hash
    agrees(out / GRAPHS["network"], network)
    with pytest.raises(ModelError, match="lacks graphs"):
        load(out, runtime="onnx")

    again = CliRunner().invoke(app, [str(tmp_path / "small"), "-o", str(out)])
    assert again.exit_code == 2
    assert "is there already; give a new folder" in again.output
    missing = CliRunner().invoke(app, ["nosuch", "-o", str(tmp_path / "other")])
    assert missing.exit_code == 1
    assert "maven: no model named nosuch" in missing.output
