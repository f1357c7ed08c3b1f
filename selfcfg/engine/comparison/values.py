"""What is kept of an evaluation to compare it with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from selfcfg.engine.scoring.extras import Extras
from selfcfg.engine.scoring.scores import Empty


class ClassValues(NamedTuple):
    """The scores of one class of one case.

    Args:
        values: by metric; None where it is not defined.
        n_reference: voxels of the class in the reference.
        n_prediction: voxels of the class in the prediction.
    """

    values: Mapping[str, float | None]
    n_reference: int
    n_prediction: int

    @property
    def is_absent(self) -> bool:
        """Whether neither mask holds the class."""
        return not self.n_reference and not self.n_prediction

    @property
    def is_one_empty(self) -> bool:
        """Whether the class was missed or invented altogether."""
        return bool(self.n_reference) != bool(self.n_prediction)


@dataclass(frozen=True)
class Scored:
    """The scores of one prediction of each case.

    Args:
        cases: by case, then by class.
        empty: how a class that is absent from both masks was scored.
        nsd_tolerance: in `distance_unit`; None where NSD was not computed.
        distance_unit: "mm" or "px"; None where nothing has one.
        volume_unit: "ml", "mm2" or "px"; None where nothing has one.
        extras: how metrics on request were computed; None without any.
    """

    cases: Mapping[str, Mapping[str, ClassValues]]
    empty: Empty
    nsd_tolerance: float | None = None
    distance_unit: str | None = None
    volume_unit: str | None = None
    extras: Extras | None = None

    @property
    def settings(self) -> tuple[object, ...]:
        """What two evaluations must share to belong together."""
        return self.empty, self.nsd_tolerance, self.distance_unit, self.volume_unit, self.extras
