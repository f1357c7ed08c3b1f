"""What a training ended with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from selfcfg.engine.trainer import Settings
from selfcfg.runs import TakeOver


@dataclass(frozen=True)
class FitResult:
    """What a training ended with.

    Args:
        epochs: epochs done.
        scores: of the last validation by name; empty without validation.
        best: highest moving average of the first score, or None.
        best_epoch: the epoch that had it, counted from 0.
        stopped_early: whether the validation score stopped rising before the last epoch.
        taken_over: what became of the weights it was started from, or None.
    """

    epochs: int
    scores: dict[str, float]
    best: float | None
    best_epoch: int | None
    stopped_early: bool
    taken_over: TakeOver | None = None

    @classmethod
    def of_log(cls, log: list[dict[str, Any]], settings: Settings) -> Self:
        """The result of a finished run, as far as its log tells."""
        if not log:
            return cls(settings.epochs, {}, None, None, stopped_early=False)
        best = next((entry for entry in reversed(log) if entry["is_best"]), None)
        average, epoch = (best["average"], best["epoch"]) if best else (None, None)
        epochs = log[-1]["epoch"] + 1
        return cls(epochs, log[-1]["validation"], average, epoch, stopped_early=epochs < settings.epochs)
