"""An evaluation against plain loops over frames, and the ways in which scores went wrong before."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import maven
from maven.circumplex import NEUTRAL_INTENSITY
from maven.config import MODALITIES
from maven.datasets.clips import Clip
from maven.evaluate import CHANGES, Evaluation, EvaluationError, evaluate
from maven.inference import infer
from maven.model import Maven
from scored_clips import CONFIG, clip, slow_ccc, slow_read, small_network

SMOOTHING_S = 0.3
Pair = tuple[float, float]


@pytest.fixture(scope="module")
def network() -> Maven:
    return small_network()


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """Videos of different lengths, rates and starts; one blind, one of constant labels."""
    still = clip("still", 5, seed=4)
    return [
        clip("a", 14, seed=1),
        clip("b_left", 9, seed=2, fps=29.97, start_s=0.0),
        clip("blind", 4, seed=3, blind=True),
        replace(still, frame_labels=np.where(still.frame_labels < -1, -5, np.float32(0.1))),
        clip("c", 21, seed=5, fps=24, start_s=2.43),
    ]


@pytest.fixture(scope="module")
def result(network: Maven, clips: list[Clip]) -> Evaluation:
    return evaluate(network, clips, SMOOTHING_S, bootstraps=200)


def slow_frames(network: Maven, video: Clip) -> list[tuple[Pair, Pair]]:
    """Label and answer of each frame that counts: line n is frame n, in full precision."""
    series = infer(network, video.features, SMOOTHING_S)
    pairs = []
    for n, (v, a) in enumerate(video.frame_labels.tolist()):
        if -1 <= v <= 1 and -1 <= a <= 1:
            said = slow_read(series.time_s, series.va, float(video.frame_s[n]))
            pairs.append(((v, a), said))
    return pairs


def slow_side(pairs: list[tuple[Pair, Pair]], k: int) -> tuple[list[float], list[float]]:
    return [said[k] for _, said in pairs], [label[k] for label, _ in pairs]


def test_the_abaw_score_is_over_all_valid_frames_concatenated(
    network: Maven, clips: list[Clip], result: Evaluation
) -> None:
    pairs = [pair for video in clips for pair in slow_frames(network, video)]
    assert result.abaw.frames == len(pairs)
    expected = [slow_ccc(*slow_side(pairs, k)) for k in range(2)]
    assert math.isclose(result.abaw.ccc_valence, expected[0], abs_tol=1e-6)
    assert math.isclose(result.abaw.ccc_arousal, expected[1], abs_tol=1e-6)
    assert math.isclose(result.abaw.ccc_mean, sum(expected) / 2, abs_tol=1e-6)
    assert abs(result.abaw.ccc_mean - result.video_mean.ccc_mean) > 0.01


def test_it_agrees_with_torchmetrics_but_for_its_divisor(result: Evaluation) -> None:
    """torchmetrics divides second moments by n - 1, consistently; a mixture would differ more."""
    regression = pytest.importorskip("torchmetrics.regression")
    valid = np.concatenate([video.valid for video in result.answers])
    va = np.concatenate([video.va for video in result.answers])[valid]
    labels = np.concatenate([video.labels for video in result.answers])[valid].astype(np.float64)
    for k, found in enumerate((result.abaw.ccc_valence, result.abaw.ccc_arousal)):
        theirs = regression.ConcordanceCorrCoef()
        theirs.set_dtype(torch.float64)
        theirs.update(torch.from_numpy(va[:, k].copy()), torch.from_numpy(labels[:, k].copy()))
        # f c / (f s + d) with f = n / (n - 1), where ours is c / (s + d)
        n, d = len(va), (va[:, k].mean() - labels[:, k].mean()) ** 2
        spread = va[:, k].var() + labels[:, k].var()
        f = n / (n - 1)
        corrected = float(theirs.compute()) / f * (f * spread + d) / (spread + d)
        assert math.isclose(found, corrected, abs_tol=1e-9)


def test_the_other_figures_are_those_of_plain_loops(
    network: Maven, clips: list[Clip], result: Evaluation
) -> None:
    pairs = [pair for video in clips for pair in slow_frames(network, video)]
    n = len(pairs)
    for k, name in enumerate(("valence", "arousal")):
        said, labels = slow_side(pairs, k)
        squares = math.fsum((x - y) ** 2 for x, y in zip(said, labels, strict=True))
        assert math.isclose(
            getattr(result.abaw, f"rmse_{name}"), math.sqrt(squares / n), abs_tol=1e-6
        )
        agree = sum(np.sign(x) == np.sign(y) for x, y in zip(said, labels, strict=True))
        assert abs(getattr(result.abaw, f"sagr_{name}") - agree / n) <= 1 / n
    turned, lengths = [], []
    for (v, a), (x, y) in pairs:
        lengths.append((math.hypot(v, a) - math.hypot(x, y)) ** 2)
        if math.hypot(v, a) >= NEUTRAL_INTENSITY:
            turn = abs(math.atan2(a, v) - math.atan2(y, x))
            turned.append(min(turn, 2 * math.pi - turn))
    assert result.abaw.angle_frames == len(turned)
    assert math.isclose(result.abaw.angle_error_rad, math.fsum(turned) / len(turned), abs_tol=1e-5)
    assert math.isclose(result.abaw.intensity_rmse, math.sqrt(math.fsum(lengths) / n), abs_tol=1e-6)


def test_each_video_has_its_own_figures_and_constants_are_counted(
    network: Maven, clips: list[Clip], result: Evaluation
) -> None:
    means = [[], []]  # type: list[list[float]]
    for video, found in zip(clips, result.videos, strict=True):
        pairs = slow_frames(network, video)
        assert (found.name, found.person) == (video.name, video.person)
        assert found.frames == len(video.frame_s)
        assert found.scores.frames == len(pairs)
        assert found.constant == (video.name in ("blind", "still"))
        for k, ccc in enumerate((found.scores.ccc_valence, found.scores.ccc_arousal)):
            expected = 0.0 if found.constant else slow_ccc(*slow_side(pairs, k))
            assert math.isclose(ccc, expected, abs_tol=1e-6)
            means[k].append(expected)
    assert result.video_mean.videos == 5
    assert result.video_mean.constant == 2
    assert math.isclose(result.video_mean.ccc_valence, sum(means[0]) / 5, abs_tol=1e-6)
    assert math.isclose(result.video_mean.ccc_arousal, sum(means[1]) / 5, abs_tol=1e-6)
    assert any(
        note.startswith("Videos of constant labels or answers") and ": 2." in note
        for note in result.notes
    )


def test_nothing_warns(network: Maven, clips: list[Clip]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(network, clips[2:4], 0.0, bootstraps=5)


def test_a_video_of_which_nothing_was_observed_is_answered_with_rest_and_counted(
    clips: list[Clip], result: Evaluation
) -> None:
    blind = result.answers[2]
    assert not blind.known
    assert (blind.va == 0).all()
    assert result.filled == result.videos[2].filled == blind.valid.sum() > 0
    assert result.patterns["nothing"].frames >= blind.valid.sum()
    assert any(f"answered 0, 0: {result.filled}." in note for note in result.notes)
    assert np.isfinite(np.concatenate([video.va for video in result.answers])).all()


@pytest.mark.parametrize("mark", [-5, 3, 1.001, np.nan, -np.inf])
@pytest.mark.parametrize("side", [0, 1, slice(0, 2)])
def test_invalid_labels_never_count_whatever_marks_them(
    network: Maven, clips: list[Clip], mark: float, side: int | slice
) -> None:
    video = clips[0]
    labels = video.frame_labels.copy()
    out = labels[:, 0] < -1
    labels[out] = 0.5
    labels[out, side] = mark
    plain = evaluate(network, [video], 0.0, bootstraps=0)
    marked = evaluate(network, [replace(video, frame_labels=labels)], 0.0, bootstraps=0)
    assert plain.abaw.frames == (~out).sum() < len(out)
    assert marked.to_json() == plain.to_json()


def test_label_n_is_frame_n_and_columns_are_valence_and_arousal(network: Maven) -> None:
    """Labels that repeat the answer score 1; a frame later, or in polar form, they do not."""
    video = clip("x", 20, seed=9, invalid=0)
    series = infer(network, video.features)
    said = np.array([slow_read(series.time_s, series.va, t) for t in video.frame_s])

    def scored(labels: np.ndarray) -> Evaluation:
        made = replace(video, frame_labels=labels.astype(np.float32))
        return evaluate(network, [made], 0.0, bootstraps=0)

    exact = scored(said).abaw
    assert exact.frames == len(said)
    assert min(exact.ccc_valence, exact.ccc_arousal) > 1 - 1e-6
    assert max(exact.rmse_valence, exact.rmse_arousal, exact.intensity_rmse) < 1e-6
    assert exact.angle_error_rad < 1e-5
    assert scored(np.roll(said, 1, 0)).abaw.rmse_valence > 100 * exact.rmse_valence
    polar = np.stack([np.arctan2(said[:, 1], said[:, 0]) / np.pi, np.hypot(*said.T)], 1)
    assert scored(polar).abaw.ccc_mean < 0.9
    assert scored(np.round(said, 1)).abaw.rmse_valence > 0.01  # as one decimal would cost
    assert scored(said[:, ::-1]).abaw.ccc_mean < 0.9


def test_two_evaluations_are_bit_equal(
    network: Maven, clips: list[Clip], result: Evaluation
) -> None:
    again = evaluate(network, clips, SMOOTHING_S, bootstraps=200)
    assert json.dumps(again.to_json()) == json.dumps(result.to_json())
    for first, second in zip(result.answers, again.answers, strict=True):
        assert first.va.tobytes() == second.va.tobytes()
    other = evaluate(network, clips, SMOOTHING_S, seed=1, bootstraps=200)
    assert other.abaw == result.abaw
    assert other.intervals != result.intervals


def test_the_answer_for_a_clip_does_not_depend_on_the_others(
    network: Maven, clips: list[Clip], result: Evaluation
) -> None:
    alone = evaluate(network, [clips[4]], SMOOTHING_S)
    assert alone.answers[0].va.tobytes() == result.answers[4].va.tobytes()
    assert alone.videos[0] == result.videos[4]
    turned = evaluate(network, clips[::-1], SMOOTHING_S, bootstraps=200)
    assert turned.to_json()["videos"] == result.to_json()["videos"][::-1]
    for first, second in zip(turned.conditions, result.conditions, strict=True):
        assert math.isclose(first.scores.ccc_mean, second.scores.ccc_mean, abs_tol=1e-12)


def test_dropout_at_test_time_is_refused(clips: list[Clip]) -> None:
    with pytest.raises(AssertionError):
        evaluate(small_network().train(), clips, 0.0)


def test_a_network_that_answers_no_number_is_an_error_not_a_zero(clips: list[Clip]) -> None:
    broken = small_network()
    with torch.no_grad():
        next(broken.head.parameters())[0, 0] = torch.nan
    with pytest.raises(EvaluationError, match="answers no number for video a") as caught:
        evaluate(broken, clips, 0.0)
    assert "\n" not in str(caught.value)


def test_frames_are_grouped_by_what_was_observed_at_the_nearest_time(
    clips: list[Clip], result: Evaluation
) -> None:
    groups: dict[str, list[tuple[Pair, Pair]]] = {}
    for video, answered in zip(clips, result.answers, strict=True):
        for n, frame_s in enumerate(video.frame_s):
            at = int(np.argmin(np.abs(video.features.time_s - frame_s)))
            seen = [m for m in MODALITIES if video.features.observed[m][at]]
            assert answered.observed[n].tolist() == [m in seen for m in MODALITIES]
            if answered.valid[n]:
                pair = (tuple(video.frame_labels[n].tolist()), tuple(answered.va[n].tolist()))
                groups.setdefault("+".join(seen) or "nothing", []).append(pair)
    assert set(groups) == set(result.patterns)
    assert sum(scores.frames for scores in result.patterns.values()) == result.abaw.frames
    for name, pairs in groups.items():
        assert result.patterns[name].frames == len(pairs)
        expected = slow_ccc(*slow_side(pairs, 0))
        assert math.isclose(result.patterns[name].ccc_valence, expected, abs_tol=1e-9)


def test_a_modality_taken_away_is_as_if_it_had_never_been_observed(
    network: Maven, clips: list[Clip], result: Evaluation
) -> None:
    assert len(result.conditions) == len(CHANGES) * len(MODALITIES) == 9
    found = {(c.change, c.modality): c for c in result.conditions}
    for m in MODALITIES:
        others = [other for other in MODALITIES if other != m]
        for change, taken in (("without", [m]), ("only", others)):
            less = []
            for video in clips:
                features = video.features
                for name in taken:
                    features = features.without(name)
                less.append(replace(video, features=features))
            expected = evaluate(network, less, SMOOTHING_S, bootstraps=0)
            assert found[change, m].scores == expected.abaw
            assert found[change, m].filled == expected.filled
        third = found["without a third of", m].scores
        assert third.frames == result.abaw.frames
        assert third not in (result.abaw, found["without", m].scores)


def test_intervals_lie_around_the_score_and_need_two_videos(
    network: Maven, clips: list[Clip], result: Evaluation
) -> None:
    assert result.intervals is not None
    for name, (low, high) in result.intervals.items():
        assert low < getattr(result.abaw, name) < high
    alone = evaluate(network, clips[:1], 0.0)
    assert alone.intervals is None
    assert any("at least two videos" in note for note in alone.notes)


def test_unlabelled_videos_are_left_out_and_said_so(network: Maven, clips: list[Clip]) -> None:
    silent = clip("t", 3, split="test", labelled=False)
    never = clip("n", 3, invalid=1.0)
    mixed = evaluate(network, [silent, *clips, never], SMOOTHING_S, bootstraps=200)
    plain = evaluate(network, clips, SMOOTHING_S, bootstraps=200)
    assert mixed.abaw == plain.abaw
    assert mixed.splits == ("val",)
    assert mixed.notes[0] == "Videos without a valid label, left out: 2."


@pytest.mark.parametrize(
    ("videos", "split"),
    [
        ([clip("t", 3, split="test", labelled=False)], "test"),
        ([clip("n", 3, invalid=1.0), clip("t", 3, split="test", labelled=False)], "test, val"),
        ([], "no videos at all"),
    ],
)
def test_without_a_labelled_frame_it_refuses_in_one_line(
    network: Maven, videos: list[Clip], split: str
) -> None:
    with pytest.raises(EvaluationError, match="no labelled frame in split") as caught:
        evaluate(network, videos, 0.0)
    assert split in str(caught.value)
    assert "\n" not in str(caught.value)


def test_its_json_is_strict_and_undefined_figures_are_null(network: Maven) -> None:
    video = clip("quiet", 4, invalid=0)
    made = evaluate(network, [replace(video, frame_labels=0.1 * video.frame_labels)], 0.0)
    assert math.isnan(made.abaw.angle_error_rad)
    read = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert read["abaw"]["frames"] == made.abaw.frames
    assert read["abaw"]["angle_frames"] == 0
    assert read["abaw"]["angle_error_rad"] is None
    assert "answers" not in read
    assert read["intervals"] is None


def test_progress_is_told_for_every_pass(network: Maven, clips: list[Clip]) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(network, clips, 0.0, progress=lambda *what: told.append(what))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages[0] == "everything"
    assert len(stages) == 10
    for stage in stages:
        assert [done for name, done, _ in told if name == stage] == list(range(6))
    assert {total for _, _, total in told} == {5}


def test_the_shipped_model_is_evaluated_as_it_predicts() -> None:
    model = maven.load("mini", runtime="torch")
    config = model.card.config
    widths = (config.visual_width, config.audio_width, config.text_width)
    video = clip("x", 20, seed=3, widths=widths)
    assert CONFIG.rate_hz == config.rate_hz
    made = evaluate(model.network, [video, clip("y", 6, widths=widths)], model.card.smoothing_s)
    expected = infer(model.network, video.features, model.card.smoothing_s).at(video.frame_s).va
    np.testing.assert_allclose(made.answers[0].va, expected, atol=1e-5)
    assert (np.hypot(*made.answers[0].va.T) < 1).all()
