"""Published checkpoints and BEiT's layers against the outputs of the code they come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from maven.attention import Nearness
from maven.config import MODALITIES, PRESETS, preset
from maven.convert import (
    ConvertError,
    convert_published,
    read_published,
    start_beit,
)
from maven.encoders.base import EncoderError
from maven.model import Maven
from toy_models import save_beit, save_swin

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = ("mlp", "beit")


def golden(variant: str) -> dict[str, Tensor]:
    """Weights, inputs and outputs of the published code itself."""
    with safe_open(GOLDEN / f"reference_{variant}.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def weights(content: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix("weights."): x for k, x in content.items() if k.startswith("weights.")}


def sequences(
    content: dict[str, Tensor], padding: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """The published inputs as time-aligned sequences: pooled voice and words repeat."""
    video = content["input.video"]
    b, t, _ = video.shape
    features = {
        "visual": video,
        "audio": content["input.audio"][:, None].expand(-1, t, -1),
        "text": content["input.text"][:, None].expand(-1, t, -1),
    }
    observed = torch.ones(b, t, dtype=torch.bool)
    if padding:
        features = {
            m: torch.cat((x, 99 * torch.ones(b, padding, x.shape[2])), 1)
            for m, x in features.items()
        }
        observed = torch.cat((observed, torch.zeros(b, padding, dtype=torch.bool)), 1)
    return features, dict.fromkeys(MODALITIES, observed), torch.arange(t + padding)[None] / 30


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("padding", [0, 5])
@torch.no_grad()
def test_the_published_outputs_come_out(variant: str, padding: int) -> None:
    content = golden(variant)
    converted = convert_published(weights(content), join_heads=4 if variant == "beit" else None)
    assert converted.preset == f"reference-{variant}"
    features, observed, time_s = sequences(content, padding)
    outputs = converted.network.outputs(features, observed, time_s)[:, : time_s.shape[1] - padding]
    expected = content["output" if variant == "beit" else "output.theta_intensity"]
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=0)
    va = converted.network(features, observed, time_s)[:, : time_s.shape[1] - padding]
    if variant == "mlp":  # theta first
        theta, intensity = expected.double().unbind(-1)
        expected = torch.stack((intensity * theta.cos(), intensity * theta.sin()), -1).float()
    torch.testing.assert_close(va, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_published_enhancements_come_out() -> None:
    content = golden("mlp")
    network = convert_published(weights(content)).network
    features, observed, time_s = sequences(content)
    enhanced = network.enhanced(features, observed, Nearness.of(time_s, None))
    names = {"visual": "video", "audio": "audio", "text": "text"}
    for m, x in enhanced.items():
        expected = content[f"enhanced.{names[m]}"]
        expected = expected if m == "visual" else expected[:, None].expand_as(x)
        torch.testing.assert_close(x, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_key_bias_does_nothing(variant: str) -> None:
    """Ours has none; any other value in the published tensor gives the same network."""
    state = weights(golden(variant))
    changed = dict(state)
    for name, x in state.items():
        if name.endswith("in_proj_bias"):
            query, key, value = x.chunk(3)
            changed[name] = torch.cat((query, key + 3, value))
    ours, other = (convert_published(s).network.state_dict() for s in (state, changed))
    assert all(torch.equal(ours[name], other[name]) for name in ours)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("wrapped", ["plain", "module", "state_dict"])
def test_a_checkpoint_file_is_read(variant: str, wrapped: str, tmp_path: Path) -> None:
    state = weights(golden(variant))
    content: object = state
    if wrapped == "module":  # as nn.DataParallel names them
        content = {f"module.{name}": x for name, x in state.items()}
    elif wrapped == "state_dict":
        content = {"state_dict": state, "epoch": torch.tensor(3)}
    torch.save(content, tmp_path / "best_model.pth")
    read = read_published(tmp_path / "best_model.pth")
    assert read.keys() == state.keys()
    assert convert_published(read).preset == f"reference-{variant}"


class Evil:
    """Would write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (str(self.path),)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    torch.save({"a": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(ConvertError, match=r"evil\.pth: not a PyTorch checkpoint of tensors alone"):
        read_published(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in (
        ("text.pth", "not a PyTorch checkpoint"),
        ("list.pth", "no state dict"),
        ("none.pth", "cannot be read"),
    ):
        with pytest.raises(ConvertError, match=message) as error:
            read_published(tmp_path / name)
        assert name in str(error.value)


def test_other_names_and_shapes_are_refused() -> None:
    state = weights(golden("mlp"))
    with pytest.raises(ConvertError, match=r"no tensor named 'backbone\.weight'"):
        convert_published(state | {"backbone.weight": torch.zeros(2)})
    lacking = {k: x for k, x in state.items() if "fc.3" not in k}
    with pytest.raises(ConvertError, match=r"not a checkpoint of the published code.*fc|head"):
        convert_published(lacking)
    shape = {**state, "regressor.fc.6.weight": torch.zeros(3, 256)}
    with pytest.raises(ConvertError, match="size mismatch"):
        convert_published(shape)
    with pytest.raises(ConvertError, match="not a checkpoint of the published code"):
        convert_published({})


def test_heads_follow_beit_where_they_can_be_told() -> None:
    state = weights(golden("beit"))
    (note,) = convert_published(state).notes
    assert "took 4" in note
    assert convert_published(state, join_heads=2).network.config.join_heads == 2
    assert not convert_published(state, join_heads=2).notes
    assert PRESETS["reference-beit"]["join_heads"] == 768 // 64


def test_beits_own_places_of_patches_are_left_behind() -> None:
    state = weights(golden("beit"))
    name = "beit3_encoders.0.layer.0.attention.attention.relative_position_bias"
    extra = {f"{name}.relative_position_bias_table": torch.zeros(7, 4)}
    assert convert_published(state | extra).network.config.join_layers == 2


# --- BEiT to start from ---


def small(name: str = "paper", **changes: object) -> Maven:
    sizes = {"width": 16, "join_width": 32, "join_heads": 4, "join_feed": 128}
    widths = dict(zip(MODALITIES, (5, 4, 3), strict=True))
    return Maven(preset(name, widths, **sizes | changes)).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "layers"), [("paper", 4), ("paper", 1), ("reference-beit", 2), ("default", 2)]
)
def test_the_layers_become_beits(name: str, layers: int, tmp_path: Path) -> None:
    from transformers import BeitModel

    network = small(name, join_layers=layers)
    start_beit(network, save_beit(tmp_path), offline=True)
    beit = BeitModel.from_pretrained(tmp_path).eval()
    theirs = beit.layers if hasattr(beit, "layers") else beit.encoder.layer  # transformers 5, 4
    x = torch.randn(2, 6, 32)
    observed, near = torch.ones(2, 6, dtype=torch.bool), Nearness.of(torch.zeros(1, 6), None)
    for k, layer in enumerate(network.layers):
        near = near if layer.attention.time_bias is None else Nearness.of(torch.zeros(1, 6), 1.0)
        expected = theirs[k % layers % 2](x)
        expected = expected[0] if isinstance(expected, tuple) else expected
        torch.testing.assert_close(layer(x, observed, near), expected, atol=1e-5, rtol=0)


def test_layers_of_other_sizes_are_refused(tmp_path: Path) -> None:
    folder = save_beit(tmp_path, width=64)
    with pytest.raises(ConvertError, match=r"\(64, 4, 256\), the network's \(32, 4, 128\)"):
        start_beit(small(join_layers=2), folder, offline=True)
    with pytest.raises(EncoderError, match="not on disk"):
        start_beit(small(join_layers=2), offline=True)
    with pytest.raises(ConvertError, match="no layers of a BEiT encoder"):
        start_beit(small(join_layers=2), save_swin(tmp_path / "swin"), offline=True)


def test_old_weights_files_are_read_too(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    network, other = small(join_layers=2), small(join_layers=2)
    folder = save_beit(tmp_path)
    start_beit(network, folder, offline=True)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    start_beit(other, folder, offline=True)
    for ours, theirs in zip(network.layers.parameters(), other.layers.parameters(), strict=True):
        assert torch.equal(ours, theirs)
