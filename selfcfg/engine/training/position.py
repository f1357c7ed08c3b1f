"""How far a training is, and how well it has done so far: what is saved beside the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

SMOOTHING = 0.9
"""Share of its past in the moving average of the validation score. Source: nnU-Net v2.8.1, ema_fg_dice."""


@dataclass
class Position:
    """The epoch, the step in it, and the validation scores that later decisions depend on.

    Args:
        epoch: the current one, counted from 0.
        step: optimiser steps done in it.
        sums: over these steps, of everything that is logged as a mean.
        scores: of the last validation by name.
        average: moving average of the first score.
        best: the highest average so far.
        best_epoch: the epoch that had it.
        is_over: whether the training ended early.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    average: float | None = None
    best: float | None = None
    best_epoch: int | None = None
    is_over: bool = False

    def count_step(self, values: Mapping[str, float]) -> None:
        """Moves on by one step, whose values are added to the sums of the epoch."""
        self.step += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def rank(self, scores: Mapping[str, float]) -> bool:
        """Takes in the scores of the current epoch; whether the moving average of the first is the best so far."""
        self.scores = dict(scores)
        score = next(iter(scores.values()), math.nan)
        if not math.isfinite(score):
            return False
        self.average = score if self.average is None else SMOOTHING * self.average + (1 - SMOOTHING) * score
        if self.best is not None and self.average <= self.best:
            return False
        self.best, self.best_epoch = self.average, self.epoch
        return True

    def count_epoch(self, patience: int | None) -> None:
        """Moves on to the next epoch; the training is over when the last `patience` epochs were not the best."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
        if patience is not None and self.best_epoch is not None:
            self.is_over = self.epoch - 1 - self.best_epoch >= patience
