"""Cores that are claimed, models that are sent once, files that are not there on every machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maven.batch import seat
from maven.batch.attendant import WorkerError
from maven.batch.seat import ABOUT, Place, Seat, claimed, packed, this_machine, unpacked
from maven.batch.worker import Limits

pytest.importorskip("pyarrow")


def test_no_two_have_the_same_core(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"\0maven-test-{os.getpid()}"  # seats of other tests have cores too
    monkeypatch.setattr(seat, "CORE_NAME", name)
    free = sorted(os.sched_getaffinity(0))
    with claimed(1) as mine:
        assert mine == free[:1]
        program = (
            "from maven.batch import seat\n"
            f"seat.CORE_NAME = {name!r}\n"
            f"with seat.claimed({len(free)}) as all_of_them, seat.claimed(1) as one:\n"
            "    print(all_of_them, one)\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, text=True
        ).stdout
        # Those that it had got are free again for the next.
        assert said.strip() == f"None {free[1:2] or None}"
    with claimed(1) as freed:
        assert freed == mine


def test_a_row_becomes_an_outcome_with_content(tmp_path: Path) -> None:
    place = Place({"kind": "plain_job:prepare"}, Limits(), str(tmp_path), this_machine())
    one = Seat(place)
    first = one({"task": ABOUT})
    assert json.loads(first["message"])["about"] == {"plain": 1}
    row = one({"task": json.dumps({"id": "a", "path": "b"})})
    message = json.loads(row["message"])
    assert message.keys() == {"outcome", "result"}
    assert message["outcome"]["file"] is None
    assert row["content"] == b"a" * 1000
    assert [path.name[:6] for path in tmp_path.iterdir()] == ["maven-"]
    del one
    assert list(tmp_path.iterdir()) == []


def test_what_a_seat_cannot_do_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat, "TROUBLED_S", 0.0)
    place = Place({"kind": "plain_job:prepare"}, Limits(), str(tmp_path), this_machine())
    row = {"task": json.dumps({"id": "a", "path": "b.mp4"})}

    def raising(error: Exception) -> dict[str, Any]:
        def raises(*_: Any) -> Any:
            raise error

        one = Seat(place)
        monkeypatch.setattr(one, "_attended", raises)
        message: dict[str, Any] = json.loads(one(row)["message"])
        return message

    full = raising(OSError(28, "No space left on device"))
    assert full.pop("seat")
    assert full == {"unfit": "[Errno 28] No space left on device", "id": "a"}
    unforeseen = raising(RuntimeError("can't start\nnew thread"))["outcome"]
    assert (unforeseen["id"], unforeseen["state"], unforeseen["again"]) == ("a", "failed", True)
    assert unforeseen["error"] == "b.mp4: RuntimeError: can't start new thread"


def test_a_file_that_is_only_elsewhere_is_said_to_be(tmp_path: Path) -> None:
    place = Place({"kind": "plain_job:prepare"}, Limits(), str(tmp_path), "another machine")
    one = Seat(place)
    outcome = one._outcome({"id": "a", "path": str(tmp_path / "clip.mp4"), "transcript": None})
    assert outcome["state"] == "failed"
    assert outcome["error"].startswith(f"{tmp_path / 'clip.mp4'}: not there on ")
    assert outcome["error"].endswith("local paths must be visible on every machine of the cluster")


def test_a_model_is_written_once_and_removed_by_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "my model"
    (model / "onnx").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "onnx" / "graph").write_bytes(bytes(range(256)))
    (model / "empty").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content, content_hash = packed(model)
    listed = [("empty", b""), ("config.json", b"{}"), ("onnx/graph", bytes(range(256)))]
    lines = [f"my model/{n}\0{hashlib.sha256(c).hexdigest()}\n" for n, c in sorted(listed)]
    assert content_hash == hashlib.sha256("".join(lines).encode()).hexdigest()
    asked = []

    def get(reference: Any) -> Any:
        asked.append(reference)
        return content

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=get))
    with unpacked("sent", content_hash) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with unpacked("sent", content_hash) as same:
            assert same == folder
        written = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert written == {Path("my model", name): value for name, value in listed}
    assert asked == ["sent"]
    assert [path.name for path in tmp_path.iterdir()] == ["my model"]

    def killed(folder: Path, **_: Any) -> None:
        (folder / "my model" / "config.json").unlink()
        raise OSError("killed")

    with monkeypatch.context() as patch, unpacked("sent", content_hash):
        patch.setattr(shutil, "rmtree", killed)
    with unpacked("sent", content_hash) as folder:
        assert (folder / "my model" / "config.json").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["my model"]

    with pytest.raises(WorkerError, match="not the one that was sent"), unpacked("x", "0" * 64):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["my model"]


def test_a_worker_that_cannot_be_had_is_a_row(tmp_path: Path) -> None:
    place = Place({"kind": "no_such_module:prepare"}, Limits(), str(tmp_path), seat.this_machine())
    unfit = json.loads(Seat(place)({"task": ABOUT})["message"])["unfit"]
    assert "no_such_module" in unfit
    assert "\n" not in unfit
