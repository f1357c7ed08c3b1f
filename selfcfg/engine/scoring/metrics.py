"""The metrics that are shown and compared, and what is to be known of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from selfcfg.errors import UsageError, nearest


class Metric(NamedTuple):
    """A metric of `selfcfg.engine.scoring.scores.ClassScores`.

    Args:
        title: for people.
        is_higher_better: else lower is.
        perfect: the value of a class that is in neither mask, where it is scored as found perfectly; None: it has none.
        unit: "" without, "distance" or "volume" for that of the evaluation.
        digits: after the point, in tables.
    """

    title: str
    is_higher_better: bool
    perfect: float | None
    unit: str = ""
    digits: int = 4

    @property
    def sign(self) -> int:
        """1 where a higher value is better, else -1."""
        return 1 if self.is_higher_better else -1


ALWAYS = {
    "dice": Metric("Dice", is_higher_better=True, perfect=1.0),
    "iou": Metric("IoU", is_higher_better=True, perfect=1.0),
    "hd95": Metric("HD95", is_higher_better=False, perfect=0.0, unit="distance", digits=2),
    "nsd": Metric("NSD", is_higher_better=True, perfect=1.0),
    "volume_error": Metric("volume error", is_higher_better=False, perfect=0.0, unit="volume", digits=3),
    "volume_error_relative": Metric("relative volume error", is_higher_better=False, perfect=None),
    "hd": Metric("HD", is_higher_better=False, perfect=0.0, unit="distance", digits=2),
    "assd": Metric("ASSD", is_higher_better=False, perfect=0.0, unit="distance", digits=2),
}
"""Those that are computed of every class; all are None for a class that a case leaves out."""

ON_REQUEST = {
    "boundary_iou": Metric("boundary IoU", is_higher_better=True, perfect=1.0),
    "centreline_dice": Metric("clDice", is_higher_better=True, perfect=1.0),
    "lesion_f1": Metric("lesion F1", is_higher_better=True, perfect=1.0),
    "panoptic_quality": Metric("PQ", is_higher_better=True, perfect=1.0),
    "ece": Metric("ECE", is_higher_better=False, perfect=None),
    "brier": Metric("Brier", is_higher_better=False, perfect=None),
    "nll": Metric("NLL", is_higher_better=False, perfect=None),
}
"""Those of `selfcfg.engine.scoring.extras` and of probabilities, `selfcfg.engine.scoring.calibration`."""

METRICS = {**ALWAYS, **ON_REQUEST}

USUAL = ("dice", "nsd", "hd95")
"""Compared where nothing else is asked for, as far as all systems have them."""


def metrics_of(names: Iterable[str]) -> tuple[str, ...]:
    """The names of metrics in the order given, each once.

    Raises:
        UsageError: there is no such metric.
    """
    wanted = tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in METRICS:
            raise UsageError("--metric", f"there is no '{name}'", nearest(name, METRICS))
    return wanted
