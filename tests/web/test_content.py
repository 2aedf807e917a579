"""What an upload is: every accepted container as FFmpeg writes it, and what is none."""

from __future__ import annotations

import io
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maven.web.content import HEAD_BYTES, NAME_LENGTH, kind, refusal, safe_name
from media_factory import remux, tone, write_clip

VIDEO = {
    "mp4": "libx264", "mov": "libx264", "mkv": "libx264", "webm": "libvpx", "avi": "mpeg4",
    "mpg": "mpeg2video", "ts": "libx264", "asf": "msmpeg4", "flv": "flv", "gif": "gif",
}  # fmt: skip
SOUND = {
    "wav": "pcm_s16le", "mp3": "libmp3lame", "m4a": "aac", "flac": "flac", "ogg": "libopus",
    "aac": "aac", "ac3": "ac3", "eac3": "eac3", "aiff": "pcm_s16be", "au": "pcm_s16be",
    "caf": "pcm_s16le", "w64": "pcm_s16le", "mka": "aac",
}  # fmt: skip


@pytest.mark.parametrize("suffix", VIDEO)
def test_accepted_videos_pass(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    codec = VIDEO[suffix]
    pixels = {"gif": "rgb8"}.get(codec, "yuv420p")
    times_s = [k / 25 for k in range(6)]
    write_clip(path, frame_times_s=times_s, video_codec=codec, pixel_format=pixels)
    assert kind(path.read_bytes()[:HEAD_BYTES]) is None


@pytest.mark.parametrize("suffix", ["mxf", "m2v", "vob"])
def test_accepted_copies_pass(tmp_path: Path, suffix: str) -> None:
    times_s = [k / 25 for k in range(6)]
    source = write_clip(tmp_path / "a.mpg", frame_times_s=times_s, video_codec="mpeg2video")
    path = remux(source, tmp_path / f"clip.{suffix}")
    assert kind(path.read_bytes()[:HEAD_BYTES]) is None


@pytest.mark.parametrize("suffix", SOUND)
def test_accepted_sounds_pass(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_clip(path, sound=tone(440.0, 0.3), sound_codec=SOUND[suffix])
    assert kind(path.read_bytes()[:HEAD_BYTES]) is None


def test_an_mp3_without_tags_passes(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp3", sound=tone(440.0, 0.3), sound_codec="libmp3lame")
    content = (tmp_path / "a.mp3").read_bytes()
    assert content[:3] == b"ID3"
    size = int.from_bytes(content[6:10], "big")  # below 128: one byte of seven bits
    assert size < 128
    assert kind(content[10 + size :][:HEAD_BYTES]) is None


def pictured(form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "word"),
    [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WebP"), ("BMP", "BMP"), ("TIFF", "TIFF"),
     ("ICO", "icon"), ("PDF", "PDF"), ("AVIF", "AVIF")],
)  # fmt: skip
def test_pictures_are_named(form: str, word: str) -> None:
    try:
        content = pictured(form)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {form}")
    assert word in (kind(content) or "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x00" * 5000, "zeros"),
        (b"hello there", "text file"),
        ("Grüße".encode("utf-16"), "text file"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd", "playlist"),
        (b"\xef\xbb\xbf#EXTM3U\n", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd", "playlist"),
        (b"file '/etc/passwd'\n", "playlist"),
        (b"[playlist]\nFile1=http://x/", "playlist"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "playlist"),
        (b"rtsp://127.0.0.1/stream", "playlist"),
        (b'<?xml version="1.0"?>\n<!-- a -->\n<MPD xmlns="urn:mpeg">', "playlist"),
        (b"<smil><body><video src='http://x'/></body></smil>", "playlist"),
        (b"<asx version='3.0'>", "playlist"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"<script>alert(1)</script>", "HTML"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<?xml version='1.0'?><note/>", "XML"),
        (b"WEBVTT\n\n00:00.000 --> 00:01.000\nhi", "transcript"),
        (b"1\n00:00:00,000 --> 00:00:01,000\nhi", "transcript"),
        (b"#!/bin/sh\nrm", "script"),
        (b"\x7fELF\x02\x01", "program"),
        (b"MZ\x90\x00", "program"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"RIFF\x00\x00\x00\x00sfbk", "RIFF"),
        (bytes(range(128, 256)) * 8, "not a media file"),
    ],
)
def test_what_is_no_media_is_named(content: bytes, words: str) -> None:
    assert words in (kind(content) or "")


def test_an_archive_is_named() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("clip.mp4", b"x")
    assert "ZIP" in (kind(file.getvalue()) or "")


def test_a_text_that_is_cut_within_a_character_is_text() -> None:
    assert kind(("a" * (HEAD_BYTES - 1) + "é").encode()[:HEAD_BYTES]) == "a text file"


def test_a_refusal_says_what_came_and_what_is_accepted() -> None:
    assert (refusal(b"%PDF-1.7") or "").startswith("a PDF document; accepted: video or audio in")


@given(st.binary(max_size=HEAD_BYTES))
def test_any_bytes_have_an_answer_of_one_line(head: bytes) -> None:
    answer = refusal(head)
    assert answer is None or (answer.isprintable() and len(answer) < 300)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("talk.mp4", "talk.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\clip one.mp4", "clip one.mp4"),
        ("a\x00b\r\nSet-Cookie: x.mp4", "a b Set-Cookie: x.mp4"),
        ("<script>alert(1)</script>.mp4", "script>.mp4"),
        ("<b>hi.mp4", "<b>hi.mp4"),  # text is text: pages put it in as such
        ("\u202egpj.exe", "gpj.exe"),
        ("...", "clip"),
        ("", "clip"),
        ("Ge\u0308spra\u0308ch.mp4", "G\u00ebspr\u00e4ch.mp4"),
        ("話す人.mov", "話す人.mov"),
    ],
)
def test_names_become_what_may_be_shown(name: str, shown: str) -> None:
    assert safe_name(name) == shown


@given(st.text(max_size=400))
def test_any_name_becomes_one_short_line_without_folders(name: str) -> None:
    shown = safe_name(name)
    assert 0 < len(shown) <= NAME_LENGTH
    assert not set(shown) & set("/\\")
    assert not any(unicodedata.category(c).startswith("C") for c in shown)
    assert len(shown.splitlines()) == 1
    assert safe_name(shown) == shown
