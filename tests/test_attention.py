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
from torch import Tensor, nn

from maven.attention import (
    KNOT_SCALE_S,
    KNOTS,
    SLACK_S,
    Attention,
    Dropout,
    Nearness,
    seeded_dropout,
)
from maven.config import PATHS, config_from
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
        near = [
            s for s in range(t) if observed[s] and abs(time_s[s] - time_s[i]) <= radius_s + 1e-9
        ]
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


def unfolded(near: Nearness, x: Tensor, frames: int) -> Tensor:
    """Put what is said of (block, frame, key) (b, n, c, s) where it belongs, (b, t, t)."""
    marks = torch.arange(1, frames + 1, dtype=x.dtype)[None, :, None]
    own, around = near.queries(marks)[0, ..., 0], near.keys(marks)[0, ..., 0]
    whole = torch.zeros(x.shape[0], frames, frames, dtype=x.dtype)
    for n in range(len(own)):
        for c, query in enumerate(own[n].long().tolist()):
            for s, key in enumerate(around[n].long().tolist()):
                if query and key:
                    whole[:, query - 1, key - 1] = x[:, n, c, s]
                else:
                    assert not query or not x[:, n, c, s].any()  # beyond the ends nothing is near
    return whole


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 20), min_size=1, max_size=25), st.floats(0.1, 5))
def test_the_bias_resolves_time_in_order(times_s: list[float], radius_s: float) -> None:
    time_s = torch.tensor([sorted(times_s)], dtype=torch.float64)
    t = time_s.shape[1]
    near = Nearness.of(time_s, radius_s)
    within = unfolded(near, near.within.double(), t).bool()
    away = (time_s[:, None] - time_s[..., None]).abs()
    assert within[away <= radius_s].all()
    assert not within[away > radius_s + 2 * SLACK_S].any()
    assert near.basis is not None
    assert near.basis.min() >= 0
    assert_same(near.basis.sum(-1), torch.ones_like(near.within, dtype=torch.float64), atol=1e-9)
    knots = torch.arange(2 * KNOTS + 1).double()
    place = unfolded(near, (near.basis @ knots) * near.within, t)
    both = (place + place.transpose(1, 2))[within]
    assert_same(both, torch.full_like(both, 2 * KNOTS), atol=1e-9)
    assert place.diagonal(dim1=1, dim2=2).eq(KNOTS).all()
    for row, near_row in zip(place[0], within[0], strict=True):
        assert (row[near_row].diff() >= -1e-9).all()  # later frames lie on later knots


@pytest.mark.parametrize("frames", [1, 5, 6, 7, 30, 33, 100])
@pytest.mark.parametrize("radius_s", [0.05, 0.2, 1.0])
def test_blocks_change_nothing(frames: int, radius_s: float) -> None:
    """A long sequence is cut into blocks, a short one is not: the answer is the loop's."""
    random = np.random.default_rng(frames)
    attention = network(seed=frames).paths["audio_from_text"]
    queries, keys = random.normal(size=(2, frames, 8))
    observed = random.uniform(size=frames) < 0.6
    time_s = np.arange(frames) * 0.1
    near = Nearness.of(torch.from_numpy(time_s)[None], radius_s)
    assert near.block < frames or frames <= 3 * max(radius_s / 0.1, 1)
    found, _ = attention(
        torch.from_numpy(queries)[None], torch.from_numpy(keys)[None],
        torch.from_numpy(observed)[None], near,
    )  # fmt: skip
    expected = slow_attention(attention, queries, keys, observed, time_s, radius_s)
    np.testing.assert_allclose(found[0].detach(), expected, atol=1e-9)


def test_without_a_radius_everything_is_near() -> None:
    time_s = torch.tensor([[0.0, 1e5, 2e7]], dtype=torch.float64)
    near = Nearness.of(time_s, None)
    assert near.basis is None
    assert near.block == 3
    assert near.within.all()


def test_the_work_grows_with_the_length_alone() -> None:
    sizes = [
        Nearness.of(torch.arange(t, dtype=torch.float64)[None] * 0.1, 2.0).within.numel()
        for t in (1000, 2000, 4000)
    ]
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.03)
    assert sizes[2] == pytest.approx(4 * sizes[0], rel=0.03)


# --- dropout ---


def generators(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_seeded_dropout_depends_on_the_sample_alone() -> None:
    layer = nn.Sequential(Dropout(0.4), nn.Linear(6, 6), Dropout(0.2)).train()
    x = torch.randn(4, 5, 6)
    with seeded_dropout(layer, generators([1, 2, 3, 4])):
        whole = layer(x)
    for part in ([0, 1, 2], [3], [2, 0]):
        with seeded_dropout(layer, generators([k + 1 for k in part])):
            assert_same(layer(x[part]), whole[part], atol=1e-6)
    assert not torch.equal(layer(x), whole)  # afterwards it is ordinary dropout again


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    layer = Dropout(0.3).train()
    x = torch.ones(2, 200, 200)
    with seeded_dropout(layer, generators([5, 6])):
        dropped = layer(x)
    assert dropped.eq(0).float().mean() == pytest.approx(0.3, abs=0.01)
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    assert dropped.max() == pytest.approx(1 / 0.7)
    assert torch.equal(layer.eval()(x), x)


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
        ({"join_layers": -1}, "join_layers must be 0 to 256, join_branches 1 to 256, got -1 and 1"),
        ({"heads": 0}, "heads must be above 0"),
        ({"join_feed": 0}, "join_feed must be above 0"),
        ({"join_branches": 0}, "join_branches must be above 0"),
        ({"window_s": -1.0}, "window_s must be above 0"),
        ({"head": "square"}, "head must be one of polar, theta, cartesian, got 'square'"),
        ({"head_dropout": (0.1, 1.0)}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"pooled": ("smell",)}, "pooled must be of visual, audio, text"),
        ({"join": False}, "without join there can be no join_layers"),
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


# --- where a frame looks ---


@pytest.mark.parametrize("radius_s", [0.5, None])
@pytest.mark.parametrize("frame", [0, 5, 11])
def test_weights_reproduce_what_the_attention_gives(frame: int, radius_s: float | None) -> None:
    random = torch.Generator().manual_seed(frame)
    attention = Attention(8, 2, time_bias=radius_s is not None).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, generator=random)
    queries, keys = torch.randn(2, 3, 12, 8, generator=random, dtype=torch.float64)
    observed = torch.rand(3, 12, generator=random) < 0.5
    observed[2] = False
    time_s = torch.rand(1, 12, generator=random, dtype=torch.float64).sort().values * 4
    near = Nearness.of(time_s, radius_s, radius_s is not None)
    expected, heard = attention(queries, keys, observed, near)
    weights = attention.weights(
        queries[:, frame], keys, observed, time_s - time_s[:, frame, None], radius_s
    )
    assert (weights >= 0).all()
    assert_same(weights.sum(-1), heard[:, frame, None].expand(3, 2).double())
    assert not weights.transpose(1, 2)[~observed].any()
    values = attention.value(keys).view(3, 12, 2, 4)
    joined = torch.einsum("bht,bthd->bhd", weights, values).flatten(1)
    found = attention.output(joined) * heard[:, frame, None]
    assert_same(found, expected[:, frame])


def test_the_network_looks_along_its_six_paths() -> None:
    made = network()
    features, observed, time_s = inputs(1, 14)
    calls: dict[str, tuple[Any, Any]] = {}

    def remember(name: str) -> Any:
        return lambda _, args, out: calls.update({name: (args, out)})

    for name, path in made.paths.items():
        path.register_forward_hook(
            lambda _, args, out, name=name: calls.update({name: (args, out)})
        )
    made(features, observed, time_s)
    looks = made.looks(features, observed, time_s, 6)
    assert list(looks) == list(PATHS)
    for (to, of), weights in looks.items():
        (_, keys, *_), (out, _) = calls[f"{to}_from_{of}"]
        path: Any = made.paths[f"{to}_from_{of}"]
        values = path.value(keys).view(14, 2, 4)
        joined = torch.einsum("ht,thd->hd", weights[0], values).flatten()
        assert_same(path.output(joined), out[0, 6])
        assert not weights[0][:, ~observed[of][0]].any()
