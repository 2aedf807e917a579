"""What is sent, from the connection to the disk: all of it, or nothing of it.

Uploads wait in the shelf's folder for what comes in, under an id, until they are complete; the
folder is emptied when a server starts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from maven.transcript import SUFFIXES
from maven.web.content import HEAD_BYTES, refusal, safe_name
from maven.web.shelf import Shelf, new_id

RESERVE_BYTES = 512 * 2**20  # of disk that uploads leave free, for results
BLOCK_BYTES = 2**20
NAME = ".name"  # of the file beside a transcript that waits, which has its name
WAITING_S = 3600.0  # how long a transcript is kept for its clip


def waiting_transcript(shelf: Shelf, transcript_id: str) -> Path:
    """Find a transcript that was sent; an id is compared with what is there, never made a path."""
    for path in shelf.incoming.iterdir():
        if path.stem == transcript_id and path.suffix in SUFFIXES:
            return path
    raise HTTPException(404, "transcript: there is no such transcript; send it first")


async def store(request: Request, path: Path, *, media: bool) -> int:
    """Write a request's body into a file; return its size.

    What is refused, cut off or does not fit leaves no file.

    Raises:
        HTTPException: 400 empty or cut off, 413 too large, 415 not media, 507 no room.
    """
    size_bytes = 0
    try:
        room(path.parent, int(request.headers.get("content-length") or 0))
        with path.open("xb") as file:
            async for block in joined(request):
                if media and size_bytes == 0:
                    reason = refusal(block[:HEAD_BYTES])
                    if reason is not None:
                        raise HTTPException(415, reason)
                size_bytes += len(block)
                await run_in_threadpool(file.write, block)
                if size_bytes % (16 * BLOCK_BYTES) < BLOCK_BYTES:
                    room(path.parent, 0)
            file.flush()
            await run_in_threadpool(os.fsync, file.fileno())  # before the database knows of it
        if size_bytes == 0:
            raise HTTPException(400, "an empty file")
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, ClientDisconnect):
            raise HTTPException(400, "cut off: the connection ended before the file did") from None
        if isinstance(error, OSError):
            raise HTTPException(507, "no room on the server's disk") from error
        raise
    return size_bytes


async def joined(request: Request) -> AsyncIterator[bytes]:
    """Yield a body in blocks of at least `BLOCK_BYTES`, the last one apart."""
    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= BLOCK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def room(folder: Path, size_bytes: int) -> None:
    """Refuse what would fill the disk.

    Raises:
        HTTPException: 507.
    """
    if shutil.disk_usage(folder).free < size_bytes + RESERVE_BYTES:
        raise HTTPException(507, "no room on the server's disk")


async def take_transcript(request: Request, name: str, shelf: Shelf) -> str:
    """Keep a transcript until its clip comes; return its id.

    Raises:
        HTTPException: 415 where the name has another ending than transcripts have; as `store`.
    """
    shown = safe_name(name, "transcript")
    suffix = Path(shown).suffix.lower()
    if suffix not in SUFFIXES:
        raise HTTPException(415, f"a transcript's name ends in one of {', '.join(SUFFIXES)}")
    for path in shelf.incoming.iterdir():
        with contextlib.suppress(OSError):  # somebody else was faster
            if path.is_file() and path.stat().st_mtime < time.time() - WAITING_S:
                path.unlink()
    transcript_id = new_id()
    path = shelf.incoming / f"{transcript_id}{suffix}"
    await store(request, path, media=False)
    path.with_suffix(NAME).write_text(shown, encoding="utf-8")
    return transcript_id


def hand_over(transcript: Path, folder: Path) -> str:
    """Move a transcript that waited into the folder of its clip; return its name."""
    try:
        name = transcript.with_suffix(NAME).read_text(encoding="utf-8")
        transcript.rename(folder / f"transcript{transcript.suffix}")
    except FileNotFoundError:  # another clip took it, or its hour is over
        raise HTTPException(404, "transcript: it is gone; send it again") from None
    transcript.with_suffix(NAME).unlink(missing_ok=True)
    return name
