"""The embedded text encoder: a lexicon of words and n-grams, made by `maven.lexicon`."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

BUCKETS = 1 << 17
TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[!?]+|\.{2,}")
SENTENCE_END = re.compile(r"[.!?…]['\"’”»)\]]*$")
MAX_SENTENCE_WORDS = 40
NEAR_WORDS = 3
NEGATED_WORDS = 3  # that follow a word that negates, at most
NEGATING = frozenset(
    ("barely", "cannot", "hardly", "neither", "never", "no", "nobody", "none", "nor", "not",
     "nothing", "without")
)  # fmt: skip


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


def spellings(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Spell tokens as lists of words do, first as they are negated: after don't, like -> not like.

    Returns:
        Two spellings a token, (with "not " if up to 3 tokens after one that negates, without).
    """
    spelt, left = [], 0
    for token in tokens:
        if token[0] in "!?.":
            plain = token[0]
        else:
            plain = token.replace("'", "") if token.endswith("n't") else token.split("'")[0]
        spelt.append((f"not {plain}" if left else plain, plain))
        negates = token in NEGATING or token.endswith("n't")
        left = NEGATED_WORDS if negates else max(left - 1, 0)
    return spelt


def hashed(words: Sequence[str]) -> Integers:
    """CRC-32 of words -> (n,)."""
    return np.array([zlib.crc32(word.encode()) for word in words], np.int64)


@dataclass(frozen=True)
class Lexicon:
    """The weights of the words' encoder; scores are (valence, arousal) on the labels' scale.

    Attributes:
        table: what an n-gram of TF-IDF 1 adds, (BUCKETS, 2).
        idf: of n-grams, 0 for unknown ones, (BUCKETS,).
        bias: the score of a sentence of which nothing is known, (2,).
        names: CRC-32 of the words of which more is known than their n-grams, rising, (m,); a word
            that is negated may have a name of its own, see `spellings`.
        added: what they add, before the division by the root of the sentence's tokens, (m, 2).
    """

    table: Floats
    idf: Floats
    bias: Floats
    names: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    added: Floats = field(default_factory=lambda: np.zeros((0, 2), np.float32))

    def rated(self, tokens: Sequence[str]) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Which tokens (n,) are among `names`, and what each adds to its sentence (n, 2)."""
        if not tokens or not len(self.names):
            return np.zeros(len(tokens), np.bool_), np.zeros((len(tokens), 2), np.float32)
        wanted = hashed([name for pair in spellings(tokens) for name in pair])
        place = np.minimum(np.searchsorted(self.names, wanted), len(self.names) - 1).reshape(-1, 2)
        found = self.names[place] == wanted.reshape(-1, 2)
        chosen = np.where(found[:, 0], place[:, 0], place[:, 1])
        adds = self.added[chosen] * np.float32(len(tokens) ** -0.5)
        return found.any(1), np.where(found.any(1, keepdims=True), adds, np.float32(0))


class MiniText:
    """A lexicon learned by ridge regression, as a text encoder.

    Each n-gram, and each of tens of thousands of words, has a weight towards valence and one
    towards arousal. A word's vector (8,) holds what it and its n-grams add to its sentence, what
    the words within 3 of it add, and the whole sentence's score, each as (valence, arousal), then
    how much of the sentence was known and its length; scores are on the scale of the labels.
    """

    width = 8

    def __init__(self, lexicon: Lexicon, fingerprint: str) -> None:
        self.name, self.fingerprint, self.lexicon = "mini-words", fingerprint, lexicon

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
        return self._sentence(words)[0, 4:6] if words else self.lexicon.bias

    def _sentence(self, words: Sequence[str]) -> Floats:
        tokens, owners = tokenise(words)
        grams = ngrams(tokens)
        table, idf = self.lexicon.table, self.lexicon.idf
        weights = sentence_weights(grams, idf)
        own = np.zeros((len(words), 2), np.float32)
        rated, adds = self.lexicon.rated(tokens)
        occurrences: dict[int, int] = {}
        for ids in grams:
            for gram in ids:
                occurrences[gram] = occurrences.get(gram, 0) + 1
        for ids, owner, add in zip(grams, owners, adds, strict=True):
            shares = np.array([weights[gram] / occurrences[gram] for gram in ids], np.float32)
            own[owner] += shares @ table[ids] + add
        known = sum(idf[ids[0]] > 0 or found for ids, found in zip(grams, rated, strict=True))
        sums = np.concatenate((np.zeros((1, 2), np.float32), own.cumsum(0)))
        index = np.arange(len(words))
        near = sums[np.minimum(index + NEAR_WORDS + 1, len(words))]
        near = near - sums[np.maximum(index - NEAR_WORDS, 0)]
        whole = np.broadcast_to(self.lexicon.bias + own.sum(0), own.shape)
        rest = np.full((len(words), 2), (known / max(len(tokens), 1), np.log1p(len(tokens)) / 3))
        return np.concatenate((own, near, whole, rest), 1).astype(np.float32)
