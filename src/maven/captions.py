r"""What captions say: cues with markup -> words, some of them with times.

A cue is a stretch of time and lines of text, as SRT, WebVTT, the published MAVEN form
(`[1.00s - 2.50s] text`) and ASS events have it. Markup, sound tags (`[Music]`, `(applause)`), notes
and speaker labels (`>>`, `- `, `BOB:`) are no words and are removed. Lines that automatic captions
repeat while they roll up are taken once.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maven.container import codec_name, opened

NO_TEXT = ("dvb_subtitle", "dvd_subtitle", "hdmv_pgs_subtitle", "xsub", "unknown")  # codecs
MAX_WORDS = 250_000  # of a transcript: a whole day of speech
MAX_CHARACTERS = 8 * MAX_WORDS
REPEAT_GAP_S = 0.05  # a rolled-up line comes back at once, and may stay for no longer than this

_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
CUE_TIMES = re.compile(rf"\s*{_TIME}\s*-{{1,2}}>\s*{_TIME}(?:\s.*)?$")
INLINE_TIME = re.compile(rf"<{_TIME}>")
_SECONDS = r"\s{0,4}(\d{1,7}(?:\.\d{1,9})?)\s{0,4}s?\s{0,4}"
MAVEN_TIMES = re.compile(rf"\s*\[{_SECONDS}(?:->|[-–]){_SECONDS}\](.*)$")

MARKUP = re.compile(r"\{[^{}]*\}|</?[A-Za-z][^<>]*>")
SOUNDS = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|[（【][^（）【】]*[）】]|[♩♪♫♬]")
LABEL = re.compile(
    r"\s*(?:>>+|[-–—]+(?=\s|[^\W\d]))?\s*(?:[A-Z][A-Z0-9 .'-]*[A-Z0-9.]\s*:(?=\s|$))?"
)
LOOSE_MARKS = re.compile(r" ([.,;:!?…]+)(?= |$)")
_SEPARATOR = "\x1f"


class FormatError(ValueError):
    """Text is not what it should be; the message names the line, what came, what is accepted."""


@dataclass(frozen=True)
class Cue:
    """A caption as it is written; `end_s` is None where the source gives no duration."""

    start_s: float
    end_s: float | None
    lines: list[str]


@dataclass(frozen=True)
class CueStream:
    """A subtitle stream; `index` is its number among all streams of the file."""

    index: int
    codec: str
    language: str | None
    cues: list[Cue]


@dataclass(frozen=True)
class Token:
    """A word that may lack times; `confidence` is in [0, 1]."""

    text: str
    start_s: float | None = None
    end_s: float | None = None
    confidence: float | None = None


def read_cues(lines: Sequence[str], *, webvtt: bool = False) -> list[Cue]:
    """Read SRT or WebVTT: a line of times, then lines of text.

    Raises:
        FormatError: a line that should be times cannot be read.
    """
    cues: list[Cue] = []
    kept: list[str] = []  # the text of the cue being read; before the first it is dropped
    n_since_blank = 0
    for number, line in enumerate(lines, start=1):
        times = CUE_TIMES.match(line)
        if times:
            if kept and kept[-1].strip().isdecimal():
                kept.pop()  # the counter of this cue
            kept = []
            cues.append(Cue(_clock_s(times.groups()[:4]), _clock_s(times.groups()[4:]), kept))
        elif "-->" in line and n_since_blank <= 1:
            raise FormatError(
                f"line {number}: got {line.strip()[:60]!r}; "
                "accepted: times such as '00:00:01,000 --> 00:00:02,500'"
            )
        elif webvtt and not line:  # a line of one space is text
            kept = []  # a name, a note or a style may follow; the next times begin a cue
        else:
            kept.append(line)
        n_since_blank = n_since_blank + 1 if line.strip() else 0
    return cues


def read_maven_cues(lines: Sequence[str]) -> list[Cue]:
    """Read lines such as `[1.00s - 2.50s] text`; a line without times goes on with the last."""
    cues: list[Cue] = []
    for line in lines:
        match = MAVEN_TIMES.match(line)
        if match:
            cues.append(Cue(float(match.group(1)), float(match.group(2)), [match.group(3)]))
        elif cues:
            cues[-1].lines.append(line)
    return cues


def read_stream_cues(media_path: Path) -> list[CueStream]:
    """Read the subtitle streams of text in a media file; bitmaps (DVD, Blu-ray, DVB) are skipped.

    Raises:
        MediaError: the media file cannot be read.
    """
    with opened(media_path) as container:
        streams = {
            stream.index: CueStream(
                stream.index,
                codec_name(stream),
                None if stream.language in (None, "und") else stream.language,
                [],
            )
            for stream in container.streams.subtitles
            if codec_name(stream) not in NO_TEXT
        }
        wanted = [container.streams[index] for index in streams]
        for packet in container.demux(wanted) if wanted else ():
            if packet.pts is not None:
                streams[packet.stream_index].cues.append(_event(packet))
    return list(streams.values())


def cue_words(cues: Sequence[Cue]) -> list[tuple[Cue, list[Token]]]:
    """Put cues in the order of their times and split them into words; wordless ones are left out.

    WebVTT times inside a cue give the starts of the words behind them.

    Raises:
        FormatError: there are more than anybody says.
    """
    result = []
    n_words = n_characters = 0
    before: Cue | None = None
    for cue in sorted(cues, key=lambda c: (c.start_s, c.start_s if c.end_s is None else c.end_s)):
        lines = [line for line in cue.lines if line.strip()]
        if not lines:
            continue
        cue = Cue(cue.start_s, cue.end_s, lines)
        tokens = _tokens("\n".join(lines[1:] if before and _rolled_up(cue, before) else lines))
        if tokens:
            result.append((cue, tokens))
            n_words += len(tokens)
            n_characters += sum(len(token.text) for token in tokens)
            check_amount(n_words, n_characters)
        before = cue
    return result


def check_amount(n_words: int, n_characters: int) -> None:
    """Refuse more than anybody says in a recording.

    Raises:
        FormatError: there are more than `MAX_WORDS` or `MAX_CHARACTERS`.
    """
    if n_words > MAX_WORDS or n_characters > MAX_CHARACTERS:
        accepted = f"up to {MAX_WORDS} words of {MAX_CHARACTERS} characters together"
        raise FormatError(
            f"line 1: {n_words} words or more, {n_characters} characters; accepted: {accepted}"
        )


def clean_words(words: Sequence[Token]) -> list[Token]:
    """Clean single words, as recognisers give them; a sound tag may reach over several."""
    joined = _SEPARATOR.join(word.text.replace(_SEPARATOR, "") for word in words)
    joined = SOUNDS.sub(lambda match: _SEPARATOR * match.group().count(_SEPARATOR), joined)
    kept = []
    for k, (word, text) in enumerate(zip(words, joined.split(_SEPARATOR), strict=False)):
        parts = clean(text, labels=k == 0).split()
        if len(parts) == 1:
            kept.append(Token(parts[0], word.start_s, word.end_s, word.confidence))
        elif parts:  # a phrase: its end is lost, the words behind the first have no times
            kept.append(Token(parts[0], word.start_s, None, word.confidence))
            kept += [Token(part, confidence=word.confidence) for part in parts[1:]]
    return kept


def clean(text: str, *, labels: bool = True) -> str:
    """Leave what is said: no markup, sounds, labels or loose marks; one space between words."""
    text = html.unescape(MARKUP.sub("", text)).encode(errors="replace").decode()  # no surrogates
    if labels:
        text = " ".join(LABEL.sub("", line, count=1) for line in text.splitlines())
    text = " ".join(SOUNDS.sub(" ", text).lstrip(" :").split())
    text = LOOSE_MARKS.sub(r"\1", text)
    return " ".join(word for word in text.split() if any(c.isalnum() for c in word))


def _event(packet: Any) -> Cue:
    """Decode a subtitle packet, which comes as ASS whatever the codec."""
    import av

    start_s = float(packet.pts * packet.time_base)
    end_s = start_s + float(packet.duration * packet.time_base) if packet.duration else None
    try:
        events = [rect.ass.decode(errors="replace") for rect in packet.decode()]
    except av.FFmpegError:  # one bad cue is no reason to lose the others
        events = []
    # ASS fields: read order, layer, style, name, three margins, effect, text.
    text = "\n".join(event.split(",", 8)[-1] for event in events).replace(r"\h", " ")
    return Cue(start_s, end_s, re.split(r"\\[Nn]|\n", text))


def _rolled_up(cue: Cue, before: Cue) -> bool:
    """Tell whether a cue's first line only repeats the last of the cue before, rolled up.

    A whole cue said twice ("No!" "No!") is no repetition: rolling captions leave room for a
    second line, or show the repeated one for 10 ms.
    """
    if before.end_s is None or cue.end_s is None or cue.start_s - before.end_s > REPEAT_GAP_S:
        return False
    rolls = len(cue.lines) > 1 or cue.end_s - cue.start_s <= REPEAT_GAP_S
    return rolls and clean(INLINE_TIME.sub("", before.lines[-1])) == clean(cue.lines[0])


def _tokens(text: str) -> list[Token]:
    tokens = []
    pieces = INLINE_TIME.split(text)  # text, then again and again a time's four groups and text
    for k in range(0, len(pieces), 5):
        start_s = _clock_s(pieces[k - 4 : k]) if k else None
        words = clean(pieces[k], labels=k == 0).split()
        check_amount(len(words), sum(map(len, words)))
        for word in words:
            tokens.append(Token(word, start_s))
            start_s = None
    return tokens


def _clock_s(groups: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = groups
    whole_s = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return whole_s + float(f"0.{fraction or 0}")
