"""Validation: a network's answers at the frames of clips, and the CCC over all of them together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from maven.config import MODALITIES
from maven.datasets.clips import Clip, only
from maven.inference import answer, read_at
from maven.metrics import ccc, valid_labels
from maven.model import Maven
from maven.timeline import smooth

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def predict(
    network: Maven,
    clips: Sequence[Clip],
    half_widths_s: Sequence[float] = (0.0,),
    keep: Sequence[str] = MODALITIES,
    fabric: Fabric | None = None,
) -> npt.NDArray[np.float64]:
    """Answer at every frame of all clips, concatenated: (k, n, 2), smoothed by each half-width.

    Frames of a clip of which nothing is known are 0. Processes share the clips; all get the whole.

    Args:
        network: in eval mode.
        clips: any.
        half_widths_s: k of them.
        keep: the modalities that are seen.
        fabric: the processes.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    ends = np.cumsum([0, *(len(clip.frame_s) for clip in clips)])
    out = np.zeros((len(half_widths_s), ends[-1], 2))
    for i in range(rank, len(clips), world):
        (clip,) = only(clips[i : i + 1], keep)
        features = clip.features
        va = answer(network, features)
        for k, half_width_s in enumerate(half_widths_s):
            smoothed = smooth(features.time_s, va, half_width_s)
            out[k, ends[i] : ends[i + 1]] = read_at(features.time_s, smoothed, clip.frame_s)
    out = np.nan_to_num(out)
    if fabric is None or world == 1:
        return out
    shared = fabric.all_reduce(torch.from_numpy(out).to(fabric.device), reduce_op="sum")
    assert isinstance(shared, torch.Tensor)
    return shared.cpu().numpy()


def score(
    network: Maven,
    clips: Sequence[Clip],
    keep: Sequence[str] = MODALITIES,
    fabric: Fabric | None = None,
) -> dict[str, float]:
    """CCC over all labelled frames of all clips, concatenated, from the modalities of `keep`."""
    labelled = [clip for clip in clips if len(clip.frame_labels)]
    return _agreement(predict(network, labelled, keep=keep, fabric=fabric)[0], labelled)


def _agreement(va: npt.NDArray[np.float64], clips: Sequence[Clip]) -> dict[str, float]:
    labels = np.concatenate([clip.frame_labels for clip in clips])
    valid = valid_labels(*labels.T)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "CCC of a constant")
        valence, arousal = (ccc(va[:, k], labels[:, k], valid) for k in range(2))
    return {"ccc_valence": valence, "ccc_arousal": arousal, "ccc_mean": (valence + arousal) / 2}


def choose_smoothing(
    network: Maven,
    clips: Sequence[Clip],
    half_widths_s: Sequence[float],
    fabric: Fabric | None = None,
) -> tuple[float, dict[float, float]]:
    """Find the half-width whose smoothed answers score best; also every half-width's mean CCC."""
    labelled = [clip for clip in clips if len(clip.frame_labels)]
    predicted = predict(network, labelled, half_widths_s, fabric=fabric)
    scores = {
        width_s: _agreement(va, labelled)["ccc_mean"]
        for width_s, va in zip(half_widths_s, predicted, strict=True)
    }
    return max(scores, key=lambda width_s: scores[width_s]), scores
