"""Bad uploads: each gets a clear answer, the server lives, nothing is left in the folders."""

from __future__ import annotations

import http.client
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, urlencode

import av
import numpy as np
import pytest
from PIL import Image

from demo_pieces import copy_piece
from served import Answer, Server, serving, wait_until

LIMIT_BYTES = 300_000
LONGEST_S = 6.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ("--max-size", str(LIMIT_BYTES / 1e6), "--max-length", str(LONGEST_S / 60))
    with serving(tmp_path_factory.mktemp("served") / "data", *limits) as server:
        yield server


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A short clip as it should be."""
    return copy_piece(tmp_path_factory.mktemp("media") / "piece.mp4", 1.5).read_bytes()


@pytest.fixture(autouse=True)
def nothing_is_left(server: Server) -> Iterator[None]:
    yield
    for clip in server.get("/api/clips").json["clips"]:
        assert server.ask("DELETE", f"/api/clips/{clip['id']}").status == 204
    wait_until(lambda: server.files() == [], server.files)
    assert server.get("/api/about").status == 200


def send(server: Server, content: bytes, name: str = "clip.mp4") -> Answer:
    return server.ask("POST", f"/api/clips?{urlencode({'name': name, 'asr': 'none'})}", content)


def png() -> bytes:
    file = BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def zipped(content: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("clip.mp4", content)
    return file.getvalue()


REFUSED = {
    "empty": (b"", 400, "empty"),
    "picture": (png(), 415, "PNG picture"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', 415, "SVG"),
    "html": (b"<!doctype html><script>alert(1)</script>", 415, "HTML"),
    "pdf": (b"%PDF-1.7\n", 415, "PDF"),
    "zip": (zipped(b"x"), 415, "ZIP"),
    "text": (b"just words", 415, "text"),
    "zeros": (b"\0" * 10_000, 415, "zeros"),
    "program": (b"\x7fELF\x02\x01\x01" + b"\0" * 100, 415, "program"),
    "noise": (bytes(range(128, 255)) * 99, 415, "not a media file"),
    "m3u8 of a file": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "playlist"),
    "m3u8 of the network": (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n", 415, "playlist"),
    "ffconcat": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", 415, "playlist"),
    "dash": (b'<?xml version="1.0"?><MPD><BaseURL>file:///etc/</BaseURL></MPD>', 415, "playlist"),
    "sdp": (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 9 RTP/AVP 96\r\n", 415, "playlist"),
    "smil": (b"<smil><body><video src='file:///etc/passwd'/></body></smil>", 415, "playlist"),
    "huge": (b"\0\0\0\x18ftypmp42" + b"x" * LIMIT_BYTES, 413, "too large"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_media_is_refused_at_once(server: Server, case: str) -> None:
    content, status, word = REFUSED[case]
    answer = send(server, content)
    assert answer.status == status
    assert word in answer.detail
    assert "accepted" in answer.detail or case == "empty"
    assert server.get("/api/clips").json == {"clips": []}


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def mp4_around_a_zip() -> bytes:
    return box(b"ftyp", b"mp42\0\0\0\0mp42") + box(b"mdat", zipped(b"clip")) + box(b"moov")


def elsewhere(piece: bytes) -> bytes:
    """A mov whose samples lie in another file (a data reference, ISO 14496-12, 8.7.2)."""
    own = box(b"url ", b"\0\0\0\1")
    at = piece.index(own)
    other = box(b"url ", b"\0\0\0\0", b"file:///etc/passwd\0")
    grown = piece[:at] + other + piece[at + len(own) :]
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        size_at = piece.rindex(kind, 0, at) - 4
        size = int.from_bytes(piece[size_at : size_at + 4], "big") + len(other) - len(own)
        grown = grown[:size_at] + size.to_bytes(4, "big") + grown[size_at + 4 :]
    return grown


def mkv_of_an_attachment(folder: Path) -> bytes:
    """A Matroska file with a program in it, and nothing that plays."""
    with av.open(str(folder / "a.mkv"), "w") as container:
        stream = container.add_attachment("x.sh", "application/x-sh", b"#!/bin/sh\nreboot\n")
        assert stream is not None
        container.start_encoding()
    return (folder / "a.mkv").read_bytes()


def too_long(folder: Path) -> bytes:
    path = folder / "long.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_u8", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 8000 * 7), 128, np.uint8), "u8", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ("cut", "cut off"),
        ("cut in its index", "cut off"),
        ("a zip in an mp4", "a.mp4"),
        ("an mkv of an attachment", "a.mp4"),
        ("only a beginning", "a.mp4"),
        ("damaged all over", "a.mp4"),
        ("too long", "accepted: up to 6 s"),
        ("gif of one picture", ""),
    ],
)
def test_what_only_begins_as_media_fails_with_a_reason(
    server: Server, piece: bytes, tmp_path: Path, case: str, word: str
) -> None:
    noise = np.random.default_rng(5).integers(0, 255, len(piece), np.uint8).tobytes()
    made: dict[str, Callable[[], bytes]] = {
        "cut": lambda: piece[: len(piece) // 2],
        "cut in its index": lambda: piece[:-100] if piece.rindex(b"moov") > 9999 else piece[:400],
        "a zip in an mp4": mp4_around_a_zip,
        "an mkv of an attachment": lambda: mkv_of_an_attachment(tmp_path),
        "only a beginning": lambda: piece[:32],
        "damaged all over": lambda: piece[:64] + noise[64:],
        "too long": lambda: too_long(tmp_path),
        "gif of one picture": lambda: b"GIF89a" + noise[:200],
    }
    answer = send(server, made[case](), "a.mp4")
    assert answer.status == 201
    clip = server.finished(answer.json["id"])
    assert clip["state"] == "failed"
    assert word in clip["error"]
    assert "internal" not in clip["error"]
    assert str(server.folder) not in clip["error"]
    assert "upload" not in clip["error"]
    assert server.files() == []  # the row says why; nothing else is kept
    again = server.ask("POST", f"/api/clips/{clip['id']}/again")
    assert (again.status, again.detail) == (409, "its upload is gone: send it again")


def test_a_mov_that_refers_to_another_file_does_not_get_it(server: Server, piece: bytes) -> None:
    answer = send(server, elsewhere(piece), "a.mov")
    clip = server.finished(answer.json["id"])
    assert clip["state"] in ("failed", "done")  # done: on the stream that has its own samples
    for kind in clip["files"]:
        assert b"root:" not in server.get(f"/api/clips/{clip['id']}/files/{kind}").body
    assert b"root:" not in server.get(f"/api/clips/{clip['id']}/media").body


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../../etc/cron.d/x.mp4", "x.mp4"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/etc/passwd\0.mp4", "passwd .mp4"),
        ("<img src=x onerror=alert(1)>.mp4", "<img src=x onerror=alert(1)>.mp4"),
        ("a\r\nSet-Cookie: x=1.mp4", "a Set-Cookie: x=1.mp4"),
        ("\u202e4pm.evil", "4pm.evil"),
        ("x" * 900 + ".mp4", "x" * 139 + "…" + "x" * 16 + ".mp4"),
        ("CON", "CON"),
        ("", "clip"),
        ("%2e%2e%2fx", "%2e%2e%2fx"),
    ],
)
def test_names_are_only_text(server: Server, piece: bytes, name: str, shown: str) -> None:
    answer = send(server, piece[:4000], name)  # cut: it fails at once, the name is there
    assert answer.status == 201
    assert answer.json["name"] == shown
    folders = {path.name for path in (server.folder / "clips").iterdir()}
    assert folders <= {answer.json["id"]}
    assert server.finished(answer.json["id"])["state"] == "failed"


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("", 422, "name"),
        ("name=a&faces=nobody", 422, "faces"),
        ("name=a&asr=whisper:/etc/passwd", 422, "asr"),
        ("name=a&asr=" + quote("whisper:../x"), 422, "asr"),
        ("name=a&transcript=../../etc/passwd", 404, "transcript"),
        ("name=a&transcript=", 404, "transcript"),
        ("name=" + "x" * 2000, 422, "name"),
    ],
)
def test_wrong_settings_are_refused(
    server: Server, piece: bytes, query: str, status: int, word: str
) -> None:
    answer = server.ask("POST", f"/api/clips?{query}", piece)
    assert answer.status == status
    assert word in answer.detail


@pytest.mark.parametrize(
    "wrong",
    ["..", "%2e%2e", "..%2f..%2fmaven.sqlite", "%00", "x" * 22, "' OR 1=1 --", "%252e%252e", "."],
)
def test_wrong_ids_reach_nothing(server: Server, wrong: str) -> None:
    place = quote(wrong, safe="%")
    for path in ("", "/view", "/media", "/files/csv", "/ratings"):
        answer = server.get(f"/api/clips/{place}{path}")
        assert answer.status in (400, 404), path
        assert b"SQLite" not in answer.body
        assert str(server.folder).encode() not in answer.body
    assert server.ask("DELETE", f"/api/clips/{place}").status in (404, 405)
    assert server.get(f"/static/{place}").status in (404, 405)
    assert server.get("/static/..%2f..%2fshelf.py").status == 404


def raw(server: Server, head: str, body: bytes, cut: bool = False) -> bytes:
    """Send what no decent client sends; return what comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        host = f"Host: 127.0.0.1:{server.port}\r\nConnection: close\r\n"
        connection.sendall(head.replace("HOST\r\n", host).encode() + body)
        if cut:
            return b""
        got = b""
        while True:
            try:
                block = connection.recv(65536)
            except ConnectionResetError:
                return got
            if not block:
                return got
            got += block


def test_an_upload_that_ends_before_its_length_leaves_nothing(server: Server, piece: bytes) -> None:
    head = f"POST /api/clips?name=a.mp4 HTTP/1.1\r\nHOST\r\nContent-Length: {len(piece)}\r\n\r\n"
    raw(server, head, piece[:-1000], cut=True)
    wait_until(lambda: server.files() == [])
    assert server.get("/api/clips").json == {"clips": []}


def test_a_length_that_is_too_short_does_not_smuggle_a_request(
    server: Server, piece: bytes
) -> None:
    head = "POST /api/clips?name=a.mp4 HTTP/1.1\r\nHOST\r\nContent-Length: 4000\r\n\r\n"
    got = raw(server, head, piece[:4000] + b"DELETE /api/clips HTTP/1.1\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 201")
    assert got.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999", "12, 13"])
def test_lengths_that_are_none_are_refused(server: Server, length: str) -> None:
    head = f"POST /api/clips?name=a.mp4 HTTP/1.1\r\nHOST\r\nContent-Length: {length}\r\n\r\n"
    got = raw(server, head, b"x" * 10)
    assert got[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413")


def test_a_body_in_chunks_is_limited_as_well(server: Server, piece: bytes) -> None:
    blocks = [piece[:1000], *[b"x" * 60_000] * 6]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", "/api/clips?name=a.mp4", iter(blocks), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})  # fmt: skip
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"too large" in answer.read()
    connection.close()


def test_a_body_in_chunks_is_taken(server: Server, piece: bytes) -> None:
    query = urlencode({"name": "a.mp4", "asr": "none"})
    answer = server.ask("POST", f"/api/clips?{query}", iter([piece[:1000], piece[1000:]]))
    assert (answer.status, answer.json["size_bytes"]) == (201, len(piece))


@pytest.mark.parametrize(
    ("name", "content", "status", "word"),
    [
        ("a.exe", b"words", 415, ".srt"),
        ("a.srt", b"", 400, "empty"),
        ("a.srt", b"x" * (17 * 2**20), 413, "too large"),
    ],
)
def test_bad_transcripts_are_refused(
    server: Server, name: str, content: bytes, status: int, word: str
) -> None:
    answer = server.ask("POST", f"/api/transcripts?name={name}", content)
    assert answer.status == status
    assert word in answer.detail


def test_a_transcript_that_is_none_fails_with_its_own_name(server: Server, piece: bytes) -> None:
    sent = server.ask("POST", "/api/transcripts?name=my%20words.srt", b"\x89PNG no transcript")
    query = urlencode({"name": "a.mp4", "asr": "none", "transcript": sent.json["id"]})
    answer = server.ask("POST", f"/api/clips?{query}", piece)
    clip = server.finished(answer.json["id"])
    assert clip["state"] == "failed"
    assert clip["error"].startswith("my words.srt, line 1: got")
