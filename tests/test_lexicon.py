"""The lexicon against dense ridge regression, on planted sentences and on planted knowledge."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from maven.encoders.words import BUCKETS, MiniText, tokenise
from maven.lexicon import (
    RATING_SCALE,
    RATINGS_FILE,
    VECTOR_SCALE,
    VECTORS_FILE,
    Knowledge,
    fit_words,
    read_knowledge,
)
from maven.metrics import ccc


def planted(n: int, words: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Sentences of which each word adds its own (valence, arousal): texts and labels (n, 2)."""
    random = np.random.default_rng(7)  # the same language for every seed
    letters = list("abcdefghijklmnopqrstuvwxyz")
    vocabulary = ["".join(random.choice(letters, 6)) for _ in range(words)]
    values = random.normal(0, 0.3, (words, 2))
    random = np.random.default_rng(seed)
    chosen = random.integers(0, words, (n, 7))
    texts = [" ".join(vocabulary[k] for k in row) + "." for row in chosen]
    labels = values[chosen].mean(1) + random.normal(0, 0.02, (n, 2)) + (0.1, -0.05)
    return texts, labels.astype(np.float32)


def test_a_planted_lexicon_is_found() -> None:
    texts, va = planted(500, 40, seed=0)
    lexicon = fit_words(texts, va, ridge=0.3)
    assert lexicon.table.shape == (BUCKETS, 2)
    assert lexicon.idf.shape == (BUCKETS,)
    held_out, true = planted(150, 40, seed=1)
    encode = MiniText(lexicon, "")
    predicted = np.stack([encode.score(text) for text in held_out])
    for k in range(2):
        assert ccc(predicted[:, k], true[:, k]) > 0.8
    np.testing.assert_allclose(predicted.std(0), true.std(0), rtol=0.2)  # the stretch


def dense_tfidf(texts: list[str], min_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, buckets) float64 of unit length and the idf (buckets,)."""
    counts = []
    for text in texts:
        tokens = tokenise(text.split())[0]
        names = [f"w{t}" for t in tokens] + [f"b{a} {b}" for a, b in pairwise(tokens)]
        for token in tokens:
            marked = f"<{token}>"
            names += [f"c{marked[i:j]}" for i in range(len(marked)) for j in range(i + 2, i + 6)
                      if j <= len(marked)]  # fmt: skip
        counts.append(Counter(zlib.crc32(name.encode()) % BUCKETS for name in names))
    seen = np.zeros(BUCKETS)
    for sentence in counts:
        seen[list(sentence)] += 1
    idf = np.where(seen >= min_count, np.log((1 + len(texts)) / (1 + seen)) + 1, 0)
    rows = np.zeros((len(texts), BUCKETS))
    for row, count in zip(rows, counts, strict=True):
        ids = list(count)
        row[ids] = (1 + np.log([count[i] for i in ids])) * idf[ids]
        row /= max(float(np.linalg.norm(row)), 1e-6)
    return rows, idf


def dense_ridge(rows: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    return np.asarray(rows.T @ np.linalg.solve(rows @ rows.T + ridge * np.eye(len(rows)), target))


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_it_is_dense_ridge_regression(ridge: float) -> None:
    texts, va = planted(45, 25, seed=2)
    lexicon = fit_words(texts, va, ridge)
    rows, idf = dense_tfidf(texts, 2)
    np.testing.assert_allclose(lexicon.idf, idf, atol=1e-6)
    target = va.astype(np.float64) - va.astype(np.float64).mean(0)
    np.testing.assert_allclose(lexicon.bias, va.mean(0), atol=1e-6)
    held_out = np.zeros_like(target)
    part = np.arange(len(texts)) % 10
    for k in range(10):
        weights = dense_ridge(rows[part != k], target[part != k], ridge)
        held_out[part == k] = rows[part == k] @ weights
    table = dense_ridge(rows, target, ridge) * target.std(0) / held_out.std(0)
    np.testing.assert_allclose(lexicon.table, table, atol=1e-5 * np.abs(table).max())


def test_a_language_of_strangers_leaves_the_bias() -> None:
    """No n-gram occurs twice, so none is known."""
    texts = ["a", "m", "z", "1", "?"]
    lexicon = fit_words(texts, np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2), 1.0)
    assert not lexicon.table.any()
    encode = MiniText(lexicon, "")
    np.testing.assert_allclose(encode.score("a z"), lexicon.bias)


# --- knowledge ---------------------------------------------------------------------------------

RATINGS = {"good": 2.0, "awful": -3.0, "unseen": 4.0, ":-)": 3.0}
VECTORS: dict[str, list[float]] = {
    "the": [1, 0, 0],
    "good": [0, 2, 0],
    "bad": [0, -3, 0.1],
    "day": [1, 1, 1],
}


def save_knowledge(folder: Path) -> Path:
    for name in (RATINGS_FILE, VECTORS_FILE):
        (folder / name).parent.mkdir(exist_ok=True)
    lines = [f"{word}\t{rating}\t0.5\t[1, 2]\n" for word, rating in RATINGS.items()]
    (folder / RATINGS_FILE).write_text("".join(lines), encoding="utf-8")
    vectors = {word: [*vector, 9.9, 1] for word, vector in VECTORS.items()}  # norm, place
    content = {"dimensions": 3, "words": list(VECTORS), "vectors": vectors}
    (folder / VECTORS_FILE).write_text(json.dumps(content))
    return folder


def test_knowledge_of_two_packages(tmp_path: Path) -> None:
    told = read_knowledge(save_knowledge(tmp_path))
    assert list(told.rows) == [*VECTORS, "awful", "unseen", "not good", "not awful", "not unseen"]
    assert told.values.shape == (told.common, 7)
    ratings = {word: told.values[k, 3:].tolist() for word, k in told.rows.items()}
    assert ratings["good"] == [0.5, 0.5, 0, 0]
    assert ratings["not awful"] == [0, 0, -0.75, 0.75]
    assert ratings["the"] == [0, 0, 0, 0]
    vectors = {word: told.values[k, :3].astype(np.float64) for word, k in told.rows.items()}
    np.testing.assert_array_equal(vectors["not good"], vectors["good"])
    assert not vectors["awful"].any()
    text = np.array([0.06 / k for k in range(1, 5)])  # how often each word stands in a text
    np.testing.assert_allclose(text @ [vectors[w] for w in VECTORS], 0, atol=1e-8)
    unit = {w: np.array(v) / np.linalg.norm(v) for w, v in VECTORS.items()}
    weight = {w: 1e-3 / (1e-3 + f) for w, f in zip(VECTORS, text, strict=True)}
    for word in ("bad", "day"):
        means = [unit[w] - vectors[w] / weight[w] for w in (word, "the")]
        np.testing.assert_allclose(means[0], means[1], atol=1e-5)


@pytest.mark.parametrize("broken", [RATINGS_FILE, VECTORS_FILE])
def test_knowledge_that_is_none(tmp_path: Path, broken: str) -> None:
    save_knowledge(tmp_path)
    (tmp_path / broken).write_text("{}\n")
    with pytest.raises(ValueError, match=Path(broken).name):
        read_knowledge(tmp_path)
    (tmp_path / broken).unlink()
    with pytest.raises(FileNotFoundError):
        read_knowledge(tmp_path)


def planted_knowledge(texts: list[str]) -> Knowledge:
    spelt = sorted({token for text in texts for token in tokenise(text.split())[0]})[::2]
    values = np.random.default_rng(3).normal(size=(len(spelt) + 1, 6)).astype(np.float32)
    return Knowledge({w: k for k, w in enumerate(["elsewhere", *spelt])}, values, 1)


def test_knowledge_is_more_columns_of_the_ridge() -> None:
    texts, va = planted(45, 25, seed=2)
    told = planted_knowledge(texts)
    lexicon = fit_words(texts, va, 0.5, told)
    sums = np.zeros((len(texts), 6))
    for row, text in zip(sums, texts, strict=True):
        tokens = tokenise(text.split())[0]
        for token in tokens:
            if token in told.rows:
                row += told.values[told.rows[token]] / np.sqrt(len(tokens))
    scale = np.array([VECTOR_SCALE] * 2 + [RATING_SCALE] * 4) / sums.std(0)
    rows = np.concatenate((dense_tfidf(texts, 2)[0], sums * scale), 1)
    target = va.astype(np.float64) - va.astype(np.float64).mean(0)
    held_out = np.zeros_like(target)
    part = np.arange(len(texts)) % 10
    for k in range(10):
        weights = dense_ridge(rows[part != k], target[part != k], 0.5)
        held_out[part == k] = rows[part == k] @ weights
    weights = dense_ridge(rows, target, 0.5) * target.std(0) / held_out.std(0)
    predicted = np.stack([MiniText(lexicon, "").score(text) for text in texts])
    np.testing.assert_allclose(predicted, rows @ weights + va.mean(0), atol=1e-4)
    added = (told.values * scale) @ weights[BUCKETS:]
    assert len(lexicon.names) == len(told.rows)
    assert (np.diff(lexicon.names) > 0).all()
    at = np.searchsorted(lexicon.names, zlib.crc32(b"elsewhere"))  # in no sentence, and yet known
    np.testing.assert_allclose(lexicon.added[at], added[0], rtol=1e-3)


def test_threads_change_nothing() -> None:
    texts, va = planted(300, 40, seed=4)
    told, before = planted_knowledge(texts), torch.get_num_threads()
    fits = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            fits.append(fit_words(texts, va, 1.0, told))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for name, first in vars(fits[0]).items():
        for other in fits[1:]:
            np.testing.assert_array_equal(first, vars(other)[name])
