"""Media -> features on one grid: the seam between frozen encoders and what is learned on top."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maven.config import MODALITIES
from maven.speech import SpeechSpan
from maven.timeline import Placed, Times, place_samples, place_words, within
from maven.transcript import Word

Floats = npt.NDArray[np.float32]

NAMES = dict(zip(MODALITIES, ("face", "voice", "words"), strict=True))  # what a reader calls them
SAMPLE_GAP_S = 0.25  # hops and frames further apart than this are a gap, unless the rate is lower


@dataclass(frozen=True)
class Sampled:
    """Feature vectors (n, d) with their rising times (n,) on the media's clock."""

    times_s: Times
    values: Floats


@dataclass(frozen=True)
class Features:
    """What a network sees of one person: a grid and, on it, three sequences with their masks.

    Attributes:
        time_s: (t,) rising.
        values: (t, d_m) float32 a modality, zero where not observed; of a stored clip they are
            mapped from disk anew each time that one is asked for.
        observed: (t,) bool a modality.
    """

    time_s: Times
    values: Mapping[str, Floats]
    observed: dict[str, npt.NDArray[np.bool_]]

    def without(self, modality: str) -> Features:
        """The same, as if one modality had not been observed."""
        values, observed = self.values[modality], self.observed[modality]
        return self.replaced(modality, np.zeros_like(values), np.zeros_like(observed))

    def replaced(self, modality: str, values: Floats, observed: npt.NDArray[np.bool_]) -> Features:
        """The same with other values (t, d_m) and mask (t,) of one modality."""
        return Features(
            self.time_s,
            ChainMap({modality: values}, self.values),  # type: ignore[arg-type]
            self.observed | {modality: observed},
        )


def assemble(
    grid_s: Times,
    widths: dict[str, int],
    visual: Sampled | None = None,
    audio: Sampled | None = None,
    speech: Sequence[SpeechSpan] = (),
    words: Sequence[Word] = (),
    text: Floats | None = None,
    frame_period_s: float = 0.0,
) -> Features:
    """Place what was observed of one person on a grid (t,).

    Args:
        grid_s: the network's grid.
        widths: feature width of each modality, for those that are absent.
        visual: face features at the times of the frames in which the face was seen.
        audio: voice features at the times of their hops.
        speech: where speech was heard; outside it the voice counts as not observed.
        words: the words, and `text` (len(words), d) their vectors.
        frame_period_s: the usual distance of two frames, seen face or not.
    """
    placed = {m: _absent(len(grid_s), widths[m]) for m in MODALITIES}
    if visual is not None:
        gap_s = max(SAMPLE_GAP_S, 1.5 * frame_period_s)
        placed["visual"] = place_samples(visual.times_s, visual.values, grid_s, gap_s)
    if audio is not None:
        heard = place_samples(audio.times_s, audio.values, grid_s, SAMPLE_GAP_S)
        mask = heard.mask & within(grid_s, [(span.start_s, span.end_s) for span in speech])
        placed["audio"] = Placed(np.where(mask[:, None], heard.features, 0), mask)
    if words and text is not None:
        placed["text"] = place_words(
            [w.start_s for w in words],
            [w.end_s for w in words],
            [w.segment for w in words],
            text,
            grid_s,
        )
    return Features(
        grid_s,
        {m: placed[m].features for m in MODALITIES},
        {m: placed[m].mask for m in MODALITIES},
    )


def _absent(length: int, width: int) -> Placed:
    return Placed(np.zeros((length, width), np.float32), np.zeros(length, bool))
