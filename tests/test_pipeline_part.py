"""The analysis of a part of a file, with random weights: rows, words, stages, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answers import check_answer
from demo_pieces import copy_piece
from maven.checkpoint import Model
from maven.media import MediaError
from maven.pipeline import Analysis, Settings, analyze
from maven.render.overlay import OverlayError
from media_factory import tone, write_clip

WORDS = "1\n00:00:00,200 --> 00:00:01,000\nSuch joy\n\n2\n00:00:02,200 --> 00:00:02,600\nhere.\n"


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = copy_piece(tmp_path_factory.mktemp("part") / "piece.mp4", 3.0)
    path.with_suffix(".srt").write_text(WORDS)
    return path


@pytest.fixture(scope="module")
def whole(piece: Path, model: Model) -> Analysis:
    return analyze(piece, model, asr="none")


def test_rows_are_those_of_the_part(piece: Path, model: Model, whole: Analysis) -> None:
    stages: list[tuple[str, float, float | None]] = []
    analysis = analyze(
        piece, model, asr="none", start_s=0.8, end_s=2.4,
        progress=lambda *stage: stages.append(stage),
    )  # fmt: skip
    check_answer(analysis)
    rows, all_rows = analysis.frames, whole.frames
    inside = all_rows[(all_rows["time_s"] >= 0.8) & (all_rows["time_s"] < 2.4)]
    np.testing.assert_array_equal(rows["time_s"], inside["time_s"])
    np.testing.assert_array_equal(rows["frame"], np.arange(len(rows)))
    assert rows["has_face"].all()
    assert [word.text for word in analysis.transcript.words] == ["joy", "here."]
    assert (analysis.transcript.words[0].start_s, analysis.transcript.words[-1].end_s) == (0.8, 2.4)
    assert all(0.8 - 1e-9 <= span.start_s < span.end_s <= 2.4 for span in analysis.speech)
    settings = analysis.provenance["settings"]
    assert settings == whole.provenance["settings"] | {"start_s": 0.8, "end_s": 2.4}
    assert "start_s" not in whole.provenance["settings"]
    for name in ("faces", "voice"):
        done = [(at, total) for stage, at, total in stages if stage == name]
        assert all(total == pytest.approx(1.6) and 0 <= at <= total for at, total in done)


def test_a_part_that_is_everything_gives_the_same_answers(
    piece: Path, model: Model, whole: Analysis
) -> None:
    table = analyze(piece, model, asr="none", start_s=-5, end_s=99).frames
    for name, column in whole.frames.items():
        if column.dtype == "float64":
            np.testing.assert_array_equal(table[name], column)


def test_parts_have_edges_of_their_own(piece: Path, model: Model) -> None:
    late = analyze(piece, model, asr="none", start_s=2.0, rate_hz=5)
    assert late.provenance["settings"]["start_s"] == 2.0
    assert "end_s" not in late.provenance["settings"]
    assert late.frames["time_s"].to_numpy() == pytest.approx(2 + np.arange(6) / 5, abs=0.021)
    early = analyze(piece, model, asr="none", end_s=0.1)
    assert early.frames["time_s"].to_numpy() == pytest.approx([0.0, 0.04, 0.08])


def test_where_the_picture_has_ended_the_sound_goes_on(tmp_path: Path, model: Model) -> None:
    times_s = [k / 25 for k in range(25)]
    path = write_clip(tmp_path / "long.mp4", frame_times_s=times_s, sound=tone(300, 3.0))
    analysis = analyze(path, model, asr="none", start_s=1.5, end_s=2.5)
    assert analysis.frames["face_id"].isna().all()
    assert analysis.frames["time_s"].between(1.5, 2.5).all()
    silent = write_clip(tmp_path / "late.mp4", frame_times_s=[k / 25 for k in range(75)],
                        sound=tone(300, 1.0))  # fmt: skip
    analysis = analyze(silent, model, asr="none", start_s=2.0)
    assert len(analysis.frames) == 25
    assert not analysis.frames["has_speech"].any()


@pytest.mark.parametrize("edges", [{"start_s": 50.0}, {"start_s": 4, "end_s": 9.5}, {"end_s": -1}])
def test_a_part_beyond_the_file_is_one_line(
    piece: Path, model: Model, edges: dict[str, Any]
) -> None:
    with pytest.raises(
        MediaError, match=r"piece\.mp4: neither.*; it lasts from \S+ s to 3"
    ) as info:
        analyze(piece, model, asr="none", **edges)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(("start_s", "end_s"), [(2, 2), (3, 1), (float("nan"), None)])
def test_settings_refuse_what_is_no_part(start_s: float, end_s: float) -> None:
    with pytest.raises(ValueError, match="accepted:"):
        Settings(start_s=start_s, end_s=end_s)


@pytest.mark.parametrize("edges", [{"start_s": 2.6}, {"end_s": 0.2}])
def test_who_is_seen_outside_the_part_is_shown_nowhere(
    piece: Path, model: Model, tmp_path: Path, edges: dict[str, Any]
) -> None:
    """The overlay shows the whole file, and there nobody's face was looked for."""
    analysis = analyze(piece, model, asr="none", **edges)
    with pytest.raises(OverlayError, match=r"a part of the video.*; accepted: an ") as info:
        analysis.overlay(tmp_path / "overlay.mp4", blur=True)
    assert "\n" not in str(info.value)
    assert list(tmp_path.iterdir()) == []
    page = analysis.report(tmp_path / "report.html").read_text()
    assert "no video to play: it would show more than the part analysed" in page
    assert '"media":{"src":null,"poster":null,' in page
