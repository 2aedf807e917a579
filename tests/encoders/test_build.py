from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maven.encoders import build as registry
from maven.encoders.base import EncoderError
from maven.encoders.build import KINDS, PAPER, EncoderSpec, Kind, build


@pytest.fixture(scope="module")
def model_dir(
    tmp_path_factory: pytest.TempPathFactory, swin_dir: Path, hubert_dir: Path, roberta_dir: Path
) -> Path:
    """A model's folder that carries its encoders."""
    folder = tmp_path_factory.mktemp("model")
    for name, source in (("face", swin_dir), ("voice", hubert_dir), ("words", roberta_dir)):
        shutil.copytree(source, folder / "encoders" / name)
    return folder


INSIDE = {
    "visual": EncoderSpec("swin", "encoders/face"),
    "audio": EncoderSpec("hubert", "encoders/voice"),
    "text": EncoderSpec("roberta", "encoders/words"),
}


def refused(specs: dict[str, EncoderSpec], **options: Any) -> str:
    with pytest.raises(EncoderError) as caught:
        build(specs, **{"folder": None, "device": "cpu", "offline": True, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sources_inside_the_models_folder(model_dir: Path) -> None:
    encoders = build(INSIDE, folder=model_dir, device="cpu", offline=True)
    three = (encoders.visual, encoders.audio, encoders.text)
    assert [encoder.name for encoder in three] == ["swin", "hubert", "roberta"]
    assert len({encoders.fingerprint, *(encoder.fingerprint for encoder in three)}) == 4


def test_sources_elsewhere(
    model_dir: Path, swin_dir: Path, hubert_dir: Path, roberta_dir: Path
) -> None:
    specs = {
        "visual": EncoderSpec("swin", str(swin_dir)),
        "audio": EncoderSpec("hubert", str(hubert_dir)),
        "text": EncoderSpec("roberta", str(roberta_dir)),
    }
    outside = build(specs, folder=None, device="cpu", offline=True)
    inside = build(INSIDE, folder=model_dir, device="cpu", offline=True)
    assert outside.fingerprint == inside.fingerprint


def test_the_papers_encoders_come_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def kind(modality: str) -> Kind:
        return Kind((modality,), lambda *given: asked.append(given))

    kinds = {"swin": kind("visual"), "hubert": kind("audio"), "roberta": kind("text")}
    monkeypatch.setattr(registry, "KINDS", kinds)
    specs = {**PAPER, "text": replace(PAPER["text"], revision="v1")}
    build(specs, folder=tmp_path, device="cuda:1", offline=False)
    assert asked == [
        ("visual", "microsoft/swin-base-patch4-window7-224", None, "cuda:1", False),
        ("audio", "facebook/hubert-base-ls960", None, "cuda:1", False),
        ("text", "FacebookAI/roberta-base", "v1", "cuda:1", False),
    ]


def test_mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("maven.encoders.mini.load_mini", lambda *given: asked.append(given))
    specs = {name: EncoderSpec("mini", f"{name}.safetensors") for name in INSIDE}
    for name in INSIDE:
        (tmp_path / f"{name}.safetensors").touch()
    build(specs, folder=tmp_path, device="cpu", offline=True)
    assert asked == [(name, tmp_path / f"{name}.safetensors", "cpu") for name in INSIDE]


def test_mini_is_looked_for_in_the_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    specs = {name: EncoderSpec("mini", "x.safetensors") for name in INSIDE}
    assert "model/x.safetensors: not the weights" in refused(specs, folder=tmp_path / "model")


def test_faults_are_one_line(tmp_path: Path) -> None:
    two = {name: INSIDE[name] for name in ("visual", "audio")}
    assert "given for visual, audio; needed: one each for visual, audio, text" in refused(two)
    wrong = {**INSIDE, "audio": EncoderSpec("swin", "encoders/face")}
    assert refused(wrong) == "audio encoder of kind 'swin'; accepted: mini, hubert"
    unknown = {**INSIDE, "text": EncoderSpec("bert", "encoders/words")}
    assert refused(unknown) == "text encoder of kind 'bert'; accepted: mini, roberta"

    (tmp_path / "face.safetensors").write_bytes(b"not weights")
    mini = {name: EncoderSpec("mini", "face.safetensors") for name in INSIDE}
    assert "face.safetensors: not the weights of a mini visual" in refused(mini, folder=tmp_path)
    assert "face.safetensors: not the weights of a mini visual" in refused(mini)


def test_every_kind_serves_known_modalities() -> None:
    assert set(KINDS) == {"mini", "swin", "hubert", "roberta"}
    assert {m for kind in KINDS.values() for m in kind.modalities} == set(registry.MODALITIES)
