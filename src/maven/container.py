"""The file itself: is it whole and of a kind that is read, and what decodes in it.

Only local files of the containers in `DEMUXERS` are opened. Playlists and formats that refer to
other files (m3u8, concat, dash, sdp, image patterns) are not among them, and no protocol but `file`
is allowed. A container that declares more bytes than the file has is refused before it is opened.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

DEMUXERS = (
    *("mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "asf", "flv", "mxf", "dv", "gif"),
    *("ogg", "wav", "w64", "mp3", "flac", "aac", "ac3", "eac3", "aiff", "au", "caf", "amr"),
)
ACCEPTED = "video or audio in mp4, mov, mkv, webm, avi, mpg, ts, wmv, flv, wav, mp3, m4a, flac, ogg"

MP4_BOXES = (
    *(b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"udta", b"meta", b"pnot"),
    *(b"styp", b"sidx", b"ssix", b"moof", b"mfra", b"emsg", b"prft"),
)
EBML, EBML_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
EBML_FILLERS = (b"\xec", b"\xbf")  # void, checksum

RESTART_S = 1.0  # a clock that steps back further has restarted (joined recordings)
LEAP_S = 3600.0  # one that leaps ahead further has too, and by RESTART_S beyond the declared end
LEAST_BYTES_PER_S = 8  # of a whole file, silence too: what is declared longer ends there
MAX_PIXELS = 2**26  # of a picture: 8192 x 8192, twice what 8K video has
RATES_HZ = (1000, 1_000_000)  # of sound: below there is no speech, above there are no recorders
READ_ERRORS = 16  # failures to read in a row before the rest of a damaged file is given up
SPARE_BYTES = 2 * MAX_PIXELS  # as the largest picture: who cannot have so many is out of memory

_ACCEPTED_PIXELS = f"accepted: pictures of up to {MAX_PIXELS} pixels"

MediaPath = str | os.PathLike[str]


class MediaError(Exception):
    """A file that cannot be read; the message is one line that names it."""


@dataclass
class Damage:
    """What of a stream is lost, in doubt or set right; counted while it is read.

    Attributes:
        lost_n: packets that could not be decoded.
        torn_n: packets that the container gives as incomplete; the last may end with the file.
        flawed_n: pictures, or pieces of sound, that the decoder gives as faulty or patched up.
        unread_n: places that could not be read, with packets behind them.
        ended: reading was given up.
        last_s: time of the last packet before that, on the clock as it is in the file.
        leaps_n: restarts and leaps of the clock, closed up.
    """

    lost_n: int = 0
    torn_n: int = 0
    flawed_n: int = 0
    unread_n: int = 0
    ended: bool = False
    last_s: float | None = None
    leaps_n: int = 0

    def pass_over(self) -> None:
        """Forget what was lost so far: it lies before what is wanted. Leaps move what follows."""
        self.lost_n = self.torn_n = self.flawed_n = self.unread_n = 0

    def notes(self, stream: str, piece: str) -> list[str]:
        """Say it in lines: of a "video" of "picture"s, a "sound" of "piece"s; none where whole."""
        said = (
            (self.lost_n, "packet", "could not be decoded"),
            (self.torn_n, "packet", "came incomplete"),
            (self.flawed_n, piece, "came with errors"),
            (self.unread_n, "place", "could not be read"),
        )
        found = [f"{_several(number, what)} {how}" for number, what, how in said if number]
        if self.ended:
            where = "" if self.last_s is None else f" at {self.last_s:.1f} s"
            found.append(f"reading was given up{where}")
        lines = [f"the {stream} is damaged: {', '.join(found)}"] if found else []
        if self.leaps_n:
            times = _several(self.leaps_n, "time")
            lines.append(f"the clock of the {stream} leaps or restarts ({times}): closed up")
        return lines


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def size_bytes(path: MediaPath) -> int:
    """Return the size of a local file that is there and is not empty.

    Raises:
        MediaError: it is missing, not a file, or empty.
    """
    if "://" in os.fspath(path):
        raise MediaError(f"{path}: a network address; accepted: a local file")
    try:
        status = Path(path).stat()
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}; accepted: {ACCEPTED}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise MediaError(f"{path}: {kind}; accepted: a file with {ACCEPTED}")
    if status.st_size == 0:
        raise MediaError(f"{path}: an empty file; accepted: {ACCEPTED}")
    return status.st_size


@contextmanager
def opened(path: MediaPath) -> Iterator[Any]:
    """Open a whole file of an accepted kind as an `av` input container.

    Raises:
        MediaError: it is not one, it is cut off, or reading it fails while it is open.
    """
    import av

    _check_whole(path, size_bytes(path))
    try:
        container = av.open(
            f"file:{Path(path).absolute()}",  # so that nothing in the name is read as a protocol
            metadata_errors="replace",
            options={"max_pixels": str(MAX_PIXELS)},  # of decoders: FFmpeg opens some to look
            container_options={
                "protocol_whitelist": "file",
                "format_whitelist": ",".join(DEMUXERS),
            },
        )
    except av.FFmpegError as error:
        _check_memory(error)
        message = f"{path}: not a media file that maven can read; accepted: {ACCEPTED}"
        raise MediaError(message) from error
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            _check_memory(error)
            raise MediaError(f"{path}: reading it failed ({error.strerror})") from error


def pick(container: Any, kind: str) -> Any | None:
    """Choose the "video" or "audio" stream: with a decoder, marked default, first.

    Cover pictures are not video.
    """
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    return min(
        (s for s in getattr(container.streams, kind) if not s.disposition & pictures),
        key=lambda s: (s.codec_context is None, not s.disposition & Disposition.default),
        default=None,
    )


def codec_name(stream: Any) -> str:
    """Name a stream's codec, "unknown" where there is no decoder for it."""
    context = stream.codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)


@dataclass(frozen=True)
class Begin:
    """Where reading a stream begins.

    Attributes:
        ticks: time that is sought, of the stream with the number `stream`; None: the first packet.
        stream: a number among all streams of the file.
        skip_n: packets passed over from there on.
    """

    ticks: int | None = None
    stream: int = 0
    skip_n: int = 0


FIRST = Begin()


def decoded(
    path: MediaPath,
    container: Any,
    stream: Any,
    begin: Begin = FIRST,
    damage: Damage | None = None,
) -> Iterator[Any]:
    """Yield every frame of a stream that decodes; damaged packets are skipped, and counted.

    Raises:
        MediaError: the stream has packets and not one of them decodes, or its pictures or its
            sound's rate are beyond what is accepted.
        MemoryError: there is none left to decode with.
    """
    import av

    damage = damage or Damage()
    if stream.type == "video" and stream.codec_context is not None:
        width, height = stream.width, stream.height
        if width * height > MAX_PIXELS:
            raise MediaError(f"{path}: pictures of {width} x {height} pixels; {_ACCEPTED_PIXELS}")
        if not stream.codec_context.is_open:
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    has_packets = has_frames = False
    # One piece of sound at either end is no damage: a tag there, or what a cut has left of it.
    failed_n, spared_n = 0, 1 if stream.type == "audio" else 0
    wanted = islice(packets(container, stream, begin, damage), begin.skip_n, None)
    for packet in chain(wanted, (None,)):  # None: what is still held back
        has_packets = has_packets or packet is not None
        if stream.codec_context is None:
            continue
        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError as error:
            _check_memory(error)
            failed_n += 1
            continue
        for frame in frames:
            damage.lost_n += failed_n if has_frames or failed_n > spared_n else 0
            has_frames, failed_n = True, 0
            damage.flawed_n += frame.is_corrupt
            if stream.type == "audio" and not RATES_HZ[0] <= frame.sample_rate <= RATES_HZ[1]:
                accepted = f"accepted: {RATES_HZ[0]} to {RATES_HZ[1]} Hz"
                raise MediaError(f"{path}: sound at {frame.sample_rate} Hz; {accepted}")
            yield frame
    damage.lost_n += failed_n if failed_n > spared_n else 0
    if has_packets and not has_frames and begin == FIRST:
        kind = f"{codec_name(stream)} {stream.type}"
        accepted = f"; {_ACCEPTED_PIXELS}" if stream.type == "video" else ""
        raise MediaError(f"{path}: nothing of its {kind} can be decoded{accepted}")


class Clock:
    """The times of a stream's frames, with restarts and leaps of its clock closed up.

    AVI has no presentation times (`timed` is False): it counts slots, in decoding order. There the
    dts is a picture's time, and a sound's only as the first one's.
    """

    def __init__(self, container: Any, stream: Any, damage: Damage | None = None) -> None:
        self._damage = damage or Damage()
        self.timed = container.format.name != "avi"
        self._time_base = stream.time_base
        self._shift_s = 0.0
        self.end_s = math.inf
        if container.start_time is not None:  # in microseconds, as the length
            held_s = container.size / LEAST_BYTES_PER_S
            known = container.duration is not None
            length_s = min(container.duration / 1e6, held_s) if known else held_s
            self.end_s = container.start_time / 1e6 + length_s

    def times_s(self, frame: Any, expected_s: float | None = None) -> Iterator[float]:
        """Yield what may be the frame's time, most trusted first.

        Args:
            frame: a decoded frame.
            expected_s: where the frame before it ended; None for the first.
        """
        for stamp in (frame.pts, frame.dts) if self.timed else (frame.dts, frame.pts):
            if stamp is None:
                continue
            raw_s = float(stamp * self._time_base)
            if expected_s is not None:
                step_s = raw_s + self._shift_s - expected_s
                leap_s = RESTART_S if raw_s > self.end_s else LEAP_S
                if not -RESTART_S <= step_s <= leap_s:
                    self._shift_s = expected_s - raw_s
                    self._damage.leaps_n += 1
            yield raw_s + self._shift_s


def packets(
    container: Any, stream: Any, begin: Begin = FIRST, damage: Damage | None = None
) -> Iterator[Any]:
    """Yield the packets of a stream from where `begin` leads, none passed over yet.

    Reading goes on behind damaged places.
    """
    import av

    damage = damage or Damage()
    if begin.ticks is not None:
        container.seek(begin.ticks, stream=container.streams[begin.stream])
    failures, ticks, torn = 0, None, False
    while failures < READ_ERRORS:
        try:
            for packet in container.demux(stream):
                damage.unread_n += failures > 0
                failures = 0
                if packet.size:  # an empty one would end the decoding
                    damage.torn_n += torn
                    torn = packet.is_corrupt
                    ticks = packet.pts if packet.dts is None else packet.dts
                    yield packet
            return
        except av.FFmpegError as error:
            _check_memory(error)
            failures += 1
        except IndexError:  # PyAV's own flush, where streams turned up in mid-file
            return
    damage.ended, damage.last_s = True, None if ticks is None else float(ticks * stream.time_base)


def _check_memory(error: Exception) -> None:
    """Tell a process without memory from damaged data that ask for too much of it.

    Raises:
        MemoryError: it has none left.
    """
    if isinstance(error, MemoryError):
        bytearray(SPARE_BYTES)


def _check_whole(path: MediaPath, held_bytes: int) -> None:
    """Refuse a file whose outermost structure reaches past its end, or that never got its index."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(12)
            if head[4:8] in MP4_BOXES:
                declared_bytes = _mp4_end(file, path, held_bytes)
            elif head[:4] == b"RIFF" and head[8:] in (b"AVI ", b"WAVE"):
                declared_bytes = _riff_end(file)
            elif head[:4] == EBML:
                declared_bytes = _matroska_end(file)
            else:
                return
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}; accepted: {ACCEPTED}") from error
    if declared_bytes > held_bytes:
        size = f"{held_bytes} of the {declared_bytes} bytes it declares"
        raise MediaError(f"{path}: cut off: holds {size}")


def _mp4_end(file: BinaryIO, path: MediaPath, held_bytes: int) -> int:
    """Where the last top-level box ends (ISO 14496-12, 4.2); junk behind the boxes is not one."""
    end, has_index = 0, False
    while True:
        file.seek(end)
        head = file.read(16)
        kind, length = head[4:8], int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        has_index = has_index or kind in (b"moov", b"moof")
        if kind not in MP4_BOXES or length < 8:  # 0: to the end of the file, wherever that is
            break
        end += length
    if not has_index and kind in (b"", b"mdat") and end <= held_bytes:
        raise MediaError(f"{path}: cut off: its index (moov), which is written last, is missing")
    return end


def _riff_end(file: BinaryIO) -> int:
    """Where the last RIFF chunk ends; a file beyond 1 GB has several (OpenDML)."""
    end = 0
    while True:
        file.seek(end)
        head = file.read(12)
        length = int.from_bytes(head[4:8], "little")
        # Recorders that write a wave into a pipe put a huge length for "unknown".
        if head[:4] != b"RIFF" or (head[8:] == b"WAVE" and length >= 0x7FFF0000):
            return end
        end += 8 + length


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends (RFC 8794, 5 and 6); 0 where its length is declared unknown."""
    end = 0
    while True:
        file.seek(end)
        head = file.read(12)
        id_n = 9 - head[0].bit_length() if head and head[0] else 0
        if head[:id_n] not in (EBML, EBML_SEGMENT, *EBML_FILLERS) or len(head) <= id_n:
            return end
        size_n = 9 - head[id_n].bit_length()
        length = int.from_bytes(head[id_n : id_n + size_n], "big") & ((1 << 7 * size_n) - 1)
        if length == (1 << 7 * size_n) - 1:
            return 0
        end += id_n + size_n + length
