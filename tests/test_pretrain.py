"""Training of the mini encoders on planted problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maven.augment import add_noise, augment_faces, augment_voices, pad_mels
from maven.encoders.faces import CROP_PX, FACE_LEFT_PX, FACE_PX, FACE_TOP_PX, FaceNet
from maven.encoders.voices import FLOOR, MEL_BINS, level_free
from maven.metrics import ccc
from maven.pretrain import (
    SMALL_PX,
    Labelled,
    PretrainConfig,
    _average,
    _batches,
    revised,
    score,
    smoothed,
    train_faces,
    train_voices,
)

Figures = list[dict[str, Any]]

# --- augmentation ------------------------------------------------------------------------------


def pictures(n: int) -> Tensor:
    return torch.rand(n, 1, CROP_PX, CROP_PX, generator=torch.Generator().manual_seed(0))


def some_mels(n: int, frames: int = 400) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    mel = torch.randn(n, MEL_BINS, frames, generator=random) * 3 - 8
    lengths = torch.randint(40, frames + 1, (n,), generator=random)
    for one, length in zip(mel, lengths, strict=True):
        one[:, length:] = one.max() + 2 * FLOOR
    return mel, lengths


def test_augmented_faces() -> None:
    faces = pictures(64)
    before = faces.clone()
    torch.manual_seed(5)
    first = augment_faces(faces)
    assert first.shape == (64, 1, FACE_PX, FACE_PX)
    assert first.isfinite().all()
    assert first.min() > -1
    assert first.max() < 2
    torch.testing.assert_close(faces, before, rtol=0, atol=0)  # not in place
    torch.manual_seed(5)
    assert torch.equal(augment_faces(faces), first)
    assert not torch.equal(augment_faces(faces), first)


def test_augmentation_is_centred_on_what_inference_sees() -> None:
    """A blob in the middle of inference's part of the crop lies in the middle on average."""
    index = torch.arange(CROP_PX) + 0.5
    row, column = FACE_TOP_PX + FACE_PX / 2, FACE_LEFT_PX + FACE_PX / 2
    blob = torch.exp(-((index[:, None] - row) ** 2 + (index - column) ** 2) / 18)
    torch.manual_seed(0)
    mean = augment_faces(blob.expand(600, 1, -1, -1)).mean((0, 1))
    bright = (mean - 0.5 * mean.max()).clamp_min(0)
    place = torch.arange(FACE_PX) + 0.5
    middle_row = (bright.sum(1) * place).sum() / bright.sum()
    middle_column = (bright.sum(0) * place).sum() / bright.sum()
    assert middle_row.item() == pytest.approx(FACE_PX / 2, abs=0.6)
    assert middle_column.item() == pytest.approx(FACE_PX / 2, abs=0.6)


def test_half_of_the_faces_are_mirrored() -> None:
    bright_left = torch.linspace(1, 0, CROP_PX).expand(400, 1, CROP_PX, -1)
    torch.manual_seed(0)
    faces = augment_faces(bright_left)
    left = faces[..., :20].mean((1, 2, 3)) > faces[..., 28:].mean((1, 2, 3))
    assert 0.4 < left.float().mean() < 0.6


def test_augmented_voices() -> None:
    mel, lengths = some_mels(32)
    before = mel.clone()
    widths = set()
    for seed in range(12):
        torch.manual_seed(seed)
        out, filled = augment_voices(mel, lengths)
        frames = out.shape[2]
        widths.add(frames)
        assert out.shape == (32, MEL_BINS, frames)
        assert 100 <= frames <= 240
        assert out.isfinite().all()
        assert filled.min() >= 1
        assert filled.max() <= frames
        silent = torch.arange(frames) >= filled[:, None]
        for one, nothing in zip(out, silent, strict=True):
            if nothing.any():
                (floor,) = one[:, nothing].unique().tolist()
                assert floor == pytest.approx(one.max().item() + 2 * FLOOR, abs=3)
        torch.manual_seed(seed)
        again, filled_again = augment_voices(mel, lengths)
        assert torch.equal(again, out)
        assert torch.equal(filled_again, filled)
    assert len(widths) > 6
    torch.testing.assert_close(mel, before, rtol=0, atol=0)


def test_short_clips_are_kept_whole_but_for_their_pace() -> None:
    mel, _ = some_mels(8)
    lengths = torch.full((8,), 60)
    torch.manual_seed(0)
    kept = augment_voices(mel, lengths)[1]
    assert kept.min() >= int(60 / 1.14)
    assert kept.max() <= 60 / 0.88
    assert len(kept.unique()) > 2


@pytest.mark.parametrize("below_db", [0.0, 10.0, 30.0])
def test_noise_is_as_far_below_the_sound_as_asked(below_db: float) -> None:
    random = np.random.default_rng(0)
    mel = torch.from_numpy(random.normal(-4, 1, (6, MEL_BINS, 300)).astype(np.float32))
    lengths = torch.full((6,), 300)
    torch.manual_seed(0)
    noisy = add_noise(mel, lengths, torch.full((6,), below_db))
    added = (noisy.double().exp() - mel.double().exp()).sum((1, 2))
    measured = 10 * (mel.double().exp().sum((1, 2)) / added).log10()
    np.testing.assert_allclose(measured, below_db, atol=0.6)


def test_mels_are_padded_below_what_can_be_heard() -> None:
    random = np.random.default_rng(0)
    mels = [random.normal(-5, 2, (t, MEL_BINS)).astype(np.float32) for t in (30, 50, 90)]
    out, lengths = pad_mels(mels, 50)
    assert out.shape == (3, MEL_BINS, 50)
    assert out.dtype == np.float32
    assert lengths.tolist() == [30, 50, 50]
    for k, mel in enumerate(mels):
        np.testing.assert_array_equal(out[k, :, : lengths[k]], mel[: lengths[k]].T)
    heard = level_free(torch.from_numpy(out))
    assert (heard[0, :, 30:] == FLOOR).all()


# --- networks ----------------------------------------------------------------------------------


def labels_of(classes: Tensor) -> Tensor:
    return torch.tensor([(0.8, 0.5), (-0.6, -0.3)])[classes]


def face_problem(n: int, seed: int) -> Labelled:
    """Class 0 is bright above, class 1 below; crops (n, 56, 56) uint8."""
    random = torch.Generator().manual_seed(seed)
    classes = torch.arange(n) % 2
    ramp = torch.linspace(-80, 80, CROP_PX)[:, None] * (classes[:, None, None] * 2 - 1)
    noise = 20 * torch.randn(n, CROP_PX, CROP_PX, generator=random)
    return Labelled((128 + ramp + noise).clamp(0, 255).to(torch.uint8), classes, labels_of(classes))


def voice_problem(n: int, seed: int) -> Labelled:
    """Class 0 sounds low, class 1 high; log mels (n, 64, 140) of 70 to 140 frames."""
    random = torch.Generator().manual_seed(seed)
    classes = torch.arange(n) % 2
    slope = torch.linspace(-4, 4, MEL_BINS)[:, None] * (classes[:, None, None] * 2 - 1)
    mel = slope + torch.randn(n, MEL_BINS, 140, generator=random) - 6
    lengths = torch.randint(70, 141, (n,), generator=random)
    weights = torch.ones(n, dtype=torch.float64)
    return Labelled(mel, classes, labels_of(classes), lengths, weights)


Trainer = Callable[..., nn.Module]
PROBLEMS = {"faces": (train_faces, face_problem, 4), "voices": (train_voices, voice_problem, 5)}
Case = tuple[Trainer, Callable[[int, int], Labelled], int]


@pytest.mark.parametrize("case", PROBLEMS.values(), ids=PROBLEMS)
def test_training_learns_and_repeats_itself(case: Case) -> None:
    trainer, problem, epochs = case
    train, val = problem(32, 0), problem(12, 1)
    config = PretrainConfig(epochs=epochs, batch=8, learning_rate=2e-3, class_weight=0.5, seed=3)
    figures: Figures = []
    net = trainer(train, val, config, figures.append)
    assert [f["epoch"] for f in figures] == list(range(epochs))
    assert all(np.isfinite(f["loss"]) for f in figures)
    assert figures[-1]["loss"] < 0.85 * figures[0]["loss"]
    assert set(figures[-1]) == {"epoch", "loss", "accuracy", "ccc_valence", "ccc_arousal"}
    assert not net.training

    steps = epochs * 4
    state = net.state_dict()
    counted = [v for k, v in state.items() if k.endswith("num_batches_tracked")]
    assert counted
    assert all(count == steps for count in counted)
    means = [v for k, v in state.items() if k.endswith("running_mean")]
    assert all(mean.abs().max() > 0 for mean in means)
    assert all(v.isfinite().all() for v in state.values())

    torch.manual_seed(99)  # the state of the generator before does not matter
    again = trainer(train, val, config, lambda _: None).state_dict()
    assert all(torch.equal(state[k], again[k]) for k in state)


def test_another_seed_gives_other_weights_and_small_sets_one_batch() -> None:
    train = face_problem(6, 0)
    nets = [
        train_faces(train, train, PretrainConfig(epochs=1, batch=64, seed=s), lambda _: None)
        for s in (0, 1)
    ]
    assert not torch.equal(nets[0].classes.weight, nets[1].classes.weight)
    assert nets[0].state_dict()["maps.1.num_batches_tracked"] == 1


def test_the_average_takes_in_the_statistics() -> None:
    """Weights and BatchNorm's means and variances move alike; its counter is copied."""
    kept, new = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    for _ in range(3):
        new(torch.randn(16, 3) + 2)
    before = {k: v.clone() for k, v in kept.state_dict().items()}
    _average(kept, new, 0.9)
    for name, after in kept.state_dict().items():
        other = new.state_dict()[name]
        if after.is_floating_point():
            torch.testing.assert_close(after, 0.9 * before[name] + 0.1 * other)
        else:
            assert after == other == 3
    assert kept[1].running_mean.abs().max() > 0


def test_corpora_of_unequal_size_are_drawn_equally() -> None:
    classes = torch.tensor([0] * 900 + [1] * 100)
    weights = torch.tensor([1 / 900] * 900 + [1 / 100] * 100, dtype=torch.float64)
    data = Labelled(torch.arange(1000), classes, torch.zeros(1000, 2), None, weights)
    torch.manual_seed(0)
    batches = [batch for _, batch in _batches(data, 64)]
    assert [len(batch.classes) for batch in batches] == [64] * 15
    drawn = torch.cat([batch.classes for batch in batches]).float()
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.06)
    assert all(torch.equal(batch.classes, classes[batch.inputs]) for batch in batches)


def test_without_weights_every_sample_is_drawn_once() -> None:
    data = Labelled(torch.arange(37), torch.zeros(37).long(), torch.zeros(37, 2), torch.arange(37))
    torch.manual_seed(0)
    drawn = torch.cat([batch.inputs for _, batch in _batches(data, 6)]).tolist()
    assert len(drawn) == len(set(drawn)) == 36
    for chosen, batch in _batches(data, 6):
        assert torch.equal(chosen, batch.inputs)
        assert batch.lengths is not None
        assert torch.equal(batch.inputs, batch.lengths)


def test_a_label_that_is_always_denied_is_given_up() -> None:
    beliefs = smoothed(torch.tensor([0, 1]), 3)
    torch.testing.assert_close(beliefs[0], torch.tensor([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]))
    answer = torch.tensor([[0.0, 0.0, 9.0], [0.0, 9.0, 0.0]])
    once = revised(beliefs, answer)
    torch.testing.assert_close(once.sum(1), torch.ones(2))
    assert once.argmax(1).tolist() == [0, 1]
    for _ in range(20):
        beliefs = revised(beliefs, answer)
    assert beliefs.argmax(1).tolist() == [2, 1]


def test_labels_are_revised_from_the_share_asked_on() -> None:
    train, val = face_problem(128, 0), face_problem(32, 1)
    losses = []
    for revise_from in (0.5, 1.0):
        told: Figures = []
        config = PretrainConfig(epochs=6, batch=32, revise_from=revise_from)
        train_faces(train, val, config, told.append)
        losses.append([figures["loss"] for figures in told])
    assert losses[0][:3] == losses[1][:3]
    assert all(a != b for a, b in zip(losses[0][3:], losses[1][3:], strict=True))


def test_small_faces_first() -> None:
    train, val = face_problem(64, 0), face_problem(16, 1)
    sides: list[int] = []
    config = PretrainConfig(epochs=2, batch=32, small_until=0.5)
    with pytest.MonkeyPatch.context() as patch:

        def seen(faces: torch.Tensor, side_px: int) -> torch.Tensor:
            sides.append(side_px)
            return augment_faces(faces, side_px)

        patch.setattr("maven.pretrain.augment_faces", seen)
        train_faces(train, val, config, lambda _: None)
    half = len(sides) // 2
    assert sides == [SMALL_PX] * half + [FACE_PX] * half


def test_the_score_is_accuracy_and_ccc() -> None:
    random = np.random.default_rng(0)
    n = 700
    va = random.uniform(-1, 1, (n, 2)).astype(np.float32)
    answer = (0.8 * va + random.normal(0, 0.1, (n, 2))).astype(np.float32)
    guess = random.integers(0, 3, n)
    classes = random.integers(0, 3, n)
    inputs = np.concatenate((np.eye(3)[guess], answer), 1).astype(np.float32)

    def predict(_: nn.Module, batch: Labelled) -> tuple[Tensor, Tensor]:
        return batch.inputs[:, :3], batch.inputs[:, 3:]

    val = Labelled(*map(torch.from_numpy, (inputs, classes, va)))
    figures = score(FaceNet(), val, predict)
    assert figures["accuracy"] == pytest.approx((guess == classes).mean(), abs=1e-6)
    assert figures["ccc_valence"] == pytest.approx(ccc(answer[:, 0], va[:, 0]))
    assert figures["ccc_arousal"] == pytest.approx(ccc(answer[:, 1], va[:, 1]))


def test_inference_sees_what_training_scores() -> None:
    """The part of the crop that `MiniVisual` cuts out is the one that is scored."""
    from maven.encoders.faces import MiniVisual

    torch.manual_seed(0)
    net = FaceNet().eval()
    crops = face_problem(4, 0).inputs.numpy()
    crops = np.stack([cv2.GaussianBlur(crop, (5, 5), 0) for crop in crops])
    faces = torch.from_numpy(crops[:, None, FACE_TOP_PX : FACE_TOP_PX + FACE_PX]).float() / 255
    faces = faces[..., FACE_LEFT_PX : FACE_LEFT_PX + FACE_PX]
    with torch.inference_mode():
        expected = net.answer((net(faces) + net(faces.flip(3))) / 2)  # linear: the mean answer
    got = MiniVisual(net, "", "cpu")(np.repeat(crops[..., None], 3, 3))
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
