"""The parsers of text meet what no program writes; the full count is `tools/fuzz.py`'s."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz
import fuzz_grammar as grammar
from fuzz_parsers import CARD, PARSERS, Parser

CASES = 80  # of each parser and strategy
FAST = settings(
    max_examples=CASES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PIECES = (
    *grammar.CUES, *grammar.LABELS, *grammar.ROWS, *grammar.SETTINGS, *grammar.TIMES,
    *grammar.NUMBERS, *grammar.WORDS, *grammar.SPACES, *grammar.ODD,
)  # fmt: skip
VALID = (
    grammar.SRT, grammar.VTT, grammar.MAVEN, grammar.ALIGN, grammar.CSV, grammar.FRAMES,
    grammar.SAMPLE, grammar.YAML, grammar.WHISPER, grammar.TRACE,
)  # fmt: skip

# What fuzzing has found: other exceptions than the parser's own, times that grew with the square.
FOUND = (
    ("labels", b"0" * 100_000 + b"x,0"),
    ("recipe", b"features: s\npreset: []\n"),
    ("recipe", b"features: s\nmodalities: [[]]\n"),
    ("recipe", b"name: 2001-02-29\n"),
    ("recipe", b"name=2001-02-29\n"),
    ("recipe", b"fold=!!int ''\n"),
    ("recipe", b"x: &a [1]\ny: *a\n"),
    ("recipe", b"?" * 70_000),
    ("recipe", b"fold: 1" + b":1" * 200 + b".5\n"),
    ("model card", json.dumps({**CARD, "smoothing_s": 10**400}).encode()),
    ("model card", json.dumps({**CARD, "rest": [[0, 0], [10**400, 0], [0, 0]]}).encode()),
)

texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join)
keys = st.sampled_from(("segments", "words", "word", "text", "start", "end", "score", "time_s"))
numbers = st.none() | st.booleans() | st.integers() | st.floats()
values = st.recursive(
    numbers | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)


@st.composite
def cut_up(draw: st.DrawFn) -> str:
    """A valid file, cut, with something put in."""
    text = draw(st.sampled_from(VALID))
    a, b = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    return text[:a] + draw(texts) + text[b:]


cases = st.one_of(
    texts.map(lambda text: text.encode("utf-8", "replace")),
    cut_up().map(lambda text: text.encode("utf-8", "replace")),
    texts.map(lambda text: text.encode("utf-16", "replace")),
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
)


@pytest.fixture(params=PARSERS, ids=lambda parser: parser.name)
def parser(request: pytest.FixtureRequest, tmp_path: Path) -> Parser:
    chosen: Parser = request.param
    fuzz.warm(chosen, tmp_path)
    return chosen


def sound(parser: Parser, case: bytes, folder: Path) -> None:
    found = fuzz.fault_of(parser, case, folder)
    assert isinstance(found, bool), f"{parser.name}: {found[0]} at {found[1]}: {case[:300]!r}"


@FAST
@given(case=cases)
def test_whatever_comes_is_read_or_refused_in_one_line(
    parser: Parser, tmp_path: Path, case: bytes
) -> None:
    sound(parser, case, tmp_path)


def test_the_seeded_cases_of_the_tool(parser: Parser, tmp_path: Path) -> None:
    """The first ones of what `make soak` does a million of."""
    for number in range(200):
        sound(parser, fuzz.case_of(parser, 0, number), tmp_path)


@pytest.mark.parametrize(("name", "case"), FOUND)
def test_what_was_found_stays_mended(name: str, case: bytes, tmp_path: Path) -> None:
    (parser,) = (parser for parser in PARSERS if parser.name == name)
    fuzz.warm(parser, tmp_path)
    assert fuzz.fault_of(parser, case, tmp_path) is True  # refused


def test_valid_files_are_taken(tmp_path: Path) -> None:
    """Else nothing but refusals were fuzzed."""
    valid = {
        "transcript .srt": grammar.SRT, "transcript .vtt": grammar.VTT,
        "transcript .txt": grammar.MAVEN, "transcript .align": grammar.ALIGN,
        "transcript .json": grammar.WHISPER, "subtitle stream": grammar.ASS,
        "labels": grammar.FRAMES, "submission sample": grammar.SAMPLE, "rating": grammar.TRACE,
        "manifest": grammar.CSV, "recipe": grammar.YAML, "model card": json.dumps(CARD),
    }  # fmt: skip
    assert {parser.name for parser in PARSERS} == set(valid)
    for parser in PARSERS:
        assert fuzz.fault_of(parser, valid[parser.name].encode(), tmp_path) is False, parser.name


def test_faults_are_found_made_small_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[bytes] = []

    def read(data: bytes, _: Path) -> None:
        """Fail on one letter, hang on another, take memory on the third."""
        if b"x" in data:
            raise KeyError("two\nlines")
        while b"y" in data:
            pass
        if b"z" in data:
            kept.append(b"z" * (fuzz.MEMORY_BYTES * 3))

    letters = ("abc", "x", "y", "z")
    weak = Parser("weak", 1.0, lambda rng: (rng.choice(letters) + "abc" * 5).encode(), read, tuple)
    monkeypatch.setattr(fuzz, "PARSERS", (weak,))
    monkeypatch.setattr(fuzz, "PATIENCE_S", 1.5)
    monkeypatch.setattr(fuzz, "SHRINK_S", 1.0)
    # In a process whose largest size so far is its present one: memory is seen above that alone.
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        part = pool.submit(fuzz.fuzz, "weak", 0, 0, 8).result()
    assert part.cases == 8
    found = {fault.what.partition(":")[0]: fault.case for fault in part.faults}
    assert found["KeyError"] == b"x"
    assert found["took more than 1.5 s"][:1] == b"y"
    assert b"z" in found["took more memory than the limit"]
    monkeypatch.setattr(fuzz, "parts", lambda *_: [part])
    assert fuzz.main(["--cases", "8"]) == 1
    assert "3 faults" in capsys.readouterr().out


def test_the_tool_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--cases", "300", "--processes", "2", "--only", "transcript"]) == 0
    told = capsys.readouterr().out
    assert told.count("cases") == 6
    assert "no faults" in told
