"""Where media lie: local paths, and URLs of whatever file systems fsspec knows.

Local paths never go through fsspec. Credentials come from its configuration and the environment,
as each file system documents; a URL that holds a password is refused, for results name their URLs.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from maven.files import printable
from maven.transcript import neighbour_of, preference

LOCAL = ("file", "local")
WEB = ("http", "https")  # they list nothing, and "?" begins their query
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # one letter would be a drive
MAGIC = re.compile(r"[*?\[]")
# Parameters of URLs that let in whoever has them, or come with those (presigned S3, GCS, OSS, COS,
# CloudFront, Azure; tokens): they are another for each time a URL is made.
SIGNED = (
    r"x-(?:amz|goog|oss|cos|ms|tos)-[\w.-]*|q-[\w-]+|\w*AccessKeyId|GoogleAccessId|Key-Pair-Id"
    r"|Policy|(?:\w*[_-])?(?:Signature|token|secret|password)|sig|pass|pwd|Expires|auth|authkey"
    r"|authorization|credentials?|jwt|(?:access|api)?[_-]?key|hdn(?:ea|ts)"
)
SAS = "s[vtrpe]|spr|sip|srt|ss|ske?|skoid|sktid|skt|sks|skv|sdd|saoid|suoid|scid|ses|rsc[cdelt]"
SUBTITLES = (".srt", ".vtt", ".align")  # the other forms would have to be read to be known
TAGS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "checksum", "Digest")
TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "created")
LASTING = (
    *(FileNotFoundError, IsADirectoryError, PermissionError, ImportError, ValueError),
    NotImplementedError,
)
LASTING_CODES = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTSUP, errno.ENOSYS)
REFUSED = (400, 401, 403, 404, 405, 410, 451)  # by a server, for good
FORBIDDEN = "Forbidden: "  # gcsfs says no more than this
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
LEAST_BYTES_PER_S = 20e3  # of a download, since it began: what is slower hangs, or is made to
ANSWER_S = 60.0  # a web server that says nothing for so long is given up
LONGEST_S = 300.0  # for an answer while files are listed
WATCHED_EVERY_S = 0.2  # is how much of a download has come
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


def shown(text: str) -> str:
    """Leave out of a URL, or of a text with one, what lets in whoever knows it.

    It is the same URL whenever it was signed. User names with passwords become "...".
    """
    if "://" not in text:
        return text
    if has_password(text):
        name, _, rest = text.partition("://")
        text = f"{name}://...@{rest.rpartition('@')[2]}"
    names = f"{SIGNED}|{SAS}" if re.search(r"[?&]sig=", text) else SIGNED
    cut = re.sub(rf"(?i)([?&])(?:{names})=[^&#\s'\")>]*", r"\1", text)
    if cut == text:
        return text
    return re.sub(r"[?&]+(?=[#\s'\")>:]|$)", "", re.sub(r"([?&])&+", r"\1", cut))


def has_password(url: str) -> bool:
    """Tell whether a URL names a user with a password; on the web a user alone may be a token.

    A password may have "/" and "@" of its own: nothing but a port stands behind a host.
    """
    name, _, rest = url.partition("://")
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in host:
        return ":" in host.rpartition("@")[0] or name.lower() in WEB
    return "@" in rest and not re.fullmatch(r"(\[[^]]*\]|[^:]*)(:\d*)?", host)


def reason(error: BaseException) -> str:
    """Say on one line why something failed."""
    error = _cause(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(shown(" ".join(text.split())))[:200]


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

    def __init__(self) -> None:
        self._beside: dict[str, dict[str, dict[str, str]]] = {}  # folder -> stem -> name -> URL
        self._listing = threading.Lock()

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
        """List the files that a pattern of URLs names, by name; hidden ones are left out.

        All of them are in memory at a time.
        """
        fixed = fixed_part(url)
        with _one_line(url):
            system, pattern = self._system(url)
            _, root = self._system(fixed)
            for path, info in sorted(system.glob(pattern, detail=True).items()):
                found = _found(_below(fixed, root, path), info)
                hidden = any(part.startswith(".") for part in found.url[len(fixed) :].split("/"))
                if not found.is_folder and not hidden:
                    yield found

    def subtitles(self, url: str) -> str | None:
        """Find the subtitle file beside a media file, as `maven.transcript.beside` prefers them.

        A folder is listed once. None where it cannot be listed for good (who may read a file need
        not be allowed to), or nothing lies there.
        """
        folder, _, name = url.rpartition("/")
        if scheme(url) in WEB:
            return None
        with self._listing:
            if folder not in self._beside:
                if len(self._beside) >= FOLDERS_KEPT:
                    self._beside.clear()
                try:
                    self._beside[folder] = self._list_subtitles(folder)
                except FetchError as error:
                    if error.again:
                        raise
                    self._beside[folder] = {}
            beside = self._beside[folder]
        stem = Path(name).stem
        near = beside.get(stem, {})
        return near[min(near, key=lambda n: preference(stem, n))] if near else None

    def fetch(self, url: str, path: Path, limit_bytes: int) -> None:
        """Download a URL into a local file, which must not exist."""
        from fsspec.callbacks import Callback

        began_s = time.monotonic()
        larger = FetchError(f"{_told(url)}: is larger than {limit_bytes:,} bytes")
        rate = f"{LEAST_BYTES_PER_S / 1000:g} kB/s"
        slower = FetchError(f"{_told(url)}: comes with less than {rate}", again=True)
        given_up = False

        class Counted(Callback):  # type: ignore[misc]
            """Ends a download that is too long, whether or not its server says its size."""

            def call(self, *_: Any, **__: Any) -> None:
                if given_up or max(self.value or 0, self.size or 0) > limit_bytes:
                    raise larger

        counted, ended = Counted(), Future[None]()

        def get() -> None:
            try:
                ended.set_result(system.get_file(source, str(path), callback=counted))
            except BaseException as error:
                ended.set_exception(error)

        with _one_line(url):
            system, source = self._system(url, ANSWER_S + limit_bytes / LEAST_BYTES_PER_S)
            # Not here: where nothing comes any more, some file systems wait for ever.
            if scheme(url) not in WEB and (system.info(source).get("size") or 0) > limit_bytes:
                raise larger  # some cannot be stopped any more
            threading.Thread(target=get, daemon=True).start()
            try:
                while not wait([ended], WATCHED_EVERY_S).done:
                    here = path.stat().st_size if path.exists() else 0  # ssh and ftp do not count
                    if here > limit_bytes:
                        raise larger
                    due_bytes = LEAST_BYTES_PER_S * (time.monotonic() - began_s - ANSWER_S)
                    if max(here, counted.value or 0) < due_bytes:
                        raise slower
            except BaseException:
                given_up = True
                system.clear_instance_cache()  # nobody else gets its connection
                raise
            ended.result()
            if path.stat().st_size > limit_bytes:
                raise larger

    def _list_subtitles(self, folder: str) -> dict[str, dict[str, str]]:
        beside: dict[str, dict[str, str]] = {}
        with _one_line(folder):
            system, root = self._system(folder)
            for info in system.ls(root, detail=True):
                found = _found(_below(folder, root, info["name"]), info)
                name = name_of(found.url)
                if Path(name).suffix.lower() in SUBTITLES and not found.is_folder:
                    for stem in neighbour_of(name):
                        beside.setdefault(stem, {})[name] = found.url
        return beside

    def _system(self, url: str, longest_s: float = LONGEST_S) -> tuple[Any, str]:
        """Give the file system of a URL, which asks the web for so long, and its path there."""
        import fsspec
        from fsspec.config import conf

        name = scheme(url)
        if "::" in url:
            raise FetchError(f"{_told(url)}: chained URLs are not taken; accepted: one URL")
        if has_password(url):
            raise FetchError(f"{_told(url)}: holds a password; accepted: fsspec's configuration")
        options: dict[str, Any] = {}
        if name in WEB:  # its default ends every download after five minutes
            from aiohttp import ClientTimeout

            patient = ClientTimeout(total=longest_s, sock_connect=ANSWER_S, sock_read=ANSWER_S)
            client = (conf.get(name) or {}).get("client_kwargs") or {}
            options["client_kwargs"] = {"timeout": patient, **client}
        system, path = fsspec.core.url_to_fs(url, **options)
        # Memory grows with what is listed. No option: not every file system takes it (ssh).
        cache = getattr(system, "dircache", None)
        if cache is not None and hasattr(cache, "use_listings_cache"):  # of hf:// it is a dict
            cache.use_listings_cache = False
        return system, str(path)


def fixed_part(pattern: str) -> str:
    """Give the folders in front of the first part of a pattern that holds *, ? or [."""
    match = MAGIC.search(pattern)
    return pattern[: pattern.rfind("/", 0, match.start() if match else None) + 1]


@contextmanager
def fetched(url: str, folder: Path, limit_bytes: int) -> Iterator[Path]:
    """Yield a local file of what `url` names: downloaded into `folder`, removed afterwards.

    It keeps its name, as far as every file system takes it. A local path is yielded as it is.

    Raises:
        FetchError: it cannot be had, comes too slowly, or is longer than `limit_bytes`.
        OSError: it cannot be stored: the disk is full, or `folder` is gone.
    """
    if scheme(url) is None:
        yield Path(local_path(url))
        return
    own = Path(tempfile.mkdtemp(prefix="fetched-", dir=folder))
    try:
        path = own / _plain_name(name_of(url))
        Remote().fetch(url, path, limit_bytes)
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
        size if isinstance(size, int) and 0 <= size < 2**63 else None,
        (str(size), *state) if state else (),
    )


@contextmanager
def _one_line(url: str) -> Iterator[None]:
    """Turn whatever a file system raises, each its own exceptions, into a FetchError.

    That nothing can be written any more is no fault of a URL and stays an OSError.
    """
    try:
        yield
    except (FetchError, GeneratorExit):
        raise
    except ModuleNotFoundError as error:
        if error.name == "fsspec":
            raise
        raise FetchError(f"{_told(url)}: {reason(error)}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            raise
        cause = _cause(error)
        refused = any(
            vars(cause).get(name) in REFUSED for name in ("status", "status_code", "code")
        )
        refused = refused or getattr(cause, "errno", None) in LASTING_CODES
        lasting = isinstance(cause, LASTING) or refused or str(cause).startswith(FORBIDDEN)
        raise FetchError(f"{_told(url)}: {reason(error)}", again=not lasting) from None


def _told(url: str) -> str:
    return printable(shown(url))
