"""A polite end: signals that ask for one are noted, and obeyed between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from selfcfg.errors import Stopped
from selfcfg.progress import say

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))
"""Those that ask for an end; by SIGUSR1 a cluster's queue says that the time is nearly over."""


class StopRequest:
    """Whether somebody asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.name: str | None = None

    def obey(self) -> None:
        """Raises where a stop was asked for.

        Raises:
            Stopped: it was.
        """
        if self.name is not None:
            raise Stopped("train", f"stopped by {self.name}")


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM interrupts as Ctrl-C does, so that started processes are asked to end, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within the block `SIGNALS` are noted instead of ending the process; a second one ends it at once.

    Outside the main thread, where signals cannot be caught, nothing is noted; nor is a signal that the process ignores,
    such as Ctrl-C in one of several that another one started: that one asks by SIGTERM.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}

    def note(number: int, _: FrameType | None) -> None:
        request.name = signal.Signals(number).name
        for known, handler in before.items():
            signal.signal(known, handler)
        say(f"{request.name}: finishing this step and saving; once more to stop without")

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
