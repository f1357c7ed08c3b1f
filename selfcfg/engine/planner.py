"""The contract of a planner: facts in, decisions with reasons out. No torch, no images."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from selfcfg import registry
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


def load_planner(name: str) -> Planner:
    """The installed planner of that name.

    Raises:
        UsageError: there is none.
    """
    return cast(Planner, registry.load("planners", name))


def plan_from_files(
    fingerprint_file: Path,
    dataset_json: Path,
    planner: str,
    memory_gb: float | None = None,
    spacing: Vector | None = None,
) -> tuple[Fingerprint, Plan]:
    """The plan for a fingerprint file of selfcfg or nnU-Net and the dataset.json that belongs to it; no image is read.

    Raises:
        DataError: a file is missing or not what it should be.
        UsageError: no such planner.
    """
    facts = Fingerprint.read(fingerprint_file)
    description = DatasetDescription.read(dataset_json)
    decide, name = load_planner(planner), dataset_json.absolute().parent.name
    return facts, decide(facts, description, dataset=name, memory_gb=memory_gb, spacing=spacing)
