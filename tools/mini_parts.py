"""Encodes what sequences are composed of: faces, clips of speech and sentences, split by split.

No encoder may look better on a training part than it is on strangers, or the network that learns
from sequences of these parts trusts it too much. So training faces are seen augmented, training
clips are encoded by networks that never heard their speakers, training sentences by lexica fitted
without them. Half of the training clips and sentences are also degraded, by noise and by
wrong words, as recordings and recognisers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maven.augment import add_noise, augment_faces
from maven.datasets import compose, corpora, prepare
from maven.encoders.mini import load_mini
from maven.encoders.words import MiniText
from maven.lexicon import Knowledge, fit_words
from maven.timeline import place_samples, uniform_grid

CROSS_FITS = 5  # of the words' lexicon
VOICE_FITS = 3
FACE_BATCH = 256
NOISE_DB = (0.0, 30.0)  # under the speech
ERROR_RATE = 0.3  # of the words of a sentence that is degraded
Array = np.ndarray[Any, np.dtype[np.float32]]


def speaker_folds(speakers: np.ndarray[Any, np.dtype[np.str_]]) -> np.ndarray[Any, Any]:
    """Assign every clip (n,) to one of `VOICE_FITS` folds, all clips of a speaker to the same."""
    return np.unique(speakers, return_inverse=True)[1] % VOICE_FITS


def face_parts(work: Path, split: str, limit: int, seed: int, device: str) -> tuple[Array, Array]:
    """Features and proxy labels of a split's faces."""
    encoder = load_mini("visual", work / "visual.safetensors", device)
    with np.load(work / "faces.npz") as content:
        crops, va = content["crops"], content["va"]
        chosen = np.flatnonzero(content["splits"] == split)
    chosen = np.random.default_rng(seed).permutation(chosen)[:limit]
    if split != "train":
        return encoder(np.repeat(crops[chosen][..., None], 3, 3)), va[chosen]
    features = []
    torch.manual_seed(seed)  # of what `augment_faces` draws
    for part in np.array_split(chosen, max(len(chosen) // FACE_BATCH, 1)):
        faces = torch.from_numpy(crops[part])[:, None].float() / 255
        with torch.inference_mode():
            embedded = encoder.net(augment_faces(faces.to(device)))
            features.append(encoder.net.answer(embedded).cpu().numpy())
    return np.concatenate(features), va[chosen]


def voice_parts(
    work: Path, split: str, rate_hz: float, seed: int, device: str
) -> tuple[list[Array], Array, Array]:
    """Features of a split's clips on the network's grid, their proxy labels and speakers."""
    names = [f"audio_without_{k}" for k in range(VOICE_FITS)] if split == "train" else ["audio"]
    encoders = [load_mini("audio", work / f"{n}.safetensors", device) for n in names]
    with np.load(work / "voices.npz") as content:
        data = dict(content)
    mels = np.split(data["mels"], data["bounds"][1:-1])
    chosen = np.flatnonzero(data["splits"] == split)
    folds = speaker_folds(data["speakers"])
    torch.manual_seed(seed)  # of the noise
    sequences = []
    for noisy in (False, True) if split == "train" else (False,):
        for k in chosen:
            encoder = encoders[folds[k] if split == "train" else 0]
            mel = torch.from_numpy(prepare.restore_mel(mels[k]).T.copy())
            if noisy:
                below_db = torch.empty(1).uniform_(*NOISE_DB)
                mel = add_noise(mel[None], torch.tensor([mel.shape[1]]), below_db)[0]
            vectors = encoder.answer(mel)
            times_s = (np.arange(len(vectors)) + 0.5) / encoder.rate_hz
            grid_s = uniform_grid(0.0, float(times_s[-1]), rate_hz)
            sequences.append(place_samples(times_s, vectors, grid_s, 0.25).features)
    copies = len(sequences) // len(chosen)
    return sequences, np.tile(data["va"][chosen], (copies, 1)), np.tile(
        data["speakers"][chosen], copies
    )  # fmt: skip


def sentence_parts(
    sources: Path, work: Path, split: str, ridge: float, knowledge: Knowledge | None, seed: int
) -> tuple[list[Array], Array]:
    """Word vectors of a split's sentences and their labels."""
    sentences = corpora.read_sentences(sources)
    chosen = sentences.splits == split
    texts, va = [sentences.texts[k] for k in np.flatnonzero(chosen)], sentences.va[chosen]
    if split != "train":
        encoder = load_mini("text", work / "text.safetensors", "cpu")
        return [encoder(text.split()) for text in texts], va
    vectors: list[Array] = [np.zeros((0, MiniText.width), np.float32)] * (2 * len(texts))
    rng = np.random.default_rng(seed)
    vocabulary = [word for text in texts for word in text.split()]
    fold = np.arange(len(texts)) % CROSS_FITS
    for k in range(CROSS_FITS):
        seen = np.flatnonzero(fold != k)
        lexicon = fit_words([texts[i] for i in seen], va[seen], ridge, knowledge)
        encode = MiniText(lexicon, "")
        for i in np.flatnonzero(fold == k):
            words = texts[i].split()
            vectors[i] = encode(words)
            vectors[len(texts) + i] = encode(misheard(words, vocabulary, rng))
    return vectors, np.tile(va, (2, 1))


def misheard(
    words: Sequence[str], vocabulary: Sequence[str], rng: np.random.Generator
) -> list[str]:
    """Make a recogniser's errors: words lost, replaced and put in; no punctuation, no capitals."""
    heard = []
    for word in words:
        fate = rng.uniform() / ERROR_RATE
        other = vocabulary[rng.integers(len(vocabulary))]
        if fate < 0.25:
            continue
        heard.append(other if fate < 0.8 else word)
        if 0.8 <= fate < 1:
            heard.append(other)
    return ["".join(c for c in w.lower() if c.isalnum() or c == "'") or "uh" for w in heard]


def encode_parts(
    sources: Path, work: Path, recipe: dict[str, Any], knowledge: Knowledge | None, device: str
) -> None:
    """Write parts_train.npz and parts_val.npz."""
    rate_hz, seed = recipe["network"]["rate_hz"], recipe["seed"]
    for split in ("train", "val"):
        faces, face_va = face_parts(work, split, recipe["fusion_faces"], seed, device)
        voices, voice_va, speakers = voice_parts(work, split, rate_hz, seed, device)
        sentences, sentence_va = sentence_parts(
            sources, work, split, recipe["words"]["ridge"], knowledge, seed
        )
        prepare.save(
            work / f"parts_{split}.npz",
            faces=faces, face_va=face_va,
            voices=np.concatenate(voices), voice_lengths=np.array([len(v) for v in voices]),
            voice_va=voice_va, speakers=speakers,
            sentences=np.concatenate(sentences),
            sentence_lengths=np.array([len(v) for v in sentences]), sentence_va=sentence_va,
        )  # fmt: skip


def read_parts(path: Path, rate_hz: float) -> compose.Parts:
    """Read one of the files that `encode_parts` wrote."""
    with np.load(path) as content:
        data = dict(content)

    def cut(name: str, lengths: str) -> list[Array]:
        return np.split(data[name], data[lengths].cumsum()[:-1])

    return compose.Parts(
        data["faces"], data["face_va"],
        cut("voices", "voice_lengths"), data["voice_va"], data["speakers"],
        cut("sentences", "sentence_lengths"), data["sentence_va"],
        rate_hz,
    )  # fmt: skip
