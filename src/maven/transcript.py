"""Timed words from what is written already: transcript files and subtitle streams.

Accepted files: SRT, WebVTT, whisper and whisperX JSON, the published MAVEN form
(`[1.00s - 2.50s] text`) and GRID `.align`. Every cue, or segment of a recogniser, is one `segment`.

A cue that gives no times of its words is spread over them in proportion to their lengths in
characters; where only some are missing (whisperX leaves out numerals), the gap is filled likewise.
A cue of no or negative length is taken to last `SPOKEN_S_PER_CHARACTER` a character.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from maven.captions import (
    CUE_TIMES,
    MAVEN_TIMES,
    Cue,
    FormatError,
    Token,
    check_amount,
    clean,
    clean_words,
    cue_words,
    read_cues,
    read_maven_cues,
    read_stream_cues,
)

ACCEPTED = (
    "SRT, WebVTT, whisper or whisperX JSON, lines such as '[1.00s - 2.50s] text', GRID .align"
)
SUFFIXES = (".srt", ".vtt", ".json", ".txt", ".align")
MAX_FILE_BYTES = 64 * 2**20  # days of speech fit; a video given by mistake does not
MAX_TIME_S = 1e8  # what is later is no time
MIN_WORD_S = 0.02
SPOKEN_S_PER_CHARACTER = 0.06
PAUSE_S = 0.8  # between the sentences of a recogniser that names no segments
ALIGN_UNITS_PER_S = 25_000  # GRID: 1/25 s is 1000 units
ALIGN_PAUSES = ("sil", "sp")
ALIGN_LINE = re.compile(r"\s*(\d{1,12})\s+(\d{1,12})\s+(\S+)\s*$")
LANGUAGE = re.compile(r"\.([A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*)")


class TranscriptError(Exception):
    """A transcript cannot be read; the message is one line and names the file."""


@dataclass(frozen=True)
class Word:
    """One spoken word: times in seconds on the media clock, start_s < end_s.

    `segment` counts cues, sentences or utterances from 0; `confidence` is in [0, 1], None where
    the source gives none.
    """

    text: str
    start_s: float
    end_s: float
    segment: int
    confidence: float | None = None


@dataclass(frozen=True)
class Transcript:
    """Words in the order of their starts; where they came from; the language, if it is known."""

    words: tuple[Word, ...]
    source: str
    language: str | None = None


@dataclass(frozen=True)
class Segment:
    """A cue or an utterance: its words, some without times; `end_s` is None if not known."""

    start_s: float
    end_s: float | None
    tokens: list[Token]


def read_transcript(path: Path) -> Transcript:
    """Read a transcript file of any accepted form; what it holds counts first, then its name.

    A file without words, or without anything, is a transcript of no words.

    Raises:
        TranscriptError: the file cannot be read, or it is no transcript.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TranscriptError(f"{path}: too large for a transcript; accepted: {ACCEPTED}")
        text = _decode(path.read_bytes())
    except OSError as error:
        raise TranscriptError(f"{path}: cannot be read ({error.strerror or error})") from None
    named = LANGUAGE.fullmatch(Path(path.stem).suffix)
    language = named.group(1) if named else None
    try:
        segments, said_language = _segments(text, path.suffix.lower())
        words = timed_words(segments)
    except ValueError as error:
        raise TranscriptError(f"{path}, {error}") from None
    return Transcript(words, f"file: {path.name}", said_language or language)


def beside(media_path: Path) -> Path | None:
    """Find the transcript file that belongs to a media file: same folder, same stem.

    A plain name goes before one with a language (`clip.en.srt`), English before the others. A
    `.json` or `.txt` counts only when it holds a transcript with words; results of maven never do.
    A link out of the folder counts only where the media file is a link too.
    """
    media_path = Path(media_path)
    stem = media_path.stem
    found = []
    try:
        neighbours = list(media_path.parent.iterdir())
    except OSError:  # the media file itself is about to say so
        return None
    for path in neighbours:
        if (
            stem in neighbour_of(path.name)
            and path != media_path
            and path.is_file()
            and not leads_out(path, media_path)
        ):
            found.append((preference(stem, path.name), path))
    for _, path in sorted(found):
        if _is_result(path):
            continue
        if path.suffix.lower() not in (".json", ".txt") or _has_words(path):
            return path
    return None


def neighbour_of(name: str) -> tuple[str, ...]:
    """Give the stems of media files that a file of this name, if it lies beside, belongs to.

    "a.en.srt" belongs to "a.mp4" and to "a.en.mp4"; none for what cannot be a transcript.
    """
    path = PurePath(name)
    if path.suffix.lower() not in SUFFIXES:
        return ()
    inner = PurePath(path.stem)
    is_language = LANGUAGE.fullmatch(inner.suffix)
    return (path.stem, inner.stem) if is_language else (path.stem,)


def leads_out(path: Path, media_path: Path) -> bool:
    """Tell whether a file beside a media file, which is no link, is a link to another folder.

    A folder from elsewhere could so have any file of this machine read.
    """
    if not path.is_symlink() or media_path.is_symlink():
        return False
    folder = os.path.realpath(media_path.parent)
    return not PurePath(os.path.realpath(path)).is_relative_to(folder)


def preference(stem: str, name: str) -> tuple[bool, bool, int, str]:
    """Order the transcripts of one media file: no language, English, kind of file, name."""
    suffix = PurePath(name).suffix
    middle = name[len(stem) : -len(suffix)].lower()
    return middle != "", not middle.startswith(".en"), SUFFIXES.index(suffix.lower()), name


def read_subtitle_stream(media_path: Path) -> Transcript | None:
    """Read the first subtitle stream of text with words, English first; None if there is none.

    Raises:
        MediaError: the media file cannot be read.
        TranscriptError: it says more than anybody does.
    """
    streams = read_stream_cues(media_path)
    for stream in sorted(streams, key=lambda stream: (stream.language or "")[:2] != "en"):
        try:
            words = timed_words(_cue_segments(stream.cues))
        except FormatError as error:
            raise TranscriptError(f"{media_path}, stream {stream.index}, {error}") from None
        if words:
            return Transcript(words, f"stream {stream.index} ({stream.codec})", stream.language)
    return None


def timed_words(segments: Iterable[Segment]) -> tuple[Word, ...]:
    """Give every word its times, in their order; number the segments in the order of theirs.

    Raises:
        FormatError: there are more words than anybody says.
    """
    words: list[Word] = []
    ordered = sorted(segments, key=lambda s: s.start_s)
    texts = [token.text for segment in ordered for token in segment.tokens]
    check_amount(len(texts), sum(map(len, texts)))
    for number, segment in enumerate(ordered):
        for token, start_s, end_s in _timed(segment):
            end_s = max(end_s, start_s + MIN_WORD_S)
            words.append(Word(token.text, start_s, end_s, number, token.confidence))
    return tuple(sorted(words, key=lambda word: word.start_s))


def sentences(tokens: Sequence[Token]) -> list[list[Token]]:
    """Part words at pauses of `PAUSE_S` and behind a full stop, question or exclamation mark."""
    parts: list[list[Token]] = []
    for token in tokens:
        last = parts[-1][-1] if parts else None
        if last is None:
            parts.append([])
        elif token.start_s is not None:  # a part begins with a time
            pause_s = token.start_s - (token.start_s if last.end_s is None else last.end_s)
            if pause_s >= PAUSE_S or last.text[-1] in ".?!。？！":
                parts.append([])
        parts[-1].append(token)
    return parts


def _is_result(path: Path) -> bool:
    """Say whether a file is an answer of ours, which holds words or cues too."""
    try:
        with path.open("rb") as file:
            return b'"maven":' in file.read(512)
    except OSError:
        return False


def _has_words(path: Path) -> bool:
    try:
        return len(read_transcript(path).words) > 0
    except TranscriptError:
        return False


def _decode(data: bytes) -> str:
    """Decode by the byte order mark, else UTF-8, UTF-16 (by its zero bytes), cp1252, Latin-1."""
    encodings = ["utf-8-sig", "cp1252", "latin-1"]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings.insert(0, "utf-16")
    elif data[:64].count(0) > len(data[:64]) // 4:
        encodings.insert(0, "utf-16-be" if data[0] == 0 else "utf-16-le")
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise AssertionError("Latin-1 decodes everything")


def _segments(text: str, suffix: str) -> tuple[list[Segment], str | None]:
    """Read a transcript's text; return its segments and the language that it states."""
    lines = text.splitlines()
    first = next((line.strip() for line in lines if line.strip()), "")
    if not first:
        return [], None
    if first.startswith("WEBVTT"):
        return _cue_segments(read_cues(lines, webvtt=True)), None
    if MAVEN_TIMES.match(first):
        return _cue_segments(read_maven_cues(lines)), None
    if first[0] in "{[" and (text.rstrip()[-1] in "}]" or suffix == ".json"):
        return _json_segments(_parse_json(text))
    if any(CUE_TIMES.match(line) for line in lines):
        return _cue_segments(read_cues(lines)), None
    if ALIGN_LINE.match(first) or suffix == ".align":
        return _align_segments(lines), None
    if suffix in (".srt", ".vtt"):
        read_cues(lines)  # names the malformed line, where there is one
    raise ValueError(f"line 1: got {_shown(first)}; accepted: {ACCEPTED}")


def _cue_segments(cues: Sequence[Cue]) -> list[Segment]:
    return [Segment(cue.start_s, cue.end_s, tokens) for cue, tokens in cue_words(cues)]


def _align_segments(lines: Sequence[str]) -> list[Segment]:
    tokens = []
    for number, line in enumerate(lines, start=1):
        match = ALIGN_LINE.match(line)
        if match and match.group(3).lower() not in ALIGN_PAUSES:
            start_s, end_s = (int(match.group(k)) / ALIGN_UNITS_PER_S for k in (1, 2))
            tokens.append(Token(match.group(3), start_s, end_s))
        elif not match and line.strip():
            raise FormatError(
                f"line {number}: got {_shown(line)}; accepted: GRID lines such as '23750 29500 bin'"
            )
    return [Segment(tokens[0].start_s or 0.0, None, tokens)] if tokens else []


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}: no JSON ({error.msg})"
    except (ValueError, RecursionError) as error:
        reason = f"line 1: no JSON ({_shown(error)})"
    raise FormatError(f"{reason}; accepted: {ACCEPTED}")


def _json_segments(payload: Any) -> tuple[list[Segment], str | None]:
    """Read whisper's and whisperX's JSON: `segments` with or without `words`, or words alone."""
    fields: dict[str, Any] = payload if isinstance(payload, dict) else {"segments": payload}
    words: Any = fields.get("word_segments", fields.get("words"))
    entries: Any = fields.get("segments")
    stated = fields.get("language")
    language = stated if isinstance(stated, str) and stated.isalpha() else None
    if _all_have(entries, "text", "words") and (
        any(entry.get("words") for entry in entries) or not _all_have(words, "word", "text")
    ):
        found = [_json_segment(number, entry) for number, entry in enumerate(entries)]
        return [segment for segment in found if segment.tokens], language
    if _all_have(words, "word", "text"):
        parts = sentences(clean_words([_json_token(word) for word in words]))
        return [_segment(f"word {part[0].text!r}", None, None, part) for part in parts], language
    came = f"JSON with the fields {sorted(fields)}" if isinstance(payload, dict) else "other JSON"
    raise FormatError(f"line 1: got {_shown(came)}; accepted: {ACCEPTED}")


def _all_have(entries: Any, *names: str) -> bool:
    """Tell whether this is a list of objects that each have one of the fields."""
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and any(name in entry for name in names) for entry in entries
    )


def _json_segment(number: int, entry: dict[str, Any]) -> Segment:
    words, text = entry.get("words"), entry.get("text")
    if words and _all_have(words, "word", "text"):
        tokens = clean_words([_json_token(word) for word in words])
    else:
        tokens = [Token(word) for word in clean(str(text or "")).split()]
    return _segment(f"segment {number}", _number(entry, "start"), _number(entry, "end"), tokens)


def _json_token(entry: dict[str, Any]) -> Token:
    scores = (_number(entry, name) for name in ("probability", "score", "confidence"))
    score = next((score for score in scores if score is not None), None)
    return Token(
        str(entry.get("word", entry.get("text"))),
        _number(entry, "start"),
        _number(entry, "end"),
        None if score is None else min(max(score, 0.0), 1.0),
    )


def _number(entry: dict[str, Any], name: str) -> float | None:
    value = entry.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_TIME_S:
        return max(float(value), 0.0)
    return None  # NaN too: it compares with nothing


def _segment(what: str, start_s: float | None, end_s: float | None, tokens: list[Token]) -> Segment:
    """Make a segment; where its start is missing, that of its first timed word counts."""
    starts_s = [token.start_s for token in tokens if token.start_s is not None]
    if start_s is None and not starts_s and tokens:
        raise FormatError(f"{what}: got no times; accepted: 'start' and 'end' in seconds")
    return Segment(start_s if start_s is not None else min(starts_s, default=0.0), end_s, tokens)


def _shown(what: object) -> str:
    """Show what came, on one line, short."""
    text = " ".join(str(what)[:200].split())
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _timed(segment: Segment) -> Iterator[tuple[Token, float, float]]:
    """Fill the times that are missing; a run of such words shares the gap by length of text."""
    tokens = segment.tokens
    at_s = segment.start_s
    k = 0
    while k < len(tokens):
        start_s, end_s = tokens[k].start_s, tokens[k].end_s
        if start_s is not None and end_s is not None:
            yield tokens[k], start_s, end_s
            at_s, k = max(end_s, start_s), k + 1
            continue
        run = 1
        while k + run < len(tokens) and tokens[k + run].start_s is None:
            run += 1
        begin_s = at_s if start_s is None else start_s
        is_last = k + run == len(tokens)
        next_s = segment.end_s if is_last else tokens[k + run].start_s
        n_characters = sum(len(token.text) for token in tokens[k : k + run])
        if next_s is None or (is_last and next_s <= begin_s):
            next_s = begin_s + SPOKEN_S_PER_CHARACTER * n_characters
        length_s = max(next_s - begin_s, 0.0)
        for token in tokens[k : k + run]:
            at_s = begin_s + length_s * len(token.text) / n_characters
            yield token, begin_s, at_s
            begin_s = at_s
        k += run
