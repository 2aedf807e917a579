"""The losses against the float64 metric, finite differences, and labels that must not count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from maven.losses import LOSSES as BY_NAME
from maven.losses import batch_loss, ccc_loss, counted, mse_loss, polar_target
from maven.metrics import ccc, valid_labels
from maven.model import read_head, to_disc

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


# --- of a batch that processes share -----------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("cuts", [(5,), (1,), (0,), (3, 4)])
def test_the_mean_of_the_gradients_of_parts_times_their_number_is_that_of_the_whole(
    name: str, cuts: tuple[int, ...]
) -> None:
    """Parts of unequal size, one of them empty: what processes with shares of a batch compute."""
    predicted, target = series(8, 6)
    target, _ = spoil(target)
    target[7] = -5.0
    counts = counted(target)
    whole = predicted.clone().requires_grad_()
    value = batch_loss(name, whole, target, counts, 0.3)
    (expected,) = torch.autograd.grad(value, whole)
    parts = [torch.tensor_split(x, cuts) for x in (predicted, target, counts)]
    partial: list[Tensor] = []

    def contribute(own: Tensor) -> Tensor:
        partial.append(own)
        return own

    for p, y, c in zip(*parts, strict=True):
        batch_loss(name, p, y, c, 0.3, contribute)
    found = []
    for p, y, c in zip(*parts, strict=True):
        own = p.clone().requires_grad_()
        shared = batch_loss(name, own, y, c, 0.3, lambda _: torch.stack(partial).sum(0))
        assert shared.item() == pytest.approx(value.item(), rel=1e-12)
        found.append(torch.autograd.grad(shared * len(partial), own)[0])
    mean = torch.cat(found) / len(found)
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-14)
    assert not partial[0].requires_grad


def test_the_named_losses_are_what_they_are_said_to_be() -> None:
    predicted, target = series(6, 5)
    target, remain = spoil(target)
    counts = counted(target)
    assert torch.equal(counts, remain)
    one, square = ccc_loss(predicted, target), mse_loss(predicted, target)
    for name, expected in (
        ("ccc", one + 0.3 * square),
        ("mse", square),
        ("ccc-no-gradient", one + square),
        ("theta", (predicted[remain] - polar_target(target[remain])).square().mean()),
    ):
        found = batch_loss(name, predicted, target, counts, 0.3)
        assert found.item() == pytest.approx(expected.item(), rel=1e-9), name


# --- the published faults, each shown ----------------------------------------------------------


def test_a_ccc_without_gradient_teaches_what_the_squared_error_teaches() -> None:
    predicted, target = series(40)
    gradients = {}
    for name in ("ccc", "mse", "ccc-no-gradient"):
        own = predicted.clone().requires_grad_()
        loss = batch_loss(name, own, target, counted(target), 1.0)
        (gradients[name],) = torch.autograd.grad(loss, own)
    assert torch.equal(gradients["ccc-no-gradient"], gradients["mse"])
    assert not torch.allclose(gradients["ccc"], gradients["mse"])


def test_minus_five_counts_only_where_it_is_asked_to() -> None:
    predicted, target = series(20)
    target[:4] = -5.0
    target[4, 1] = torch.nan
    assert counted(target).sum() == 15
    learnt = counted(target, mask_invalid=False)
    assert learnt.tolist() == [True] * 4 + [False] + [True] * 15
    mask = torch.arange(20) >= 2
    assert counted(target, mask, mask_invalid=False).sum() == 17
    assert batch_loss("mse", predicted, target, learnt) > 3
    assert batch_loss("mse", predicted, target, counted(target)) < 0.2


def angles(*theta_rad: float) -> Tensor:
    """Labels (n, 2) of intensity 0.8."""
    theta = torch.tensor(theta_rad, dtype=torch.float64)
    return 0.8 * torch.stack((theta.cos(), theta.sin()), -1)


def test_at_the_wrap_the_error_on_theta_breaks_and_no_other() -> None:
    """Two answers 0.02 rad from the label, on either side of +-pi."""
    label = angles(np.pi - 0.01).expand(2, 2)
    answers = angles(np.pi - 0.03, -np.pi + 0.01)
    counts = torch.ones(2, dtype=torch.bool)
    own = [batch_loss("mse", answers[k : k + 1], label[:1], counts[:1]).item() for k in (0, 1)]
    assert own[0] == pytest.approx(own[1])
    assert max(own) < 2e-4
    broken = [
        batch_loss("theta", polar_target(answers[k : k + 1]), label[:1], counts[:1]).item()
        for k in (0, 1)
    ]
    assert broken[0] < 3e-4
    assert broken[1] == pytest.approx((2 * np.pi - 0.02) ** 2 / 2, rel=1e-3)


@pytest.mark.parametrize("name", ["ccc", "mse"])
def test_the_polar_head_crosses_the_wrap_along_the_gradient(name: str) -> None:
    """An answer just beyond the wrap is pulled the short way, not once around."""
    label = angles(np.pi - 0.2, 0.3, -1.0)
    u = torch.atanh(torch.tensor(0.8)) / 0.8 * angles(-np.pi + 0.2, 0.3, -1.0)
    u.requires_grad_()
    loss = batch_loss(name, to_disc(u), label, torch.ones(3, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, u)
    step = u - 1e-3 * gradient
    before, after = (torch.atan2(x[0, 1], x[0, 0]).item() for x in (u, step))
    assert after < before < 0  # towards -pi, which is +pi


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("place", ["origin", "rim", "label at rest", "label on the rim", "huge"])
def test_gradients_are_finite_at_rest_and_at_the_rim(name: str, place: str) -> None:
    head = "theta" if name == "theta" else "polar"
    target = angles(0.3, 2.0, np.pi, -np.pi).float() / 0.8
    outputs = torch.full((4, 2), 0.3)
    outputs[:, 1] = torch.tensor([0.1, -0.4, 0.2, 0.5])
    if place == "origin":
        outputs = torch.zeros(4, 2)
    elif place == "rim":
        outputs = outputs / outputs.norm(dim=-1, keepdim=True) * 30
    elif place == "huge":
        outputs = outputs * 1e15
    elif place == "label at rest":
        target = torch.zeros(4, 2)
    outputs.requires_grad_()
    predicted = outputs if head == "theta" else read_head(outputs, head)
    loss = batch_loss(name, predicted, target, counted(target.clamp(-1, 1)), 0.5)
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    if place == "origin":  # the way out is open
        assert gradient.abs().sum() > 1e-3
