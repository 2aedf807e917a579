"""Media to be damaged, and media that lie about themselves: what `hostile.py` takes from here.

A piece of a real clip is written in many containers and codecs; boxes of mp4 and elements of
Matroska are rewritten one field at a time. Everything is the same for the same clip.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.float32]

PIECE_S, PICTURES_HZ, SOUND_HZ = 0.8, 12, 16_000
EXACT = {"fflags": "+bitexact"}
HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts")  # boxes of boxes
BIT_RATES = {"libopencore_amrnb": 12_200}  # it has eight
EDGES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class Form:
    """A container and its codecs; None where it has no such stream."""

    ending: str
    video: str | None = None
    audio: str | None = None
    pixels: str = "yuv420p"
    rate_hz: int = SOUND_HZ
    options: tuple[tuple[str, str], ...] = ()
    layout: str = "mono"
    pictures_hz: int = PICTURES_HZ

    @property
    def name(self) -> str:
        """What tells it from the others."""
        codecs = "-".join(codec for codec in (self.video, self.audio) if codec)
        return f"{codecs}{'-parts' if self.options else ''}.{self.ending}"


PARTS = (("movflags", "frag_keyframe+empty_moov"),)
FORMS = (
    Form("mp4", "libx264", "aac"),
    Form("mp4", "libx264", "aac", options=PARTS),
    Form("mp4", "libx265", "ac3", rate_hz=48_000),
    Form("mp4", "mpeg4", "libmp3lame"),
    Form("mp4", "libsvtav1", "libopus"),
    Form("mov", "prores", "pcm_s16le", "yuv422p10le"),
    Form("mov", "qtrle", "alac", "rgb24"),
    Form("mov", "png", "pcm_u8", "rgb24"),
    Form("mkv", "libx264", "aac"),
    Form("mkv", "ffv1", "flac"),
    Form("mkv", "jpeg2000", "vorbis", layout="stereo"),
    Form("webm", "libvpx-vp9", "libopus"),
    Form("webm", "libvpx", "libopus"),
    Form("avi", "mpeg4", "libmp3lame"),
    Form("avi", "mjpeg", "pcm_s16le", "yuvj420p"),
    Form("avi", "cinepak", "adpcm_ima_wav", "rgb24"),
    Form("avi", "zmbv", "pcm_u8", "bgr0"),
    Form("mpg", "mpeg2video", "mp2", pictures_hz=25),
    Form("mpg", "mpeg1video", "mp2", pictures_hz=25, rate_hz=48_000),
    Form("ts", "libx264", "aac"),
    Form("ts", "mpeg2video", "mp2", pictures_hz=25),
    Form("wmv", "wmv2", "wmav2", rate_hz=44_100),
    Form("asf", "msmpeg4", "libmp3lame"),
    Form("flv", "libx264", "aac"),
    Form("flv", "flv", "libmp3lame", rate_hz=22_050),
    Form("mxf", "mpeg2video", "pcm_s16le", rate_hz=48_000, pictures_hz=25),
    Form("gif", "gif", None, "rgb8"),
    Form("m2v", "mpeg2video", pictures_hz=25),
    Form("ogg", None, "libopus"),
    Form("ogg", None, "flac"),
    Form("wav", None, "pcm_s16le"),
    Form("wav", None, "adpcm_ms"),
    Form("w64", None, "pcm_s16le"),
    Form("mp3", None, "libmp3lame"),
    Form("m4a", None, "aac"),
    Form("flac", None, "flac"),
    Form("aac", None, "aac"),
    Form("ac3", None, "ac3", rate_hz=48_000),
    Form("eac3", None, "eac3", rate_hz=48_000),
    Form("aiff", None, "pcm_s16be"),
    Form("au", None, "pcm_s16be"),
    Form("caf", None, "pcm_s16le"),
    Form("amr", None, "libopencore_amrnb", rate_hz=8_000),
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """Decoded from a clip: pictures (h, w, 3), sound (n,) at `SOUND_HZ`."""

    pictures: Sequence[Picture]
    sound: Sound


def decoded(clip: Path) -> Piece:
    """Take the first `PIECE_S` of a clip, at `PICTURES_HZ`, 128 px high."""
    pictures: list[Picture] = []
    first_s: float | None = None
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            first_s = frame.time if first_s is None else first_s
            if frame.time - first_s >= len(pictures) / PICTURES_HZ:
                width = round(frame.width * 128 / frame.height / 16) * 16
                pictures.append(frame.to_ndarray(width=width, height=128, format="rgb24"))
            if len(pictures) >= PIECE_S * PICTURES_HZ:
                break
    return Piece(pictures, _sound(clip))


def _sound(clip: Path) -> Sound:
    wanted = round(PIECE_S * SOUND_HZ)
    samples = [np.zeros(0, np.float32)]
    with av.open(str(clip)) as container:
        resampler = av.AudioResampler("flt", "mono", SOUND_HZ)
        for frame in container.decode(audio=0) if container.streams.audio else ():
            samples += [out.to_ndarray()[0] for out in resampler.resample(frame)]
            if sum(map(len, samples)) >= wanted:
                break
    heard = np.concatenate(samples)[:wanted]
    return np.pad(heard, (0, wanted - len(heard)))


def write(path: Path, piece: Piece, form: Form) -> None:
    """Write a piece in a form; one thread, so that the bytes are always the same."""
    options = EXACT | dict(form.options)
    with av.open(str(path), "w", container_options=options) as container:
        packets: list[Any] = []
        video = audio = None
        if form.video:
            more = {"strict": "-2", "threads": "1", "flags": "+bitexact"}
            video = container.add_stream(form.video, rate=form.pictures_hz, options=more)
            video.height, video.width = piece.pictures[0].shape[:2]
            video.pix_fmt = form.pixels
        if form.audio:
            more = {"strict": "-2", "flags": "+bitexact"}
            audio = container.add_stream(form.audio, rate=form.rate_hz, layout=form.layout)
            audio.options = more
            audio.bit_rate = BIT_RATES.get(form.audio, 64_000)
        if video is not None:
            for k, picture in enumerate(piece.pictures):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                frame = frame.reformat(video.width, video.height, form.pixels)
                frame.pts, frame.time_base = k, Fraction(1, form.pictures_hz)
                packets += video.encode(frame)
            packets += video.encode(None)
        if audio is not None:
            packets += _encoded(audio, piece.sound, form)
        container.mux(sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base))


def _encoded(audio: Any, sound: Sound, form: Form) -> list[Any]:
    context = audio.codec_context
    context.open()
    size = context.frame_size or 1024
    kind = context.format.name
    resampler = av.AudioResampler(kind, form.layout, form.rate_hz, frame_size=size)
    frame = av.AudioFrame.from_ndarray(sound[None], "flt", "mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, 0, Fraction(1, SOUND_HZ)
    packets = []
    for out in [*resampler.resample(frame), *resampler.resample(None), None]:
        packets += audio.encode(out)
    return packets


# mp4: boxes (ISO 14496-12)


def boxes(data: bytes) -> list[list[Any]]:
    """Part boxes into [kind, payload]; those that hold boxes into [kind, [...]]."""
    found: list[list[Any]] = []
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        payload = data[at + 8 : at + size]
        found.append([kind, boxes(payload) if kind in HOLDERS else payload])
        at += max(size, 8)
    return found


def joined(tree: Sequence[Sequence[Any]]) -> bytes:
    """Put boxes together again."""
    out = b""
    for kind, content in tree:
        payload = joined(content) if isinstance(content, list) else content
        out += struct.pack(">I", len(payload) + 8) + kind + payload
    return out


def found(tree: Sequence[Any], kind: bytes) -> Iterator[list[Any]]:
    """Give every box of a kind, however deep."""
    for box in tree:
        if box[0] == kind:
            yield box
        if isinstance(box[1], list):
            yield from found(box[1], kind)


def with_field(data: bytes, kind: bytes, at: int, value: int, size: int = 4) -> bytes:
    """Set a field of every box of a kind: `at` bytes into its payload."""
    tree = boxes(data)
    for box in found(tree, kind):
        box[1] = box[1][:at] + value.to_bytes(size, "big") + box[1][at + size :]
    return joined(tree)


def with_payload(data: bytes, kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the payload of every box of a kind."""
    tree = boxes(data)
    for box in found(tree, kind):
        box[1] = change(box[1])
    return joined(tree)


FIELDS: tuple[tuple[bytes, str, int, int, tuple[int, ...]], ...] = (
    # box, what it is, bytes into the payload, its size, values
    (b"mvhd", "time scale of the film", 12, 4, EDGES),
    (b"mvhd", "length of the film", 16, 4, EDGES),
    (b"mdhd", "time scale of a track", 12, 4, EDGES),
    (b"mdhd", "length of a track", 16, 4, EDGES),
    (b"tkhd", "number of a track", 12, 4, (0, 0xFFFFFFFF)),
    (b"tkhd", "display matrix", 40, 4, (0, 0x7FFFFFFF)),
    (b"stts", "number of times", 4, 4, EDGES),
    (b"stts", "samples of one length", 8, 4, EDGES),
    (b"stts", "length of a sample", 12, 4, EDGES),
    (b"ctts", "offset of a time", 12, 4, EDGES),
    (b"elst", "edits", 4, 4, (0, 0x7FFFFFFF)),
    (b"elst", "where an edit begins", 12, 4, (0x7FFFFFFF, 0x80000000)),
    (b"stsc", "samples a chunk", 12, 4, EDGES),
    (b"stsz", "size of all samples", 4, 4, (1, 0x7FFFFFFF, 0xFFFFFFFF)),
    (b"stsz", "number of samples", 8, 4, EDGES),
    (b"stco", "number of chunks", 4, 4, EDGES),
    (b"stco", "place of a chunk", 8, 4, EDGES),
    (b"stsd", "number of descriptions", 4, 4, (0, 0xFFFFFFFF)),
    (b"stsd", "width, or channels", 40, 2, (0, 1, 16_000, 0xFFFF)),
    (b"stsd", "height, or rate", 42, 2, (0, 1, 16_000, 0xFFFF)),
    (b"hdlr", "kind of a track", 8, 4, (0x76696465, 0x736F756E, 0x74657874)),
)  # fmt: skip


# Matroska: elements (RFC 9559), found by their id and a size of one byte

ELEMENTS: tuple[tuple[bytes, str, tuple[bytes, ...]], ...] = (
    (b"\x2a\xd7\xb1", "time stamp scale", (b"\0", b"\1", b"\x7f", b"\xff")),
    (b"\x44\x89", "length", (struct.pack(">d", float("nan")), struct.pack(">d", float("inf")),
                             struct.pack(">d", 1e300), struct.pack(">d", -5e9))),
    (b"\xb0", "width", (b"\0", b"\1", b"\xff")),
    (b"\xba", "height", (b"\0", b"\1", b"\xff")),
    (b"\xb5", "sampling rate", (struct.pack(">d", 0.0), struct.pack(">d", float("nan")),
                                struct.pack(">d", 1.0), struct.pack(">d", 3e9))),
    (b"\x9f", "channels", (b"\0", b"\xff")),
    (b"\xd7", "track number", (b"\0", b"\x7f")),
    (b"\x83", "kind of track", (b"\0", b"\1", b"\2", b"\x11")),
    (b"\xe7", "time of a cluster", (b"\0", b"\xff")),
)  # fmt: skip


def with_element(data: bytes, name: bytes, value: bytes) -> bytes:
    """Fill the elements of an id with a value, repeated or cut to their size."""
    out = bytearray(data)
    at = data.find(name)
    while at >= 0:
        size = data[at + len(name)] & 0x7F
        if data[at + len(name)] & 0x80 and 0 < size <= 8:
            begin = at + len(name) + 1
            out[begin : begin + size] = (value * 8)[:size]
        at = data.find(name, at + 1)
    return bytes(out)


def compressed_header(data: bytes, bomb_bytes: int = 0) -> bytes:
    """Give an mp4 its moov zlib-compressed (QuickTime cmov), or that many zeros instead."""
    tree = boxes(data)
    for box in tree:
        if box[0] != b"moov":
            continue
        plain_bytes = bomb_bytes or len(joined([box]))
        packer = zlib.compressobj(9)
        parts = [] if bomb_bytes else [packer.compress(joined([box]))]
        for _ in range(bomb_bytes >> 20):
            parts.append(packer.compress(bytes(1 << 20)))
        parts.append(packer.flush())
        packed = struct.pack(">I", min(plain_bytes, 0xFFFFFFFF)) + b"".join(parts)
        inner = joined([[b"dcom", b"zlib"], [b"cmvd", packed]])
        box[1] = joined([[b"cmov", inner]])
    return joined(tree)


def flat(path: Path, codec: str, pixels: str, ending: str, size_px: tuple[int, int]) -> None:
    """Write a picture of one colour, of any size: (width, height); a second where it is small."""
    width, height = size_px
    with av.open(str(path), "w", container_options=EXACT) as container:
        options = {"threads": "1", "strict": "-2", "flags": "+bitexact"}
        options |= {
            "libx264": {"preset": "ultrafast", "refs": "1", "rc-lookahead": "0"},
            "libvpx-vp9": {"cpu-used": "8"},
        }.get(codec, {})
        stream = container.add_stream(codec, rate=PICTURES_HZ, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        frame = av.VideoFrame(width, height, pixels)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for k in range(2 if width * height < 1 << 20 else 1):
            frame.pts, frame.time_base = k, Fraction(1, PICTURES_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def remuxed(
    source: Path,
    target: Path,
    change: Callable[[int, Any], Any] = lambda k, packet: packet,
    swap: bool = False,
) -> None:
    """Copy packets, each as `change` gives it (None: left out); `swap`: into another's stream."""
    with av.open(str(source)) as old, av.open(str(target), "w", container_options=EXACT) as new:
        twins = [new.add_stream_from_template(stream) for stream in old.streams]
        for k, packet in enumerate(old.demux()):
            if packet.dts is None:
                continue
            index = packet.stream.index
            changed = change(k, packet)
            if changed is not None:
                changed.stream = twins[(index + swap) % len(twins)]
                new.mux(changed)


def form(ending: str) -> Form:
    """The first of `FORMS` with an ending."""
    return next(one for one in FORMS if one.ending == ending)


def with_subtitles(
    source: Path, target: Path, codec: str, cues: Sequence[tuple[int, int, bytes]]
) -> None:
    """Copy a file and add subtitles: (start, length, text) in milliseconds."""
    with av.open(str(source)) as old, av.open(str(target), "w", container_options=EXACT) as new:
        twins = {s.index: new.add_stream_from_template(s) for s in old.streams}
        subtitles = new.add_mux_stream(codec)
        subtitles.time_base = Fraction(1, 1000)
        packets = []
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = twins[packet.stream.index]
                packets.append(packet)
        new.start_encoding()
        for packet in packets:
            new.mux(packet)
        for start, length, text in cues:
            if codec == "mov_text":
                text = len(text[:65_535]).to_bytes(2, "big") + text[:65_535]
            packet = av.Packet(b"0,0,Default,,0,0,0,," + text if codec == "ass" else text)
            packet.stream, packet.time_base = subtitles, Fraction(1, 1000)
            packet.pts = packet.dts = start
            packet.duration = length
            with contextlib.suppress(ValueError, OSError):  # times that this container cannot hold
                new.mux(packet)


def with_attachment(source: Path, target: Path, name: str) -> None:
    """Copy a file and attach another under a name."""
    with av.open(str(source)) as old, av.open(str(target), "w", container_options=EXACT) as new:
        twins = {s.index: new.add_stream_from_template(s) for s in old.streams}
        new.add_attachment(name, "application/x-truetype-font", b"attached")
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = twins[packet.stream.index]
                new.mux(packet)
