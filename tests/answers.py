"""What holds for every analysis, whatever was in the file."""

from __future__ import annotations

import numpy as np
import pandas as pd

from maven.pipeline import Analysis
from maven.render.tables import COLUMNS

ANSWER = ("valence", "arousal", "theta", "intensity", "emotion")
WEIGHTS = ("visual_weight", "audio_weight", "text_weight")
BOX = ("face_x", "face_y", "face_w", "face_h", "face_score")
HAS = ("has_face", "has_speech", "has_text")


def check_answer(analysis: Analysis) -> None:
    """Check schema, rows, masks and the relations between columns of one analysis."""
    table = analysis.frames
    assert list(table.columns) == list(COLUMNS)
    for name, column in COLUMNS.items():
        assert table[name].dtype == pd.api.types.pandas_dtype(column.dtype), name
    assert (table["file"] == analysis.media.path.name).all()
    _check_rows(analysis)
    _check_masks(analysis)
    _check_values(table[table["valence"].notna()])


def _check_rows(analysis: Analysis) -> None:
    people = [rows for _, rows in analysis.frames.groupby("face_id", dropna=False)]
    for rows in people:
        assert rows["frame"].tolist() == list(range(len(rows)))
        assert (np.diff(rows["time_s"]) > 0).all()
        assert rows["time_s"].tolist() == people[0]["time_s"].tolist()
        if rows["face_id"].isna().all():
            assert analysis.tracks == ()
            assert not rows["has_face"].any()
        else:
            (track,) = (t for t in analysis.tracks if t.track_id == rows["face_id"].iloc[0])
            assert rows["has_face"].sum() == track.frames


def _check_masks(analysis: Analysis) -> None:
    table = analysis.frames
    anything = table[list(HAS)].any(axis=1)
    for name in (*ANSWER, *WEIGHTS):
        assert (table[name].notna() == anything).all(), name
    for name in BOX:
        assert (table[name].notna() == table["has_face"]).all(), name
    for time_s, has_speech, has_text in table[["time_s", *HAS[1:]]].itertuples(index=False):
        spans = [(span.start_s, span.end_s) for span in analysis.speech]
        assert has_speech == _in_one(spans, time_s)
        words = [(word.start_s, word.end_s) for word in analysis.transcript.words]
        if _in_one(words, time_s):
            assert has_text
        elif has_text:  # a pause within a sentence, or a word between two rows
            assert any(abs(time_s - edge_s) <= 1 for word in words for edge_s in word)


def _in_one(spans_s: list[tuple[float, float]], time_s: float) -> bool:
    return any(start_s - 1e-9 <= time_s < end_s - 1e-9 for start_s, end_s in spans_s)


def _check_values(rows: pd.DataFrame) -> None:
    numbers = rows[[*ANSWER[:4], *WEIGHTS]].to_numpy(np.float64)
    assert np.isfinite(numbers).all()
    valence, arousal, theta, intensity, *_ = numbers.T
    assert (intensity < 1).all()
    np.testing.assert_allclose(np.hypot(valence, arousal), intensity, atol=1e-12)
    np.testing.assert_allclose(intensity * np.cos(theta), valence, atol=1e-12)
    np.testing.assert_allclose(intensity * np.sin(theta), arousal, atol=1e-12)
    assert ((theta > -np.pi) & (theta <= np.pi)).all()
    assert ((rows["emotion"] == "Neutral") == (intensity < 0.2)).all()
    weights, observed = numbers[:, 4:], rows[list(HAS)].to_numpy(bool)
    assert (weights[~observed] == 0).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-9)
    seen = rows[rows["has_face"]]
    assert (seen[["face_w", "face_h"]] > 0).all(axis=None)
    assert seen["face_score"].between(0, 1).all()
