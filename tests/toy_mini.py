"""A model folder of the embedded kind with random weights, for tests of everything but accuracy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from maven.checkpoint import ModelCard, save
from maven.config import MODALITIES, MavenConfig
from maven.encoders.build import EncoderSpec
from maven.encoders.faces import FaceNet, MiniVisual
from maven.encoders.voices import MiniAudio, VoiceNet, numbered
from maven.encoders.words import BUCKETS, MiniText
from maven.model import Maven


class Bomb:
    """Makes a folder when it is unpickled: what a hostile model may hold."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def save_toy_mini(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(FaceNet().state_dict(), folder / "visual.safetensors")
    save_file(numbered([VoiceNet()]), folder / "audio.safetensors")
    lexicon = {"table": torch.randn(BUCKETS, 2), "idf": torch.ones(BUCKETS), "bias": torch.zeros(2)}
    save_file(lexicon, folder / "text.safetensors")
    config = MavenConfig(MiniVisual.width, MiniAudio.width, MiniText.width, width=16, join_width=16)
    specs = {m: EncoderSpec("mini", f"{m}.safetensors") for m in MODALITIES}
    save(Maven(config), ModelCard("toy", config, specs, 0.5), folder)
    return folder
