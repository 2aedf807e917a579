"""The command that serves the page and the API."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maven.terminal import Debug, check_writable, one_line_errors, refuse

if TYPE_CHECKING:
    import socket

LEAST_TOKEN = 16  # characters
MESSAGE_BYTES = 4 * 2**20  # of a WebSocket
GRACE_S = 3  # for answers under way, when the server is told to stop


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; others reach all but loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="0: any that is free.")] = 8700,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where clips and results are kept.", show_default=False),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="mini, a model folder or a hub id.")
    ] = "mini",
    max_size: Annotated[float, typer.Option(metavar="MB", help="Largest upload.")] = 2000.0,
    max_length: Annotated[float, typer.Option(metavar="MINUTES", help="Longest upload.")] = 60.0,
    workers: Annotated[int, typer.Option(metavar="N", help="Clips analysed at once.")] = 1,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="MAVEN_TOKEN",
            show_default=False,
            show_envvar=True,
            help="Asked of everyone; one is made where the address is not the loopback.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name of this server, with :PORT or for all."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Serve a page on this machine: drop videos in, watch results; and an API for programs."""
    if not 0 <= port <= 65535:
        refuse(f"--port: got {port}; accepted: 0 to 65535")
    if not 1 <= workers <= 64:
        refuse(f"--workers: got {workers}; accepted: 1 to 64")
    for option, value in (("--max-size", max_size), ("--max-length", max_length)):
        if not 0 < value < 1e7:
            refuse(f"{option}: got {value:g}; accepted: above 0")
    if token is not None and not re.fullmatch(rf"[\w.~-]{{{LEAST_TOKEN},200}}", token, re.ASCII):
        refuse(f"--token: accepted: {LEAST_TOKEN} or more letters, digits, or any of . _ ~ -")
    place = data or default_folder()
    with one_line_errors(debug):
        check_writable(place)
        import secrets

        import uvicorn

        from maven.checkpoint import fetch
        from maven.web.app import application
        from maven.web.jobs import Jobs, Options
        from maven.web.patience import Patient
        from maven.web.shelf import Shelf

        folder = fetch(model, offline=False)
        if model != "mini" and Path(model).is_dir():
            model = str(folder.absolute())  # workers have another current folder
        listening = bound(host, port)
        is_open = not is_loopback(listening)
        if (is_open or allow_host) and token is None:  # a proxy in front reaches it for others
            token = secrets.token_urlsafe(24)
        options = Options(
            model, int(max_size * 1e6), max_length * 60, workers, tuple(allow_host or ()), token
        )
        shelf = Shelf(place)
        shelf.claim()
        app = application(shelf, Jobs(shelf, options), options)
    announce(host, listening.getsockname()[1], place, token, is_open)
    config = uvicorn.Config(
        app, http=Patient, ws_max_size=MESSAGE_BYTES, log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # it has ended in order by then
        uvicorn.Server(config).run(sockets=[listening])


def default_folder() -> Path:
    """Where data of programs belongs (XDG base directories)."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "maven"


def bound(host: str, port: int) -> socket.socket:
    """Take the address.

    Raises:
        ValueError: it is no address of this machine, or taken.
    """
    import socket

    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind)
        if os.name == "posix":  # not to wait for connections of a server before to time out
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # so that whoever reads the address is not too early
    except OSError as error:
        raise ValueError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listening


def is_loopback(listening: socket.socket) -> bool:
    """Tell whether only programs on this machine reach it."""
    import ipaddress

    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def shown_host(host: str) -> str:
    """Write a host as in an address; for all addresses of this machine, the one that others see."""
    import socket

    if host in ("0.0.0.0", "::"):
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            asked.connect(("192.0.2.1", 9))  # of documentation (RFC 5737); nothing is sent
            return str(asked.getsockname()[0])
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def announce(host: str, port: int, place: Path, token: str | None, is_open: bool) -> None:
    """Say where the page is, and what to know of it."""
    shown = shown_host(host)
    entry = f"?token={token}" if token else ""
    print(
        f"maven is at http://{shown}:{port}/{entry} (files in {place}); Ctrl-C ends it", flush=True
    )
    if is_open:
        print(
            "Others can reach this address: they need the token, and what they send and see is not"
            " encrypted (no TLS).",
            file=sys.stderr,
            flush=True,
        )
