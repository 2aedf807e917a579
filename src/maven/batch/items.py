"""Inputs of a batch -> items: one video each, or a part of one, and what tells whether it changed.

An item's id depends on nothing but itself: the name of a file; below a folder, or the fixed part of
a pattern, the path from there; in a manifest its `id`, else the path as written, with
`#start-end` where only a part is wanted.
"""

# ruff: noqa: PTH116, PTH117, PTH118, PTH119, PTH120
# Strings, not `Path`: a hundred thousand of those take most of the time.

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from maven.batch import folders, manifest
from maven.batch.sources import (
    WEB,
    FetchError,
    Found,
    Remote,
    fetched,
    fixed_part,
    has_password,
    local_path,
    name_of,
    reason,
    scheme,
    shown,
)
from maven.batch.sources import InputError as InputError  # of `items`
from maven.files import printable

LONGEST_ID = 400  # characters
LOOKERS = 16  # threads that look at a manifest's URLs
AHEAD = 64  # URLs that are looked at before they are asked for
MANIFEST_BYTES = 2**32  # at most, of one that is brought here


@dataclass(frozen=True)
class Item:
    """One thing to be done.

    Attributes:
        id: Unique in a batch, printable, one line of at most 400 characters.
        path: Absolute local path (bytes that are no UTF-8 as surrogate escapes), or a URL.
        transcript: The same, for the transcript that was given; None where none was.
        start_s: Where the part begins on the media's clock, >= 0; None: at the beginning.
        end_s: Where it ends, > start_s; None: at the end.
        size_bytes: Length of the media file; None where the listing does not say.
        signature: JSON of what tells cheaply whether contents may have changed: sizes and times of
            media and transcript (the one given, else those beside), and which part is wanted; ""
            where nothing tells, so that it must be looked into.
        problem: Why it cannot even be looked at, one line; None where it can.
    """

    id: str
    path: str
    transcript: str | None
    start_s: float | None
    end_s: float | None
    size_bytes: int | None
    signature: str
    problem: str | None


def items(inputs: Sequence[str]) -> Iterator[Item]:
    """List what files, folders, patterns, manifests and URLs name.

    Memory does not grow with it, but for a pattern of URLs. A file that is there is meant before a
    pattern of the same text. Folders and patterns give files with names of media only.

    Raises:
        InputError: an input is no such thing, or names nothing.
    """
    lister = _Lister(Remote())
    listings = [(text, lister.listing(text)) for text in inputs]  # refuses before it lists
    for text, listing in listings:
        is_empty = True
        for item in listing:
            is_empty = False
            yield item
        if is_empty:
            kinds = " ".join(folders.MEDIA[:6])
            said = f"names no media file; accepted: {kinds} and more"
            raise InputError(f"{printable(shown(text))}: {said}")


def id_of(text: str) -> str:
    """Make an id of a name: as it is, where it is printable and short; else with a checksum.

    Of a URL, what `shown` leaves: it is the same one when it is signed anew.
    """
    text = shown(text)
    written = printable(text)
    if written == text and len(text) <= LONGEST_ID:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{written[: LONGEST_ID - len(digest) - 1]}~{digest}"


class _Lister:
    """Turns inputs into items; remembers what lies beside them."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._neighbours = folders.Neighbours()

    def listing(self, text: str) -> Iterator[Item]:
        """Tell what an input is, and list it when asked."""
        if scheme(text):
            return self._url_listing(text)
        written = local_path(text)
        path = str(Path(written).absolute())
        try:
            mode = Path(path).stat().st_mode
        except (OSError, ValueError) as error:
            if folders.is_pattern(written) and not os.path.lexists(path):
                return map(self._entry, folders.glob(written))
            accepted = "accepted: files, folders, patterns, URLs, manifests (.csv, .parquet)"
            raise InputError(f"{printable(text)}: {reason(error)}; {accepted}") from None
        if stat.S_ISDIR(mode):
            return map(self._entry, folders.walk(path))
        if not stat.S_ISREG(mode):
            raise InputError(f"{printable(text)}: is no regular file; accepted: a file or folder")
        if path.lower().endswith(manifest.SUFFIXES):
            return self._manifest(path)
        return iter((self._item(id_of(PurePath(path).name), path),))

    def _url_listing(self, url: str) -> Iterator[Item]:
        try:
            found = self._remote.look(url)
        except FetchError as error:
            if scheme(url) not in WEB and folders.is_pattern(url):
                return self._found(url, self._remote.glob(url))
            raise InputError(str(error)) from None
        if found.is_folder:
            return self._found(url, self._remote.walk(url))
        if name_of(url).lower().endswith(manifest.SUFFIXES):
            return self._manifest(url)
        return iter((self._item(id_of(name_of(url)), url, found),))

    def _entry(self, entry: folders.Entry) -> Item:
        name = id_of(entry.name)
        if entry.problem:
            return _problem(name, entry.path, f"{printable(entry.path)}: {entry.problem}")
        return self._item(name, entry.path)

    def _found(self, url: str, listing: Iterable[Found]) -> Iterator[Item]:
        base = fixed_part(url) if folders.is_pattern(url) else url
        try:
            for found in listing:
                if folders.is_media(name_of(found.url)):
                    yield self._item(id_of(found.url[len(base) :].lstrip("/")), found.url, found)
        except FetchError as error:
            raise InputError(str(error)) from None

    def _manifest(self, path: str) -> Iterator[Item]:
        name, here = PurePath(path).name, Path(path)
        try:
            with ExitStack() as stack:
                if scheme(path):
                    name = name_of(path)
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maven-")))
                    here = stack.enter_context(fetched(path, folder, MANIFEST_BYTES))
                file = stack.enter_context(here.open("rb"))
                yield from self._rows(manifest.rows(file, name), path)
        except FetchError as error:
            raise InputError(str(error)) from None
        except OSError as error:
            said = f"{printable(shown(path))}: cannot be read ({reason(error)})"
            raise InputError(said) from None

    def _rows(self, rows: Iterable[manifest.Row], of: str) -> Iterator[Item]:
        """Look at a manifest's rows, in their order; at URLs with several threads."""
        waiting: deque[Future[Item]] = deque()
        pool = ThreadPoolExecutor(LOOKERS)
        try:
            for row in rows:
                media = _resolved(row.path, of) if row.path else ""
                transcript = _resolved(row.transcript, of) if row.transcript else None
                distant = scheme(media) or scheme(transcript or "")
                if distant and not row.problem:
                    waiting.append(pool.submit(self._row, row, media, transcript))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                    continue
                while waiting:
                    yield waiting.popleft().result()
                yield self._row(row, media, transcript)
            while waiting:
                yield waiting.popleft().result()
        finally:  # who ends it early waits for those under way alone
            pool.shutdown(wait=False, cancel_futures=True)

    def _row(self, row: manifest.Row, path: str, transcript: str | None) -> Item:
        if row.problem:
            # Not the path: the name of another row, of the same file, would be taken.
            return _problem(id_of(row.id or row.where), path, row.problem)
        name = row.id or row.path
        if row.id is None and (row.start_s is not None or row.end_s is not None):
            end = "" if row.end_s is None else f"{row.end_s:.15g}"
            name = f"{name}#{row.start_s or 0.0:.15g}-{end}"
        part = (row.start_s, row.end_s)
        return self._item(id_of(name), path, None, transcript, part, f"{row.where}: ")

    def _item(
        self,
        name: str,
        path: str,
        found: Found | None = None,
        transcript: str | None = None,
        part: tuple[float | None, float | None] = (None, None),
        where: str = "",
    ) -> Item:
        """Look at a media file and its transcript; where they cannot be, the item says so.

        Where the network fails, it may be back when the file's turn comes; but not where words may
        lie beside, which nobody looks for then.
        """
        words_unknown = transcript is None and scheme(path) not in (None, *WEB)
        try:
            try:
                return self._looked_at(name, path, found, transcript, part)
            except FetchError as error:
                if not (error.again and words_unknown):
                    raise
                return self._looked_at(name, path, found, transcript, part)
        except FetchError as error:
            if error.again and not words_unknown:
                return Item(name, path, transcript, *part, None, "", None)
            return _problem(name, path, f"{where}{error}", transcript, part)

    def _looked_at(
        self,
        name: str,
        path: str,
        found: Found | None,
        transcript: str | None,
        part: tuple[float | None, float | None],
    ) -> Item:
        told: dict[str, Any]
        if scheme(path):
            found = found or self._remote.look(path)
            transcript = transcript or self._remote.subtitles(path)
            size, told = found.size_bytes, {"media": [shown(path), *found.state]}
            known = bool(found.state)
        else:
            size, state = _local_state(path)
            told, known = {"media": [os.path.basename(path), *state]}, True
            if transcript is None:
                told["beside"] = self._beside(path)
        if transcript:
            told["transcript"] = self._transcript_state(transcript)
            known = known and len(told["transcript"]) > 1
        signature = json.dumps({**told, "part": part}, separators=(",", ":")) if known else ""
        return Item(name, path, transcript, *part, size, signature, None)

    def _transcript_state(self, path: str) -> list[Any]:
        state = self._remote.look(path).state if scheme(path) else _local_state(path)[1]
        return [shown(path), *state]

    def _beside(self, path: str) -> dict[str, list[int]]:
        """Tell of all files beside that may be the transcript: to know which, they must be read."""
        told = {}
        for name in self._neighbours.of(path):
            try:
                told[name] = _local_state(os.path.join(os.path.dirname(path), name))[1]
            except FetchError:
                continue
        return told


def _local_state(path: str) -> tuple[int, list[int]]:
    """Give a file's size, and what changes when it is written to."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise FetchError(f"{printable(path)}: {reason(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise FetchError(f"{printable(path)}: is {kind}; accepted: a file")
    return status.st_size, [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _resolved(path: str, manifest_path: str) -> str:
    """Give the absolute path, or the URL, of what a manifest names."""
    if scheme(path):
        return path
    written = local_path(path)
    if scheme(manifest_path) and not os.path.isabs(written):
        return f"{manifest_path.partition('?')[0].rpartition('/')[0]}/{written}"
    joined = os.path.join(os.path.dirname(manifest_path), written)
    return str(Path(joined)) if "/./" in joined or "//" in joined else joined


def _problem(
    name: str,
    path: str,
    problem: str,
    transcript: str | None = None,
    part: tuple[float | None, float | None] = (None, None),
) -> Item:
    if has_password(path):
        path = shown(path)
    if transcript and has_password(transcript):
        transcript = shown(transcript)
    return Item(name, path, transcript, *part, None, "", problem)
