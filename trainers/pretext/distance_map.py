"""Signed distance maps of the labels: how far each voxel is from the surface of each structure."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from selfcfg.engine.trainer import Batch, Need, Parts
from selfcfg.kernels import ranks
from selfcfg.kernels.distance import SignedDistance, signed_distance
from selfcfg.kernels.losses import region_masks
from selfcfg.kernels.masking import Painted
from selfcfg.nets.heads import DenseHead
from selfcfg.trainers.pretext.task import Task, TaskSettings


class DistanceMapSettings(TaskSettings):
    """Where distances are cut."""

    limit: float = Field(10.0, gt=0, description="distances beyond it are cut to it")
    unit: Literal["mm", "voxels"] = Field("mm", description="of the limit and the distances")


class DistanceMap(Task[DistanceMapSettings]):
    """Predicts how far each voxel is from the surface of each class or region, positive outside, negative inside.

    The maps are made from the labels of the patch as augmentation left them, in parts of the limit; the loss is the
    mean squared error of their prediction, a tanh. Voxels that are not annotated, and those that lie nearer to such
    voxels than to the surface they know of, do not count.

    Source: Luo et al., Semi-supervised Medical Image Segmentation through Dual-task Consistency, 2021, for head and
    loss. Our choice: maps cut at a limit, where theirs are divided by their largest value, which in a patch depends on
    where it was cut; and the limit.
    """

    name: ClassVar[str] = "distance_map"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[TaskSettings]] = DistanceMapSettings
    terms: ClassVar[tuple[str, ...]] = ("distance",)
    need: ClassVar[Need] = Need(targets=True)
    trains_decoder: ClassVar[bool] = True
    is_regression: ClassVar[bool] = True
    weight: ClassVar[float] = 0.3

    def build(self, parts: Parts) -> None:
        """Adds "distances", a 1x1 convolution to one channel a class or region."""
        parts["distances"] = DenseHead(self.configuration.topology, len(self.plan.labels.targets))

    def losses(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The term "distance", a mean squared error in parts of the limit."""
        painted, wanted = self._predicted(parts, batch)
        return {"distance": ranks.ratio((painted - wanted).square().sum(), len(wanted))}

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The share of the maps' variance that is predicted, and the mean absolute error in the unit of the limit."""
        painted, wanted = self._predicted(parts, batch)
        if not len(wanted):
            return {}
        explained = Painted((painted - wanted).square().mean(), wanted.var(correction=0)).explained
        return {"explained": explained, f"error in {self.settings.unit}": _mean_error(painted, wanted) * self._limit}

    @property
    def _limit(self) -> float:
        return self.settings.limit

    def targets(self, labels: Tensor) -> SignedDistance:
        """The maps of label values (B, 1, [Z,] Y, X), one channel a class or region, in the unit of the limit."""
        configuration, ignore = self.configuration, self.plan.labels.ignore
        spacing = configuration.spacing if self.settings.unit == "mm" else (1.0,) * configuration.dimensions
        masks = region_masks(labels, tuple(self.plan.labels.targets.values()))
        unknown = None if ignore is None else labels == ignore
        return signed_distance(masks, spacing, self._limit, unknown)

    def _predicted(self, parts: Parts, batch: Batch) -> tuple[Tensor, Tensor]:
        """Prediction and target in parts of the limit, of the voxels that count."""
        features = parts["decoder"](parts["encoder"](batch.image))
        maps = self.targets(batch.labels())
        painted = torch.tanh(parts["distances"](features).float())
        return painted[maps.known], maps.values[maps.known] / self._limit


def _mean_error(painted: Tensor, wanted: Tensor) -> Tensor:
    return (painted - wanted).abs().mean()
