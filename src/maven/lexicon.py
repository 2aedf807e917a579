"""Fits the embedded lexicon of words to rated sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maven.encoders.words import BUCKETS, ngrams, sentence_weights, tokenise


@dataclass(frozen=True)
class Lexicon:
    """The words encoder's weights: table (buckets, 2), idf (buckets,), bias (2,)."""

    table: npt.NDArray[np.float32]
    idf: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def fit_words(
    texts: Sequence[str], va: npt.NDArray[np.float32], ridge: float, min_count: int = 2
) -> Lexicon:
    """Fit (valence, arousal) (n, 2) to TF-IDF of hashed n-grams by ridge regression.

    The weights are stretched so that predictions have the labels' spread: ridge shrinks them, and
    CCC, unlike correlation, punishes that. The factor comes from predictions of held-out tenths.
    """
    grams = [ngrams(tokenise(text.split())[0]) for text in texts]
    count = np.zeros(BUCKETS)
    for sentence in grams:
        count[list({gram for ids in sentence for gram in ids})] += 1
    known = count >= min_count
    idf = np.where(known, np.log((1 + len(texts)) / (1 + count)) + 1, 0).astype(np.float32)
    rows = [sentence_weights(sentence, idf) for sentence in grams]
    matrix = _sparse(rows)
    target = torch.from_numpy(va.astype(np.float64))
    bias = target.mean(0)
    held_out = torch.empty_like(target)
    part = torch.arange(len(rows)) % 10
    for k in range(10):
        weight = _ridge(_sparse([r for r, p in zip(rows, part, strict=True) if p != k]),
                        (target - bias)[part != k], ridge)  # fmt: skip
        held_out[part == k] = (
            _sparse([r for r, p in zip(rows, part, strict=True) if p == k]) @ weight
        )
    stretch = (target - bias).std(0) / held_out.std(0).clamp_min(1e-9)  # 0 where nothing is known
    table = _ridge(matrix, target - bias, ridge) * stretch
    return Lexicon(table.float().numpy(), idf, bias.float().numpy())


def _sparse(rows: Sequence[dict[int, float]]) -> Tensor:
    lengths = np.cumsum([0, *map(len, rows)])
    columns = np.array([gram for row in rows for gram in row], np.int64)
    values = np.array([weight for row in rows for weight in row.values()], np.float64)
    return torch.sparse_csr_tensor(
        torch.from_numpy(lengths), torch.from_numpy(columns), torch.from_numpy(values),
        (len(rows), BUCKETS), check_invariants=False,
    )  # fmt: skip


def _ridge(matrix: Tensor, target: Tensor, ridge: float, steps: int = 60) -> Tensor:
    """Solve (X'X + ridge) w = X'y by conjugate gradients on the dual, (n,) unknowns a column."""
    transposed = matrix.to_sparse_coo().t().coalesce().to_sparse_csr()
    answer = torch.zeros_like(target)
    residual = target.clone()
    direction = residual.clone()
    energy = residual.square().sum(0)
    for _ in range(steps):
        image = matrix @ (transposed @ direction) + ridge * direction
        length = energy / (direction * image).sum(0).clamp_min(1e-30)
        answer += length * direction
        residual -= length * image
        new_energy = residual.square().sum(0)
        direction = residual + (new_energy / energy.clamp_min(1e-30)) * direction
        energy = new_energy
        if math.sqrt(energy.max().item()) < 1e-8:
            break
    weights: Tensor = transposed @ answer
    return weights
