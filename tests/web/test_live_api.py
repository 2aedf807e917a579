"""The WebSocket /api/live of the real server: real pictures and sound in, answers out."""

from __future__ import annotations

import asyncio
import io
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from demo_pieces import DEMO
from maven import media
from maven.files import plain
from maven.live import Stream
from maven.web.live import Waiting
from maven.web.live_worker import HEAD, PICTURE, SOUND, Piece
from served import Server, serving, wait_until

RATE_HZ = 16_000
UNTIL_S = 2.5


@pytest.fixture(autouse=True)
def _afterwards(server: Server) -> Iterator[None]:
    yield
    wait_until(lambda: server.get("/api/live").json["sessions"]["now"] == 0)


def client(server: Server) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/api/live", max_size=2**22)


def told(socket: ClientConnection) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(socket.recv(timeout=60))
    return said


def ready(socket: ClientConnection) -> ClientConnection:
    assert told(socket) == {"type": "ready"}
    return socket


def jpeg(rgb: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, "JPEG", quality=85)
    return content.getvalue()


@pytest.fixture(scope="module")
def pieces() -> list[Piece]:
    """The start of the demo: 15 pictures a second, each after the sound until the next."""
    frames = [each for each in media.frames(DEMO, rate_hz=15) if each.time_s < UNTIL_S]
    sound = media.read_audio(DEMO)
    assert sound is not None
    cut = []
    for frame, following in pairwise(frames):
        start, stop = (
            max(0, round((each.time_s - sound.start_s) * RATE_HZ)) for each in (frame, following)
        )
        heard = sound.samples[start:stop].tobytes()
        cut.append(Piece(SOUND, sound.start_s + start / RATE_HZ, heard))
        cut.append(Piece(PICTURE, frame.time_s, jpeg(frame.rgb)))
    return cut


def sent(socket: ClientConnection, piece: Piece) -> list[dict[str, Any]]:
    """Send a piece as a good client does: nothing more while a picture is in flight."""
    socket.send(HEAD.pack(piece.kind, piece.time_s) + piece.body)
    answers = []
    while piece.kind == PICTURE:
        said = told(socket)
        if said["type"] == "frame":
            assert said == {"type": "frame", "time_s": piece.time_s, "used": True, "left_out": 0}
            break
        answers.append(said)
    return answers


def drained(socket: ClientConnection) -> list[dict[str, Any]]:
    """What is said until nothing comes any more."""
    said = []
    with suppress(TimeoutError):
        while True:
            said.append(json.loads(socket.recv(timeout=2)))
    return said


def test_answers_are_those_of_a_stream_fed_the_same(server: Server, pieces: list[Piece]) -> None:
    with client(server) as socket:
        ready(socket)
        answers = [each for piece in pieces for each in sent(socket, piece)] + drained(socket)
    stream, expected = Stream(), {}
    for piece in pieces:
        if piece.kind == PICTURE:
            rgb = np.asarray(Image.open(io.BytesIO(piece.body)).convert("RGB"))
            stream.push_frame(rgb, piece.time_s)
        else:
            stream.push_audio(np.frombuffer(piece.body, "<f4"), piece.time_s)
        if (answer := stream.latest()) is not None:
            expected[answer.time_s] = answer
    size_px = list(rgb.shape[1::-1])
    assert len(expected) >= 10 * UNTIL_S - 3
    assert [each["time_s"] for each in answers] == list(expected)
    for each in answers:
        assert each.pop("type") == "answer"
        assert each.pop("size_px") in ([0, 0], size_px)
        assert each == json.loads(json.dumps(plain(asdict(expected[each["time_s"]]))))
    assert answers[-1]["has_face"]
    assert any(each["has_speech"] for each in answers)


BAD: dict[str, tuple[str | bytes, int, str]] = {
    "text": ("hello", 1003, "messages are binary"),
    "empty": (b"", 1003, "1 byte kind"),
    "kind": (HEAD.pack(9, 0.0) + b"x", 1003, "got 9"),
    "time": (HEAD.pack(SOUND, math.nan) + bytes(400), 1008, "finite"),
    "no jpeg": (HEAD.pack(PICTURE, 0.0) + b"GIF89a" + bytes(100), 1003, "a picture is a JPEG"),
    "cut jpeg": (HEAD.pack(PICTURE, 0.0) + b"\xff\xd8\xff\xe0" + bytes(99), 1003, "decodes"),
    "bytes": (HEAD.pack(PICTURE, 0.0) + b"\xff\xd8\xff" + bytes(2_000_000), 1008, "2 MB"),
    "pixels": (HEAD.pack(PICTURE, 0.0) + jpeg(np.zeros((2000, 2001, 3), np.uint8)), 1008, "pixels"),
    "sound": (HEAD.pack(SOUND, 0.0) + bytes(4 * RATE_HZ + 4), 1008, "at most 1 s"),
    "nan": (HEAD.pack(SOUND, 0.0) + np.full(9, np.nan, "<f4").tobytes(), 1003, "finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_ends_its_session_with_a_reason(server: Server, name: str) -> None:
    message, code, reason = BAD[name]
    with client(server) as socket:
        socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            drained(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
    assert reason in closed.value.rcvd.reason


def test_a_message_beyond_all_limits_does_not_get_in(server: Server) -> None:
    with client(server) as socket:
        with suppress(ConnectionClosed):  # it may be refused before all of it is sent
            socket.send(bytes(30_000_000))
        with pytest.raises(ConnectionClosed) as closed:
            drained(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    assert server.get("/api/about").status == 200


def test_a_third_session_is_told_to_come_again(server: Server) -> None:
    with client(server) as first, client(server) as second:
        ready(first)
        ready(second)
        with client(server) as third:
            with pytest.raises(ConnectionClosed) as closed:
                told(third)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013
            assert "2 live sessions" in closed.value.rcvd.reason
        first.close()
        wait_until(lambda: server.get("/api/live").json["sessions"]["now"] == 1)
        with client(server) as fourth:
            ready(fourth)


def test_another_page_cannot_listen_in(server: Server) -> None:
    with pytest.raises(Exception, match="403"):
        connect(
            f"ws://127.0.0.1:{server.port}/api/live",
            additional_headers={"Origin": "http://elsewhere.example"},
        )


def children(pid: int) -> list[int]:
    """The live workers among the children of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"live_worker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_worker_may_write_nothing_and_goes_with_its_client_or_the_server(
    server: Server, tmp_path: Path
) -> None:
    assert server.process is not None
    with client(server) as socket:
        ready(socket)
        (worker,) = children(server.process.pid)
        limits = Path(f"/proc/{worker}/limits").read_text()
        rows = {line[:26].strip(): line[26:].split() for line in limits.splitlines()[1:]}
        assert rows["Max file size"][:2] == ["0", "0"]
        assert int(rows["Max address space"][0]) < 16 * 2**30
    wait_until(lambda: not Path(f"/proc/{worker}").exists())
    assert server.files() == []
    with serving(tmp_path / "data") as other, client(other) as socket:
        ready(socket)
        assert other.process is not None
        (worker,) = children(other.process.pid)
        other.kill()
        wait_until(lambda: not Path(f"/proc/{worker}").exists())


def memory_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_more_than_can_be_worked_on_is_left_out_not_kept(
    server: Server, pieces: list[Piece]
) -> None:
    assert server.process is not None
    body = next(piece.body for piece in pieces if piece.kind == PICTURE)
    body += bytes(1_000_000)  # behind the picture's end
    with client(server) as socket:
        ready(socket)
        before = memory_bytes(server.process.pid)
        for k in range(300):  # 300 MB
            socket.send(HEAD.pack(PICTURE, k / 30) + body)
            socket.send(HEAD.pack(SOUND, k / 30) + bytes(4 * 533))
        said = drained(socket)
        grown = memory_bytes(server.process.pid) - before
    back = [each for each in said if each["type"] == "frame"]
    assert back[-1]["left_out"] + len(back) == 300
    assert back[-1]["left_out"] > 0
    assert back[-1]["time_s"] == pytest.approx(299 / 30)  # the newest is never left out
    assert any(each["type"] == "answer" for each in said)
    assert grown < 80e6


def test_one_picture_and_a_second_of_sound_wait_at_most() -> None:
    async def fill() -> list[Piece]:
        waiting = Waiting()
        for k in range(40):
            waiting.put(Piece(PICTURE, k / 10, b"x"))
            waiting.put(Piece(SOUND, k / 10 + (k > 35), bytes([k]) * 4 * 1600))
        assert waiting.left_out == 39
        taken = [await waiting.take() for _ in range(3)]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(waiting.take(), 0.05)
        return taken

    before, picture, after = asyncio.run(fill())  # of the second that waits, one part comes late
    assert (before.kind, before.time_s, before.length_s) == (SOUND, 3.0, pytest.approx(0.6))
    assert before.body == b"".join(bytes([k]) * 4 * 1600 for k in range(30, 36))
    assert (picture.kind, picture.time_s) == (PICTURE, 3.9)
    assert (after.time_s, after.length_s) == (4.6, pytest.approx(0.4))


def test_what_a_client_needs_to_know_is_told(server: Server) -> None:
    about = server.get("/api/live").json
    assert about["model"] == "mini"
    assert len(about["circle"]["names"]) == 12
    assert about["limits"]["sound_rate_hz"] == RATE_HZ
    assert server.get("/live").status == 200
    began = time.monotonic()
    assert server.get("/api/openapi.json").json["paths"]["/api/live"]
    assert time.monotonic() - began < 30
