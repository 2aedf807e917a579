"""What an upload is, by its first bytes: media that maven reads, or what else it looks like.

Names and declared types are not asked. What passes here has the beginning of a container of
`maven.container.DEMUXERS`; whether it is whole and decodes is seen in the worker's process.
"""

from __future__ import annotations

import re
import unicodedata

from maven.container import ACCEPTED

HEAD_BYTES = 4096  # enough for all that is looked at here
NAME_LENGTH = 160  # characters that are kept of a name

MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp")
PICTURE_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"avif": "AVIF"}

# Beginnings of accepted containers.
MEDIA = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3",  # MPEG program stream, MPEG video
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF
    b"FLV\x01", b"\x06\x0e\x2b\x34", b"\x1f\x07\x00", b"GIF87a", b"GIF89a",
    b"OggS", b"riff\x2e\x91\xcf\x11", b"ID3", b"fLaC", b"\x0b\x77", b".snd", b"caff", b"#!AMR",
)  # fmt: skip
RIFF = {b"WAVE": None, b"AVI ": None, b"AVIX": None, b"WEBP": "a WebP picture"}

# Beginnings of what people send by mistake, or not by mistake.
OTHERS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"8BPS", "a Photoshop picture"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"%PDF", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"PK\x03\x04", "a ZIP archive (or an office document)"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a program (Windows)"),
    (b"\xcf\xfa\xed\xfe", "a program (macOS)"),
    (b"\xca\xfe\xba\xbe", "a program (macOS, or Java)"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document"),
)

# What text may be, by how it begins (spaces and the byte order mark apart), in this order.
PLAYLIST = "a playlist or a description of streams, which refers to other files"
TEXTS = (
    (re.compile(r"#EXTM3U|ffconcat\b|\[playlist\]|\[reference\]|v=0\s+o="), PLAYLIST),
    (re.compile(r"(file\s+\S|(https?|rtsp|rtmp|mms|file|concat|pnm)://)", re.I), PLAYLIST),
    (re.compile(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(MPD|smil|asx|playlist|SmoothStreamingMedia)\b",
                re.I | re.S), PLAYLIST),
    (re.compile(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg\b", re.I | re.S),
     "an SVG picture"),
    (re.compile(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body|script)\b",
                re.I | re.S), "an HTML page"),
    (re.compile(r"<\?xml"), "an XML document"),
    (re.compile(r"WEBVTT|\d+\s+\d\d:\d\d:\d\d[,.]\d+ -->"),
     "a transcript, which is sent beside the video"),
    (re.compile(r"#!"), "a script"),
)  # fmt: skip


def refusal(head: bytes) -> str | None:
    """Say in one line why an upload that begins so is not taken; None for one that may be media.

    Args:
        head: the first `HEAD_BYTES`, or all of a smaller file.
    """
    what = kind(head)
    return None if what is None else f"{what}; accepted: {ACCEPTED}"


def kind(head: bytes) -> str | None:
    """Name what is not media; None for what has the beginning of an accepted container."""
    if not head:
        return "an empty file"
    box = head[4:8]
    if box == b"ftyp" and head[8:12] in PICTURE_BRANDS:
        return f"a {PICTURE_BRANDS[head[8:12]]} picture"
    if head[:4] in (b"RIFF", b"RF64", b"RIFX", b"BW64"):
        return RIFF.get(head[8:12], "a RIFF file of an unknown kind")
    if head[:4] == b"FORM":
        return None if head[8:12] in (b"AIFF", b"AIFC") else "an IFF file of an unknown kind"
    if box in MP4_BOXES or head.startswith(MEDIA) or _is_stream(head):
        return None
    for beginning, name in OTHERS:
        if head.startswith(beginning):
            return name
    if not head.strip(b"\x00"):
        return "a file of zeros"
    return _text(head) or "not a media file that maven knows"


def _is_stream(head: bytes) -> bool:
    """Tell whether these are packets: MPEG-TS (188 bytes, 192 with times), MPEG audio, AAC."""
    for start in range(192):
        for step in (188, 192):
            at = head[start::step][:4]
            if len(at) == 4 and set(at) == {0x47}:
                return True
    # ISO 11172-3, 2.4.1.3: eleven bits of sync, then no reserved version or bit rate. Not layer I,
    # which nobody uses and whose first bytes are those of UTF-16.
    synced = len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return synced and head[1] & 0x18 != 0x08 and head[1] & 0x06 != 0x06 and head[2] & 0xF0 != 0xF0


def _text(head: bytes) -> str | None:
    """Name a kind of text; None for bytes that are none."""
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = head.decode("utf-16" if wide else "utf-8-sig", errors="ignore" if wide else "strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not a character that the end of the head has cut
            return None
        text = head[: error.start].decode("utf-8-sig")
    if "\x00" in text:
        return None
    text = text.lstrip()
    return next((name for pattern, name in TEXTS if pattern.match(text)), "a text file")


def safe_name(name: str, otherwise: str = "clip") -> str:
    """Make of what a client calls a file what may be shown: one line, no folders, no trickery.

    Folders before the name go, as do control characters, those that turn the direction of text, and
    all that is not assigned; what is too long loses its middle.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    shown = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in last)
    shown = " ".join(shown.split()).strip(". ")
    if len(shown) > NAME_LENGTH:
        shown = f"{shown[: NAME_LENGTH - 21]}…{shown[-20:]}"
    return shown or otherwise
