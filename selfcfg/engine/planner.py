"""The contract of a planner: facts in, decisions with reasons out. No torch, no images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from selfcfg import registry
from selfcfg.dataset import DatasetDescription
from selfcfg.errors import SelfcfgError, UsageError
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import Vector
from selfcfg.plan import Plan

MEMORIES_GB = (4, 8, 12, 16, 24, 40, 80)
"""Memory of accelerators as they are sold, for the comparison on a plan's page."""


@dataclass(frozen=True)
class Target:
    """What a plan is to fit; with nothing given, what its planner is made for.

    Args:
        memory_gb: accelerator memory, by formula.
        seconds: for training once on this machine, as measured.
        fill: whether to fill this machine's accelerator, as measured.
        device: that is measured; None: the best there is.
        configuration: that is measured; None: the plan's default.
        trainer: that is measured.
    """

    memory_gb: float | None = None
    seconds: float | None = None
    fill: bool = False
    device: str | None = None
    configuration: str | None = None
    trainer: str = "supervised"

    def __post_init__(self) -> None:
        if (self.memory_gb is not None) + (self.seconds is not None) + self.fill > 1:
            raise UsageError("plan", "several of --memory, --time-budget and --fit", "give one of them")

    @property
    def suffix(self) -> str:
        """What is added to the name of the plan: "-24GB", "-12h", "-12h-2d", "-fit"."""
        if self.seconds is not None:
            return f"-{self.seconds / 3600:.3g}h" + (f"-{self.configuration}" if self.configuration else "")
        return "-fit" if self.fill else "" if self.memory_gb is None else f"-{self.memory_gb:g}GB"


ANY = Target()


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


@dataclass(frozen=True)
class Alternative:
    """What a dataset would be planned as for another accelerator.

    Args:
        memory_gb: its memory.
        plan: the plan; None where the planner refuses.
        refusal: why it does; "" where it does not.
    """

    memory_gb: float
    plan: Plan | None
    refusal: str = ""


def other_memories(
    plan: Plan, fingerprint: Fingerprint, description: DatasetDescription, spacing: Vector | None = None
) -> list[Alternative]:
    """The dataset as `plan`'s planner would plan it for the common sizes of accelerators, and for the plan's own.

    Args:
        plan: what was decided.
        fingerprint: what it was decided from.
        description: dataset.json.
        spacing: the target spacing (z, y, x) in mm that the plan was asked for, if any.

    Returns:
        One alternative for each memory, smallest first; none where the plan's planner is not installed.
    """
    if plan.planner not in registry.registered("planners"):
        return []
    decide = load_planner(plan.planner)
    found = []
    for memory in sorted({*MEMORIES_GB, plan.memory_gb}):
        try:
            other = decide(fingerprint, description, dataset=plan.dataset, memory_gb=memory, spacing=spacing)
        except SelfcfgError as error:
            found.append(Alternative(memory, None, error.found))
        else:
            found.append(Alternative(memory, other))
    return found
