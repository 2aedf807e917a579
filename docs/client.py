"""Send a video to a maven server and fetch its results; the standard library is enough.

python docs/client.py CLIP [--server http://127.0.0.1:8700] [--transcript FILE] [--faces all]
    [--overlay] [--out DIR] [--delete]

A server on an address that is not the loopback asks for its token: put it into MAVEN_TOKEN.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

POLL_S = 0.5
WAITING = ("queued", "running")


class Client:
    """A maven server.

    Args:
        server: its address, for instance http://127.0.0.1:8700.
        token: what it printed when it started, if it did.
    """

    def __init__(self, server: str, token: str | None = None) -> None:
        self._server, self._token = server.rstrip("/"), token

    def ask(self, method: str, path: str, body: Any = None, length: int | None = None) -> Any:
        """Open an answer of the server; `body` is bytes or an open file.

        Raises:
            RuntimeError: it refuses, with the line in which it says why.
        """
        request = Request(self._server + path, body, method=method)
        request.add_header("Content-Type", "application/octet-stream")
        if length is not None:
            request.add_header("Content-Length", str(length))
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            return urlopen(request)
        except HTTPError as error:
            with error:
                raise RuntimeError(json.load(error)["detail"]) from None

    def get(self, path: str) -> Any:
        """Ask for JSON."""
        with self.ask("GET", path) as answer:
            return json.load(answer)

    def send(self, path: Path, kind: str = "clips", **query: str) -> str:
        """Send a clip, or a transcript; return its id."""
        address = f"/api/{kind}?{urlencode({'name': path.name, **query})}"
        with (
            path.open("rb") as file,
            self.ask("POST", address, file, path.stat().st_size) as answer,
        ):
            sent: str = json.load(answer)["id"]
        return sent

    def wait(self, clip: str) -> dict[str, Any]:
        """Wait for a clip, and for its overlay if one is being made; return it.

        Raises:
            RuntimeError: it failed, or was cancelled.
        """
        while True:
            found: dict[str, Any] = self.get(f"/api/clips/{clip}")
            state, overlay = found["state"], found["overlay"]
            if state in WAITING or overlay["state"] in WAITING:
                done = found["progress"] if state in WAITING else overlay["progress"]
                stage = found["stage"] or ("overlay" if state == "done" else "queued")
                print(f"\r{stage}: {done or 0.0:4.0%}    ", end="", flush=True)
                time.sleep(POLL_S)
                continue
            print()
            if state != "done" or overlay["state"] == "failed":
                raise RuntimeError(found["error"] or overlay["error"] or state)
            return found

    def fetch(self, clip: str, kind: str, target: Path) -> None:
        """Download a result: csv, parquet, json, vtt, report or overlay."""
        with (
            self.ask("GET", f"/api/clips/{clip}/files/{kind}") as answer,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)


ENDINGS = {"report": ".html", "overlay": ".mp4"}


def main() -> None:
    """Send a clip, wait, and fetch all that there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8700")
    parser.add_argument("--transcript", type=Path)
    parser.add_argument("--faces", choices=("main", "all"), default="main")
    parser.add_argument("--asr", default="auto")
    parser.add_argument("--overlay", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("maven-out"))
    parser.add_argument("--delete", action="store_true", help="from the server, in the end")
    given = parser.parse_args()

    client = Client(given.server, os.environ.get("MAVEN_TOKEN"))
    query = {"faces": given.faces, "asr": given.asr}
    try:
        if given.transcript:
            query["transcript"] = client.send(given.transcript, "transcripts")
        clip = client.send(given.clip, **query)
        kinds = client.wait(clip)["files"]
        if given.overlay:
            client.ask("POST", f"/api/clips/{clip}/overlay?blur=false").close()
            client.wait(clip)
            kinds.append("overlay")
        given.out.mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            target = given.out / f"{given.clip.stem}.maven{ENDINGS.get(kind, f'.{kind}')}"
            client.fetch(clip, kind, target)
            print(f"Wrote {target}")
        if given.delete:
            client.ask("DELETE", f"/api/clips/{clip}").close()
    except RuntimeError as error:
        raise SystemExit(f"{given.clip}: {error}") from None


if __name__ == "__main__":
    main()
