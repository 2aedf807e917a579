"""The order of the sources of words, and the line that says that there is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from maven import transcribe
from maven.container import MediaError
from maven.recognise import RecogniserError
from maven.speech import SpeechSpan
from maven.transcribe import Transcriber
from maven.transcript import TranscriptError, Word
from media_factory import tone, write_clip

FRAMES_S = [k / 25 for k in range(50)]
SPANS = (SpeechSpan(0.5, 1.5),)
CUES = [(0.5, 1.0, "inside")]


class Parrot:
    """A recogniser that always says the same."""

    name = "parrot"

    def __init__(self, size: str, offline: bool = False, device: str = "cpu") -> None:
        self.settings = (size, offline, device)

    def transcribe(
        self, samples: npt.NDArray[np.float32], start_s: float, language: str | None
    ) -> tuple[Sequence[Word], str | None]:
        return (Word("heard", start_s, start_s + 0.5, 0),), "en"


def clip(path: Path, cues: Sequence[tuple[float, float, str]] = (), start_s: float = 0.0) -> Path:
    return write_clip(
        path,
        frame_times_s=[start_s + time_s for time_s in FRAMES_S],
        sound=tone(300, 2.0),
        sound_start_s=start_s,
        cues=cues,
        cue_codec="subrip",
    )


def said(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def test_a_given_file_goes_first_then_one_beside_then_a_stream_then_a_recogniser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcribe, "WhisperRecogniser", Parrot)
    video = clip(tmp_path / "a.mkv", CUES)
    given = tmp_path / "other.txt"
    given.write_text("[0.5s - 1s] given")
    beside = tmp_path / "a.de.vtt"
    beside.write_text("WEBVTT\n\n00:00.500 --> 00:01.000\nbeside")
    finder = Transcriber()
    found = []
    for _ in range(2):
        for file in (given, None):
            found.append(finder.find(video, given=file, spans=SPANS))
        beside.unlink(missing_ok=True)
    found.append(finder.find(clip(tmp_path / "bare.mkv"), spans=SPANS))
    assert [(said(words.words), words.source, words.language) for words, _ in found] == [
        ("given", "file: other.txt", None),
        ("beside", "beside: a.de.vtt", "de"),
        ("given", "file: other.txt", None),
        ("inside", "stream 2 (subrip)", "eng"),
        ("heard", "parrot", "en"),
    ]
    assert [line for _, line in found] == [None] * 5
    assert [transcript.words[0].start_s for transcript, _ in found] == [0.5] * 5


def test_a_file_counts_from_where_the_media_begins(tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mkv", [(7.5, 8.0, "inside")], start_s=7.0)
    assert Transcriber().find(video)[0].words == (Word("inside", 7.5, 8.0, 0),)
    (tmp_path / "a.txt").write_text("[0.5s - 1s] beside")
    (word,) = Transcriber().find(video)[0].words
    assert (word.start_s, word.end_s) == pytest.approx((7.5, 8.0), abs=0.03)


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecogniserError("whisper:base is not here")

    monkeypatch.setattr(transcribe, "WhisperRecogniser", fail)
    video = clip(tmp_path / "a.mkv")
    for finder, spans, line in (
        (Transcriber("auto"), SPANS, "no words: whisper:base is not here"),
        (Transcriber("none"), SPANS, "no words: no transcript, and speech recognition is off"),
        (Transcriber("whisper"), (), "no words: nobody speaks and there is no transcript"),
    ):
        transcript, missing = finder.find(video, spans=spans)
        assert (transcript.words, transcript.source) == ((), "none")
        assert missing == line
        assert finder.find(video, spans=spans)[1] == line
    # Files and streams are read all the same.
    inside = clip(tmp_path / "b.mkv", CUES)
    assert said(Transcriber("none").find(inside, spans=SPANS)[0].words) == "inside"
    with pytest.raises(RecogniserError, match="whisper:base is not here"):
        Transcriber("whisper").find(video, spans=SPANS)


def test_a_recogniser_that_was_asked_for_is_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Parrot] = []

    def build(size: str, *, offline: bool, device: str) -> Parrot:
        built.append(Parrot(size, offline, device))
        return built[-1]

    monkeypatch.setattr(transcribe, "WhisperRecogniser", build)
    finder = Transcriber("whisper:small.en", offline=True, device="cuda")
    video = clip(tmp_path / "a.mkv")
    steps: list[tuple[float, float]] = []
    for _ in range(2):
        finder.find(video, spans=SPANS, progress=lambda *step: steps.append(step))
    assert [parrot.settings for parrot in built] == [("small.en", True, "cuda")]
    assert steps == [(1.0, 1.0)] * 2


def test_a_recogniser_that_breaks_down_is_missing_in_auto_and_an_error_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Parrot):
        def transcribe(self, *_: object) -> tuple[Sequence[Word], str | None]:
            raise RecogniserError("out of memory")

    monkeypatch.setattr(transcribe, "WhisperRecogniser", Broken)
    video = clip(tmp_path / "a.mkv")
    assert Transcriber().find(video, spans=SPANS)[1] == "no words: out of memory"
    with pytest.raises(RecogniserError, match="out of memory"):
        Transcriber("whisper").find(video, spans=SPANS)


@pytest.mark.parametrize(
    "asr", ["", "wisper", "Auto", "none:x", "pocketsphinx:en", "auto:", "whisper:"]
)
def test_unknown_recognisers_are_refused_at_once(asr: str) -> None:
    with pytest.raises(RecogniserError, match=r"got '.*'; accepted: 'auto', 'none', 'whisper'"):
        Transcriber(asr)


def test_broken_files_are_errors(tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mkv", CUES)
    with pytest.raises(TranscriptError, match="cannot be read"):
        Transcriber().find(video, given=tmp_path / "missing.srt")
    (tmp_path / "a.srt").write_text("no subtitles")
    with pytest.raises(TranscriptError, match=r"a\.srt, line 1: got 'no subtitles'"):
        Transcriber().find(video)
    with pytest.raises(MediaError):
        Transcriber().find(tmp_path / "missing.mp4")


def test_pocketsphinx_only_when_asked_for(clips_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    video = tmp_path / "talk.mp4"
    video.write_bytes((clips_dir / "talk_ntsc_2997.mp4").read_bytes())
    transcript, line = Transcriber("pocketsphinx").find(video, spans=[SpeechSpan(0.1, 4.5)])
    assert line is None
    assert transcript.source == "pocketsphinx"
    assert len(transcript.words) > 5


def test_importing_is_cheap() -> None:
    code = (
        "import sys, maven.transcribe; heavy = {'av', 'ctranslate2', 'faster_whisper', 'torch', "
        "'huggingface_hub', 'onnxruntime', 'pocketsphinx'}; assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
