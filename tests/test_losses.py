"""The losses against the float64 metric, finite differences, and labels that must not count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from maven.losses import ccc_loss, mse_loss
from maven.metrics import ccc, valid_labels

Loss = Callable[..., Tensor]

LOSSES = (ccc_loss, mse_loss)


def series(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predictions and labels (*shape, 2) in [-1, 1], float64, related but not equal."""
    random = torch.Generator().manual_seed(seed)
    target = torch.rand(*shape, 2, generator=random, dtype=torch.float64) * 1.6 - 0.8
    noise = torch.randn(*shape, 2, generator=random, dtype=torch.float64)
    return (0.6 * target + 0.2 * noise + 0.1).clamp(-1, 1), target


def spoil(target: Tensor) -> tuple[Tensor, Tensor]:
    """Labels with -5 in valence, in arousal and in both; and which frames (...,) remain."""
    target = target.clone()
    flat = target.view(-1, 2)
    flat[1, 0] = flat[3, 1] = -5
    flat[4] = flat[7] = -5
    flat[9, 0] = torch.nan
    out = torch.zeros(len(flat), dtype=torch.bool)
    out[[1, 3, 4, 7, 9]] = True
    return target, ~out.view(target.shape[:-1])


@pytest.mark.parametrize("shape", [(40,), (4, 10), (2, 4, 5)])
def test_it_is_one_minus_the_metric(shape: tuple[int, ...]) -> None:
    predicted, target = series(*shape)
    target, remain = spoil(target)
    x, y = predicted.view(-1, 2).numpy(), target.view(-1, 2).numpy()
    valid = valid_labels(*y.T)
    np.testing.assert_array_equal(valid, remain.flatten())
    oracle = 1 - np.mean([ccc(x[:, k], y[:, k], valid) for k in range(2)])
    loss = ccc_loss(predicted, target)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(oracle, abs=1e-6)  # EPSILON against spreads of 0.1
    assert ccc_loss(predicted.float(), target.float()).item() == pytest.approx(oracle, abs=1e-6)
    assert ccc_loss(predicted.half(), target).dtype == torch.float32
    assert ccc_loss(predicted.half(), target).item() == pytest.approx(oracle, abs=1e-2)


def test_squared_error_is_the_mean_over_valid_frames() -> None:
    predicted, target = series(20)
    target, remain = spoil(target)
    oracle = np.mean((predicted[remain] - target[remain]).numpy() ** 2)
    assert mse_loss(predicted, target).item() == pytest.approx(oracle, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_it_has_the_gradient_of_finite_differences(loss: Loss) -> None:
    predicted, target = series(3, 5)
    target, _ = spoil(target)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[2, 3:] = False
    assert torch.autograd.gradcheck(
        lambda p: loss(p, target, mask), predicted.clone().requires_grad_()
    )


def test_following_the_gradient_raises_the_agreement() -> None:
    """The published loss went through .item(), and so had none."""
    predicted, target = series(50, seed=1)
    predicted = torch.randn_like(predicted).mul(0.1).requires_grad_()
    before = ccc_loss(predicted, target)
    for _ in range(50):
        loss = ccc_loss(predicted, target)
        (gradient,) = torch.autograd.grad(loss, predicted)
        predicted = (predicted - 2 * gradient).detach().requires_grad_()
    assert loss.item() < 0.3 < before.item()


@pytest.mark.parametrize("loss", LOSSES)
def test_invalid_labels_have_no_influence_at_all(loss: Loss) -> None:
    predicted, target = series(4, 10)
    target, remain = spoil(target)
    predicted.requires_grad_()
    value = loss(predicted, target)
    (gradient,) = torch.autograd.grad(value, predicted)
    assert gradient[~remain].eq(0).all()
    assert gradient[remain].ne(0).all()
    changed = predicted.detach().clone()
    for garbage in (0.9, 1e30, torch.inf, torch.nan):
        changed[~remain] = garbage
        changed.requires_grad_()
        again = loss(changed, target)
        assert again == value
        (gradient_again,) = torch.autograd.grad(again, changed)
        assert torch.equal(gradient_again, gradient)
        changed = changed.detach()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_mask_takes_frames_out(loss: Loss) -> None:
    predicted, target = series(30)
    target, remain = spoil(target)
    mask = torch.rand(30, generator=torch.Generator().manual_seed(3)) < 0.6
    chosen = mask & remain
    expected = loss(predicted[chosen], target[chosen])
    assert loss(predicted, target, mask).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(("loss", "nothing"), [(ccc_loss, 1.0), (mse_loss, 0.0)])
@pytest.mark.parametrize("garbage", [0.5, torch.inf, torch.nan])
def test_nothing_valid_is_no_loss_and_no_gradient(
    loss: Loss, nothing: float, garbage: float
) -> None:
    predicted = torch.full((2, 6, 2), garbage, requires_grad=True)
    target = torch.full((2, 6, 2), -5.0)
    for labels, mask in ((target, None), (target * 0, torch.zeros(2, 6, dtype=torch.bool))):
        value = loss(predicted, labels, mask)
        assert value.item() == nothing
        (gradient,) = torch.autograd.grad(value, predicted)
        assert gradient.eq(0).all()


def test_one_frame_has_no_agreement() -> None:
    predicted = torch.rand(1, 2, requires_grad=True)
    value = ccc_loss(predicted, torch.zeros(1, 2))
    assert value.item() == 1
    assert torch.autograd.grad(value, predicted)[0].eq(0).all()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8, 1.0, 1e15])
@pytest.mark.parametrize("spread", [0.0, 1e-30, 1.0])
def test_extremes_stay_finite(scale: float, spread: float) -> None:
    predicted, target = series(20)
    predicted = (predicted.float() * scale).requires_grad_()
    labels = target.float() * spread
    for loss in LOSSES:
        value = loss(predicted, labels)
        assert value.isfinite()
        (gradient,) = torch.autograd.grad(value, predicted)
        assert gradient.isfinite().all()
    assert 0 <= ccc_loss(predicted, labels).item() <= 2


def test_constant_predictions_agree_with_nothing() -> None:
    _, target = series(20)
    constant = torch.full((20, 2), 0.1, dtype=torch.float64)
    assert ccc_loss(constant, target).item() == pytest.approx(1)
    assert ccc_loss(target, target).item() == pytest.approx(0, abs=1e-6)
    centred = target - target.mean(0)
    assert ccc_loss(-centred, centred).item() == pytest.approx(2, abs=1e-6)
