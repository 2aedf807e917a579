"""Windows against one forward pass of the whole; contributions against all orders of adding."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maven import inference
from maven.config import MODALITIES, MavenConfig
from maven.features import Features
from maven.inference import Series, infer, resting
from maven.model import Maven
from maven.timeline import smooth, uniform_grid

CONFIG = MavenConfig(
    5, 4, 3, width=8, heads=2, join_width=8, join_heads=2, join_layers=1, radius_s=0.5
)
Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def network() -> Maven:
    made = Maven(CONFIG).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():  # norms keep their ones
            spread = 0.6 if parameter.ndim > 1 else 0.1
            parameter.add_(spread * torch.randn(parameter.shape, generator=random))
    return made


def clip(seconds: float, start_s: float = 0.0, seed: int = 0) -> Features:
    """Random features seen, heard and read in stretches of about 2 s, half of the time."""
    random = np.random.default_rng(seed)
    grid_s = uniform_grid(start_s, start_s + seconds, CONFIG.rate_hz)
    t = len(grid_s)
    values, observed = {}, {}
    for m in MODALITIES:
        values[m] = random.normal(size=(t, CONFIG.input_width(m))).astype(np.float32)
        observed[m] = np.repeat(random.uniform(size=t // 20 + 1) < 0.5, 20)[:t]
    return Features(grid_s, values, observed)


def only(features: Features, kept: tuple[str, ...]) -> Features:
    for m in MODALITIES:
        if m not in kept:
            features = features.without(m)
    return features


def whole(network: Maven, features: Features) -> Floats:
    """The answer of one forward pass over the whole clip."""
    with torch.no_grad():
        va = network(
            {m: torch.from_numpy(features.values[m])[None] for m in MODALITIES},
            {m: torch.from_numpy(features.observed[m])[None] for m in MODALITIES},
            torch.from_numpy(features.time_s)[None],
        )
    return np.asarray(va[0].double().numpy())


def anything(features: Features) -> npt.NDArray[np.bool_]:
    return np.stack([features.observed[m] for m in MODALITIES]).any(0)


def slow_shapley(network: Maven, features: Features) -> Floats:
    """Mean change of the answer when a modality is added, over all orders of adding the three."""
    t = len(features.time_s)
    distance_s = np.abs(features.time_s[:, None] - features.time_s)

    def answer(kept: frozenset[str]) -> Floats:
        part = only(features, tuple(kept))
        reached = (anything(part) & (distance_s <= CONFIG.reach_s)).any(1)
        return np.where(reached[:, None], whole(network, part), 0.0)

    known = {frozenset(order[:k]) for order in permutations(MODALITIES) for k in range(4)}
    answers = {kept: answer(kept) for kept in known}
    out = np.zeros((t, 3, 2))
    orders = list(permutations(MODALITIES))
    for order in orders:
        for k, m in enumerate(order):
            change = answers[frozenset(order[: k + 1])] - answers[frozenset(order[:k])]
            out[:, MODALITIES.index(m)] += change / len(orders)
    return np.where(anything(features)[:, None, None], out, np.nan)


def test_windows_give_the_answer_of_the_whole(network: Maven) -> None:
    features = clip(70)
    series = infer(network, features)
    expected = np.where(anything(features)[:, None], whole(network, features), np.nan)
    assert series.va.shape == (701, 2)
    np.testing.assert_allclose(series.va, expected, atol=1e-5)
    assert np.nanstd(series.va) > 0.05  # it does answer something


@pytest.mark.parametrize("core_s", [0.05, 3.0, 7.3, 1000.0])
def test_where_it_is_cut_does_not_matter(
    network: Maven, core_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = clip(10, seed=1)
    expected = infer(network, features)
    monkeypatch.setattr(inference, "CORE_S", core_s)
    series = infer(network, features)
    np.testing.assert_allclose(series.va, expected.va, atol=1e-5)
    np.testing.assert_allclose(series.contributions, expected.contributions, atol=1e-5)


def test_where_the_clock_starts_does_not_matter(network: Maven) -> None:
    here, there = infer(network, clip(20)), infer(network, clip(20, start_s=7200.3))
    np.testing.assert_allclose(there.va, here.va, atol=1e-5)
    np.testing.assert_allclose(there.time_s - 7200.3, here.time_s, atol=1e-9)


def test_contributions_are_shapley_values(network: Maven) -> None:
    features = clip(20, seed=2)
    series = infer(network, features)
    np.testing.assert_allclose(series.contributions, slow_shapley(network, features), atol=1e-5)
    np.testing.assert_allclose(series.contributions.sum(1), series.va, atol=1e-12)


@pytest.mark.parametrize("gone", MODALITIES)
def test_a_modality_never_observed_contributes_nothing(network: Maven, gone: str) -> None:
    features = clip(20, seed=3).without(gone)
    series = infer(network, features)
    seen = anything(features)
    np.testing.assert_array_equal(series.contributions[seen, MODALITIES.index(gone)], 0)
    np.testing.assert_allclose(series.contributions, slow_shapley(network, features), atol=1e-5)


def test_one_modality_alone_contributes_everything(network: Maven) -> None:
    features = only(clip(20, seed=3), ("audio",))
    series = infer(network, features)
    np.testing.assert_array_equal(series.contributions[:, 1], series.va)


def test_what_is_far_away_contributes_nothing(network: Maven) -> None:
    """Words an hour later must not take a share of this frame's answer."""
    features = clip(40, seed=4)
    features.observed["text"][:] = features.time_s > 35
    early = features.time_s < 20
    cut = Features(
        features.time_s[early],
        {m: x[early] for m, x in features.values.items()},
        {m: x[early] for m, x in features.observed.items()},
    )
    before = features.time_s < 20 - CONFIG.reach_s
    long, short = infer(network, features), infer(network, cut)
    np.testing.assert_allclose(
        long.contributions[before], short.contributions[: before.sum()], atol=1e-5
    )
    assert np.nanmax(np.abs(long.contributions[before, 2])) < 5e-6
    late = (features.time_s > 36) & anything(features)
    assert np.abs(long.contributions[late, 2]).max() > 0.01


def test_frames_where_nothing_was_observed_are_not_answered(network: Maven) -> None:
    features = clip(20, seed=5)
    for observed in features.observed.values():
        observed[50:80] = False
    for smoothing_s in (0.0, 1.0):
        series = infer(network, features, smoothing_s)
        unknown = ~anything(features)
        assert 30 <= unknown.sum() < 150
        np.testing.assert_array_equal(np.isnan(series.va).all(1), unknown)
        np.testing.assert_array_equal(np.isnan(series.va).any(1), unknown)
        np.testing.assert_array_equal(np.isnan(series.contributions).any((1, 2)), unknown)


def test_smoothing_is_that_of_the_timeline(network: Maven) -> None:
    features = clip(20, seed=6)
    raw, smoothed = infer(network, features), infer(network, features, 0.5)
    np.testing.assert_allclose(smoothed.va, smooth(raw.time_s, raw.va, 0.5), atol=1e-12)
    np.testing.assert_allclose(smoothed.contributions.sum(1), smoothed.va, atol=1e-12)
    assert np.nanstd(np.diff(smoothed.va, axis=0)) < np.nanstd(np.diff(raw.va, axis=0))


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_nothing_observed_is_no_answer_and_no_error(network: Maven, seconds: float) -> None:
    series = infer(network, only(clip(seconds), ()), smoothing_s=1.0)
    assert np.isnan(series.va).all()
    assert np.isnan(series.contributions).all()
    read = series.at(np.array([0.0, 5.0]))
    assert read.va.shape == (2, 2)
    assert read.contributions.shape == (2, 3, 2)
    assert np.isnan(read.va).all()
    assert np.isnan(series.weights(np.zeros((len(series.time_s), 3), bool))).all()
    assert np.isnan(series.weights(np.ones((len(series.time_s), 3), bool))).all()


def test_a_clip_of_one_frame(network: Maven) -> None:
    features = clip(0.0)
    for observed in features.observed.values():
        observed[:] = True
    series = infer(network, features, smoothing_s=1.0)
    np.testing.assert_allclose(series.va, whole(network, features), atol=1e-6)
    np.testing.assert_array_equal(series.at(np.array([-1.0, 9.0])).va, series.va[[0, 0]])


def test_garbage_where_nothing_was_observed_does_not_matter(network: Maven) -> None:
    features = clip(20, seed=7)
    expected = infer(network, features)
    for m in MODALITIES:
        features.values[m][~features.observed[m]] = np.nan
    np.testing.assert_array_equal(infer(network, features).va, expected.va)


def line(known: list[bool]) -> Series:
    """Contributions that grow with time at 0, 1, 2 ... s."""
    time_s = np.arange(float(len(known)))
    slopes = np.array([[0.01, -0.02], [0.03, 0.0], [0.0, 0.01]])
    contributions = time_s[:, None, None] * slopes
    contributions[~np.array(known)] = np.nan
    return Series(time_s, contributions.sum(1), contributions)


def test_a_series_is_read_between_its_known_frames() -> None:
    series = line([True, False, False, True, True])
    times_s = np.array([0.0, 0.5, 1.0, 2.9, 3.5, 4.0])
    read = series.at(times_s)
    np.testing.assert_array_equal(read.time_s, times_s)
    np.testing.assert_allclose(read.va, times_s[:, None] * [0.04, -0.01], atol=1e-12)
    np.testing.assert_allclose(read.contributions.sum(1), read.va, atol=1e-15)
    known = line([True] * 5)
    np.testing.assert_allclose(known.at(known.time_s).va, known.va, atol=1e-15)


def test_beyond_its_known_frames_the_nearest_holds() -> None:
    read = line([False, True, True, False]).at(np.array([-5.0, 0.0, 3.0, 99.0]))
    np.testing.assert_allclose(read.va, np.array([[1], [1], [2], [2]]) * [0.04, -0.01])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 30), st.integers(0, 99))
def test_a_series_read_in_pieces_is_the_series(known: list[bool], rows: int, seed: int) -> None:
    series = line(known)
    random = np.random.default_rng(seed)
    series = Series(series.time_s, series.va, series.contributions * random.normal(size=(1, 3, 2)))
    times_s = np.sort(random.uniform(-2, len(known) + 2, 60))
    times_s[::7] = np.round(times_s[::7])  # some at the frames
    whole = series.at(times_s).contributions
    pieces = [series.at(times_s[k : k + rows]).contributions for k in range(0, len(times_s), rows)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    known_s = series.time_s[known]
    for k in range(3) if len(known_s) else ():
        expected = np.interp(times_s, known_s, series.contributions[known, k, 0])
        np.testing.assert_array_equal(whole[:, k, 0], expected)


class Fast:
    """A network that answers at once."""

    config = CONFIG

    def answers(
        self, values: Mapping[str, Any], observed: Mapping[str, Any], time_s: Floats
    ) -> Floats:
        return np.zeros((len(observed["visual"]), len(time_s), 2))


def test_little_more_is_held_than_the_answer() -> None:
    features = clip(4000)
    tracemalloc.start()
    series = infer(Fast(), features, smoothing_s=1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    answer = series.va.nbytes + series.contributions.nbytes
    assert peak < 2 * answer  # of seven subsets alone, the answers are 1.75 times as many


def test_weights_are_shares_of_what_was_observed() -> None:
    random = np.random.default_rng(0)
    contributions = random.normal(size=(200, 3, 2)) * 0.2
    observed = random.uniform(size=(200, 3)) < 0.6
    series = Series(np.arange(200.0), contributions.sum(1), contributions)
    weights = series.weights(observed)
    some = observed.any(1)
    assert 0 < some.sum() < 200
    assert np.isnan(weights[~some]).all()
    assert (weights[some] >= 0).all()
    np.testing.assert_allclose(weights[some].sum(1), 1)
    assert not weights[some][~observed[some]].any()
    for k in np.flatnonzero(some):
        lengths = [float(np.hypot(*contributions[k, m])) * observed[k, m] for m in range(3)]
        np.testing.assert_allclose(weights[k], np.array(lengths) / sum(lengths), atol=1e-6)


def test_weights_are_equal_where_nothing_contributes() -> None:
    series = Series(np.zeros(2), np.zeros((2, 2)), np.zeros((2, 3, 2)))
    weights = series.weights(np.array([[True, True, False], [True, True, True]]))
    np.testing.assert_allclose(weights, [[0.5, 0.5, 0], [1 / 3] * 3])


def test_weights_count_from_rest() -> None:
    """A modality that only adds what it always adds has no share."""
    rest = ((0.1, 0.0), (0.0, -0.2), (0.0, 0.0))
    contributions = np.array([rest, ((0.4, 0.4), (0.0, -0.2), (0.0, 0.0))])
    series = Series(np.zeros(2), contributions.sum(1), contributions)
    weights = series.weights(np.ones((2, 3), bool), rest)
    np.testing.assert_allclose(weights, [[1 / 3] * 3, [1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("gone", MODALITIES)
def test_what_is_muted_weighs_nothing(network: Maven, gone: str) -> None:
    features = clip(20, seed=8)
    muted = features.without(gone)
    observed = np.stack([muted.observed[m] for m in MODALITIES], 1)
    before = infer(network, features).weights(
        np.stack([features.observed[m] for m in MODALITIES], 1), ((0.1, 0.1),) * 3
    )
    weights = infer(network, muted).weights(observed, ((0.1, 0.1),) * 3)
    k = MODALITIES.index(gone)
    some = observed.any(1)
    assert (before[features.observed[gone], k] > 0).all()
    assert not weights[some, k].any()
    np.testing.assert_allclose(weights[some].sum(1), 1)


def test_rest_is_the_mean_contribution_where_all_is_observed(network: Maven) -> None:
    clips = [clip(20, seed=9), clip(5, seed=10)]
    parts = []
    for features in clips:
        everything = np.stack([features.observed[m] for m in MODALITIES]).all(0)
        parts.append(slow_shapley(network, features)[everything])
    expected = np.concatenate(parts).mean(0)
    np.testing.assert_allclose(resting(network, clips), expected, atol=1e-5)
