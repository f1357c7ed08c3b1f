"""The contract of a planner: facts in, decisions with reasons out. No torch, no images."""

from __future__ import annotations

from typing import Protocol

from selfcfg.dataset import DatasetDescription
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import Vector
from selfcfg.plan import Plan


class Planner(Protocol):
    """A callable registered in the entry-point group ``selfcfg.planners``."""

    def __call__(
        self,
        fingerprint: Fingerprint,
        description: DatasetDescription,
        *,
        dataset: str,
        memory_gb: float | None = None,
        spacing: Vector | None = None,
    ) -> Plan:
        """The plan for a dataset.

        Args:
            fingerprint: what was measured.
            description: dataset.json.
            dataset: folder name of the dataset.
            memory_gb: accelerator memory to plan for; None takes the planner's own default.
            spacing: target spacing (z, y, x) in mm that replaces the rule.
        """
        ...
