"""Independent pieces of one array's work on several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

from selfcfg.parallel import default_jobs

_ALONE = Lock()


def on_threads(work: Callable[[int], None], pieces: Sequence[int]) -> None:
    """Calls `work` with each piece on `n_threads` threads, each of them computing on its own.

    A product that a library itself spreads over threads makes them wait for each other at its end, thousands of times
    for one image: on a machine whose cores are shared that was ten times slower than one thread.

    Args:
        work: writes its piece of the result; called from several threads at once.
        pieces: what it is called with.
    """
    threads = min(n_threads(), len(pieces))
    with _ALONE, _numpys_blas().limit(limits=1):
        if threads <= 1:
            for piece in pieces:
                work(piece)
            return
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(work, piece) for piece in pieces]:
                done.result()


def n_threads() -> int:
    """The threads one process may compute on: as many as OMP_NUM_THREADS says, else as there are cores for it."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(told) if told.isdigit() and int(told) else default_jobs()


@cache
def _numpys_blas() -> ThreadpoolController:
    """What multiplies matrices for numpy; torch has its own, and may be at work on a network meanwhile."""
    return ThreadpoolController().select(internal_api="openblas")
