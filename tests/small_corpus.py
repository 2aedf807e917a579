"""A corpus in the Aff-Wild2 layout of a few seconds, made from the demo clip, and its store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from demo_pieces import copy_piece
from maven import media
from maven.extract import extract
from maven.faces.crop import crop
from maven.faces.detect import CenterFace
from maven.faces.track import track_faces
from maven.store import Manifest, Recording, Store, load_entry
from toy_mini import save_toy_mini

SRT = "1\n00:00:00,200 --> 00:00:00,900\nSo happy today!\n"

Image = npt.NDArray[np.uint8]


def aligned_faces(path: Path) -> dict[int, Image]:
    """Crops (112, 112, 3) of the first person in a video, by frame counted from 1."""
    tracked = track_faces(media.frames(path), CenterFace())
    return {
        each.frame.index + 1: crop(each.frame.rgb, each.faces[0].landmarks_px)
        for each in tracked
        if each.faces
    }


def write_labels(root: Path, split: str, name: str, count: int) -> Path:
    path = root / "VA_Estimation_Challenge" / split / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    va = [(np.sin(k / 9) / 2, np.cos(k / 9) / 2) if k % 10 else (-5, -5) for k in range(count)]
    path.write_text("valence,arousal\n" + "".join(f"{v:.3f},{a:.3f}\n" for v, a in va))
    return path


def write_faces(root: Path, name: str, faces: dict[int, Image], quality: int = 95) -> Path:
    folder = root / "cropped_aligned" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, rgb in faces.items():
        bgr = np.ascontiguousarray(rgb[..., ::-1])
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
        assert cv2.imwrite(str(folder / f"{number:05d}.jpg"), bgr, flags)
    return folder


def write_small_corpus(root: Path) -> Path:
    """Five videos: two people of one medium, one without faces, one without medium, one broken.

    video59 and video59_right have 40 frames and a transcript beside them; of video59 the faces 3,
    4 and 5 are missing. 4-30-352x352 has 27 frames and 28 labels.
    """
    batch = root / "batch1"
    batch.mkdir(parents=True)
    faces = aligned_faces(copy_piece(batch / "video59.mp4"))
    (batch / "video59.srt").write_text(SRT)
    kept = {number: face for number, face in faces.items() if not 3 <= number <= 5}
    write_faces(root, "video59", kept)
    write_labels(root, "Train_Set", "video59", 40)
    write_faces(root, "video59_right", {n: face[:, ::-1] for n, face in faces.items()})
    write_labels(root, "Train_Set", "video59_right", 40)
    (batch / "broken.mp4").write_bytes(b"not a video at all")
    write_labels(root, "Train_Set", "broken", 10)
    copy_piece(batch / "4-30-352x352.mp4", until_s=1.0)
    write_labels(root, "Validation_Set", "4-30-352x352", 28)
    write_faces(root, "no_media", dict(list(faces.items())[:9]))
    write_labels(root, "Validation_Set", "no_media", 12)
    return root


def run(place: Path, **options: Any) -> Manifest:
    """Extract `place`/corpus with the model `place`/toy into `place`/store."""
    settings = {"device": "cpu", "offline": True} | options
    return extract(place / "corpus", place / "store", str(place / "toy"), **settings)


def write_place(place: Path) -> Path:
    """Write a corpus and a model folder, and bring the corpus into a store, for `run`."""
    write_small_corpus(place / "corpus")
    save_toy_mini(place / "toy")
    run(place)
    return place


def entries(place: Path) -> dict[str, tuple[int, int]]:
    """Every file of the store's entries: its inode and time."""
    files = [path for path in (place / "store" / "arrays").rglob("*") if path.is_file()]
    return {str(p.relative_to(place)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def kinds_made(place: Path, before: dict[str, tuple[int, int]]) -> list[str]:
    """The kinds of the entries that have come; those that were there are untouched."""
    after = entries(place)
    assert {path: after.get(path) for path in before} == before
    made = {Path(path).parent for path in after.keys() - before.keys()}
    return sorted(folder.parts[2] for folder in made)


def recordings(place: Path, manifest: Manifest) -> dict[str, Recording]:
    store = Store(place / "store")
    return {clip.name: load_entry(store, clip) for clip in manifest.clips}
