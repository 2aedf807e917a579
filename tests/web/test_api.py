"""The API from upload to deletion, on the real server with a real clip."""

from __future__ import annotations

import io
import json
import re
import shutil
import stat
from collections import namedtuple
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from demo_pieces import copy_piece
from maven.web.api import KINDS
from maven.web.app import STATIC, application
from maven.web.jobs import Jobs, Options
from maven.web.shelf import Shelf
from served import Server, serving, wait_until

STAGES = ("checking", "faces", "voice", "words", "answers", "writing")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served") / "data") as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_piece(tmp_path_factory.mktemp("media") / "Ünïcode <b>.mp4", 2.0)


@pytest.fixture(scope="module")
def followed(server: Server, piece: Path) -> list[dict[str, Any]]:
    """A clip as it was seen from upload to result."""
    answer = server.send(piece)
    assert answer.status == 201
    seen = [answer.json]

    def ended() -> bool:
        clip = server.clip(seen[0]["id"])
        if clip != seen[-1]:
            seen.append(clip)
        return clip["state"] not in ("queued", "running")

    wait_until(ended)
    return seen


@pytest.fixture(scope="module")
def clip(followed: list[dict[str, Any]]) -> dict[str, Any]:
    assert followed[-1]["state"] == "done", followed[-1]
    return followed[-1]


def test_about(server: Server) -> None:
    about = server.get("/api/about").json
    assert about["model"] == "mini"
    assert about["limits"] == {"size_bytes": 2_000_000_000, "length_s": 3600.0}
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["version"])


def test_an_upload_waits_then_runs_through_its_stages(
    followed: list[dict[str, Any]], piece: Path
) -> None:
    first, last = followed[0], followed[-1]
    assert (first["name"], first["size_bytes"]) == (piece.name, piece.stat().st_size)
    assert (first["state"], first["position"]) == ("queued", 0)
    assert first["settings"] == {"faces": "main", "asr": "none", "transcript": None}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first["created"])
    stages = [clip["stage"] for clip in followed if clip["stage"]]
    assert [STAGES.index(stage) for stage in stages] == sorted(map(STAGES.index, stages))
    assert {"faces", "writing"} <= set(stages)
    progress = [clip["progress"] for clip in followed if clip["progress"] is not None]
    assert all(a <= b for a, b in pairwise(progress))
    assert (last["progress"], last["stage"], last["error"]) == (1.0, None, None)
    assert last["length_s"] == pytest.approx(2.0, abs=0.2)


def test_the_list_holds_it(server: Server, clip: dict[str, Any]) -> None:
    assert clip in server.get("/api/clips").json["clips"]


def test_the_view_is_what_the_page_needs(server: Server, clip: dict[str, Any], piece: Path) -> None:
    view = server.get(f"/api/clips/{clip['id']}/view").json
    assert view["file"] == piece.name
    assert view["media"]["src"] == f"/api/clips/{clip['id']}/media"
    poster = server.get(view["media"]["poster"])
    assert (poster.status, poster.body[:2]) == (200, b"\xff\xd8")
    person = view["people"][0]
    assert len(person["time_s"]) == len(person["valence"]) > 40
    with av.open(io.BytesIO(server.get(view["media"]["src"]).body)) as media:
        assert {stream.type for stream in media.streams} == {"video", "audio"}


def test_media_are_given_in_ranges(server: Server, clip: dict[str, Any]) -> None:
    path = f"/api/clips/{clip['id']}/media"
    whole = server.get(path)
    assert whole.headers["accept-ranges"] == "bytes"
    part = server.get(path, Range="bytes=1000-1999")
    assert (part.status, part.body) == (206, whole.body[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(whole.body)}"
    assert server.get(path, Range="bytes=-100").body == whole.body[-100:]
    assert server.get(path, Range=f"bytes={len(whole.body)}-").status == 416


def test_downloads_open(server: Server, clip: dict[str, Any]) -> None:
    def got(kind: str) -> bytes:
        answer = server.get(f"/api/clips/{clip['id']}/files/{kind}")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(KINDS[kind])
        assert answer.headers["content-disposition"].startswith("attachment; filename*=utf-8''%C3")
        return answer.body

    assert clip["files"] == ["csv", "parquet", "json", "vtt", "report"]
    csv = pd.read_csv(io.BytesIO(got("csv")))
    parquet = pd.read_parquet(io.BytesIO(got("parquet")))
    rows = json.loads(got("json"))["rows"]
    np.testing.assert_allclose(csv["valence"], parquet["valence"], atol=1e-6)
    assert len(rows) == len(csv) > 40
    assert got("vtt").startswith(b"WEBVTT")
    assert got("report").startswith(b"<!doctype html>")


def test_an_overlay_is_made_when_it_is_asked_for(server: Server, clip: dict[str, Any]) -> None:
    path = f"/api/clips/{clip['id']}"
    assert server.get(f"{path}/files/overlay").status == 404
    asked = server.ask("POST", f"{path}/overlay?blur=true")
    assert (asked.status, asked.json["overlay"]["state"]) == (202, "queued")
    assert server.ask("POST", f"{path}/overlay").status == 409
    done = server.until(clip["id"], lambda c: c["overlay"]["state"] not in ("queued", "running"))
    assert done["overlay"] == {"state": "done", "blur": True, "progress": 1.0, "error": None}
    with av.open(io.BytesIO(server.get(f"{path}/files/overlay").body)) as video:
        assert sum(1 for _ in video.decode(video=0)) > 40


def test_of_two_people_the_main_one_has_rows_and_both_can_be_blurred(
    server: Server, clips_dir: Path, tmp_path: Path
) -> None:
    pair = copy_piece(tmp_path / "a.mp4", 0.5, source=clips_dir / "interview_two_faces_720p.mp4")
    clip = server.finished(server.send(pair).json["id"])
    assert (clip["state"], clip["error"]) == ("done", None)
    content = server.get(f"/api/clips/{clip['id']}/files/csv").body
    main = set(pd.read_csv(io.BytesIO(content))["face_id"])
    everyone = pd.read_csv(server.folder / "clips" / clip["id"] / "everyone.csv")
    assert len(main) == 1
    assert main < set(everyone["face_id"])


def test_states_refuse_what_does_not_fit_them(server: Server, clip: dict[str, Any]) -> None:
    for what, words in (
        ("cancel", "nothing to cancel"),
        ("again", "accepted: failed or cancelled"),
    ):
        answer = server.ask("POST", f"/api/clips/{clip['id']}/{what}")
        assert answer.status == 409
        assert words in answer.detail


def test_cancel_again_and_delete(server: Server, piece: Path) -> None:
    long = server.send(piece, "one.mp4").json["id"]
    waiting = server.send(piece, "two.mp4").json["id"]
    server.until(long, lambda clip: clip["stage"] == "faces")
    assert server.clip(waiting)["position"] == 0
    assert server.get(f"/api/clips/{waiting}/view").status == 404
    cancelled = server.ask("POST", f"/api/clips/{long}/cancel").json
    assert (cancelled["state"], cancelled["progress"], cancelled["files"]) == (
        "cancelled",
        None,
        [],
    )
    again = server.ask("POST", f"/api/clips/{long}/again").json
    assert again["state"] in ("queued", "running")
    for clip in (long, waiting):
        assert server.ask("DELETE", f"/api/clips/{clip}").status == 204
        assert server.get(f"/api/clips/{clip}").status == 404
        assert not (server.folder / "clips" / clip).exists()


def test_a_file_of_sound_has_results_without_a_picture(server: Server, tmp_path: Path) -> None:
    sound = copy_piece(tmp_path / "voice.m4a", 2.0, ("audio",))
    clip = server.finished(server.send(sound).json["id"])
    assert (clip["state"], clip["error"]) == ("done", None)
    view = server.get(f"/api/clips/{clip['id']}/view").json
    assert view["video"] is None
    assert view["media"]["poster"] is None
    assert server.get(f"/api/clips/{clip['id']}/poster").status == 404
    assert server.get(view["media"]["src"]).status == 200
    server.ask("POST", f"/api/clips/{clip['id']}/overlay")
    failed = server.until(clip["id"], lambda c: c["overlay"]["state"] not in ("queued", "running"))
    assert failed["overlay"]["state"] == "failed"
    assert "picture" in failed["overlay"]["error"]
    assert failed["state"] == "done"


def test_only_the_owner_may_look(server: Server, clip: dict[str, Any]) -> None:
    for path in (server.folder, server.folder / "clips", server.folder / "clips" / clip["id"]):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_the_description_names_all_routes_and_their_errors(server: Server) -> None:
    described = server.get("/api/openapi.json").json
    assert {"/api/clips", "/api/clips/{clip_id}/overlay", "/api/transcripts"} <= set(
        described["paths"]
    )
    upload = described["paths"]["/api/clips"]["post"]
    assert "application/octet-stream" in upload["requestBody"]["content"]
    assert {"201", "400", "413", "415", "507"} <= set(upload["responses"])
    for path, methods in described["paths"].items():
        for method, what in methods.items():
            assert what.get("description") or what.get("summary"), (method, path)


def test_pages_and_their_parts(server: Server) -> None:
    for path in ("/", "/clips/some-id", "/compare?ids=a,b", "/clips/some-id/rate", "/live"):
        answer = server.get(path)
        assert answer.status == 200, path
        assert answer.headers["content-type"].startswith("text/html")
    assert server.get("/static/base.css").headers["content-type"].startswith("text/css")
    for nothing in ("/docs", "/redoc", "/static/", "/static/nothing.js", "/favicon.ico", "/x"):
        answer = server.get(nothing)
        assert answer.status == 404, nothing
        assert answer.detail
    names = {path.name for path in STATIC.iterdir()}
    for page in STATIC.glob("*.html"):
        for name in re.findall(r'(?:src|href)="/static/([^"]+)"', page.read_text()):
            assert name in names, (page.name, name)


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, piece: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    shelf = Shelf(tmp_path / "data")
    jobs = Jobs(shelf, Options())
    with TestClient(application(shelf, jobs, Options()), "http://localhost:80") as client:
        answer = client.post("/api/clips?name=a.mp4", content=piece.read_bytes())
        assert (answer.status_code, answer.json()) == (
            507,
            {"detail": "no room on the server's disk"},
        )
        assert client.get("/api/clips").json() == {"clips": []}
    assert [*shelf.incoming.iterdir(), *shelf.clips_folder.iterdir()] == []
