"""Files that refer to others, are no media, have odd names or odd transcripts beside them.

What they refer to are canaries in a folder of secrets, and addresses of this machine.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

PORT = 9  # of this machine: nobody listens
MARK = "the canary sings"  # in every secret
FORMAT = "ffconcat version 1.0\n"

Make = Callable[[Path], None]


def secrets(folder: Path, clip: bytes) -> None:
    """Write the files that nobody may open."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "secret.txt").write_text(MARK + "\n")
    (folder / "secret.srt").write_text(f"1\n00:00:00,000 --> 00:00:01,000\n{MARK}\n")
    (folder / "secret.mp4").write_bytes(clip)
    (folder / "secret000.png").write_bytes(b"\x89PNG\r\n\x1a\n" + MARK.encode())


def references(folder: Path) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Give (ending, what it is, its bytes) of files that name the secrets or an address."""
    clip, words = (folder / name for name in ("secret.mp4", "secret.txt"))
    places = {
        "a path": str(clip),
        "a file address": f"file://{clip}",
        "concat": f"concat:{words}|{clip}",
        "subfile": f"subfile,,start,0,end,64,,:{clip}",
        "crypto": f"crypto:{clip}",
        "data": "data:text/plain;base64,c2VjcmV0",
        "http": f"http://127.0.0.1:{PORT}/a.ts",
        "rtsp": f"rtsp://127.0.0.1:{PORT}/a",
        "tcp": f"tcp://127.0.0.1:{PORT}",
        "udp": f"udp://127.0.0.1:{PORT}",
        "an ftp address": f"ftp://127.0.0.1:{PORT}/a",
        "unix": "unix:/run/docker.sock",
        "a pattern": str(folder / "secret%03d.png"),
        "a device": "/dev/zero",
    }
    for what, place in places.items():
        yield "mp4", f"HLS playlist that names {what}", lambda place=place: _hls(place)
        yield "ts", f"ffconcat that names {what}", lambda place=place: _concat(place)
    for ending in ("m3u8", "mkv", "avi", "mp3", "webm"):
        yield ending, "HLS playlist of a path", lambda: _hls(str(clip))
    both = {"path": clip, "port": PORT}
    texts = {
        "HLS master playlist": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{path}\n",
        "HLS playlist with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{path}"\n'
        "#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
        "HLS playlist with a map": '#EXTM3U\n#EXT-X-MAP:URI="{path}"\n#EXTINF:1,\n{path}\n',
        "HLS playlist of itself": "#EXTM3U\n#EXTINF:1,\nself.mp4\n",
        "concat list": "file '{path}'\nfile '{path}'\n",
        "concat script with a stream": FORMAT + "stream\nexact_stream_id 1\nfile '{path}'\n",
        "session description": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "DASH manifest": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
        'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" type="static" '
        'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4">'
        '<Representation id="1" bandwidth="1"><BaseURL>{path}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>\n",
        "smooth streaming manifest": '<SmoothStreamingMedia><StreamIndex Url="{path}"/>'
        "</SmoothStreamingMedia>\n",
        "XML that reads a file": '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM '
        '"file://{path}">]><x>&e;</x>\n',
        "SVG with a picture": '<svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="{path}"/></svg>\n',
        "SMIL": '<smil><body><video src="http://127.0.0.1:{port}/a"/></body></smil>\n',
        "Windows media redirector": '<asx version="3.0"><entry><ref href="{path}"/></entry></asx>',
        "PLS playlist": "[playlist]\nFile1={path}\nNumberOfEntries=1\n",
        "XSPF playlist": "<playlist><trackList><track><location>{path}</location></track>"
        "</trackList></playlist>\n",
        "internet shortcut": "[InternetShortcut]\nURL=http://127.0.0.1:{port}/\n",
        "cue sheet": 'FILE "{path}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "AviSynth script": 'DirectShowSource("{path}")\n',
        "FFmpeg metadata": ";FFMETADATA1\ntitle={path}\n",
        "RealMedia redirector": "rtsp://127.0.0.1:{port}/a\n",
        "script": "#!/bin/sh\ncat {path} > canary\n",
        "list of images": "{path}\n{path}\n",
    }
    for what, text in texts.items():
        yield "mp4", what, lambda text=text: text.format(**both).encode()
    yield "mp4", "HLS playlist behind a box", lambda: _box(b"ftyp", b"isom") + _hls(str(clip))
    yield "mov", "reference film (rmra)", lambda: _reference_film(f"file://{clip}")
    yield "avi", "playlist as an AVI subtitle (GAB2)", lambda: _gab2(_hls(str(clip)))


def _hls(place: str) -> bytes:
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
    return f"{head}#EXTINF:1.0,\n{place}\n#EXT-X-ENDLIST\n".encode()


def _concat(place: str) -> bytes:
    return f"{FORMAT}file '{place}'\nduration 1\n".encode()


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload) + 8) + kind + payload


def _reference_film(address: str) -> bytes:
    place = address.encode() + b"\0"
    rdrf = _box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(place)) + place)
    film = _box(b"moov", _box(b"rmra", _box(b"rmda", rdrf)))
    return _box(b"ftyp", b"qt  " + bytes(4) + b"qt  ") + film


def data_reference(place: str) -> Callable[[bytes], bytes]:
    """Give the payload of a dref box whose samples lie in another file."""
    alis = bytes(4) + b"\0" * 142 + struct.pack(">HH", 2, len(place)) + place.encode() + b"\0\0"
    url = bytes(4) + f"file://{place}".encode() + b"\0"
    return lambda _: struct.pack(">II", 0, 2) + _box(b"alis", alis) + _box(b"url ", url)


def _riff(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + bytes(len(payload) & 1)


def _gab2(text: bytes) -> bytes:
    """An AVI with one stream of text that holds a playlist."""
    strh = b"txts" + bytes(4) + bytes(12) + struct.pack("<5I", 1, 25, 0, 1, 0) + bytes(12)
    strl = _riff(b"LIST", b"strl" + _riff(b"strh", strh) + _riff(b"strf", bytes(4)))
    avih = struct.pack("<14I", 40_000, 0, 0, 16, 1, 0, 1, 0, 16, 16, 0, 0, 0, 0)
    sub = b"GAB2\0" + struct.pack("<HIH", 2, 2, 0)[:6] + b"\0\0"
    sub += struct.pack("<HI", 4, len(text)) + text
    movi = _riff(b"LIST", b"movi" + _riff(b"00tx", sub))
    return _riff(b"RIFF", b"AVI " + _riff(b"LIST", b"hdrl" + _riff(b"avih", avih) + strl) + movi)


def contents(clip: bytes) -> Iterator[tuple[str, str, Make]]:
    """Give (ending, what it is, how it is made) of what is no media, or not what its name says."""

    def whole(content: bytes) -> Make:
        return lambda path: write(path, content)

    page = b"<!doctype html><script>fetch('http://127.0.0.1:9/')</script><h1>404</h1>\n"
    program = b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0" + bytes(512)
    elf = b"\x7fELF\2\1\1" + bytes(9) + b"\2\0>\0\1\0\0\0" + bytes(512)
    same = {
        "nothing": b"", "one byte": b"\0", "text": b"hello\n" * 99, "a page": page,
        "a Windows program": program, "a Linux program": elf, "a pickle": _pickle(),
        "zeros": bytes(65_536), "ones": b"\xff" * 65_536, "new lines": b"\n" * 65_536,
        "JSON": json.dumps({"media": "/etc/passwd"}).encode(), "a ZIP archive": _zip(clip),
        "a TAR archive": _tar(clip), "PDF": b"%PDF-1.7\n1 0 obj<</URI(http://127.0.0.1:9)>>\n",
        "SQLite": b"SQLite format 3\0" + bytes(4080), "a HTML form of a playlist": page + _hls("/"),
        "a BMP of 2^31 pixels a side": b"BM" + struct.pack("<IIIIiiHHI", 54, 0, 54, 40, 2**31 - 1,
                                                           2**31 - 1, 1, 24, 0) + bytes(24),
    }  # fmt: skip
    for what, content in same.items():
        yield "mp4", what, whole(content)
    for ending in ("mkv", "avi", "wav", "mpg", "ts", "ogg", "flac", "mxf", "wmv", "mp3"):
        yield ending, "zeros", whole(bytes(65_536))
        yield ending, "an mp4 by another name", whole(clip)
    for magic, what in (
        (b"\x1a\x45\xdf\xa3", "Matroska"), (b"RIFF\xff\xff\xff\xffAVI ", "AVI"),
        (b"RIFF\xff\xff\xff\xffWAVE", "WAVE"), (b"OggS", "Ogg"), (b"fLaC", "FLAC"),
        (b"ID3\4\0\0\x7f\x7f\x7f\x7f", "MP3"), (b"FLV\1\5\0\0\0\t", "FLV"), (b"GIF89a", "GIF"),
        (b"\0\0\1\xba", "MPEG"), (b"\x47" * 188 * 4, "MPEG-TS"), (b"\0\0\0\x14ftyp", "MP4"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c", "ASF"),
        (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02", "MXF"),
        (b"#!AMR\n", "AMR"), (b".snd", "AU"), (b"FORM\xff\xff\xff\xffAIFF", "AIFF"),
        (b"caff\0\1\0\0", "CAF"), (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", "W64"),
    ):  # fmt: skip
        yield "mp4", f"the first bytes of {what}, then ones", whole(magic + b"\xff" * 9999)
    yield "mp4", "a folder", Path.mkdir
    yield "mp4", "1 GB of zeros that take no room", lambda path: _sparse(path, b"", 1 << 30)


def links(folder: Path) -> Iterator[tuple[str, str, Make]]:
    """Give (ending, what it is, how it is made) of what leads elsewhere.

    To devices and secrets alone: whatever follows such links wanders, and must find nothing real.
    """
    for place in (
        *("/dev/zero", "/dev/random", "/dev/stdin", "/proc/self/mem"),
        *(str(folder / "secret.mp4"), str(folder / "secret.txt"), str(folder)),
        *("missing", "self.mp4", "."),
    ):
        yield "mp4", f"a link to {place}", lambda path, place=place: path.symlink_to(place)
    yield "mp4", "a named pipe", lambda path: os.mkfifo(path)


NAMES = (
    b"two\nlines",
    b"return\rline",
    b"-rf",
    b"--help",
    b"n" * 251,
    b"\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d",
    "فيديو",
    "видео",
    "动画",
    "動画\u3000",
    "영상",
    "वीडियो",
    "tiếng Việt",
    "👩🏽‍🚀🎬",
    "\u202egpj.piz",
    "e\u0301",
    "é",
    "zero\u200bwidth",
    b"quote'quote",
    b'quote"quote',
    b"`touch PWNED`",
    b"$(touch PWNED)",
    b"; rm -rf .",
    b"a & b | c > d",
    b"back\\slash",
    b"100%d",
    b"frame%03d",
    b"star*?[a]",
    b"\xff\xfe\xfd",
    b"caf\xe9",
    b"\x1b[31mred\x1b[0m",
    b"bell\x07tab\t",
    b" lead and trail ",
    b"file:clip",
    b"concat:a.mp4|b",
    b"http:",
    b"pipe:0",
    b"subfile,,start,0,end,9,,:a",
    b"=cmd()|'x'!A1",
    b"<script>alert(1)<",
    b"a,b;c",
    b"CON",
    b"~root",
    b"..",
    b"a#0-1",
    b"@SUM(1)",
    b"\xc0\xaf",
    "\ufeffbom",
    "a\u2028b",
    "\ud7ff\ufffd",
)


def transcripts(folder: Path) -> Iterator[tuple[str, str, str, Make]]:
    """Give (ending, what it is, how the clip ends, how it is made) of what lies beside a clip."""
    cue = "00:00:00,000 --> 00:00:01,000\n"
    many = "".join(f"{k}\n{cue}word\n\n" for k in range(10_000))
    table: dict[str, tuple[str, str, str | bytes]] = {
        "10,000 cues at one time": ("srt", "result", many),
        "a million words": ("srt", "either", "1\n" + cue + "word " * 1_000_000),
        "a word of a million letters": ("srt", "result", "1\n" + cue + "w" * 1_000_000),
        "ten million brackets": (
            "vtt",
            "either",
            f"WEBVTT\n\n{cue.replace(',', '.')}" + "[" * 10**7,
        ),
        "ten million tags": ("srt", "either", "1\n" + cue + "<i" * 5 * 10**6),
        "times that are too large": ("srt", "either", "1\n9999:99:99,999 --> 9999:99:99,999\nx\n"),
        "times that go back": ("srt", "result", "1\n00:00:09,000 --> 00:00:01,000\nx\n"),
        "no times": ("srt", "error", "words without times\n"),
        "bytes": ("srt", "error", bytes(range(256)) * 64),
        "a terminal's commands": ("srt", "result", "1\n" + cue + "\x1b]0;x\x07\x1b[2Jred\n"),
        "entities": ("srt", "result", "1\n" + cue + "&lol;" * 9999 + "&#x110000;&#xd800;\n"),
        "a script": ("vtt", "result", "WEBVTT\n\n00:00.000 --> 00:01.000\n<script>x()</script>\n"),
        "deep JSON": ("json", "either", '{"segments":' * 100_000 + "1" + "}" * 100_000),
        "deep lists": ("json", "either", "[" * 1_000_000),
        "huge numbers": (
            "json",
            "either",
            '{"segments":[{"start":1e999,"end":-1e999,"text":"a"}]}',
        ),
        "a number of a million digits": ("json", "either", '{"words":[' + "9" * 10**6 + "]}"),
        "not a number": ("json", "either", '{"segments":[{"start":NaN,"end":NaN,"text":"a b"}]}'),
        "other types": ("json", "either", '{"segments":[{"start":"x","words":[1,null]}]}'),
        "a path": ("txt", "result", f"{folder}/secret.txt\n"),
        "GRID with no end": ("align", "result", "0 999999999999 word\n"),
    }
    for what, (ending, ends, content) in table.items():
        data = content if isinstance(content, bytes) else content.encode()
        yield ending, what, ends, lambda path, data=data: write(path, data)
    yield "srt", "1 GB that takes no room", "error", lambda path: _sparse(path, b"1\n", 1 << 30)
    yield "srt", "a folder", "result", Path.mkdir
    yield "srt", "a named pipe", "result", lambda path: os.mkfifo(path)
    yield "srt", "a link to a device", "result", lambda path: path.symlink_to("/dev/zero")
    secret = folder / "secret.srt"
    yield "srt", "a link to a secret", "result", lambda path: path.symlink_to(secret)


def write(path: Path, content: bytes) -> None:
    """Write a file, and give nothing back."""
    path.write_bytes(content)


def _sparse(path: Path, head: bytes, size: int) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)


def _pickle() -> bytes:
    return b"cos\nsystem\n(S'touch PWNED'\ntR."


def _zip(clip: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("../../escaped.mp4", clip), ("bomb", bytes(1 << 20))):
            archive.writestr(zipfile.ZipInfo(name), content)
    return held.getvalue()


def _tar(clip: bytes) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        member = tarfile.TarInfo("../../escaped.mp4")
        member.size = len(clip)
        archive.addfile(member, io.BytesIO(clip))
    return held.getvalue()
