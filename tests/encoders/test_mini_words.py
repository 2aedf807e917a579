"""The lexicon encoder on random weights, against TF-IDF gram by gram."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from maven.checkpoint import MINI_FOLDER
from maven.encoders.base import encode_words
from maven.encoders.mini import load_mini
from maven.encoders.words import (
    BUCKETS,
    MAX_SENTENCE_WORDS,
    NEAR_WORDS,
    Lexicon,
    MiniText,
    ngrams,
    spellings,
    tokenise,
)

RATED = ("happy", "not happy", "dont", "so", "leave", "naïve", "!", "two", "five", "never")


@pytest.fixture(scope="module")
def words() -> MiniText:
    random = np.random.default_rng(0)
    table = random.normal(size=(BUCKETS, 2)).astype(np.float32)
    idf = random.uniform(1, 8, BUCKETS).astype(np.float32) * (random.uniform(size=BUCKETS) < 0.8)
    names = np.sort(np.array([zlib.crc32(name.encode()) for name in RATED]))
    added = random.normal(size=(len(RATED), 2)).astype(np.float32)
    bias = np.array([0.1, -0.2], np.float32)
    return MiniText(Lexicon(table, idf.astype(np.float32), bias, names, added), "")


SENTENCES = (
    ["I", "am", "so", "happy."],
    ["Why", "did", "you", 'leave?"'],
    ["Don’t", "(stop!)"],
    ["Well…"],
    ["...", "naïve", "日本語", "", "🙂", "42"],
)


def oracle_score(encoder: MiniText, text: str) -> np.ndarray:
    """TF-IDF times table plus bias, gram by gram, and what words add, word by word."""
    lexicon = encoder.lexicon
    counts: Counter[int] = Counter()
    tokens = tokenise(text.split())[0]
    for k, token in enumerate(tokens):
        names = [f"w{token}"] + ([f"b{tokens[k - 1]} {token}"] if k else [])
        marked = f"<{token}>"
        names += ["c" + marked[i : i + n] for n in (2, 3, 4, 5) for i in range(len(marked) - n + 1)]
        counts.update(zlib.crc32(name.encode()) % BUCKETS for name in names)
    ids = list(counts)
    weights = np.array([(1 + np.log(counts[i])) * float(lexicon.idf[i]) for i in ids])
    weights /= np.sqrt((weights**2).sum())
    score = weights @ lexicon.table[ids].astype(np.float64) + lexicon.bias
    added = dict(zip(lexicon.names.tolist(), lexicon.added.astype(np.float64), strict=True))
    for negated, plain in spellings(tokens):
        keys = [zlib.crc32(name.encode()) for name in (negated, plain)]
        found = [added[key] for key in keys if key in added]
        score += found[0] / np.sqrt(len(tokens)) if found else 0
    return np.asarray(score)


def test_sentences_end_at_their_marks(words: MiniText) -> None:
    said = [word for sentence in SENTENCES for word in sentence]
    together = words(said)
    assert together.shape == (len(said), MiniText.width)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    np.testing.assert_array_equal(together, np.concatenate([words(s) for s in SENTENCES]))


def test_words_of_another_sentence_change_nothing(words: MiniText) -> None:
    before = words([*SENTENCES[0], "You", "are", "kind."])
    after = words([*SENTENCES[0], "Nobody", "cares!"])
    np.testing.assert_array_equal(before[:4], after[:4])
    assert (words(["You", "are", "cruel."])[0] != before[4]).any()  # those of its own do


def test_a_sentence_has_forty_words_at_most(words: MiniText) -> None:
    said = [f"word{k}" for k in range(2 * MAX_SENTENCE_WORDS + 15)]
    together = words(said)
    parts = [said[k : k + 40] for k in (0, 40, 80)]
    np.testing.assert_array_equal(together, np.concatenate([words(part) for part in parts]))
    assert [len(np.unique(together[k : k + 40, 4])) for k in (0, 40, 80)] == [1, 1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "so happy today",
        "not at all happy",
        "never so very very happy",
        "don't leave!!",
        "no, NO, no!",
        "naïve 日本語 42 ...",
        "I can't I can’t",
        "a",
    ],
)
def test_the_score_is_that_of_tf_idf_and_the_sum_of_its_words(words: MiniText, text: str) -> None:
    score = words.score(text)
    np.testing.assert_allclose(score, oracle_score(words, text), atol=1e-5)
    vectors = words(text.split())
    np.testing.assert_allclose(vectors[:, :2].sum(0) + words.lexicon.bias, score, atol=1e-5)
    np.testing.assert_allclose(vectors[:, 4:6], np.tile(score, (len(vectors), 1)), atol=1e-5)


def test_the_other_parts_of_a_vector(words: MiniText) -> None:
    said = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    vectors = words(said)
    own = vectors[:, :2].astype(np.float64)
    for k in range(len(said)):
        near = own[max(k - NEAR_WORDS, 0) : k + NEAR_WORDS + 1].sum(0)
        np.testing.assert_allclose(vectors[k, 2:4], near, atol=1e-5)
    known = [
        word in RATED or words.lexicon.idf[zlib.crc32(f"w{word}".encode()) % BUCKETS] > 0
        for word in said
    ]
    np.testing.assert_allclose(vectors[:, 6], np.mean(known))
    np.testing.assert_allclose(vectors[:, 7], np.log(11) / 3, rtol=1e-6)


@pytest.mark.parametrize("said", [[""], ["", ""], ["🙂"], ["—", "..", "?"]])
def test_words_of_which_nothing_is_known(words: MiniText, said: list[str]) -> None:
    vectors = words(said)
    assert vectors.shape == (len(said), 8)
    assert np.isfinite(vectors).all()
    if not tokenise(said)[0]:
        np.testing.assert_array_equal(vectors[:, :4], 0)
        np.testing.assert_array_equal(vectors[:, 4:6], np.tile(words.lexicon.bias, (len(said), 1)))


def test_no_words(words: MiniText) -> None:
    assert words([]).shape == (0, 8)
    assert encode_words([], words).shape == (0, 8)
    np.testing.assert_array_equal(words.score("  "), words.lexicon.bias)


@settings(max_examples=80, deadline=None)
@given(said=st.lists(st.text(max_size=12), max_size=60))
def test_any_text_will_do(said: list[str]) -> None:
    ones = np.ones((BUCKETS, 2), np.float32)
    encoder = MiniText(Lexicon(ones, ones[:, 0], np.zeros(2, np.float32)), "")
    vectors = encoder(said)
    assert vectors.shape == (len(said), 8)
    assert np.isfinite(vectors).all()


def test_tokens() -> None:
    assert tokenise(["Don’t", "--", "stop!!", "x2", "É", "so...", "café"]) == (
        ["don't", "stop", "!!", "x", "2", "é", "so", "...", "café"],
        [0, 2, 2, 3, 3, 4, 5, 5, 6],
    )


def test_spellings() -> None:
    said = "Don't say it's not good, I was never that sad!! Was I?"
    tokens = tokenise(said.split())[0]
    negated, plain = zip(*spellings(tokens), strict=True)
    assert " ".join(plain) == "dont say it not good i was never that sad ! was i ?"
    assert [k for k, (a, b) in enumerate(zip(negated, plain, strict=True)) if a != b] == [
        1, 2, 3, 4, 5, 6, 8, 9, 10,
    ]  # fmt: skip
    assert negated[9] == "not sad"


def test_what_a_word_adds_is_its_own(words: MiniText) -> None:
    """Of the same n-grams, the lexicon that knows a word differs in this word only."""
    lexicon = words.lexicon
    plain = MiniText(Lexicon(lexicon.table, lexicon.idf, lexicon.bias), "")
    said = ["this", "is", "not", "a", "happy", "or", "very", "happy", "day"]
    difference = words(said)[:, :2] - plain(said)[:, :2]
    assert np.flatnonzero(difference.any(1)).tolist() == [4, 7]
    at = {n: lexicon.added[np.searchsorted(lexicon.names, zlib.crc32(n.encode()))] for n in RATED}
    np.testing.assert_allclose(difference[4], at["not happy"] / 3, atol=1e-5)
    np.testing.assert_allclose(difference[7], at["happy"] / 3, atol=1e-5)


def test_hashes_are_the_same_in_every_process() -> None:
    """The table is stored: the hash may depend on nothing but the letters."""
    assert ngrams(["ab"]) == [
        [zlib.crc32(n) % (1 << 17) for n in (b"wab", b"c<a", b"cab", b"cb>", b"c<ab", b"cab>")]
        + [zlib.crc32(b"c<ab>") % (1 << 17)]
    ]
    tokens = ["so", "happy", "naïve"]
    script = f"from maven.encoders.words import ngrams; print(ngrams({tokens!r}))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": "4242", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(ngrams(tokens))


def test_the_lexicon_comes_back_from_half_precision(tmp_path: Path, words: MiniText) -> None:
    weights = tmp_path / "text.safetensors"
    tensors = {k: torch.from_numpy(v) for k, v in vars(words.lexicon).items()}
    save_file({k: v.half() if k != "names" else v for k, v in tensors.items()}, weights)
    loaded = load_mini("text", weights, "cpu")
    np.testing.assert_allclose(loaded(SENTENCES[0]), words(SENTENCES[0]), atol=1e-2)
    assert loaded.fingerprint != words.fingerprint


def test_meaningless_sentences_lie_near_the_origin(clips_dir: Path) -> None:
    """GRID: "bin blue at f two now"; lines of its files are start, end, word."""
    encoder = load_mini("text", MINI_FOLDER / "text.safetensors", "cpu")
    scores = []
    for path in sorted(clips_dir.glob("grid_*.align")):
        said = [line.split()[2] for line in path.read_text().splitlines() if line.strip()]
        scores.append(encoder.score(" ".join(word for word in said if word != "sil")))
    assert len(scores) >= 5
    assert np.abs(np.mean(scores, 0)).max() < 0.15


def test_names_without_values(tmp_path: Path, words: MiniText) -> None:
    tensors = {k: torch.from_numpy(v) for k, v in vars(words.lexicon).items()}
    save_file(tensors | {"added": torch.zeros(3, 2)}, tmp_path / "text.safetensors")
    with pytest.raises(RuntimeError, match=r"names and added .* \(10,\) and \(3, 2\)"):
        load_mini("text", tmp_path / "text.safetensors", "cpu")


def test_a_lexicon_of_another_size(tmp_path: Path) -> None:
    weights = tmp_path / "text.safetensors"
    save_file(
        {"table": torch.zeros(100, 2), "idf": torch.zeros(100), "bias": torch.zeros(2)}, weights
    )
    with pytest.raises(RuntimeError, match="table"):
        load_mini("text", weights, "cpu")
