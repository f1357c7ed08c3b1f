"""Independent pieces of one array's work on several threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch


def on_threads(work: Callable[[int], None], pieces: Sequence[int]) -> None:
    """Calls `work` with each piece, on as many threads as torch may use, each computing on its own.

    A product that torch itself spreads over threads makes them wait for each other at its end, thousands of times for
    one image: on a machine whose cores are shared that was ten times slower than one thread.

    Args:
        work: writes its piece of the result; called from several threads at once.
        pieces: what it is called with.
    """
    threads = torch.get_num_threads()
    if min(threads, len(pieces)) <= 1:
        for piece in pieces:
            work(piece)
        return
    try:
        with ThreadPoolExecutor(min(threads, len(pieces)), initializer=partial(torch.set_num_threads, 1)) as pool:
            for done in [pool.submit(work, piece) for piece in pieces]:
                done.result()
    finally:
        torch.set_num_threads(threads)
