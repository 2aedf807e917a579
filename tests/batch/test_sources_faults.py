"""URLs when something goes wrong: a network that fails, servers that refuse, hang or are plain."""

from __future__ import annotations

import errno
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from maven.batch import sources
from maven.batch.items import AHEAD, LOOKERS, InputError, items
from maven.batch.sources import FetchError, Remote, fetched
from served import answering


@pytest.fixture
def bucket() -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for name in ("a.mp4", "a.srt", "b.mp4", "b.srt"):
        system.pipe(f"/bucket/{name}", name.encode())
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


@pytest.fixture
def rows(bucket: str, tmp_path: Path) -> str:
    (tmp_path / "list.csv").write_text(f"path\n{bucket}/a.mp4\n{bucket}/b.mp4\n")
    return str(tmp_path / "list.csv")


def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, times: int = 10**6
) -> list[str]:
    """Have a method of the bucket fail at first; give what it is asked."""
    asked: list[str] = []
    real = getattr(MemoryFileSystem, name)

    def method(self: MemoryFileSystem, path: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(path)
        if len(asked) <= times:
            raise error
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, name, method)
    return asked


@pytest.mark.parametrize("method", ["ls", "info"])
def test_a_short_fault_costs_no_file_its_words(
    bucket: str, rows: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    failing(monkeypatch, method, OSError("connection reset"), times=1)
    assert [(item.transcript, item.problem) for item in items([rows])] == [
        (f"{bucket}/a.srt", None), (f"{bucket}/b.srt", None),
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["ls", "info"])
def test_what_may_have_words_is_not_done_without_them(
    rows: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    failing(monkeypatch, method, OSError("connection reset"))
    for item in items([rows]):
        assert item.problem is not None
        assert item.problem.startswith("list.csv, line ")
        assert item.problem.endswith(": connection reset")


def test_words_that_are_given_are_looked_for_when_their_turn_comes(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.csv").write_text(f"path,transcript\n{bucket}/a.mp4,{bucket}/b.srt\n")
    failing(monkeypatch, "info", OSError("connection reset"))
    (item,) = items([str(tmp_path / "list.csv")])
    assert (item.transcript, item.signature, item.problem) == (f"{bucket}/b.srt", "", None)


class HttpError(Exception):
    """As gcsfs raises it."""

    def __init__(self, code: int) -> None:
        super().__init__("no access")
        self.code = code


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("no"),
        NotImplementedError(),
        OSError("Forbidden: /b\nno"),
        HttpError(401),
        type("Strange", (OSError,), {})(errno.EACCES, "no"),
    ],
)
def test_a_folder_that_may_not_be_listed_is_asked_for_once(
    rows: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked = failing(monkeypatch, "ls", error)
    found = list(items([rows]))
    assert [(item.transcript, item.problem) for item in found] == [(None, None)] * 2
    assert all(item.signature for item in found)
    assert len(asked) == 1


def test_a_file_system_may_keep_listings_as_it_likes(
    bucket: str, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsspec.filesystem("memory"), "dircache", {})  # as that of hf://
    assert [item.transcript for item in items([rows])] == [f"{bucket}/a.srt", f"{bucket}/b.srt"]


def test_what_says_that_it_is_too_large_is_not_begun(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = failing(monkeypatch, "get_file", OSError("begun"))
    with pytest.raises(FetchError, match=r"a\.mp4: is larger than 3 bytes"):
        Remote().fetch(f"{bucket}/a.mp4", tmp_path / "a.mp4", 3)
    assert not asked


class Plain(http.server.BaseHTTPRequestHandler):
    """Serves a manifest piece by piece: no length, no ranges, no tag."""

    protocol_version = "HTTP/1.1"
    body = b"path,id\n/etc/none.mp4,one\n"

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        size = len(self.body) + 1000 * ("cut" in self.path)
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (size, self.body))
        self.close_connection = True


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with answering(Plain) as address:
        yield address


def test_a_manifest_comes_from_any_server(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (item,) = items([f"{web}/list.csv"])
    assert (item.id, item.problem) == ("one", "list.csv, line 2: /etc/none.mp4: no such file")
    with pytest.raises(InputError, match=f"^{web}/cut/list.csv: ") as caught:
        list(items([f"{web}/cut/list.csv?token=K"]))
    assert "K" not in str(caught.value)
    monkeypatch.setattr("maven.batch.items.MANIFEST_BYTES", 9)
    with pytest.raises(InputError, match=f"^{web}/list.csv: is larger than 9 bytes$"):
        list(items([f"{web}/list.csv"]))


def test_who_stops_the_listing_waits_for_no_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, asked, ended = threading.Event(), list[str](), list[str]()

    def look(self: Remote, url: str) -> sources.Found:
        asked.append(url)
        if not url.endswith("/0.mp4"):
            going_on.wait(5)
            ended.append(url)
        return sources.Found(url, False, 1, ("1",))

    monkeypatch.setattr(Remote, "look", look)
    text = "".join(f"http://h/{k}.mp4\n" for k in range(2 * AHEAD))
    (tmp_path / "list.csv").write_text(f"path\n{text}")
    listing = items([str(tmp_path / "list.csv")])
    try:
        assert next(listing).id == "http://h/0.mp4"
        listing.close()  # type: ignore[attr-defined]
        assert ended == []
        assert len(asked) <= LOOKERS + 1
    finally:
        going_on.set()


class Ssh(MemoryFileSystem):  # type: ignore[misc]
    """Takes no option that it does not know, tells nothing of how much has come, and may hang."""

    protocol = "memory"
    cachable = False
    going_on: threading.Event
    writes = b""
    listings: list[Any]

    def __init__(self, **options: Any) -> None:
        assert not options, f"unexpected keyword: {options}"
        super().__init__()
        self.listings.append(self.dircache)

    def get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        Path(lpath).write_bytes(self.writes)
        self.going_on.wait(20)


@pytest.fixture
def ssh(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Ssh]]:
    fsspec.register_implementation("memory", Ssh, clobber=True)
    monkeypatch.setattr(sources, "ANSWER_S", 0.0)
    Ssh.going_on, Ssh.listings = threading.Event(), []
    yield Ssh
    Ssh.going_on.set()
    fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)


def test_a_file_system_gets_no_option_that_it_may_not_know(bucket: str, ssh: type[Ssh]) -> None:
    assert [item.id for item in items([bucket])] == ["a.mp4", "b.mp4"]
    assert ssh.listings
    assert not any(listing.use_listings_cache for listing in ssh.listings)


@pytest.mark.parametrize(
    ("writes", "said", "again"),
    [(b"", "comes with less than 20 kB/s", True), (b"x" * 101, "is larger than 100 bytes", False)],
)
def test_a_download_that_stands_still_is_given_up(
    bucket: str, ssh: type[Ssh], tmp_path: Path, writes: bytes, said: str, again: bool
) -> None:
    ssh.writes = writes
    with pytest.raises(FetchError, match=said) as caught, fetched(
        f"{bucket}/a.mp4", tmp_path, 100
    ):  # fmt: skip
        raise AssertionError("it was fetched")
    assert caught.value.again == again
    assert not ssh.going_on.is_set()
    assert list(tmp_path.iterdir()) == []


def test_what_comes_counts_where_nobody_tells_of_it(
    bucket: str, ssh: type[Ssh], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh.writes, looks = b"x" * 10**6, []
    real = sources.wait

    def looked(*args: Any) -> Any:
        looks.append(args)
        if len(looks) == 3:
            ssh.going_on.set()
        return real(*args)

    monkeypatch.setattr(sources, "wait", looked)
    with fetched(f"{bucket}/a.mp4", tmp_path, 10**6) as path:
        assert path.stat().st_size == 10**6
    assert len(looks) >= 3
