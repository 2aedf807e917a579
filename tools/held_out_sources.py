"""Part what mini's encoders never learned from into two folders of sources, train and val.

    python tools/held_out_sources.py --sources DATA -o SOURCES
    maven data compose --sources SOURCES/train --split train ... ; the same for val

An encoder is better on what it learned from than it will ever be in use. A corpus composed of its
training part would teach the network to trust it too far, so that what is measured on such a
corpus is not how networks differ. The two folders share no speaker, image or sentence; images that
are also in FER2013's Training are left out.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

import numpy as np

from maven.datasets.corpora import VALIDATION_ACTORS, read_faces
from maven.files import whole

HALVES = ("train", "val")
USAGE = {"train": "Training", "val": "PublicTest"}


def part_faces(sources: Path, out: Path, rng: np.random.Generator) -> None:
    """Halve the validation images, each once, that are not among the training images."""
    faces = read_faces(sources)
    learned = {image.tobytes() for image in faces.images[faces.splits == "train"]}
    fresh: dict[bytes, int] = {}
    for k in np.flatnonzero(faces.splits == "val"):
        if (content := faces.images[k].tobytes()) not in learned:
            fresh.setdefault(content, int(k))
    chosen = rng.permutation(list(fresh.values()))
    classes = np.unique(faces.emotions)
    for half, part in zip(HALVES, np.array_split(chosen, 2), strict=True):
        path = out / half / "faces" / "held_out.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as written:
            np.savez_compressed(
                written,
                images=faces.images[part],
                labels=np.searchsorted(classes, faces.emotions[part]),
                classes=classes,
                usage=np.full(len(part), USAGE[half]),
            )
        print(f"{path}: {len(part)} images")


def part_speech(sources: Path, out: Path) -> None:
    """Halve the validation actors: a woman and a man each."""
    for half, actors in zip(HALVES, np.array_split(VALIDATION_ACTORS, 2), strict=True):
        for actor in actors:
            name = f"speech/ravdess/Actor_{actor:02d}"
            shutil.copytree(sources / name, out / half / name, dirs_exist_ok=True)
            print(f"{out / half / name}: {len(list((out / half / name).iterdir()))} clips")


def part_sentences(sources: Path, out: Path, rng: np.random.Generator) -> None:
    """Halve the sentences of the split dev."""
    with (sources / "text" / "emobank.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "dev"]
    order = rng.permutation(len(rows))
    for half, part in zip(HALVES, np.array_split(order, 2), strict=True):
        path = out / half / "text" / "held_out.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as written, written.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("split", "V", "A", "text"), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows[k] | {"split": half.replace("val", "dev")} for k in part)
        print(f"{path}: {len(part)} sentences")


def main() -> None:
    """Write the two folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    part_faces(given.sources, given.out, rng)
    part_speech(given.sources, given.out)
    part_sentences(given.sources, given.out, rng)


if __name__ == "__main__":
    main()
