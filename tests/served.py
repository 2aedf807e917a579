"""The real server, as a process on a free port with a folder of its own; and odd ones."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WAIT_S = 120.0  # for one thing that happens on a busy machine
LINE = re.compile(r"http://(\S+?)/(?:\?token=(\S+))? ")


@dataclass(frozen=True)
class Answer:
    """Of the server: status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """The one line of an error."""
        detail = self.json["detail"]
        assert isinstance(detail, str)
        assert len(detail.splitlines()) == 1
        return detail


@dataclass
class Server:
    """A server that can be stopped, killed and started again on the same folder."""

    folder: Path
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    token: str | None = None
    process: subprocess.Popen[str] | None = None

    def start(self) -> Server:
        """Start it, on the port that it had before if it had one."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        command = [sys.executable, "-m", "maven.cli", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--data", str(self.folder), *self.options],
            stdout=subprocess.PIPE, stderr=self.log.open("a"), text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = LINE.search(line)
        assert match, f"{line}{self.log.read_text()}"
        self.port, self.token = int(match[1].rpartition(":")[2]), match[2]
        wait_until(self._answers)
        return self

    @property
    def log(self) -> Path:
        """What it writes to standard error."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _answers(self) -> bool:
        try:
            return self.get("/api/about").status in (200, 401)
        except OSError:
            return False

    def stop(self) -> int:
        """Ask it to end, as Ctrl-C does; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self._ended()

    def kill(self) -> None:
        """End it without a chance to tidy up (SIGKILL)."""
        assert self.process is not None
        self.process.kill()
        self._ended()

    def _ended(self) -> int:
        assert self.process is not None
        code = self.process.wait(timeout=WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Ask for something; an error is an answer too. `body`: bytes or blocks of them."""
        request = urllib.request.Request(
            self.address + path, body, {"Content-Type": "application/octet-stream"}, method=method
        )
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as got:
                return Answer(got.status, _lower(got.headers), got.read())
        except urllib.error.HTTPError as got:
            with got:
                return Answer(got.code, _lower(got.headers), got.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, {k.replace("_", "-"): v for k, v in headers.items()})

    def send(self, path: Path, name: str | None = None, **query: str) -> Answer:
        """Upload a file."""
        asked = urllib.parse.urlencode({"name": name or path.name, "asr": "none", **query})
        return self.ask("POST", f"/api/clips?{asked}", path.read_bytes())

    def clip(self, clip_id: str) -> dict[str, Any]:
        answer = self.get(f"/api/clips/{clip_id}")
        assert answer.status == 200, answer.body
        clip: dict[str, Any] = answer.json
        return clip

    def finished(self, clip_id: str) -> dict[str, Any]:
        """Wait until a clip neither waits nor runs; return it."""
        return self.until(clip_id, lambda clip: clip["state"] not in ("queued", "running"))

    def until(self, clip_id: str, holds: Any) -> dict[str, Any]:
        """Wait until something holds for a clip; return it as it was then."""
        clip: dict[str, Any] = {}

        def there() -> bool:
            nonlocal clip
            clip = self.clip(clip_id)
            return bool(holds(clip))

        wait_until(there, lambda: f"{clip}\n{self.log.read_text()}")
        return clip

    def files(self) -> list[str]:
        """All that lies in its folder, but for the database."""
        paths = (p.relative_to(self.folder) for p in self.folder.rglob("*") if p.is_file())
        return sorted(
            p.as_posix() for p in paths if not p.name.startswith(("maven.sqlite", "lock"))
        )


@contextmanager
def serving(folder: Path, *options: str, **environment: str) -> Iterator[Server]:
    """A server that runs until the block ends, and did not fail inside."""
    server = Server(folder, options, environment).start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@contextmanager
def answering(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve what a handler answers, on a free port; give the address."""
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), quiet) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def wait_until(holds: Any, what: Any = lambda: "") -> None:
    """Wait until a condition holds; fail after `WAIT_S`."""
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, f"it did not come to that: {what()}"
        time.sleep(0.05)


def has_ended(pid: int) -> bool:
    """Tell whether a process has ended, and is nothing but an entry for who started it."""
    with suppress(OSError):
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return sys.platform == "linux" and stat.read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


def processes(folder: Path) -> list[int]:
    """Those that run in a folder or below (Linux)."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended
                if process.joinpath("cwd").readlink().is_relative_to(folder.resolve()):
                    found.append(int(process.name))
    return found


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
