"""The folder of a training run: all that is needed to go on with it, to repeat it, to read it.

| file | what |
|---|---|
| config.yaml | every setting, defaults filled in |
| environment.json | seed, versions, machine, threads, which data |
| last.safetensors | where it stands: weights, averages, AdamW's moments, counters, history |
| log.csv, tensorboard/ | one row an epoch |
| best/ | model folder: the averaged weights of the best validation epoch |
| curves.png | loss and CCC by epoch |

`last.safetensors` is one file, renamed into place, and the rest follows from it: a run that was
killed anywhere goes on from its last whole epoch.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from maven.checkpoint import BAD_CONTENT, ModelCard, save
from maven.encoders.build import EncoderSpec
from maven.files import whole
from maven.recipe import TrainError, parse

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

    from maven.model import Maven

COLUMNS = (
    "epoch", "step", "loss", "grad_norm", "lr", "seconds", "frames_per_s",
    "ccc_valence", "ccc_arousal", "ccc_mean",
)  # fmt: skip
PART = re.compile(r"\.\w+\.\d+\.\w+|\.tmp\w{6}")  # what `whole` and safetensors write to first
COLOURS = {"ccc_valence": "#0072B2", "ccc_arousal": "#E69F00", "ccc_mean": "#333333"}


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: whole epochs done.
        step: optimiser steps done.
        best_epoch: the one whose averaged weights are kept; 0 before the first.
        best_score: its mean validation CCC.
        history: a row of `COLUMNS` an epoch.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_score: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    def best_figures(self) -> dict[str, float]:
        """Validation CCCs of the best epoch."""
        return {name: self.history[self.best_epoch - 1][name] for name in COLOURS}


class Run:
    """A run's folder and what its best model says of itself."""

    def __init__(
        self,
        folder: Path | str,
        encoders: Mapping[str, EncoderSpec] | None = None,
        encoder_files: Mapping[str, Path] | None = None,
    ) -> None:
        """Open or make a run's folder.

        Args:
            folder: of the run.
            encoders: that the features come from, for the model card.
            encoder_files: files that belong beside the model, by their names there.
        """
        self.folder = Path(folder)
        self.last = self.folder / "last.safetensors"
        self.best = self.folder / "best"
        self._encoders, self._files = dict(encoders or {}), dict(encoder_files or {})
        self._events: EventsWriter | None = None

    def begin(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Write what describes a run; config.yaml last, so that a folder with one can be resumed.

        Raises:
            TrainError: the folder holds a run already, or cannot be written.
        """
        if (self.folder / "config.yaml").exists():
            raise TrainError(
                f"{self.folder} holds a run already: resume it, or give a folder that does not"
            )
        with self._writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / "environment.json", json.dumps(environment, indent=1) + "\n")
            _write(self.folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))

    def config(self) -> dict[str, Any]:
        """Read the settings of a run that was begun.

        Raises:
            TrainError: none was begun in this folder.
        """
        path = self.folder / "config.yaml"
        try:
            return dict(parse(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            lack = f"holds no run to resume: it has no {path.name}"
            raise TrainError(f"{self.folder} {lack}") from error
        except (*BAD_CONTENT, TrainError) as error:
            raise TrainError(f"{path} cannot be read: {_one_line(error)}") from error

    def environment(self) -> dict[str, Any]:
        """Read what a run was begun with, see `environment`.

        Raises:
            TrainError: it is missing or damaged.
        """
        path = self.folder / "environment.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except BAD_CONTENT as error:
            raise TrainError(f"{path} cannot be read: {_one_line(error)}") from error

    def save(
        self,
        networks: Mapping[str, nn.Module],
        optimiser: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        """Write the checkpoint, whole or not at all.

        Args:
            networks: all whose weights a step changes, by name.
            optimiser: with its moments.
            progress: so far.

        Raises:
            TrainError: it cannot be written; the one before it is kept.
        """
        from safetensors.torch import save_file

        tensors = {
            f"{k}.{n}": x for k, net in networks.items() for n, x in net.state_dict().items()
        }
        for k, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"adamw.{k}.{name}": moment for name, moment in moments.items()}
        tensors = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
        with self._writing(self.last), whole(self.last) as part:
            save_file(tensors, part, {"progress": json.dumps(asdict(progress))})
            shutil.copymode(self.folder / "config.yaml", part)  # safetensors lets nobody else read

    def progress(self) -> Progress:
        """Read how far the checkpoint had come; nothing where the first is not written yet.

        Raises:
            TrainError: it is damaged.
        """
        return self._read()[1] if self.last.exists() else Progress()

    def restore(
        self, networks: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer
    ) -> Progress:
        """Bring networks and optimiser to the checkpoint, if there is one; see `save`.

        Raises:
            TrainError: it is damaged, or of another network.
        """
        if not self.last.exists():
            return Progress()
        tensors, progress = self._read(("",))
        moments: dict[int, dict[str, Tensor]] = {}
        weights: dict[str, dict[str, Tensor]] = {name: {} for name in networks}
        shapes = [tuple(p.shape) for g in optimiser.param_groups for p in g["params"]]
        try:
            for name, tensor in tensors.items():
                group, _, rest = name.partition(".")
                if group == "adamw":
                    k, _, moment = rest.partition(".")
                    if tuple(tensor.shape) not in ((), shapes[int(k)]):
                        raise ValueError(f"{name} has another shape")
                    moments.setdefault(int(k), {})[moment] = tensor
                else:
                    weights[group][rest] = tensor
            for group, network in networks.items():
                network.load_state_dict(weights[group])
        except (RuntimeError, LookupError, ValueError) as error:
            raise TrainError(f"{self.last} is not of this network") from error
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": moments, "param_groups": groups})
        return progress

    def _read(self, prefixes: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], Progress]:
        """Read the tensors whose names begin so, and the counters."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.last, "pt") as file:
                names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118
                tensors = {name: file.get_tensor(name).clone() for name in names}
                return tensors, _progress(json.loads(file.metadata()["progress"]))
        except (SafetensorError, *BAD_CONTENT) as error:
            raise TrainError(f"{self.last} is no checkpoint: {_one_line(error)}") from error

    def sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for path in [*self.folder.glob(".*"), *self.best.glob(".*")]:
            if PART.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def log(self, progress: Progress) -> None:
        """Write log.csv, and the last row as TensorBoard events.

        Raises:
            TrainError: they cannot be written.
        """
        if not progress.history:
            return
        self._write_log(progress.history)
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        row = progress.history[-1]
        with self._writing(self.folder / "tensorboard"):
            events = self._opened_events(progress)
            for name in COLUMNS[2:]:
                summary = scalar(name, row[name])
                event = Event(wall_time=time.time(), step=int(row["step"]), summary=summary)
                events.write_event(event)
            events.flush()

    def rewind(self, progress: Progress) -> None:
        """Bring log.csv back to a checkpoint: rows after it are dropped.

        Raises:
            TrainError: it cannot be written.
        """
        self.sweep()
        self._write_log(progress.history)

    def _write_log(self, history: Sequence[Mapping[str, float]]) -> None:
        path = self.folder / "log.csv"
        with self._writing(path), whole(path) as part, part.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([f"{row[name]:.9g}" for name in COLUMNS] for row in history)

    def _opened_events(self, progress: Progress) -> EventsWriter:
        """Open this process's own file of events; what another wrote for later steps is dropped.

        Not through tensorboardX's SummaryWriter: it writes in a thread, which a full disk ends
        without a word, and the next event but nine would wait for it forever.
        """
        if self._events is None:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog

            folder = self.folder / "tensorboard"
            folder.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(folder / "events"), f".{os.getpid()}")
            start = SessionLog(status=SessionLog.START)
            step = int(progress.history[-1]["step"])
            self._events.write_event(Event(wall_time=time.time(), step=step, session_log=start))
        return self._events

    def write_best(
        self,
        network: Maven,
        progress: Progress,
        smoothing_s: float = 0.0,
        smoothed: Mapping[float, float] | None = None,
    ) -> None:
        """Write the model folder `best`.

        Args:
            network: with the weights of the best epoch.
            progress: so far.
            smoothing_s: half-width chosen on validation data.
            smoothed: mean validation CCC by half-width, once it is known.

        Raises:
            TrainError: it cannot be written.
        """
        config, about = self.config(), self.environment()
        training = {
            "encoders": about["data"].get("encoders", {}),
            "figures": progress.best_figures(),
            "epoch": progress.best_epoch,
            "smoothed": {f"{width_s:g}": mean for width_s, mean in (smoothed or {}).items()},
            "settings": {name: value for name, value in config.items() if name != "features"},
            "environment": about,
        }
        card = ModelCard(config["name"], network.config, self._encoders, smoothing_s, training)
        with self._writing(self.best):
            self.best.mkdir(parents=True, exist_ok=True)
            for name, source in self._files.items():
                if not (self.best / name).exists():
                    with whole(self.best / name) as part:
                        part.write_bytes(source.read_bytes())
            save(network, card, self.best)

    def write_curves(self, progress: Progress) -> None:
        """Draw loss and CCC by epoch into curves.png.

        Raises:
            TrainError: it cannot be written.
        """
        from matplotlib.figure import Figure

        epochs = [row["epoch"] for row in progress.history]
        figure = Figure(figsize=(8, 6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot(epochs, [row["loss"] for row in progress.history], color="#333333")
        above.set_ylabel("training loss")
        for name, colour in COLOURS.items():
            label = name.removeprefix("ccc_")
            below.plot(epochs, [row[name] for row in progress.history], color=colour, label=label)
        best = f"best epoch, {progress.best_epoch}: {progress.best_score:.3f}"
        below.axvline(progress.best_epoch, color="#888888", linestyle=":", label=best)
        below.set_ylabel("validation CCC")
        below.set_xlabel("epoch")
        below.legend(loc="lower right", fontsize=8)
        for axes in (above, below):
            axes.grid(color="#DDDDDD", linewidth=0.5)
        path = self.folder / "curves.png"
        with self._writing(path), whole(path) as part:
            figure.savefig(part, dpi=150)

    def kept(self) -> str:
        """Say which checkpoint can be gone on from."""
        try:
            epoch = self.progress().epoch
        except TrainError as error:
            return str(error)
        if not epoch:
            return "no checkpoint was written yet"
        return f"the last good checkpoint is kept: {self.last}, epoch {epoch}"

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or _one_line(error)
            raise TrainError(f"{path} cannot be written ({reason}); {self.kept()}") from error


def _progress(values: dict[str, Any]) -> Progress:
    """Make a checkpoint's counters of JSON; raises one of `BAD_CONTENT` where they are none."""
    progress = Progress(**values)
    if not all(isinstance(row[k], int | float) for row in progress.history for k in COLUMNS):
        raise ValueError("a row of its history is not of numbers")
    counts = (progress.epoch, progress.step, progress.best_epoch)
    sound = all(type(count) is int and count >= 0 for count in counts)
    if not sound or not progress.best_epoch <= progress.epoch == len(progress.history):
        raise ValueError(f"its counters are {counts}, its history has {len(progress.history)} rows")
    return progress


def environment(seed: int, processes: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """Say in what a run was begun: bitwise the same again needs all of it to be the same."""
    from maven import __version__

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"numpy": np.__version__, "maven": __version__}
    return {
        "seed": seed,
        "versions": versions,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "data": dict(data),
    }


def _write(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
