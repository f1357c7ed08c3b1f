"""What a row of the benchmark is made of: two turns, and what must be equal between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .measuring import Place, Usage, Worker

Array = NDArray[Any]


class Check(NamedTuple):
    """One comparison of the two results: what, the value found, the limit it is held to, and whether it holds."""

    what: str
    value: float
    limit: float
    holds: bool


class Contest(NamedTuple):
    """Both sides of a row, ready: each call is one turn. `check` compares what the last turns made.

    `theirs` is None where the other side was only computed, not run.
    """

    ours: Callable[[], Usage]
    theirs: Callable[[], Usage] | None
    check: Callable[[], list[Check]]


class Row(NamedTuple):
    """One row of the table.

    Args:
        title: what is done.
        unit: of work that the seconds are for.
        aim: how many times faster ours is to be; None where only the memory has an aim.
        memory: how many times less memory ours is to take; None without such an aim.
        limit_mb: the memory that ours may take at most, in MiB, or None.
        contest: makes both sides ready.
        turns: at most; 1 for what takes minutes.
    """

    title: str
    unit: str
    aim: float | None
    contest: Callable[[Place], AbstractContextManager[Contest]]
    memory: float | None = None
    limit_mb: float | None = None
    turns: int = 99


def at_most(what: str, value: float, limit: float) -> Check:
    """A difference that must not be larger."""
    return Check(what, float(value), limit, bool(value <= limit))


def at_least(what: str, value: float, limit: float) -> Check:
    """An agreement that must not be smaller."""
    return Check(what, float(value), limit, bool(value >= limit))


def nearly_equal(ours: Array, theirs: Array) -> list[Check]:
    """The largest difference of two images in parts of the second one's standard deviation, held to 1e-3."""
    if ours.shape != theirs.shape:
        return [at_most(f"shapes {ours.shape} and {theirs.shape}", np.inf, 1e-3)]
    largest = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
    return [at_most("largest difference / std", largest / float(theirs.std()), 1e-3)]


def same_labels(ours: Array, theirs: Array, limit: float = 0.9999) -> list[Check]:
    """The share of voxels with the same label."""
    if ours.shape != theirs.shape:
        return [at_least(f"shapes {ours.shape} and {theirs.shape}", 0.0, limit)]
    return [at_least("labels that are equal", np.count_nonzero(ours == theirs) / ours.size, limit)]


@contextmanager
def calls(
    place: Place,
    job: str,
    own: Mapping[str, Any],
    their: Mapping[str, Any],
    check: Callable[[Array, Array], list[Check]] | None,
    *,
    per: int = 1,
    cores: int | None = None,
) -> Iterator[Contest]:
    """A contest of two calls of one job in warm processes.

    Args:
        place: where.
        job: its name on both sides.
        own: our arguments.
        their: nnU-Net's arguments.
        check: compares the two results; None where they are drawn at random.
        per: units of work in a call.
        cores: threads; None: the place's.
    """
    with Worker(place, "own_jobs", cores) as ours, Worker(place, "peer_jobs", cores) as theirs:
        ours.prepare(job, **own)
        theirs.prepare(job, **their)

        def compare() -> list[Check]:
            if check is None:
                return []
            with TemporaryDirectory(dir=place.work) as folder:
                files = ours.keep(Path(folder, "ours.npy")), theirs.keep(Path(folder, "theirs.npy"))
                return check(*(np.load(file, mmap_mode="r") for file in files))

        yield Contest(lambda: ours.call(per), lambda: theirs.call(per), compare)
