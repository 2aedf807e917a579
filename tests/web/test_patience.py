"""Who connects and does not ask is sent away; who asks, or listens to a WebSocket, is not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.sync.client import connect

from maven.web import patience


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await asyncio.sleep(1.0)
        await send({"type": "websocket.send", "text": "still here"})
    elif scope["type"] == "http":
        await asyncio.sleep(1.0)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(patience, "FIRST_REQUEST_S", 0.4)
    config = uvicorn.Config(application, http=patience.Patient, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost:"])
def test_half_a_request_is_not_waited_for(port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(said)
        begun = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - begun < 5


def test_an_answer_may_take_longer(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 204")


def test_a_web_socket_stays(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/") as open_socket:
        assert open_socket.recv(timeout=10) == "still here"


def test_nothing_waits_for_who_has_left() -> None:
    async def come_and_go() -> bool:
        config = uvicorn.Config(application, lifespan="off")
        config.load()
        protocol = patience.Patient(config, ServerState(), {})
        protocol.connection_made(MagicMock(asyncio.Transport))
        protocol.connection_lost(None)
        return protocol._patience.cancelled()

    assert asyncio.run(come_and_go())
