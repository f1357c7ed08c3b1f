"""A student that learns from labels and from what finished runs, its teachers, say of the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts, Settings, Teaching, Trainer
from selfcfg.kernels.distillation import Divergence, shrink_soft, teacher_loss
from selfcfg.kernels.losses import shrink
from selfcfg.plan import Configuration, Plan
from selfcfg.trainers.supervised import Supervised, SupervisedSettings


class DistillationSettings(SupervisedSettings):
    """The settings of supervised training, how teachers are made one, and how much they count."""

    balance: float = Field(0.5, ge=0, le=1, description="share of the teachers in the loss; the labels have the rest")
    combine: Literal["probability", "logit"] = Field(
        "probability", description="teachers are made one by the mean of their probabilities, or of their logits"
    )
    weighting: Literal["uniform", "validation", "per_class", "greedy"] = Field(
        "uniform",
        description="weights of the teachers: all the same; by their validation Dice, or that of each class; or the "
        "same for those with which the ensemble is best on validation cases, and none for the others",
    )
    weighting_scale: float = Field(
        0.03, gt=0, description="validation Dice by which a teacher must be better for e times the weight"
    )
    divergence: Divergence = Field("kl+dice", description="how the student is compared with its teachers")
    temperature: float = Field(1.0, gt=0, description="that the logits of teachers and student are divided by")
    teach_ignored: bool = Field(True, description="teachers also speak of voxels that are not annotated")

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.balance == 0:
            raise ValueError("balance is 0, which leaves nothing to learn from teachers; use the trainer supervised")
        return self


class Distillation(Trainer[DistillationSettings]):
    """Trains a student on labels and on what an ensemble of finished runs, its teachers, says.

    The loss is 1 - `balance` of the labels' terms and `balance` of the term "teachers". With ``--unlabelled`` a second
    batch of images without labels has the term "teachers without labels" alone, of the same weight.

    Source: the idea of Hu and Qin, Two-Stage Multi-task Self-Supervised Learning for Medical Image Segmentation, 2024,
    whose student learns from labels and an ensemble, balanced by a coefficient; distance, weights of the teachers,
    temperature and resolutions are our choice. Lower resolutions learn from the mean of the soft target over the voxels
    that they cover, with the weights of the labels' terms.
    """

    name: ClassVar[str] = "distillation"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[Settings]] = DistillationSettings
    needs: ClassVar[Mapping[str, Need]] = {
        "labelled": Need(soft=True),
        "unlabelled": Need(targets=False, soft=True, optional=True),
    }

    def __init__(
        self, settings: DistillationSettings, plan: Plan, configuration: Configuration, datasets: Datasets = OWN
    ) -> None:
        super().__init__(settings, plan, configuration, datasets)
        self.supervised = Supervised(settings, plan, configuration, datasets)

    def teaching(self) -> Teaching:
        """As the settings say."""
        settings = self.settings
        return Teaching(settings.combine, settings.weighting, settings.weighting_scale, settings.temperature)

    def build(self) -> Parts:
        """The parts of supervised training."""
        return self.supervised.build()

    def weights(self) -> Mapping[str, float]:
        """Those of supervised training in the share that is left to labels, and `balance` for the teachers."""
        balance = self.settings.balance
        labels = {name: (1 - balance) * weight for name, weight in self.supervised.weights().items()}
        return {**labels, "teachers": balance, "teachers without labels": balance}

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """A group of "dice", "cross_entropy" and "teachers"; then, with further images, "teachers without labels"."""
        batch = batches["labelled"]
        outputs, target = self.supervised.outputs(parts, batch.image), batch.labels()
        counted = None
        if self.plan.labels.ignore is not None and not self.settings.teach_ignored:
            counted = target != self.plan.labels.ignore
        yield {
            **self.supervised.label_terms(outputs, target),
            "teachers": self.teachers_term(outputs, batch.soft_target(), counted),
        }
        if "unlabelled" in batches:
            further = batches["unlabelled"]
            outputs = self.supervised.outputs(parts, further.image)
            yield {"teachers without labels": self.teachers_term(outputs, further.soft_target())}

    def validate(self, parts: Parts, batches: Iterable[Mapping[str, Batch]]) -> dict[str, float]:
        """The scores of supervised training: against labels alone."""
        return self.supervised.validate(parts, batches)

    def teachers_term(self, outputs: Sequence[Tensor], soft: Tensor, counted: Tensor | None = None) -> Tensor:
        """How far logits at several resolutions are from the soft target (B, F, ...) at full resolution.

        Args:
            outputs: logits of the resolutions that count, full resolution first.
            soft: see `selfcfg.engine.trainer.Batch`.
            counted: bool (B, 1, ...), the voxels that count; None: all.
        """
        settings, terms = self.settings, []
        for weight, logits in zip(self.supervised.resolution_weights(), outputs, strict=True):
            shape = logits.shape[2:]
            one = teacher_loss(
                logits,
                shrink_soft(soft, shape),
                settings.divergence,
                settings.temperature,
                exclusive=not self.plan.labels.has_regions,
                batch_dice=self.supervised.batch_dice(),
                valid=None if counted is None else shrink(counted, shape),
            )
            terms.append(weight * one)
        return torch.stack(terms).sum()
