"""One training in several processes: the options that start them, and what a command does as one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated

import typer

from selfcfg.engine.launching import Launch, check, launch
from selfcfg.errors import TOLD, SelfcfgError, UsageError, counted

if TYPE_CHECKING:
    from selfcfg.engine.choice import TrainRequest
    from selfcfg.kernels.ranks import Ranks
    from selfcfg.project import Project

DevicesOption = Annotated[
    int | None,
    typer.Option(
        min=1, show_default=False, help="accelerators of this machine, or processes on --device cpu, that share a batch"
    ),
]
NodesOption = Annotated[int, typer.Option(min=1, help="machines, on each of which the same command is given")]
RendezvousOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="where machines find each other: a free port of one of them")
]
RestartsOption = Annotated[
    int, typer.Option(min=0, help="how often to go on from the last checkpoint after a process has failed")
]

ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())
"""The command line that is run."""


def started_by_torchrun() -> bool:
    """Whether torchrun, or ``--devices``, started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the one that speaks."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


def code_of_process(error: SelfcfgError) -> int:
    """The exit code after an error; one of several processes says by it where another attempt would fail, too."""
    lasts = error.exit_code == SelfcfgError.exit_code and not error.may_pass
    return TOLD if lasts and started_by_torchrun() else error.exit_code


def device_of_process(device: str | None) -> str:
    """The device of this process, one of several that each have one.

    Raises:
        UsageError: there are fewer devices, or one is named by its number.
    """
    kind = kind_of_devices(device)
    refuse_missing(kind, int(os.environ["LOCAL_WORLD_SIZE"]))
    return kind if kind == "cpu" else f"cuda:{os.environ['LOCAL_RANK']}"


def kind_of_devices(device: str | None) -> str:
    """What several processes run on: "cpu" or "cuda".

    Raises:
        UsageError: only one process can use what is named.
    """
    from selfcfg.engine.device import choose_device  # noqa: PLC0415

    chosen = choose_device(device)
    if chosen.index is not None or chosen.type not in ("cpu", "cuda"):
        found = "each process needs a device of its own"
        raise UsageError(f"--device {chosen}", found, "give --device cuda or --device cpu, and choose by --devices")
    return chosen.type


def shared_by(devices: int | None, nodes: int, rendezvous: str | None, max_restarts: int, **alone: object) -> Launch:
    """The processes that options ask for; in a process that was started as one of several, these.

    Args:
        devices: processes on this machine; None: not said.
        nodes: machines.
        rendezvous: where they find each other.
        max_restarts: after failures.
        alone: options that only one process can follow, by their names, each with what was given.

    Raises:
        UsageError: the options contradict each other, or what was started.
    """
    found = _shared_by(devices, nodes, rendezvous, max_restarts)
    _refuse_alone(found, {f"--{name.replace('_', '-')}": value for name, value in alone.items()})
    return found


def _shared_by(devices: int | None, nodes: int, rendezvous: str | None, max_restarts: int) -> Launch:
    if not started_by_torchrun():
        wanted = Launch(devices or 1, nodes, rendezvous, max_restarts)
        check(wanted)
        return wanted
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if devices not in (None, here):
        found = f"{counted(here, 'process was', 'processes were')} started on this machine"
        raise UsageError(f"--devices {devices}", found, "leave it out under torchrun")
    return Launch(here, everywhere // here)


def _refuse_alone(sharing: Launch, options: Mapping[str, object]) -> None:
    """Nothing, where what options ask for can be done by several processes.

    Raises:
        UsageError: one of the options was given that only one process can do.
    """
    given = [name for name, value in options.items() if value is not None]
    if sharing.processes > 1 and given:
        remedies = {"--recipe": "train its stages one by one with --init", "--time-budget": "give --set epochs=..."}
        found = f"{sharing.processes} processes cannot do it together"
        raise UsageError(given[0], found, remedies.get(given[0], "leave it out"))


def start_others(sharing: Launch, project: Project, request: TrainRequest) -> bool:
    """Runs this command line in several processes where they are asked for and not there yet; whether it did.

    Raises:
        UsageError: they cannot train what is asked for; said before they are started.
        SelfcfgError: a process failed.
    """
    if started_by_torchrun() or sharing.processes == 1:
        return False
    from selfcfg.engine.experiment import choose_feasible  # noqa: PLC0415

    kind = kind_of_devices(request.device)
    refuse_missing(kind, sharing.devices)
    choose_feasible(project, request)
    launch(sharing, ARGUMENTS.get(), kind)
    return True


def refuse_missing(kind: str, devices: int) -> None:
    """Nothing, where this machine has so many devices.

    Raises:
        UsageError: it has fewer accelerators.
    """
    import torch  # noqa: PLC0415

    there = torch.cuda.device_count()
    if kind == "cuda" and devices > there:
        found = f"this machine has {counted(there, 'accelerator')}"
        raise UsageError(f"train on {devices} devices", found, f"give --devices {there}")


@contextmanager
def together(device: str | None) -> Iterator[tuple[Ranks, str | None]]:
    """This process among those that train together, and its device; alone it is what was asked for.

    Raises:
        ProcessLost: another process ended.
    """
    from selfcfg.kernels.ranks import ALONE  # noqa: PLC0415

    if not started_by_torchrun():
        yield ALONE, device
        return
    from selfcfg.engine.training.processes import connected  # noqa: PLC0415
    from selfcfg.progress import quietly  # noqa: PLC0415

    own = device_of_process(device)
    with quietly(not is_first()), connected(own.partition(":")[0]) as ranks:
        yield ranks, own


def restarted() -> bool:
    """Whether this process was started again after one had failed."""
    return started_by_torchrun() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def refuse_other_command(arguments: list[str]) -> None:
    """Nothing, where a command line is one that several processes can run together.

    Raises:
        UsageError: each of them would do the same.
    """
    if started_by_torchrun() and arguments[:1] != ["train"]:
        asked = f"selfcfg {' '.join(arguments[:1])} in {os.environ['WORLD_SIZE']} processes"
        raise UsageError(asked, "only 'train' can be shared", "start it without torchrun")
