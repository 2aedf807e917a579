"""The training loop on planted problems: what it learns, what it drops and what it ignores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maven import train as training
from maven.features import Features
from maven.metrics import ccc
from maven.model import MODALITIES, Maven, MavenConfig
from maven.timeline import smooth
from maven.train import (
    Sample,
    TrainConfig,
    choose_smoothing,
    drop_modalities,
    predict,
    score,
    train,
)

RATE_HZ = 5.0
WIDTHS = {"visual": 6, "audio": 4, "text": 3}
CONFIG = MavenConfig(
    *WIDTHS.values(), width=16, heads=2, join_width=16, join_heads=2, join_layers=1,
    rate_hz=RATE_HZ, dropout=0.0,
)  # fmt: skip


def planted(seed: int, frames: int = 40) -> Sample:
    """Visual features linear in the labels; sound and words are noise, partly unobserved."""
    random = np.random.default_rng(seed)
    time_s = np.arange(frames) / RATE_HZ
    phase = random.uniform(0, 2 * np.pi, 2)
    labels = 0.6 * np.sin(2 * np.pi * time_s[:, None] / 6 + phase) + random.uniform(-0.3, 0.3, 2)
    mix = np.random.default_rng(0).normal(size=(2, WIDTHS["visual"]))
    values = {m: random.normal(size=(frames, d)).astype(np.float32) for m, d in WIDTHS.items()}
    values["visual"] = (labels @ mix + 0.05 * values["visual"]).astype(np.float32)
    observed = {m: random.uniform(size=frames) < 0.8 for m in MODALITIES}
    for m in MODALITIES:
        values[m][~observed[m]] = 0
    return Features(time_s, values, observed), labels.astype(np.float32)


def stream(first: int = 1000) -> Iterator[Sample]:
    seed = first
    while True:
        yield planted(seed)
        seed += 1


def network(seed: int = 0) -> Maven:
    torch.manual_seed(seed)
    made = Maven(CONFIG)
    for m in MODALITIES:
        values = [f.values[m][f.observed[m]] for f, _ in map(planted, range(50, 60))]
        made.fit_moments(m, torch.from_numpy(np.concatenate(values)))
    return made


def weights(made: Maven) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in made.state_dict().items()}


VAL = [planted(seed) for seed in range(6)]
SHORT = TrainConfig(steps=4, batch=3, learning_rate=3e-3, seed=1)


# --- the loop ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt() -> tuple[Maven, list[dict[str, Any]]]:
    figures: list[dict[str, Any]] = []
    config = TrainConfig(
        steps=150, batch=8, learning_rate=5e-3, ema=0.95, drop_modality=0.1, feature_noise=0.05
    )
    return train(network(), stream(), VAL, config, figures.append), figures


def test_a_planted_problem_is_learnt(learnt: tuple[Maven, list[dict[str, Any]]]) -> None:
    average, figures = learnt
    agreement = score(average, VAL)
    assert agreement["ccc_mean"] > 0.8
    assert agreement["ccc_mean"] == pytest.approx(
        (agreement["ccc_valence"] + agreement["ccc_arousal"]) / 2
    )
    assert not average.training
    assert [f["steps"] for f in figures] == list(range(7, 151, 7))
    assert figures[-1]["ccc_mean"] > figures[0]["ccc_mean"]
    assert figures[-1]["loss"] < figures[0]["loss"]


def test_it_answers_from_what_tells_and_only_from_that(
    learnt: tuple[Maven, list[dict[str, Any]]],
) -> None:
    assert score(learnt[0], VAL, ("visual",))["ccc_mean"] > 0.8
    assert abs(score(learnt[0], VAL, ("audio", "text"))["ccc_mean"]) < 0.25


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (
        weights(train(network(), stream(), VAL, replace(SHORT, seed=s), lambda _: None))
        for s in (1, 1, 2)
    )
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_the_average_lags_behind_and_keeps_the_moments() -> None:
    """step / (step + 10) at first: after one step, 1/11 of the start and 10/11 of the end."""
    start, trained = network(), network()
    average = train(trained, stream(), VAL, replace(SHORT, steps=1), lambda _: None)
    before, end = dict(start.named_parameters()), dict(trained.named_parameters())
    for name, kept in average.named_parameters():
        torch.testing.assert_close(kept, (before[name] + 10 * end[name]) / 11)
    for m in MODALITIES:
        name = f"project.{m}.scale"
        assert torch.equal(average.get_buffer(name), start.get_buffer(name))


def test_the_rate_warms_up_and_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Spy(torch.optim.AdamW):
        def step(self, *arguments: Any, **options: Any) -> None:
            rates.append(self.param_groups[0]["lr"])
            super().step(*arguments, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    train(network(), stream(), VAL[:1], replace(SHORT, steps=20, batch=1), lambda _: None)
    cosine = 0.5 + 0.5 * np.cos(np.pi * np.arange(20) / 20)
    expected = 3e-3 * np.minimum([0.5, *[1.0] * 19], cosine)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


# --- labels that are none ----------------------------------------------------------------------


def spoilt(sample: Sample, value: float, filler: float) -> Sample:
    """Every third frame's labels marked invalid: one -5, the other anything."""
    features, labels = sample
    labels = labels.copy()
    labels[::3, 0] = value
    labels[::3, 1] = filler
    return features, labels


def test_invalid_labels_are_not_trained_on() -> None:
    def spoilt_stream(filler: float) -> Iterator[Sample]:
        return (spoilt(sample, -5.0, filler) for sample in stream())

    def trained(samples: Iterator[Sample]) -> dict[str, Tensor]:
        return weights(train(network(), samples, VAL, SHORT, lambda _: None))

    first, other = trained(spoilt_stream(-5.0)), trained(spoilt_stream(0.7))
    assert all(torch.equal(first[k], other[k]) for k in first)
    plain = trained(stream())
    assert any(not torch.equal(first[k], plain[k]) for k in first)


def test_invalid_labels_are_not_scored(learnt: tuple[Maven, list[dict[str, Any]]]) -> None:
    made = learnt[0]
    marked = [spoilt(sample, -5.0, -5.0) for sample in VAL]
    predicted, _ = predict(made, VAL)
    kept = np.concatenate([np.arange(len(va)) % 3 > 0 for va in predicted])
    va, labels = np.concatenate(predicted), np.concatenate([labels for _, labels in VAL])
    kept &= np.isfinite(va[:, 0])
    figures = score(made, marked)
    assert figures["ccc_valence"] == pytest.approx(ccc(va[kept, 0], labels[kept, 0]))
    assert figures["ccc_arousal"] == pytest.approx(ccc(va[kept, 1], labels[kept, 1]))
    assert choose_smoothing(made, marked, (0.0,))[1][0.0] == pytest.approx(figures["ccc_mean"])


# --- what is dropped, and noise ----------------------------------------------------------------


def all_observed(b: int, t: int) -> dict[str, Tensor]:
    return {m: torch.ones(b, t, dtype=torch.bool) for m in MODALITIES}


@pytest.mark.parametrize(("whole", "stretch"), [(0.0, 1.0), (0.5, 0.0), (0.9, 1.0), (1.0, 1.0)])
def test_never_are_all_three_wholly_gone(whole: float, stretch: float) -> None:
    torch.manual_seed(0)
    observed = all_observed(500, 60)
    drop_modalities(observed, TrainConfig(drop_modality=whole, drop_stretch=stretch))
    gone = torch.stack([~observed[m].any(1) for m in MODALITIES])
    assert not gone.all(0).any()
    left = torch.stack(list(observed.values())).float().mean(2).amax(0)
    assert left.min() >= 0.48  # a stretch is half of a sequence at most
    if whole == 0.5:
        assert gone.float().mean().item() == pytest.approx((0.5 - 0.125) / 1, abs=0.04)
    if whole == 0:
        assert not gone.any()


def test_modalities_are_dropped_as_often_as_said() -> None:
    torch.manual_seed(0)
    observed = all_observed(4000, 50)
    drop_modalities(observed, TrainConfig(drop_modality=0.2, drop_stretch=0.3))
    for m in MODALITIES:
        share = observed[m].float().mean(1)
        assert (share == 0).float().mean().item() == pytest.approx(0.2 - 0.008, abs=0.025)
        partly = (share > 0) & (share < 1)
        assert partly.float().mean().item() == pytest.approx(0.8 * 0.3, abs=0.04)
        assert (observed[m].int().diff(dim=1).abs().sum(1) <= 2).all()  # one stretch each


def test_nothing_is_dropped_when_nothing_is_to_be_and_nothing_comes_back() -> None:
    observed = all_observed(20, 30)
    drop_modalities(observed, TrainConfig(drop_modality=0.0, drop_stretch=0.0))
    assert all(mask.all() for mask in observed.values())
    random = torch.Generator().manual_seed(0)
    masks = {m: torch.rand(200, 30, generator=random) < 0.5 for m in MODALITIES}
    after = dict(masks)
    drop_modalities(after, TrainConfig(drop_modality=0.3, drop_stretch=0.5))
    assert not any((after[m] & ~masks[m]).any() for m in MODALITIES)


def test_noise_is_added_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """In units of each feature's spread; answers and scores see none."""
    seen: list[tuple[bool, dict[str, Tensor]]] = []
    forward = Maven.forward

    def spy(self: Maven, features: dict[str, Tensor], *rest: Any) -> Tensor:
        seen.append((self.training, {m: v.clone() for m, v in features.items()}))
        return forward(self, features, *rest)

    monkeypatch.setattr(Maven, "forward", spy)
    made, sample = network(), planted(3, frames=400)
    config = TrainConfig(steps=1, batch=2, feature_noise=0.2)
    train(made, iter([sample, sample]), [sample], config, lambda _: None)
    in_training = [values for flag, values in seen if flag]
    in_answers = [values for flag, values in seen if not flag]
    assert len(in_training) == 1
    assert in_answers
    for m in MODALITIES:
        clean = torch.from_numpy(sample[0].values[m])
        noise = (in_training[0][m] - clean) / made.get_buffer(f"project.{m}.scale")
        assert noise.std().item() == pytest.approx(0.2, abs=0.02)
        assert noise.mean().item() == pytest.approx(0, abs=0.02)
        for values in in_answers:  # windows of the sequence, as they are
            starts = [k for k in range(400) if torch.equal(clean[k], values[m][0, 0])]
            assert any(torch.equal(values[m][0], clean[k : k + values[m].shape[1]]) for k in starts)
    assert np.array_equal(predict(made.eval(), [sample])[0], predict(made, [sample])[0], True)


def test_without_noise_features_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[dict[str, Tensor]] = []
    forward = Maven.forward

    def spy(self: Maven, features: dict[str, Tensor], *rest: Any) -> Tensor:
        if self.training:
            batches.append(features)
        return forward(self, features, *rest)

    monkeypatch.setattr(Maven, "forward", spy)
    config = TrainConfig(steps=1, batch=1, feature_noise=0.0)
    train(network(), iter([VAL[0]]), VAL[:1], config, lambda _: None)
    for m in MODALITIES:
        assert torch.equal(batches[0][m][0], torch.from_numpy(VAL[0][0].values[m]))


# --- smoothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_the_best_smoothing_is_chosen(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """Without noise any smoothing harms; with much of it, a middling one is best."""
    random = np.random.default_rng(0)
    samples = [planted(seed, frames=200) for seed in range(5)]
    answers = [labels + noise * random.normal(size=labels.shape) for _, labels in samples]
    monkeypatch.setattr(
        training, "predict", lambda *_: (answers, [labels for _, labels in samples])
    )
    widths = (0.0, 0.4, 0.8, 1.6, 6.0)
    best, scores = choose_smoothing(network(), samples, widths)
    assert tuple(scores) == widths
    labels = np.concatenate([labels for _, labels in samples])
    for width_s in widths:
        smoothed = np.concatenate(
            [smooth(f.time_s, va, width_s) for (f, _), va in zip(samples, answers, strict=True)]
        )
        oracle = np.mean([ccc(smoothed[:, k], labels[:, k]) for k in range(2)])
        assert scores[width_s] == pytest.approx(oracle)
    assert best == max(widths, key=lambda width_s: scores[width_s])
    assert (best == 0.0) if noise == 0 else (0 < best < 6)
