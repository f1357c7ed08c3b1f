"""What strategies that learn without labels have in common: settings, a probe of their features, monitored numbers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from selfcfg.engine.trainer import Batch, Need, Parts, Settings, Trainer
from selfcfg.kernels import ranks
from selfcfg.kernels.probe import drawn_voxels, linear_probe, voxel_features
from selfcfg.labels import LabelSchema
from selfcfg.nets.unet import build_parts
from selfcfg.trainers.pretext.task import Task

UNLABELLED, PROBE = "unlabelled", "probe"

TILT = math.radians(15)
"""How far images that are compared with each other are turned at most; they are not mirrored either (our choice).

Slices of hippocampus MR that were turned by up to 180 degrees and mirrored were not told apart after 600 steps. In 200
steps `hierarchical` reached a probe of 0.79 upright and 0.76 turned, `sequential` an accuracy of the order of slices of
0.84 and 0.66 (one seed, 160 training cases, a network of 0.5 million parameters).
"""
PROBED = Need(targets=True, validation_only=True)
"""The labelled patches that features are probed on."""

_EACH = 64
"""Voxels of a label value that a patch gives to the probe."""


class PretrainingSettings(Settings):
    """The settings of every trainer, with what suits a network that learns without labels."""

    epochs: int = Field(200, ge=1, description="number of epochs")
    validation_iterations: int = Field(8, ge=0, description="validation batches after an epoch")
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="SGD with Nesterov momentum, or AdamW")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate at the start of the schedule")
    weight_decay: float = Field(1e-2, ge=0, description="L2 penalty on all parameters; of AdamW decoupled")
    warmup_epochs: int = Field(0, ge=0, description="epochs in which the learning rate rises linearly from zero")


P = TypeVar("P", bound=PretrainingSettings)


class Pretraining(Trainer[P]):
    """A strategy that learns without labels.

    Validation gives the numbers of `scores`, averaged over batches of images that it does not train on, and "probe":
    see `Probe`. The labels are used for nothing else.
    """

    needs: ClassVar[Mapping[str, Need]] = {UNLABELLED: Need(targets=False), PROBE: PROBED}
    exports: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    @property
    def n_inputs(self) -> int:
        """Channels of the images it learns from."""
        return 1 if self.needs[UNLABELLED].one_channel else self.plan.input_channels(self.configuration)

    @abstractmethod
    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """Numbers of one validation batch without labels, higher is better for the first: "best" goes by it."""

    def validate(self, parts: Parts, batches: Iterable[Mapping[str, Batch]]) -> dict[str, float]:
        """The mean of each score, and the probe."""
        means, probe = Means(), Probe(self.plan.labels, with_decoder="decoder" in self.exports)
        for streams in batches:
            if UNLABELLED in streams:
                means.add(self.scores(parts, streams[UNLABELLED]))
            if PROBE in streams:
                probe.add(parts, streams[PROBE])
        return {**means.values(), "probe": probe.score()}


class TaskPretraining(Pretraining[P]):
    """Pretraining by one task of `selfcfg.trainers.pretext`, whose settings are among those of the trainer."""

    task_type: ClassVar[type[Task[Any]]]

    @cached_property
    def task(self) -> Task[Any]:
        """The task."""
        return self.task_type(self.settings, self.plan, self.configuration)

    def build(self) -> Parts:
        """The parts that the task trains, and those that it adds."""
        parts = build_parts(self.configuration.topology, self.n_inputs, 1)
        del parts["head"]
        if not self.task.trains_decoder:
            del parts["decoder"]
        self.task.build(parts)
        return parts

    def started(self, parts: Parts) -> None:
        """As the task does."""
        self.task.started(parts)

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """One group: the task's terms."""
        yield self.task.losses(parts, batches[UNLABELLED])

    def weights(self) -> Mapping[str, float]:
        """As the task weighs its terms."""
        return self.task.weights()

    def after_step(self, parts: Parts) -> None:
        """As the task does."""
        self.task.after_step(parts)

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The task's."""
        return self.task.scores(parts, batch)


class Means:
    """The mean of each score over the batches that have it."""

    def __init__(self) -> None:
        self._found: list[dict[str, float]] = []

    def add(self, scores: Mapping[str, Tensor]) -> None:
        """Takes in the scores of one batch."""
        self._found.append({name: float(value) for name, value in scores.items()})

    def values(self) -> dict[str, float]:
        """The mean of each, over the batches of all ranks."""
        values: dict[str, list[float]] = defaultdict(list)
        for scores in ranks.collected(self._found):
            for name, value in scores.items():
                values[name].append(value)
        return {name: sum(column) / len(column) for name, column in values.items()}


class Probe:
    """How well a linear classifier tells the labels of voxels from their features.

    It is fitted on one half of the batches and scored on the other, by balanced accuracy.

    Args:
        labels: what label values mean.
        with_decoder: whether the decoder's map of full resolution takes the place of the encoder's.
    """

    def __init__(self, labels: LabelSchema, *, with_decoder: bool) -> None:
        self._ignore, self._with_decoder = labels.ignore, with_decoder
        self._found: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, parts: Parts, batch: Batch) -> None:
        """Takes in features and labels of some voxels of each patch."""
        number = ranks.number(len(self._found))
        features, labels = self.voxels(parts, batch, number)
        self._found.append((features, labels, torch.full((len(labels),), number % 2 == 0)))

    def score(self) -> float:
        """The balanced accuracy, over the batches of all ranks; NaN without a batch."""
        found = ranks.collected(self._found)
        if not found:
            return math.nan
        features, labels, seen = (torch.cat(column) for column in zip(*found, strict=True))
        return linear_probe(features, labels, seen)

    def voxels(self, parts: Parts, batch: Batch, number: int) -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of some voxels of each patch, as the number of the batch draws them."""
        maps = parts["encoder"](batch.image)
        if self._with_decoder and "decoder" in parts:
            maps = [*parts["decoder"](maps)[:1], *maps[1:]]
        generator = torch.Generator().manual_seed(number)
        features, labels = [], []
        targets = batch.labels()[:, 0].cpu()
        if self._ignore is not None:
            targets = targets.masked_fill(targets == self._ignore, -1)
        for index, label in enumerate(targets):
            voxels = drawn_voxels(label, _EACH, generator)
            features.append(voxel_features([one[index].cpu() for one in maps], voxels))
            labels.append(label[voxels.unbind(1)])
        return torch.cat(features), torch.cat(labels)
