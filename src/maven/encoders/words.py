"""The embedded text encoder: a lexicon of words and n-grams."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

BUCKETS = 1 << 17
TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[!?]+|\.{2,}")
SENTENCE_END = re.compile(r"[.!?…]['\"’”»)\]]*$")
MAX_SENTENCE_WORDS = 40
NEAR_WORDS = 3


def ngrams(tokens: Sequence[str]) -> list[list[int]]:
    """Hash each token's n-grams: itself, the pair with the one before, characters 2 to 5."""
    grams = []
    for k, token in enumerate(tokens):
        names = ["w" + token] + (["b" + tokens[k - 1] + " " + token] if k else [])
        marked = f"<{token}>"
        for size in range(2, 6):
            names += ["c" + marked[j : j + size] for j in range(len(marked) - size + 1)]
        grams.append([zlib.crc32(name.encode()) % BUCKETS for name in names])
    return grams


def tokenise(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """Split words into lower-case tokens; the second list says which word each comes from."""
    tokens, owners = [], []
    for k, word in enumerate(words):
        for token in TOKEN.findall(word.lower().replace("’", "'")):
            tokens.append(token)
            owners.append(k)
    return tokens, owners


def sentence_weights(grams: Sequence[Sequence[int]], idf: Floats) -> dict[int, float]:
    """TF-IDF of one sentence: sublinear counts times idf, of unit Euclidean length."""
    ids, counts = np.unique(np.concatenate([*map(np.asarray, grams), []]), return_counts=True)
    ids = ids.astype(int)
    weights = (1 + np.log(counts)) * idf[ids]
    weights /= max(float(np.linalg.norm(weights)), 1e-6)
    return dict(zip(ids.tolist(), weights.tolist(), strict=True))


class MiniText:
    """A lexicon of n-grams learned by ridge regression, as a text encoder.

    Each n-gram has a weight towards valence and one towards arousal. A word's vector (8,) holds
    what its own n-grams add to its sentence, what the words within 3 of it add, and the whole
    sentence's score, each as (valence, arousal), then how much of the sentence was known and its
    length; scores are on the scale of the labels.
    """

    width = 8

    def __init__(self, table: Floats, idf: Floats, bias: Floats, fingerprint: str) -> None:
        self.name, self.fingerprint = "mini-words", fingerprint
        self._table, self._idf, self._bias = table, idf, bias  # (buckets, 2), (buckets,), (2,)

    def __call__(self, words: Sequence[str]) -> Floats:
        """Embed words -> (len(words), 8); sentences end at . ! ? or after 40 words."""
        out = np.zeros((len(words), self.width), np.float32)
        start = 0
        for k, word in enumerate(words):
            full = k - start + 1 == MAX_SENTENCE_WORDS or k == len(words) - 1
            if full or SENTENCE_END.search(word):
                out[start : k + 1] = self._sentence(words[start : k + 1])
                start = k + 1
        return out

    def score(self, text: str) -> Floats:
        """Return the (valence, arousal) (2,) of one whole text."""
        words = text.split()
        return self._sentence(words)[0, 4:6] if words else self._bias

    def _sentence(self, words: Sequence[str]) -> Floats:
        tokens, owners = tokenise(words)
        grams = ngrams(tokens)
        weights = sentence_weights(grams, self._idf)
        own = np.zeros((len(words), 2), np.float32)
        known = 0
        occurrences: dict[int, int] = {}
        for ids in grams:
            for gram in ids:
                occurrences[gram] = occurrences.get(gram, 0) + 1
        for ids, owner in zip(grams, owners, strict=True):
            for gram in ids:
                own[owner] += weights[gram] / occurrences[gram] * self._table[gram]
            known += bool(self._idf[ids[0]] > 0)
        sums = np.concatenate((np.zeros((1, 2), np.float32), own.cumsum(0)))
        index = np.arange(len(words))
        near = sums[np.minimum(index + NEAR_WORDS + 1, len(words))]
        near = near - sums[np.maximum(index - NEAR_WORDS, 0)]
        whole = np.broadcast_to(self._bias + own.sum(0), own.shape)
        rest = np.full((len(words), 2), (known / max(len(tokens), 1), np.log1p(len(tokens)) / 3))
        return np.concatenate((own, near, whole, rest), 1).astype(np.float32)
