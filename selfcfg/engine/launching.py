"""Several processes on this machine, and on others, that train together: started, watched and started again.

Built on torch's elastic agent, as torchrun is; each process gets the command line that this one was given.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from selfcfg.errors import AlreadyTold, ProcessLost, SelfcfgError, Stopped, UsageError, counted
from selfcfg.parallel import default_jobs

CHILD = (sys.executable, "-m", "selfcfg")

_HANGUP = [getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)]

_LAST_SECONDS = 300
"""For which processes that are asked to stop may finish a step and save."""


@dataclass(frozen=True)
class Launch:
    """What is started.

    Args:
        devices: processes on this machine, one a device.
        nodes: machines, on each of which the same command is given.
        rendezvous: HOST:PORT at which machines find each other; one of them is HOST. None: there is one machine.
        max_restarts: how often all processes are started again after one has failed.
    """

    devices: int = 1
    nodes: int = 1
    rendezvous: str | None = None
    max_restarts: int = 0

    @property
    def processes(self) -> int:
        """Their number on all machines."""
        return self.devices * self.nodes


def launch(wanted: Launch, arguments: Sequence[str], device: str) -> None:
    """Runs a command line in several processes, to their end.

    Args:
        wanted: how many.
        arguments: of the command line.
        device: "cpu" or "cuda".

    Raises:
        Stopped: SIGINT or SIGTERM; the processes have saved.
        SelfcfgError: a process failed, as often as it was started.
    """
    # before torch's own words on processes that end, which say nothing to a user
    os.environ.setdefault("LOGLEVEL", "CRITICAL")
    # else processes that are started again may read where those before them listened
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, default_jobs() // wanted.devices)))
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.elastic.rendezvous.api import RendezvousError  # noqa: PLC0415
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch  # noqa: PLC0415

    alone = wanted.nodes == 1
    with tempfile.TemporaryDirectory() as folder, _own_signals():
        config = LaunchConfig(
            min_nodes=wanted.nodes,
            max_nodes=wanted.nodes,
            nproc_per_node=wanted.devices,
            run_id="selfcfg",
            rdzv_backend="c10d",
            rdzv_endpoint=wanted.rendezvous or "localhost:0",
            local_addr="localhost" if alone else None,
            max_restarts=wanted.max_restarts,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            shutdown_timeout=_LAST_SECONDS,
        )
        program, *before = CHILD
        try:
            elastic_launch(config, program)(*before, *arguments)
        except SignalException as stop:
            raise Stopped("train", f"stopped by {stop.sigval.name}", "continue with --resume") from None
        except ChildFailedError as error:
            raise _explained(error.failures, wanted) from None
        except RendezvousError as error:
            remedy = f"give the same command on all {wanted.nodes} machines, and a HOST:PORT that all of them can reach"
            raise SelfcfgError(f"meet at {wanted.rendezvous}", str(error), remedy) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """After the block signals do what they did before: the agent changes that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *_HANGUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explained(failures: Mapping[int, Any], wanted: Launch) -> SelfcfgError:
    """What ended the processes: the first that was killed; else one that has told its error itself."""
    asked = f"train with {counted(wanted.processes, 'process', 'processes')}"
    again = "continue with --resume; --max-restarts N does so by itself"
    killed = {rank: one for rank, one in failures.items() if one.exitcode < 0 and -one.exitcode != signal.SIGTERM}
    for rank, one in sorted(killed.items()):
        name = signal.Signals(-one.exitcode).name
        likely = ", most likely for want of memory" if name == "SIGKILL" else ""
        return SelfcfgError(asked, f"process {rank} was ended by {name}{likely}", again)
    codes = {one.exitcode for one in failures.values()} - {ProcessLost.exit_code, -signal.SIGTERM}
    if not codes:
        where = "another machine" if wanted.nodes > 1 else "this machine"
        return SelfcfgError(asked, f"the connection to a process of {where} is lost; --debug shows what broke", again)
    told = AlreadyTold(asked, "failed")
    told.exit_code = Stopped.exit_code if Stopped.exit_code in codes else max(codes)
    return told


def check(wanted: Launch) -> None:
    """Nothing, where so many processes can be started here.

    Raises:
        UsageError: says what is missing.
    """
    if wanted.nodes > 1 and wanted.rendezvous is None:
        remedy = "give --rendezvous HOST:PORT, HOST being one of them, and the same command on each"
        raise UsageError(f"--nodes {wanted.nodes}", "the machines do not know where to find each other", remedy)
    if wanted.max_restarts and wanted.processes == 1:
        raise UsageError("--max-restarts", "there is one process, which nobody watches", "give --devices, too")
