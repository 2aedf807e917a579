"""Scores at the frames of clips: all of them together, the unknown ones, the best smoothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from maven import validate
from maven.config import MODALITIES
from maven.datasets.clips import Clip
from maven.features import Features
from maven.inference import answer, read_at
from maven.metrics import ccc
from maven.timeline import smooth
from maven.validate import choose_smoothing, predict, score
from planted import WIDTHS, network, planted


def at_frames(clip: Clip, period_s: float) -> Clip:
    """The same, labelled at frames that are not the grid's times."""
    frame_s = np.arange(0.01, clip.features.time_s[-1], period_s)
    columns = [np.interp(frame_s, clip.features.time_s, column) for column in clip.labels.T]
    return replace(clip, frame_s=frame_s, frame_labels=np.stack(columns, 1).astype(np.float32))


def unseen(frames: int = 20) -> Clip:
    """A clip of which nothing was observed."""
    time_s = np.arange(frames) / 5
    values = {m: np.zeros((frames, d), np.float32) for m, d in WIDTHS.items()}
    observed = {m: np.zeros(frames, bool) for m in MODALITIES}
    labels = np.full((frames, 2), 0.3, np.float32)
    return Clip("unseen", "val", Features(time_s, values, observed), labels, time_s, labels)


def test_frames_of_all_clips_count_together() -> None:
    made = network().eval()
    clips = [at_frames(planted(k, 30 + 9 * k), 0.03 + 0.02 * k) for k in range(4)]
    clips[1].frame_labels[::3, 0] = -5  # one of the two is enough
    clips[2].frame_labels[:5] = (0.2, 1.5)
    va, labels = [], []
    for clip in clips:
        own = read_at(clip.features.time_s, answer(made, clip.features), clip.frame_s)
        valid = (np.abs(clip.frame_labels) <= 1).all(1)
        va.append(own[valid])
        labels.append(clip.frame_labels[valid])
    x, y = np.concatenate(va), np.concatenate(labels)
    found = score(made, clips)
    assert found["ccc_valence"] == pytest.approx(ccc(x[:, 0], y[:, 0]), abs=1e-12)
    assert found["ccc_arousal"] == pytest.approx(ccc(x[:, 1], y[:, 1]), abs=1e-12)
    assert found["ccc_mean"] == (found["ccc_valence"] + found["ccc_arousal"]) / 2


def test_frames_of_which_nothing_is_known_are_at_rest_and_count() -> None:
    made = network().eval()
    clips = [planted(1), unseen(), planted(2)]
    found = predict(made, clips)
    assert found.shape == (1, 100, 2)
    assert not found[0, 40:60].any()
    assert found[0, :40].any()
    x, y = found[0], np.concatenate([c.frame_labels for c in clips])
    assert score(made, clips)["ccc_valence"] == pytest.approx(ccc(x[:, 0], y[:, 0]))


def test_unlabelled_clips_are_answered_and_not_scored() -> None:
    made = network().eval()
    blank = replace(planted(3), frame_labels=np.zeros((0, 2), np.float32))
    assert predict(made, [blank]).shape == (1, 40, 2)
    assert score(made, [planted(1), blank]) == score(made, [planted(1)])


def test_only_some_modalities_are_seen() -> None:
    made = network().eval()
    clip = planted(1)
    bare = replace(clip, features=clip.features.without("visual"))
    np.testing.assert_array_equal(
        predict(made, [clip], keep=("audio", "text")), predict(made, [bare])
    )
    assert score(made, [clip], ("visual",)) != score(made, [clip])


def test_constant_answers_score_nothing_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    made = network().eval()
    assert score(made, [unseen()])["ccc_mean"] == 0
    assert not [w for w in recwarn if "CCC" in str(w.message)]


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_the_best_smoothing_is_chosen(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """Without noise any smoothing harms; with much of it, a middling one is best."""
    random = np.random.default_rng(0)
    clips = [planted(seed, frames=200) for seed in range(5)]
    said = {id(c.features.time_s): c.labels + noise * random.normal(size=(200, 2)) for c in clips}
    monkeypatch.setattr(validate, "answer", lambda _, features: said[id(features.time_s)])
    widths = (0.0, 0.4, 0.8, 1.6, 6.0)
    best, scores = choose_smoothing(network(), clips, widths)
    assert tuple(scores) == widths
    labels = np.concatenate([c.labels for c in clips])
    for width_s in widths:
        smoothed = np.concatenate(
            [smooth(c.features.time_s, said[id(c.features.time_s)], width_s) for c in clips]
        )
        oracle = np.mean([ccc(smoothed[:, k], labels[:, k]) for k in range(2)])
        assert scores[width_s] == pytest.approx(oracle)
    assert best == max(widths, key=lambda width_s: scores[width_s])
    assert (best == 0.0) if noise == 0 else (0 < best < 6)
