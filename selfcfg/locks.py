"""Locks between processes, as files: who holds one has it to itself, and one that dies lets go of it.

Where a file system has no locks, as some network disks, the file itself is the lock and holds who made it. That this
process is gone can then be seen on its own machine alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selfcfg.files import refused
from selfcfg.progress import say

SILENT = 60.0
"""Seconds to wait before it is said what for."""


class Held(Exception):
    """Another process holds a lock.

    Args:
        holder: which, as far as that is known.
        remedy: what to do where it may be gone; else empty.
    """

    def __init__(self, holder: str, remedy: str) -> None:
        super().__init__(f"{holder} holds it")
        self.holder, self.remedy = holder, remedy


@contextmanager
def locked(path: Path, patience: float | None = None) -> Iterator[None]:
    """Holds a lock for the block.

    Args:
        path: its file, which is made where there is none, and may stay.
        patience: seconds to wait for another process; None: as long as it takes.

    Raises:
        Held: another process holds it for longer.
        SelfcfgError: the file cannot be made.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only who locks pays for it

    lock = FileLock(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flock not supported")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=SILENT if patience is None else patience)
        except Timeout:
            held = _held(path)
            if patience is not None:
                raise held from None
            say(f"waiting: {held.holder} holds {path}{held.remedy and '; '}{held.remedy}")
            lock.acquire()
        except OSError as error:
            raise refused(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _held(path: Path) -> Held:
    """Who holds a lock; where its file tells that, nobody may hold it any more."""
    lines = []
    with suppress(OSError, ValueError):
        lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) < 2:
        return Held("another process", "")
    return Held(f"process {lines[0]} on {lines[1]}", f"if that was killed, delete {path}")
