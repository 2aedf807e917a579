"""The process behind one live session: `python -m maven.web.live_worker [--model NAME]`.

Pictures and sound come in on stdin, lists of what the client is told go out on stdout as JSON; both
ways each is led by its length. Every message is answered by one list. What is decoded here came
from outside: the process may write no file, may not grow without bound, and ends with its parent,
whose end closes stdin. What the messages are is in `maven.web.live`.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import struct
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from maven.files import plain
from maven.media import AUDIO_RATE_HZ

if TYPE_CHECKING:
    from maven.live import Stream

PICTURE, SOUND = 1, 2
HEAD = struct.Struct("<Bd")  # kind, time_s
LENGTH = struct.Struct("<I")  # of what follows in the pipes

PICTURE_BYTES = 2_000_000
PICTURE_PX = 4_000_000
SIDE_PX = 16  # at least
SOUND_S = 1.0
LATEST_S = 1e9  # beyond, a time is none

UNSUPPORTED, AGAINST_RULES, FAILED = 1003, 1008, 1011  # RFC 6455, 7.4.1
NEWEST_TICKS = 2  # of those that are due at once, so many are answered: late ones help nobody
GROWTH_BYTES = 1 << 30  # once the model is there

Told = dict[str, Any]


class BadMessageError(Exception):
    """A message that ends its session; `code` is the close code, the text the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Piece:
    """A picture (JPEG) or a piece of sound (float32), and its time on the client's clock."""

    kind: int
    time_s: float
    body: bytes

    @property
    def length_s(self) -> float:
        """Of sound."""
        return len(self.body) / 4 / AUDIO_RATE_HZ


def parse(message: bytes) -> Piece:
    """Take a message apart; what can be told without decoding is checked.

    Raises:
        BadMessageError: it is none.
    """
    if len(message) <= HEAD.size:
        raise BadMessageError(UNSUPPORTED, "a message is 1 byte kind, 8 bytes time, then data")
    kind, time_s = HEAD.unpack_from(message)
    body = message[HEAD.size :]
    if not (math.isfinite(time_s) and abs(time_s) <= LATEST_S):
        raise BadMessageError(AGAINST_RULES, "a time is a finite number of seconds, up to 1e9")
    if kind == PICTURE:
        if len(body) > PICTURE_BYTES:
            raise BadMessageError(AGAINST_RULES, "a picture has at most 2 MB")
        if body[:3] != b"\xff\xd8\xff":
            raise BadMessageError(UNSUPPORTED, "a picture is a JPEG")
    elif kind == SOUND:
        if len(body) % 4:
            raise BadMessageError(UNSUPPORTED, "sound is float32, 4 bytes a sample")
        if len(body) > 4 * SOUND_S * AUDIO_RATE_HZ:
            raise BadMessageError(AGAINST_RULES, "a piece of sound has at most 1 s, 16,000 samples")
    else:
        raise BadMessageError(UNSUPPORTED, f"kinds are 1 (picture) and 2 (sound), got {kind}")
    return Piece(kind, time_s, body)


def decoded(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """Decode a picture to (h, w, 3) uint8.

    Raises:
        BadMessageError: it is too large, or no JPEG that decodes.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:  # reads the head only
            width_px, height_px = picture.size
            if width_px * height_px <= PICTURE_PX and min(picture.size) >= SIDE_PX:
                return np.asarray(picture.convert("RGB"))
    except Image.DecompressionBombError:
        pass
    except Exception as error:  # damaged files make Pillow raise errors of many kinds
        raise BadMessageError(UNSUPPORTED, "a picture is not a JPEG that decodes") from error
    raise BadMessageError(
        AGAINST_RULES, "a picture has at most 4 million pixels, and 16 on a side at least"
    )


class Session:
    """A stream, and what its client is told of it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._answered_s = -math.inf
        self._size_px = (0, 0)

    def take(self, piece: Piece) -> list[Told]:
        """Push a piece, and say what came of it.

        What comes too late for the stream is left out: clocks of sound and pictures drift apart.

        Raises:
            BadMessageError: it cannot be decoded.
        """
        if piece.kind == PICTURE:
            rgb, used = decoded(piece.body), True
            try:
                self._stream.push_frame(rgb, piece.time_s)
                self._size_px = (rgb.shape[1], rgb.shape[0])
            except ValueError:
                used = False
            told: list[Told] = [{"type": "frame", "time_s": piece.time_s, "used": used}]
            return told + self._answers()
        samples = np.frombuffer(piece.body, "<f4").astype(np.float32)
        if not np.isfinite(samples).all():
            raise BadMessageError(UNSUPPORTED, "sound has samples that are no finite numbers")
        with suppress(ValueError):
            self._stream.push_audio(samples.clip(-1, 1), piece.time_s)
        return self._answers()

    def _answers(self) -> list[Told]:
        answer = self._stream.latest()
        if answer is None or answer.time_s <= self._answered_s:
            return []
        self._answered_s = answer.time_s
        return [{"type": "answer", **plain(asdict(answer)), "size_px": self._size_px}]


def send(target: BinaryIO, told: list[Told]) -> None:
    """Write one list, led by its length."""
    content = json.dumps(told, allow_nan=False).encode()
    target.write(LENGTH.pack(len(content)) + content)
    target.flush()


def receive(source: BinaryIO) -> bytes | None:
    """Read what is led by its length; None at the end."""
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    content = source.read(length)
    return content if len(content) == length else None


def limit() -> None:
    """Forbid this process to write files, and to grow by more than `GROWTH_BYTES` from here on."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    pages = Path("/proc/self/statm")
    if pages.exists():  # elsewhere memory is not limited
        held_bytes = int(pages.read_text().split()[0]) * resource.getpagesize()
        most_bytes = held_bytes + GROWTH_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))


def serve(source: BinaryIO, target: BinaryIO, settings: Mapping[str, Any]) -> None:
    """Answer what comes until there is no more; settings are those of `maven.checkpoint.load`."""
    from maven import live
    from maven.checkpoint import load

    try:
        session = Session(live.Stream(load(**settings), most_ticks=NEWEST_TICKS))
    except Exception:
        traceback.print_exc()  # it may name folders: for who runs the server, nobody else
        send(target, [{"type": "error", "code": FAILED, "reason": "the model cannot be loaded"}])
        return
    limit()
    send(target, [{"type": "ready"}])
    while (message := receive(source)) is not None:
        try:
            told = session.take(parse(message))
        except BadMessageError as error:
            told = [{"type": "error", "code": error.code, "reason": str(error)}]
        send(target, told)


def main() -> None:
    """Run as a process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    model = parser.parse_args().model
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with suppress(BrokenPipeError, KeyboardInterrupt):
        serve(sys.stdin.buffer, target, {"name": model, "offline": True})


if __name__ == "__main__":
    main()
