"""What processes must have in common before they train together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from maven.launch import agree, launch
from maven.recipe import TrainError, resolve, train_config


class Process(SimpleNamespace):
    """Stands for one of two processes; the other one says `other`."""

    world_size = 2
    device = torch.device("cpu")

    def all_gather(self, own: torch.Tensor) -> torch.Tensor:
        said: list[torch.Tensor] = []
        other = Process(all_gather=lambda numbers: (said.append(numbers), numbers[None])[1])
        agree(cast(Any, other), **self.other)
        return torch.stack([own, said[0]])


def process(**other: str) -> Any:
    return Process(other=other)


def test_what_differs_is_named() -> None:
    agree(process(features="a", checkpoint="3"), features="a", checkpoint="3")
    with pytest.raises(TrainError, match="processes differ in checkpoint: all machines need"):
        agree(process(features="a", checkpoint="3"), features="a", checkpoint="4")
    with pytest.raises(TrainError, match="processes differ in features, checkpoint: "):
        agree(process(features="a", checkpoint="3"), features="A", checkpoint="4")


def test_a_process_alone_agrees() -> None:
    agree(cast(Any, SimpleNamespace(world_size=1)), features="a")


def test_several_processes_that_torchrun_did_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    config = train_config(resolve({"features": "x", "train": {"device": "cpu"}}))
    with pytest.raises(TrainError, match="WORLD_SIZE is 2, LOCAL_WORLD_SIZE is not set; accepted"):
        launch(config)


def test_machines_with_other_numbers_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", 3), ("LOCAL_WORLD_SIZE", 2), ("GROUP_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    config = train_config(resolve({"features": "x", "train": {"device": "cpu"}}))
    with pytest.raises(TrainError, match="3 processes on 2 machines, 2 of them here; accepted"):
        launch(config)
