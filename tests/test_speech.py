"""Speech spans against Silero's own wrapper, GRID word times and a brute-force mask."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import GRID_CLIPS
from maven.media import AudioBlock, audio_blocks, read_audio
from maven.speech import (
    CHUNK_SAMPLES,
    MIN_SILENCE_S,
    MIN_SPEECH_S,
    PAD_S,
    SILENCE_THRESHOLD,
    SPEECH_THRESHOLD,
    SileroVad,
    SpeechDetector,
    SpeechSpan,
)
from maven.transcript import read_transcript
from media_factory import remux, tone, write_clip

RATE_HZ = 16_000
TALKING = (
    *("talk_face1_22fps.mp4", "talk_face3_590.mp4", "talk_face5_524.mp4", "talk_ntsc_2997.mp4"),
    *("talk_address_woman_512.mp4", "talk_address_woman2_512.mp4", "talk_long_71s_512.mp4"),
    *("talk_noisy_restaurant_720p.mp4", "talk_portrait_1080x1920.mp4", "six_faces_360p.mp4"),
    *("interview_two_faces_720p.mp4", "three_faces_720p.avi"),
)


def detect(path: Path) -> tuple[SpeechSpan, ...]:
    detector = SpeechDetector()
    for block in audio_blocks(path):
        detector.push(block)
    return detector.finish()


def samples_of(path: Path) -> npt.NDArray[np.float32]:
    block = read_audio(path)
    assert block is not None
    return block.samples


def seconds(spans: Sequence[SpeechSpan]) -> float:
    return sum(span.end_s - span.start_s for span in spans)


def test_probabilities_are_those_of_the_published_wrapper(clips_dir: Path) -> None:
    torch = pytest.importorskip("torch")
    from silero_vad import load_silero_vad

    samples = samples_of(clips_dir / "talk_face1_22fps.mp4")
    chunks = samples[: len(samples) // CHUNK_SAMPLES * CHUNK_SAMPLES].reshape(-1, CHUNK_SAMPLES)
    vad = SileroVad()
    ours = [
        *vad.probabilities(chunks[:7]),
        *vad.probabilities(chunks[7:8]),
        *vad.probabilities(chunks[8:]),
    ]
    for onnx, tolerance in ((True, 1e-6), (False, 1e-3)):  # its wrapper; its torch model
        model = load_silero_vad(onnx=onnx)
        theirs = [model(torch.from_numpy(chunk), RATE_HZ).item() for chunk in chunks]
        np.testing.assert_allclose(ours, theirs, atol=tolerance)
    assert max(ours) > 0.9
    assert min(ours) < 0.1


@pytest.mark.parametrize("name", ["talk_face1_22fps.mp4", "three_faces_720p.avi"])
def test_spans_are_those_of_get_speech_timestamps(clips_dir: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    from silero_vad import get_speech_timestamps, load_silero_vad

    first = next(iter(audio_blocks(clips_dir / name))).start_s
    samples = samples_of(clips_dir / name)
    theirs = get_speech_timestamps(
        torch.from_numpy(samples),
        load_silero_vad(onnx=True),
        threshold=SPEECH_THRESHOLD,
        neg_threshold=SILENCE_THRESHOLD,
        min_speech_duration_ms=round(MIN_SPEECH_S * 1000),
        min_silence_duration_ms=round(MIN_SILENCE_S * 1000),
        speech_pad_ms=round(PAD_S * 1000),
    )
    ours = detect(clips_dir / name)
    assert len(ours) == len(theirs) > 1
    starts_s = [first + span["start"] / RATE_HZ for span in theirs]
    ends_s = [first + span["end"] / RATE_HZ for span in theirs]
    np.testing.assert_allclose([span.start_s for span in ours], starts_s, atol=2 / RATE_HZ)
    np.testing.assert_allclose([span.end_s for span in ours][:-1], ends_s[:-1], atol=2 / RATE_HZ)
    # Silero lets the last one run to the end of the audio; here it ends where silence began.
    assert 0 <= ends_s[-1] - ours[-1].end_s <= MIN_SILENCE_S


@pytest.mark.parametrize("name", TALKING)
def test_talking_clips_have_speech(clips_dir: Path, name: str) -> None:
    blocks = list(audio_blocks(clips_dir / name))
    end_s = blocks[-1].start_s + len(blocks[-1].samples) / RATE_HZ
    spans = detect(clips_dir / name)
    assert seconds(spans) > 0.6 * (end_s - blocks[0].start_s)
    edges = [edge for span in spans for edge in (span.start_s, span.end_s)]
    assert edges == sorted(edges)
    assert blocks[0].start_s <= edges[0]
    assert edges[-1] <= end_s + 1e-9
    assert all(span.end_s - span.start_s >= MIN_SPEECH_S for span in spans)


def test_clips_without_speech_have_none(clips_dir: Path) -> None:
    silent = sorted(clips_dir.glob("silent_*"))
    assert silent
    # no_face and the mov have sound, but its highest probability of speech is 0.36.
    for path in (*silent, clips_dir / "no_face.mp4", clips_dir / "face_then_no_face.mov"):
        assert detect(path) == (), path.name


@pytest.mark.parametrize("clip", GRID_CLIPS)
def test_speech_lies_where_the_words_are(clips_dir: Path, clip: str) -> None:
    words = read_transcript(clips_dir / f"grid_s1_{clip}.align").words
    (span,) = detect(clips_dir / f"grid_s1_{clip}.mpg")
    assert span.start_s == pytest.approx(words[0].start_s, abs=0.25)
    assert span.end_s == pytest.approx(words[-1].end_s, abs=0.25)


def test_spans_are_on_the_clock_of_the_media(clips_dir: Path, tmp_path: Path) -> None:
    clip = clips_dir / "grid_s1_bbaf2n.mpg"
    (span,) = detect(clip)
    (late,) = detect(remux(clip, tmp_path / "late.mkv", audio_delay_s=2.43))
    assert late.start_s == pytest.approx(span.start_s + 2.43, abs=0.002)
    assert late.end_s == pytest.approx(span.end_s + 2.43, abs=0.002)


def test_no_speech_in_tone_noise_or_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE_HZ).astype(np.float32)
    for samples in (noise, np.zeros(100, np.float32), np.zeros(0, np.float32)):
        detector = SpeechDetector()
        detector.push(AudioBlock(0.0, samples))
        assert detector.finish() == ()
    assert SpeechDetector().finish() == ()
    assert detect(write_clip(tmp_path / "tone.m4a", sound=tone(440, 2.0))) == ()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_blocks_do_not_matter(clips_dir: Path, data: st.DataObject) -> None:
    samples = samples_of(clips_dir / "grid_s1_pwbk1s.mpg")
    inside = st.integers(0, len(samples))
    cuts = sorted(data.draw(st.lists(inside, max_size=12)))
    detector = SpeechDetector()
    for first, last in zip([0, *cuts], [*cuts, len(samples)], strict=True):
        detector.push(AudioBlock(5.0 + first / RATE_HZ, samples[first:last]))
        assert len(detector._pending) < CHUNK_SAMPLES  # nothing more is kept of the audio
    whole = SpeechDetector()
    whole.push(AudioBlock(5.0, samples))
    assert detector.finish() == whole.finish() != ()


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, maven.speech; heavy = {'av', 'onnxruntime', 'silero_vad', 'torch'}; "
        "assert not heavy & set(sys.modules), sys.modules.keys(); "
        "maven.speech.SileroVad(); assert not {'torch', 'silero_vad'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
