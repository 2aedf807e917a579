"""Real clips, damaged byte by byte, and headers, clocks and streams that lie.

What `hostile.py` is made of: every function gives cases, and a case makes one file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hostile_media as media
from hostile_media import FORMS, Form, Piece

CLIP_SUFFIXES = (".mp4", ".mov", ".avi", ".mpg")
CLIPS = 6  # pieces of so many real clips
WORDS = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SOURCES = {"mkv": "mp4"}  # whose packets are copied into a container
LATEST = (1 << 63) - (1 << 20)  # of a time stamp, in ticks
Damage = Callable[[bytearray, random.Random], bytes]


@dataclass(frozen=True)
class Case:
    """A hostile file: `ends` is "result", "error" or "either"; `heavy`: it takes long to make."""

    kind: str
    name: bytes
    ends: str
    what: str
    make: Callable[[Path], None]
    heavy: bool = False


class Material:
    """Pieces of real clips in every form, made when asked for, kept in a folder."""

    def __init__(self, clips: Path, kept: Path) -> None:
        found = sorted(path for path in clips.iterdir() if path.suffix in CLIP_SUFFIXES)
        if not found:
            raise SystemExit(f"{clips}: no clip; accepted: a folder with {CLIP_SUFFIXES}")
        self._clips, self._kept = found[:: max(len(found) // CLIPS, 1)][:CLIPS], kept
        self._pieces: dict[Path, Piece] = {}

    def piece(self, index: int = 0) -> Piece:
        """Give the piece of a clip."""
        clip = self._clips[index % len(self._clips)]
        if clip not in self._pieces:
            self._pieces[clip] = media.decoded(clip)
        return self._pieces[clip]

    def path(self, form: Form, index: int = 0) -> Path:
        """Give a piece as a file of a form."""
        path = self._kept / f"{index % len(self._clips)}-{form.name}"
        if not path.exists():
            media.write(path, self.piece(index), form)
        return path

    def read(self, ending: str = "mp4", index: int = 0) -> bytearray:
        """Give the bytes of a piece in the first form of an ending."""
        return bytearray(self.path(media.form(ending), index).read_bytes())


# Damage to bytes


def _index(data: bytearray) -> tuple[int, int]:
    """Where the index lies: the last fifth where it has no known beginning."""
    for name in (b"moov", b"idx1", b"\x1c\x53\xbb\x6b", b"\x06\x0e\x2b\x34"):
        at = data.rfind(name)
        if at > 0:
            return at, len(data)
    return len(data) * 4 // 5, len(data)


def _flipped(data: bytearray, dice: random.Random, begin: int, end: int, share: float) -> bytes:
    for _ in range(max(1, round((end - begin) * share))):
        data[dice.randrange(begin, end)] ^= 1 << dice.randrange(8)
    return bytes(data)


def _sizes(data: bytearray, dice: random.Random) -> bytes:
    begin, end = dice.choice([(0, min(len(data), 600)), _index(data)])
    order: Literal["big", "little"] = dice.choice(["big", "little"])
    for _ in range(3):
        at = dice.randrange(begin, max(end - 4, begin + 1))
        data[at : at + 4] = dice.choice(WORDS).to_bytes(4, order)
    return bytes(data)


def _cut(data: bytearray, dice: random.Random) -> bytes:
    return bytes(data[: dice.randrange(1, len(data))])


def _hole(data: bytearray, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    n = dice.randrange(1, len(data) // 4)
    data[at : at + n] = dice.choice([bytes(n), b"\xff" * n, dice.randbytes(n), b""])
    return bytes(data)


def _shuffled(data: bytearray, dice: random.Random) -> bytes:
    size = dice.choice([188, 512, 4096])
    blocks = [data[k : k + size] for k in range(0, len(data), size)]
    a, b = dice.randrange(len(blocks)), dice.randrange(len(blocks))
    blocks[a], blocks[b] = blocks[b], blocks[a]
    return b"".join(blocks)


def _twice(data: bytearray, dice: random.Random) -> bytes:
    return bytes(data + data[dice.randrange(len(data)) :])


DAMAGES: dict[str, Damage] = {
    "bits flipped in the header": lambda d, r: _flipped(d, r, 0, min(len(d), 600), 0.01),
    "bits flipped in the index": lambda d, r: _flipped(d, r, *_index(d), 0.01),
    "bits flipped in the payload": lambda d, r: _flipped(d, r, min(600, len(d) // 2), len(d), 3e-3),
    "cut at random": _cut,
    "numbers replaced by extreme ones": _sizes,
    "a hole": _hole,
    "two blocks exchanged": _shuffled,
    "its end repeated behind it": _twice,
}


def damaged(material: Material, seed: int) -> Iterator[Case]:
    """Every form, damaged in every way."""
    for number, (what, damage) in enumerate(DAMAGES.items()):
        for k, form in enumerate(FORMS):

            def make(
                path: Path, what: str = what, damage: Damage = damage, k: int = k, form: Form = form
            ) -> None:
                dice = random.Random(f"{seed} {what} {form.name}")
                path.write_bytes(damage(bytearray(material.path(form, k).read_bytes()), dice))

            name = f"{number}-{form.name}".encode()
            yield Case("damaged", name, "either", f"{form.name}: {what}", make)


# Lies


def lies(material: Material) -> Iterator[Case]:
    """Headers that say other than what is there."""
    for k, (box, what, at, size, values) in enumerate(media.FIELDS):
        for value in values:

            def make(
                path: Path, box: bytes = box, at: int = at, value: int = value, size: int = size
            ) -> None:
                path.write_bytes(media.with_field(bytes(material.read()), box, at, value, size))

            name = f"{k:02}-{box.decode()}-{value:x}.mp4".encode()
            yield Case("lies", name, "either", f"{what} is {value}", make)
    for k, (element, what, contents) in enumerate(media.ELEMENTS):
        for n, content in enumerate(contents):

            def put(path: Path, element: bytes = element, content: bytes = content) -> None:
                path.write_bytes(media.with_element(bytes(material.read("mkv")), element, content))

            name = f"{k:02}-{n}.mkv".encode()
            yield Case("lies", name, "either", f"Matroska: {what} is {content.hex()}", put)
    wave = {"channels": (22, 2), "rate": (24, 4), "bytes a second": (28, 4), "alignment": (32, 2),
            "bits": (34, 2), "size of the samples": (40, 4), "codec": (20, 2)}  # fmt: skip
    for what, (at, size) in wave.items():
        for value in (0, 1, 7, 0x7FFF, 0x7FFFFFFF, 0xFFFFFFFF):
            if value >> 8 * size:
                continue

            def lie(path: Path, at: int = at, size: int = size, value: int = value) -> None:
                data = material.read("wav")
                data[at : at + size] = value.to_bytes(size, "little")
                path.write_bytes(data)

            name = f"{what.replace(' ', '-')}-{value:x}.wav".encode()
            yield Case("lies", name, "either", f"wave: {what} is {value}", lie)
    avi = {"microseconds a picture": b"avih", "scale and rate": b"vids", "sizes": b"strf"}
    for what, mark in avi.items():
        for value in (0, 0xFFFFFFFF):

            def avi_lie(path: Path, mark: bytes = mark, value: int = value) -> None:
                data = material.read("avi")
                at = data.index(mark) + (20 if mark == b"vids" else 8)
                data[at : at + 8] = value.to_bytes(4, "little") * 2
                path.write_bytes(data)

            name = f"{what.replace(' ', '-')}-{value:x}.avi".encode()
            yield Case("lies", name, "either", f"AVI: {what} are {value}", avi_lie)


def times(material: Material) -> Iterator[Case]:
    """Clocks that stand still, leap, run backwards or count from far away."""
    clocks: dict[str, Callable[[int, int], int]] = {
        "all at once": lambda k, t: 0,
        "an hour apart, nearly": lambda k, t: t + k * 3_599_000,
        "a day apart": lambda k, t: t + k * 86_400_000,
        "a second back each": lambda k, t: t - k * 900,
        "at the end of 62 bits": lambda k, t: t + (1 << 62),
        "before zero": lambda k, t: t - 10_000_000,
        "one of them a century late": lambda k, t: t + (k > 9) * 3_155_760_000_000,
        "zigzag": lambda k, t: t + (k % 2) * 3_000_000,
    }
    for ending in ("mkv", "ts", "flv", "avi"):
        for what, clock in clocks.items():

            def make(
                path: Path, ending: str = ending, clock: Callable[[int, int], int] = clock
            ) -> None:
                def moved(k: int, packet: Any) -> Any:
                    scale = 1 / (1000 * packet.time_base)
                    shift = round((clock(k, 0)) * scale)
                    packet.pts = packet.dts = min(packet.dts + shift, LATEST)
                    return packet

                source = material.path(media.form(SOURCES.get(ending, ending)))
                target = path.with_name("part." + ending)
                with suppress(OSError, ValueError, OverflowError):  # it cannot say all of it
                    media.remuxed(source, target, moved)
                target.replace(path)

            name = f"{what.replace(' ', '-').replace(',', '')}.{ending}".encode()
            yield Case("times", name, "either", f"{ending}: times {what}", make)


def streams(material: Material) -> Iterator[Case]:
    """Streams exchanged, without key frames, in great number; headers of another file."""
    for ending in ("mp4", "mkv", "avi", "ts", "flv", "wmv", "mxf"):

        def swapped(path: Path, ending: str = ending) -> None:
            _remuxed(material.path(media.form(SOURCES.get(ending, ending))), path, swap=True)

        def keyless(path: Path, ending: str = ending) -> None:
            def dropped(k: int, packet: Any) -> Any:
                is_key = packet.stream.type == "video" and packet.is_keyframe
                return None if is_key else packet

            _remuxed(material.path(media.form(SOURCES.get(ending, ending))), path, dropped)

        def headless(path: Path, ending: str = ending) -> None:
            other = material.read(ending, 1)
            data = material.read(ending)
            path.write_bytes(data[: len(data) // 3] + other[len(other) // 3 :])

        def emptied(path: Path, ending: str = ending) -> None:
            def one_byte(k: int, packet: Any) -> Any:
                empty = media.av.Packet(b"\0")
                empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
                return empty

            _remuxed(material.path(media.form(SOURCES.get(ending, ending))), path, one_byte)

        for name, what, make in (
            ("swapped", "packets in the other stream", swapped),
            ("keyless", "no key frame", keyless),
            ("headless", "the head of another clip", headless),
            ("emptied", "packets of one byte", emptied),
        ):
            yield Case("streams", f"{name}.{ending}".encode(), "either", f"{ending}: {what}", make)


def _remuxed(source: Path, path: Path, *arguments: Any, **named: Any) -> None:
    target = path.with_name(f"part-{path.name}")
    with suppress(OSError, ValueError, IndexError):  # what is written until then is hostile enough
        media.remuxed(source, target, *arguments, **named)
    target.replace(path)
