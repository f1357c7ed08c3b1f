"""Progress with the time left, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from selfcfg.errors import printable

LINE_SECONDS = 15.0
"""Shortest time between two plain lines."""

Step = Callable[[str], None]
"""Called once for each finished item, with a short note such as the item's name or the newest loss."""

_QUIET = ContextVar("quiet", default=False)
_NAME = ContextVar("name", default="")


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Within the block nothing of this module is written: for work that is itself one item of a longer list."""
    token = _QUIET.set(quiet)
    try:
        yield
    finally:
        _QUIET.reset(token)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Within the block every line begins with a name, and bars are left out: for one of several processes.

    An empty name changes nothing.
    """
    token = _NAME.set(name)
    try:
        yield
    finally:
        _NAME.reset(token)


@contextmanager
def progress(what: str, total: int) -> Iterator[Step]:
    """Shows how far `what` is, out of `total` items; yields the function to call after each item."""
    if _QUIET.get() or _NAME.get():
        yield _untold
    elif total > 0 and sys.stderr.isatty():
        with _bar(what, total) as step:
            yield step
    else:
        yield _lines(what, total)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Step]:
    from rich.console import Console  # noqa: PLC0415 - only a terminal pays for it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, note="")
        yield lambda note: bar.update(task, advance=1, note=printable(note))


def _lines(what: str, total: int) -> Step:
    start = last = time.monotonic()
    done = 0

    def step(note: str) -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if done == total or now - last >= LINE_SECONDS:
            last = now
            left = (now - start) / done * (total - done)
            line = f"{what}: {done}/{total}, {duration(left)} left  {note}".rstrip()
            sys.stderr.write(printable(line) + "\n")
            sys.stderr.flush()

    return step


def _untold(note: str) -> None:
    """A step that nobody is told of."""


def duration(seconds: float) -> str:
    """A length of time in words: "45 s", "3 min 20 s", "2 h 05 min", "4 days 3 h"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 2 * 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} days {seconds % 86400 // 3600} h"


def say(text: str) -> None:
    """Writes one line about what is going on to stderr."""
    if not _QUIET.get():
        name = _NAME.get()
        sys.stderr.write(printable(f"{name}: {text}" if name else text) + "\n")
        sys.stderr.flush()
