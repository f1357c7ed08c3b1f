"""Several tasks on one network: segmentation with auxiliary tasks, or auxiliary tasks alone as a pretraining."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, cast

import torch
from pydantic import Field, create_model, model_validator
from torch import Tensor, nn

from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts, Settings, Trainer
from selfcfg.errors import nearest
from selfcfg.nets.unet import build_parts
from selfcfg.plan import Configuration, Plan
from selfcfg.records import Names, Record
from selfcfg.trainers.balance import Balance, Calibration, How, Weighed
from selfcfg.trainers.pretext.installed import TASKS, task_tables, why_not_split
from selfcfg.trainers.pretext.task import Task
from selfcfg.trainers.pretraining import PROBE, PROBED, Means, PretrainingSettings, Probe
from selfcfg.trainers.supervised import Supervised, SupervisedSettings

LABELLED, SEGMENTATION = "labelled", "segmentation"

_OF_PRETRAINING = ("epochs", "validation_iterations", "optimizer", "learning_rate", "weight_decay")


class TasksSettings(SupervisedSettings):
    """The settings of segmentation, which tasks there are, and how they are balanced."""

    tasks: Names = Field(("distance_map",), description=f"auxiliary tasks, of {', '.join(TASKS)}")
    mode: Literal["joint", "pretrain"] = Field(
        "joint",
        description="joint: with segmentation; pretrain: alone, where epochs, validation_iterations, optimizer, "
        "learning_rate and weight_decay default to those of masked",
    )
    balance: How = Field(
        "calibrated",
        description="fixed: by the weights; calibrated: the same until calibration_step, then by gradient_share; "
        "uncertainty: learnt; pcgrad: by the weights, and conflicts of gradients are taken off",
    )
    gradient_share: float = Field(
        0.3, gt=0, description="norm of a task's gradient after calibration, in parts of the first task's"
    )
    calibration_step: int = Field(200, ge=0, description="step at which the gradients are calibrated, once")

    @model_validator(mode="before")
    @classmethod
    def _suits_mode(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("mode") != "pretrain":
            return values
        fields = PretrainingSettings.model_fields
        return {**{name: fields[name].default for name in _OF_PRETRAINING}, **values}

    @model_validator(mode="after")
    def _has_tasks(self) -> Self:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks must name at least one task, and none twice")
        for name in self.tasks:
            if name not in TASKS:
                raise ValueError(f"there is no task '{name}', {nearest(name, TASKS)}")
        return self

    @property
    def is_joint(self) -> bool:
        """Whether segmentation is learnt, too."""
        return self.mode == "joint"

    def of(self, name: str) -> Any:
        """A setting that depends on what is installed: "weight", or the table of a task."""
        return getattr(self, name)


def _weights_type() -> type[Record]:
    """A weight for each installed task."""
    weights: dict[str, Any] = {
        name: (float, Field(task.weight, ge=0, description=f"of {name}")) for name, task in TASKS.items()
    }
    return create_model("TaskWeights", __base__=Record, __module__=__name__, **weights)


def _settings_type() -> type[TasksSettings]:
    """The settings with the table of each installed task, and a weight for each."""
    told = "weight of each task's loss, that of segmentation being 1; not with balance=uncertainty"
    tables: dict[str, Any] = {"weight": (TaskWeights, Field(TaskWeights(), description=told)), **task_tables(TASKS)}
    return create_model("MultitaskSettings", __base__=TasksSettings, __module__=__name__, **tables)


TaskWeights = _weights_type()
MultitaskSettings = _settings_type()
"""Both are found under these names by processes that load patches."""


class Multitask(Trainer[TasksSettings]):
    """Trains segmentation together with auxiliary tasks, or pretrains by such tasks alone.

    Every task has a stream of batches of its own, drawn separately, and a part of its own with its heads; what they
    share are encoder and, for tasks that paint, decoder. One graph a task is built and backpropagated after the other.
    Jointly, encoder, decoder and head of the segmentation are handed on; from a pretraining the shared parts that were
    trained, and nothing of the tasks, but jointly the parts of those that predict.

    Source: Hu and Qin, Two-Stage Multi-task Self-Supervised Learning for Medical Image Segmentation, 2024, stage 1:
    segmentation with each auxiliary task, jointly or after it. Not known from there, so our choice: the weights of the
    tasks, and balances other than fixed weights.
    """

    name: ClassVar[str] = "multitask"
    settings_type: ClassVar[type[Settings]] = MultitaskSettings

    def __init__(
        self, settings: TasksSettings, plan: Plan, configuration: Configuration, datasets: Datasets = OWN
    ) -> None:
        super().__init__(settings, plan, configuration, datasets)
        self.tasks = {name: TASKS[name](settings.of(name), plan, configuration, datasets) for name in settings.tasks}
        self.segmentation = Supervised(settings, plan, configuration, datasets) if settings.is_joint else None
        self._factors: list[float] = []
        self._now = 0

    @classmethod
    def needs_for(cls, settings: TasksSettings) -> Mapping[str, Need]:
        """A stream a task, of its name, and labelled patches: to learn from, or to probe features on."""
        streams = {name: TASKS[name].need for name in settings.tasks}
        return {LABELLED: Need(), **streams} if settings.is_joint else {**streams, PROBE: PROBED}

    @classmethod
    def why_not_split(cls, settings: TasksSettings) -> str:
        """As the tasks say."""
        return why_not_split([TASKS[name] for name in settings.tasks])

    @classmethod
    def exports_for(cls, settings: TasksSettings) -> tuple[str, ...]:
        """The shared parts that are trained, and jointly the head of segmentation and of each task that predicts."""
        if settings.is_joint:
            return (*cls.exports, *(name for name in settings.tasks if TASKS[name].predicts))
        return ("encoder", "decoder") if any(TASKS[name].trains_decoder for name in settings.tasks) else ("encoder",)

    def build(self) -> Parts:
        """What is handed on, a part a task with what is its own, and the "balance"."""
        self._factors, self._now = [], 0
        parts = self._shared_parts()
        for name, task in self.tasks.items():
            view = self._view(parts, task)
            shared = set(view)
            task.build(view)
            parts[name] = nn.ModuleDict({key: part for key, part in view.items() if key not in shared})
        weights = self.settings.of("weight").model_dump()
        weighed = [Weighed(name, weights[name], task.is_regression) for name, task in self.tasks.items()]
        if self.segmentation:
            weighed.insert(0, Weighed(SEGMENTATION, 1.0, is_regression=False))
        share = self.settings.gradient_share if self.segmentation else 1.0
        calibration = Calibration(self.settings.calibration_step, share)
        parts["balance"] = Balance(weighed, self.settings.balance, calibration)
        return parts

    def started(self, parts: Parts) -> None:
        """As each task does."""
        for name, task in self.tasks.items():
            task.started(self._view(parts, task, name))

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """A group a task: "dice" and "cross_entropy" of segmentation, the others by the task's name and the term's."""
        balance = _balance(parts)
        self._note_factors(balance)
        apart = balance.begin(self._shared_parameters(parts))
        for index, terms in enumerate(self._groups(parts, batches)):
            self._now = index
            yield {**terms, **balance.penalty(index)}
            if apart:
                apart.take()
        if apart:
            balance.end(apart)

    def backward(self, terms: dict[str, Tensor], parts: Parts) -> None:
        """The backward pass of a group: its own weighted sum times the factor of its task, and what comes with it."""
        balance, within = _balance(parts), self._within[self._now]
        own = torch.stack([weight * terms[name] for name, weight in within.items()]).sum()
        total = balance.factors()[self._now] * own
        torch.autograd.backward(sum(balance.penalty(self._now).values(), start=total))

    def weights(self) -> Mapping[str, float]:
        """What each term is multiplied by at present."""
        factors = self._factors or [1.0] * len(self._within)
        return {
            name: factor * weight
            for within, factor in zip(self._within, factors, strict=True)
            for name, weight in within.items()
        }

    def after_step(self, parts: Parts) -> None:
        """As each task does."""
        for name, task in self.tasks.items():
            task.after_step(self._view(parts, task, name))
        _balance(parts).count_step()

    def validate(self, parts: Parts, batches: Iterable[Mapping[str, Batch]]) -> dict[str, float]:
        """First the Dice of segmentation, or the scores of the tasks; then the probe of a pretraining, and all factors.

        Scores are named by task and score, the factors "weight" and the task.
        """
        balance, means = _balance(parts), Means()
        self._note_factors(balance)
        factors = {f"weight {task.name}": factor for task, factor in zip(balance.tasks, self._factors, strict=True)}
        seen = self._scored(parts, batches, means)
        if self.segmentation:
            scores = self.segmentation.validate(parts, (streams for streams in seen if LABELLED in streams))
            return {**scores, **means.values(), **factors}
        probe = Probe(self.plan.labels, with_decoder=True)
        for streams in seen:
            if PROBE in streams:
                probe.add(parts, streams[PROBE])
        return {**means.values(), "probe": probe.score(), **factors}

    def _scored(
        self, parts: Parts, batches: Iterable[Mapping[str, Batch]], means: Means
    ) -> Iterator[Mapping[str, Batch]]:
        """The batches, each once the tasks' scores of it are taken in."""
        for streams in batches:
            for name, task in self.tasks.items():
                if name in streams:
                    found = task.scores(self._view(parts, task, name), streams[name])
                    means.add({f"{name} {score}": value for score, value in found.items()})
            yield streams

    def _shared_parts(self) -> Parts:
        """Freshly initialised: all of segmentation, or what the tasks train."""
        if self.segmentation:
            return self.segmentation.build()
        parts = build_parts(self.configuration.topology, self.plan.input_channels(self.configuration), 1)
        return nn.ModuleDict({name: parts[name] for name in self.exports_for(self.settings)})

    def _view(self, parts: Parts, task: Task[Any], name: str | None = None) -> Parts:
        """The parts as a task knows them: those that it shares, and its own once they are there."""
        shared = {part: parts[part] for part in ("encoder", "decoder") if part == "encoder" or task.trains_decoder}
        return nn.ModuleDict(shared if name is None else {**shared, **cast(Parts, parts[name])})

    def _shared_parameters(self, parts: Parts) -> list[nn.Parameter]:
        """Those that several tasks may reach."""
        shared = [parts[name] for name in ("encoder", "decoder") if name in parts]
        return [parameter for part in shared for parameter in part.parameters() if parameter.requires_grad]

    def _groups(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """The terms of each task in turn."""
        if self.segmentation:
            yield from self.segmentation.losses(parts, batches)
        for name, task in self.tasks.items():
            found = task.losses(self._view(parts, task, name), batches[name])
            yield {f"{name} {term}": value for term, value in found.items()}

    @cached_property
    def _within(self) -> list[dict[str, float]]:
        """For each task in turn, the weights of its terms beside each other."""
        found = [dict(self.segmentation.weights())] if self.segmentation else []
        for name, task in self.tasks.items():
            weights = task.weights()
            found.append({f"{name} {term}": weights.get(term, 1.0) for term in task.term_names()})
        return found

    def _note_factors(self, balance: Balance) -> None:
        self._factors = balance.factors().tolist()


def _balance(parts: Parts) -> Balance:
    return cast(Balance, parts["balance"])
