"""Slurm's own programs: what they are asked, and what they answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from selfcfg.errors import SelfcfgError, UsageError

ALIVE = {
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"),
    *("STAGE_OUT", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
}
"""Slurm's states of a job that has not ended."""

WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
"""Those of them in which it does not run."""


class Queued(NamedTuple):
    """What Slurm says of a job.

    Args:
        job: its id, of a task of an array with the index: "12_3".
        name: that it was submitted under.
        state: Slurm's word.
        reason: why it waits, or ended.
    """

    job: str
    name: str
    state: str
    reason: str

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, and will."""
        return self.state in ALIVE and self.reason != "DependencyNeverSatisfied"


def user() -> str:
    """The name by which Slurm knows the jobs of who runs this program; a number where the machine has no name."""
    import pwd  # noqa: PLC0415 - not on every system, but wherever Slurm runs

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def queue(users: Iterable[str]) -> dict[str, Queued]:
    """The jobs of some users, by id; those that ended a short while ago (a site's MinJobAge, 5 minutes) are among them.

    Raises:
        SelfcfgError: Slurm cannot be asked.
    """
    answer = _ask("squeue", ["-h", "-r", "-t", "all", "-u", ",".join(users), "-o", "%i|%j|%T|%r"])
    rows = [line.strip().split("|", 3) for line in answer.splitlines() if line.count("|") >= 3]
    return {row[0]: Queued(*row) for row in rows}


def submit(script: Path, dependencies: Sequence[str]) -> str:
    """Slurm's id of a script that it was given.

    Args:
        script: to run.
        dependencies: what it waits for, in Slurm's words.

    Raises:
        SelfcfgError: Slurm does not take it; says why in Slurm's words.
    """
    waits = [f"--dependency={','.join(dependencies)}"] if dependencies else []
    return _ask("sbatch", ["--parsable", *waits, str(script)]).strip().splitlines()[-1].partition(";")[0]


def cancel(jobs: Iterable[str]) -> None:
    """Ends jobs.

    Raises:
        SelfcfgError: Slurm does not do it.
    """
    if ids := list(jobs):
        _ask("scancel", ids)


def has_gpus() -> bool | None:
    """Whether nodes of the cluster have accelerators; None: there is no Slurm here that answers."""
    try:
        return "gpu" in _ask("sinfo", ["-h", "-o", "%G"])
    except SelfcfgError:
        return None


def refuse_without() -> None:
    """Nothing, where jobs can be submitted from this machine.

    Raises:
        UsageError: they cannot.
    """
    if missing := [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]:
        remedy = "log in to a machine of the cluster, or write the scripts with --cluster print"
        raise UsageError("--cluster slurm", f"there is no program '{missing[0]}' on this machine", remedy)


def _ask(program: str, arguments: Sequence[str]) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UsageError(f"run {program}", "there is no such program", "log in to a machine of the cluster") from error
    if done.returncode:
        told = done.stderr.strip() or f"exit code {done.returncode}"
        remedy = "--cluster-set changes what is asked for" if program == "sbatch" else "try again"
        raise SelfcfgError(f"run {program}", f"Slurm says: {told}", remedy)
    return done.stdout
