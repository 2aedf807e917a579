"""How training begins on one process or on several, of one machine or of many (torchrun)."""

from __future__ import annotations

import hashlib
import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from maven.checkpoint import choose_device
from maven.recipe import TrainConfig, TrainError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def launch(config: TrainConfig) -> Fabric:
    """Set up device, precision and, under torchrun, this process's place among the others.

    Raises:
        TrainError: what training needs is not installed, the machines have different numbers of
            processes, or several processes were not started by torchrun.
        ModelError: no such device.
    """
    for needed in ("lightning_fabric", "tensorboardX"):
        if find_spec(needed) is None:
            raise TrainError(f"training needs {needed}: pip install 'maven[train]'")
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = choose_device(config.device)
    accelerator, _, index = device.partition(":")
    devices: list[int] | int = [int(index)] if index else 1
    nodes, strategy = 1, "auto"
    if (world := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        if "LOCAL_WORLD_SIZE" not in os.environ:
            raise TrainError(
                f"WORLD_SIZE is {world}, LOCAL_WORLD_SIZE is not set; accepted: several processes"
                " as torchrun starts them, or no WORLD_SIZE"
            )
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes, strategy = int(os.environ.get("GROUP_WORLD_SIZE", world // devices)), "ddp"
        if nodes * devices != world:
            raise TrainError(
                f"{world} processes on {nodes} machines, {devices} of them here; accepted: the"
                " same --nproc-per-node on every machine"
            )
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=config.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    if world > 1:  # a group that is left to the interpreter's end may abort the process there
        import atexit

        from torch import distributed

        atexit.register(
            lambda: distributed.is_initialized() and distributed.destroy_process_group()
        )
    return fabric


def agree(fabric: Fabric, **facts: str) -> None:
    """Hold that all processes begin with the same, whatever machine they are on.

    Args:
        fabric: the processes.
        facts: what has to be equal everywhere, by what it is called.

    Raises:
        TrainError: in all processes alike, where one differs from the first: nobody is waited for.
    """
    if fabric.world_size == 1:
        return
    own = torch.tensor([_number(fact) for fact in facts.values()], device=fabric.device)
    gathered = fabric.all_gather(own)
    assert isinstance(gathered, torch.Tensor)
    differ = (gathered != gathered[:1]).any(0).tolist()
    wrong = [name for name, differs in zip(facts, differ, strict=True) if differs]
    if wrong:
        raise TrainError(
            f"the processes differ in {', '.join(wrong)}: all machines need the same configuration"
            " and feature store and, to resume, the same run"
        )


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
