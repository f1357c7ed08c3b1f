"""Torch's elastic agent, as torchrun has it, but without another attempt after an error that would come again.

The agents of several machines meet, each starts its own processes, and when some fail, all machines start anew.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from selfcfg.errors import TOLD, ProcessLost, SelfcfgError, Stopped, UsageError

LASTING = (TOLD, UsageError.exit_code, Stopped.exit_code)
"""Exit codes of a process after which nothing is started again: the error would come again, or a stop was asked for."""

_LAST_SECONDS = 300
"""For which processes may finish a step and save when this one is asked to stop."""

_KILLED_AFTER = 29
"""Seconds after a failure, rounded, from which on a process that the agent has asked to end is killed by it."""


class Failure(NamedTuple):
    """How a process ended.

    Args:
        rank: of the process.
        code: its exit code, or minus the signal that ended it.
    """

    rank: int
    code: int


def run_processes(
    command: Sequence[str], devices: int, nodes: int = 1, rendezvous: str | None = None, max_restarts: int = 0
) -> Failure | None:
    """Runs a command in several processes to their end; what ended the last attempt here, or None where all is done.

    Args:
        command: a program and its arguments.
        devices: processes on this machine.
        nodes: machines on which the same is called.
        rendezvous: HOST:PORT where they meet; None: there is one.
        max_restarts: how often all are started again after a failure that may pass.

    Raises:
        RendezvousError: the machines did not meet.
        SelfcfgError: another machine gave up.
        SignalException: of torch: this process was asked to stop; those that it started have ended.
    """
    place = {"backend": "c10d", "endpoint": rendezvous or "localhost:0", "run_id": "selfcfg"}
    address = "localhost" if nodes == 1 else None
    meeting = get_rendezvous_handler(
        RendezvousParameters(**place, min_nodes=nodes, max_nodes=nodes, local_addr=address)
    )
    program, *arguments = command
    spec = WorkerSpec(
        role="train",
        local_world_size=devices,
        entrypoint=program,
        args=tuple(arguments),
        rdzv_handler=meeting,
        max_restarts=max_restarts,
        monitor_interval=0.1,
        local_addr=address,
    )
    with tempfile.TemporaryDirectory() as folder:
        agent = _Agent(spec, DefaultLogsSpecs(log_dir=folder), shutdown_timeout=_LAST_SECONDS)
        try:
            result = agent.run()
        except RendezvousError as error:
            if agent.get_worker_group().state == WorkerState.INIT:
                raise
            found = "another machine gave up, or cannot be reached any more"
            raise SelfcfgError(f"train on {nodes} machines", found, "see what was said there") from error
        finally:
            meeting.shutdown()
    if result is None:
        raise RendezvousError("others have met there, as many as they are to be")
    return cause(result.failures)


def cause(failures: Mapping[int, ProcessFailure]) -> Failure | None:
    """The first of processes, by their ranks, that failed by itself, or else that lost its connection to another one.

    Those after it lost their connection to it, or were asked to end, or killed where they did not.
    """
    found = sorted(failures.items(), key=lambda item: item[1].timestamp)
    for rank, one in found:
        is_later = one is not found[0][1]
        was_asked = is_later and one.exitcode in (Stopped.exit_code, -signal.SIGTERM)
        was_killed = one.exitcode == -signal.SIGKILL and one.timestamp - found[0][1].timestamp >= _KILLED_AFTER
        if one.exitcode != ProcessLost.exit_code and not was_asked and not was_killed:
            return Failure(rank, one.exitcode)
    return Failure(found[0][0], found[0][1].exitcode) if found else None


class _Agent(LocalElasticAgent):
    """Gives up where what ended the processes would end them again."""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        first = cause(result.failures)
        if first is not None and first.code in LASTING:
            self._remaining_restarts = 0
        return result
