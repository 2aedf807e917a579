"""The training loop on planted problems: what it learns, what it drops and what it ignores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maven.config import MODALITIES
from maven.datasets.clips import Batch, Clip, Windows
from maven.model import Maven
from maven.recipe import TrainConfig, TrainError
from maven.train import Report, add_noise, drop_modalities, train
from maven.validate import score
from planted import RATE_HZ, network, planted, weights

VAL = [planted(seed, split="val") for seed in range(6)]
SHORT = TrainConfig(epochs=2, batch=3, learning_rate=3e-3, seed=1, device="cpu", window_s=8.0)
Figures = list[dict[str, Any]]


def clips(count: int = 6) -> list[Clip]:
    return [planted(1000 + seed, frames=40 + 7 * seed) for seed in range(count)]


def trained(
    made: Maven | None = None,
    config: TrainConfig = SHORT,
    parts: list[Clip] | None = None,
    report: Report = lambda _: None,
) -> Maven:
    source = Windows(parts or clips(), config.window_s, config.batch, config.seed)
    return train(made or network(), source, VAL, config, report=report)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[k], other[k]) for k in one)


# --- the loop ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt() -> tuple[Maven, Figures]:
    told: Figures = []
    config = replace(
        SHORT, epochs=14, batch=8, learning_rate=5e-3, ema=0.95, drop_modality=0.1,
        feature_noise=0.05, patience=14,
    )  # fmt: skip
    return trained(network(dropout=0.0), config, clips(30), told.append), told


def test_a_planted_problem_is_learnt(learnt: tuple[Maven, Figures]) -> None:
    best, told = learnt
    rows = [event["row"] for event in told if "row" in event]
    assert [row["epoch"] for row in rows] == list(range(1, 15))
    steps = [event for event in told if "row" not in event]
    assert len(steps) == rows[-1]["step"] == 14 * steps[0]["steps"]
    assert steps[3] | {"epoch": 1, "epochs": 14, "step": 4} == steps[3]
    assert rows[-1]["ccc_mean"] > rows[0]["ccc_mean"]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    agreement = score(best, VAL)
    assert agreement["ccc_mean"] > 0.8
    assert agreement["ccc_mean"] == max(row["ccc_mean"] for row in rows)
    assert not best.training
    assert all(row["frames_per_s"] > 0 and row["grad_norm"] > 0 for row in rows)


def test_it_answers_from_what_tells_and_only_from_that(learnt: tuple[Maven, Figures]) -> None:
    assert score(learnt[0], VAL, ("visual",))["ccc_mean"] > 0.8
    assert abs(score(learnt[0], VAL, ("audio", "text"))["ccc_mean"]) < 0.25


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before() -> None:
    first = weights(trained())
    torch.rand(17)
    np.random.default_rng(0).random(3)
    assert same(first, weights(trained()))
    other = weights(trained(config=replace(SHORT, seed=2)))
    assert not same(first, other)


def test_each_epoch_has_windows_of_its_own() -> None:
    asked = []

    class Spy(Windows):
        def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> Batch:
            asked.append((epoch, step, rank, world))
            return super().batch(epoch, step, rank, world)

    source = Spy(clips(2), 8.0, 2, 0)
    train(network(), source, VAL, SHORT)
    steps = source.steps_per_epoch
    assert asked == [(e, s, 0, 1) for e in (1, 2) for s in range(steps)]


def test_the_average_lags_behind_and_keeps_the_moments() -> None:
    """step / (step + 10) at first: after one step, 1/11 of the start and 10/11 of the end."""
    start, made = network(), network()
    average = trained(made, replace(SHORT, epochs=1, batch=100))
    before, end = dict(start.named_parameters()), dict(made.named_parameters())
    for name, kept in average.named_parameters():
        torch.testing.assert_close(kept, (before[name] + 10 * end[name]) / 11)
        assert not kept.requires_grad
    for m in MODALITIES:
        name = f"project.{m}.scale"
        assert torch.equal(average.get_buffer(name), start.get_buffer(name))


def test_the_best_epoch_is_kept_and_patience_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores 1, 3, 2, 2, 2: the second is kept, and three more are waited for."""
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.2])
    seen: list[dict[str, Tensor]] = []

    def scored(average: Maven, *_: Any, **__: Any) -> dict[str, float]:
        seen.append(weights(average))
        value = next(scores)
        return {"ccc_valence": value, "ccc_arousal": value, "ccc_mean": value}

    monkeypatch.setattr("maven.train.score", scored)
    told: Figures = []
    best = trained(config=replace(SHORT, epochs=40, patience=3), report=told.append)
    assert [event["best_epoch"] for event in told if "row" in event] == [1, 2, 2, 2, 2]
    assert same(weights(best), seen[1])
    assert not same(weights(best), seen[2])


def test_the_rate_warms_up_and_falls_and_gradients_are_clipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates, norms = [], []

    class Spy(torch.optim.AdamW):
        def step(self, *arguments: Any, **options: Any) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])
            gradients = [p.grad.norm() for p in self.param_groups[0]["params"]]
            norms.append(torch.stack(gradients).norm().item())
            super().step(*arguments, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    config = replace(SHORT, epochs=2, batch=1, clip=0.01, warmup=0.25, patience=5)
    trained(config=config)
    expected = [config.rate(step, len(rates)) for step in range(len(rates))]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert max(norms) <= 0.01 * (1 + 1e-4)


# --- labels that are none ----------------------------------------------------------------------


def spoilt(filler: float) -> list[Clip]:
    """Every third frame's labels marked invalid: one -5, the other anything."""
    parts = clips()
    for clip in parts:
        clip.labels[::3] = (-5.0, filler)
    return parts


def test_invalid_labels_are_not_trained_on_unless_that_is_asked_for() -> None:
    first, other = (weights(trained(parts=spoilt(filler))) for filler in (-5.0, 0.7))
    assert same(first, other)
    assert not same(first, weights(trained()))
    fault = replace(SHORT, mask_invalid=False)
    assert not same(first, weights(trained(config=fault, parts=spoilt(-5.0))))
    assert same(weights(trained(config=fault)), weights(trained()))  # padding still counts nothing


# --- losses and heads --------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["default", "paper", "reference-mlp", "reference-beit"])
@pytest.mark.parametrize("loss", ["ccc", "mse", "ccc-no-gradient"])
def test_every_preset_is_trained_with_every_loss(preset: str, loss: str) -> None:
    told: Figures = []
    trained(network(0, preset), replace(SHORT, epochs=1, loss=loss), report=told.append)
    assert np.isfinite(list(told[-1]["row"].values())).all()


def test_the_loss_on_theta_needs_its_head() -> None:
    told: Figures = []
    trained(network(0, "reference-mlp"), replace(SHORT, epochs=1, loss="theta"), None, told.append)
    assert told[-1]["row"]["loss"] > 0
    with pytest.raises(TrainError, match="head theta, got polar"):
        trained(config=replace(SHORT, loss="theta"))


def test_half_the_precision_gives_nearly_the_same() -> None:
    config = replace(SHORT, epochs=1)
    whole, half = (trained(config=replace(config, precision=p)) for p in ("32-true", "bf16-mixed"))
    assert not same(weights(whole), weights(half))
    assert all(p.dtype == torch.float32 for p in half.parameters())
    for one, other in zip(whole.parameters(), half.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=3e-2, rtol=0.1)


# --- what is dropped, and noise ----------------------------------------------------------------


def all_observed(b: int, t: int) -> dict[str, Tensor]:
    return {m: torch.ones(b, t, dtype=torch.bool) for m in MODALITIES}


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + k) for k in range(count)]


@pytest.mark.parametrize(("whole", "stretch"), [(0.0, 1.0), (0.5, 0.0), (0.9, 1.0), (1.0, 1.0)])
def test_never_are_all_three_wholly_gone(whole: float, stretch: float) -> None:
    config = TrainConfig(drop_modality=whole, drop_stretch=stretch)
    observed = drop_modalities(all_observed(500, 60), config, generators(500))
    gone = torch.stack([~observed[m].any(1) for m in MODALITIES])
    assert not gone.all(0).any()
    left = torch.stack(list(observed.values())).float().mean(2).amax(0)
    assert left.min() >= 0.48  # a stretch is half of a sequence at most
    if whole == 0.5:
        assert gone.float().mean().item() == pytest.approx(0.5 - 0.125, abs=0.04)
    if whole == 0:
        assert not gone.any()


def test_modalities_are_dropped_as_often_as_said() -> None:
    config = TrainConfig(drop_modality=0.2, drop_stretch=0.3)
    observed = drop_modalities(all_observed(4000, 50), config, generators(4000))
    for m in MODALITIES:
        share = observed[m].float().mean(1)
        assert (share == 0).float().mean().item() == pytest.approx(0.2 - 0.008, abs=0.025)
        partly = (share > 0) & (share < 1)
        assert partly.float().mean().item() == pytest.approx(0.8 * 0.3, abs=0.04)
        assert (observed[m].int().diff(dim=1).abs().sum(1) <= 2).all()  # one stretch each


def test_nothing_is_dropped_when_nothing_is_to_be_and_nothing_comes_back() -> None:
    none = TrainConfig(drop_modality=0.0, drop_stretch=0.0)
    assert all(
        mask.all() for mask in drop_modalities(all_observed(20, 30), none, generators(20)).values()
    )
    random = torch.Generator().manual_seed(0)
    masks = {m: torch.rand(200, 30, generator=random) < 0.5 for m in MODALITIES}
    before = {m: mask.clone() for m, mask in masks.items()}
    after = drop_modalities(
        masks, TrainConfig(drop_modality=0.3, drop_stretch=0.5), generators(200)
    )
    for m in MODALITIES:
        assert not (after[m] & ~masks[m]).any()
        assert torch.equal(masks[m], before[m])


def test_what_is_drawn_for_a_sample_depends_on_it_alone() -> None:
    made = network()
    values = {m: torch.zeros(6, 20, made.config.input_width(m)) for m in MODALITIES}
    config = TrainConfig(drop_modality=0.4, drop_stretch=0.5)

    def drawn(rows: slice, own: list[torch.Generator]) -> Iterator[Tensor]:
        part = {m: x[rows] for m, x in values.items()}
        yield from drop_modalities(all_observed(len(own), 20), config, own).values()
        yield from add_noise(part, made, 0.3, own).values()

    together = list(drawn(slice(0, 6), generators(6)))
    apart = list(drawn(slice(3, 5), generators(2, first=3)))
    for whole, part in zip(together, apart, strict=True):
        assert torch.equal(whole[3:5], part)
    assert not torch.equal(together[-1][0], together[-1][1])


def test_noise_is_in_units_of_each_features_spread() -> None:
    made = network()
    values = {m: torch.ones(8, 300, made.config.input_width(m)) for m in MODALITIES}
    noisy = add_noise(values, made, 0.2, generators(8))
    for m in MODALITIES:
        noise = (noisy[m] - 1) / made.get_buffer(f"project.{m}.scale")
        assert noise.std().item() == pytest.approx(0.2, abs=0.01)
        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        assert (values[m] == 1).all()
    assert all(torch.equal(x, values[m]) for m, x in add_noise(values, made, 0.0, []).items())


def test_noise_dropping_and_dropout_are_of_training_alone(
    monkeypatch: pytest.MonkeyPatch, learnt: tuple[Maven, Figures]
) -> None:
    seen: list[tuple[bool, dict[str, Tensor], dict[str, Tensor]]] = []
    outputs = Maven.outputs

    def spy(self: Maven, features: Any, observed: Any, time_s: Tensor) -> Tensor:
        seen.append((self.training, features, observed))
        return outputs(self, features, observed, time_s)

    monkeypatch.setattr(Maven, "outputs", spy)
    trained(config=replace(SHORT, epochs=1, batch=100, feature_noise=0.2, drop_modality=0.5))
    assert [flag for flag, *_ in seen].count(True) == 1
    for flag, values, observed in seen:
        present = {m: values[m][observed[m]] for m in MODALITIES}
        known = {float(x) for clip in [*clips(), *VAL] for x in clip.features.values["text"][:, 0]}
        drawn = [float(x) in known for x in present["text"][:, 0]]
        assert not any(drawn) if flag else all(drawn)
    first, again = score(learnt[0], VAL), score(learnt[0], VAL)
    assert first == again


# --- stops -------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_it() -> None:
    parts = clips()
    parts[2].features.values["visual"][5] = np.nan
    parts[2].features.observed["visual"][5] = True
    with pytest.raises(TrainError, match=r"epoch 1, step \d+: loss nan.*nothing was kept"):
        trained(config=replace(SHORT, drop_modality=0.0, drop_stretch=0.0), parts=parts)


def test_an_endless_gradient_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network()
    made.head.layers[-1].register_forward_hook(
        lambda _, __, out: out if not out.requires_grad else _Endless.apply(out)  # type: ignore[no-untyped-call]
    )
    with pytest.raises(TrainError, match=r"epoch 1, step 1: loss \d.*gradient norm (nan|inf)"):
        trained(made)


class _Endless(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.inf


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maven.launch.find_spec", lambda name: None)
    with pytest.raises(TrainError, match=r"needs lightning_fabric: pip install 'maven\[train\]'"):
        trained()


def test_windows_are_as_long_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = set()
    outputs = Maven.outputs

    def spy(self: Maven, features: Any, observed: Any, time_s: Tensor) -> Tensor:
        if self.training:
            lengths.add(time_s.shape[1])
            assert time_s.shape[0] == 1
            assert time_s[0, 0] == 0
        return outputs(self, features, observed, time_s)

    monkeypatch.setattr(Maven, "outputs", spy)
    trained(config=replace(SHORT, epochs=1, window_s=5.0))
    assert lengths == {round(5 * RATE_HZ)}
