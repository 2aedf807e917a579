"""Results that are there without a row: taken over, whatever kind of clip they are of."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from demo_pieces import copy_piece
from maven.batch import result
from maven.batch.items import items as listed
from maven.batch.local import Local
from maven.batch.run import Ended, run
from media_factory import tone, write_clip
from small_batch import batch, items

JOB: dict[str, Any] = {
    "kind": "analyse", "model": "mini", "asr": "none", "faces": "main", "rate_hz": None,
    "device": "auto", "runtime": "auto", "threads": 1, "offline": True,
}  # fmt: skip


def analysed(clips: Path, out: Path) -> Ended:
    settings = {name: JOB[name] for name in ("asr", "faces", "rate_hz")}
    return run(listed([str(clips)]), out, lambda work: Local(JOB, work, 1), settings)


def test_results_of_every_kind_of_clip_are_taken_over(tmp_path: Path) -> None:
    """Without pictures, without sound, without a face: their provenance says less."""
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    times_s = [k / 25 for k in range(10)]
    copy_piece(clips / "talk.mp4", 0.5)
    write_clip(clips / "nobody.mp4", frame_times_s=times_s, sound=tone(440, 0.4))
    write_clip(clips / "silent.mp4", frame_times_s=times_s)
    write_clip(clips / "sound.wav", sound=tone(440, 0.5), sound_codec="pcm_s16le")
    first = analysed(clips, out)
    assert (first.counts.new, first.progress.failed) == (4, 0)
    before = {path: path.read_bytes() for path in out.glob("results/*/*")}
    (out / "batch.sqlite").unlink()
    again = analysed(clips, out)
    assert "4 results are there without a row in batch.sqlite" in again.notes[1]
    assert again.progress.media_s == 0  # nothing was computed
    assert {path: path.read_bytes() for path in out.glob("results/*/*")} == before


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a").write_text("one")
    return tmp_path / "clips"


def test_a_result_of_the_future_was_finished_now(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch(items(clips), out)
    os.utime(out / result.place("a"), (10**10, 10**10))
    (out / "batch.sqlite").unlink()
    with_row = batch(items(clips), out)[0]
    assert with_row.changed == 1  # looked at
    (finished,) = pq.read_table(out / "index.parquet")["finished"].to_numpy()
    assert np.datetime64("2020") < finished <= np.datetime64(time.time_ns() // 10**6, "ms")


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_an_output_folder_whose_name_is_no_text(clips: Path, tmp_path: Path) -> None:
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        out.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    batch(items(clips), out)
    (out / "batch.sqlite").unlink()
    assert batch(items(clips), out)[1][-1].startswith("1 result is there without a row")
    assert batch(items(clips), out)[0].done == 1
    (out / "index.parquet").write_bytes((out / "index.parquet").read_bytes()[:-9])
    assert batch(items(clips), out)[1] == ["index.parquet was cut or damaged: it is written anew"]
    assert batch(items(clips), out)[1] == []
