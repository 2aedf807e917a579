"""Scores a network on labelled clips, and fills the rows of a submission.

The ABAW score is the mean of the CCC of valence and of arousal over all valid frames of all videos
concatenated, at the videos' own frames. The mean over videos of each video's CCC is another figure
and has another name. Conventions of the figures are those of `maven.metrics`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from maven.config import MODALITIES
from maven.features import Features
from maven.files import plain
from maven.inference import SUBSETS, answer, read_at
from maven.intervals import Covered, Intervals, coverage
from maven.metrics import Interval, Scores, ccc_intervals, moment_sums, score, valid_labels
from maven.timeline import Mask, Times

if TYPE_CHECKING:
    from maven.datasets.clips import Clip
    from maven.model import Maven

Floats = npt.NDArray[np.floating]
Progress = Callable[[str, int, int], None]  # stage, done, of how many

PATTERNS = (*sorted(SUBSETS, key=len, reverse=True), ())
NOTHING = "nothing"  # was observed at a frame
STRETCH_S = (2.0, 8.0)  # of a modality taken away
APART_S = 1.0  # at least, between two of them
ROW = re.compile(r"([^/]+)/0*([1-9][0-9]{0,9})\.jpg", re.ASCII)


class EvaluationError(Exception):
    """Clips cannot be scored or rows not be filled; the message is one line."""


@dataclass(frozen=True)
class Answers:
    """What was predicted for one video, at each of its frames.

    Attributes:
        name, split, person: of the clip.
        time_s: (n,).
        labels: (n, 2) valence and arousal; outside [-1, 1] where invalid.
        va: (n, 2) as it was scored: no gaps.
        observed: (n, 3) what was observed at the grid's nearest time, in the order of `MODALITIES`.
        known: whether anything was observed in the whole video; if not, `va` is 0.
    """

    name: str
    split: str
    person: str
    time_s: Times
    labels: Floats
    va: Times
    observed: Mask
    known: bool

    @property
    def valid(self) -> Mask:
        """Which frames (n,) count."""
        return valid_labels(*self.labels.T)

    @property
    def filled(self) -> int:
        """How many valid frames are 0, 0 because nothing was observed in the whole video."""
        return 0 if self.known else int(self.valid.sum())


@dataclass(frozen=True)
class VideoScores:
    """One video: `constant` where a CCC is 0 by convention, `filled` valid frames set to 0, 0."""

    name: str
    split: str
    person: str
    frames: int
    scores: Scores
    constant: bool
    filled: int


@dataclass(frozen=True)
class VideoMean:
    """Mean over videos of each video's own CCC; not the ABAW score.

    `constant` of the `videos` count as 0 in valence or arousal, for labels or answers are constant.
    """

    videos: int
    constant: int
    ccc_valence: float
    ccc_arousal: float
    ccc_mean: float


@dataclass(frozen=True)
class Condition:
    """All frames, answered from less: `change` is a key of `CHANGES`, made to `modality`."""

    change: str
    modality: str
    scores: Scores
    filled: int


@dataclass(frozen=True)
class Evaluation:
    """How well a network does.

    Attributes:
        splits: that the clips come from.
        smoothing_s, seed, bootstraps: as given.
        abaw: over all valid frames concatenated.
        filled: valid frames whose video has nothing observed: answered with 0, 0.
        intervals: of 95 %, over videos drawn with replacement, of `abaw`'s three CCCs; None with
            fewer than two videos.
        video_mean: the mean over videos.
        videos: one by one.
        patterns: the frames at which exactly these modalities were observed, such as
            `visual+audio`, or `nothing`.
        conditions: with modalities taken away.
        notes: what a reader should know, one sentence each.
        answers: frame by frame.
        nominal, covered: share that the model's intervals shall cover, and `coverage` of them.
    """

    splits: tuple[str, ...]
    smoothing_s: float
    seed: int
    bootstraps: int
    abaw: Scores
    filled: int
    intervals: dict[str, Interval] | None
    video_mean: VideoMean
    videos: tuple[VideoScores, ...]
    patterns: dict[str, Scores]
    conditions: tuple[Condition, ...]
    notes: tuple[str, ...]
    answers: tuple[Answers, ...]
    nominal: float | None = None
    covered: dict[str, Covered] | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but `answers`, as strict JSON takes it: what is not finite is None."""
        values: dict[str, Any] = plain(asdict(replace(self, answers=())))
        return {name: value for name, value in values.items() if name != "answers"}


def evaluate(
    network: Maven,
    clips: Sequence[Clip],
    smoothing_s: float,
    *,
    seed: int = 0,
    bootstraps: int = 1000,
    model_intervals: Intervals | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a network on the clips that have labels.

    Args:
        network: in eval mode.
        clips: of any length; the answer for one does not depend on the others.
        smoothing_s: half-width of the box filter that was chosen with the network.
        seed: of the stretches without a modality and of the bootstrap.
        bootstraps: resamples of the videos.
        model_intervals: to be measured at frames at which anything was observed.
        progress: told the stage, the videos done, and how many there are.

    Raises:
        EvaluationError: no clip has a valid label, or the network answers no number.
    """
    labelled = [clip for clip in clips if valid_labels(*clip.frame_labels.T).any()]
    if not labelled:
        came = ", ".join(sorted({clip.split for clip in clips})) or "(no videos at all)"
        raise EvaluationError(f"no labelled frame in split {came}: nothing to score against")
    report = progress or (lambda stage, done, total: None)
    answers = tuple(
        _answers(network, clip, clip.features, smoothing_s)
        for clip in _told(labelled, "everything", report)
    )
    videos = tuple(_video(video) for video in answers)
    conditions = []
    for change, apply in CHANGES.items():
        for modality in MODALITIES:
            changed = [
                _answers(network, clip, apply(clip, modality, seed), smoothing_s)
                for clip in _told(labelled, f"{change} {modality}", report)
            ]
            filled = sum(video.filled for video in changed)
            conditions.append(Condition(change, modality, score(*_joined(changed)), filled))
    intervals, filled = _intervals(answers, seed, bootstraps), sum(v.filled for v in videos)
    video_mean = _video_mean(videos)
    return Evaluation(
        splits=tuple(sorted({clip.split for clip in labelled})),
        smoothing_s=smoothing_s,
        seed=seed,
        bootstraps=bootstraps,
        abaw=score(*_joined(answers)),
        filled=filled,
        intervals=intervals,
        video_mean=video_mean,
        videos=videos,
        patterns=_patterns(answers),
        conditions=tuple(conditions),
        notes=_notes(len(clips) - len(labelled), filled, video_mean, intervals),
        answers=answers,
        nominal=None if model_intervals is None else model_intervals.nominal,
        covered=None if model_intervals is None else coverage(model_intervals, *_seen(answers)),
    )


def without_a_third(features: Features, modality: str, seed: int) -> Features:
    """The same, as if a modality had not been observed in a random third of the time.

    It goes in stretches of 2 to 8 s, at least 1 s apart, anywhere with the same chance: the clip's
    ends cut some of them. In clips shorter than 6 s it goes in one stretch of a third. One seed
    takes the same times of every modality.
    """
    time_s, rng = features.time_s, np.random.default_rng(seed)
    if len(time_s) < 2:
        return features
    total_s = float(time_s[-1] - time_s[0]) * len(time_s) / (len(time_s) - 1)
    count = max(round(total_s / 3 / np.mean(STRETCH_S)), 1)
    mean_s = total_s / 3 / count
    room_s = max(min(mean_s - STRETCH_S[0], STRETCH_S[1] - mean_s), 0.0)
    turns = rng.uniform(-1, 1, count // 2)  # in pairs that cancel: the sum is the third, exactly
    turns = rng.permutation(np.concatenate((turns, -turns, np.zeros(count % 2))))
    lengths_s = mean_s + room_s * turns
    apart_s = min(APART_S, mean_s)
    gaps_s = apart_s + (total_s * 2 / 3 - count * apart_s) * rng.dirichlet(np.ones(count))
    ends_s = np.cumsum(gaps_s + lengths_s)  # on a circle, of which the clip begins anywhere
    place_s = np.mod(time_s - time_s[0] + rng.uniform(0, total_s), total_s)
    at = np.searchsorted(ends_s, place_s, side="right").clip(max=count - 1)
    gone = place_s >= (ends_s - lengths_s)[at]
    values = np.where(gone[:, None], np.float32(0), features.values[modality])
    return features.replaced(modality, values, features.observed[modality] & ~gone)


def _only(clip: Clip, modality: str, seed: int) -> Features:
    others = [m for m in MODALITIES if m != modality]
    kept: Features = reduce(Features.without, others, clip.features)
    return kept


def _third_of(clip: Clip, modality: str, seed: int) -> Features:
    own = zlib.crc32(f"{seed} {clip.name}".encode())  # of the clip's own, whoever else is scored
    return without_a_third(clip.features, modality, own)


CHANGES: dict[str, Callable[[Clip, str, int], Features]] = {
    "without": lambda clip, modality, seed: clip.features.without(modality),
    "without a third of": _third_of,
    "only": _only,
}


def submission(
    network: Maven, clips: Sequence[Clip], rows: Sequence[str], smoothing_s: float
) -> Times:
    """Answer the rows of a submission sample, such as `video/00001.jpg`, in their order.

    Frame n is the n-th of the video's times, counted from 1; one beyond the last takes the last.

    Returns:
        (n, 2) valence and arousal for all rows; 0, 0 where nothing was observed in a whole video.

    Raises:
        EvaluationError: a row has another form or names no video at hand, or the network answers
            no number.
    """
    matches = [ROW.fullmatch(row) for row in rows]
    _refuse([row for row, match in zip(rows, matches, strict=True) if match is None],
            "of another form than video/00001.jpg")  # fmt: skip
    named = [(match[1], int(match[2])) for match in matches if match is not None]
    at_hand = {clip.name: clip for clip in clips if len(clip.frame_s)}
    _refuse([row for row, (name, _) in zip(rows, named, strict=True) if name not in at_hand],
            f"of a video that is not among the {len(at_hand)} at hand")  # fmt: skip
    va, answered = np.zeros((len(rows), 2)), dict[str, Times]()
    for k, (name, number) in enumerate(named):
        if name not in answered:
            clip = at_hand[name]
            answered[name], _ = _at_frames(network, clip, clip.features, smoothing_s)
        va[k] = answered[name][min(number, len(answered[name])) - 1]
    return va


def _refuse(rows: list[str], why: str) -> None:
    if rows:
        more = f"; {len(rows)} such rows in all" if len(rows) > 1 else ""
        raise EvaluationError(f"the sample has a row {why}: {rows[0][:80]!r}{more}")


def _told(clips: Sequence[Clip], stage: str, report: Progress) -> Iterator[Clip]:
    for done, clip in enumerate(clips):
        report(stage, done, len(clips))
        yield clip
    report(stage, len(clips), len(clips))


def _at_frames(
    network: Maven, clip: Clip, features: Features, smoothing_s: float
) -> tuple[Times, bool]:
    """Answer at each frame (n, 2) without gaps, and say whether anything was observed at all."""
    assert not network.training  # dropout would make the answer random
    va = answer(network, features, smoothing_s)
    anything = np.logical_or.reduce([features.observed[m] for m in MODALITIES])
    if not np.isfinite(va[anything]).all():  # never filled as if nothing had been observed
        raise EvaluationError(
            f"the network answers no number for video {clip.name}: broken weights?"
        )
    if not anything.any():
        return np.zeros((len(clip.frame_s), 2)), False
    return read_at(features.time_s, va, clip.frame_s), True


def _answers(network: Maven, clip: Clip, features: Features, smoothing_s: float) -> Answers:
    assert len(clip.frame_labels) == len(clip.frame_s)  # line n is frame n
    va, known = _at_frames(network, clip, features, smoothing_s)
    grid_s = features.time_s
    nearest = np.searchsorted((grid_s[1:] + grid_s[:-1]) / 2, clip.frame_s)
    observed = np.stack([features.observed[m][nearest] for m in MODALITIES], 1)
    return Answers(
        clip.name, clip.split, clip.person, clip.frame_s, clip.frame_labels, va, observed, known
    )


def _joined(answers: Sequence[Answers]) -> tuple[Floats, Times]:
    labels = np.concatenate([video.labels for video in answers])
    return labels, np.concatenate([video.va for video in answers])


def _seen(answers: Sequence[Answers]) -> tuple[Times, Floats, Mask]:
    labels, va = _joined(answers)
    return va, labels, np.concatenate([video.observed for video in answers])


def _intervals(answers: Sequence[Answers], seed: int, count: int) -> dict[str, Interval] | None:
    if len(answers) < 2 or count < 1:
        return None
    sums = [
        [moment_sums(video.va[video.valid, k], video.labels[video.valid, k]) for k in range(2)]
        for video in answers
    ]
    return ccc_intervals(np.array(sums), seed, count)


def _video(video: Answers) -> VideoScores:
    constant = any(np.ptp(x) == 0 for x in (*video.labels[video.valid].T, *video.va[video.valid].T))
    scores = score(video.labels, video.va)
    return VideoScores(
        video.name, video.split, video.person, len(video.time_s), scores, constant, video.filled
    )


def _video_mean(videos: Sequence[VideoScores]) -> VideoMean:
    valence, arousal, mean = (
        float(np.mean([getattr(video.scores, name) for video in videos]))
        for name in ("ccc_valence", "ccc_arousal", "ccc_mean")
    )
    return VideoMean(len(videos), sum(v.constant for v in videos), valence, arousal, mean)


def _patterns(answers: Sequence[Answers]) -> dict[str, Scores]:
    va, labels, observed = _seen(answers)
    found = {}
    for pattern in PATTERNS:
        at = (observed == [m in pattern for m in MODALITIES]).all(1)
        found["+".join(pattern) or NOTHING] = score(labels[at], va[at])
    return {name: scores for name, scores in found.items() if scores.frames}


def _notes(
    unlabelled: int, filled: int, mean: VideoMean, intervals: dict[str, Interval] | None
) -> tuple[str, ...]:
    cases = (
        (unlabelled, f"Videos without a valid label, left out: {unlabelled}."),
        (filled, f"Frames of videos with nothing observed, answered 0, 0: {filled}."),
        (
            mean.constant,
            f"Videos of constant labels or answers, own CCC 0 by convention: {mean.constant}.",
        ),
        (intervals is None, "No intervals: they need at least two videos and one resample."),
    )
    return tuple(text for applies, text in cases if applies)
