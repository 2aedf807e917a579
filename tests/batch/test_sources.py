"""URLs: looked at, listed, fetched, removed; a bucket in memory, the web on loopback."""

from __future__ import annotations

import http.server
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from maven.batch import sources
from maven.batch.items import InputError, items
from maven.batch.sources import (
    FetchError,
    fetched,
    has_password,
    local_path,
    name_of,
    scheme,
    shown,
)
from served import answering

MEBIBYTE = 2**20


class Server(http.server.BaseHTTPRequestHandler):
    """Serves what the tests need: files with and without tags, slow, broken and endless ones."""

    protocol_version = "HTTP/1.1"
    slow_at_once = slowest = 0
    etag = "1"

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        body, headers = b"x" * 1000, {"ETag": f'"{Server.etag}"'}
        if path.endswith("list.csv"):
            body = b"path,id\na%20b.mp4,one\n/etc/none.mp4,two\n"
        elif path.startswith("/untagged"):
            headers = {}
        elif path.startswith("/slow"):
            Server.slow_at_once += 1
            Server.slowest = max(Server.slowest, Server.slow_at_once)
            time.sleep(0.05)
            Server.slow_at_once -= 1
        elif path.startswith("/broken"):
            headers["Content-Length"] = "2000"
        elif path.startswith("/endless"):
            headers["Transfer-Encoding"] = "chunked"
        elif path.startswith("/dripping"):
            headers["Content-Length"] = "100000"
        elif path.startswith("/missing"):
            self.send_error(404)
            return
        elif path.startswith(("/away", "/refused")):
            self.send_error(503 if path.startswith("/away") else 403)
            return
        elif path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if "Transfer-Encoding" not in headers:
            headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not with_body:
            return
        try:
            if path.startswith("/endless"):
                for _ in range(100):
                    self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            elif path.startswith("/dripping"):
                for _ in range(50):
                    self.wfile.write(b"x")
                    time.sleep(0.02)
            else:
                self.wfile.write(body)
        except OSError:
            pass
        if path.startswith(("/broken", "/endless", "/dripping")):
            self.close_connection = True


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with answering(Server) as address:
        yield address


@pytest.fixture
def bucket() -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for name in (
        "a.mp4",
        "b/c.MOV",
        "b/c.srt",
        "b/c.en.srt",
        "b/notes.txt",
        "b/.x/y.mp4",
        ".z.mp4",
    ):
        system.pipe(f"/bucket/{name}", name.encode())
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


def test_what_is_a_url() -> None:
    assert scheme("S3://bucket/a.mp4") == "s3"
    for text in ("a.mp4", "/a.mp4", "C:\\a.mp4", "C:/a.mp4", "c://a.mp4", "file:///a", "x:y"):
        assert scheme(text) is None
    assert local_path("file:///films/a%20b.mp4") == "/films/a b.mp4"
    assert local_path("local:///films/a.mp4") == "/films/a.mp4"
    assert local_path("100%25.mp4") == "100%25.mp4"
    assert name_of("https://host/a/b%20c.mp4?token=/x.mp4#t") == "b c.mp4"
    assert name_of("s3://bucket/a/b%20c?.mp4") == "b%20c?.mp4"


def test_a_folder_of_a_bucket(bucket: str) -> None:
    found = list(items([bucket]))
    assert [(item.id, item.path) for item in found] == [
        ("a.mp4", "memory://bucket/a.mp4"),
        ("b/c.MOV", "memory://bucket/b/c.MOV"),
    ]
    assert [item.size_bytes for item in found] == [5, 7]
    assert [item.problem for item in found] == [None, None]
    assert found[1].transcript == "memory://bucket/b/c.srt"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*.mp4", ["a.mp4"]), ("**/*", ["a.mp4", "b/c.MOV"]), ("b/*", ["c.MOV"])],
)
def test_patterns_of_a_bucket(bucket: str, tmp_path: Path, pattern: str, found: list[str]) -> None:
    listed = list(items([f"{bucket}/{pattern}"]))
    assert sorted(item.id for item in listed) == found
    for item in listed:
        with fetched(item.path, tmp_path, 100) as path:
            assert path.read_bytes()


def test_a_file_of_a_bucket_and_its_signature(bucket: str) -> None:
    (item,) = items([f"{bucket}/b/c.MOV"])
    assert (item.id, item.transcript) == ("c.MOV", "memory://bucket/b/c.srt")
    assert next(items([f"{bucket}/b/c.MOV"])) == item
    system = fsspec.filesystem("memory")
    seen = {item.signature}
    for name in ("c.MOV", "c.srt"):
        time.sleep(0.01)
        system.pipe(f"/bucket/b/{name}", b"changed"[: len(name) + 2])
        seen.add(next(items([f"{bucket}/b/c.MOV"])).signature)
    assert len(seen) == 3
    assert "" not in seen


def test_a_manifest_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"x")
    text = f"path,transcript\na.mp4,\nb/c.MOV,b/notes.txt\n{tmp_path}/x.mp4,\ngone.mp4,\n"
    fsspec.filesystem("memory").pipe("/bucket/list.csv", text.encode())
    a, c, x, gone = items([f"{bucket}/list.csv"])
    assert (a.id, a.path, a.problem) == ("a.mp4", f"{bucket}/a.mp4", None)
    assert (c.transcript, c.problem) == (f"{bucket}/b/notes.txt", None)
    assert (x.path, x.size_bytes) == (str(tmp_path / "x.mp4"), 1)
    assert gone.problem == f"list.csv, line 5: {bucket}/gone.mp4: no such file"


def test_a_bucket_is_listed_once_for_its_transcripts(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    listed: list[str] = []
    listing = MemoryFileSystem.ls

    def counted(self: MemoryFileSystem, path: str, *args: object, **kwargs: object) -> object:
        listed.append(path)
        return listing(self, path, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "ls", counted)
    (tmp_path / "list.csv").write_text("path\n" + f"{bucket}/b/c.MOV\n" * 50)
    found = list(items([str(tmp_path / "list.csv")]))
    assert {item.transcript for item in found} == {f"{bucket}/b/c.srt"}
    assert len(listed) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://bucket/none.mp4", "memory://bucket/none.mp4: no such file"),
        ("memory://bucket/none*.mp4", "names no media file"),
        ("memory://bucket/b/.x", None),
        ("nosuch://bucket/a.mp4", "Protocol not known: nosuch"),
        ("s3://bucket/a.mp4", "s3fs"),
        ("zip://*.mp4::memory://bucket/x.zip", "chained URLs are not taken"),
        ("https://me:secret@host/a.mp4", "https://...@host/a.mp4: holds a password"),
        ("simplecache://x/a.mp4", "simplecache://x/a.mp4: "),
    ],
)
def test_urls_that_cannot_be_taken(bucket: str, url: str, said: str | None) -> None:
    if said is None:
        assert [item.id for item in items([url])] == ["y.mp4"]
        return
    if url.startswith("s3:") and "s3fs" in fsspec.available_protocols():
        pytest.skip("s3fs is installed")
    with pytest.raises(InputError) as caught:
        list(items([url]))
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


def test_the_web(web: str) -> None:
    (item,) = items([f"{web}/films/a%20b.mp4?token=1"])
    assert (item.id, item.size_bytes, item.problem) == ("a b.mp4", 1000, None)
    assert item.path == f"{web}/films/a%20b.mp4?token=1"
    assert item.transcript is None
    Server.etag = "2"
    assert next(items([item.path])).signature not in ("", item.signature)
    assert next(items([f"{web}/untagged/a.mp4"])).signature == ""
    with pytest.raises(InputError, match="no such file"):
        list(items([f"{web}/missing/a.mp4"]))
    with pytest.raises(InputError, match="503"):
        list(items([f"{web}/away/a.mp4"]))


def test_a_manifest_on_the_web(web: str) -> None:
    one, two = items([f"{web}/films/list.csv?token=1"])
    assert (one.id, one.path, one.problem) == ("one", f"{web}/films/a%20b.mp4", None)
    assert two.problem == "list.csv, line 3: /etc/none.mp4: no such file"


def test_rows_with_urls_are_looked_at_together_and_stay_in_order(web: str, tmp_path: Path) -> None:
    rows = [f"{web}/{'missing' if k % 7 == 3 else 'slow'}/{k}.mp4" for k in range(100)]
    rows[50], rows[51] = "local.mp4", f"{web}/away/51.mp4"
    (tmp_path / "local.mp4").write_bytes(b"x")
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(rows))
    Server.slowest = 0
    found = list(items([str(tmp_path / "list.csv")]))
    assert [item.id for item in found] == rows
    assert [k for k, item in enumerate(found) if item.problem] == [
        k for k in range(100) if k % 7 == 3
    ]
    assert found[51].signature == ""  # asked again when its turn comes
    assert Server.slowest > 4


def test_fetching(bucket: str, web: str, tmp_path: Path) -> None:
    local = tmp_path / "a.mp4"
    with fetched(str(local), tmp_path, 0) as path:
        assert path == local
    for url, name, size in (
        (f"{bucket}/b/c.en.srt", "c.en.srt", 10),
        (f"{web}/x/f%C3%A9.mp4?x=1", "fé.mp4", 1000),
        (f"{web}/untagged/..%2F..%2Fetc.mp4", "etc.mp4", 1000),
        (f"{web}/{'a' * 300}.mp4", "a" * 96 + ".mp4", 1000),
    ):
        with fetched(url, tmp_path, 1000) as path:
            assert path.name == name
            assert path.parent.parent == tmp_path
            assert path.stat().st_size == size
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "said", "again"),
    [
        ("/a.mp4", "is larger than 999 bytes", False),
        ("/endless/a.mp4", "is larger than 999 bytes", False),
        ("/missing/a.mp4", "no such file", False),
        ("/away/a.mp4", "503", True),
        ("/refused/a.mp4", "403", False),
        ("/broken/a.mp4", "", True),
        ("/elsewhere/a.mp4", "", True),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing(
    web: str, tmp_path: Path, path: str, said: str, again: bool
) -> None:
    limit = 5000 if "broken" in path or "elsewhere" in path else 999
    with pytest.raises(FetchError) as caught, fetched(web + path, tmp_path, limit):
        raise AssertionError("it was fetched")
    message = str(caught.value)
    assert message.startswith(web + path)
    assert said in message
    assert message.isprintable()
    assert caught.value.again == again
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_hardly_moves_is_given_up(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "ANSWER_S", 0.3)
    with pytest.raises(FetchError, match="comes with less than 20 kB/s") as caught, fetched(
        f"{web}/dripping/a.mp4?token=K", tmp_path, 10**6
    ):  # fmt: skip
        raise AssertionError("it was fetched")
    assert caught.value.again
    assert "K" not in str(caught.value).replace("kB", "")


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("https://h/a.mp4?X-Amz-Date=1&X-Amz-Signature=K&versionId=7#t", "?versionId=7#t"),
        ("https://h/a.mp4?sv=1&st=K&se=K&sr=b&sp=r&sig=K%3D", ""),
        ("https://h/a.mp4?Expires=K&Signature=K&Key-Pair-Id=K", ""),
        ("https://h/a.mp4?v=1&access_token=K", "?v=1"),
        ("https://h/a.mp4?AWSAccessKeyId=K&v=1", "?v=1"),
        ("https://h/a.mp4?sp=1&se=2&monkey=3", "?sp=1&se=2&monkey=3"),
    ],
)
def test_what_signs_a_url_is_not_shown(url: str, left: str) -> None:
    assert shown(url) == f"https://h/a.mp4{left}"
    assert shown(f"404, url='{url}'") == f"404, url='https://h/a.mp4{left}'"


def test_a_url_that_is_signed_anew_is_the_same_item(web: str, tmp_path: Path) -> None:
    found = []
    for key in ("K1", "K2"):
        signed = f"{web}/films/a.mp4?v=1&X-Amz-Date={key}&X-Amz-Signature={key}"
        (tmp_path / "list.csv").write_text(f"path,end\n{signed},5\n")
        (item,) = items([str(tmp_path / "list.csv")])
        assert item.path == signed
        assert item.id == f"{web}/films/a.mp4?v=1#0-5"
        found.append(item.signature)
    assert found[0] == found[1] != ""


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("https://u:K@h/a.mp4", "https://...@h/a.mp4"),
        ("https://K@h/a.mp4", "https://...@h/a.mp4"),
        ("ftp://u:K@K@h/a.mp4", "ftp://...@h/a.mp4"),
        ("s3://A:K/K@b/a.mp4", "s3://...@b/a.mp4"),
        ("s3://A:K@K/K@b/a.mp4", "s3://...@b/a.mp4"),
        ("http://h:80/a@b.mp4", None),
        ("http://[::1]:80/a@b.mp4", None),
        ("sftp://me@h:22/a.mp4", None),
        ("s3://bucket/a:b@c.mp4", None),
        ("abfs://box@host/a.mp4", None),
        ("/data/a:b@c.mp4", None),
    ],
)
def test_passwords_are_not_shown(url: str, masked: str | None, tmp_path: Path) -> None:
    assert shown(url) == (masked or url)
    assert has_password(url) == bool(masked)
    if masked:
        (tmp_path / "list.csv").write_text(f"path\n{url}\n")
        (item,) = items([str(tmp_path / "list.csv")])
        assert item.problem is not None
        assert "holds a password" in item.problem
        assert (item.id, item.path) == (masked, masked)
        assert "K" not in item.signature + item.problem


def test_a_server_that_is_not_there_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught, fetched("http://127.0.0.1:9/a.mp4", tmp_path, 10):
        raise AssertionError("it was fetched")
    assert caught.value.again
    with pytest.raises(FileNotFoundError), fetched(
        "memory://bucket/a.mp4", tmp_path / "nowhere", 10
    ):  # fmt: skip
        raise AssertionError("it was fetched")


def test_a_fetched_file_goes_also_where_the_work_fails(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(KeyError), fetched(f"{bucket}/a.mp4", tmp_path, 100):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
