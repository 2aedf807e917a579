"""Live over a WebSocket at /api/live: camera and microphone in, valence and arousal out.

A client connects, waits for `ready`, and sends binary messages, little-endian:

    1 byte    kind: 1 a picture, 2 sound
    8 bytes   float64 time_s, any clock of the client's, one for both: when the picture was taken,
              when the first sample was
    the rest  1: a JPEG, upright, up to 2 MB and 4 million pixels; 640 on the longer side are enough
              2: float32 samples, 16 kHz, mono, full scale +-1, up to 1 s; 0.1 s is a good length

Ten pictures a second are enough. A client sends the next picture when the one before came back;
what comes faster than it is worked on is left out: one picture and one second of sound wait at
most. Answers are text, JSON:

    {"type": "ready"}                                    the model is there
    {"type": "frame", "time_s": 1.2, "used": true, "left_out": 0}
              a picture came back; not used: an earlier time than the one before; left_out: how many
              pictures never came back because newer ones took their place
    {"type": "answer", "time_s": 1.2, "valence": ...}    every 0.1 s of the client's clock: the
              fields of `maven.moment.Answer`, null where nothing was observed, and "size_px", the
              (width, height) of the picture that box_px lies in

A close code says why it ended, with one line: 1003 a message that cannot be read, 1008 one against
the limits or none for a minute, 1011 the engine failed, 1013 too many sessions. Nothing that is
sent here is stored. `GET /api/live` gives the model, the circumplex and the limits.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from maven.circumplex import circle
from maven.confine import clean_environment
from maven.media import AUDIO_RATE_HZ
from maven.web.jobs import Options
from maven.web.live_worker import (
    AGAINST_RULES,
    FAILED,
    HEAD,
    LENGTH,
    PICTURE,
    PICTURE_BYTES,
    PICTURE_PX,
    SOUND_S,
    UNSUPPORTED,
    BadMessageError,
    Piece,
    Told,
    parse,
)

SESSIONS = 2  # at a time
WAITING_S = 1.0  # of sound
JOINED_S = 0.1  # pieces of sound this close follow on each other: clocks are not that exact
IDLE_S = 60.0
BUSY = 1013  # close code: try again later
REASON_BYTES = 123  # RFC 6455, 5.5.1

Ending = tuple[int, str] | None  # close code and reason; None: the client went


class Waiting:
    """What has come and is not worked on yet: the newest picture, and `WAITING_S` of sound.

    Attributes:
        left_out: pictures so far whose place a newer one took.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._picture: Piece | None = None
        self._sound: deque[Piece] = deque()
        self._sound_s = 0.0
        self._sound_next = True
        self._something = asyncio.Event()

    def put(self, piece: Piece) -> None:
        """Have a piece wait."""
        if piece.kind == PICTURE:
            self.left_out += self._picture is not None
            self._picture = piece
        else:
            self._sound.append(piece)
            self._sound_s += piece.length_s
            while self._sound_s > WAITING_S:
                self._sound_s -= self._sound.popleft().length_s
        self._something.set()

    async def take(self) -> Piece:
        """The next piece to work on: the sound up to a gap, and the picture, by turns."""
        await self._something.wait()
        if self._sound and (self._sound_next or self._picture is None):
            piece = self._joined()
        else:
            assert self._picture is not None
            piece, self._picture = self._picture, None
        self._sound_next = piece.kind == PICTURE
        if not self._sound and self._picture is None:
            self._something.clear()
        return piece

    def _joined(self) -> Piece:
        first = self._sound.popleft()
        bodies, length_s = [first.body], first.length_s
        while self._sound and abs(self._sound[0].time_s - first.time_s - length_s) < JOINED_S:
            following = self._sound.popleft()
            bodies.append(following.body)
            length_s += following.length_s
        self._sound_s -= length_s
        return Piece(first.kind, first.time_s, b"".join(bodies))


class Worker:
    """The process of one session (`maven.web.live_worker`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout

    @classmethod
    async def start(cls, model: str) -> Worker:
        """Start one; its first list says whether it is ready."""
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "maven.web.live_worker", "--model", model),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=clean_environment(),
                start_new_session=True,  # Ctrl-C is for the server, which ends it
            )
        )

    async def told(self) -> list[Told]:
        """The next list.

        Raises:
            asyncio.IncompleteReadError: the process ended.
        """
        (length,) = LENGTH.unpack(await self._stdout.readexactly(LENGTH.size))
        told: list[Told] = json.loads(await self._stdout.readexactly(length))
        return told

    async def ask(self, piece: Piece) -> list[Told]:
        """What comes of a piece.

        Raises:
            OSError, asyncio.IncompleteReadError: the process ended.
        """
        message = HEAD.pack(piece.kind, piece.time_s) + piece.body
        self._stdin.write(LENGTH.pack(len(message)) + message)
        await self._stdin.drain()
        return await self.told()

    async def end(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def hear(socket: WebSocket, waiting: Waiting) -> Ending:
    """Have everything that the client sends wait, until it goes or sends what it must not."""
    while True:
        try:
            message = await asyncio.wait_for(socket.receive(), IDLE_S)
        except asyncio.TimeoutError:
            return AGAINST_RULES, f"nothing came for {IDLE_S:.0f} s"
        if message["type"] == "websocket.disconnect":
            return None
        content = message.get("bytes")
        if content is None:
            return UNSUPPORTED, "messages are binary"
        try:
            waiting.put(parse(content))
        except BadMessageError as error:
            return error.code, str(error)


async def tell(socket: WebSocket, waiting: Waiting, worker: Worker) -> Ending:
    """Have the worker take what waits, piece by piece, and pass on what it says."""
    try:
        told = await worker.told()
        while True:
            for each in told:
                if each["type"] == "error":
                    return each["code"], each["reason"]
                if each["type"] == "frame":
                    each["left_out"] = waiting.left_out
                await socket.send_text(json.dumps(each))
            told = await worker.ask(await waiting.take())
    except asyncio.IncompleteReadError:
        return FAILED, "the engine stopped"
    except (WebSocketDisconnect, OSError):  # the client or the worker went while told something
        return FAILED, "the connection was lost"


async def session(socket: WebSocket, model: str) -> Ending:
    """Serve one client until it goes, or there is a reason to send it away."""
    waiting, worker = Waiting(), await Worker.start(model)
    tasks = [
        asyncio.ensure_future(hear(socket, waiting)),
        asyncio.ensure_future(tell(socket, waiting, worker)),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await worker.end()


def router(options: Options) -> APIRouter:
    """The routes of the live view: GET and WebSocket /api/live."""
    routes = APIRouter()
    sessions: set[WebSocket] = set()

    @routes.get("/api/live")
    def about() -> dict[str, Any]:
        """What a live client needs to know; the docs of the WebSocket are in docs/web.md."""
        return {
            "model": Path(options.model).name,
            "circle": circle(),
            "sessions": {"most": SESSIONS, "now": len(sessions)},
            "limits": {
                "picture_bytes": PICTURE_BYTES,
                "picture_px": PICTURE_PX,
                "sound_s": SOUND_S,
                "sound_rate_hz": AUDIO_RATE_HZ,
            },
        }

    @routes.websocket("/api/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        if len(sessions) >= SESSIONS:
            reason = f"{SESSIONS} live sessions are running, which is the most; try again later"
            await socket.close(BUSY, reason)
            return
        sessions.add(socket)
        try:
            ending = await session(socket, options.model)
        finally:
            sessions.discard(socket)
        if ending is not None:
            code, reason = ending
            short = reason.encode()[:REASON_BYTES].decode(errors="ignore")
            with suppress(RuntimeError):  # it went in the meantime
                await socket.close(code, short)

    return routes
