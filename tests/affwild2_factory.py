"""The layout of Aff-Wild2 written on the fly: text files, label files, faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maven.datasets.affwild2 import CHALLENGE, SPLITS


def write(path: Path, text: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def label(root: Path, split: str, name: str, frames: int = 3) -> Path:
    rows = "0.25,-0.5\n" * frames
    return write(root / CHALLENGE / SPLITS[split] / f"{name}.txt", f"valence,arousal\n{rows}")


def faces(folder: Path, frames: int | list[int]) -> Path:
    """Write pictures of noise as the faces of frames 1 to n, or of those listed."""
    import cv2

    picture = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)
    content = cv2.imencode(".jpg", picture)[1].tobytes()
    for number in range(1, frames + 1) if isinstance(frames, int) else frames:
        write(folder / f"{number:05d}.jpg", content)
    return folder
