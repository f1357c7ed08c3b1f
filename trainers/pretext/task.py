"""The contract of an auxiliary task: its batches, its private parts, its loss, and which shared parts it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

from pydantic import ConfigDict
from torch import Tensor

from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts
from selfcfg.plan import Configuration, Plan
from selfcfg.records import Record


class TaskSettings(Record):
    """What a task can be told; a subclass declares it."""

    model_config = ConfigDict(allow_inf_nan=False)


T = TypeVar("T", bound=TaskSettings)


class Task(ABC, Generic[T]):
    """One auxiliary task on the shared parts of a network, "encoder" and, with `trains_decoder`, "decoder".

    Whoever owns the network builds the shared parts, draws the batches and backpropagates. Wherever a task is given
    `parts`, they hold the shared parts and the private ones that it added, by the names it gave them.

    Args:
        settings: its typed settings.
        plan: what the planner decided.
        configuration: the one that is trained, with the sizes of its batches.
        datasets: what else its owner knows of what it learns from.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[TaskSettings]]
    terms: ClassVar[tuple[str, ...]]
    """The names of its loss terms."""
    need: ClassVar[Need]
    """The batches that it learns from; their `transforms` are those that suit it."""
    trains_decoder: ClassVar[bool] = False
    is_regression: ClassVar[bool] = False
    """Whether its loss is a mean squared error; else it is taken for that of a classification."""
    weight: ClassVar[float] = 0.1
    """Of its loss beside that of segmentation, if nothing else is said."""
    splits: ClassVar[bool] = False
    """Whether several processes can share its batches: see `selfcfg.engine.trainer.Trainer.splits`."""
    predicts: ClassVar[bool] = False
    """Whether its private parts are handed on where it is learnt beside segmentation: see `selfcfg.nets.image_head`."""

    def __init__(self, settings: T, plan: Plan, configuration: Configuration, datasets: Datasets = OWN) -> None:
        self.settings = settings
        self.plan = plan
        self.configuration = configuration
        self.datasets = datasets

    def term_names(self) -> tuple[str, ...]:
        """The names of its loss terms, which may depend on the plan."""
        return self.terms

    @property
    def n_inputs(self) -> int:
        """Channels of the images."""
        return self.plan.input_channels(self.configuration)

    @abstractmethod
    def build(self, parts: Parts) -> None:
        """Adds its private parts to the shared ones: heads, and also slow copies and queues, which a run then saves."""

    def started(self, parts: Parts) -> None:
        """Called once before the first step, without gradient, after weights were taken over: see `Trainer.started`."""

    @abstractmethod
    def losses(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """Scalar loss terms by name, not weighted, which are one graph; random numbers are torch's global ones."""

    def weights(self) -> Mapping[str, float]:
        """The weight of each term within the task; a term that is not named has weight 1."""
        return {}

    def after_step(self, parts: Parts) -> None:
        """Called after each optimiser step, without gradient."""

    @abstractmethod
    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """Numbers of one validation batch, the first the most telling and higher when better; always drawn alike."""
