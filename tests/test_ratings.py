"""Ratings: interpolation, labels, lag and agreement against plain code and published numbers."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.datasets.affwild2 import read_labels
from maven.ratings import (
    GAP_S,
    Floats,
    Lag,
    Trace,
    affwild2,
    against,
    agreement,
    at,
    combined,
    delays,
    find_lag,
    reliability,
    shifted,
)

SHROUT_FLEISS = [  # 1979, table 2: six targets, four judges
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]


def walk(seed: int, length_s: float = 30.0, rate_hz: float = 25.0, rater: str = "a") -> Trace:
    """A smooth random walk in [-1, 1]: sums of slow sines."""
    random = np.random.default_rng(seed)
    time_s = np.arange(0, length_s, 1 / rate_hz)
    hz = random.uniform(0.05, 0.4, (2, 6, 1))
    waves = np.sin(2 * np.pi * (hz * time_s + random.uniform(0, 1, (2, 6, 1)))).sum(1) / 6
    return Trace(rater, 0, time_s, waves[0], waves[1])


def lin(x: Floats, y: Floats) -> float:
    """Lin's coefficient, as he wrote it."""
    n = len(x)
    mx, my = sum(x) / n, sum(y) / n
    sxy = sum((x - mx) * (y - my)) / n
    return float(2 * sxy / (sum((x - mx) ** 2) / n + sum((y - my) ** 2) / n + (mx - my) ** 2))


# --- what a trace is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rater": ""}, "rater is ''; accepted: 1 to 80 printable"),
        ({"rater": "x" * 81}, "accepted: 1 to 80"),
        ({"rater": "a\nb"}, r"rater is 'a\\nb'"),
        ({"rater": " a"}, "without blanks around"),
        ({"person": -1}, "person is -1; accepted: 0 or more"),
        ({"valence": [0.0]}, r"need one shape \(n,\)"),
        ({"time_s": [[0.0, 1.0]]}, r"need one shape \(n,\)"),
        ({"time_s": [1.0, 1.0]}, "rise from point to point"),
        ({"time_s": [0.0, np.inf]}, "must be finite"),
        ({"valence": [0.0, 1.01]}, "valence is 1.01 at a point; accepted: -1 to 1"),
        ({"arousal": [np.nan, 0.0]}, "arousal is nan at a point"),
    ],
)
def test_a_trace_says_what_is_wrong_with_it(change: dict[str, object], message: str) -> None:
    fields = {"rater": "a", "person": 0, "time_s": [0, 1], "valence": [0, 0], "arousal": [0, 0]}
    with pytest.raises(ValueError, match=message) as error:
        Trace(**(fields | change))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_between_points_is_a_line_and_in_gaps_nothing() -> None:
    trace = Trace("a", 0, [1.0, 1.2, 3.0, 3.4], [0.0, 0.4, 1.0, -1.0], [0.5, 0.5, 0.1, 0.3])
    found = at(trace, [0.99, 1.0, 1.1, 1.2, 1.21, 2.99, 3.0, 3.2, 3.4, 3.41])
    nothing = [np.nan, np.nan]
    wanted = [nothing, [0, 0.5], [0.2, 0.5], [0.4, 0.5], nothing, nothing, [1, 0.1], [0, 0.2],
              [-1, 0.3], nothing]  # fmt: skip
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert trace.rated_s == pytest.approx(0.6)
    assert at(Trace("a", 0, [], [], []), [0.0]).shape == (1, 2)


@given(
    steps=st.lists(st.floats(0.01, 2.0), min_size=1, max_size=20),
    times=st.lists(st.floats(-1.0, 30.0), max_size=30),
    data=st.data(),
)
def test_interpolation_is_that_of_plain_code(
    steps: list[float], times: list[float], data: st.DataObject
) -> None:
    time_s = np.cumsum(steps)
    values = st.lists(st.floats(-1, 1), min_size=len(steps), max_size=len(steps))
    valence, arousal = data.draw(values), data.draw(values)
    found = at(Trace("a", 0, time_s, valence, arousal), times)
    for k, t in enumerate(times):
        wanted = [np.nan, np.nan]
        for i, first in enumerate(time_s):
            if first == t:
                wanted = [valence[i], arousal[i]]
            elif i + 1 < len(time_s) and first < t < time_s[i + 1]:
                step = time_s[i + 1] - first
                if step <= GAP_S:
                    share = (t - first) / step
                    wanted = [x[i] + share * (x[i + 1] - x[i]) for x in (valence, arousal)]
        np.testing.assert_allclose(found[k], wanted, atol=1e-9)


# --- labels ---------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), start_s=st.floats(0, 3), rate_hz=st.sampled_from([15.0, 29.97]))
@settings(max_examples=20)
def test_labels_come_back_through_the_reader_of_the_corpus(
    tmp_path_factory: pytest.TempPathFactory, seed: int, start_s: float, rate_hz: float
) -> None:
    rated = walk(seed, 4.0)
    held = (rated.time_s < 1) | (rated.time_s > 2)
    rated = Trace("a", 0, rated.time_s[held], rated.valence[held], rated.arousal[held])
    frames_s = start_s + np.arange(60) / rate_hz
    path: Path = tmp_path_factory.mktemp("labels") / "clip.txt"
    path.write_text(affwild2(at(rated, frames_s)), encoding="utf-8")
    assert path.read_text(encoding="utf-8").splitlines()[0] == "valence,arousal"
    labels, wanted = read_labels(path), at(rated, frames_s)
    assert labels.shape == (60, 2)
    held = np.isfinite(wanted[:, 0])
    np.testing.assert_allclose(labels[held], wanted[held], atol=6e-7)
    assert (labels[~held] == -5).all()


# --- lag ------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), delay_s=st.floats(-0.7, 5.0))
@settings(max_examples=25, deadline=None)
def test_the_delay_of_a_late_copy_is_found(seed: int, delay_s: float) -> None:
    said = walk(seed)
    lag = find_lag(shifted(said, -delay_s), said)
    assert lag.lag_s == pytest.approx(delay_s, abs=0.051)
    assert lag.low_s <= lag.lag_s <= lag.high_s
    assert lag.ccc_at_lag > 0.99
    assert lag.ccc_at_lag >= lag.ccc


def test_a_lag_says_what_a_shift_by_hand_says() -> None:
    said, rated = walk(1), shifted(walk(1), -1.3)
    noise = np.random.default_rng(0).normal(0, 0.05, (2, len(rated.time_s)))
    noisy = noise + np.stack((rated.valence, rated.arousal))
    rated = Trace("a", 0, rated.time_s, *np.clip(noisy, -1, 1))
    lag = find_lag(rated, said)
    assert lag.lag_s == pytest.approx(1.3, abs=0.051)
    grid_s = np.arange(0, 28.0, 0.1)
    for delay_s, found in ((0.0, lag.ccc), (lag.lag_s, lag.ccc_at_lag)):
        x, y = at(said, grid_s), at(rated, grid_s + delay_s)
        held = np.isfinite(y[:, 0])
        by_hand = [lin(x[held, k], y[held, k]) for k in range(2)]
        assert found == pytest.approx(np.mean(by_hand), abs=0.01)


def test_a_flat_maximum_is_wider_than_a_sharp_one() -> None:
    time_s = np.arange(0, 60, 0.04)

    def wave(hz: float) -> Trace:
        rad = 2 * np.pi * hz * time_s
        return Trace("a", 0, time_s, np.sin(rad), np.cos(rad))

    slow, fast = (find_lag(shifted(wave(hz), -2), wave(hz)) for hz in (0.05, 0.25))
    assert slow.lag_s == pytest.approx(2, abs=0.051)
    # CCC of two sines is the cosine of their distance: 1 % less at acos(0.99) / (2 pi f).
    for found, hz in ((slow, 0.05), (fast, 0.25)):
        half_s = np.arccos(0.99) / (2 * np.pi * hz)
        assert found.high_s - found.low_s == pytest.approx(2 * half_s, abs=0.15)


@pytest.mark.parametrize("kind", ["constant", "short", "elsewhere", "empty", "rising"])
def test_no_lag_is_made_up(kind: str) -> None:
    said = walk(3)
    n = len(said.time_s)
    rated = {
        "constant": Trace("a", 0, said.time_s, np.full(n, 0.3), np.full(n, -0.2)),
        "short": Trace("a", 0, said.time_s[:40], said.valence[:40], said.arousal[:40]),
        "elsewhere": shifted(said, -100),
        "empty": Trace("a", 0, [], [], []),
        "rising": Trace("a", 0, said.time_s, np.linspace(-1, 1, n), np.linspace(-1, 1, n)),
    }[kind]
    reference = rated if kind == "rising" else said
    reference = shifted(reference, 6.5) if kind == "rising" else reference
    lag = find_lag(rated, reference)
    assert np.isnan([lag.lag_s, lag.low_s, lag.high_s, lag.ccc_at_lag]).all()
    assert np.isnan(lag.ccc) == (kind in ("elsewhere", "empty"))


def test_those_without_a_lag_take_the_usual_one() -> None:
    lags = [Lag(x, np.nan, np.nan, 0.0, 0.0) for x in (1.0, np.nan, 2.0, 4.0)]
    assert delays(lags) == [1.0, 2.0, 2.0, 4.0]
    assert delays(lags[1:2]) == [0.0]


# --- against a prediction -------------------------------------------------------------------------


def test_scores_are_those_of_plain_code() -> None:
    said, rated = walk(5), walk(6)
    rated = Trace("a", 0, rated.time_s[100:], rated.valence[100:], rated.arousal[100:])
    (found,) = against([rated], said)
    x, y = said.valence[100:], rated.valence
    assert found.scores.frames == len(x)
    assert found.scores.ccc_valence == pytest.approx(lin(x, y), abs=1e-9)
    assert found.scores.ccc_arousal == pytest.approx(lin(said.arousal[100:], rated.arousal))
    assert found.scores.rmse_valence == pytest.approx(float(np.sqrt(((x - y) ** 2).mean())))
    assert found.scores.sagr_valence == pytest.approx(float(((x > 0) == (y > 0)).mean()))
    (same,) = against([said], said)
    assert same.scores.ccc_mean == pytest.approx(1)


def test_a_prediction_without_an_answer_is_no_error() -> None:
    (found,) = against([walk(1)], Trace("maven", 0, [], [], []))
    assert found.scores.frames == 0
    assert np.isnan(found.scores.ccc_mean)
    assert np.isnan(found.lag.lag_s)


# --- agreement ------------------------------------------------------------------------------------


def test_the_example_of_shrout_and_fleiss() -> None:
    found = reliability(SHROUT_FLEISS)
    assert round(found.icc_single, 2) == 0.29
    assert round(found.icc_mean, 2) == 0.62
    assert round(found.consistency_single, 2) == 0.71
    assert round(found.alpha, 2) == 0.91


@given(seed=st.integers(0, 1000), raters=st.integers(2, 5))
def test_alpha_is_cronbachs(seed: int, raters: int) -> None:
    """From variances of items and of their sum, another formula than that of mean squares."""
    values = np.random.default_rng(seed).normal(0, 1, (30, raters)) + np.arange(30)[:, None] / 10
    items, total = values.var(0, ddof=1).sum(), values.sum(1).var(ddof=1)
    alpha = raters / (raters - 1) * (1 - items / total)
    assert reliability(values).alpha == pytest.approx(alpha)


def test_reliability_without_enough_is_unknown() -> None:
    for values in (np.zeros((1, 3)), np.zeros((9, 1)), np.zeros((9, 2))):
        assert np.isnan(reliability(values).alpha)
    for constant in ([0.1, 0.1], [0.1, 0.3], [0.1, 0.7, 0.3]):  # means of these are rounded
        assert np.isnan(reliability(np.tile(constant, (250, 1))).alpha)
    assert np.isnan(reliability(np.full((250, 2), 0.1)).icc_single)
    assert reliability(np.arange(8).repeat(3).reshape(8, 3)).icc_single == pytest.approx(1)


def test_agreement_of_three_of_whom_one_rated_a_part() -> None:
    a, b, c = walk(1, 20), walk(2, 20), walk(3, 20)
    c = Trace("c", 0, c.time_s[250:], c.valence[250:], c.arousal[250:])
    found = agreement([a, b, c])
    assert found.overlap_s == pytest.approx(10)
    np.testing.assert_allclose(found.pairwise, found.pairwise.transpose(0, 2, 1))
    assert found.pairwise[0, 0, 1] == pytest.approx(lin(a.valence, b.valence))
    assert found.pairwise[1, 0, 2] == pytest.approx(lin(a.arousal[250:], c.arousal))
    by_hand = [lin(a.valence, b.valence), lin(a.valence[250:], c.valence)]
    by_hand.append(lin(b.valence[250:], c.valence))
    assert found.mean_pairwise[0] == pytest.approx(np.mean(by_hand))
    rest = np.concatenate((b.valence[:250], (b.valence[250:] + c.valence) / 2))
    assert found.others[0, 0] == pytest.approx(lin(a.valence, rest))
    columns = np.stack((a.valence[250:], b.valence[250:], c.valence), 1)
    assert astuple(found.valence) == pytest.approx(astuple(reliability(columns)))


def test_one_rater_agrees_with_nobody_and_two_apart_neither() -> None:
    alone = agreement([walk(1)])
    assert alone.pairwise.shape == (2, 1, 1)
    assert np.isnan(alone.mean_pairwise).all()
    assert np.isnan(alone.others).all()
    apart = agreement([walk(1, 5), shifted(walk(2, 5), -100)])
    assert np.isnan(apart.pairwise[:, 0, 1]).all()
    assert apart.overlap_s == 0
    assert np.isnan(apart.valence.alpha)


def test_the_mean_is_of_those_who_rated() -> None:
    a = Trace("a", 0, [0.0, 0.4, 0.8], [0.0, 0.4, 0.8], [0.0, 0.0, 0.0])
    b = Trace("b", 0, [0.4, 0.8, 1.2], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    found = combined([a, b], [0.2, 0.6, 1.0, 1.4])
    np.testing.assert_allclose(found, [[0.2, 0], [0.3, 0.5], [0, 1], [np.nan, np.nan]])
    late = combined([shifted(x, 0.4) for x in (a, b)], [0.2])
    np.testing.assert_allclose(late, found[1:2])
