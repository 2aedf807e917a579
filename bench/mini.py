"""Figures of the shipped mini encoders on the validation parts (see docs/mini.md).

python tools/train_mini.py prepare --sources DATA --work runs/mini   # once
python bench/mini.py --sources DATA --work runs/mini
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from machine import DATA, describe
from maven.checkpoint import MINI_FOLDER, load
from maven.datasets import corpora, prepare
from maven.encoders.faces import FACE_CLASSES
from maven.encoders.mini import load_mini
from maven.encoders.voices import VOICE_CLASSES
from maven.encoders.words import tokenise
from maven.metrics import ccc


def main() -> None:
    """Print one row a modality."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=Path("runs/mini"))
    arguments = parser.parse_args()
    print(describe())
    print("| part | n | CCC valence | CCC arousal | class accuracy |")
    print("|---|---|---|---|---|")

    def row(name: str, va: np.ndarray, true: np.ndarray, accuracy: float | None) -> None:
        valence, arousal = ccc(va[:, 0], true[:, 0]), ccc(va[:, 1], true[:, 1])
        shown = "" if accuracy is None else f"{accuracy:.3f}"
        print(f"| {name} | {len(va)} | {valence:.3f} | {arousal:.3f} | {shown} |", flush=True)

    sentences = corpora.read_sentences(arguments.sources)
    chosen = np.flatnonzero(sentences.splits == "val")
    words = load_mini("text", MINI_FOLDER / "text.safetensors", "cpu")
    va = np.stack([words.score(sentences.texts[k]) for k in chosen])
    row("words: EmoBank dev", va, sentences.va[chosen], None)
    bare = [" ".join(tokenise(sentences.texts[k].split())[0]) for k in chosen]
    bare = [" ".join(token for token in text.split() if token[0].isalnum()) for text in bare]
    va = np.stack([words.score(text) for text in bare])
    row("words: the same, without capitals and punctuation", va, sentences.va[chosen], None)

    with np.load(arguments.work / "voices.npz") as content:
        data = dict(content)
    voice = load_mini("audio", MINI_FOLDER / "audio.safetensors", "cpu")
    mels = np.split(data["mels"], data["bounds"][1:-1])
    chosen = np.flatnonzero(data["splits"] == "val")
    answers, hits = [], []
    for k in chosen:
        va, shares = voice.utterance(torch.from_numpy(prepare.restore_mel(mels[k]).T.copy()))
        answers.append(va)
        hits.append(VOICE_CLASSES[int(shares.argmax())] == data["emotions"][k])
    row("voice: RAVDESS actors 17-20", np.stack(answers), data["va"][chosen], float(np.mean(hits)))

    with np.load(arguments.work / "faces.npz") as content:
        data = dict(content)
    face = load_mini("visual", MINI_FOLDER / "visual.safetensors", "cpu")
    chosen = np.flatnonzero(data["splits"] == "val")
    crops = np.repeat(data["crops"][chosen][..., None], 3, 3)
    answers = face(crops)
    right = np.array(FACE_CLASSES)[answers[:, 2:].argmax(1)] == data["emotions"][chosen]
    row("face: FER2013 PublicTest", answers[:, :2], data["va"][chosen], float(right.mean()))
    shipped = load("mini").encoders.visual(crops)
    hit = np.array(FACE_CLASSES)[shipped[:, 2:].argmax(1)] == data["emotions"][chosen]
    row("face: the same, in 8 bits as shipped", shipped[:, :2], data["va"][chosen], hit.mean())
    known = {crop.tobytes() for crop in data["crops"][data["splits"] == "train"]}
    new = np.array([data["crops"][k].tobytes() not in known for k in chosen])
    true = data["va"][chosen][new]
    row("face: the same, images not also in Training", answers[new, :2], true, right[new].mean())


if __name__ == "__main__":
    main()
