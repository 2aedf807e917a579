"""The network on random weights: attention against a loop, masks, time, reach, the disc."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from maven.config import MODALITIES, PATHS, MavenConfig
from maven.model import Maven, to_disc

CONFIG = MavenConfig(
    5, 4, 3, width=8, heads=2, join_width=8, join_heads=2, join_layers=1, radius_s=0.5
)
Inputs = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]


def network(config: MavenConfig = CONFIG, scale: float = 0.5, seed: int = 0) -> Maven:
    """Random float64 weights everywhere, the time bias and the scales too."""
    made = Maven(config).double().eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter.copy_(scale * noise)
    return made


def inputs(b: int, t: int, share: float = 0.7, step_s: float = 0.1, seed: int = 0) -> Inputs:
    """Random features of which about `share` is observed, on a grid of `step_s`."""
    random = torch.Generator().manual_seed(seed)
    features = {
        m: torch.randn(b, t, CONFIG.input_width(m), generator=random, dtype=torch.float64)
        for m in MODALITIES
    }
    observed = {m: torch.rand(b, t, generator=random) < share for m in MODALITIES}
    return features, observed, torch.arange(t, dtype=torch.float64)[None] * step_s


@contextmanager
def watched(module: nn.Module) -> Iterator[list[tuple[Any, Any]]]:
    """Collect a module's (inputs, output) while it is called."""
    calls: list[tuple[Any, Any]] = []
    handle = module.register_forward_hook(lambda _, args, out: calls.append((args, out)))
    try:
        yield calls
    finally:
        handle.remove()


def assert_same(a: Tensor, b: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


# --- the disc ---


def test_the_disc_against_hyperbolic_tangent() -> None:
    u = np.random.default_rng(0).normal(size=(50, 2)) * np.logspace(-5, 1, 50)[:, None]
    length = np.hypot(*u.T)[:, None]
    expected = np.tanh(length) * u / length
    np.testing.assert_allclose(to_disc(torch.from_numpy(u)), expected, rtol=3e-6, atol=1e-12)


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-4, 0.1, 1.0, 5.0, 50.0, 1e4])
def test_the_disc_is_smooth(length: float) -> None:
    angle = torch.tensor([0.3, 2.0, math.pi, -1.2], dtype=torch.float64)
    u = (length * torch.stack((angle.cos(), angle.sin()), -1)).requires_grad_()
    assert torch.autograd.gradcheck(to_disc, u)
    single = u.detach().float().requires_grad_()
    (gradient,) = torch.autograd.grad(to_disc(single).sum(), single)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1.5


def test_the_gradient_at_zero_is_one() -> None:
    jacobian = torch.autograd.functional.jacobian(to_disc, torch.zeros(2))
    torch.testing.assert_close(jacobian, torch.eye(2), atol=2e-6, rtol=0)


@settings(deadline=None)
@given(st.floats(-(2.0**60), 2.0**60, width=32), st.floats(-(2.0**60), 2.0**60, width=32))
def test_the_disc_is_open_in_single_precision(x: float, y: float) -> None:
    va = to_disc(torch.tensor([x, y], dtype=torch.float32)).double()
    assert va.norm() < 1
    if math.hypot(x, y) > 1e-3:  # the direction is kept
        assert abs(va[0] * y - va[1] * x) <= 1e-6 * math.hypot(x, y)
        assert va[0] * x + va[1] * y > 0


def test_theta_does_not_wrap() -> None:
    above, below = to_disc(torch.tensor([[-1.0, 1e-5], [-1.0, -1e-5]], dtype=torch.float64))
    assert math.atan2(above[1], above[0]) > 3
    assert math.atan2(below[1], below[0]) < -3
    assert_same(above, below, atol=2e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 3.0, 1e3]))
def test_the_answer_lies_inside_the_disc_whatever_the_weights(seed: int, scale: float) -> None:
    features, observed, time_s = inputs(1, 4, seed=seed)
    made = network(scale=scale, seed=seed).float()
    va = made({m: 1e3 * x.float() for m, x in features.items()}, observed, time_s.float())
    assert (va.double().norm(dim=-1) < 1).all()


# --- the whole network ---


@pytest.mark.parametrize(("b", "t"), [(1, 1), (3, 7), (2, 30)])
def test_it_answers_every_frame(b: int, t: int) -> None:
    va = network()(*inputs(b, t))
    assert va.shape == (b, t, 2)
    assert va.isfinite().all()


@pytest.mark.parametrize("garbage", [1.0, 1e30, math.inf, math.nan])
def test_what_was_not_observed_does_not_matter(garbage: float) -> None:
    made = network()
    features, observed, time_s = inputs(2, 12)
    spoiled = {m: x.masked_fill(~observed[m][..., None], garbage) for m, x in features.items()}
    for x in spoiled.values():
        x.requires_grad_()
    va = made(spoiled, observed, time_s)
    assert torch.equal(va, made(features, observed, time_s))
    va.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())
    for m, x in spoiled.items():
        assert x.grad is not None
        assert x.grad[~observed[m]].eq(0).all()
        assert x.grad[observed[m]].isfinite().all()


@pytest.mark.parametrize("gone", MODALITIES)
def test_an_absent_modality_leaves_the_others_paths_alone(gone: str) -> None:
    made = network()
    features, observed, time_s = inputs(2, 12)
    without = observed | {gone: torch.zeros_like(observed[gone])}
    outputs = []
    for masks in (observed, without):
        calls = {}
        for name, path in made.paths.items():
            with watched(path) as seen:
                made(features, masks, time_s)
            calls[name] = seen[0][1]
        outputs.append(calls)
    before, after = outputs
    for to, of in PATHS:
        name = f"{to}_from_{of}"
        if gone not in (to, of):
            assert torch.equal(after[name][0], before[name][0])
        if of == gone:
            assert after[name][0].eq(0).all()
            assert not after[name][1].any()
    assert set(made.paths) == {f"{to}_from_{of}" for to, of in PATHS}
    assert len(PATHS) == 6


def test_a_modality_is_enhanced_by_the_mean_of_what_was_heard() -> None:
    """LayerNorm(dropout(mean)) of the own sequence and those paths that had something to hear."""
    made = network()
    features, observed, time_s = inputs(1, 12)
    observed["text"] = torch.zeros_like(observed["text"])
    observed["audio"][:] = True
    with (
        watched(made.enhance["visual"]) as enhanced,
        watched(made.paths["visual_from_audio"]) as path,
    ):
        made(features, observed, time_s)
    own = made.project["visual"](features["visual"], observed["visual"])
    own = torch.where(observed["visual"][..., None], own, made.missing["visual"])
    assert_same(enhanced[0][0][0], (own + path[0][1][0]) / 2)


def test_nothing_observed_at_all_is_no_nan() -> None:
    made = network()
    features, observed, time_s = inputs(2, 6)
    nothing = {m: torch.zeros_like(x) for m, x in observed.items()}
    va = made(features, nothing, time_s)
    va.sum().backward()
    assert va.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())
    assert_same(va, va[:1, :1].expand_as(va))  # the same answer everywhere


@pytest.mark.parametrize("far", [True, False])
def test_padding_does_not_leak(far: bool) -> None:
    made = network()
    features, observed, time_s = inputs(2, 10)
    padded = {m: torch.cat((x, torch.full_like(x[:, :4], 99.0)), 1) for m, x in features.items()}
    masks = {m: torch.cat((x, torch.zeros_like(x[:, :4])), 1) for m, x in observed.items()}
    tail = 1e3 if far else time_s[0, -1] + torch.arange(1, 5) * 0.1
    times = torch.cat((time_s, torch.zeros(1, 4, dtype=torch.float64) + tail), 1)
    va = made(padded, masks, times)
    assert va.isfinite().all()
    assert_same(va[:, :10], made(features, observed, time_s))


def test_only_differences_of_time_matter() -> None:
    made = network()
    features, observed, time_s = inputs(2, 12)
    va = made(features, observed, time_s)
    for shift_s in (0.1, -3.0, 7200.3):
        assert_same(made(features, observed, time_s + shift_s), va, atol=1e-9)
    for other in (time_s * 1.3, time_s * 0.7, -time_s, time_s + 0.03 * torch.rand(1, 12)):
        assert (made(features, observed, other) - va).abs().max() > 1e-4


def test_only_differences_of_time_matter_in_single_precision() -> None:
    made = network(scale=0.2).float()
    features, observed, time_s = inputs(1, 30)
    single = {m: x.float() for m, x in features.items()}
    va = made(single, observed, time_s.float())
    for shift_s in (4.0, 64.0):
        assert_same(made(single, observed, (time_s + shift_s).float()), va, atol=1e-5)
    assert_same(made(single, observed, time_s + 7200.3), va, atol=1e-5)  # times may be float64


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_nothing_out_of_reach_matters(data: st.DataObject) -> None:
    made = network()
    features, observed, _ = inputs(1, 14, seed=data.draw(st.integers(0, 99)))
    steps = data.draw(st.lists(st.floats(0.01, 0.6), min_size=14, max_size=14))
    time_s = torch.tensor([steps], dtype=torch.float64).cumsum(1)
    va = made(features, observed, time_s)
    frame = data.draw(st.integers(0, 13))
    m = data.draw(st.sampled_from(MODALITIES))
    features[m][0, frame] += 3
    observed[m][0, frame] = ~observed[m][0, frame]
    changed = (made(features, observed, time_s) - va).abs().amax(-1)[0]
    away_s = (time_s[0] - time_s[0, frame]).abs()
    beyond = changed[away_s > CONFIG.reach_s]
    assert len(beyond) == 0 or beyond.max() < 1e-12
    assert changed.max() > 1e-6


def test_the_reach_is_that_of_all_attentions_in_a_row() -> None:
    assert CONFIG.reach_s == pytest.approx(3 * 0.5, abs=1e-3)  # paths, refinement, one layer
    assert MavenConfig(1, 1, 1).reach_s == pytest.approx(4 * 2.0, abs=1e-3)
    made = network()
    features, observed, time_s = inputs(1, 9, share=2.0, step_s=0.5)  # neighbours just in reach
    va = made(features, observed, time_s)
    features["audio"][0, 4] += 3
    changed = (made(features, observed, time_s) - va).abs().amax(-1)[0] > 1e-9
    assert changed.tolist() == [False, *[True] * 7, False]


def test_a_batch_is_its_samples() -> None:
    made = network()
    features, observed, shared = inputs(3, 9)
    own = torch.stack([shared[0] * scale for scale in (0.5, 1.0, 2.0)])
    for time_s in (shared, own):
        va = made(features, observed, time_s)
        for k in range(3):
            alone = made(
                {m: x[k : k + 1] for m, x in features.items()},
                {m: x[k : k + 1] for m, x in observed.items()},
                time_s[k : k + 1] if len(time_s) > 1 else time_s,
            )
            assert_same(va[k : k + 1], alone)


def test_it_runs_in_half_precision_with_times_in_single() -> None:
    made = network(scale=0.2)
    features, observed, time_s = inputs(1, 6)
    va = made(features, observed, time_s)
    half = {m: x.bfloat16() for m, x in features.items()}
    assert_same(made.bfloat16()(half, observed, time_s.float()).double(), va, atol=0.1)


def test_dropout_is_for_training_only() -> None:
    made, arguments = network(), inputs(1, 8)
    assert torch.equal(made(*arguments), made(*arguments))
    made.train()
    assert not torch.equal(made(*arguments), made(*arguments))


def test_every_weight_is_used() -> None:
    made = network()
    made(*inputs(2, 12)).sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_weights_survive_a_round_trip() -> None:
    made, other = network(), network(seed=1)
    made.fit_moments("audio", torch.randn(20, 4, dtype=torch.float64))
    other.load_state_dict({name: x.clone() for name, x in made.state_dict().items()})
    assert torch.equal(other(*inputs(1, 8)), made(*inputs(1, 8)))
    assert {"project.audio.mean", "missing.text", "paths.visual_from_audio.time_bias"} <= set(
        made.state_dict()
    )


def test_moments_standardise_the_features() -> None:
    made = network()
    features = torch.randn(500, 5, dtype=torch.float64) * 7 + 3
    features[:, 2] = 4.0  # never moves
    made.fit_moments("visual", features)
    projection = made.project["visual"]
    standard = (features - projection.mean) / projection.scale
    assert_same(standard.mean(0), torch.zeros(5).double(), atol=1e-9)
    assert_same(standard.std(0)[[0, 1, 3, 4]], torch.ones(4).double(), atol=1e-9)
    assert standard[:, 2].eq(0).all()
