"""Image-level targets: a class or a number told of the whole image, beside segmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch.nn.functional as F  # noqa: N812 - the customary name
from pydantic import Field
from torch import Tensor

from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts
from selfcfg.errors import UsageError
from selfcfg.image_targets import ImageTarget
from selfcfg.kernels import ranks
from selfcfg.nets.image_head import NAME, PART, ImageHead, image_head_of
from selfcfg.plan import Configuration, Plan
from selfcfg.trainers.pretext.task import Task, TaskSettings


class ImageLevelSettings(TaskSettings):
    """The size of the head."""

    hidden: int = Field(256, ge=1, description="width of the layer between pooled features and outputs")


class _Known(NamedTuple):
    """One target on the patches whose case has a value: outputs (N, ...), values (N,) standardised or by index."""

    name: str
    target: ImageTarget
    outputs: Tensor
    values: Tensor


class ImageLevelTask(Task[ImageLevelSettings]):
    """Tells the image-level targets of the plan, classes or numbers, from pooled features of the encoder.

    A patch is taken for what its case is. Patches are drawn uniformly from the cases that have a value, so that where
    one lies says nothing of the label map; a target without a value for a case does not count for its patches. Learnt
    beside segmentation, the head is part of the model and predicts.

    Our choice: the head of `selfcfg.nets.heads.GlobalHead`; cross entropy for classes, and for numbers the smooth L1
    loss of the standardised value, in which a few extreme cases do not outweigh all others.
    """

    name: ClassVar[str] = PART
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[TaskSettings]] = ImageLevelSettings
    terms: ClassVar[tuple[str, ...]] = ()
    need: ClassVar[Need] = Need(targets=False, image_targets=True)
    predicts: ClassVar[bool] = True

    def __init__(
        self, settings: ImageLevelSettings, plan: Plan, configuration: Configuration, datasets: Datasets = OWN
    ) -> None:
        super().__init__(settings, plan, configuration, datasets)
        if not plan.image_targets:
            raise UsageError(
                f"task '{PART}'", "the plan has no image-level targets", "add image_targets to dataset.json, plan again"
            )

    def term_names(self) -> tuple[str, ...]:
        """The names of the targets."""
        return tuple(self.plan.image_targets)

    def build(self, parts: Parts) -> None:
        """Adds the "image_head"."""
        parts[NAME] = ImageHead(self.configuration.topology, self.plan.image_targets, self.settings.hidden)

    def started(self, parts: Parts) -> None:
        """The head learns how the values of the training cases are distributed."""
        image_head_of(parts).scale(self.datasets.scales)

    def losses(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """A term a target, the mean over the patches that have a value; 0 where none has."""
        return {
            one.name: ranks.ratio(
                F.cross_entropy(one.outputs, one.values.long(), reduction="sum")
                if one.target.classes
                else F.smooth_l1_loss(one.outputs[:, 0], one.values, reduction="sum"),
                len(one.values),
            )
            for one in self._known(parts, batch)
        }

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """Of each target that a patch has: accuracy, or the share of variance explained and the mean absolute error.

        The variance is that of the values of the training cases; the error is in the unit.
        """
        found: dict[str, Tensor] = {}
        spread = dict(zip(self.plan.image_targets, image_head_of(parts).spread, strict=True))
        for one in self._known(parts, batch):
            if not len(one.values):
                continue
            if one.target.classes:
                found[f"{one.name} accuracy"] = (one.outputs.argmax(1) == one.values).float().mean()
            else:
                error = one.outputs[:, 0] - one.values
                unit = f" in {one.target.unit}" if one.target.unit else ""
                found[f"{one.name} explained"] = 1 - error.square().mean()
                found[f"{one.name} error{unit}"] = error.abs().mean() * spread[one.name]
        return found

    def _known(self, parts: Parts, batch: Batch) -> Iterator[_Known]:
        head = image_head_of(parts)
        outputs = head.groups(head(parts["encoder"](batch.image)))
        values = head.standardised(batch.image_values())
        for (name, target), column in zip(self.plan.image_targets.items(), values.unbind(1), strict=True):
            has_value = ~column.isnan()
            yield _Known(name, target, outputs[name][has_value], column[has_value])
