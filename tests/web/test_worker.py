"""The worker: one number that rises, errors without paths, limits that hold, its parent's end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest

import maven
from demo_pieces import copy_piece
from maven.media import MediaError, MediaInfo, probe
from maven.render.tables import COLUMNS
from maven.transcript import Word
from maven.web import worker
from maven.web.jobs import start
from maven.web.worker import (
    SHARES,
    Meter,
    RefusedError,
    analysis,
    check_length,
    overlay,
    stages,
    told,
    upload_bytes,
)

SETTINGS: dict[str, Any] = {
    "task": "analysis", "name": "My clip.mp4", "model": "mini", "faces": "main", "asr": "none",
    "transcript": None, "transcript_file": None, "blur": False, "threads": 1, "length_s": None,
    "max_length_s": 60.0,
}  # fmt: skip


def test_progress_rises_from_nothing_to_all() -> None:
    told: list[dict[str, Any]] = []
    meter = Meter(tuple(SHARES), lambda **message: told.append(message))
    for stage in SHARES:
        for done in (0.0, 5.0, 3.0, 10.0, 11.0):
            meter(stage, done, 10.0)
        meter(stage, 1.0, None)
    numbers = [message["progress"] for message in told]
    assert numbers == sorted(numbers)
    assert [m["stage"] for m in told] == list(SHARES)  # within 0.1 s, one message a stage
    meter._said_s = 0.0
    meter("writing", 10.0, 10.0)
    assert told[-1]["progress"] == 1.0


def test_a_part_of_a_stage_stays_within_it() -> None:
    told: list[float] = []
    meter = Meter(("checking", "writing"), lambda **message: told.append(message["progress"]))
    part = meter.part("writing", 0.5, 0.75)
    for done, total in ((0.0, 4.0), (4.0, 4.0), (9.0, 4.0), (1.0, None)):
        meter._said_s = 0.0
        part("video", done, total)
    begin, share = 2 / 32, 30 / 32
    assert told == pytest.approx([begin + 0.5 * share] + [begin + 0.75 * share] * 3, abs=1e-4)


def test_stages_are_those_of_the_streams(tmp_path: Path) -> None:
    def of(*kinds: str) -> tuple[str, ...]:
        info: MediaInfo = probe(copy_piece(tmp_path / f"{'-'.join(kinds)}.mp4", 1.0, kinds))
        return stages(info)

    assert of("video", "audio") == tuple(SHARES)
    assert of("video") == ("checking", "faces", "answers", "writing")
    assert of("audio") == ("checking", "voice", "words", "answers", "writing")


def test_errors_name_the_clip_and_no_path(tmp_path: Path) -> None:
    settings = {**SETTINGS, "transcript": "mine.srt", "transcript_file": "transcript.srt"}
    for error, message in (
        (MediaError(f"{tmp_path}/upload: cut off"), "My clip.mp4: cut off"),
        (MediaError(f"{tmp_path}/transcript.srt,\nline 1"), "mine.srt, line 1"),
        (MediaError(f"{tmp_path}/other: x"), "other: x"),
        (MemoryError(), "needs more memory than the server gives"),
        (OSError(28, "No space left on device", str(tmp_path)),
         "the server cannot write: No space left on device"),
        (KeyError("secret"), None),
    ):  # fmt: skip
        assert told(error, tmp_path, settings) == message


def test_length_is_limited() -> None:
    check_length(60.0, "a.mp4", 60.0)
    with pytest.raises(Exception, match=r"a\.mp4: 61.0 s long, or longer; accepted: up to 60 s"):
        check_length(61.0, "a.mp4", 60.0)


def folder(place: Path, **settings: Any) -> Path:
    place.mkdir()
    (place / "settings.json").write_text(json.dumps({**SETTINGS, **settings}))
    return place


def work(place: Path) -> tuple[int, list[dict[str, Any]]]:
    """Run a worker to its end; return its exit code and what it said."""
    process = start(place, 1)
    assert process.stdout is not None
    said = [json.loads(line) for line in process.stdout]
    code = process.wait(timeout=60)
    assert process.stdin is not None
    process.stdin.close()
    process.stdout.close()
    return code, said


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that was written as it came, as browsers do: it declares no length."""
    place = tmp_path_factory.mktemp("media")
    source, target = copy_piece(place / "piece.mp4", 2.0), place / "piece.mkv"
    with (
        av.open(str(source)) as old,
        av.open(str(target), "w", format="matroska", container_options={"live": "1"}) as new,
    ):
        twins = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = twins[packet.stream.index]
                new.mux(packet)
    return target


def test_a_clip_becomes_the_files_that_the_library_makes(tmp_path: Path, piece: Path) -> None:
    place = folder(tmp_path / "abc")
    (place / "upload").write_bytes(piece.read_bytes())
    code, said = work(place)
    assert code == 0, said
    numbers = [m["progress"] for m in said if "progress" in m]
    assert all(a <= b for a, b in pairwise(numbers))
    assert said[-1] == {"files": ["csv", "parquet", "json", "vtt", "report"]}
    lengths_s = [m["length_s"] for m in said if "length_s" in m]
    assert lengths_s == [None, pytest.approx(2.0, abs=0.2)]  # what is live declares none

    wanted = maven.analyze(piece, asr="none", offline=True)
    csv = pd.read_csv(place / "results.csv")
    assert set(csv["file"]) == {"My clip.mp4"}
    np.testing.assert_allclose(csv["valence"], wanted.frames["valence"], rtol=1e-5, atol=1e-6)
    view = json.loads((place / "view.json").read_text())
    assert view["file"] == "My clip.mp4"
    assert view["media"]["src"] == "/api/clips/abc/media"
    assert len(view["people"]) == 1
    result = json.loads((place / "results.json").read_text())
    assert result["provenance"]["media"]["name"] == "My clip.mp4"
    assert result["provenance"]["settings"]["faces"] == "main"
    for path in place.iterdir():
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize("blur", [False, True])
def test_a_blurred_overlay_knows_the_faces_of_everyone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blur: bool
) -> None:
    def row(face_id: int) -> str:
        numbers = {"face_id": str(face_id), "face_w": "9", "face_h": "9"}
        known = {"Int64": "0", "float64": "0"}
        return ",".join(numbers.get(n, known.get(c.dtype, "True")) for n, c in COLUMNS.items())

    head = ",".join(COLUMNS)
    (tmp_path / "results.csv").write_text(f"{head}\n{row(1)}\n")
    (tmp_path / "everyone.csv").write_text(f"{head}\n{row(1)}\n{row(2)}\n")
    word = {"text": "hi", "start_s": 0.0, "end_s": 1.0, "segment": 0, "confidence": None}
    (tmp_path / "words.json").write_text(json.dumps([word]))
    given: list[Any] = []
    monkeypatch.setattr(
        "maven.render.overlay.write_overlay", lambda *args, **named: given.extend((*args, named))
    )
    said: list[dict[str, Any]] = []
    overlay(tmp_path, {**SETTINGS, "blur": blur}, lambda **message: said.append(message))
    assert given[0] == tmp_path / "upload"
    assert given[1]["face_id"].tolist() == [1]
    assert given[2] == [Word("hi", 0.0, 1.0, 0)]
    assert given[-1]["blur"] is blur
    assert [len(face.box_s) for face in given[-1]["others"]] == ([1, 1] if blur else [])
    assert said[-1] == {"files": ["overlay"]}


PROBE = """
import resource, sys
from maven.web.worker import limit
limit(float(sys.argv[1]), "mini")
what = sys.argv[2]
if what == "memory":
    try: bytearray(4 * 2**30)
    except MemoryError: print("refused")
elif what == "file":
    try:
        with open("big", "wb") as file: file.truncate(2**40)
    except OSError as error: print("refused")
elif what == "raise":
    try: limit(1e6, "mini")
    except ValueError: pass
    print(resource.getrlimit(resource.RLIMIT_CPU)[1])
elif what == "core":
    print(resource.getrlimit(resource.RLIMIT_CORE)[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
@pytest.mark.parametrize(
    ("what", "answer"),
    [("memory", "refused"), ("file", "refused"), ("raise", "1000"), ("core", "0")],
)
def test_limits_hold_and_never_rise(tmp_path: Path, what: str, answer: str) -> None:
    command = [sys.executable, "-c", PROBE, "10", what]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == answer


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_a_worker_ends_when_nobody_holds_its_input(tmp_path: Path) -> None:
    place = folder(tmp_path / "abc")
    os.mkfifo(place / "upload")  # reading it would wait for ever
    process = start(place, 1)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()  # it has begun
    began = time.monotonic()
    process.stdin.close()  # as the kernel does when the server is killed
    process.wait(timeout=20)
    assert time.monotonic() - began < 5.0
    process.stdout.close()


def test_the_environment_holds_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "MAVEN_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    place = folder(tmp_path / "abc")
    os.mkfifo(place / "upload")
    process = start(place, 3)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        environment = Path(f"/proc/{process.pid}/environ")
        if not environment.is_file():
            pytest.skip("no /proc")
        content = environment.read_bytes()
        assert b"secret" not in content
        assert b"OMP_NUM_THREADS=3" in content
        assert Path(f"/proc/{process.pid}/cwd").readlink() == place
        assert int(Path(f"/proc/{process.pid}/stat").read_text().split()[18]) >= 10  # nice
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def test_what_cannot_be_written_is_not_the_upload_s_fault(
    tmp_path: Path, piece: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MediaError(f"{tmp_path}/upload: reading it failed (File too large)")

    monkeypatch.setattr(worker, "write", full)
    monkeypatch.setattr(worker, "limit", lambda *_: None)
    shutil.copy(piece, tmp_path / "upload")
    with pytest.raises(RefusedError, match="reading it failed") as refused:
        analysis(tmp_path, SETTINGS, lambda **_: None)
    assert not refused.value.spoiled


def test_files_may_be_as_large_as_what_is_copied_into_them(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"0" * 1000)
    assert upload_bytes(tmp_path) == 1000
    assert upload_bytes(tmp_path / "gone") == 0
    code = "import resource; from maven.web.worker import limit; limit(1.0, 'mini', 2 * 2**30)"
    code += "; print(resource.getrlimit(resource.RLIMIT_FSIZE)[0] > 4 * 2**30)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True\n"
