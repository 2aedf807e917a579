"""A store of synthetic features that name the embedded encoders, and a recipe of a second."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from maven.encoders.build import build
from maven.extract import described, specs_of
from maven.recipe import resolve
from maven.store import Manifest, write_manifest
from planted import write_store

SIZES: dict[str, Any] = {
    "width": 8, "heads": 2, "join_width": 8, "join_heads": 2, "join_layers": 1, "join_feed": 16,
    "head_widths": [8, 4],
}  # fmt: skip
TRAIN: dict[str, Any] = {
    "epochs": 2, "batch": 4, "window_s": 5.0, "device": "cpu", "smoothing_s": [0.0, 0.5],
}  # fmt: skip


@lru_cache(maxsize=1)
def mini_encoders() -> dict[str, dict[str, Any]]:
    """What a manifest says of the encoders in the package."""
    _, specs, folder = specs_of("mini")
    encoders = build(specs, folder=folder, device="cpu", offline=True)
    return {m: described(specs[m], encoder) for m, encoder in vars(encoders).items()}


def write_mini_store(folder: Path, name: str = "mini") -> Manifest:
    """Seven videos of 10 to 16 s: video0 to 3 to train, 4 and 5 to validate, 6 without labels."""
    made = write_store(folder, train=4, val=3, encoders=mini_encoders(), name=name)
    *labelled, last = made.clips
    unlabelled = replace(last, split="test", labels=None)
    made = replace(made, clips=(*labelled, unlabelled))
    write_manifest(folder, made)
    return made


def recipe(store: Path, **changes: Any) -> dict[str, Any]:
    """A configuration, resolved; `changes` are its keys."""
    config = {"features": str(store), "network": SIZES, "train": TRAIN}
    return resolve(config, changes)


def write_recipe(path: Path, store: Path, **keys: Any) -> Path:
    config = {"features": str(store), "network": SIZES, "train": TRAIN}
    path.write_text(yaml.safe_dump(config | keys))
    return path
