"""Whose face is whose: expected boxes matched with detections, as ByteTrack does.

Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", arXiv
2110.06864.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maven.faces.detect import Detection, Floats

START_SCORE = 0.6  # a weaker detection starts no track
REACH = 1.0  # the longest step of a face between two detections, in face sizes


def associate(expected_px: Sequence[Floats], found: Sequence[Detection]) -> list[tuple[int, int]]:
    """Match expected boxes (4,) with detections: strong ones first, then the nearest first.

    The distance of two boxes is that of their centres, in face sizes, plus the log of the ratio of
    their sizes; `REACH` bounds it.

    Returns:
        (index of the box, index of the detection) of each match; each index occurs once at most.
    """
    if not len(expected_px) or not len(found):
        return []
    ours = np.stack(expected_px)[:, None].astype(np.float64)  # (m, 1, 4)
    theirs = np.stack([face.box_px for face in found])[None]  # (1, n, 4)
    steps_px = ours[..., :2] + ours[..., 2:] / 2 - theirs[..., :2] - theirs[..., 2:] / 2
    sizes_px = np.sqrt(ours[..., 2] * ours[..., 3]), np.sqrt(theirs[..., 2] * theirs[..., 3])
    distances = np.hypot(steps_px[..., 0], steps_px[..., 1]) / np.sqrt(sizes_px[0] * sizes_px[1])
    distances += np.abs(np.log(sizes_px[0] / sizes_px[1]))
    pairs = sorted(
        (found[j].score < START_SCORE, distances[i, j], int(i), int(j))
        for i, j in np.argwhere(distances < REACH)
    )
    matches: list[tuple[int, int]] = []
    for _, _, i, j in pairs:
        if all(i != other_i and j != other_j for other_i, other_j in matches):
            matches.append((i, j))
    return matches
