"""The network's attention against a loop in NumPy, its gradients, and the configuration."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maven.model import (
    KNOT_SCALE_S,
    KNOTS,
    Attention,
    Nearness,
    config_from,
)
from test_model import CONFIG, assert_same, inputs, network

# --- attention ---


def slow_attention(attention: Attention, queries: Any, keys: Any, observed: Any, time_s: Any,
                   radius_s: float) -> np.ndarray[Any, Any]:  # fmt: skip
    """softmax(q k / sqrt(d) + bias by time) v over observed keys in the radius, head by head."""
    weights = {name: p.detach().numpy() for name, p in attention.named_parameters()}
    q = queries @ weights["query.weight"].T + weights["query.bias"]
    k = keys @ weights["key.weight"].T
    v = keys @ weights["value.weight"].T + weights["value.bias"]
    edge = math.log(1 + radius_s / KNOT_SCALE_S)
    places = [-math.expm1(edge * j / KNOTS) * KNOT_SCALE_S for j in range(KNOTS, 0, -1)]
    places += [0.0, *(-place for place in reversed(places))]  # of the knots, in seconds
    warped = [math.copysign(math.log1p(abs(p) / KNOT_SCALE_S), p) for p in places]
    t, d = queries.shape
    size = d // attention.heads
    out = np.zeros((t, d))
    for i in range(t):
        near = [s for s in range(t) if observed[s] and abs(time_s[s] - time_s[i]) <= radius_s]
        if not near:
            continue
        for h in range(attention.heads):
            part = slice(h * size, (h + 1) * size)
            logits = []
            for s in near:
                away = time_s[s] - time_s[i]
                place = math.copysign(math.log1p(abs(away) / KNOT_SCALE_S), away)
                bias = np.interp(place, warped, weights["time_bias"][h])
                logits.append(q[i, part] @ k[s, part] / math.sqrt(size) + bias)
            share = np.exp(np.array(logits) - max(logits))
            out[i, part] = (share / share.sum()) @ v[near][:, part]
        out[i] = weights["output.weight"] @ out[i] + weights["output.bias"]
    return out


@pytest.mark.parametrize("seed", range(4))
def test_attention_against_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    attention = network(seed=seed).paths["audio_from_text"]
    queries, keys = random.normal(size=(2, 12, 8))
    observed = random.uniform(size=12) < 0.5
    time_s = np.sort(random.uniform(0, 4, 12))  # any spacing; some hear nothing
    near = Nearness.of(torch.from_numpy(time_s)[None], 0.5)
    found, heard = attention(
        torch.from_numpy(queries)[None],
        torch.from_numpy(keys)[None],
        torch.from_numpy(observed)[None],
        near,
    )
    expected = slow_attention(attention, queries, keys, observed, time_s, 0.5)
    np.testing.assert_allclose(found[0].detach(), expected, atol=1e-10)
    np.testing.assert_array_equal(heard[0], expected.any(1))


def test_attention_has_the_gradient_of_finite_differences() -> None:
    attention = network().refine["text"]
    near = Nearness.of(torch.tensor([[0.0, 0.1, 0.25, 5.0]], dtype=torch.float64), 0.5)
    observed = torch.tensor([[True, True, False, False], [False] * 4])

    def run(queries: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        named = {"time_bias": bias}
        out = torch.func.functional_call(attention, named, (queries, keys, observed, near))
        return out[0]

    queries, keys = torch.randn(2, 2, 4, 8, dtype=torch.float64)
    bias = attention.time_bias.detach().clone()
    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in (queries, keys, bias)])


def test_who_hears_nothing_gets_zero_and_no_nan() -> None:
    attention = network().refine["text"]
    queries, keys = torch.randn(2, 1, 5, 8, dtype=torch.float64)
    queries.requires_grad_()
    keys.requires_grad_()
    near = Nearness.of(torch.tensor([[0.0, 0.1, 0.2, 7.0, 7.1]], dtype=torch.float64), 0.5)
    observed = torch.tensor([[True, False, True, False, False]])
    out, heard = attention(queries, keys, observed, near)
    assert heard.tolist() == [[True, True, True, False, False]]
    assert out[0, 3:].eq(0).all()
    assert out[0, :3].ne(0).all()
    out.sum().backward()
    for tensor in (queries, keys, *attention.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert keys.grad is not None
    assert keys.grad[0, [1, 3, 4]].eq(0).all()


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=6), st.floats(0.1, 5))
def test_the_bias_resolves_time_in_order(times_s: list[float], radius_s: float) -> None:
    time_s = torch.tensor([sorted(times_s)], dtype=torch.float64)
    near = Nearness.of(time_s, radius_s)
    place = near.knot + near.share
    assert near.share.min() >= 0
    assert near.share.max() <= 1
    assert (place.diff(dim=-1) >= -1e-9).all()  # later frames lie on later knots
    assert_same(place + place.transpose(1, 2), torch.full_like(place, 2 * KNOTS), atol=1e-9)
    assert place.diagonal(dim1=1, dim2=2).eq(KNOTS).all()
    away = (time_s[:, None] - time_s[..., None]).abs()
    assert near.within[away <= radius_s].all()
    assert not near.within[away > radius_s + 2e-4].any()


# --- the configuration ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual_width": 0}, "visual_width must be above 0, got 0"),
        ({"text_width": -3}, "text_width must be above 0"),
        ({"radius_s": 0.0}, "radius_s must be above 0"),
        ({"radius_s": math.inf}, "radius_s must be above 0"),
        ({"rate_hz": math.nan}, "rate_hz must be above 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, "dropout"),
        ({"heads": 3}, "multiples"),
        ({"join_heads": 5}, "multiples"),
        ({"join_layers": -1}, "join_layers must be 0 or more, got -1"),
        ({"heads": 0}, "heads must be above 0"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from(asdict(CONFIG) | change)


def test_a_configuration_comes_from_a_mapping() -> None:
    assert config_from(asdict(CONFIG)) == CONFIG
    for values in (
        {},
        {"visual_width": 1},
        asdict(CONFIG) | {"colour": 1},
        asdict(CONFIG) | {"width": "96"},
    ):
        with pytest.raises(ValueError, match="not a network configuration"):
            config_from(values)


def test_no_layer_and_no_dropout_are_fine() -> None:
    config = config_from(asdict(CONFIG) | {"join_layers": 0, "dropout": 0.0})
    assert network(config)(*inputs(1, 5)).shape == (1, 5, 2)
