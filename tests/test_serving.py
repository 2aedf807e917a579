"""The command that serves: what it refuses, what it says, how it ends."""

from __future__ import annotations

import signal
import socket
import stat
from pathlib import Path

import pytest

from commands import Run, runner
from maven import serving as command
from maven.serving import bound, default_folder, is_loopback, shown_host
from served import serving


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.delenv("MAVEN_TOKEN", raising=False)
    return runner(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "70000"), "--port: got 70000; accepted: 0 to 65535"),
        (("--workers", "0"), "--workers: got 0"),
        (("--max-size", "-1"), "--max-size: got -1"),
        (("--max-length", "nan"), "--max-length: got nan"),
        (("--token", "short"), "--token: accepted: 16 or more"),
        (("--token", "with spaces and so on"), "--token: accepted"),
    ],
)
def test_wrong_options_are_refused(run: Run, arguments: tuple[str, ...], words: str) -> None:
    ended = run("serve", *arguments)
    assert ended.code == 2
    assert words in ended.message


def test_an_address_that_is_taken_is_one_line(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("serve", "--port", str(port), "--data", "data")
    assert ended.code == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in ended.message


@pytest.mark.parametrize("host", ["not an address", "192.0.2.1"])
def test_an_address_of_somewhere_else_is_one_line(run: Run, host: str) -> None:
    ended = run("serve", "--host", host, "--port", "0", "--data", "data")
    assert ended.code == 1
    assert f"cannot listen on {host} port 0" in ended.message


def test_a_model_that_is_not_there_is_one_line(run: Run) -> None:
    ended = run("serve", "--model", "nothing", "--port", "0", "--data", "data")
    assert ended.code == 1
    assert "no model named nothing" in ended.message


def test_the_folder_is_where_data_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data/of/me")
    assert default_folder() == Path("/data/of/me/maven")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_folder() == Path.home() / ".local" / "share" / "maven"


def test_loopback_is_told_from_other_addresses() -> None:
    for host, loopback in (("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)):
        with bound(host, 0) as listening:
            assert is_loopback(listening) is loopback
    assert shown_host("::1") == "[::1]"
    assert shown_host("0.0.0.0") != "0.0.0.0"


def test_two_servers_never_share_a_folder(tmp_path: Path, run: Run) -> None:
    with serving(tmp_path / "data") as server:
        ended = run("serve", "--port", "0", "--data", tmp_path / "data")
        assert ended.code == 1
        assert "another maven serve works in this folder" in ended.message
        assert server.get("/api/about").status == 200


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_order(tmp_path: Path, how: signal.Signals) -> None:
    with serving(tmp_path / "data") as server:
        assert server.process is not None
        server.process.send_signal(how)
        assert server.process.wait(timeout=20) in (0, -signal.SIGTERM)
        assert server.log.read_text() == ""


def test_an_open_address_asks_for_a_token_and_says_so(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--host", "0.0.0.0") as server:
        assert server.token is not None
        assert len(server.token) >= 32
        assert server.get("/api/about").status == 200  # it shows the token
        server.token = None
        for path in ("/", "/api/about", "/static/base.css"):
            answer = server.get(path)
            assert (answer.status, "token" in answer.detail) == (401, True)
        assert "they need the token" in server.log.read_text()
        assert "no TLS" in server.log.read_text()
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_another_name_is_served_where_it_is_allowed(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--allow-host", "lab.example") as server:
        assert server.get("/api/about", Host="lab.example").status == 200
        refused = server.get("/api/about", Host="evil.example")
        assert (refused.status, "--allow-host" in refused.detail) == (421, True)


def test_the_options_are_in_the_help(run: Run) -> None:
    assert command.serve.__doc__
    assert "--allow-host" in run("serve", "--help").out
