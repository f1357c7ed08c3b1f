"""Time and peak memory of a process and all its children, for whole commands and for calls in a warm process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil

HERE = Path(__file__).resolve().parent
_SAMPLE_SECONDS = 0.05
_REST = 10
"""Times as long as a sample took that no further one is taken: it holds up the process that it looks at."""
_OWN = ("Pss_Anon:", "Pss_Shmem:")
"""What the system counts of memory that belongs to no file, pages that processes share in equal parts."""


class Usage(NamedTuple):
    """What one turn took.

    Args:
        seconds: wall-clock time, by the row's unit of work.
        megabytes: highest sum over the process and its children of memory that belongs to no file (MiB).
    """

    seconds: float
    megabytes: float


class Place(NamedTuple):
    """Where and with what is measured.

    Args:
        work: folder for data and results.
        peer: interpreter of the environment that holds nnunetv2.
        cores: processor cores of either side.
        quick: small data, to see whether everything runs.
    """

    work: Path
    peer: Path
    cores: int
    quick: bool

    def environment(self, cores: int | None = None) -> dict[str, str]:
        """The environment of either side: its folders, and as many threads as cores."""
        names = {name: str(self.work / "peer" / name) for name in ("nnUNet_preprocessed", "nnUNet_results")}
        threads = {name: str(cores or self.cores) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        processes = {"nnUNet_def_n_proc": str(self.cores), "nnUNet_n_proc_DA": str(self.cores)}
        fixed = {"nnUNet_raw": str(self.work / "raw"), "nnUNet_compile": "f", "CUDA_VISIBLE_DEVICES": ""}
        return {**os.environ, **names, **threads, **processes, **fixed}

    def ours(self, *words: object) -> list[str]:
        """A command line of selfcfg."""
        return [str(Path(sys.executable).with_name("selfcfg")), *map(str, words)]

    def theirs(self, program: str, *words: object) -> list[str]:
        """A command line of nnU-Net."""
        return [str(self.peer.parent / program), *map(str, words)]


class Memory:
    """Watches the memory of a process and its children while in use as a context manager; `peak` is in MiB."""

    def __init__(self, pid: int) -> None:
        self._root, self._end, self.peak = psutil.Process(pid), Event(), 0.0
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        rest = 0.0
        while not self._end.wait(rest):
            began = time.perf_counter()
            tree = [self._root]
            with suppress(psutil.Error):
                tree += self._root.children(recursive=True)
            self.peak = max(self.peak, sum(map(_own_bytes, tree)) / 2**20)
            rest = max(_SAMPLE_SECONDS, _REST * (time.perf_counter() - began))


def _own_bytes(process: psutil.Process) -> int:
    """Memory that is not backed by a file: neither libraries nor mapped data, which the system may drop any time."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(_OWN))
    except OSError:  # it has ended, or another system tells nothing of the kind
        return 0


def run(commands: Sequence[Sequence[str]], environment: Mapping[str, str], folder: Path | None = None) -> Usage:
    """What a list of commands takes, one after the other, from the start of the first process to the end of the last.

    Raises:
        RuntimeError: one of them fails; holds the end of what it wrote.
    """
    peak, began = 0.0, time.perf_counter()
    for command in commands:
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
            with Memory(process.pid) as memory:
                code = process.wait()
            peak = max(peak, memory.peak)
            if code:
                output.seek(0)
                raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{output.read()[-3000:]}")
    return Usage(time.perf_counter() - began, peak)


def seconds_until(command: Sequence[str], environment: Mapping[str, str], sign: str) -> Usage:
    """What a command takes until it writes a line that begins with `sign`; it is ended then, and its children too."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        with Memory(process.pid) as memory:
            found = any(line.startswith(sign) for line in process.stdout or ())
            seconds = time.perf_counter() - began
        _end(process)
        if not found:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)} never wrote '{sign}':\n{errors.read()[-3000:]}")
    return Usage(seconds, memory.peak)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a process we started, with its children."""
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    process.kill()
    process.wait()


class Worker:
    """One side's warm process; use as a context manager, or close it.

    Args:
        place: where.
        side: "own_jobs" or "peer_jobs".
        cores: threads it may use; None: as many as the place has.
    """

    def __init__(self, place: Place, side: str, cores: int | None = None) -> None:
        python = str(place.peer) if side == "peer_jobs" else sys.executable
        command = [python, "-W", "ignore", str(HERE / "worker.py"), side]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command,
            env=place.environment(cores),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self, job: str, **arguments: Any) -> Self:
        """Loads a job's inputs, untimed; gives the worker itself."""
        self._ask({"prepare": job, "arguments": arguments})
        return self

    def call(self, per: int = 1) -> Usage:
        """Runs the prepared job once; its seconds are divided by `per`."""
        with Memory(self._process.pid) as memory:
            answer = self._ask({"call": True})
        return Usage(answer["seconds"] / per, memory.peak)

    def keep(self, path: Path) -> Path:
        """Writes the last result as .npy, to be compared."""
        self._ask({"keep": str(path)})
        return path

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._errors.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a worker without pipes")
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"the worker ended on {request}:\n{self._errors.read()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer
