"""`maven predict --report --overlay --blur`: the files, and what happens where they cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import maven
from commands import Run, here, runner
from demo_pieces import DEMO, copy_piece
from maven import media
from maven.faces.detect import CenterFace
from maven.render.overlay import OverlayError


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy: Path
) -> Run:
    typed = runner(tmp_path, monkeypatch, capsys)
    return lambda *arguments: typed("predict", *arguments, "--model", toy, "--asr", "none")


def test_a_report_and_an_overlay_are_written_beside_the_table(run: Run, tmp_path: Path) -> None:
    clip = copy_piece(tmp_path / "clip.mp4")
    done = run(clip, "-o", "out", "--report", "--overlay")
    assert done.code == 0
    assert here() == ["out", "out/clip.csv", "out/clip.html", "out/clip.overlay.mp4"]
    for name in ("clip.csv", "clip.html", "clip.overlay.mp4"):
        assert f"Wrote out/{name}" in done.out
    source = [frame.time_s for frame in media.frames(clip)]
    drawn = [frame.time_s for frame in media.frames("out/clip.overlay.mp4")]
    np.testing.assert_allclose(drawn, source, atol=1e-3)
    assert "</html>" in Path("out/clip.html").read_text(encoding="utf-8")


def test_sound_alone_has_a_report_and_no_overlay(run: Run, tmp_path: Path) -> None:
    sound = copy_piece(tmp_path / "sound.mp4", kinds=("audio",))
    done = run(sound, "-o", "out", "--report", "--overlay")
    assert done.code == 0
    assert here() == ["out", "out/sound.csv", "out/sound.html"]


def test_a_blur_without_an_overlay_is_refused(run: Run) -> None:
    done = run(DEMO, "--blur")
    assert done.code == 2
    assert "--blur" in done.message
    assert here() == []


def test_what_was_computed_stays_where_the_overlay_cannot_be_written(
    run: Run, tmp_path: Path
) -> None:
    clip = copy_piece(tmp_path / "clip.mp4")
    (tmp_path / "here" / "out" / "clip.overlay.mp4" / "in the way").mkdir(parents=True)
    done = run(clip, "-o", "out", "--overlay")
    assert done.code == 1
    assert "clip.overlay.mp4" in done.message
    assert "Wrote out/clip.csv" in done.out
    assert Path("out/clip.csv").stat().st_size


def test_everyone_s_face_is_blurred_also_of_those_without_rows(
    run: Run, tmp_path: Path, clips_dir: Path
) -> None:
    clip = copy_piece(tmp_path / "two.mp4", 1.5, source=clips_dir / "interview_two_faces_720p.mp4")
    assert run(clip, "-o", "out", "--overlay", "--blur").code == 0
    shutil.copy("out/two.overlay.mp4", "blurred.mp4")
    detector = CenterFace()
    whole = next(media.frames(clip)).rgb
    assert len(detector(whole)) == 2
    for frame in list(media.frames("blurred.mp4"))[::12]:
        assert detector(frame.rgb[: whole.shape[0]]) == []


def test_faces_that_were_looked_for_too_seldom_are_not_blurred(run: Run) -> None:
    done = run(DEMO, "--overlay", "--blur", "--rate", "2")
    assert done.code == 2
    assert "--rate of 10 or more, got 2" in done.message
    analysis = maven.analyze(DEMO, offline=True, asr="none", rate_hz=2)
    with pytest.raises(OverlayError, match="looked for 2 times a second"):
        analysis.overlay("out.mp4", blur=True)
    assert here() == []
