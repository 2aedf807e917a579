"""Settings of a training: what is accepted, what is refused and how that reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from maven.config import MODALITIES
from maven.recipe import (
    TrainConfig,
    TrainError,
    check_keys,
    parse,
    parse_overrides,
    resolve,
    train_config,
)

# --- the loop's settings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"epochs": 0}, "epochs must be above 0"),
        ({"epochs": 2.5}, "epochs must be of type int, got 2.5"),
        ({"epochs": True}, "epochs must be of type int"),
        ({"batch": -1}, "batch must be above 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": "fast"}, "learning_rate must be of type float, got 'fast'"),
        ({"weight_decay": float("nan")}, "weight_decay must be 0 or more and finite"),
        ({"clip": float("inf")}, "clip must be 0 or more and finite"),
        ({"warmup": 1.5}, r"warmup must be in \[0, 1\]"),
        ({"ema": -0.1}, "ema must be 0 or more"),
        ({"drop_modality": 2.0}, r"drop_modality must be in \[0, 1\]"),
        ({"loss": "mae"}, "loss must be one of ccc, mse, ccc-no-gradient, theta, got 'mae'"),
        ({"schedule": "step"}, "schedule must be one of cosine, constant"),
        ({"precision": "16"}, "precision must be one of 32-true, bf16-mixed"),
        ({"mask_invalid": 1}, "mask_invalid must be of type bool"),
        ({"smoothing_s": ()}, "smoothing_s must be half-widths"),
        ({"smoothing_s": (0.5, -1)}, "smoothing_s must be half-widths"),
        ({"smoothing_s": 1.0}, "smoothing_s must be half-widths"),
        ({"smoothing_s": "1"}, "smoothing_s must be half-widths"),
        ({"device": 0}, "device must be of type str"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TrainConfig(**setting)


def test_whole_numbers_are_numbers() -> None:
    assert TrainConfig(learning_rate=1, window_s=8).learning_rate == 1


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 37, 400])
def test_the_rate_rises_then_falls(warmup: float, steps: int) -> None:
    config = TrainConfig(learning_rate=2e-3, warmup=warmup)
    rates = np.array([config.rate(step, steps) for step in range(steps)])
    warm = round(warmup * steps)
    assert (rates > 0).all()
    assert rates.max() <= 2e-3
    np.testing.assert_allclose(np.diff(rates[:warm]), 2e-3 / max(warm, 1))
    assert (np.diff(rates[warm:]) < 0).all()
    if warm < steps:
        assert rates[warm] == 2e-3
        assert rates[-1] < 2e-3 * (0.01 if steps - warm > 20 else 1.01)
    held = TrainConfig(learning_rate=2e-3, warmup=warmup, schedule="constant")
    assert [held.rate(step, steps) for step in range(warm, steps)] == [2e-3] * (steps - warm)


# --- the command line --------------------------------------------------------------------------


def test_values_are_yaml() -> None:
    changes = parse_overrides(
        ["train.epochs=3", "train.learning_rate=1e-3", "network.width=64", "fold=2",
         "train.smoothing_s=[0, 1.5]", "train.mask_invalid=false", "start=null", "name=a=b",
         "network.head=theta", "modalities=[visual]"]
    )  # fmt: skip
    assert changes["train"] | {"learning_rate": 0} == {
        "epochs": 3, "learning_rate": 0, "smoothing_s": [0, 1.5], "mask_invalid": False,
    }  # fmt: skip
    assert changes["network"] == {"width": 64, "head": "theta"}
    assert changes["fold"] == 2
    assert changes["start"] is None
    assert changes["name"] == "a=b"
    resolved = resolve({"features": "store"}, changes)
    assert resolved["train"]["learning_rate"] == 1e-3
    assert resolved["modalities"] == ["visual"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train.epoch=3", "unknown key train.epoch; accepted: epochs, batch,"),
        ("epochs=3", "unknown key epochs; accepted: features, encoders, fold,"),
        ("network.deep=3", "unknown key network.deep; accepted: visual_width,"),
        ("trian.epochs=3", "unknown key trian; accepted: features,"),
        ("train.epochs", "'train.epochs' sets nothing; accepted: key=value"),
        ("=3", "sets nothing"),
        ("train.=3", "sets nothing"),
        ("train={epochs: 3}", "'train' cannot be set; accepted: train.epochs, "),
        ("fold.x=3", "'fold.x' cannot be set; accepted: fold"),
        ("train.epochs=[1", r"'\[1' is no YAML value"),
    ],
)
def test_what_cannot_be_set_is_refused(text: str, reason: str) -> None:
    with pytest.raises(TrainError, match=reason) as caught:
        parse_overrides([text])
    assert "\n" not in str(caught.value)


# --- the file ----------------------------------------------------------------------------------


def test_everything_is_filled_in_and_stays_when_read_again(tmp_path: Path) -> None:
    resolved = resolve({"features": "store", "train": {"epochs": 7}, "network": {"width": 32}})
    assert Path(resolved["features"]).is_absolute()
    assert resolved["fold"] == "official"
    assert resolved["preset"] == resolved["name"] == "default"
    assert resolved["modalities"] == list(MODALITIES)
    assert resolved["train"]["epochs"] == 7
    assert train_config(resolved) == TrainConfig(epochs=7)
    assert resolve(resolved) == resolved
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(resolved))
    assert resolve(yaml.safe_load(path.read_text())) == resolved


def test_changes_go_into_their_section_and_leave_the_rest() -> None:
    config = {"features": "s", "network": {"width": 32, "heads": 2}, "train": None}
    resolved = resolve(config, {"network": {"width": 64}, "preset": "paper"})
    assert resolved["network"] == {"width": 64, "heads": 2}
    assert resolved["preset"] == "paper"
    assert config["network"] == {"width": 32, "heads": 2}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "features must name a feature store, got None"),
        ({"features": 3}, "features must name a feature store, got 3"),
        ({"features": "~no-such-user/x"}, "features: ~no-such-user/x: no such home"),
        ({"features": "s", "epochs": 3}, "unknown key epochs; accepted: features, encoders"),
        ({"features": "s", "train": {"lr": 1}}, "unknown key train.lr; accepted: epochs"),
        ({"features": "s", "train": [1]}, r"train must be a mapping, got \[1\]"),
        ({"features": "s", "train": {"epochs": "many"}}, "train: epochs must be of type int"),
        ({"features": "s", "preset": "large"}, "no preset 'large'; accepted: default, paper"),
        ({"features": "s", "fold": 6}, "fold must be official or 0 to 5, got 6"),
        ({"features": "s", "fold": True}, "fold must be official"),
        ({"features": "s", "modalities": []}, "modalities must be some of visual, audio, text"),
        ({"features": "s", "modalities": ["smell"]}, r"modalities must be some .* \['smell'\]"),
        ({"features": "s", "modalities": "visual"}, "modalities must be some"),
        ([1, 2], "a mapping of features, encoders"),
        ("text", "a mapping of features"),
    ],
)
def test_a_wrong_file_is_refused(config: Any, reason: str) -> None:
    with pytest.raises(TrainError, match=reason) as caught:
        resolve(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1" + ":1" * 200 + ".5", "a: &x [1]\nb: *x", "[" * 5000, "[1"])
def test_what_yaml_cannot_read_is_one_line(text: str) -> None:
    with pytest.raises(TrainError, match=r"^no YAML: ") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_keys_are_checked_by_place() -> None:
    check_keys({"features": "x", "train": {"epochs": 1}}, "here")
    with pytest.raises(TrainError, match=r"^there: unknown key colour"):
        check_keys({"colour": 1}, "there")
