"""What a training runs on: precision and device through Lightning Fabric, alone or with other processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

from selfcfg.engine.device import Precision
from selfcfg.errors import ProcessLost
from selfcfg.kernels.ranks import Ranks

PATIENCE = timedelta(days=7)
"""How long processes wait for each other: as long as the first one preprocesses, or another one still predicts.

One that ends is noticed at once all the same: its connections break, and whoever started it ends the others.
"""

_BROKEN = ("connection closed", "connection reset", "broken pipe", "gloo", "nccl", "timed out", "socket")


def single(device: torch.device, precision: Precision) -> Fabric:
    """Fabric for this process alone, whatever a cluster's environment variables say.

    It gives the context that networks run in; they are never wrapped, so that gradients of gradients and calls of their
    parts stay right. What several processes share is exchanged by `selfcfg.kernels.ranks`.
    """
    _quieten()
    devices = 1 if device.type == "cpu" or device.index is None else [device.index]
    torch.backends.cudnn.benchmark = device.type == "cuda"
    mixed: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if precision == "bfloat16" else "32-true"
    return Fabric(accelerator=device.type, devices=devices, precision=mixed, plugins=[LightningEnvironment()])


@contextmanager
def connected(accelerator: str) -> Iterator[Ranks]:
    """Within the block this process exchanges with the others that the same launcher (torchrun, --devices) started.

    Args:
        accelerator: "cpu" or "cuda", with one device a process.

    Raises:
        ProcessLost: another process ended, or cannot be reached.
    """
    _quieten()
    strategy = DDPStrategy(process_group_backend=_backend(accelerator), timeout=PATIENCE)
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    fabric = Fabric(
        accelerator=accelerator,
        devices=here,
        num_nodes=everywhere // here,
        strategy=strategy,
        plugins=[TorchElasticEnvironment()],
    )
    try:
        fabric.launch()
        yield Ranks(fabric.global_rank, fabric.world_size)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in _BROKEN):
            found = f"process {os.environ['RANK']} of {everywhere} lost the connection to another one ({error})"
            raise ProcessLost("train together", found, "see what that one said; continue with --resume") from error
        raise
    dist.destroy_process_group()


def _backend(accelerator: str) -> str:
    """What carries tensors: of the processor's memory always gloo."""
    return "cpu:gloo,cuda:nccl" if accelerator == "cuda" else "gloo"


def _quieten() -> None:
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
