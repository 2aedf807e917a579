"""What the fuzzer feeds: valid files, pieces of their grammars, and ways of spoiling them."""

from __future__ import annotations

import json
from random import Random
from typing import Any

LARGE_BYTES = 200_000  # of a case that looks for times that grow faster than the text
LARGE_EVERY = 500  # cases

TIMES = (
    "00:00:01,000", "00:00:02.500", "1:2", "99:59:59,999", "0:00", "00:00", "12:34:56", "1:99:99",
    "00:00:01,0000", "-00:00:01,000", "00:00:60,000", "9999:59:59.999", "10000:00:00", ":::",
    "٠٠:٠٠:٠١", "００:００:０１", "1.00s", "2.5", "1e9", "NaN", "9" * 400, "0." + "9" * 20,
)  # fmt: skip
NUMBERS = (
    "0", "1", "-1", "0.5", "-0.5", "-5", "1e-9", "1e308", "1e309", "-1e999", "nan", "-NaN", "inf",
    "Infinity", "0x10", "1_000", "1,5", "1.", ".5", ".", "+", "--1", "٣", "²", "½", "1e", "True",
    "9" * 400, "0" * 400 + "1", "1e-400", "1 2", "1\x002", "null",
)  # fmt: skip
WORDS = (
    "hello", "world", "I", "am", "Größe", "привет", "你好", "سلام", "שלום", "नमस्ते", "e\u0301",
    "👩‍👩‍👧", "'", "...", "—", "♪", "don't", "3", "BOB:", "- ", ">> ", ">>> MR. X: ", "[Music]",
    "(applause)", "[", "]", "(", ")", "【笑】", "{", "}", "{\\an8}", "<i>", "</i>", "<v Bob>", "<",
    ">", "<00:00:01.500>", "<c.yellow>", "&amp;", "&#xD800;", "&#1114112;", "&#x110000;", "&#0;",
    "&", "&lt;b&gt;", "\\N", "\\h", "\\", "WEBVTT", "NOTE", "STYLE", "::cue{}", "-->", "->", "-",
)  # fmt: skip
SPACES = (" ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", "\r\r\n", "\x0b", "\x0c", "\x1c", "\x1f")
ODD = (
    "\x00", "\x1a", "\x1b[31m", "\x7f", "\x85", "\xa0", "\xad", "\u200b", "\u200d", "\u2028",
    "\u2029", "\u202e", "\u2066", "\ufeff", "\ufffe", "\uffff", "\U0010ffff", "\u3000", "ﬁ", "İ",
)  # fmt: skip
CUES = (
    "00:00:01,000 --> 00:00:02,000\n", "1\n00:00:00,500 --> 00:00:01,500\nhello there\n\n",
    "00:01.000 --> 00:02.000 align:start position:0%\n", "0:1 -> 0:2\n", "00:00:02,000 --> \n",
    "00:00:02,000 --> 00:00:01,000\n", "[1.00s - 2.50s] hello\n", "[1.00s -> 2.50s]\n", "[1-2]",
    "[9999999.999999999s – 0s] x\n", "0 23750 sil\n", "23750 29500 bin\n", "999999999999 0 sp\n",
    "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\i1}Hi{\\i0}\\Nthere\n",
)  # fmt: skip
LABELS = (
    "valence,arousal\n", "image_location,valence,arousal\n", "0.1,-0.2\n", "-5,-5\n", "1,1\n",
    "video1/00001.jpg,0.5,-0.5\n", "video1/00002.jpg,,\n", "0.1\n", "0.1,0.2,0.3\n", ",", ",\n",
    "#0.1,0.2\n", '"0.1","0.2"\n', "0.1;0.2\n", "1e39,0\n", "1e38,-1e38\n", "0x1p3,0\n", "1j,2\n",
)  # fmt: skip
ROWS = (
    "path,transcript,id,start,end\n", "path;id\n", "path\tstart\n", "path\n", "a.mp4,,,,\n", '"',
    "a.mp4,a.srt,one,0,1.5\n", '"b,c.mp4",,"two\nlines",0:01,1:00:00.5\n', "s3://b/k.mp4,,,,\n",
    ",", ";", '""', "a.mp4,,,5,1\n", "a.mp4,,,-1,\n", "file:///x.mp4,,,,\n", "\n", "=1+1,,,,\n",
)  # fmt: skip
SETTINGS = (
    "features: store\n", "fold: 3\n", "fold: official\n", "preset: paper\n", "preset: [a]\n",
    "network: {width: 64}\n", "network:\n  head_widths: [1, 2]\n", "train: {epochs: 3}\n",
    "modalities: [visual, audio]\n", "modalities: [[]]\n", "train:\n  smoothing_s: [0, 1]\n",
    "name: 2001-02-29\n", "name: 2001-02-03\n", "x: &a [1]\n", "y: *a\n", "<<: {a: 1}\n", "? [a]\n",
    "!!python/object/apply:os.system [ls]\n", "!!binary x\n", "fold: 0b\n", "fold: 0x_\n", "[",
    "fold: 1:99\n", "{", "train: {epochs: .inf}\n", "network: {heads: 0}\n", ": ", "? ", "|\n", "%",
    "network: {width: x}\n", "network: {pooled: [[1]]}\n", "train: {loss: []}\n", "&a *a", "---\n",
    "fold: !!int ''\n", "fold: !!bool x\n", "name: !!timestamp x\n", "fold: !!float ''\n",
    "train: !!set {epochs}\n", "network: !!omap [a]\n", "x: !!pairs [[a]]\n",
    "train: {smoothing_s: [x]}\n", "network: {head: {a: b}}\n", "fold: [0]\n", "features: [x]\n",
    "fold: 1" + ":1" * 200 + ".5\n",
)  # fmt: skip

SRT = """1
00:00:01,000 --> 00:00:02,500
Hello, <i>world</i>!

2
00:00:02,500 --> 00:00:04,000
- How are you?
[door opens]
"""
VTT = """WEBVTT - A title

NOTE nothing

00:01.000 --> 00:02.500 align:start
<v Bob>Well<00:00:01.500><c> said</c>, indeed

00:02.500 --> 00:04.000
indeed
it rolls up
"""
MAVEN = "[0.00s - 1.50s] I am here\n[1.50s - 2.00s] and there\nstill there\n"
ALIGN = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 sp\n"
ASS = "0,0,Default,,0,0,0,,{\\an8}Hello\\Nthere, <i>you</i>"
CSV = 'path,transcript,id,start,end\na.mp4,a.srt,one,0,1.5\n"b, c.mp4",,,0:10,1:00:00\n'
FRAMES = "valence,arousal\n0.1,-0.2\n-5,-5\n1,1\n0.25,0.5\n"
SAMPLE = "image_location,valence,arousal\nv1/00001.jpg,,\nv1/00002.jpg,0.5,-0.5\n"
YAML = (
    "features: stores/corpus\nfold: official\npreset: default\nnetwork: {width: 64}\n"
    "modalities: [visual, audio]\ntrain:\n  epochs: 20\n  learning_rate: 1e-3\nname: mine\n"
)
WHISPER = json.dumps({
    "language": "en",
    "segments": [
        {"start": 0.0, "end": 1.0, "text": " Hello there", "words": [
            {"word": " Hello", "start": 0.0, "end": 0.5, "probability": 0.9},
            {"word": "there", "start": 0.5, "end": 1.0, "score": 0.8}]},
        {"start": 1.0, "end": 2.0, "text": "2 of them"},
    ],
    "word_segments": [{"word": "Hello", "start": 0.0, "end": 0.5}],
})  # fmt: skip
TRACE = json.dumps({
    "rater": "Ann", "person": 0, "time_s": [0.0, 0.1, 0.2], "valence": [0, 0.5, -1],
    "arousal": [0.1, 0.2, 1.0],
})  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, 1.5, 1e308, -1e308, float("nan"), float("inf"), 10**30,
    10**400, -(10**400), "", "x", "hello there", " ", "\ud800", "\x00", "1.5", [], {}, [[]], [None],
    {"": None}, "[Music]", "\n", "♪", "9" * 5000,
)  # fmt: skip


def pieced(rng: Random, pieces: tuple[str, ...], others: tuple[str, ...]) -> str:
    """Join pieces of a grammar, some of `others`, some repeated."""
    parts = []
    for _ in range(int(rng.random() ** 2 * 24)):
        part = rng.choice(pieces if rng.random() < 0.75 else others)
        parts.append(part * int(1 / (1 - rng.random())) if rng.random() < 0.05 else part)
    return "".join(parts)[:LARGE_BYTES]


def large(rng: Random, pieces: tuple[str, ...]) -> str:
    """Repeat one to three pieces until the text is long."""
    part = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 3))) or "x"
    start = rng.choice(pieces) if rng.random() < 0.5 else ""
    return start + part * (rng.randint(1000, LARGE_BYTES) // len(part))


def spoiled(rng: Random, text: str, pieces: tuple[str, ...]) -> str:
    """Change a valid text in one to five places."""
    for _ in range(rng.randint(1, 5)):
        a, b = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        way = rng.randrange(6)
        if way == 0:
            text = text[:a] + text[b:]
        elif way == 1:
            text = text[:b] + text[a:b] + text[b:]
        elif way == 2:
            text = text[:a] + rng.choice(pieces) + text[a:]
        elif way == 3:
            text = text[:a] + rng.choice(pieces) + text[min(a + 3, b) :]
        elif way == 4:
            text = text[:a] + chr(int(rng.random() ** 4 * 0xD7FF)) + text[a + 1 :]
        else:
            text = text[:b]
    return text


ENCODINGS = ("utf-8",) * 12 + (
    "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1",
)  # fmt: skip


def encoded(rng: Random, text: str) -> bytes:
    """Write a text in one of the encodings that are met, and change a byte now and then."""
    data = text.encode(rng.choice(ENCODINGS), "replace")
    if data and rng.random() < 0.15:
        changed = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        data = bytes(changed)
    return data


def tree(rng: Random, keys: tuple[str, ...], depth: int = 0) -> Any:
    """Make a value of JSON, with known names at unknown places."""
    kind = rng.random()
    if kind < 0.3 + 0.2 * depth or depth > 4:
        return rng.choice(VALUES)
    if kind < 0.65:
        return [tree(rng, keys, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(keys): tree(rng, keys, depth + 1) for _ in range(rng.randrange(6))}


def replaced(rng: Random, value: Any, keys: tuple[str, ...]) -> Any:
    """Put something else in one place of a valid value of JSON, often what fits there as well."""
    if isinstance(value, (int, float)) and rng.random() < 0.5:
        return type(value)(rng.uniform(-2, 2) * 10 ** rng.randrange(4))
    if isinstance(value, str) and rng.random() < 0.5:
        return rng.choice(WORDS) + rng.choice(SPACES) + value
    if rng.random() < 0.2 or not isinstance(value, (dict, list)) or not value:
        return tree(rng, keys, 2)
    if isinstance(value, list):
        k = rng.randrange(len(value))
        return [*value[:k], replaced(rng, value[k], keys), *value[k + 1 :]]
    name = rng.choice(list(value))
    if rng.random() < 0.1:
        return {k: v for k, v in value.items() if k != name}
    return {**value, name: replaced(rng, value[name], keys)}
