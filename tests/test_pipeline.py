"""The way from a file to the table, with random weights: everything but accuracy."""

from __future__ import annotations

import subprocess
import sys
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest

import maven
from answers import HAS, check_answer
from demo_pieces import DEMO, copy_piece
from maven import features
from maven.checkpoint import Model, ModelError
from maven.features import Features
from maven.media import MediaError, read_audio
from maven.pipeline import Settings, analyze
from maven.render import tables
from maven.render.summary import summarize
from maven.transcript import TranscriptError
from media_factory import remux, tone, write_clip
from toy_mini import save_toy_mini

TIMES_S = [k / 25 for k in range(28)]  # up to 1.08 s
WORDS = "1\n00:00:00,600 --> 00:00:01,000\nSuch joy\n\n2\n00:00:01,200 --> 00:00:01,400\nhere.\n"


@pytest.fixture(scope="session")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face and, from 0.5 s on, a voice."""
    return copy_piece(tmp_path_factory.mktemp("piece") / "piece.mp4")


@pytest.fixture
def srt(tmp_path: Path) -> Path:
    path = tmp_path / "words.srt"
    path.write_text(WORDS)
    return path


@dataclass
class Spy:
    """What was placed on the network's grid."""

    placed: list[Features]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    seen, assemble = Spy([]), features.assemble

    def listen(*arguments: Any, **named: Any) -> Features:
        seen.placed.append(assemble(*arguments, **named))
        return seen.placed[-1]

    monkeypatch.setattr(features, "assemble", listen)
    return seen


def test_face_voice_and_words_are_all_there(model: Model, piece: Path, srt: Path) -> None:
    analysis = analyze(piece, model, transcript=srt, asr="none")
    check_answer(analysis)
    table = analysis.frames
    with av.open(str(piece)) as container:
        assert len(table) == sum(1 for _ in container.decode(video=0))
    assert table["has_face"].all()
    assert 0.3 < table["has_speech"].mean() < 0.8
    inside = table["time_s"].between(0.6, 1.399)  # the pause is within a second, but not a segment
    pause = table["time_s"].between(1.0, 1.199)
    assert (table["has_text"] == (inside & ~pause)).all()
    assert (table.loc[table["has_text"], "text_weight"] > 0).all()
    assert analysis.notes == ()
    assert analysis.transcript.source == "file: words.srt"


def test_paths_may_be_strings_and_the_model_a_folder(
    tmp_path: Path, piece: Path, srt: Path, model: Model
) -> None:
    folder = save_toy_mini(tmp_path / "toy")
    options: dict[str, Any] = {"transcript": str(srt), "asr": "none", "rate_hz": 5.0}
    analysis = maven.analyze(str(piece), folder, device="cpu", **options)
    again = maven.analyze(piece, model, Settings(srt, "none", "main", 5.0))
    assert analysis.frames.equals(again.frames)
    assert analysis.provenance == again.provenance
    assert analysis.provenance["settings"]["transcript"] == "words.srt"
    assert len(analysis.frames) in (8, 9)


def test_settings_are_checked(piece: Path, model: Model) -> None:
    with pytest.raises(TypeError, match="faces"):
        analyze(piece, model, Settings(), faces="all")
    with pytest.raises(TypeError, match="colour"):
        analyze(piece, model, colour="red")
    with pytest.raises(ValueError, match="everyone"):
        Settings(faces="everyone")
    for rate_hz in (0.0, -1.0, 1001.0, float("nan")):
        with pytest.raises(ValueError, match="rate"):
            Settings(rate_hz=rate_hz)


def test_stages_are_reported_and_never_run_backwards(model: Model, piece: Path, srt: Path) -> None:
    reports: dict[str, list[float]] = {}

    def progress(stage: str, done: float, total: float | None) -> None:
        assert total is not None
        assert -0.1 <= done <= total + 0.1
        reports.setdefault(stage, []).append(done)

    analyze(piece, model, transcript=srt, progress=progress)
    assert list(reports) == ["faces", "voice", "answers"]
    assert all(done == sorted(done) for done in reports.values())


# What is not there


def test_a_sound_file_gives_a_table_without_faces(model: Model, tmp_path: Path) -> None:
    path = copy_piece(tmp_path / "voice.mp4", kinds=("audio",))
    analysis = analyze(path, model, asr="none")
    check_answer(analysis)
    assert analysis.frames["face_id"].isna().all()
    assert analysis.frames["has_speech"].any()
    assert (analysis.frames["audio_weight"].dropna() == 1).all()
    assert np.diff(analysis.frames["time_s"]) == pytest.approx(1 / 25)
    assert analysis.notes[0] == "no picture"
    assert analysis.provenance["detector"] is None
    assert len(analyze(path, model, asr="none", rate_hz=2).frames) == 3


def test_a_silent_video_gives_a_table_without_voice(model: Model, tmp_path: Path) -> None:
    analysis = analyze(copy_piece(tmp_path / "face.mp4", kinds=("video",)), model)
    check_answer(analysis)
    assert analysis.frames["has_face"].all()
    assert (analysis.frames["visual_weight"] == 1).all()
    assert analysis.notes[0] == "no sound"


@pytest.mark.parametrize("sound", [None, tone(440, 1.1)], ids=["silent", "tone"])
def test_a_video_with_nobody_in_it_has_no_answer(model: Model, tmp_path: Path, sound: Any) -> None:
    analysis = analyze(
        write_clip(tmp_path / "bars.mp4", frame_times_s=TIMES_S, sound=sound), model, asr="none"
    )
    check_answer(analysis)
    assert len(analysis.frames) == len(TIMES_S)
    assert not analysis.frames[list(HAS)].any(axis=None)
    assert analysis.frames[["valence", "face_x", "visual_weight", "emotion"]].isna().all(axis=None)
    heard = "no sound" if sound is None else "no speech was heard in the sound"
    assert analysis.notes[:2] == ("no face was seen", heard)
    assert analysis.notes[-1] == "nothing was observed: there is no answer"


@pytest.mark.parametrize(
    ("start_s", "rate_hz"), [(1.06, None), (1.4, 1.0), (0.0, None), (1.02, 5.0), (9.0, None)]
)
def test_one_short_word_is_all_there_is(
    model: Model, tmp_path: Path, start_s: float, rate_hz: float | None
) -> None:
    clip = write_clip(tmp_path / "bars.mp4", frame_times_s=TIMES_S)
    (tmp_path / "bars.txt").write_text(f"[{start_s:.2f}s - {start_s + 0.02:.2f}s] joy")
    analysis = analyze(clip, model, asr="none", rate_hz=rate_hz)
    check_answer(analysis)
    assert analysis.frames["has_text"].sum() == (start_s < 1.1)
    assert analysis.transcript.source == "beside: bars.txt"


def test_sound_of_less_than_one_vector_is_refused(model: Model, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "click.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(400))
    with pytest.raises(MediaError, match=r"click\.wav"):
        analyze(tmp_path / "click.wav", model)


def test_what_is_damaged_is_said(model: Model, piece: Path, tmp_path: Path) -> None:
    path = remux(piece, tmp_path / "d.mkv")
    whole = analyze(path, model, asr="none", rate_hz=5.0).notes
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 3, len(data) * 2 // 3, 500):
        data[at] ^= 0xFF
    path.write_bytes(data)
    analysis = analyze(path, model, asr="none", rate_hz=5.0)
    check_answer(analysis)
    added = [note.partition(":")[0] for note in analysis.notes if note not in whole]
    assert added == ["the video is damaged", "the sound is damaged"]


def test_a_wrong_transcript_is_refused_before_the_long_work(
    model: Model, piece: Path, tmp_path: Path
) -> None:
    (tmp_path / "words.srt").write_text("nothing of the kind")
    with pytest.raises(TranscriptError, match=r"words\.srt"):
        analyze(piece, model, detector=None, transcript=tmp_path / "words.srt", progress=_never)


def _never(stage: str, done: float, total: float | None) -> None:
    raise AssertionError("the work has begun")


# Time


def test_late_sound_moves_the_voice_and_nothing_else(
    model: Model, tmp_path: Path, spy: Spy, srt: Path
) -> None:
    piece = copy_piece(tmp_path / "piece.mp4", until_s=3.0)
    # Both late: a copy that begins before zero would have its first, silent, AAC packet cut off.
    before, after = (
        analyze(remux(piece, tmp_path / name, delay_s), model, transcript=srt, asr="none")
        for name, delay_s in (("early.mp4", 0.2), ("late.mp4", 0.7))
    )
    check_answer(after)

    one, other = spy.placed
    assert one.time_s.tolist() == other.time_s.tolist()
    for modality in ("visual", "text"):
        np.testing.assert_array_equal(one.values[modality], other.values[modality])
        np.testing.assert_array_equal(one.observed[modality], other.observed[modality])
    shift = round(0.5 * model.card.config.rate_hz)
    heard = other.observed["audio"][shift:]
    assert heard.sum() >= 10
    np.testing.assert_array_equal(one.observed["audio"][:-shift], heard)
    np.testing.assert_allclose(
        one.values["audio"][:-shift], other.values["audio"][shift:], atol=1e-5
    )
    assert not other.observed["audio"][: shift + 4].any()

    for name in ("time_s", "has_face", "has_text", "face_x", "face_y", "face_w", "face_score"):
        assert before.frames[name].equals(after.frames[name]), name
    assert before.transcript.words == after.transcript.words
    assert [span.start_s + 0.5 for span in before.speech] == pytest.approx(
        [span.start_s for span in after.speech], abs=1e-4
    )


def test_variable_frame_rate_keeps_its_times(model: Model, tmp_path: Path) -> None:
    times_s = [0.2, 0.24, 0.3, 0.5, 0.51, 1.3, 1.34]
    clip = write_clip(tmp_path / "uneven.mp4", frame_times_s=times_s)
    frames = analyze(clip, model).frames
    assert frames["time_s"].tolist() == pytest.approx(times_s, abs=1e-4)


def test_the_face_is_tracked_through_frames_far_apart(model: Model, piece: Path) -> None:
    analysis = analyze(piece, model, asr="none", rate_hz=2)
    check_answer(analysis)
    assert analysis.frames["time_s"].tolist() == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=0.05)
    assert analysis.frames["has_face"].all()


# Files


def test_results_do_not_overwrite_or_become_a_transcript(model: Model, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frame_times_s=TIMES_S)
    subtitles = "WEBVTT\n\n00:00.100 --> 00:00.900\nWhat joy\n"
    (tmp_path / "clip.vtt").write_text(subtitles)
    first = analyze(clip, model)
    written = first.save(tmp_path, ("csv", "json", "vtt"))
    assert [path.name for path in written] == [
        "clip.maven.csv",
        "clip.maven.json",
        "clip.maven.vtt",
    ]
    assert (tmp_path / "clip.vtt").read_text() == subtitles
    (tmp_path / "clip.vtt").unlink()
    assert analyze(clip, model).transcript.words == ()
    assert first.save(tmp_path / "out")[0].name == "clip.csv"


def test_the_table_is_the_same_in_chunks_and_whole(
    model: Model, piece: Path, srt: Path, tmp_path: Path
) -> None:
    analysis = analyze(piece, model, transcript=srt, asr="none")
    joined = tables.joined(analysis.chunks(rows=7))
    pd.testing.assert_frame_equal(joined, analysis.frames, check_exact=True)
    assert analysis.frames is analysis.frames
    assert analysis.summary() == summarize(analysis.frames, analysis.transcript.words)
    (written,) = analysis.save(tmp_path)
    (whole,) = tables.write(analysis.frames, {}, tmp_path, "whole", ["csv"])
    assert written.read_bytes() == whole.read_bytes()
    with pytest.raises(ValueError, match="xlsx"):
        analysis.save(tmp_path, ("xlsx",))


LIGHT = """
import sys, maven
analysis = maven.analyze(sys.argv[1], sys.argv[2], device="cpu", asr="none")
analysis.save(sys.argv[3], ("csv", "json", "vtt"))
analysis.summary()
print({"pandas", "pyarrow", "matplotlib"} & set(sys.modules))
"""


def test_files_and_summary_need_no_pandas(piece: Path, tmp_path: Path) -> None:
    folder = save_toy_mini(tmp_path / "toy")
    command = [sys.executable, "-c", LIGHT, piece, folder, tmp_path / "out"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_name_that_is_not_text(model: Model, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frame_times_s=TIMES_S)
    odd = clip.rename(tmp_path / "caf\udce9.mp4")
    (tmp_path / "caf\udce9.srt").write_text(WORDS)
    analysis = analyze(odd, model)
    assert set(analysis.frames["file"]) == {"caf?.mp4"}
    assert analysis.provenance["transcript"]["source"] == "beside: caf?.srt"
    written = analysis.save(tmp_path / "out", ("csv", "parquet", "json", "vtt"))
    assert [path.name for path in written] == [
        f"caf?.{e}" for e in ("csv", "parquet", "json", "vtt")
    ]
    analysis.plot(tmp_path / "out" / "picture.png")


# The paper's encoders


def test_paper_runs_through_the_same_path(
    shelf: Path, piece: Path, srt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAVEN_MODELS", str(shelf))
    analysis = analyze(piece, "paper", device="cpu", offline=True, transcript=srt)
    check_answer(analysis)
    assert analysis.frames[list(HAS)].any(axis=0).all()
    encoders = analysis.provenance["model"]["encoders"]
    assert {m: e["name"] for m, e in encoders.items()} == {
        "visual": "swin",
        "audio": "hubert",
        "text": "roberta",
    }


def test_without_weights_paper_is_refused_in_one_line(
    piece: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAVEN_MODELS", str(tmp_path))
    with pytest.raises(ModelError, match="paper") as refused:
        analyze(piece, "paper")
    assert "\n" not in str(refused.value)


def test_the_demo_has_words_inside(model: Model) -> None:
    analysis = analyze(DEMO, model, rate_hz=2)
    check_answer(analysis)
    assert analysis.transcript.source.startswith("stream")
    assert len(analysis.transcript.words) > 20
    assert read_audio(DEMO) is not None
