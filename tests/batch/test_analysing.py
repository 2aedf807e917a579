"""The job that analyses: what makes its key, its record, and results that never differ by a bit."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import maven
from demo_pieces import copy_piece
from maven.batch.analysing import Analysing, content, described, prepare
from maven.batch.local import Local
from maven.batch.result import record as record_of
from maven.checkpoint import load
from maven.container import MediaError
from maven.faces.detect import CenterFace
from maven.transcribe import Transcriber
from maven.transcript import TranscriptError

JOB: dict[str, Any] = {
    "kind": "analyse", "model": "mini", "asr": "none", "faces": "main", "rate_hz": None,
    "device": "auto", "runtime": "auto", "threads": 1, "offline": True,
}  # fmt: skip
SRT = "1\n00:00:00,100 --> 00:00:01,000\nI am glad\n"


def task(path: Path, **more: Any) -> dict[str, Any]:
    return {"id": path.name, "path": str(path), "transcript": None, "start_s": None, "end_s": None,
            "size_bytes": path.stat().st_size, "known": None, **more}  # fmt: skip


def silent(**message: Any) -> None:
    pass


@pytest.fixture(scope="module")
def analysing() -> Analysing:
    return prepare(JOB)


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_piece(tmp_path_factory.mktemp("piece") / "talk.mp4", 1.5)


def test_a_result_is_what_the_library_answers(
    analysing: Analysing, piece: Path, tmp_path: Path
) -> None:
    said: list[dict[str, Any]] = []
    outcome = analysing.do(task(piece), tmp_path, lambda **message: said.append(message))
    assert (outcome["state"], outcome["file"]) == ("done", "result.parquet")
    table = pq.read_table(tmp_path / outcome["file"]).to_pandas()
    wanted = maven.analyze(piece, asr="none", offline=True).frames
    assert set(table["id"]) == {"talk.mp4"}
    assert table["valence"].tolist() == wanted["valence"].tolist()
    record = outcome["record"]
    assert record["media_sha256"] == hashlib.sha256(piece.read_bytes()).hexdigest()
    assert record["transcript_sha256"] is None
    assert (record["rows"], record["faces"]) == (len(wanted), 1)
    step_s = wanted["time_s"].diff().median()
    assert record["duration_s"] == pytest.approx(np.ptp(wanted["time_s"]) + step_s)
    assert record["valence"] == pytest.approx(wanted["valence"].mean())
    assert record_of(tmp_path / outcome["file"]) == {"id": "talk.mp4", **record}
    key = said[0]["record"]["key"]  # known should it fail
    assert record["key"] == key
    assert said[1]["length_s"] == pytest.approx(record["duration_s"], abs=0.3)


def test_what_is_known_is_not_done_again(
    analysing: Analysing, piece: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = content(piece, None, None, None)
    monkeypatch.setattr("maven.pipeline.analyze", None)
    outcome = analysing.do(task(piece, known=known), tmp_path, silent)
    assert outcome == {"state": "same", "record": known}
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_of_media_transcript_and_part(piece: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    shutil.copy(piece, clip)
    first = content(clip, None, None, None)
    assert len(first["key"]) == 32
    assert first["key"] == content(piece, None, None, None)["key"]  # its name does not matter
    keys = {
        first["key"],
        content(clip, None, 0.5, None)["key"],
        content(clip, None, None, 0.5)["key"],
    }
    given = tmp_path / "words.srt"
    given.write_text(SRT)
    with_words = content(clip, given, None, None)
    keys.add(with_words["key"])
    assert with_words["transcript_sha256"] == hashlib.sha256(SRT.encode()).hexdigest()
    clip.with_suffix(".srt").write_text(SRT)
    assert content(clip, None, None, None) == with_words  # beside, the same words
    clip.with_suffix(".srt").write_text(SRT + "\n")
    keys.add(content(clip, None, None, None)["key"])
    with clip.open("ab") as file:
        file.write(b"\0")
    keys.add(content(clip, given, None, None)["key"])
    assert len(keys) == 6
    with pytest.raises(TranscriptError, match=r"none\.srt: cannot be read"):
        content(clip, tmp_path / "none.srt", None, None)
    with pytest.raises(MediaError, match=r"none\.mp4: No such file"):
        content(tmp_path / "none.mp4", None, None, None)


def test_words_beside_are_in_the_result(analysing: Analysing, piece: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    shutil.copy(piece, clip)
    clip.with_suffix(".srt").write_text(SRT)
    record = analysing.do(task(clip), tmp_path, silent)["record"]
    assert record["words_share"] > 0.3


def test_a_part_is_analysed_alone(analysing: Analysing, piece: Path, tmp_path: Path) -> None:
    part = task(piece, start_s=0.5, end_s=1.0)
    lengths_s: list[float] = []
    outcome = analysing.do(part, tmp_path, lambda **m: lengths_s.append(m.get("length_s", 0.0)))
    time_s = pq.read_table(tmp_path / outcome["file"])["time_s"].to_numpy()
    assert time_s.min() >= 0.5
    assert time_s.max() < 1.0
    assert outcome["record"]["duration_s"] == pytest.approx(0.5, abs=0.05)
    assert lengths_s[1] == 1.0


def test_reading_is_a_sign_of_life(
    analysing: Analysing, piece: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maven.batch.analysing.SAY_EVERY_S", 0.0)
    clip = Path(shutil.copy(piece, tmp_path / "clip.mp4"))
    said: list[dict[str, Any]] = []
    known = {"key": content(clip, None, None, None)["key"]}
    outcome = analysing.do(
        task(clip, known=known), tmp_path, lambda **message: said.append(message)
    )
    assert outcome["state"] == "same"
    assert said == [{"stage": "reading", "done_s": 0.0}]


def test_a_file_that_changes_while_it_is_read_gives_no_result(
    analysing: Analysing, piece: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "clip.mp4"
    shutil.copy(piece, clip)

    def analyze(*_: Any, **__: Any) -> None:
        with clip.open("ab") as file:
            file.write(b"\0")

    monkeypatch.setattr("maven.pipeline.analyze", analyze)
    outcome = analysing.do(task(clip), tmp_path, silent)
    error = f"{clip}: changed while it was read"
    assert outcome == {"state": "failed", "error": error, "again": True}


def test_what_it_says_of_itself_tells_models_apart(analysing: Analysing) -> None:
    model = load("mini", device="cpu")
    detector, transcriber = CenterFace(), Transcriber("none")

    def about(runtime: str, **job: Any) -> dict[str, Any]:
        run = replace(model, runtime=runtime)
        return Analysing({**JOB, **job}, run, detector, transcriber).about

    assert about("onnx", threads=2) == analysing.about
    assert about("onnx", asr="pocketsphinx") != analysing.about
    assert about("torch", threads=2) != about("torch", threads=1)
    assert about("onnx", asr="whisper:base", threads=2) != about("onnx", asr="whisper:base")
    assert described(model) == analysing.about["model"]
    gpus = [described(replace(model, device=device)) for device in ("cuda:0", "cuda:1")]
    assert gpus[0] == gpus[1] != described(model)
    others = [{"smoothing_s": 9.0}, {"rest": ((0.5, 0.5),) * 3}, {"intervals": None}]
    cards = [replace(model.card, **other) for other in others]
    for card in cards:
        assert described(replace(model, card=card)) != described(model)


def test_results_are_equal_to_the_bit_whatever_was_done_before_and_by_how_many_threads(
    clips_dir: Path, tmp_path: Path
) -> None:
    def hashes(threads: int, names: list[str]) -> dict[str, str]:
        with Local({**JOB, "threads": threads}, tmp_path, 1) as engine:
            tasks = (task(clips_dir / f"grid_s1_{name}.mpg") for name in names)
            outcomes = list(engine.run(tasks))
            assert [outcome["error"] for outcome in outcomes] == [None] * len(names)
            contents = {o["id"]: Path(o["file"]).read_bytes() for o in outcomes}
        return {id: hashlib.sha256(content).hexdigest() for id, content in contents.items()}

    assert hashes(1, ["bbaf2n", "pwbk1s"]) == hashes(2, ["pwbk1s", "bbaf2n"])
