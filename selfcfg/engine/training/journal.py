"""What a training leaves to read: one JSON line an epoch, a picture of the curves, and TensorBoard where asked for."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from selfcfg.engine.training.curves import draw_curves
from selfcfg.errors import UsageError
from selfcfg.files import write_text
from selfcfg.runs import RunFolder

DRAWING_SHARE = 0.02
"""Largest share of the time that drawing the curves may take."""

_FIRST_DRAWING = 0.5
"""Seconds a drawing is expected to take before one was made."""

_DRAWS = ContextVar("draws", default=True)


@contextmanager
def without_curves() -> Iterator[None]:
    """Within the block no curves are drawn: for trainings whose folders nobody looks at, of which they take most."""
    token = _DRAWS.set(False)
    try:
        yield
    finally:
        _DRAWS.reset(token)


@dataclass(frozen=True)
class Epoch:
    """One epoch in numbers.

    Args:
        epoch: counted from 0.
        learning_rate: of its last step.
        loss: weighted sum of the terms, mean over its steps.
        terms: each loss term, not weighted, mean over its steps.
        gradient_norm: before clipping, mean over its steps.
        validation: scores by name; empty without validation.
        average: moving average of the first score.
        is_best: whether that is the highest so far.
        seconds: of the whole epoch.
        seconds_per_iteration: of one optimiser step, mean.
        data_wait: seconds of it spent waiting for batches.
    """

    epoch: int
    learning_rate: float
    loss: float
    terms: dict[str, float]
    gradient_norm: float
    validation: dict[str, float]
    average: float | None
    is_best: bool
    seconds: float
    seconds_per_iteration: float
    data_wait: float


class Journal:
    """The log and the curves of one run.

    Args:
        run: where they are.
        epoch: the epoch that comes next; lines of it and of later ones, or cut short, are dropped from the log.
        tensorboard: also write TensorBoard's files.
        draws: whether curves are drawn.

    Raises:
        UsageError: TensorBoard is asked for and not installed.
    """

    def __init__(self, run: RunFolder, epoch: int, *, tensorboard: bool = False, draws: bool = True) -> None:
        self._run, self._draws = run, draws
        self._entries = [entry for entry in read_log(run) if entry["epoch"] < epoch]
        self._drawing, self._undrawn, self._is_drawn = _FIRST_DRAWING, 0.0, False
        self._board = _board(run, epoch) if tensorboard else None

    def write(self, entry: Epoch) -> None:
        """Adds an epoch to the log, and draws the curves where that is cheap beside the epochs since the last time."""
        line = _plain(asdict(entry))
        self._entries.append(line)
        write_text(self._run.log, "".join(json.dumps(line) + "\n" for line in self._entries))
        self._undrawn += entry.seconds
        self._is_drawn = False
        if self._undrawn * DRAWING_SHARE >= self._drawing:
            self.draw()
        if self._board is not None:
            for name, value in _flat(line):
                self._board.add_scalar(name, value, entry.epoch)
            self._board.flush()

    def draw(self) -> None:
        """Draws the curves of all epochs so far; nothing before the first."""
        if self._entries and self._draws and _DRAWS.get():
            began = time.perf_counter()
            draw_curves(self._entries, self._run.curves)
            self._drawing, self._undrawn, self._is_drawn = time.perf_counter() - began, 0.0, True

    def close(self) -> None:
        """Draws what this journal has not drawn yet: also what a killed process logged before its curves were whole."""
        if not self._is_drawn:
            self.draw()
        if self._board is not None:
            self._board.close()


def read_log(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of a run's log in order, up to the first that is not whole; empty without a log."""
    if not run.log.is_file():
        return []
    entries: list[dict[str, Any]] = []
    for line in run.log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not _continues(entries, entry):
            break
        entries.append(entry)
    return entries


def _continues(entries: list[dict[str, Any]], entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("epoch"), int):
        return False
    return not entries or entry["epoch"] > entries[-1]["epoch"]


def _plain(value: Any) -> Any:
    """The value with null where JSON has no number for it."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(line: dict[str, Any]) -> list[tuple[str, float]]:
    """Every number of a line by a name with its group, such as "terms/dice"."""
    found: list[tuple[str, float]] = []
    for name, value in line.items():
        if isinstance(value, dict):
            found += [(f"{name}/{inner}", number) for inner, number in value.items() if number is not None]
        elif value is not None and name != "epoch":
            found.append((name, float(value)))
    return found


def _board(run: RunFolder, epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise UsageError(
            "write TensorBoard files (tensorboard=true)", "it is not installed", 'pip install "selfcfg[tensorboard]"'
        ) from error
    return SummaryWriter(str(run.path / "tensorboard"), purge_step=epoch)
