"""Several processes on this machine, and on others, that train together: started, watched and started again.

Built on torch's elastic agent, as torchrun is; each process gets the command line that this one was given.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfcfg.errors import TOLD, AlreadyTold, ProcessLost, SelfcfgError, Stopped, UsageError, counted
from selfcfg.parallel import default_jobs

if TYPE_CHECKING:
    from selfcfg.engine.elastic import Failure

CHILD = (sys.executable, "-m", "selfcfg")

_HANGUP = [getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)]


@dataclass(frozen=True)
class Launch:
    """What is started.

    Args:
        devices: processes on this machine, one a device.
        nodes: machines, on each of which the same command is given.
        rendezvous: HOST:PORT at which machines find each other; one of them is HOST. None: there is one machine.
        max_restarts: how often all processes are started again after one has failed in a way that may pass.
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
        SelfcfgError: a process failed in the last attempt.
    """
    # torch's own words on processes that end say nothing to a user; some of its modules look here, others there
    os.environ.setdefault("LOGLEVEL", "CRITICAL")
    logging.getLogger("torch.distributed.elastic").setLevel(os.environ["LOGLEVEL"])
    # else processes that are started again may read where those before them listened
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, default_jobs() // wanted.devices)))
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.rendezvous.api import RendezvousError  # noqa: PLC0415

    from selfcfg.engine.elastic import run_processes  # noqa: PLC0415

    command = (*CHILD, *arguments)
    with _own_signals():
        try:
            first = run_processes(command, wanted.devices, wanted.nodes, wanted.rendezvous, wanted.max_restarts)
        except SignalException as stop:
            raise Stopped("train", f"stopped by {stop.sigval.name}", "continue with --resume") from None
        except RendezvousError as error:
            remedy = f"give the same command on all {wanted.nodes} machines, and a HOST:PORT that all of them can reach"
            raise SelfcfgError(f"meet at {wanted.rendezvous}", str(error), remedy) from error
    if first is not None:
        raise _explained(wanted, first)


@contextmanager
def _own_signals() -> Iterator[None]:
    """After the block signals do what they did before: the agent changes that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *_HANGUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explained(wanted: Launch, first: Failure) -> SelfcfgError:
    """What ended all processes, from the one that failed first."""
    asked = f"train with {counted(wanted.processes, 'process', 'processes')}"
    again = "continue with --resume; --max-restarts N does so by itself"
    if first.code == ProcessLost.exit_code:
        where = "another machine" if wanted.nodes > 1 else "this machine"
        return SelfcfgError(asked, f"the connection to a process of {where} is lost; --debug shows what broke", again)
    if first.code < 0:
        name = signal.Signals(-first.code).name
        likely = ", most likely for want of memory" if name == "SIGKILL" else ""
        return SelfcfgError(asked, f"process {first.rank} was ended by {name}{likely}", again)
    told = AlreadyTold(asked, "failed")
    told.exit_code = SelfcfgError.exit_code if first.code == TOLD else first.code
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
