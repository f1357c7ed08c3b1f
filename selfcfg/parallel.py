"""The same function on many cases in several processes, where one bad case never stops the others.

Workers end with the process that started them. A process that dies is replaced. A case whose process was killed while
others ran, most likely for want of memory, is tried once more on its own; a case that fails again is reported with the
signal that ended it and the likely cause.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

import psutil

from selfcfg.errors import SelfcfgError, WorkerDied

Item = TypeVar("Item")
Result = TypeVar("Result")

MEMORY_SHARE = 0.8
"""Share of the memory that was free at the start which all workers together may be expected to use."""

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def default_jobs() -> int:
    """The number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_cases(
    function: Callable[[Item], Result],
    items: Mapping[str, Item],
    *,
    jobs: int,
    doing: str,
    memory: Callable[[Item], int] | None = None,
    then: Callable[[str, Result | SelfcfgError], Mapping[str, Item]] | None = None,
) -> Iterator[tuple[str, Result | SelfcfgError]]:
    """Yields each item's name with its result, or with the error it ended in, in the order they finish.

    Args:
        function: a module-level function of one item.
        items: name of the case (for messages) to the item.
        jobs: worker processes at most; with 1 everything runs in this process.
        doing: what is being done, for messages, such as "preprocess".
        memory: an estimate of the bytes an item needs; workers are held back so that the sum fits the free memory.
        then: called in this process with each name and outcome, before it is yielded; gives further items, which could
            not begin before.

    Raises:
        Exception: what `function` raised, when it is a mistake of the program rather than a `SelfcfgError`.
    """
    jobs = jobs if then else min(jobs, len(items))
    if jobs > 1:
        yield from _Pool(function, items, jobs, doing, memory, then=then).results()
        return
    waiting = deque(items.items())
    while waiting:
        name, item = waiting.popleft()
        outcome: Result | SelfcfgError
        try:
            outcome = function(item)
        except SelfcfgError as error:
            outcome = error
        if then:
            waiting.extend(then(name, outcome).items())
        yield name, outcome


class _Pool(Generic[Item, Result]):
    """Workers with one pipe each, so that a death is known to belong to one case."""

    def __init__(
        self,
        function: Callable[[Item], Result],
        items: Mapping[str, Item],
        jobs: int,
        doing: str,
        memory: Callable[[Item], int] | None,
        *,
        then: Callable[[str, Result | SelfcfgError], Mapping[str, Item]] | None,
    ) -> None:
        self.function, self.jobs, self.doing, self.memory, self.then = function, jobs, doing, memory, then
        self.items: dict[str, Item] = {}
        self.cost: dict[str, float] = {}
        self.waiting: deque[str] = deque()
        self._add(items)
        self.idle: list[tuple[BaseProcess, Connection]] = []
        self.busy: dict[Connection, tuple[BaseProcess, str]] = {}
        self.budget = psutil.virtual_memory().available * MEMORY_SHARE

    def results(self) -> Iterator[tuple[str, Result | SelfcfgError]]:
        try:
            while self.waiting or self.busy:
                self._hand_out()
                ready = wait(list(self.busy))
                for connection in [connection for connection in self.busy if connection in ready]:
                    process, name = self.busy.pop(connection)
                    answer = self._receive(process, connection, name)
                    if isinstance(answer, WorkerDied) and self._may_be_retried(process, name):
                        self.cost[name] = math.inf
                        self.waiting.append(name)
                    else:
                        if self.then:
                            self._add(self.then(name, answer))
                        yield name, answer
        finally:
            busy = [(process, connection) for connection, (process, _) in self.busy.items()]
            for process, connection in [*self.idle, *busy]:
                process.terminate()
                connection.close()  # one that finishes its item first sees that nobody waits for it
            for process, _ in [*self.idle, *busy]:
                process.join()

    def _add(self, items: Mapping[str, Item]) -> None:
        self.items.update(items)
        self.cost.update((name, self.memory(item) if self.memory else 0) for name, item in items.items())
        self.waiting.extend(items)

    def _hand_out(self) -> None:
        while self.waiting and len(self.busy) < self.jobs and self._fits(self.waiting[0]):
            process, connection = self._worker()
            name = self.waiting.popleft()
            self.busy[connection] = (process, name)
            with suppress(BrokenPipeError):  # receiving from it will tell that it died
                connection.send(self.items[name])

    def _worker(self) -> tuple[BaseProcess, Connection]:
        while self.idle:
            process, connection = self.idle.pop()
            if process.is_alive():
                return process, connection
            connection.close()
        return self._start()

    def _fits(self, name: str) -> bool:
        used = sum(self.cost[running] for _, running in self.busy.values())
        return not self.busy or used + self.cost[name] <= self.budget

    def _may_be_retried(self, process: BaseProcess, name: str) -> bool:
        return process.exitcode == -signal.SIGKILL and bool(self.busy) and self.cost[name] < math.inf

    def _start(self) -> tuple[BaseProcess, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self.function, theirs), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def _receive(self, process: BaseProcess, connection: Connection, name: str) -> Result | SelfcfgError:
        try:
            good, answer = connection.recv()
        except (EOFError, OSError):
            process.join()
            connection.close()
            return WorkerDied(f"{self.doing} case '{name}'", how_it_ended(process.exitcode), _remedy(process.exitcode))
        self.idle.append((process, connection))
        if good or isinstance(answer, SelfcfgError):
            return answer  # type: ignore[no-any-return]
        raise RuntimeError(f"{self.doing} case '{name}' failed in a worker:\n{answer}")


def how_it_ended(exitcode: int | None) -> str:
    """How a worker process ended, in words; None: it is not known."""
    if exitcode is None:
        return "a worker process ended"
    if exitcode < 0:
        name = signal.Signals(-exitcode).name
        free = psutil.virtual_memory().available / 2**30
        return f"a worker process was ended by {name} ({free:.1f} GB of memory free now)"
    return f"a worker process ended with exit code {exitcode}"


def _work(function: Callable[[Item], Result], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _one_thread()
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[bool, object] = (True, function(item))
        except SelfcfgError as error:
            answer = (False, error)
        except BaseException:  # noqa: BLE001 - whatever it was, the parent must hear of it
            answer = (False, traceback.format_exc())
        try:
            connection.send(answer)
        except BrokenPipeError:
            return
        except Exception:  # noqa: BLE001 - an answer that cannot be pickled
            connection.send((False, traceback.format_exc()))


def _end_with_parent() -> None:
    """Asks this process to stop once the one that started it is gone: else it would go on writing, unknown to anybody.

    A training saves where it is first, as it does whenever it is asked to stop.
    """
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _one_thread() -> None:
    """Each worker has one core's worth of work; more threads only get in each other's way."""
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _remedy(exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        return "most likely the machine ran out of memory: use fewer --jobs or a machine with more memory"
    return "run it again with --jobs 1 --debug to see the error itself"
