"""What the recipe of `mini` draws: clips, folds of speakers, and a recogniser's errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mini_parts import ERROR_RATE, VOICE_FITS, misheard, speaker_folds
from train_mini import evenly


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Fewest words lost, replaced and put in (Levenshtein 1966)."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def test_words_are_misheard_at_the_rate_stated() -> None:
    rng = np.random.default_rng(0)
    vocabulary = [f"Word{k}," for k in range(5000)]
    errors = lengths = 0
    for _ in range(100):
        said = [vocabulary[k] for k in rng.integers(0, len(vocabulary), 60)]
        heard = misheard(said, vocabulary, rng)
        assert set(heard) <= {f"word{k}" for k in range(5000)}  # no capitals, no punctuation
        errors += edit_distance([word.lower().strip(",") for word in said], heard)
        lengths += len(said)
    # 6000 words: a standard deviation is 0.006; a word lost beside one put in is one error
    assert ERROR_RATE - 0.03 < errors / lengths < ERROR_RATE + 0.015


def test_what_is_misheard_is_always_a_word() -> None:
    rng = np.random.default_rng(0)
    heard = {word for _ in range(50) for word in misheard(["\u2014", "don't!"], ["..."], rng)}
    assert heard == {"uh", "don't"}
    assert misheard([], ["a"], rng) == []


def test_all_clips_of_a_speaker_are_in_one_fold() -> None:
    speakers = np.random.default_rng(0).permutation([f"s{k:02}" for k in range(10)] * 4)
    folds = speaker_folds(speakers)
    assert set(folds.tolist()) == set(range(VOICE_FITS))
    for name in set(speakers.tolist()):
        assert len(set(folds[speakers == name].tolist())) == 1


def test_corpora_and_their_classes_are_drawn_equally_often() -> None:
    random = np.random.default_rng(0)
    corpus = ["a" if k < 70 else "b" for k in range(100)]
    classes, chosen = random.integers(0, 3, 100), random.uniform(size=100) < 0.8
    classes[70:] = classes[70:] % 2  # b lacks a class
    weights = evenly(corpus, classes, chosen)
    assert (weights[~chosen] == 0).all()
    for name, present in (("a", 3), ("b", 2)):
        own = np.array([c == name for c in corpus])
        assert weights[own].sum() == pytest.approx(1)
        for k in range(present):
            assert weights[own & (classes == k)].sum() == pytest.approx(1 / present)
            assert len(set(weights[own & chosen & (classes == k)].tolist())) == 1
