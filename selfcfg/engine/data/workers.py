"""Processes that make batches ahead of the training loop, in order, and a clear word when one of them dies.

Built on torch's DataLoader. Workers come from a clean server process, so nothing of the training process (threads,
accelerator state, locks) is copied into them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from threading import Thread, Timer
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from selfcfg.errors import SelfcfgError, WorkerDied
from selfcfg.parallel import how_it_ended

Key = TypeVar("Key")
Made = TypeVar("Made")

Tell = Callable[[str], None]
"""What a maker is given to say which case it is about to read."""

AHEAD = 2
"""Batches each worker may have ready before they are asked for."""

PATIENCE = 600
"""Seconds that a batch may be waited for: a disk that hangs would else hold a training up for ever, and nobody told."""

_NAME_BYTES = 256
_DEATH = "DataLoader worker"
_LAST_SECONDS = 30


def make_here(make: Callable[[Key, Tell], Made], keys: Iterable[Key]) -> Iterator[Made]:
    """Yields what `make` gives for each key, made in this process with one thread, as a worker would make it."""
    for key in keys:
        with _one_thread():
            made = make(key, _nobody)
        yield made


class WorkerPool(Generic[Key, Made]):
    """Worker processes that call one function on key after key; they start with the first iteration and then stay.

    Args:
        make: a picklable callable; a `SelfcfgError` it raises is raised in this process too.
        n_workers: processes, at least one.
        preload: import name of the module that holds `make`, imported once for all workers.
        pin: whether tensors are put into page-locked memory on arrival.
    """

    def __init__(self, make: Callable[[Key, Tell], Made], n_workers: int, preload: str, *, pin: bool) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([preload])
        self._board = _Board(
            context.RawArray(ctypes.c_long, n_workers), context.RawArray(ctypes.c_char, n_workers * _NAME_BYTES)
        )
        self._order: _Order[Key] = _Order()
        self._processes: list[BaseProcess] = []
        self._iterator: Any = None
        self._was_silent = False
        self._loader: DataLoader[Made | SelfcfgError] | None = DataLoader(
            _Maker(make, self._board),
            batch_size=None,
            sampler=self._order,
            num_workers=n_workers,
            prefetch_factor=AHEAD,
            persistent_workers=True,
            pin_memory=pin,
            collate_fn=_unchanged,
            worker_init_fn=self._board.sign_in,
            multiprocessing_context=context,
            generator=torch.Generator(),  # else starting it would draw from the global generator
        )

    def iterate(self, keys: Iterable[Key]) -> Iterator[Made]:
        """Yields what was made for each key, in the order of the keys; ends what an earlier iteration left.

        Raises:
            SelfcfgError: what the maker raised.
            WorkerDied: a worker ended without an answer, or gave none for too long; names the case it was on and the
                likely cause.
        """
        self._start(keys)
        while self._iterator is not None:
            try:
                made = self._next()
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                raise self._explained(error) from error
            if isinstance(made, SelfcfgError):
                raise made
            yield made

    def _next(self) -> Made | SelfcfgError:
        """The next answer. Workers that give none for too long are ended, which is noticed at once."""
        watch = Timer(PATIENCE, self._give_up)
        watch.daemon = True
        watch.start()
        try:
            found: Made | SelfcfgError = next(self._iterator)
        finally:
            watch.cancel()
        return found

    def _give_up(self) -> None:
        self._was_silent = True
        for process in self._processes:
            process.kill()

    def close(self) -> None:
        """Ends the workers; what they had ready is dropped. A closed pool yields nothing."""
        if self._iterator is not None and hasattr(self._iterator, "_shutdown_workers"):
            # The public way is to drop the last reference, which a traceback that is still looked at can hold.
            self._iterator._shutdown_workers()
        for process in self._processes:
            if process.is_alive():
                process.kill()
        self._iterator = self._loader = None

    def _start(self, keys: Iterable[Key]) -> None:
        if self._loader is None:
            return
        self._order.keys = keys
        before = set(multiprocessing.active_children())
        try:
            self._iterator = iter(self._loader)
        except RuntimeError as error:
            raise self._explained(error) from error
        self._processes = self._processes or [p for p in multiprocessing.active_children() if p not in before]

    def _explained(self, error: Exception) -> Exception:
        """The death of a worker in words, or that it hangs; any other error as it is.

        One that died while it handed something over is a broken connection here.
        """
        if self._was_silent:
            silent, remedy = f"no answer for {PATIENCE} s", "see whether the disk hangs; the same command continues"
            return WorkerDied(self._asked(self._processes), silent, remedy)
        is_silence = str(error).startswith(_DEATH)
        if not is_silence and isinstance(error, RuntimeError):
            return error
        # its end may be known a moment after its silence
        multiprocessing.connection.wait([process.sentinel for process in self._processes], timeout=2)
        dead = [process for process in self._processes if process.exitcode is not None]
        if not dead and not is_silence:
            return error
        exitcode = dead[0].exitcode if dead else None
        return WorkerDied(self._asked(dead), how_it_ended(exitcode), _remedy(exitcode))

    def _asked(self, processes: Sequence[BaseProcess]) -> str:
        """What workers were at."""
        cases = [name for process in processes if (name := self._board.working_on(process.pid))]
        return "load patches" + (" of " + " and ".join(f"case '{name}'" for name in cases) if cases else "")


@dataclass(frozen=True)
class _Board:
    """Shared memory in which every worker keeps its process id and the case it is reading."""

    pids: Any
    names: Any

    def sign_in(self, worker: int) -> None:
        """Runs once in each worker.

        A request to stop often goes to the whole group of processes. It is the training process's to obey, and it
        needs batches until it has: workers ignore an interrupt, and end themselves some time after a SIGTERM.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "alarm"):
            signal.signal(signal.SIGTERM, _end_soon)
        self.pids[worker] = os.getpid()
        Thread(target=_end_with_parent, daemon=True).start()

    def tell(self, name: str) -> None:
        info = get_worker_info()
        if info is not None:
            self.names[self._slot(info.id)] = name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")

    def working_on(self, pid: int | None) -> str:
        """The case a worker was on; empty when it was on none."""
        for worker, known in enumerate(self.pids):
            if known == pid:
                return bytes(self.names[self._slot(worker)]).rstrip(b"\0").decode(errors="replace")
        return ""

    def _slot(self, worker: int) -> slice:
        return slice(worker * _NAME_BYTES, (worker + 1) * _NAME_BYTES)


class _Maker(Dataset["Made | SelfcfgError"], Generic[Key, Made]):
    """The dataset a DataLoader sees: its index is a key; errors for the user travel as values, with their type."""

    def __init__(self, make: Callable[[Key, Tell], Made], board: _Board) -> None:
        self.make, self.board = make, board

    def __getitem__(self, key: Key) -> Made | SelfcfgError:
        try:
            return self.make(key, self.board.tell)
        except SelfcfgError as error:
            return error
        finally:
            self.board.tell("")


class _Order(Generic[Key]):
    """The keys of the next iteration, as a sampler whose content is replaced between iterations."""

    keys: Iterable[Key] = ()

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)


def _end_with_parent() -> None:
    """Ends this worker when the training process is gone, even killed: the server it came from stays while it does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads in their last bit; workers have one, so does this process meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _end_soon(*_: object) -> None:
    signal.alarm(_LAST_SECONDS)


def _nobody(_: str) -> None:
    """Tells nobody: a process that dies here is the training process itself."""


def _unchanged(made: Made) -> Made:
    return made


def _remedy(exitcode: int | None) -> str:
    again = "continue with --resume; "
    if exitcode == -signal.SIGKILL:
        return again + "most likely the machine ran out of memory: use fewer workers (--set workers=0) or more memory"
    if exitcode == -getattr(signal, "SIGBUS", 0):
        return again + "most likely /dev/shm is full: enlarge it (docker run --shm-size=8g) or use --set workers=0"
    if exitcode == 1:
        again += "a script of your own must start training under: if __name__ == '__main__'; "
    return again + "--set workers=0 --debug shows the error itself"
