"""The shipped weights on real clips: every clip gives a whole answer, the right way round."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

import maven
from answers import check_answer
from maven.checkpoint import MINI_FOLDER, Model
from maven.pipeline import Analysis

CLIPS = (
    "expressive_audio_512.mp4", "face_then_no_face.mov", "grid_s1_bbaf2n.mpg",
    "grid_s1_bbwm4n.mpg", "grid_s1_lgwg2n.mpg", "grid_s1_pwbk1s.mpg", "grid_s1_srbu6n.mpg",
    "interview_two_faces_720p.mp4", "no_face.mp4", "silent_fear_256.mp4",
    "silent_furious_talk1_clip1.mp4", "silent_happy_256.mp4", "silent_happyenglish_clip1.mp4",
    "silent_nice_clip1.mp4", "silent_sad_emotion_clip1.mp4", "silent_sadgirl_clip1.mp4",
    "silent_surprisegirl_clip2.mp4", "single_face_short.mp4", "six_faces_360p.mp4",
    "talk_address_woman2_512.mp4", "talk_address_woman_512.mp4", "talk_face1_22fps.mp4",
    "talk_face3_590.mp4", "talk_face5_524.mp4", "talk_long_71s_512.mp4",
    "talk_noisy_restaurant_720p.mp4", "talk_ntsc_2997.mp4", "talk_portrait_1080x1920.mp4",
    "three_faces_720p.avi",
)  # fmt: skip
HAPPY = ("silent_happy_256.mp4", "silent_happyenglish_clip1.mp4")
SAD = ("silent_sadgirl_clip1.mp4", "silent_sad_emotion_clip1.mp4")
FURIOUS, FEARFUL = "silent_furious_talk1_clip1.mp4", "silent_fear_256.mp4"


@cache
def mini() -> Model:
    return maven.load("mini", device="cpu")


@cache
def analysis_of(path: Path) -> Analysis:
    return maven.analyze(path, mini(), asr="none", offline=True)


@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_has_a_whole_answer(clips_dir: Path, name: str) -> None:
    analysis = analysis_of(clips_dir / name)
    check_answer(analysis)
    with av.open(str(clips_dir / name)) as container:
        assert len(analysis.frames) == sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("higher", HAPPY)
@pytest.mark.parametrize("lower", [*SAD, FURIOUS])
def test_happy_faces_are_more_pleasant(clips_dir: Path, higher: str, lower: str) -> None:
    one, other = (analysis_of(clips_dir / name).frames for name in (higher, lower))
    assert one["valence"].mean() > other["valence"].mean() + 0.1


@pytest.mark.parametrize("higher", [FURIOUS, FEARFUL])
@pytest.mark.parametrize("lower", SAD)
def test_furious_and_fearful_faces_are_more_aroused(
    clips_dir: Path, higher: str, lower: str
) -> None:
    one, other = (analysis_of(clips_dir / name).frames for name in (higher, lower))
    assert one["arousal"].mean() > other["arousal"].mean()


def test_the_weights_are_small_and_carry_their_licence() -> None:
    assert sum(p.stat().st_size for p in MINI_FOLDER.rglob("*") if p.is_file()) < 25e6
    assert "CC BY-NC-SA 4.0" in (MINI_FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "not a medical device" in (MINI_FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_demo_goes_where_it_was_meant_to(tmp_path: Path) -> None:
    from maven.demo import run

    result = run(tmp_path, lambda stage, done, total: None)
    assert [path.name for path in result.written] == ["demo.csv", "demo.png", "demo.html"]
    assert all(path.stat().st_size > 1000 for path in result.written)
    table = pd.read_csv(tmp_path / "demo.csv")
    assert table[["has_face", "has_speech", "has_text"]].mean().min() > 0.4
    predicted = {part.emotion: np.array(part.predicted) for part in result.stretches}
    assert np.linalg.norm(predicted["neutral"]) < 0.35
    assert predicted["happy"].min() > 0.2
    assert predicted["angry"][0] < 0 < predicted["angry"][1]
    assert predicted["sad"][0] < -0.2
    assert predicted["sad"][1] < predicted["angry"][1]
