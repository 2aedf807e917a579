"""What drove an answer at a moment, against planted causes and slow references."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch

from maven.config import MODALITIES, PATHS, MavenConfig
from maven.drivers import looks, nearest, reach_s, strongest, word_effects
from maven.encoders.base import Floats
from maven.features import Features
from maven.inference import infer
from maven.model import Maven
from maven.timeline import place_words, uniform_grid
from maven.transcript import Word

CONFIG = MavenConfig(
    5, 4, 2, width=8, heads=2, join_width=8, join_heads=2, join_layers=1, radius_s=0.5
)
SMOOTHING_S = 0.2
TEXTS = ("well", "good", "then", "bad.", "so", "good!")


class Lexicon:
    """(own score, sum over the sentence) of "good" and "bad"."""

    name, width, fingerprint = "lexicon", 2, "0"

    def __call__(self, words: Sequence[str]) -> Floats:
        own = [("good" in w) - 1.0 * ("bad" in w) for w in words]
        ends = [k for k, w in enumerate(words) if w[-1:] in (".", "!")]
        out = np.zeros((len(words), 2), np.float32)
        for k in range(len(words)):
            first = max((e + 1 for e in ends if e < k), default=0)
            last = min((e for e in ends if e >= k), default=len(words) - 1)
            out[k] = own[k], sum(own[first : last + 1])
        return out


@pytest.fixture(scope="module")
def network() -> Maven:
    made = Maven(CONFIG).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            spread = 0.6 if parameter.ndim > 1 else 0.1
            parameter.add_(spread * torch.randn(parameter.shape, generator=random))
    return made


def said(texts: Sequence[str] = TEXTS, start_s: float = 3.0) -> list[Word]:
    return [
        Word(text, start_s + 0.4 * k, start_s + 0.4 * k + 0.3, 0 if k < 4 else 1)
        for k, text in enumerate(texts)
    ]


def placed(words: Sequence[Word], vectors: Floats, features: Features) -> Features:
    text = place_words(
        [w.start_s for w in words], [w.end_s for w in words], [w.segment for w in words],
        vectors, features.time_s,
    )  # fmt: skip
    return Features(
        features.time_s,
        {**features.values, "text": text.features},
        features.observed | {"text": text.mask},
    )


def clip(words: Sequence[Word], seconds: float = 12.0) -> Features:
    random = np.random.default_rng(0)
    time_s = uniform_grid(0.0, seconds, CONFIG.rate_hz)
    t = len(time_s)
    bare = Features(
        time_s,
        {m: random.normal(size=(t, CONFIG.input_width(m))).astype(np.float32) for m in MODALITIES},
        {m: random.uniform(size=t) < 0.8 for m in MODALITIES},
    )
    return placed(words, Lexicon()([w.text for w in words]), bare)


def test_effects_are_changes_of_the_words_contribution(network: Maven) -> None:
    words, time_s = said(), 4.0
    features = clip(words)
    found = word_effects(network, features, words, Lexicon(), time_s, SMOOTHING_S)
    assert sorted(w.text for w in found) == sorted(TEXTS)

    def contribution(f: Features) -> np.ndarray:
        series = infer(network, f, SMOOTHING_S).at(np.array([time_s]))
        return np.asarray(series.contributions[0, 2])

    sizes = []
    for effect in found:
        k = next(i for i, w in enumerate(words) if w.start_s == effect.start_s)
        texts = [w.text if i != k else w.text.strip("abdegloswnth") for i, w in enumerate(words)]
        kept = [i for i in range(len(words)) if i != k]
        without = placed([words[i] for i in kept], Lexicon()(texts)[kept], features)
        expected = contribution(features) - contribution(without)
        np.testing.assert_allclose([effect.valence, effect.arousal], expected, atol=1e-5)
        sizes.append(float(np.hypot(*expected)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0.01


def test_words_out_of_reach_are_not_asked(network: Maven) -> None:
    words = [*said(), Word("good.", 9.0, 9.3, 2)]
    far_s = reach_s(CONFIG, SMOOTHING_S)
    assert far_s == pytest.approx(CONFIG.reach_s + 0.3)
    features = clip(words)
    near = word_effects(network, features, words, Lexicon(), 4.0, SMOOTHING_S)
    assert max(w.end_s for w in near) < 4.0 + far_s < 9.0
    late = word_effects(network, features, words, Lexicon(), 9.1, SMOOTHING_S)
    assert [w.start_s for w in late] == [9.0]
    assert word_effects(network, features, words, Lexicon(), 11.9, SMOOTHING_S) == ()
    assert word_effects(network, features, [], Lexicon(), 4.0, SMOOTHING_S) == ()


def test_the_only_word_makes_the_whole_contribution(network: Maven) -> None:
    words = [Word("good", 4.0, 4.6, 0)]
    features = clip(words)
    (effect,) = word_effects(network, features, words, Lexicon(), 4.3, SMOOTHING_S)
    whole = infer(network, features, SMOOTHING_S).at(np.array([4.3])).contributions[0, 2]
    np.testing.assert_allclose([effect.valence, effect.arousal], whole, atol=1e-5)


@pytest.mark.parametrize("time_s", [0.0, 6.03, 12.0])
def test_looks_are_those_of_the_nearest_frame(network: Maven, time_s: float) -> None:
    features = clip(said())
    found = looks(network, features, time_s)
    assert abs(found.time_s - time_s) <= 0.05 + 1e-9
    assert (np.abs(found.around_s - found.time_s) <= CONFIG.radius_s + 1e-6).all()  # type: ignore[operator]
    inside = np.isin(features.time_s, found.around_s)
    assert list(found.weights) == list(PATHS)
    for (_, of), weights in found.weights.items():
        assert weights.shape == found.around_s.shape
        np.testing.assert_array_equal(found.observed[of], features.observed[of][inside])
        assert not weights[~found.observed[of]].any()
        assert weights.sum() == pytest.approx(float(found.observed[of].any()), abs=1e-5)


def table(valence: Sequence[float], emotions: Sequence[str | None]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "time_s": np.arange(float(len(valence))),
            "valence": valence,
            "intensity": np.abs(valence),
            "emotion": pd.array(emotions, dtype="string"),
        }
    )


def test_moments_are_peaks_and_then_other_emotions() -> None:
    names = ["Neutral"] * 2 + ["Happy"] * 3 + ["Angry"] * 5 + ["Neutral"] * 2 + [None]
    valence = [0.1, 0.1, 0.9, 0.8, 0.7, -0.65, -0.6, -0.55, -0.5, -0.45, -0.1, -0.05, np.nan]
    rows = table(valence, names)
    assert strongest(rows, 1) == [2]
    assert strongest(rows, 5) == [2, 7]
    assert strongest(table([np.nan] * 3, [None] * 3), 3) == []


def test_the_nearest_row_has_an_answer() -> None:
    rows = table([np.nan, 0.1, np.nan, np.nan, 0.3], [None, "Happy", None, None, "Happy"])
    assert nearest(rows, 0.0) == 1
    assert nearest(rows, 3.4) == 4
    assert nearest(table([np.nan] * 3, [None] * 3), 1.0) is None
