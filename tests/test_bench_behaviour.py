"""What `bench/behaviour.py` does to clips is what it says, and its figures are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from benches import benches
from commands import one_thread
from demo_pieces import DEMO, copy_piece
from maven import load, media
from maven.faces.detect import Detection
from maven.inference import infer
from maven.pipeline import analyze
from media_factory import numbered, read_number, tone, write_clip
from toy_mini import save_toy_mini

MODULES = ("machine", "perturb", "groups", "behaviour")
BOX = (40.0, 20.0, 60.0, 80.0)
LANDMARKS = [[55, 50], [85, 50], [70, 65], [58, 80], [82, 80]]


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of the bench, by name."""
    with one_thread(), benches(*MODULES) as modules:
        yield modules


class Still:
    """Finds the same face everywhere."""

    name, fingerprint = "still", "0"

    def __call__(self, rgb: np.ndarray) -> list[Detection]:
        return [Detection(np.array(BOX, np.float32), np.array(LANDMARKS, np.float32), 0.9)]

    def near(self, rgb: np.ndarray, boxes_px: Sequence[np.ndarray]) -> list[Detection]:
        return self(rgb)


def moved(perturb: ModuleType, seed: int, **options: bool) -> np.ndarray:
    """Step in x and y as a share of the box, and growth, of 300 detections: (300, 3)."""
    detector = perturb.Jittered(Still(), 0.05, seed, **options)
    out = []
    for _ in range(300):
        (face,) = detector(np.zeros((4, 4, 3), np.uint8))
        step_px = face.box_px[:2] + face.box_px[2:] / 2 - [70, 60]
        growth = face.box_px[2] / 60
        assert face.box_px[3] / 80 == pytest.approx(growth, rel=1e-5)
        expected = [70, 60] + step_px + growth * (np.array(LANDMARKS) - [70, 60])
        np.testing.assert_allclose(face.landmarks_px, expected, atol=1e-3)
        out.append((*(step_px / (60, 80)), growth - 1))
    return np.array(out)


def test_boxes_move_and_grow_by_up_to_the_share(bench: SimpleNamespace) -> None:
    jitter = moved(bench.perturb, 0)
    assert (np.abs(jitter) <= 0.05 + 1e-6).all()
    np.testing.assert_allclose(jitter.std(0), 0.05 / np.sqrt(3), rtol=0.1)  # uniform
    np.testing.assert_allclose(jitter.mean(0), 0, atol=0.01)
    np.testing.assert_array_equal(jitter, moved(bench.perturb, 0))
    assert not np.allclose(jitter, moved(bench.perturb, 1))
    constant = moved(bench.perturb, 0, constant=True)
    assert np.abs(constant).min() > 0
    np.testing.assert_array_equal(constant, np.broadcast_to(constant[0], constant.shape))


def test_pictures_are_changed_in_the_decoder_only_for_a_while(
    bench: SimpleNamespace, tmp_path: Path
) -> None:
    times_s = [k / 25 for k in range(6)]
    path = write_clip(
        tmp_path / "clip.mp4", frame_times_s=times_s, pictures=[numbered(k) for k in range(6)]
    )
    plain = list(media.frames(path))
    with bench.perturb.changed_pictures(bench.perturb.mirrored):
        once = list(media.frames(path))
        with bench.perturb.changed_pictures(bench.perturb.mirrored):
            twice = list(media.frames(path))
    after = list(media.frames(path))
    for before, mirrored, same, again in zip(plain, once, twice, after, strict=True):
        assert mirrored.time_s == before.time_s
        np.testing.assert_array_equal(mirrored.rgb, np.fliplr(before.rgb))
        np.testing.assert_array_equal(same.rgb, before.rgb)
        np.testing.assert_array_equal(again.rgb, before.rgb)
        assert read_number(before.rgb) == before.index
        assert mirrored.index in (0, before.index)
        assert mirrored.rgb[-1, 0, 2] > 150  # blue, which was on the right


def test_jpeg_loses_what_its_quality_says(bench: SimpleNamespace) -> None:
    y, x = np.mgrid[:96, :96]
    rgb = np.stack((2 * x, 2 * y, x + y), 2).clip(0, 255).astype(np.uint8)
    rgb = (rgb + np.random.default_rng(0).integers(0, 20, rgb.shape)).clip(0, 255).astype(np.uint8)
    errors = [
        np.abs(bench.perturb.jpeg(quality)(rgb).astype(float) - rgb).mean()
        for quality in (95, 50, 10)
    ]
    assert 0 < errors[0] < errors[1] < errors[2] < 20  # red and blue in their places


def test_sound_gets_louder_by_decibels(bench: SimpleNamespace, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "tone.flac", sound=tone(440, 1.0), sound_codec="flac")
    plain, level = media.read_audio(path), []
    assert plain is not None
    for gain_db in (6.0, -6.0):
        with bench.perturb.changed_gain(gain_db):
            louder = media.read_audio(path)
            assert louder is not None
        level.append(20 * np.log10(louder.samples.std() / plain.samples.std()))
        assert louder.start_s == plain.start_s
    np.testing.assert_allclose(level, (6, -6), atol=1e-3)
    np.testing.assert_array_equal(media.read_audio(path).samples, plain.samples)


def test_answers_are_those_of_the_program(bench: SimpleNamespace, tmp_path: Path) -> None:
    model = load(save_toy_mini(tmp_path / "toy"), device="cpu")
    path = copy_piece(tmp_path / "clip.mp4")
    asked = bench.behaviour.Bench(model, tmp_path, tmp_path)
    va, features = asked.plain(path)
    expected = analyze(path, model, asr="none", offline=True).frames[["valence", "arousal"]]
    np.testing.assert_allclose(va, expected)
    seen = features.observed["visual"]
    assert seen.any()
    own = bench.behaviour.own_answer(features, "visual")
    np.testing.assert_allclose(own, features.values["visual"][seen].mean(0)[:2], rtol=1e-5)
    only = features.without("audio").without("text")
    alone = infer(model.network, only, model.card.smoothing_s).va[seen].mean(0)
    np.testing.assert_allclose(bench.behaviour.alone(asked, features, "visual"), alone)
    with bench.perturb.changed_pictures(bench.perturb.mirrored):
        moved_by, lost = bench.behaviour.rms(va, asked.answers(path))
    assert 0 <= moved_by < 0.2
    assert lost <= len(va) // 10


def test_orders_are_those_between_different_quadrants(bench: SimpleNamespace) -> None:
    shown = {"glad": (1, 1), "kind": (1, 0), "angry": (-1, 1), "sad": (-1, -1)}
    expected = {
        (0, "glad", "angry"), (0, "glad", "sad"), (0, "kind", "angry"), (0, "kind", "sad"),
        (1, "glad", "sad"), (1, "angry", "sad"),
    }  # fmt: skip
    found = list(bench.behaviour.orders(shown))
    assert set(found) == expected
    assert len(found) == len(expected)
    assert len(list(bench.behaviour.orders(bench.behaviour.INTENDED))) == 16 + 10


def test_the_change_is_a_root_mean_square(bench: SimpleNamespace) -> None:
    one = np.array([[0.0, 0.0], [0.1, 0.2], [np.nan, np.nan], [0.5, 0.5]])
    other = np.array([[0.3, -0.4], [0.1, 0.2], [0.0, 0.0], [0.5, 0.5]])
    value, lost = bench.behaviour.rms(one, other)
    assert value == pytest.approx(np.sqrt((0.09 + 0.16) / 6))
    assert lost == 1


def test_a_still_does_not_move(bench: SimpleNamespace, tmp_path: Path) -> None:
    target = tmp_path / "still.mp4"
    bench.behaviour.write_still(DEMO, 10, target)
    wanted = next(frame.rgb for frame in media.frames(DEMO) if frame.index == 10)
    frames = list(media.frames(target))
    assert len(frames) == 75
    for frame in (frames[0], frames[40], frames[-1]):
        assert np.abs(frame.rgb.astype(int) - wanted).mean() < 4


def test_differences_of_groups_have_the_error_of_welch(bench: SimpleNamespace) -> None:
    female, male = np.random.default_rng(0).normal(0, 1, (2, 4000, 6, 2))
    found = [bench.groups.difference(f, m[:3]) for f, m in zip(female, male, strict=True)]
    assert found[0].speakers == (6, 3)
    np.testing.assert_allclose(found[0].value, female[0].mean(0) - male[0, :3].mean(0))
    spread = np.std([each.value for each in found], axis=0)
    errors = np.sqrt(np.mean([each.error**2 for each in found], axis=0))
    np.testing.assert_allclose(errors, spread, rtol=0.05)
    np.testing.assert_allclose(spread, np.sqrt(1 / 6 + 1 / 3), rtol=0.05)


def test_clips_of_a_speaker_are_taken_evenly(bench: SimpleNamespace) -> None:
    taken = bench.groups.evenly(list(range(90)))
    assert len(taken) == bench.groups.CLIPS
    assert (taken[0], taken[-1]) == (0, 89)
    assert np.diff(taken).max() - np.diff(taken).min() <= 1
    assert bench.groups.evenly([1, 2, 3]) == [1, 2, 3]
