"""The commands of the research bench: what they refuse, in one line, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from affwild2_factory import label
from commands import Run, here, runner
from maven.datasets.affwild2 import CHALLENGE
from maven.store import read_manifest, write_manifest
from tiny_bench import write_mini_store, write_recipe
from toy_mini import save_toy_mini


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capsys)


@dataclass(frozen=True)
class Place:
    """A store and what else commands take, beside the current folder."""

    folder: Path

    def fill(self, arguments: str) -> list[str]:
        """Words of a command; @name is a file of this place."""
        words = arguments.split()
        return [str(self.folder / w[1:]) if w.startswith("@") else w for w in words]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("place")
    write_mini_store(folder / "store")
    write_recipe(folder / "c.yaml", folder / "store")
    save_toy_mini(folder / "toy")
    label(folder / "corpus", "val", "a")
    for name in ("empty", "sources/text"):
        (folder / name).mkdir(parents=True)
    (folder / "text.pth").write_text("hello")
    (folder / "bad.yaml").write_text("a: [1\nb: 2")
    (folder / "list.yaml").write_text("- 1")
    write_recipe(folder / "nowhere.yaml", folder / "empty")
    (folder / "sample.txt").write_text("image_location,valence,arousal\nvideo4/00001.jpg,0,0\n")
    (folder / "other.txt").write_text("image_location,valence,arousal\nnobody/00001.jpg,0,0\n")
    (folder / "broken.txt").write_text("image_location,valence,arousal\nvideo4,0,0\n")
    damaged = Path(shutil.copytree(folder / "store", folder / "damaged"))
    for path in (damaged / "arrays" / "visual").rglob("values.npy"):
        os.truncate(path, 70)
    write_recipe(folder / "damaged.yaml", damaged)
    other = Path(shutil.copytree(folder / "store", folder / "other"))
    manifest = read_manifest(other)
    manifest.encoders["text"]["fingerprint"] = "0" * 16
    write_manifest(other, manifest)
    return Place(folder)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("data check missing", "no folder missing"),
        ("data check @c.yaml", "no folder"),
        ("data check @corpus -o @empty", "is a folder; give a file"),
        ("data check @corpus -o @c.yaml/x.csv", "cannot write"),
        ("data compose --sources missing --split val --videos 1 --seconds 5 -o o", "no folder"),
        ("data compose --sources @empty --split val --videos 1 --seconds 5 -o o", "empty"),
        ("data compose --sources @sources --split val --videos 0 --seconds 5 -o o", "1 or more"),
        ("data compose --sources @sources --split val --videos 1 --seconds 3 -o o", "5 to 3600"),
        ("data compose --sources @sources --split val --videos 1 --seconds nan -o o", "5 to"),
        ("data compose --sources @sources --split dev --videos 1 --seconds 5 -o o", "train, val"),
        ("data compose --sources @sources --split val --videos 1 --seconds 5 -o @c.yaml", "write"),
        ("features missing -o o", "no folder missing"),
        ("features @corpus -o @c.yaml", "cannot write"),
        ("convert published missing.pth -o o", "no file missing.pth"),
        ("convert published @empty -o o", "is a folder"),
        ("convert published @text.pth -o @c.yaml", "cannot write"),
        ("convert published @text.pth -o o --heads 0", "1 or more"),
        ("convert published @text.pth -o o --join-heads 0", "1 or more"),
        ("train", "configuration, or --resume"),
        ("train @c.yaml --resume @empty", "not both"),
        ("train --resume @empty -o o", "no changes, no -o"),
        ("train --resume missing", "no folder missing"),
        ("train missing.yaml", "no file missing.yaml"),
        ("train @c.yaml train.epochs", "accepted: key=value"),
        ("train @c.yaml train.epochs=ten", "epochs must be of type int"),
        ("train @c.yaml train.epoch=3", "unknown key train.epoch; accepted: epochs, batch"),
        ("train @c.yaml colour=red", "unknown key colour"),
        ("train @c.yaml preset=best", "accepted: default, paper"),
        ("train @c.yaml fold=7", "official or 0 to 5"),
        ("train @c.yaml modalities=[smell]", "visual, audio, text"),
        ("train @list.yaml", "a mapping of features"),
        ("train @c.yaml -o @bad.yaml", "cannot write"),
        ("ablate @c.yaml --seeds 0", "1 or more"),
        ("ablate @c.yaml --jobs 0", "1 or more"),
        ("ablate @c.yaml --grid all", "accepted: modalities, components, presets"),
        ("ablate @c.yaml preset=best", "accepted: default, paper"),
        ("ablate missing.yaml", "no file"),
        ("ablate @c.yaml -o @bad.yaml", "cannot write"),
        ("evaluate mini missing", "no folder missing"),
        ("evaluate mini @store --split dev", "accepted: train, val, test"),
        ("evaluate mini @store --seed -1", "0 or more"),
        ("evaluate mini @store -o @c.yaml", "cannot write"),
        ("submit mini missing --sample @sample.txt", "no folder missing"),
        ("submit mini @store --sample missing.txt", "no file missing.txt"),
        ("submit mini @store --sample @empty", "is a folder"),
        ("submit mini @store --sample @sample.txt -o @empty", "is a folder"),
        ("submit mini @store --sample @sample.txt -o @c.yaml/p.txt", "cannot write"),
    ],
)
def test_a_wrong_command_is_refused(run: Run, place: Place, arguments: str, says: str) -> None:
    done = run(*place.fill(arguments))
    assert (done.code, done.out) == (2, "")
    assert says in done.message
    assert here() == []


def test_missing_and_unknown_options(run: Run, place: Place) -> None:
    for arguments in (
        "ablate", "evaluate mini", "submit mini @store", "features @corpus", "data", "data compose",
        "convert published @text.pth", "train @c.yaml --loud", "ablate @c.yaml --seeds many",
    ):  # fmt: skip
        done = run(*place.fill(arguments))
        assert done.code == 2
        assert "Traceback" not in done.out + done.err
    assert here() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("data check @empty", f"no {CHALLENGE}"),
        ("features @empty -o o", f"no {CHALLENGE}"),
        (
            "features @corpus -o o --workers 1",
            "none of its 1 videos can be read: a: neither a media",
        ),
        ("features @corpus -o o --encoders nothing", "no model named nothing"),
        ("features @corpus -o o --asr ears", "'auto'"),
        ("features @corpus -o o --device tpu", "accepted: auto, cpu"),
        ("convert published @text.pth -o o", "not a PyTorch checkpoint"),
        ("train @bad.yaml", "bad.yaml: no YAML: while parsing"),
        ("train @nowhere.yaml", "no feature store"),
        ("train @damaged.yaml", "values.npy: damaged"),
        ("train @c.yaml network.width=7", "network: width and join_width must be multiples"),
        ("train @c.yaml encoders=paper", "no manifest named 'paper'; accepted: mini"),
        ("train --resume @empty", "no run to resume"),
        ("ablate @nowhere.yaml", "no feature store"),
        ("ablate @damaged.yaml", "values.npy: damaged"),
        ("ablate @c.yaml network.rate_hz=0", "network: rate_hz must be above 0"),
        ("evaluate mini @empty", f"no {CHALLENGE}"),
        ("evaluate mini @damaged", "values.npy: damaged"),
        ("evaluate mini @other", "no features of the encoders of the model mini"),
        ("evaluate mini @store --split test", "no labelled frame in split test"),
        ("evaluate nothing @store", "no model named nothing"),
        ("evaluate @empty @store", "lacks config.json"),
        ("evaluate @toy @store", "no features of the encoders of the model toy"),
        ("evaluate mini @store --device tpu", "accepted: auto, cpu"),
        ("submit mini @other --sample @sample.txt", "no features of the encoders"),
        ("submit mini @store --sample @other.txt", "nobody/00001.jpg"),
        ("submit mini @store --sample @broken.txt", "line 2"),
        ("submit mini @store --sample @text.pth", "accepted: the header"),
        ("submit mini @empty --sample @sample.txt", f"no {CHALLENGE}"),
    ],
)
def test_a_failed_run_says_why_in_one_line_and_leaves_nothing(
    run: Run, place: Place, arguments: str, says: str
) -> None:
    words = place.fill(arguments)
    if words[0] in ("evaluate", "submit", "ablate") or words[:2] == ["data", "check"]:
        words += ["-o", "new/out"]
    done = run(*words)
    assert (done.code, done.out) == (1, "")
    assert says in done.message
    assert here() == []


def test_the_traceback_is_shown_when_it_is_asked_for(run: Run, place: Place) -> None:
    for arguments in ("evaluate mini @other", "train @damaged.yaml", "data check @empty"):
        done = run(*place.fill(arguments), "--debug")
        assert done.code == 1
        assert "Traceback" in done.err
        assert done.err.splitlines()[-1].startswith("maven: ")


def test_a_file_that_cannot_be_written_leaves_nothing(
    run: Run, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maven.datasets.affwild2.whole", full)
    monkeypatch.setattr("maven.render.corpus.whole", full)
    for arguments in (
        "submit mini @store --sample @sample.txt -o p.txt", "data check @corpus -o f.csv",
    ):  # fmt: skip
        done = run(*place.fill(arguments))
        assert done.code == 1
        assert "No space left" in done.message
        assert here() == []
