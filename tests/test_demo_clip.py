"""The clip shipped with the package: what it claims to hold is in it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maven
from maven.faces.detect import CenterFace, Detection
from maven.media import AUDIO_RATE_HZ, frames, probe, read_audio
from maven.transcript import read_subtitle_stream

ASSETS = Path(maven.__file__).parent / "assets"
CLIP = ASSETS / "demo.mp4"


@pytest.fixture(scope="module")
def course() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ASSETS / "demo.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def faces() -> list[tuple[float, list[Detection]]]:
    """Every fifth frame's time and faces."""
    detect = CenterFace(side_px=320)
    return [(f.time_s, detect(f.rgb)) for f in frames(CLIP) if f.index % 5 == 0]


def settled(course: dict[str, Any], emotion: str) -> tuple[float, float]:
    """Return when a part has reached its expression and when it ends."""
    (part,) = [part for part in course["intended"] if part["emotion"] == emotion]
    return part["start_s"] + course["change_s"], part["end_s"]


def test_the_clip_is_small_and_has_picture_voice_and_subtitles(course: dict[str, Any]) -> None:
    info = probe(CLIP)
    assert info.size_bytes < 1_000_000
    assert info.video is not None
    assert info.audio is not None
    assert (info.video.width_px, info.video.height_px) == (course["side_px"], course["side_px"])
    assert (info.video.codec, info.video.pixel_format) == ("h264", "yuv420p")
    assert info.video.rate_hz == course["fps"]
    assert info.video.duration_s == pytest.approx(course["duration_s"], abs=0.05)
    assert (info.audio.codec, info.audio.channels) == ("aac", 1)
    assert [s.codec for s in info.subtitles] == ["mov_text"]
    assert info.start_s == 0


def test_the_intended_course_covers_the_clip_and_three_quadrants(course: dict[str, Any]) -> None:
    parts = course["intended"]
    assert parts[0]["start_s"] == 0
    assert parts[-1]["end_s"] == course["duration_s"]
    for before, after in itertools.pairwise(parts):
        assert before["end_s"] == after["start_s"]
    for part in parts:
        assert part["start_s"] < part["voice_start_s"] < part["voice_end_s"] < part["end_s"]
        assert abs(part["valence"]) <= 1
        assert abs(part["arousal"]) <= 1
    signs = {(np.sign(p["valence"]), np.sign(p["arousal"])) for p in parts}
    assert signs == {(0, 0), (1, 1), (-1, 1), (-1, -1)}


def test_the_subtitles_say_what_is_spoken_when_it_is(course: dict[str, Any]) -> None:
    transcript = read_subtitle_stream(CLIP)
    assert transcript is not None
    for i, part in enumerate(course["intended"]):
        words = [word for word in transcript.words if word.segment == i]
        assert " ".join(word.text for word in words) == part["text"]
        assert words[0].start_s == pytest.approx(part["voice_start_s"], abs=0.01)
        assert words[-1].end_s == pytest.approx(part["voice_end_s"], abs=0.01)


def test_the_voice_is_heard_in_its_cues_and_nowhere_else(course: dict[str, Any]) -> None:
    audio = read_audio(CLIP)
    assert audio is not None
    time_s = audio.start_s + np.arange(len(audio.samples)) / AUDIO_RATE_HZ
    spoken = np.zeros(len(time_s), bool)
    level = {}
    for part in course["intended"]:
        inside = (time_s >= part["voice_start_s"]) & (time_s < part["voice_end_s"])
        spoken |= (time_s >= part["voice_start_s"] - 0.1) & (time_s < part["voice_end_s"] + 0.1)
        level[part["emotion"]] = np.sqrt(np.mean(audio.samples[inside] ** 2))
    assert level["angry"] > level["happy"] > level["neutral"] > level["sad"] > 0.02
    assert np.abs(audio.samples[~spoken]).max() < 0.01


def test_exactly_one_face_is_found_throughout(faces: list[tuple[float, list[Detection]]]) -> None:
    assert len(faces) > 60
    assert np.mean([len(found) == 1 for _, found in faces]) > 0.95


def test_the_mouth_is_widest_when_happy(
    course: dict[str, Any], faces: list[tuple[float, list[Detection]]]
) -> None:
    width = {}
    for emotion in ("neutral", "happy", "angry", "sad"):
        start_s, end_s = settled(course, emotion)
        widths = []
        for time_s, found in faces:
            if start_s <= time_s < end_s and found:
                left_eye, right_eye, _, left_mouth, right_mouth = found[0].landmarks_px
                eyes_px = np.linalg.norm(right_eye - left_eye)
                widths.append(np.linalg.norm(right_mouth - left_mouth) / eyes_px)
        width[emotion] = np.mean(widths)
    assert width["happy"] == max(width.values())
    assert width["sad"] == min(width.values())
