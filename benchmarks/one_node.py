"""A Slurm of one node with two processors, in a folder and on ports of its own, for as long as the tests run."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")

CONFIGURATION = """
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmdPort={node_port}
StateSaveLocation={folder}/saved
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
KillWait=5
SlurmdParameters=config_overrides
JobRequeue=1
PropagateResourceLimits=NONE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"""
"""`RealMemory` is more than there may be: the tests' jobs take little, and Slurm only counts."""


def why_not() -> str | None:
    """Why no Slurm can be started here; None: it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root of a Linux machine starts a Slurm of its own"
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    if missing := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
        return f"no {missing[0]}: apt-get install --no-install-recommends slurm-wlm munge"
    return None


@contextmanager
def one_node(folder: Path) -> Iterator[dict[str, str]]:
    """Starts Slurm with all its files in a folder; yields the variables with which its programs find it."""
    for name in ("saved", "spool"):
        (folder / name).mkdir(parents=True)
    for place in (folder, *folder.parents[:1]):
        place.chmod(0o755)  # munge refuses a socket in a folder that others may not enter
    variables = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}{os.pathsep}/usr/sbin"}
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            name=folder.name, host=socket.gethostname().split(".")[0], folder=folder, port=_port(), node_port=_port()
        )
    )
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o600)
    munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    environment, started = {**os.environ, **variables}, list[subprocess.Popen[bytes]]()

    def start(*command: str) -> None:
        with (folder / f"{command[0]}.out").open("wb") as out:
            started.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))

    try:
        options = [f"--{option}={folder / f'munge.{ending}'}" for option, ending in munge.items()]
        start("munged", "--foreground", "--force", *options)
        _until((folder / "munge.socket").exists, folder)
        start("slurmctld", "-D", "-c")
        start("slurmd", "-D", "-c")
        _until(lambda: _is_idle(environment), folder)
        yield variables
    finally:
        subprocess.run(["scancel", "-u", "root"], env=environment, check=False, capture_output=True)
        with suppress(RuntimeError):  # what a job left behind ends with it, as long as its node is there
            _until(lambda: _is_idle(environment), folder, seconds=10)
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _is_idle(environment: dict[str, str]) -> bool:
    done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, check=False, capture_output=True, text=True)
    return done.stdout.strip() == "idle"


def _until(condition: Callable[[], bool], folder: Path, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = "\n".join(file.read_text(errors="replace")[-2000:] for file in folder.glob("*.log"))
            raise RuntimeError(f"Slurm did not start:\n{logs}")
        time.sleep(0.1)
