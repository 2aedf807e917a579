"""The presets: what is as published, where they differ, and what must hold for all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maven.config import MODALITIES, PRESETS, MavenConfig, preset
from maven.model import Maven, read_head

WIDTHS = {"visual": 5, "audio": 4, "text": 3}
SMALL: dict[str, Any] = {
    "width": 8, "heads": 2, "join_width": 8, "join_heads": 2, "join_layers": 1, "join_feed": 16,
    "head_widths": (24, 16),
}  # fmt: skip
Inputs = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]


def small(name: str, seed: int = 0, **changes: Any) -> Maven:
    made = Maven(preset(name, WIDTHS, **SMALL | changes)).double().eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=random).double())
    return made


def inputs(b: int = 2, t: int = 12, share: float = 0.7, seed: int = 0) -> Inputs:
    random = torch.Generator().manual_seed(seed)
    features = {m: torch.randn(b, t, w, generator=random).double() for m, w in WIDTHS.items()}
    observed = {m: torch.rand(b, t, generator=random) < share for m in MODALITIES}
    return features, observed, torch.arange(t, dtype=torch.float64)[None] * 0.1


def padded(given: Inputs, by: int) -> Inputs:
    features, observed, time_s = given
    b = len(features["text"])
    more = {m: torch.cat((x, torch.full((b, by, x.shape[2]), 7.0)), 1) for m, x in features.items()}
    masks = {
        m: torch.cat((x, torch.zeros(b, by, dtype=torch.bool)), 1) for m, x in observed.items()
    }
    after_s = time_s[0, -1] + 0.1 * torch.arange(1, by + 1, dtype=torch.float64)
    return more, masks, torch.cat((time_s, after_s[None]), 1)


def test_the_full_sizes_are_the_papers() -> None:
    widths = {"visual": 1024, "audio": 768, "text": 768}
    with torch.device("meta"):
        networks = {name: Maven(preset(name, widths)) for name in PRESETS}
    counts = {name: sum(p.numel() for p in made.parameters()) for name, made in networks.items()}
    beit_layer = 4 * 768 * 768 + 3 * 768 + 2 * 768 * 3072 + 3072 + 768 + 6 * 768
    attention = 4 * 512 * 512 + 3 * 512
    common = (1024 + 768 + 768 + 3) * 512 + 6 * attention
    head = 512 * 256 + 256 + 256 * 2 + 2
    assert counts["reference-mlp"] == common + 2 * 512 + 1536 * 512 + 512 + head
    assert (
        counts["reference-beit"]
        == common + 2 * 512 + 1536 * 768 + 768 + 24 * beit_layer + 1536 * 512 + 512 + head
    )
    assert counts["paper"] == (
        common + 3 * attention + 6 * 2 * 512 + 1536 * 768 + 768 + 24 * beit_layer + 768 * 512
        + 512 + head
    )  # fmt: skip
    assert counts["default"] < 2e6
    assert len(networks["paper"].layers) == 24  # two encoders of twelve, one after the other


def test_presets_are_named() -> None:
    assert tuple(PRESETS) == ("default", "paper", "reference-mlp", "reference-beit")
    with pytest.raises(ValueError, match="no preset 'swin'; accepted: default, paper, reference"):
        preset("swin", WIDTHS)
    with pytest.raises(ValueError, match="colour"):
        preset("paper", WIDTHS, colour=1)
    assert preset("default", WIDTHS) == MavenConfig(5, 4, 3)
    assert preset("reference-mlp", WIDTHS, join_layers=3).join_layers == 0


@pytest.mark.parametrize("name", PRESETS)
@settings(deadline=None, max_examples=8)
@given(by=st.integers(1, 40), seed=st.integers(0, 99))
def test_padding_never_leaks(name: str, by: int, seed: int) -> None:
    made, arguments = small(name), inputs(seed=seed)
    arguments[1]["visual"] |= ~torch.stack(list(arguments[1].values())).any(0)
    va = made(*padded(arguments, by))[:, :12]
    torch.testing.assert_close(va, made(*arguments), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", PRESETS)
def test_one_sample_knows_nothing_of_another(name: str) -> None:
    made, (features, observed, time_s) = small(name), inputs(3)
    va = made(features, observed, time_s)
    for k in range(3):
        alone = made(
            {m: x[k : k + 1] for m, x in features.items()},
            {m: x[k : k + 1] for m, x in observed.items()},
            time_s,
        )
        torch.testing.assert_close(va[k : k + 1], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("garbage", [1e30, float("nan")])
def test_what_was_not_observed_does_not_matter(name: str, garbage: float) -> None:
    made, (features, observed, time_s) = small(name), inputs()
    spoiled = {m: x.masked_fill(~observed[m][..., None], garbage) for m, x in features.items()}
    assert torch.equal(made(spoiled, observed, time_s), made(features, observed, time_s))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("gone", MODALITIES)
def test_a_modality_can_be_absent(name: str, gone: str) -> None:
    made, (features, observed, time_s) = small(name), inputs()
    va = made(features, observed | {gone: torch.zeros_like(observed[gone])}, time_s)
    va.sum().backward()
    assert va.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize("name", ["reference-mlp", "reference-beit"])
@pytest.mark.parametrize("m", ["audio", "text"])
def test_the_published_variants_see_only_the_mean_of_voice_and_words(name: str, m: str) -> None:
    made, (features, observed, time_s) = small(name), inputs()
    va = made(features, observed, time_s)
    count = observed[m].sum(1)[:, None, None]
    mean = (features[m] * observed[m][..., None]).sum(1, keepdim=True) / count
    pooled = features | {m: mean.expand_as(features[m])}
    torch.testing.assert_close(made(pooled, observed, time_s), va, atol=1e-12, rtol=0)
    default = small("default")
    moved = default(pooled, observed, time_s) - default(features, observed, time_s)
    assert moved.abs().max() > 1e-3


def test_voice_and_words_are_heard_where_they_are() -> None:
    """Pooled, a word changes every frame alike; in time, those near it only."""
    features, observed, time_s = inputs(1, 60, share=2.0)
    changed = {m: x.clone() for m, x in features.items()}
    changed["text"][0, 5] += 3
    for name, everywhere in (("reference-mlp", True), ("default", False)):
        made = small(name, radius_s=None if everywhere else 0.3)
        moved = (made(changed, observed, time_s) - made(features, observed, time_s)).abs().amax(-1)
        assert bool(moved[0, 40:].max() > 1e-9) == everywhere
        assert moved[0, 5] > 1e-6


def test_pooling_over_time_gives_one_answer_a_window() -> None:
    features, observed, time_s = inputs()
    va = small("paper", pool_time=True)(features, observed, time_s)
    torch.testing.assert_close(va, va[:, :1].expand_as(va), atol=0, rtol=0)
    apart = small("paper")(features, observed, time_s)
    assert (apart - apart[:, :1]).abs().max() > 1e-3


@pytest.mark.parametrize("head", ["polar", "theta", "cartesian"])
def test_heads_read_their_two_numbers(head: str) -> None:
    outputs = torch.tensor([[0.3, 0.8], [3.1, 0.5], [-3.1, 0.5], [2.0, 0.0]]).double()
    va = read_head(outputs, head)
    if head == "cartesian":
        assert torch.equal(va, outputs)
    elif head == "theta":  # theta first, intensity second: eqs. 30-31
        torch.testing.assert_close(torch.atan2(va[:3, 1], va[:3, 0]), outputs[:3, 0])
        torch.testing.assert_close(va.norm(dim=-1), outputs[:, 1])
    else:
        assert (va.norm(dim=-1) < 1).all()


def test_attention_has_the_gradient_of_finite_differences_through_the_whole_network() -> None:
    for name in PRESETS:
        made, (features, observed, time_s) = small(name), inputs(1, 4)

        def run(
            *x: Tensor, made: Maven = made, seen: Any = observed, time_s: Tensor = time_s
        ) -> Tensor:
            va: Tensor = made(dict(zip(MODALITIES, x, strict=True)), seen, time_s)
            return va

        tensors = [features[m].requires_grad_() for m in MODALITIES]
        assert torch.autograd.gradcheck(run, tensors), name
