"""The parsers that are fuzzed: how cases for them are made, and what must hold of what they read.

A parser may refuse a case with its own error of one line. Everything else is a fault: another
exception, a message of several lines, a result that breaks what its record promises.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import fuzz_grammar as grammar
from fuzz_grammar import CUES, LABELS, NUMBERS, ODD, ROWS, SETTINGS, SPACES, TIMES, WORDS

Read = Callable[[bytes, Path], object]
COMMON = (*ODD, *SPACES, *NUMBERS)
WHISPER_KEYS = (
    "segments", "words", "word_segments", "word", "text", "start", "end", "probability", "score",
    "confidence", "language", "", "x",
)  # fmt: skip
TRACE_KEYS = ("rater", "person", "time_s", "valence", "arousal", "x")


@dataclass(frozen=True)
class Parser:
    """One parser.

    Attributes:
        name: what it reads.
        share: of all cases.
        make: makes a case.
        read: reads it in a folder for files; raises what is not as it should be.
        refusals: gives the exceptions that it may raise for what it cannot read.
    """

    name: str
    share: float
    make: Callable[[Random], bytes]
    read: Read
    refusals: Callable[[], tuple[type[Exception], ...]]


def texts(valid: str, pieces: tuple[str, ...]) -> Callable[[Random], bytes]:
    """Make cases of pieces, and by changing a valid text."""
    every = (*pieces, *WORDS, *TIMES, *COMMON)

    def make(rng: Random) -> bytes:
        if rng.randrange(grammar.LARGE_EVERY) == 0:
            text = grammar.large(rng, every)
        elif rng.random() < 0.4:
            text = grammar.spoiled(rng, valid, every)
        else:
            start = valid[: rng.choice((0, 0, valid.index("\n") + 1 if "\n" in valid else 0))]
            text = start + grammar.pieced(rng, pieces, every)
        return grammar.encoded(rng, text)

    return make


def values(valid: str, keys: tuple[str, ...]) -> Callable[[Random], bytes]:
    """Make cases of JSON: values with known names, changes of a valid one, and spoiled text."""
    content = json.loads(valid)
    pieces = ("[", "]", "{", "}", ",", ":", '"', '{"segments":', "[[", '{"a":', *COMMON)

    def make(rng: Random) -> bytes:
        if rng.randrange(grammar.LARGE_EVERY) == 0:
            return grammar.encoded(rng, grammar.large(rng, pieces))
        kind = rng.random()
        if kind < 0.2:
            return grammar.encoded(rng, grammar.spoiled(rng, valid, pieces))
        value = grammar.tree(rng, keys) if kind < 0.5 else grammar.replaced(rng, content, keys)
        return grammar.encoded(rng, json.dumps(value, ensure_ascii=rng.random() < 0.5))

    return make


def check(holds: bool, what: str) -> None:
    """Raise where a promise is broken."""
    if not holds:
        raise AssertionError(what)


def check_words(words: Any) -> None:
    """Hold what `maven.transcript.Word` promises."""
    last_s = 0.0
    for word in words:
        check(0 <= word.start_s < word.end_s < math.inf, f"times of {word}")
        check(last_s <= word.start_s, f"order at {word}")
        check(word.text == "".join(word.text.split()) != "", f"text of {word}")
        check(word.confidence is None or 0 <= word.confidence <= 1, f"confidence of {word}")
        word.text.encode()
        last_s = word.start_s


def transcript(suffix: str) -> Read:
    """Read a transcript file."""

    def read(data: bytes, folder: Path) -> None:
        from maven.transcript import read_transcript

        path = folder / f"case.en{suffix}"
        path.write_bytes(data)
        check_words(read_transcript(path).words)

    return read


def subtitle_stream(data: bytes, folder: Path) -> None:
    """Read the subtitles in a Matroska file; the first byte chooses their codec."""
    import av

    from maven.transcript import read_subtitle_stream

    path = folder / "case.mkv"
    codec = ("ass", "subrip", "webvtt")[data[0] % 3 if data else 0]
    with av.open(str(path), "w") as container:
        stream = container.add_mux_stream(codec)
        stream.time_base = Fraction(1, 1000)
        for k, cue in enumerate(data[:60_000].split(b"\n\n")[:20]):
            packet = av.Packet(cue)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = k * 700
            packet.duration = len(cue) % 3000
            container.mux(packet)
    found = read_subtitle_stream(path)
    check_words(found.words if found else ())


def labels(data: bytes, folder: Path) -> None:
    """Read a label file of Aff-Wild2."""
    import numpy as np

    from maven.datasets.affwild2 import has_header, read_labels

    path = folder / "case.txt"
    path.write_bytes(data)
    has_header(path)
    values = read_labels(path)
    check(values.ndim == 2 and values.shape[1] == 2 and values.dtype == np.float32, "shape")
    check(bool(np.isfinite(values).all()), "finite")


def sample(data: bytes, folder: Path) -> None:
    """Read a submission sample of Aff-Wild2, and write it again."""
    import numpy as np

    from maven.datasets.affwild2 import read_sample, write_submission

    path = folder / "sample.txt"
    path.write_bytes(data)
    rows = read_sample(path)
    check(len(rows) == len(set(rows)) > 0, "rows")
    write_submission(folder / "written.txt", rows, np.zeros((len(rows), 2)))
    check(read_sample(folder / "written.txt") == rows, "what is written is read again")


def trace(data: bytes, folder: Path) -> None:
    """Read a rating as the API takes it; write and read its labels."""
    import numpy as np

    from maven.datasets.affwild2 import read_labels
    from maven.ratings import Trace, affwild2, at, find_lag
    from maven.web.rating import Given

    given = Given.model_validate_json(data)
    points = (np.array(values) for values in (given.time_s, given.valence, given.arousal))
    rated = Trace(given.rater, given.person, *points)
    check(0 <= rated.rated_s < math.inf, "seconds that were rated")
    path = folder / "case.txt"
    path.write_text(affwild2(at(rated, np.arange(10) / 10)), encoding="utf-8")
    check(read_labels(path).shape == (10, 2), "labels")
    if rated.time_s[-1] - rated.time_s[0] < 60:
        find_lag(rated, rated)


def manifest(data: bytes, folder: Path) -> None:
    """Read a manifest as CSV; what its rows become."""
    from maven.batch.items import id_of
    from maven.batch.manifest import rows

    for row in rows(io.BytesIO(data), "case.csv"):
        check(row.problem is None or len(row.problem.splitlines()) == 1, f"problem of {row}")
        check(bool(row.path) or row.problem is not None, f"path of {row}")
        start_s, end_s = row.start_s or 0.0, math.inf if row.end_s is None else row.end_s
        check(0 <= start_s < end_s, f"times of {row}")
        name = id_of(row.id or row.path or row.where)
        check(name.isprintable() and 0 < len(name) <= 400, f"id of {row}")
        name.encode()


def recipe(data: bytes, folder: Path) -> None:
    """Read the settings of a training; YAML itself may be refused by its own error."""
    from maven.recipe import parse, parse_overrides, resolve

    text = data.decode("utf-8", "replace")
    changes = parse_overrides([line for line in text.splitlines()[:3] if "=" in line])
    config = resolve(parse(text), changes)
    check(isinstance(config["features"], str) and config["train"]["epochs"] > 0, "settings")


def card(data: bytes, folder: Path) -> None:
    """Read a model folder's config.json."""
    from maven.checkpoint import read_card

    (folder / "config.json").write_bytes(data)
    found = read_card(folder)
    check(math.isfinite(found.config.reach_s), "reach")


def transcript_refusals() -> tuple[type[Exception], ...]:
    """Give what transcripts raise."""
    from maven.container import MediaError
    from maven.transcript import TranscriptError

    return TranscriptError, MediaError


def corpus_refusals() -> tuple[type[Exception], ...]:
    """Give what labels raise."""
    from maven.datasets.affwild2 import CorpusError

    return (CorpusError,)


def input_refusals() -> tuple[type[Exception], ...]:
    """Give what manifests raise."""
    from maven.batch.sources import InputError

    return (InputError,)


def rating_refusals() -> tuple[type[Exception], ...]:
    """Give what ratings raise: pydantic's own error, which has a line a field, is a ValueError."""
    return (ValueError,)


def recipe_refusals() -> tuple[type[Exception], ...]:
    """Give what recipes raise."""
    from maven.recipe import TrainError

    return (TrainError,)


def card_refusals() -> tuple[type[Exception], ...]:
    """Give what model folders raise."""
    from maven.checkpoint import ModelError

    return (ModelError,)


CARD: dict[str, Any] = {
    "name": "x", "smoothing_s": 0.5, "training": {}, "rest": [[0, 0.1], [0, 0], [0.1, 0]],
    "config": {"visual_width": 8, "audio_width": 8, "text_width": 8, "head_widths": [8, 4]},
    "encoders": {"visual": {"kind": "mini", "source": "visual.safetensors"}},
}  # fmt: skip
CARD_KEYS = (
    "name", "config", "encoders", "smoothing_s", "training", "intervals", "rest", "width", "heads",
    "head", "pooled", "head_dropout", "dropout", "join_layers", "window_s", "rate_hz", "kind",
    "visual_width", "source", "revision",
)  # fmt: skip

PARSERS = (
    Parser("transcript .srt", 0.14, texts(grammar.SRT, CUES), transcript(".srt"),
           transcript_refusals),
    Parser("transcript .vtt", 0.14, texts(grammar.VTT, ("WEBVTT\n\n", *CUES, *WORDS)),
           transcript(".vtt"), transcript_refusals),
    Parser("transcript .txt", 0.10, texts(grammar.MAVEN, CUES), transcript(".txt"),
           transcript_refusals),
    Parser("transcript .align", 0.08, texts(grammar.ALIGN, CUES[-4:]), transcript(".align"),
           transcript_refusals),
    Parser("transcript .json", 0.16, values(grammar.WHISPER, WHISPER_KEYS), transcript(".json"),
           transcript_refusals),
    Parser("subtitle stream", 0.02, texts(grammar.ASS, (*WORDS, *CUES)), subtitle_stream,
           transcript_refusals),
    Parser("labels", 0.11, texts(grammar.FRAMES, LABELS), labels, corpus_refusals),
    Parser("submission sample", 0.05, texts(grammar.SAMPLE, LABELS), sample, corpus_refusals),
    Parser("rating", 0.04, values(grammar.TRACE, TRACE_KEYS), trace, rating_refusals),
    Parser("manifest", 0.12, texts(grammar.CSV, ROWS), manifest, input_refusals),
    Parser("recipe", 0.02, texts(grammar.YAML, SETTINGS), recipe, recipe_refusals),
    Parser("model card", 0.02, values(json.dumps(CARD), CARD_KEYS), card, card_refusals),
)  # fmt: skip
