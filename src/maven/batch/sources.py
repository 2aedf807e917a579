"""Where media lie: local paths, and URLs of whatever file systems fsspec knows.

Local paths never go through fsspec. Credentials come from its configuration and the environment,
as each file system documents; a URL that holds a password is refused, for results name their URLs.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from maven.transcript import neighbour_of, preference

LOCAL = ("file", "local")
WEB = ("http", "https")  # they list nothing, and "?" begins their query
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # one letter would be a drive
MAGIC = re.compile(r"[*?\[]")
SUBTITLES = (".srt", ".vtt", ".align")  # the other forms would have to be read to be known
TAGS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "checksum", "Digest")
TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "created")
LASTING = (FileNotFoundError, IsADirectoryError, PermissionError, ImportError, ValueError)
REFUSED = (400, 401, 403, 404, 405, 410, 451)  # by a web server, for good
ANSWER_S = 60.0  # a web server that says nothing for so long is given up
FOLDERS_KEPT = 1000  # whose subtitles are remembered
LONGEST_NAME = 100  # bytes kept of a file's name while it is here


class InputError(Exception):
    """The inputs of a batch cannot be taken; the message is one line and says which one."""


class FetchError(Exception):
    """A URL cannot be fetched; the message is one line that names it.

    `again` is whether it may succeed another time, as after a broken connection.
    """

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


@dataclass(frozen=True)
class Found:
    """What a file system says of a URL.

    `size_bytes` is None, and `state` is empty, where it does not say; `state` is what changes
    when content does: its tag, else its time, with the size.
    """

    url: str
    is_folder: bool
    size_bytes: int | None
    state: tuple[str, ...]


def scheme(text: str) -> str | None:
    """Name the scheme of a URL in lower case; None for a local path, `file://` among them."""
    match = SCHEME.match(text)
    name = match.group(1).lower() if match else None
    return None if name in LOCAL else name


def local_path(text: str) -> str:
    """Give the path of `file://` URLs as a path, other paths as they are."""
    match = SCHEME.match(text)
    return url2pathname(text[match.end() :]) if match else text


def printable(text: str) -> str:
    """Write a name on one line that every terminal and table can show.

    Unusual blanks become blanks; what cannot be printed, and bytes that are no UTF-8, are escaped.
    """
    if text.isprintable():
        return text
    shown = []
    for c in text:
        if c.isprintable():
            shown.append(c)
        elif c.isspace() and ord(c) >= 0xA0 and c not in "\u2028\u2029":
            shown.append(" ")
        elif 0xDC80 <= ord(c) <= 0xDCFF:  # surrogateescape
            shown.append(f"\\x{ord(c) - 0xDC00:02x}")
        else:
            shown.append(c.encode("unicode_escape", "surrogatepass").decode())
    return "".join(shown)


def reason(error: BaseException) -> str:
    """Say on one line why something failed."""
    error = _cause(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(text.split()))[:200]


def _cause(error: BaseException) -> BaseException:
    """Give what went wrong: fsspec says of every answer of a web server that there is no file."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None:
        return error
    return error if getattr(cause, "status", None) in (404, 410) else cause


def name_of(url: str) -> str:
    """Name a URL's last part, without query; escapes of the web are undone."""
    path = unquote(urlsplit(url).path) if scheme(url) in WEB else SCHEME.sub("", url, count=1)
    return path.rstrip("/").rpartition("/")[2]


class Remote:
    """Looks at URLs; may be used by several threads.

    Every method raises FetchError where a URL is not to be had.
    """

    def __init__(self, storage_options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(storage_options or {})
        self._beside: dict[str, dict[str, dict[str, Found]]] = {}  # folder -> stem -> name
        self._listing = Lock()

    def look(self, url: str) -> Found:
        """Look at one URL."""
        with _one_line(url):
            system, path = self._system(url)
            return _found(url, system.info(path))

    def walk(self, url: str) -> Iterator[Found]:
        """List the files below a folder, folder by folder, by name; hidden ones are left out."""
        with _one_line(url):
            system, root = self._system(url)
            for folder, folders, files in system.walk(root, detail=True, on_error="raise"):
                for name in [name for name in folders if name.startswith(".")]:
                    folders.pop(name)
                for name in sorted(files):
                    if name and not name.startswith("."):
                        path = f"{folder.rstrip('/')}/{name}"
                        yield _found(_below(url, root, path), files[name])

    def glob(self, url: str) -> Iterator[Found]:
        """List the files that a pattern of URLs names, by name; hidden ones are left out."""
        fixed = fixed_part(url)
        with _one_line(url):
            system, pattern = self._system(url)
            _, root = self._system(fixed)
            for path, info in sorted(system.glob(pattern, detail=True).items()):
                found = _found(_below(fixed, root, path), info)
                hidden = any(part.startswith(".") for part in found.url[len(fixed) :].split("/"))
                if not found.is_folder and not hidden:
                    yield found

    def subtitles(self, url: str) -> Found | None:
        """Find the subtitle file beside a media file, as `maven.transcript.beside` prefers them.

        A folder is listed once. None where the scheme cannot list, or nothing lies there.
        """
        folder, _, name = url.rpartition("/")
        if scheme(url) in WEB:
            return None
        with self._listing:
            if folder not in self._beside:
                if len(self._beside) >= FOLDERS_KEPT:
                    self._beside.clear()
                self._beside[folder] = self._list_subtitles(folder)
            beside = self._beside[folder]
        stem = Path(name).stem
        near = beside.get(stem, {})
        return near[min(near, key=lambda n: preference(stem, n))] if near else None

    @contextmanager
    def open(self, url: str) -> Iterator[Any]:
        """Open a URL for reading bytes."""
        with _one_line(url):
            system, path = self._system(url)
            file = system.open(path, "rb")
        with file:
            yield file

    def fetch(self, url: str, path: Path, limit_bytes: int) -> None:
        """Download a URL into a local file, which must not exist."""
        from fsspec.callbacks import Callback

        class Counted(Callback):  # type: ignore[misc]
            """Ends a download that is too long, whether or not its server says its size."""

            def call(self, *_: Any, **__: Any) -> None:
                if max(self.value or 0, self.size or 0) > limit_bytes:
                    raise FetchError(f"{printable(url)}: is larger than {limit_bytes:,} bytes")

        with _one_line(url):
            system, source = self._system(url)
            system.get_file(source, str(path), callback=Counted())
            if path.stat().st_size > limit_bytes:
                raise FetchError(f"{printable(url)}: is larger than {limit_bytes:,} bytes")

    def _list_subtitles(self, folder: str) -> dict[str, dict[str, Found]]:
        beside: dict[str, dict[str, Found]] = {}
        with _one_line(folder):
            system, root = self._system(folder)
            for info in system.ls(root, detail=True):
                found = _found(_below(folder, root, info["name"]), info)
                name = name_of(found.url)
                if Path(name).suffix.lower() in SUBTITLES and not found.is_folder:
                    for stem in neighbour_of(name):
                        beside.setdefault(stem, {})[name] = found
        return beside

    def _system(self, url: str) -> tuple[Any, str]:
        """Give the file system of a URL, and its path there."""
        import fsspec
        from fsspec.config import conf

        name = scheme(url)
        if "::" in url:
            raise FetchError(f"{printable(url)}: chained URLs are not taken; accepted: one URL")
        if re.match(r"[^/?#]*:[^/?#]+@", url.partition("://")[2]):
            shown = printable(re.sub(r"://[^@]*@", "://...@", url))
            raise FetchError(f"{shown}: holds a password; accepted: fsspec's configuration")
        options = {**self._options}
        if name in WEB:  # its default ends every download after five minutes
            from aiohttp import ClientTimeout

            patient = ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=ANSWER_S)
            client = (conf.get(name) or {}).get("client_kwargs") or {}
            options.setdefault("client_kwargs", {"timeout": patient, **client})
        elif name not in ("memory",):
            options.setdefault("use_listings_cache", False)  # memory grows with what is listed
        system, path = fsspec.core.url_to_fs(url, **options)
        return system, str(path)


def fixed_part(pattern: str) -> str:
    """Give the folders in front of the first part of a pattern that holds *, ? or [."""
    match = MAGIC.search(pattern)
    return pattern[: pattern.rfind("/", 0, match.start() if match else None) + 1]


@contextmanager
def fetched(
    url: str,
    folder: Path,
    limit_bytes: int,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[Path]:
    """Yield a local file of what `url` names: downloaded into `folder`, removed afterwards.

    It keeps its name, as far as every file system takes it. A local path is yielded as it is.

    Raises:
        FetchError: it cannot be had, or is longer than `limit_bytes`.
    """
    if scheme(url) is None:
        yield Path(local_path(url))
        return
    try:
        own = Path(tempfile.mkdtemp(prefix="fetched-", dir=folder))
    except OSError as error:
        raise FetchError(f"{printable(url)}: cannot be stored ({reason(error)})") from None
    try:
        path = own / _plain_name(name_of(url))
        Remote(storage_options).fetch(url, path, limit_bytes)
        yield path
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _plain_name(name: str) -> str:
    """Cut a name down to what every file system takes, ends (language, suffix) kept."""
    plain = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]', "_", name).strip(". ")
    kept = plain.encode()[-LONGEST_NAME:].decode(errors="ignore")
    return kept.lstrip(". ") or "media"


def _below(url: str, root: str, path: str) -> str:
    """Give the URL of a path below `root`, which is the path of `url`.

    It is not asked of the file system, which may have dropped its host (sftp).
    """
    return f"{url.rstrip('/')}/{path[len(root.rstrip('/')) :].lstrip('/')}"


def _found(url: str, info: Mapping[str, Any]) -> Found:
    size = info.get("size")
    tags = [str(info[name]) for name in TAGS if info.get(name)][:1]
    state = tags or [str(info[name]) for name in TIMES if info.get(name)][:1]
    return Found(
        url,
        info.get("type") == "directory",
        int(size) if isinstance(size, int) else None,
        (str(size), *state) if state else (),
    )


@contextmanager
def _one_line(url: str) -> Iterator[None]:
    """Turn whatever a file system raises, each its own exceptions, into a FetchError."""
    try:
        yield
    except (FetchError, GeneratorExit):
        raise
    except ModuleNotFoundError as error:
        if error.name == "fsspec":
            raise
        raise FetchError(f"{printable(url)}: {reason(error)}") from None
    except Exception as error:
        cause = _cause(error)
        lasting = isinstance(cause, LASTING) or getattr(cause, "status", None) in REFUSED
        raise FetchError(f"{printable(url)}: {reason(error)}", again=not lasting) from None
