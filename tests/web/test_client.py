"""The client in the docs, as a reader would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pandas as pd
import pytest

from demo_pieces import copy_piece
from served import Server, serving

CLIENT = Path(__file__).parents[2] / "docs" / "client.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("served") / "data"
    with serving(place, "--token", "a-token-of-the-test") as server:
        yield server


def client(server: Server, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CLIENT, *map(str, arguments), "--server", server.address],
        capture_output=True, text=True, check=False,
        env={**os.environ, "MAVEN_TOKEN": str(server.token)},
    )  # fmt: skip


def test_it_sends_waits_fetches_and_deletes(server: Server, tmp_path: Path) -> None:
    clip = copy_piece(tmp_path / "my clip.mp4", 1.5)
    (tmp_path / "words.srt").write_text("1\n00:00:00,100 --> 00:00:01,000\nlovely day\n")
    run = client(server, clip, "--transcript", tmp_path / "words.srt", "--overlay",
                 "--out", tmp_path / "out", "--delete")  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {f"my clip.maven.{kind}" for kind in ("csv", "json", "vtt", "html", "mp4")} <= made
    table = pd.read_csv(tmp_path / "out" / "my clip.maven.csv")
    assert table["valence"].notna().any()
    assert table["has_text"].any()
    with av.open(str(tmp_path / "out" / "my clip.maven.mp4")) as overlay:
        assert next(overlay.decode(video=0)).width > 0
    assert "Wrote" in run.stdout
    assert server.files() == []


def test_it_says_in_one_line_what_is_wrong(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"%PDF-1.7")
    run = client(server, tmp_path / "a.mp4")
    assert run.returncode == 1
    assert run.stderr.strip().startswith(f"{tmp_path / 'a.mp4'}: a PDF document; accepted: video")
    assert len(run.stderr.splitlines()) == 1
