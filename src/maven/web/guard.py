"""What stands before every route: who may ask, how much may be sent, what every answer carries.

A page of another site can make a browser send requests here, under this server's address or under
a name of its own that points here (DNS rebinding). So: the Host must be one that is served; what
changes something, the API and every WebSocket must come from our own pages or from no page at all;
and where others can reach the address, a token is asked for as well.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
import traceback
from contextlib import suppress
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
STALLED_S = 120.0  # until an upload of which nothing comes any more is given up
DRAINED_BYTES = 2**28  # of a refused body that are read
DRAINED_WITHIN_S = 2.0  # for its next part
DRAINED_S = 30.0  # in all
SAFE = ("GET", "HEAD")
BODY_BYTES = 16 * 2**20  # of a request that is no upload
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " media-src 'self' blob:; connect-src 'self'; font-src 'none'; form-action 'none';"
    " frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=(), display-capture=(),"
    " payment=(), usb=()",
}


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: what it guards.
        hosts: names under which it answers, beside the loopback's names and the address itself;
            one without a port is good for every port.
        token: what a request has to bring, as a bearer, as a cookie, or once as ?token= of a page;
            None for none.
        upload_bytes: how much an upload may be.
    """

    def __init__(
        self, app: ASGIApp, hosts: tuple[str, ...], token: str | None, upload_bytes: int
    ) -> None:
        self._app, self._token, self._upload_bytes = app, token, upload_bytes
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse or pass on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if scope["type"] == "websocket":
            if refused is None:
                await self._app(scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})
            return
        started = False
        body = Body(receive, self._body_bytes(scope))

        async def carry(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= 400 and "expect" not in Headers(scope=scope):
                    await body.drain()
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    api = scope["path"].startswith("/api/")
                    headers["cache-control"] = "no-store" if api else "no-cache"
            await send(message)

        if refused is not None:
            await answer(carry, *refused)
            return
        entry = self._entry(scope)
        if entry is not None:
            await carry({"type": "http.response.start", "status": 303, "headers": entry})
            await carry({"type": "http.response.body", "body": b""})
            return
        try:
            await self._app(scope, body.receive, carry)
        except Exception:
            traceback.print_exc(file=sys.stderr)  # for who runs the server, nobody else
            if not started:
                await answer(carry, 500, "internal error")

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason for which a request is not passed on."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self._serves(host, scope):
            return 421, "this server does not answer under that name (see --allow-host)"
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE
        site = headers.get("sec-fetch-site", "none")
        if (changes or scope["path"].startswith("/api/")) and site not in ("same-origin", "none"):
            return 403, "asked for by the page of another site"
        origin = headers.get("origin")
        if changes and origin is not None and _netloc(origin) != host:
            return 403, "asked for by the page of another site"
        if self._token is not None and not self._shown(scope, headers):
            return 401, "this needs the token that the server printed when it started"
        length = headers.get("content-length", "0")
        most = self._body_bytes(scope)
        if not length.isdigit() or int(length) > most:
            return 413, too_large(most)
        return None

    def _serves(self, host: str, scope: Scope) -> bool:
        try:
            name, port = urlsplit(f"//{host}").hostname, urlsplit(f"//{host}").port or 80
        except ValueError:
            return False
        if name is None or "@" in host:
            return False
        if host in self._hosts or name in self._hosts:
            return True
        address, own_port = (scope.get("server") or (None, None))[:2]
        shown = f"[{name}]" if ":" in name else name
        return port == own_port and (shown in LOOPBACK or name == _plain(address))

    def _cookie(self, scope: Scope) -> str:
        """Name the cookie by port: browsers keep one jar for all ports of a name."""
        return f"maven_{(scope.get('server') or ('', 0))[1]}"

    def _shown(self, scope: Scope, headers: Headers) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._equal(bearer.strip())
        for cookie in headers.get("cookie", "").split(";"):  # others of this name may be odd
            name, _, value = cookie.strip().partition("=")
            if name == self._cookie(scope) and self._equal(value):
                return True
        return self._entry(scope) is not None

    def _entry(self, scope: Scope) -> list[tuple[bytes, bytes]] | None:
        """Headers that let a browser in which brings the token in a page's address; else None."""
        if self._token is None or scope["type"] != "http" or scope["method"] != "GET":
            return None
        if scope["path"].startswith("/api/"):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if not any(name == "token" and self._equal(value) for name, value in query):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # One slash: "//name" would be another server's address.
        target = "/" + scope["path"].lstrip("/\\").replace("\r", "").replace("\n", "")
        cookie = f"{self._cookie(scope)}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        return [
            (b"location", f"{target}{'?' if rest else ''}{rest}".encode("latin-1", "replace")),
            (b"set-cookie", cookie.encode()),
        ]

    def _equal(self, shown: str) -> bool:
        return self._token is not None and hmac.compare_digest(
            shown.encode(errors="replace"), self._token.encode()
        )

    def _body_bytes(self, scope: Scope) -> int:
        upload = scope["type"] == "http" and scope["path"] == "/api/clips"
        return self._upload_bytes if upload else BODY_BYTES


class Body:
    """A request's body on its way in, counted, whatever length was declared, or none."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._came, self._more = 0, True

    async def receive(self) -> Message:
        """The next part of it.

        Raises:
            HTTPException: 413; 408 where nothing comes.
        """
        try:
            within_s = STALLED_S if self._more else None
            message = await asyncio.wait_for(self._receive(), within_s)
        except asyncio.TimeoutError:
            self._more = False  # nobody reads an answer there
            raise HTTPException(408, f"nothing came for {STALLED_S:g} s") from None
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        self._came += len(message.get("body", b""))
        if self._came > self._most:
            raise HTTPException(413, too_large(self._most))
        return message

    async def drain(self) -> None:
        """Read on for a while: a client that is still sending would not read the answer."""
        end, end_s = self._came + DRAINED_BYTES, time.monotonic() + DRAINED_S
        with suppress(asyncio.TimeoutError):
            while self._more and self._came < end and time.monotonic() < end_s:
                message = await asyncio.wait_for(self._receive(), DRAINED_WITHIN_S)
                self._more = message["type"] == "http.request" and message.get("more_body", False)
                self._came += len(message.get("body", b""))


def _netloc(origin: str) -> str | None:
    """Name and port of an origin; None where it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _plain(address: str | None) -> str | None:
    """Write an IPv4 address on an IPv6 socket as what it is (RFC 4291, 2.5.5.2)."""
    return None if address is None else address.removeprefix("::ffff:")


def too_large(most: int) -> str:
    """Say how much is accepted."""
    return f"too large; accepted: up to {most / 1e6:g} MB"


async def answer(send: Send, status: int, detail: str) -> None:
    """Answer with an error as every route does."""
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
