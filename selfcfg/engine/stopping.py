"""A polite end: signals that ask for one are noted, and obeyed between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from selfcfg.errors import Stopped
from selfcfg.progress import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
def stop_request() -> Iterator[StopRequest]:
    """Within the block SIGINT and SIGTERM are noted instead of ending the process; a second one ends it at once.

    Outside the main thread, where signals cannot be caught, nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _: FrameType | None) -> None:
        request.name = signal.Signals(number).name
        for known in SIGNALS:
            signal.signal(known, before[known])
        say(f"{request.name}: finishing this step and saving; once more to stop without")

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
