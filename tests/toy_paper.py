"""A model folder named `paper`: the paper's architectures in toy size, with random weights."""

from __future__ import annotations

from pathlib import Path

from maven.checkpoint import ModelCard, save
from maven.config import MavenConfig
from maven.encoders.build import EncoderSpec
from maven.model import Maven
from toy_models import save_hubert, save_roberta, save_swin


def save_toy_paper(shelf: Path) -> Path:
    folder = shelf / "paper"
    save_swin(folder / "swin")
    save_hubert(folder / "hubert")
    save_roberta(folder / "roberta")
    kinds = {"visual": "swin", "audio": "hubert", "text": "roberta"}
    specs = {modality: EncoderSpec(kind, kind) for modality, kind in kinds.items()}
    config = MavenConfig(32, 32, 32, width=16, join_width=16)
    save(Maven(config), ModelCard("paper", config, specs), folder)
    return folder
