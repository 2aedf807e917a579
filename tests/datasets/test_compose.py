"""Composed sequences from parts that say in their features which part they are."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maven.config import MODALITIES
from maven.datasets.compose import (
    FACE_HOLD_S,
    FACE_MOVE,
    FACELESS_SHARE,
    NEAR,
    NEUTRAL_RADIUS,
    PAUSE_S,
    RIM,
    SENTENCE_SCALE,
    SUDDEN_PACE,
    UTTERANCE_S,
    WORD_S,
    Parts,
    compose,
    holds,
    near,
    reach,
    spread,
    utterances,
    walk,
)
from maven.datasets.corpora import PROXY_VA

RATE_HZ = 10.0


def some_parts(
    faces: int = 400,
    voices: int = 150,
    sentences: int = 120,
    speakers: int = 5,
    first_id: int = 1,
    rate_hz: float = RATE_HZ,
) -> Parts:
    """Parts anywhere on the disc; features are (id, position), ids counted from `first_id`."""
    random = np.random.default_rng(first_id)

    def labels(n: int, radius: float) -> np.ndarray:
        angle, length = random.uniform(-np.pi, np.pi, n), radius * random.uniform(0, 1, n) ** 0.5
        return np.stack((length * np.cos(angle), length * np.sin(angle)), 1).astype(np.float32)

    def sequences(n: int, shortest: int, longest: int) -> list[np.ndarray]:
        lengths = random.integers(shortest, longest + 1, n)
        made = [np.stack((np.full(t, k), np.arange(t)), 1) for k, t in enumerate(lengths, first_id)]
        return [sequence.astype(np.float32) for sequence in made]

    return Parts(
        np.stack((first_id + np.arange(faces), np.ones(faces)), 1).astype(np.float32),
        labels(faces, 1.0),
        sequences(voices, 8, 40),
        labels(voices, 1.0),
        np.array([f"speaker-{k % speakers}" for k in range(voices)]),
        sequences(sentences, 1, 30),
        labels(sentences, 1 / SENTENCE_SCALE),
        rate_hz,
    )


PARTS = some_parts()


def runs(mask: np.ndarray) -> list[tuple[bool, int]]:
    """Lengths in frames of the runs of a mask, those at the two ends left out."""
    return [(bool(value), len(list(group))) for value, group in groupby(mask)][1:-1]


def ids(features: np.ndarray, observed: np.ndarray) -> np.ndarray:
    return features[observed, 0].round().astype(int)


# --- labels ------------------------------------------------------------------------------------


def within(points: np.ndarray, slack: float = 1e-6) -> np.ndarray:
    """Say which points (n, 2) lie on the left of every side of the rim."""
    sides = zip(RIM, np.roll(RIM, -1, 0), strict=True)
    left = [
        (b[0] - a[0]) * (points[:, 1] - a[1]) - (b[1] - a[1]) * (points[:, 0] - a[0])
        for a, b in sides
    ]
    return np.asarray((np.array(left) > -slack).all(0))


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 900),
    rate_hz=st.sampled_from([5.0, 10.0, 12.5, 25.0, 29.97]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_walk_is_smooth_and_stays_within_the_rim(
    frames: int, rate_hz: float, seed: int
) -> None:
    labels = walk(frames, rate_hz, np.random.default_rng(seed))
    assert labels.shape == (frames, 2)
    assert labels.dtype == np.float32
    assert within(labels).all()
    steps = np.linalg.norm(np.diff(labels, axis=0), axis=1) * rate_hz
    # From rim to rim in 3 s, 1.5 x the mean speed at the steepest, and sudden steps.
    assert steps.max(initial=0) < 1.3 * SUDDEN_PACE


def test_the_walk_rests_and_roams() -> None:
    labels = walk(40_000, RATE_HZ, np.random.default_rng(0))
    radius = np.linalg.norm(labels, axis=1)
    assert 0.2 < (radius < 0.2).mean() < 0.5
    assert (radius > 0.6).mean() > 0.1
    np.testing.assert_allclose(labels.mean(0), (-0.04, 0.18), atol=0.06)
    for quadrant in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        assert (np.sign(labels) == quadrant).all(1).mean() > 0.07


def test_every_corner_of_the_rim_is_neared() -> None:
    labels = walk(40_000, RATE_HZ, np.random.default_rng(1))
    for corner in RIM:
        assert np.linalg.norm(labels - corner, axis=1).min() < 0.15


def test_the_rim_is_convex_around_rest_and_holds_what_a_face_can_show() -> None:
    angles = np.unwrap(np.arctan2(RIM[:, 1], RIM[:, 0]))
    assert (np.diff(angles) > 0).all()
    assert within(np.array([PROXY_VA[name] for name in PROXY_VA if name != "calm"])).all()
    assert not within(np.array([PROXY_VA["calm"]])).any()
    direction = np.stack((np.cos(angles), np.sin(angles)), 1)
    np.testing.assert_allclose(reach(direction), np.linalg.norm(RIM, axis=1), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seconds=st.integers(1, 60), times=st.sampled_from([2, 3, 5]), seed=st.integers(0, 2**32 - 1))
def test_the_walk_does_not_depend_on_the_rate(seconds: int, times: int, seed: int) -> None:
    """The same path in time, seen at 6 Hz and at a multiple of it."""
    slow = walk(6 * seconds, 6.0, np.random.default_rng(seed))
    fast = walk(6 * seconds * times, 6.0 * times, np.random.default_rng(seed))
    np.testing.assert_allclose(fast[::times], slow, atol=1e-5)


# --- decisions ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seconds=st.floats(0.1, 90), seed=st.integers(0, 1000))
def test_utterances_follow_each_other_within_the_time(seconds: float, seed: int) -> None:
    spans = list(utterances(seconds, np.random.default_rng(seed)))
    edges_s = [(start_s, start_s + length_s) for start_s, length_s in spans]
    assert all(0 <= start_s < end_s <= seconds + 1e-9 for start_s, end_s in edges_s)
    for (_, end_s), (start_s, _) in pairwise(edges_s):
        assert PAUSE_S[0] <= start_s - end_s + 1e-9
        assert start_s - end_s <= PAUSE_S[1] + 1e-9
    assert all(UTTERANCE_S[0] <= length_s <= UTTERANCE_S[1] for _, length_s in spans[:-1])
    assert spans or seconds < 1 + PAUSE_S[1]


@given(words=st.integers(1, 120), start_s=st.floats(0, 1000), length_s=st.floats(*UTTERANCE_S))
def test_words_share_their_utterance(words: int, start_s: float, length_s: float) -> None:
    starts_s, ends_s = spread(words, start_s, length_s)
    assert len(starts_s) == len(ends_s) == words
    assert starts_s[0] == start_s
    assert ends_s[-1] <= start_s + length_s + 1e-9
    assert ends_s[:-1] == starts_s[1:]
    lengths_s = np.subtract(ends_s, starts_s)
    np.testing.assert_allclose(lengths_s, min(WORD_S, length_s / words), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 1500),
    rate_hz=st.sampled_from([5.0, 10.0, 24.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_spells_tile_the_frames_and_end_when_the_label_moves(
    frames: int, rate_hz: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = walk(frames, rate_hz, rng)
    spells = list(holds(labels, rate_hz, rng))
    assert [first for first, _, _ in spells] == [0, *(stop for _, stop, _ in spells[:-1])]
    assert spells[-1][1] == frames
    for first, stop, _ in spells:
        assert 1 <= stop - first <= round(FACE_HOLD_S[1] * rate_hz)
        moved = np.linalg.norm(labels[first:stop] - labels[first], axis=1)
        assert moved.max() <= FACE_MOVE
        if stop - first < round(FACE_HOLD_S[0] * rate_hz) and stop < frames:
            assert np.linalg.norm(labels[stop] - labels[first]) > FACE_MOVE


def test_near_parts_are_drawn_often_and_far_ones_hardly() -> None:
    va = np.array([(0, 0), (NEAR, 0), (2 * NEAR, 0), (6 * NEAR, 0)], np.float32)
    rng = np.random.default_rng(0)
    drawn = np.bincount([near(np.zeros(2, np.float32), va, rng) for _ in range(4000)], minlength=4)
    # A Gaussian of width NEAR: 1, exp(-1/2), exp(-2), exp(-18), as shares of their sum.
    weights = np.exp([0, -0.5, -2, -18])
    np.testing.assert_allclose(drawn / 4000, weights / weights.sum(), atol=0.03)
    assert near(np.full(2, 9, np.float32), va, rng) == 3  # the nearest, however far all are
    halved = [near(np.array((3 * NEAR, 0), np.float32), va, rng, scale=0.5) for _ in range(200)]
    assert np.bincount(halved).argmax() == 3


# --- sequences ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seconds=st.one_of(st.floats(0.2, 3), st.floats(0.2, 40)),
    rate_hz=st.sampled_from([5.0, 10.0, 25.0]),
    seed=st.integers(0, 1000),
)
def test_shapes_and_masks(seconds: float, rate_hz: float, seed: int) -> None:
    parts = some_parts(faces=30, voices=20, sentences=20, rate_hz=rate_hz)
    features, labels = compose(parts, seconds, np.random.default_rng(seed))
    frames = round(seconds * rate_hz)
    assert labels.shape == (frames, 2)
    np.testing.assert_allclose(features.time_s, np.arange(frames) / rate_hz)
    assert set(features.values) == set(features.observed) == set(MODALITIES)
    for m in MODALITIES:
        assert features.values[m].shape == (frames, 2)
        assert features.values[m].dtype == np.float32
        assert features.observed[m].shape == (frames,)
        assert features.observed[m].dtype == bool
        assert (features.values[m][~features.observed[m]] == 0).all()
        assert (features.values[m][features.observed[m], 0] >= 1).all()  # some part's id
    heard = features.observed["audio"]
    nearly = heard | np.append(False, heard[:-1]) | np.append(heard[1:], False)
    assert not (features.observed["text"] & ~nearly).any()  # ends are rounded to frames


def test_a_seed_fixes_everything() -> None:
    first, again, other = (compose(PARTS, 24.0, np.random.default_rng(s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).any()
    for m in MODALITIES:
        np.testing.assert_array_equal(first[0].values[m], again[0].values[m])
        np.testing.assert_array_equal(first[0].observed[m], again[0].observed[m])


def test_parts_come_from_the_split_that_was_given() -> None:
    """Ids of the two splits do not overlap, not even where faces are blended."""
    for first_id in (1, 5000):
        parts = some_parts(first_id=first_id)
        highest = {"visual": 400, "audio": 150, "text": 120}
        for seed in range(5):
            features, _ = compose(parts, 24.0, np.random.default_rng(seed))
            for m in MODALITIES:
                found = ids(features.values[m], features.observed[m])
                assert found.min() >= first_id
                assert found.max() < first_id + highest[m]


def test_parts_lie_near_the_labels() -> None:
    labels_of = {
        "visual": PARTS.face_va,
        "audio": PARTS.voice_va,
        "text": PARTS.sentence_va * SENTENCE_SCALE,
    }
    chosen: dict[str, list[np.ndarray]] = {m: [] for m in MODALITIES}
    random: dict[str, list[np.ndarray]] = {m: [] for m in MODALITIES}
    draw = np.random.default_rng(0)
    shown = replace(PARTS, faces=PARTS.face_va)  # faces blend: an id half way would be no id
    for seed in range(10):
        features, labels = compose(shown, 24.0, np.random.default_rng(seed))
        for m in MODALITIES:
            observed, va = features.observed[m], labels_of[m]
            if m == "visual":
                part = features.values[m][observed]
            else:
                part = va[ids(features.values[m], observed) - 1]
            chosen[m].append(np.linalg.norm(part - labels[observed], axis=1))
            any_part = va[draw.integers(0, len(va), observed.sum())]
            random[m].append(np.linalg.norm(any_part - labels[observed], axis=1))
    for m in MODALITIES:
        near, far = np.concatenate(chosen[m]).mean(), np.concatenate(random[m]).mean()
        assert near < 0.65 * far, m


def test_a_sequence_has_one_speaker_and_sequences_have_several() -> None:
    speakers = set()
    for seed in range(40):
        features, _ = compose(PARTS, 24.0, np.random.default_rng(seed))
        heard = PARTS.speakers[ids(features.values["audio"], features.observed["audio"]) - 1]
        assert len(set(heard.tolist())) == 1
        speakers |= set(heard.tolist())
    assert len(speakers) == 5


def test_pauses_and_faceless_spells_occur() -> None:
    seen, pauses_s, utterances_s = [], [], []
    for seed in range(40):
        features, _ = compose(PARTS, 40.0, np.random.default_rng(seed))
        seen.append(features.observed["visual"])
        for speaking, frames in runs(features.observed["audio"]):
            (utterances_s if speaking else pauses_s).append(frames / RATE_HZ)
    share = 1 - np.concatenate(seen).mean()
    assert share == pytest.approx(FACELESS_SHARE, abs=0.04)
    assert sum(not mask.all() for mask in seen) > 20
    assert len(pauses_s) > 100
    slack_s = 1.01 / RATE_HZ
    assert PAUSE_S[0] - slack_s <= min(pauses_s) < max(pauses_s) <= PAUSE_S[1] + slack_s
    assert UTTERANCE_S[0] - slack_s <= min(utterances_s)
    assert max(utterances_s) <= UTTERANCE_S[1] + slack_s


def test_words_come_in_their_order_and_at_their_pace() -> None:
    for seed in range(10):
        features, _ = compose(PARTS, 30.0, np.random.default_rng(seed))
        text, said = features.values["text"], features.observed["text"]
        longest = {k + 1: len(sentence) for k, sentence in enumerate(PARTS.sentences)}
        edges = np.flatnonzero(np.diff(said, prepend=False, append=False)).reshape(-1, 2)
        for first, stop in edges:  # of what is said without a pause
            frames = [tuple(row) for row in text[first:stop].tolist()]
            words = [(word, len(list(group))) for word, group in groupby(frames)]
            (sentence,) = {int(sentence) for (sentence, _), _ in words}
            positions = [position for (_, position), _ in words]
            assert positions == sorted(set(positions))
            assert positions[-1] < longest[sentence]
            assert max(count for _, count in words) <= np.ceil(WORD_S * RATE_HZ)


def test_clips_run_on_frame_by_frame() -> None:
    features, _ = compose(PARTS, 30.0, np.random.default_rng(1))
    audio, heard = features.values["audio"], features.observed["audio"]
    for (clip, position), (after, following) in pairwise(audio[heard].tolist()):
        assert following == (position + 1 if following else 0)
        assert after == clip or following == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_few_parts_are_enough(seed: int) -> None:
    few = some_parts(faces=2, voices=1, sentences=1, speakers=1)
    features, labels = compose(few, 20.0, np.random.default_rng(seed))
    assert len(labels) == 200
    assert set(ids(features.values["audio"], features.observed["audio"])) == {1}
    assert set(ids(features.values["text"], features.observed["text"])) == {1}
    assert features.observed["visual"].any()
    assert all(np.isfinite(features.values[m]).all() for m in MODALITIES)


def test_empty_clips_and_sentences_are_harmless() -> None:
    parts = some_parts(faces=3, voices=4, sentences=4, speakers=1)
    hollow = Parts(
        parts.faces, parts.face_va,
        [clip[: 5 * (k % 2)] for k, clip in enumerate(parts.voices)], parts.voice_va,
        parts.speakers, [s[: 3 * (k % 2)] for k, s in enumerate(parts.sentences)],
        parts.sentence_va, RATE_HZ,
    )  # fmt: skip
    features, _ = compose(hollow, 30.0, np.random.default_rng(0))
    for m in MODALITIES:
        assert (features.values[m][~features.observed[m]] == 0).all()


@pytest.mark.parametrize("carrier", [*MODALITIES, None])
def test_only_the_carrier_expresses_something(carrier: str | None) -> None:
    parts = some_parts()
    kept = parts.carried_by(carrier)
    for m, name, scale in (
        ("visual", "face_va", 1.0),
        ("audio", "voice_va", 1.0),
        ("text", "sentence_va", SENTENCE_SCALE),
    ):
        every, left = (np.linalg.norm(getattr(p, name) * scale, axis=1) for p in (parts, kept))
        if m == carrier:
            np.testing.assert_array_equal(left, every)
        else:
            np.testing.assert_array_equal(left, every[every <= NEUTRAL_RADIUS])
    assert len(kept.faces) == len(kept.face_va)
    assert len(kept.voices) == len(kept.voice_va) == len(kept.speakers)
    assert len(kept.sentences) == len(kept.sentence_va)
