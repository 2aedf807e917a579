"""Planted problems: clips whose visual features tell the labels, in memory and as a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from maven.config import MODALITIES, preset
from maven.datasets.clips import Clip, moment_sample
from maven.features import Features
from maven.model import Maven
from maven.store import ClipKeys, Manifest, Store, key, write_manifest

RATE_HZ = 5.0
FRAME_HZ = 10.0
WIDTHS = {"visual": 6, "audio": 4, "text": 3}
TINY = {
    "width": 16, "heads": 2, "join_width": 16, "join_heads": 2, "join_layers": 1,
    "head_widths": (16, 8), "rate_hz": RATE_HZ, "dropout": 0.1,
}  # fmt: skip


def planted(seed: int, frames: int = 40, split: str = "train", name: str = "") -> Clip:
    """Visual features linear in the labels; sound and words are noise, partly unobserved."""
    random = np.random.default_rng(seed)
    time_s = np.arange(frames) / RATE_HZ
    labels = course(time_s, random)
    values = {m: random.normal(size=(frames, d)).astype(np.float32) for m, d in WIDTHS.items()}
    values["visual"] = (labels @ mixing() + 0.05 * values["visual"]).astype(np.float32)
    observed = {m: random.uniform(size=frames) < 0.8 for m in MODALITIES}
    for m in MODALITIES:
        values[m][~observed[m]] = 0
    return Clip(
        name or f"clip{seed}", split, Features(time_s, values, observed), labels, time_s, labels
    )


def course(time_s: np.ndarray, random: np.random.Generator) -> np.ndarray:
    phase = random.uniform(0, 2 * np.pi, 2)
    wave = 0.6 * np.sin(2 * np.pi * time_s[:, None] / 6 + phase)
    return (wave + random.uniform(-0.3, 0.3, 2)).astype(np.float32)


def mixing() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, WIDTHS["visual"]))


def network(seed: int = 0, name: str = "default", **changes: Any) -> Maven:
    """A tiny network with its moments fitted."""
    torch.manual_seed(seed)
    made = Maven(preset(name, WIDTHS, **TINY | changes))
    for m in MODALITIES:
        made.fit_moments(m, torch.from_numpy(moment_sample([planted(k) for k in range(5)], m)))
    return made


def weights(made: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in made.state_dict().items()}


def write_store(
    folder: Path,
    train: int = 4,
    val: int = 2,
    encoders: dict[str, dict[str, Any]] | None = None,
    name: str = "toy",
) -> Manifest:
    """A store of `train` + `val` videos of 10 s and more, as `maven features` leaves it."""
    store = Store(folder)
    about = encoders or {
        m: {"kind": "none", "source": m, "revision": None, "name": m, "fingerprint": m, "width": d}
        for m, d in WIDTHS.items()
    }
    clips = []
    for k in range(train + val):
        random = np.random.default_rng(k)
        frame_s = 0.04 + np.arange(100 + 10 * k) / FRAME_HZ
        labels = course(frame_s, random)
        seen = np.flatnonzero(random.uniform(size=len(frame_s)) < 0.9) + 1
        width = int(about["visual"]["width"])
        mix = np.random.default_rng(0).normal(size=(2, width))
        faces = (labels[seen - 1] @ mix + 0.05 * random.normal(size=(len(seen), width))).astype(
            "f4"
        )
        marked = labels.copy()
        marked[::7] = -5
        hops_s = np.arange(0, frame_s[-1], 0.1)
        voice = random.normal(size=(len(hops_s), int(about["audio"]["width"]))).astype("f4")
        words = 8
        entries = {
            "frames": {"frame_s": frame_s, "held": np.array([len(frame_s)])},
            "labels": {"labels": marked},
            "visual": {"frames": seen, "values": faces.astype("f4")},
            "audio": {"times_s": hops_s, "values": voice, "spans_s": np.array([[1.0, 6.0]])},
            "words": {
                "texts": np.array(["word"] * words),
                "start_s": 1 + 0.5 * np.arange(words),
                "end_s": 1.4 + 0.5 * np.arange(words),
                "segment": np.zeros(words, np.int64),
                "confidence": np.full(words, np.nan),
                "vectors": random.normal(size=(words, int(about["text"]["width"]))).astype("f4"),
            },
        }
        keys = {kind: key(kind=kind, name=name, video=k) for kind in entries}
        for kind, arrays in entries.items():
            if not store.has(kind, keys[kind]):
                store.put(kind, keys[kind], arrays)
        split = "train" if k < train else "val"
        clips.append(
            ClipKeys(
                f"video{k}", split, "", None, keys["visual"], keys["audio"], keys["words"],
                keys["labels"], keys["frames"],
            )
        )  # fmt: skip
    manifest = Manifest(name, about, {}, "corpus", tuple(clips), (), "0")
    write_manifest(folder, manifest)
    return manifest
