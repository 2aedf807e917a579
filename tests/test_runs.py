"""The folder of a run: written whole, read back exactly, and clear words where it cannot be."""

from __future__ import annotations

import csv
import errno
import json
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

from maven.checkpoint import load_network, read_card
from maven.encoders.build import EncoderSpec
from maven.model import Maven
from maven.recipe import TrainError
from maven.runs import COLUMNS, Progress, Run, environment
from planted import network, weights

CONFIG = {"features": "somewhere", "name": "toy", "train": {"epochs": 3, "smoothing_s": [0.0]}}
ENVIRONMENT = environment(3, 1, {"sha256": "abc", "clips": {"train": ["a"], "val": ["b"]}})


def row(epoch: int) -> dict[str, float]:
    figures = dict.fromkeys(COLUMNS, 0.123456789012 * epoch)
    return figures | {"epoch": epoch, "step": 10 * epoch}


def progress(epochs: int, best: int = 1) -> Progress:
    return Progress(epochs, 10 * epochs, best, 0.5, [row(k + 1) for k in range(epochs)])


def begun(folder: Path, **more: Any) -> Run:
    run = Run(folder, **more)
    run.begin(CONFIG, ENVIRONMENT)
    return run


def stepped(made: Maven, steps: int) -> torch.optim.AdamW:
    """An optimiser that has taken some steps."""
    optimiser = torch.optim.AdamW(made.parameters(), 1e-2)
    for _ in range(steps):
        for p in made.parameters():
            p.grad = torch.randn_like(p)
        optimiser.step()
    return optimiser


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes: what a full disk looks like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- what describes it -------------------------------------------------------------------------


def test_a_run_says_how_and_in_what_it_was_begun(tmp_path: Path) -> None:
    run = begun(tmp_path / "deep" / "run")
    assert run.config() == CONFIG == yaml.safe_load((run.folder / "config.yaml").read_text())
    said = run.environment()
    assert said["seed"] == 3
    assert said["data"]["clips"] == {"train": ["a"], "val": ["b"]}
    assert set(said["versions"]) == {"python", "torch", "numpy", "maven"}
    assert said["threads"] == torch.get_num_threads()
    assert said["platform"]


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(TrainError, match=r"holds a run already: resume it"):
        Run(tmp_path).begin(CONFIG, ENVIRONMENT)


def test_without_a_configuration_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"holds no run to resume: it has no config\.yaml"):
        Run(tmp_path / "nothing").config()
    (tmp_path / "config.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(TrainError, match=r"config\.yaml cannot be read"):
        Run(tmp_path).config()
    (tmp_path / "config.yaml").write_text("a: &x [1]\nb: *x\n")  # a few lines may fill the memory
    with pytest.raises(TrainError, match=r"config\.yaml cannot be read: no YAML: an alias"):
        Run(tmp_path).config()
    with pytest.raises(TrainError, match=r"environment\.json cannot be read"):
        Run(tmp_path).environment()


# --- the checkpoint ----------------------------------------------------------------------------


def test_a_checkpoint_is_read_back_exactly(tmp_path: Path) -> None:
    run, networks = begun(tmp_path), {"weights": network(0), "best": network(1)}
    optimiser = stepped(networks["weights"], 3)
    run.save(networks, optimiser, progress(2))
    again = {"weights": network(5), "best": network(6)}
    fresh = torch.optim.AdamW(again["weights"].parameters(), 1e-2, fused=True)
    assert run.restore(again, fresh) == run.progress() == progress(2)
    for name, made in networks.items():
        for k, tensor in weights(made).items():
            assert torch.equal(tensor, again[name].state_dict()[k])
    moments, found = (o.state_dict()["state"] for o in (optimiser, fresh))
    assert moments.keys() == found.keys()
    for k, moment in moments.items():
        assert float(moment["step"]) == float(found[k]["step"]) == 3
        for part in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(moment[part], found[k][part])


def test_it_is_one_file_without_a_pickle(tmp_path: Path) -> None:
    run, made = begun(tmp_path), network()
    run.save({"weights": made}, stepped(made, 1), progress(2))
    with safe_open(run.last, "pt") as file:
        assert json.loads(file.metadata()["progress"])["epoch"] == 2
        assert "adamw.0.exp_avg" in file.keys()  # noqa: SIM118
    assert run.last.stat().st_mode == (tmp_path / "config.yaml").stat().st_mode
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pt", ".pth", ".pkl", ".ckpt")]


def test_before_the_first_there_is_nothing_to_restore(tmp_path: Path) -> None:
    run, made = begun(tmp_path), network()
    before = weights(made)
    assert run.restore({"weights": made}, stepped(network(), 1)) == Progress() == run.progress()
    assert all(torch.equal(x, before[k]) for k, x in weights(made).items())
    assert run.kept() == "no checkpoint was written yet"


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run, made = begun(tmp_path), network()
    run.save({"weights": made}, stepped(made, 1), progress(1))
    run.last.write_bytes(run.last.read_bytes()[:-50])
    for read in (run.progress, lambda: run.restore({"weights": made}, stepped(made, 1))):
        with pytest.raises(TrainError, match=r"last\.safetensors is no checkpoint"):
            read()
    assert "is no checkpoint" in run.kept()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    run, made = begun(tmp_path), network()
    run.save({"weights": made}, stepped(made, 1), progress(1))
    other = network(width=8)
    with pytest.raises(TrainError, match="is not of this network"):
        run.restore({"weights": other}, torch.optim.AdamW(other.parameters()))


# --- the log -----------------------------------------------------------------------------------


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_log_has_a_row_an_epoch_and_drops_what_was_not_kept(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.rewind(Progress())
    assert (tmp_path / "log.csv").read_text() == ",".join(COLUMNS) + "\n"
    run.log(progress(3))
    three = (tmp_path / "log.csv").read_text()
    assert [r["epoch"] for r in read_log(tmp_path)] == ["1", "2", "3"]
    assert float(read_log(tmp_path)[1]["loss"]) == pytest.approx(row(2)["loss"], rel=1e-8)
    run.rewind(progress(2))
    assert (tmp_path / "log.csv").read_text() == "".join(three.splitlines(True)[:3])


def events(folder: Path) -> list[tuple[int, str, float]]:
    """(step, name, value) of every scalar in a folder's event files: TFRecord by hand."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            if event.session_log.status == 1:
                found.append((event.step, "begun", 0.0))
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return found


def test_tensorboard_sees_the_rows_and_where_a_resumed_run_begins(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.log(progress(1))
    run.log(progress(2))
    found = events(tmp_path)
    assert found[0] == (10, "begun", 0.0)
    losses = {step: value for step, name, value in found if name == "loss"}
    assert losses == pytest.approx({10: 0.123456789, 20: 0.246913578})
    assert {name for _, name, _ in found} == {"begun", *COLUMNS[2:]}


# --- the best model and the picture ------------------------------------------------------------


def test_the_best_model_is_a_folder_that_loads(tmp_path: Path) -> None:
    beside = tmp_path / "visual.weights"
    beside.write_bytes(b"encoder")
    specs = {m: EncoderSpec("mini", f"{m}.safetensors") for m in ("visual", "audio", "text")}
    run = begun(tmp_path / "run", encoders=specs, encoder_files={"visual.safetensors": beside})
    made = network()
    run.write_best(made, progress(3, best=2), 1.5, {0.0: 0.4, 1.5: 0.5})
    card = read_card(run.best)
    assert card.name == "toy"
    assert card.config == made.config
    assert card.smoothing_s == 1.5
    assert card.encoders == specs
    assert card.training["figures"]["ccc_mean"] == row(2)["ccc_mean"]
    assert card.training["smoothed"] == {"0": 0.4, "1.5": 0.5}
    assert card.training["environment"] == json.loads(json.dumps(ENVIRONMENT))
    assert "somewhere" not in (run.best / "config.json").read_text()
    assert (run.best / "visual.safetensors").read_bytes() == b"encoder"
    found = weights(load_network(run.best, device="cpu").network)
    assert all(torch.equal(x, found[k]) for k, x in weights(made).items())


@pytest.mark.parametrize("epochs", [1, 5])
def test_the_curves_are_drawn(tmp_path: Path, epochs: int) -> None:
    import cv2

    run = begun(tmp_path)
    run.write_curves(progress(epochs))
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture is not None
    assert picture.shape[0] > 500
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


# --- a full disk, and what is left behind ------------------------------------------------------


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    run, made = begun(tmp_path), network()
    optimiser = stepped(made, 1)
    run.save({"weights": made}, optimiser, progress(1))
    before = run.last.read_bytes()
    with (
        file_limit(10_000),
        pytest.raises(TrainError, match=r"last\.safetensors cannot be written .*is kept.*epoch 1"),
    ):
        run.save({"weights": made}, optimiser, progress(2))
    assert run.last.read_bytes() == before
    assert not list(tmp_path.glob(".*"))
    with file_limit(10), pytest.raises(TrainError, match=r"log\.csv cannot be written \(File too"):
        run.log(progress(2))
    with file_limit(1000), pytest.raises(TrainError, match=r"best cannot be written"):
        run.write_best(made, progress(2))
    with file_limit(1000), pytest.raises(TrainError, match=r"curves\.png cannot be written"):
        run.write_curves(progress(2))
    assert run.progress().epoch == 1
    assert not list(tmp_path.rglob(".*"))


def test_no_room_for_events_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboardX.event_file_writer import EventsWriter

    def full(self: EventsWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = begun(tmp_path)
    monkeypatch.setattr(EventsWriter, "flush", full)
    with pytest.raises(TrainError, match=r"tensorboard cannot be written \(No space left"):
        run.log(progress(1))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match=r"file/run cannot be written"):
        begun(tmp_path / "file" / "run")


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.best.mkdir()
    left = [tmp_path / ".last.1234.safetensors", run.best / ".model.99.safetensors"]
    left.append(tmp_path / ".tmpQx3fT0")  # of safetensors
    others = [tmp_path / ".gitignore", tmp_path / "notes.1.txt"]
    for path in (*left, *others):
        path.write_text("")
    run.rewind(Progress())
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)
