"""Transcripts: every accepted form, what is missing in them, and what is no transcript."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import GRID_CLIPS
from maven.captions import Token
from maven.container import MediaError
from maven.transcript import (
    MIN_WORD_S,
    SPOKEN_S_PER_CHARACTER,
    SUFFIXES,
    Segment,
    Transcript,
    TranscriptError,
    Word,
    beside,
    read_subtitle_stream,
    read_transcript,
    sentences,
    timed_words,
)
from media_factory import write_clip

SRT = "1\n00:00:01,000 --> 00:00:02,500\nI am\nso glad\n\n2\n00:01:03,000 --> 00:01:04,000\nNo\n"
VTT = "WEBVTT\n\n00:01.000 --> 00:02.500\nI am so glad\n\n01:03.000 --> 01:04.000\n<v Bob>No\n"
MAVEN = "[1.00s - 2.50s] I am so glad\n[63.00s - 64.00s] No\n"
WHISPER: dict[str, Any] = {
    "text": " I am so glad No",
    "language": "en",
    "segments": [
        {"id": 0, "start": 1.0, "end": 2.5, "text": " I am so glad"},
        {"id": 1, "start": 63, "end": 64, "text": " No"},
    ],
}
# "I am so glad" has 9 characters on 1.5 s.
EXPECTED = (
    Word("I", 1.0, 1.0 + 1 / 6, 0),
    Word("am", 1.0 + 1 / 6, 1.5, 0),
    Word("so", 1.5, 1.0 + 5 / 6, 0),
    Word("glad", 1.0 + 5 / 6, 2.5, 0),
    Word("No", 63.0, 64.0, 1),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["segments", "words", "word_segments", "start", "end", "text", "word"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


def write(folder: Path, name: str, content: str | bytes | object) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def assert_same(words: tuple[Word, ...], expected: tuple[Word, ...]) -> None:
    assert [(w.text, w.segment) for w in words] == [(w.text, w.segment) for w in expected]
    times = [(w.start_s, w.end_s) for w in words]
    np.testing.assert_allclose(times, [(w.start_s, w.end_s) for w in expected], atol=1e-9)


def assert_sound(transcript: Transcript) -> None:
    for word in transcript.words:
        assert word.text
        assert word.text == word.text.strip()
        assert np.isfinite([word.start_s, word.end_s]).all()
        assert 0 <= word.start_s < word.end_s
        assert word.segment >= 0
        assert word.confidence is None or 0 <= word.confidence <= 1
        word.text.encode()
    starts_s = [word.start_s for word in transcript.words]
    assert starts_s == sorted(starts_s)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("a.srt", SRT), ("a.srt", SRT.replace(",", ".")), ("a.srt", SRT.replace("\n", "\r\n"))),
        *(("a.vtt", VTT), ("a.txt", MAVEN), ("a.txt", MAVEN.replace(" - ", " -> "))),
        *(("a.json", WHISPER), ("a.json", WHISPER["segments"])),
        # The content counts, not the name.
        *(("a.txt", SRT), ("a.srt", VTT), ("a.vtt", SRT), ("a.srt", MAVEN), ("a", VTT)),
        ("a.txt", json.dumps(WHISPER, indent=1)),
    ],
)
def test_every_form_gives_the_same_words(tmp_path: Path, name: str, content: object) -> None:
    transcript = read_transcript(write(tmp_path, name, content))
    assert_same(transcript.words, EXPECTED)
    assert transcript.source == f"file: {name}"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"]
)
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "[0s - 1s] Çela était très naïf"
    transcript = read_transcript(write(tmp_path, "a.fr.txt", text.encode(encoding)))
    assert [word.text for word in transcript.words] == ["Çela", "était", "très", "naïf"]
    assert transcript.language == "fr"


def test_whisper_words_keep_their_times_and_probabilities(tmp_path: Path) -> None:
    words = [
        {"word": " I", "start": 1.0, "end": 1.2, "probability": 0.5},
        {"word": " am", "start": 1.25, "end": 1.4, "probability": 1.0000001},
    ]
    content = {"segments": [{"start": 0.0, "end": 9.0, "text": " I am", "words": words}]}
    transcript = read_transcript(write(tmp_path, "a.json", content))
    assert transcript.words == (Word("I", 1.0, 1.2, 0, 0.5), Word("am", 1.25, 1.4, 0, 1.0))


def test_whisperx_words_without_times_fill_the_gap(tmp_path: Path) -> None:
    words = [
        {"word": "In", "start": 1.0, "end": 1.2, "score": 0.9},
        {"word": "2014"},
        {"word": "or"},
        {"word": "so,", "start": 1.8, "end": 2.0, "score": 0.8},
        {"word": "7"},
    ]
    content = {
        "segments": [{"start": 1.0, "end": 2.5, "text": "In 2014 or so, 7", "words": words}],
        "word_segments": words,
    }
    expected = (
        Word("In", 1.0, 1.2, 0),
        Word("2014", 1.2, 1.6, 0),
        Word("or", 1.6, 1.8, 0),
        Word("so,", 1.8, 2.0, 0),
        Word("7", 2.0, 2.5, 0),
    )
    transcript = read_transcript(write(tmp_path, "a.json", content))
    assert_same(transcript.words, expected)
    assert [word.confidence for word in transcript.words] == [0.9, None, None, 0.8, None]
    # Words alone: the last has nothing behind it.
    alone = read_transcript(write(tmp_path, "b.json", {"word_segments": words}))
    assert_same(alone.words, (*expected[:4], Word("7", 2.0, 2.0 + SPOKEN_S_PER_CHARACTER, 0)))


def test_words_alone_are_parted_into_sentences(tmp_path: Path) -> None:
    spoken = [("Yes.", 0.0, 0.4), ("No", 0.5, 0.7), "1914", ("way", 0.8, 1.0), ("Oh", 2.0, 2.1)]
    words = [
        {"word": s} if isinstance(s, str) else {"word": s[0], "start": s[1], "end": s[2]}
        for s in spoken
    ]
    for content in ({"words": words}, {"words": words, "segments": []}):
        transcript = read_transcript(write(tmp_path, "a.json", content))
        assert [word.segment for word in transcript.words] == [0, 1, 1, 1, 2]
    assert sentences([]) == []


@pytest.mark.parametrize("clip", GRID_CLIPS)
def test_grid_words(clips_dir: Path, clip: str) -> None:
    path = clips_dir / f"grid_s1_{clip}.align"
    rows = [line.split() for line in path.read_text().splitlines()]
    expected = [(w, int(a) / 25_000, int(b) / 25_000) for a, b, w in rows if w != "sil"]
    transcript = read_transcript(path)
    assert [(w.text, w.start_s, w.end_s) for w in transcript.words] == expected
    assert {word.segment for word in transcript.words} == {0}
    assert beside(clips_dir / f"grid_s1_{clip}.mpg") == path


def test_unordered_overlapping_and_empty_cues(tmp_path: Path) -> None:
    text = (
        "[8.0s - 8.0s] hey\n[5.0s - 4.0s] back wards\n[1.0s - 3.0s] one two\n"
        "[2.0s - 2.5s] three\n[6.0s - 7.0s] [Music]\n[6.5s - 7.0s]\n"
    )
    transcript = read_transcript(write(tmp_path, "a.txt", text))
    assert_same(
        transcript.words,
        (
            *(Word("one", 1.0, 2.0, 0), Word("two", 2.0, 3.0, 0), Word("three", 2.0, 2.5, 1)),
            *(Word("back", 5.0, 5.24, 2), Word("wards", 5.24, 5.54, 2), Word("hey", 8, 8.18, 3)),
        ),
    )


@pytest.mark.parametrize("name", ["a.srt", "a.vtt", "a.json", "a.txt", "a.align"])
@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff"])
def test_empty_files_are_transcripts_of_no_words(tmp_path: Path, name: str, content: str) -> None:
    assert read_transcript(write(tmp_path, name, content)).words == ()


@pytest.mark.parametrize(
    "content", ["WEBVTT", '{"segments": []}', "[1s - 2s] [Music]", "0 74500 sil", "[]"]
)
def test_wordless_files_are_transcripts_of_no_words(tmp_path: Path, content: str) -> None:
    assert read_transcript(write(tmp_path, "a.txt", content)).words == ()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "Dear diary,\nnothing.", "line 1: got 'Dear diary,'; accepted: SRT, WebVTT"),
        ("a.srt", "Dear diary,\nnothing.", "line 1: got 'Dear diary,'; accepted: SRT, WebVTT"),
        ("a.srt", SRT.replace("00:01:03,000", "soon"), "line 7: got 'soon --> 00:01:04,000'"),
        ("a.srt", "1\n1:2 --> 3\na", "line 2: got '1:2 --> 3'; accepted: times such as"),
        ("a.align", "0 100 a\n100 b\n", "line 2: got '100 b'; accepted: GRID lines such as"),
        ("a.json", '{"segments": [\n1,]}', "line 2: no JSON"),
        ("a.json", {"frames": [1], "model": "m"}, "JSON with the fields \\['frames', 'model'\\]"),
        ("a.json", {"segments": [{"text": "hello"}]}, "segment 0: got no times; accepted: 'start'"),
        ("a.json", "[" * 100_000 + "]" * 100_000, "no JSON"),
        ("a.json", '{"segments": [' + "1" * 5000 + "]}", "no JSON"),
        ("a.mp4", bytes(range(256)) * 20, "accepted: SRT, WebVTT"),
    ],
)
def test_errors_are_one_line_that_names_the_file(
    tmp_path: Path, name: str, content: object, says: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(TranscriptError, match=says) as caught:
        read_transcript(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "missing.srt", tmp_path):
        with pytest.raises(TranscriptError, match="cannot be read"):
            read_transcript(path)
    monkeypatch.setattr("maven.transcript.MAX_FILE_BYTES", 10)
    with pytest.raises(TranscriptError, match="too large for a transcript"):
        read_transcript(write(tmp_path, "a.srt", SRT))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary()
    | st.text().map(str.encode)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.lists(
        st.sampled_from(["WEBVTT", "1", "", "-->", "0:01,0 --> 00:00:02,5", "<0:1.5>", "[1s - 2s]"])
        | st.text(max_size=10),
    ).map(lambda lines: "\n".join(lines).encode(errors="replace")),
    suffix=st.sampled_from([*SUFFIXES, ".mp4"]),
)
def test_anything_is_a_transcript_or_an_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = write(tmp_path, f"a{suffix}", content)
    message = ""
    try:
        assert_sound(read_transcript(path))
    except TranscriptError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.integers(0, 10**4),
            st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        ),
        max_size=8,
    )
)
def test_srt_round_trip(tmp_path_factory: pytest.TempPathFactory, cues: Any) -> None:
    def clock(ms: int) -> str:
        return f"{ms // 3600000:02}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    text = "".join(
        f"{n}\n{clock(start)} --> {clock(start + length)}\n{word}\n\n"
        for n, (start, length, word) in enumerate(cues, start=1)
    )
    path = write(tmp_path_factory.mktemp("srt"), "a.srt", text)
    transcript = read_transcript(path)
    assert_sound(transcript)
    cues = sorted(cues, key=lambda cue: (cue[0], cue[0] + cue[1]))
    rolled = [a[2] == b[2] and b[1] <= 50 and b[0] - a[0] - a[1] <= 50 for a, b in pairwise(cues)]
    if not any(rolled):
        assert sorted(word.text for word in transcript.words) == sorted(cue[2] for cue in cues)
        starts_s = [cue[0] / 1000 for cue in cues]
        np.testing.assert_allclose([word.start_s for word in transcript.words], starts_s)


@given(
    start_s=st.floats(0, 100),
    length_s=st.none() | st.floats(-1, 20),
    tokens=st.lists(
        st.tuples(
            st.text("abc", min_size=1), st.none() | st.floats(0, 100), st.none() | st.floats(0, 100)
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_every_word_gets_times(start_s: float, length_s: float | None, tokens: Any) -> None:
    end_s = None if length_s is None else start_s + length_s
    words = timed_words([Segment(start_s, end_s, [Token(*token) for token in tokens])])
    assert len(words) == len(tokens)
    assert_sound(Transcript(words, "test"))
    assert all(word.end_s - word.start_s >= MIN_WORD_S * 0.999 for word in words)
    if all(start is None for _, start, _ in tokens) and length_s and length_s > 1:
        lengths = np.array([len(token[0]) for token in tokens])
        edges_s = start_s + length_s * np.cumsum([0, *lengths]) / lengths.sum()
        np.testing.assert_allclose([word.start_s for word in words], edges_s[:-1], atol=1e-6)


def test_beside_prefers_the_plain_name_then_english(tmp_path: Path) -> None:
    video = write(tmp_path, "clip.mp4", b"")
    assert beside(video) is None
    write(tmp_path, "clip.json", {"frames": [], "words": [{"text": "x", "start_s": 1}]})  # results
    write(tmp_path, "clip.txt", "notes")
    write(tmp_path, "clip2.srt", SRT)
    write(tmp_path, "clip.maven.srt.bak", SRT)
    assert beside(video) is None
    for name in ("clip.de.srt", "clip.en-US.vtt", "clip.txt", "clip.VTT", "clip.srt"):
        path = write(tmp_path, name, MAVEN if name == "clip.txt" else VTT)
        assert beside(video) == path, name
        if name == "clip.txt":
            path.unlink()
    assert beside(tmp_path / "nowhere" / "clip.mp4") is None
    sound = write(tmp_path, "talk.json", {"segments": [{"start": 0, "end": 1, "text": "hi"}]})
    assert beside(tmp_path / "talk.wav") == sound


FRAMES_S = [k / 25 for k in range(100)]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mov_text"), ("a.mov", "mov_text"), ("a.mkv", "subrip"), ("b.mkv", "webvtt")],
)
def test_subtitle_streams(tmp_path: Path, name: str, codec: str) -> None:
    cues = [(1.0, 2.5, "<i>I am</i>\nso glad"), (3.0, 3.5, "[Music]"), (63.0, 64.0, "No")]
    clip = write_clip(tmp_path / name, frame_times_s=FRAMES_S, cues=cues, cue_codec=codec)
    transcript = read_subtitle_stream(clip)
    assert transcript is not None
    assert_same(transcript.words, EXPECTED)
    assert transcript.source == f"stream 1 ({codec})"
    assert transcript.language == "eng"


def test_media_without_subtitle_words(tmp_path: Path) -> None:
    bare = write_clip(tmp_path / "bare.mp4", frame_times_s=FRAMES_S)
    assert read_subtitle_stream(bare) is None
    cues = [(1.0, 2.0, "[Music]")]
    assert (
        read_subtitle_stream(
            write_clip(
                tmp_path / "music.mkv", frame_times_s=FRAMES_S, cues=cues, cue_codec="subrip"
            )
        )
        is None
    )
    bitmap = write_clip(
        tmp_path / "dvd.mkv", frame_times_s=FRAMES_S, cues=[(1, 2, "?")], cue_codec="dvd_subtitle"
    )
    assert read_subtitle_stream(bitmap) is None
    for path in (tmp_path / "missing.mp4", write(tmp_path, "text.mp4", "hello")):
        with pytest.raises(MediaError):
            read_subtitle_stream(path)


def test_real_clips_have_no_subtitles(clips_dir: Path) -> None:
    for path in sorted(clips_dir.glob("talk_*")):
        assert read_subtitle_stream(path) is None


def test_a_result_of_ours_is_no_transcript(tmp_path: Path) -> None:
    from maven.render.tables import write
    from render.frames import person, speak

    write(person(), {"maven": "0.1.0"}, tmp_path, "clip", ("json", "vtt"), speak(3.0))
    assert beside(tmp_path / "clip.mp4") is None
