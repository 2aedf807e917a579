"""The command line as a user meets it: files, messages, exit codes, and nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pyarrow.parquet
import pytest

import maven
from commands import Outcome, Run, here, runner
from demo_pieces import DEMO, copy_piece
from maven import checkpoint, cli
from maven.render import tables
from media_factory import write_clip
from toy_mini import save_toy_mini

TIMES_S = [k / 25 for k in range(10)]
SUBTITLES = "1\n00:00:00,600 --> 00:00:01,200\nSuch joy\n"


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face and a voice, 1.5 s."""
    return copy_piece(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """Ten frames with nobody in them."""
    return write_clip(tmp_path / "bars.mp4", frame_times_s=TIMES_S)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy: Path
) -> Run:
    """Run a command in an empty folder of its own; `predict` with the toy model."""
    run_as_typed = runner(tmp_path, monkeypatch, capsys)

    def run_maven(*arguments: str | Path) -> Outcome:
        named = [str(argument) for argument in arguments]
        if named[:1] == ["predict"]:
            named += [] if "--model" in named else ["--model", str(toy)]
            named += [] if "--asr" in named else ["--asr", "none"]
        return run_as_typed(*named)

    return run_maven


def test_help_and_version(run: Run) -> None:
    assert run("--version").out == f"{maven.__version__}\n"
    listed = run("--help")
    assert listed.code == 0
    for command in ("predict", "demo", "probe", "models"):
        assert command in listed.out
    options = re.findall(r"^  (?:-., )?--(\w+)", run("predict", "--help").out, re.MULTILINE)
    assert {"out", "model", "transcript", "asr", "faces", "rate", "format"} < set(options)
    assert {"plot", "device", "offline", "debug"} < set(options)


# What is written


def test_every_format_and_a_picture(run: Run, clip: Path, toy: Path) -> None:
    Path("words.srt").write_text(SUBTITLES)
    done = run("predict", clip, "-o", "new/out", "--format", "csv,parquet,json,vtt", "--plot",
               "--transcript", "words.srt")  # fmt: skip
    assert (done.code, done.err) == (0, "")
    out = Path("new/out")
    endings = ("csv", "json", "parquet", "png", "vtt")
    assert sorted(path.name for path in out.iterdir()) == [f"clip.{e}" for e in endings]
    for ending in endings:
        assert f"Wrote {out / 'clip'}.{ending}" in done.out

    table = tables.read(out / "clip.parquet")
    assert table["has_face"].all()
    assert table[["has_speech", "has_text"]].any().all()
    pd.testing.assert_frame_equal(tables.read(out / "clip.csv"), table, rtol=1e-6)
    content = json.loads((out / "clip.json").read_text())
    assert len(content["rows"]) == len(table)
    assert [word["text"] for word in content["words"]] == ["Such", "joy"]
    assert (out / "clip.vtt").read_text().startswith("WEBVTT")
    assert (out / "clip.png").read_bytes().startswith(b"\x89PNG")

    metadata = pyarrow.parquet.read_schema(out / "clip.parquet").metadata
    provenance = json.loads(metadata[b"maven"])
    assert provenance == content["provenance"]
    assert provenance["maven"] == maven.__version__
    assert provenance["media"]["sha256"] == hashlib.sha256(clip.read_bytes()).hexdigest()
    weights = (toy / "model.safetensors").read_bytes()
    assert provenance["model"]["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert set(provenance["model"]["encoders"]) == {"visual", "audio", "text"}
    assert provenance["transcript"]["source"] == "file: words.srt"
    assert provenance["settings"]["transcript"] == "words.srt"


def test_two_runs_give_the_same_bytes(run: Run, clip: Path) -> None:
    for out in ("one", "two"):
        formats = ("--format", "csv,parquet,json,vtt")
        assert run("predict", clip, "-o", out, "--faces", "all", *formats).code == 0
    for path in Path("one").iterdir():
        assert path.read_bytes() == (Path("two") / path.name).read_bytes()


def test_rate_formats_and_the_default_folder(run: Run, clip: Path) -> None:
    assert run("predict", clip, "--rate", "4", "--format", "csv, csv").code == 0
    assert here() == ["maven-out", "maven-out/clip.csv"]
    times_s = pd.read_csv("maven-out/clip.csv")["time_s"]
    assert times_s.diff().dropna().between(0.2, 0.3).all()


def test_the_same_name_twice_is_written_twice(run: Run, bars: Path, tmp_path: Path) -> None:
    twins = [tmp_path / folder / "bars.mp4" for folder in ("a", "b")]
    for twin in twins:
        twin.parent.mkdir()
        twin.write_bytes(bars.read_bytes())
    sound = write_clip(tmp_path / "bars.mkv", frame_times_s=TIMES_S[:3])
    assert run("predict", bars, *twins, sound, "-o", "out", "--format", "csv").code == 0
    lines = {path.name: len(path.read_text().splitlines()) for path in Path("out").iterdir()}
    assert lines == {"bars.csv": 11, "bars-2.csv": 11, "bars-3.csv": 11, "bars-4.csv": 4}


def test_in_the_folder_of_the_media_nothing_is_overwritten(run: Run, bars: Path) -> None:
    os.chdir(bars.parent)
    bars.with_suffix(".vtt").write_text("WEBVTT\n\n00:00.100 --> 00:00.200\njoy\n")
    for _ in range(2):
        done = run("predict", "bars.mp4", "-o", ".", "--format", "vtt,json")
        assert "Wrote bars.maven.vtt" in done.out
        assert "joy" in bars.with_suffix(".vtt").read_text()
        assert ", 1 word\n" in done.out


def test_odd_names(run: Run, bars: Path) -> None:
    for name in ("[red]a[/b", "-dash", "caf\udce9", "a b'\"$(c)", "ü%20#?"):
        path = Path(name.replace("/", "") + ".mp4")
        path.write_bytes(bars.read_bytes())
        done = run("predict", f"./{path}", "-o", f"out-{name.replace('/', '')}", "--format", "csv")
        assert (done.code, done.err) == (0, "")
    assert sum(name.endswith(".csv") for name in here()) == 5


# What is refused


@pytest.mark.parametrize(("kind", "says"), [("text", "not a media"), ("empty", ""), ("cut", "off")])
def test_bad_media_is_refused_and_leaves_nothing(
    run: Run, bars: Path, kind: str, says: str
) -> None:
    whole = bars.read_bytes()
    contents = {"text": b"no video\n" * 50, "empty": b"", "cut": whole[: len(whole) // 2]}
    Path(f"{kind}.mp4").write_bytes(contents[kind])
    done = run("predict", f"{kind}.mp4", "-o", "new/out", "--plot")
    assert (done.code, done.out) == (1, "")
    assert done.message.startswith(f"maven: {kind}.mp4: ")
    assert says in done.message
    assert here() == [f"{kind}.mp4"]
    assert run("probe", f"{kind}.mp4").message == done.message


@pytest.mark.parametrize("command", ["predict", "probe"])
def test_what_is_no_file_is_a_wrong_command(run: Run, command: str, bars: Path) -> None:
    Path("folder").mkdir()
    for name in ("missing.mp4", "folder", "http://host/clip.mp4"):
        done = run(command, name)
        assert done.code == 2
        assert str(Path(name)) in done.message
    assert run(command, "a" * 3000).message
    if command == "predict":
        assert "missing.mp4" in run(command, bars, "missing.mp4").message
    assert here() == ["folder"]


def test_a_bad_file_in_the_middle_does_not_stop_the_others(run: Run, bars: Path) -> None:
    Path("bad.mp4").write_text("nothing")
    after = Path("after.mp4")
    after.write_bytes(bars.read_bytes())
    for debug in ((), ("--debug",)):
        done = run("predict", bars, "bad.mp4", after, "-o", "out", "--format", "csv", *debug)
        assert done.code == 1
        assert sorted(path.name for path in Path("out").iterdir()) == ["after.csv", "bars.csv"]
        *_, about, count = done.err.splitlines()
        assert about.startswith("maven: bad.mp4: not a media file")
        assert count == "maven: 1 of 3 files failed"
        assert ("Traceback" in done.err) == bool(debug)
        for path in Path("out").iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("--rate", "0", "video"),
        ("--rate", "-3", "video"),
        ("--rate", "nan", "video"),
        ("--rate", "fast", "video"),
        ("--rate", "1e9", "video"),
        ("--faces", "some", "main, all"),
        ("--format", "csv,xlsx", "parquet"),
        ("--format", "", "parquet"),
        ("--device", "gpu", "cuda"),
        ("--asr", "magic", "pocketsphinx"),
        ("--asr", "whisper:", "pocketsphinx"),
        ("--transcript", "missing.srt", "missing.srt"),
        ("--transcript", ".", "folder"),
    ],
)
def test_bad_values_are_refused(
    run: Run, bars: Path, option: str, value: str, accepted: str
) -> None:
    done = run("predict", bars, "-o", "out", option, value)
    assert done.code == 2
    assert accepted in done.message
    assert here() == []


def test_wrong_options_and_arguments(run: Run, bars: Path) -> None:
    for arguments in (("predict",), ("predict", bars, "--loud"), ("prophesy",), ("probe",)):
        done = run(*arguments)
        assert done.code == 2
        assert "Traceback" not in done.err
    Path("words.srt").write_text(SUBTITLES)
    done = run("predict", bars, bars, "--transcript", "words.srt")
    assert done.code == 2
    assert "one transcript" in done.message


@pytest.mark.parametrize("content", [b"\x00\x01\x02", b"once upon a time", b'{"a": 1}'])
def test_a_bad_transcript_is_refused(run: Run, bars: Path, content: bytes) -> None:
    Path("words.srt").write_bytes(content)
    done = run("predict", bars, "-o", "out", "--transcript", "words.srt")
    assert done.code == 1
    assert "words.srt" in done.message
    assert here() == ["words.srt"]


def test_folders_that_cannot_be_written(run: Run, bars: Path) -> None:
    Path("file").write_text("")
    for out in ("file", "file/out", "file/a/b"):
        done = run("predict", bars, "-o", out)
        assert done.code == 2
        assert out in done.message
        assert run("demo", "-o", out).message == done.message
    if os.name == "posix" and os.geteuid() != 0:  # root writes anywhere
        Path("locked").mkdir(mode=0o500)
        assert run("predict", bars, "-o", "locked/out").code == 2


def test_a_full_disk_leaves_nothing(run: Run, bars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(tables.WRITERS, "csv", full)
    done = run("predict", bars, "-o", "out")
    assert done.code == 1
    assert "No space left" in done.message
    assert "bars.mp4" in done.message
    assert here() == []


def test_our_own_faults_are_one_line_as_well(
    run: Run, bars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr("maven.pipeline.observe", fail)
    message = run("predict", bars).message
    assert "bars.mp4: ZeroDivisionError: one two" in message
    assert "--debug" in message
    assert "Traceback" in run("predict", bars, "--debug").err


# Models


def test_bad_models_are_refused(run: Run, bars: Path, toy: Path) -> None:
    broken = Path("broken")
    save_toy_mini(broken)
    (broken / "config.json").write_text("{")
    weightless = Path("weightless")
    save_toy_mini(weightless)
    (weightless / "model.safetensors").write_bytes(b"\x80\x04K\x01.")  # a pickle
    Path("plain").mkdir()
    names = here()
    for name in ("broken", "weightless", "plain", "nosuch", "no/such", "paper"):
        done = run("predict", bars, "-o", "out", "--offline", "--model", name)
        assert done.code == 1
        assert name in done.message
    assert here() == names


def test_a_device_that_is_not_here_is_refused(run: Run, bars: Path) -> None:
    done = run("predict", bars, "-o", "out", "--device", "cuda:999")
    assert done.code == 1
    assert "cuda:999" in done.message
    assert here() == []


def test_paper_is_found_by_its_name(
    run: Run, clip: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAVEN_MODELS", str(shelf))
    done = run("predict", clip, "--model", "paper", "--offline", "--format", "csv")
    assert (done.code, done.err) == (0, "")
    assert pd.read_csv("maven-out/clip.csv")["valence"].notna().all()
    assert "swin, hubert, roberta" in run("models").out


def test_models_are_listed(
    run: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "[bold]"
    save_toy_mini(shelf / "mine")
    monkeypatch.setattr(checkpoint, "MINI_FOLDER", toy)
    monkeypatch.setenv("MAVEN_MODELS", str(shelf))
    monkeypatch.setenv("COLUMNS", "400")
    done = run("models")
    assert (done.code, done.err) == (0, "")
    for text in ("toy", "in the package", "mine", str(shelf), "paper", "nowhere"):
        assert text in done.out


# The rest


def test_probe_says_what_a_file_holds(run: Run) -> None:
    done = run("probe", DEMO)
    assert (done.code, done.err) == (0, "")
    for text in ("demo.mp4", "h264", "25.000 Hz", "aac", "mov_text"):
        assert text in done.out


def test_a_terminal_gets_a_bar_a_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with cli.progress_bar("[/clip].mp4") as report:
        report("faces", 0.5, 2.0)
        report("faces", 2.0, 2.0)
        report("voice", 1.0, None)
    assert "[/clip].mp4: faces" in capsys.readouterr().err


def test_mini_is_the_default(run: Run, clip: Path) -> None:
    done = run("predict", clip, "--model", "mini", "--format", "csv")
    assert (done.code, done.err) == (0, "")
    assert pd.read_csv("maven-out/clip.csv")["valence"].notna().all()
