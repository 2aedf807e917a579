"""Captions: what is a word and what is not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven.captions import (
    Cue,
    FormatError,
    Token,
    clean,
    clean_words,
    cue_words,
    read_cues,
    read_maven_cues,
    read_stream_cues,
)


def lines_of(text: str) -> list[str]:
    return text.split("\n")


def said(cues: list[Cue]) -> list[str]:
    return [" ".join(token.text for token in tokens) for _, tokens in cue_words(cues)]


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Hello there.", "Hello there."),
        ("<i>Hello</i> <b>there</b>", "Hello there"),
        ('<font color="#ff0000">Hello</font>', "Hello"),
        (r"{\an8}{\i1}Hello{\i0}", "Hello"),
        ("<v Bob>Hello", "Hello"),
        ("<c.yellow.bg_blue>Hello</c>", "Hello"),
        (">> Hello", "Hello"),
        (">>> BOB: Hello", "Hello"),
        ("- Hello\n- Hi", "Hello Hi"),
        ("–Hello", "Hello"),
        ("DR. SMITH: Hello", "Hello"),
        ("[Music]", ""),
        ("(applause) Thank you (laughs)", "Thank you"),
        ("[door\ncloses] Hello", "Hello"),
        ("[SPEAKER_00]: Hello", "Hello"),
        ("♪ la la ♪", "la la"),
        ("♪♪", ""),
        ("（笑）こんにちは", "こんにちは"),
        ("Rock &amp; roll&nbsp;now", "Rock roll now"),
        ("Vraiment ?  Oui !", "Vraiment? Oui!"),
        ("wait - what", "wait what"),
        ("well ...", "well..."),
        # These stay.
        ("minus -5 degrees", "minus -5 degrees"),
        ("-5 degrees", "-5 degrees"),
        ("3 < 4 and 5 > 2", "3 4 and 5 2"),
        ("at 9:30 it was NASA", "at 9:30 it was NASA"),
        ("I: the one", "I: the one"),
        ("Note: this", "Note: this"),
        ("don't re-enter", "don't re-enter"),
        ("unclosed [music and", "unclosed [music and"),
    ],
)
def test_clean(written: str, spoken: str) -> None:
    assert clean(written) == spoken


@given(st.text())
def test_clean_leaves_words_parted_by_single_spaces(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == " ".join(cleaned.split())
    assert all(any(c.isalnum() for c in word) for word in cleaned.split())
    cleaned.encode()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["{", "<a", "[", "(", " ", "A ", "-", "[1 ", ": ", "<0:0", "1 1 "]
)
def test_long_lines_take_no_long_time(piece: str) -> None:
    line = piece * 100_000
    clean(line)
    cue_words([Cue(0.0, 1.0, [line])])
    read_maven_cues([line])
    read_maven_cues(["[1" + line])
    read_cues([line, "0:0" + line])


def test_srt_without_blank_lines_and_with_blank_lines_inside() -> None:
    lines = lines_of(
        "1\n00:00:01,000 --> 00:00:02,000\nfirst\n2\n00:00:03,000 --> 00:00:04,000\nsecond\n\n"
        "more\n\n3\n00:00:05,000 --> 00:00:06,000 X1:100 X2:200\n10\n11\n"
    )
    cues = read_cues(lines)
    assert [(cue.start_s, cue.end_s) for cue in cues] == [(1, 2), (3, 4), (5, 6)]
    assert said(cues) == ["first", "second more", "10 11"]


def test_webvtt_skips_names_notes_and_styles() -> None:
    lines = lines_of(
        "WEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE not said\n\n"
        "intro\n00:01.000 --> 00:02.500 align:start\n<v Ann>Hi &lt;you&gt;\n\nNOTE\nnor this\n\n"
        "01:00:00.000 --> 01:00:01.000\nlate"
    )
    cues = read_cues(lines, webvtt=True)
    assert [(cue.start_s, cue.end_s) for cue in cues] == [(1.0, 2.5), (3600.0, 3601.0)]
    assert said(cues) == ["Hi <you>", "late"]


def test_malformed_times_name_the_line() -> None:
    with pytest.raises(FormatError, match="line 6: got '00:00:xx --> 00:00:04,000'; accepted: "):
        read_cues(lines_of("1\n00:01,0 --> 00:02,0\na\n\n2\n00:00:xx --> 00:00:04,000\nb"))


def test_rolling_captions_are_taken_once() -> None:
    """As automatic captions of a large video site come, with times of words and without."""
    lines = lines_of(
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000 align:start position:0%\n \n"
        "hello<00:00:00.500><c> big</c><00:00:01.000><c> world</c>\n\n"
        "00:00:02.000 --> 00:00:02.010 align:start position:0%\nhello big world\n \n\n"
        "00:00:02.010 --> 00:00:04.000 align:start position:0%\nhello big world\n"
        "next<00:00:02.500><c> line</c>"
    )
    words = cue_words(read_cues(lines, webvtt=True))
    tokens = [(token.text, token.start_s) for _, tokens in words for token in tokens]
    assert tokens == [
        *(("hello", None), ("big", 0.5), ("world", 1.0)),
        *(("next", None), ("line", 2.5)),
    ]
    bare = [Cue(0, 2, ["hello"]), Cue(2, 2.01, ["hello"]), Cue(2.01, 4, ["hello", "next"])]
    assert said(bare) == ["hello", "next"]


def test_what_is_said_twice_is_kept() -> None:
    assert said([Cue(1, 2, ["No!"]), Cue(2, 3, ["No!"])]) == ["No!", "No!"]
    assert said([Cue(1, 2, ["No!"]), Cue(5, 6, ["No!", "Never!"])]) == ["No!", "No! Never!"]


def test_words_of_a_recogniser() -> None:
    words = [
        Token(" BOB:", 0, 1),
        Token(" Hello", 1, 2, 0.5),
        Token(" (upbeat", 2, 3),
        Token(" music)", 3, 4),
        Token(" NASA:", 4, 5),
        Token(" New York", 5, 6, 0.25),
        Token(" -", 6, 7),
    ]
    assert clean_words(words) == [
        Token("Hello", 1, 2, 0.5),
        Token("NASA:", 4, 5),
        Token("New", 5, None, 0.25),
        Token("York", None, None, 0.25),
    ]


def ass_clip(path: Path, cues: list[tuple[float, float, str]], codec: str) -> Path:
    """Write subtitles through an encoder of FFmpeg, which takes ASS events."""
    from av.subtitles.subtitle import SubtitleSet

    header = b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name\nStyle: Default\n\n"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        stream = container.add_stream(codec)
        stream.codec_context.subtitle_header = header + b"[Events]\nFormat: Text\n"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        container.start_encoding()
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        for packet in [*video.encode(frame), *video.encode(None)]:
            container.mux(packet)
        for number, (start_s, end_s, text) in enumerate(cues):
            event = f"{number},0,Default,,0,0,0,,{text}".encode()
            length_ms = round((end_s - start_s) * 1000)
            packet = stream.codec_context.encode_subtitle(SubtitleSet.create(event, 0, length_ms))
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = round(start_s * 1000)
            packet.duration = length_ms
            container.mux(packet)
    return path


@pytest.mark.parametrize("codec", ["ass", "webvtt", "subrip"])
def test_ass_events_lose_their_markup(tmp_path: Path, codec: str) -> None:
    space = r"\h" if codec == "ass" else " "  # the other encoders drop a hard space
    cues = [(1.0, 2.5, rf"{{\an8}}{{\i1}}I am{{\i0}}\Nso, glad{space}now"), (63.0, 64.0, "- No")]
    (stream,) = read_stream_cues(ass_clip(tmp_path / "a.mkv", cues, codec))
    assert (stream.index, stream.codec) == (1, codec)
    assert [(cue.start_s, cue.end_s) for cue in stream.cues] == [(1.0, 2.5), (63.0, 64.0)]
    assert said(stream.cues) == ["I am so, glad now", "No"]
