"""Restoration: the network undoes what was done to the intensities, the order and parts of an image."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from selfcfg.engine.trainer import Batch, Need, Parts
from selfcfg.kernels import ranks
from selfcfg.kernels.distort import Chances, distorted
from selfcfg.kernels.masking import Painted, compared
from selfcfg.nets.heads import DenseHead
from selfcfg.trainers.pretext.task import Task, TaskSettings


class RestorationSettings(TaskSettings):
    """How often images are changed in each way."""

    bend_p: float = Field(0.9, ge=0, le=1, description="share of the images whose intensities are bent")
    shuffle_p: float = Field(0.5, ge=0, le=1, description="share of the images whose voxels are shuffled in windows")
    paint_p: float = Field(0.9, ge=0, le=1, description="share of the images that are painted over in part")
    outside_p: float = Field(0.8, ge=0, le=1, description="share of these where all but some boxes is painted over")


class Restoration(Task[RestorationSettings]):
    """Restores images whose intensities were bent, whose voxels were shuffled, and which were painted over in part.

    The loss is the mean squared error of all voxels.

    Source: Zhou et al., Models Genesis, 2021, with its probabilities. Our choice: windows of shuffling lie on a grid,
    of which half are shuffled, and curves only rise; the image is not mirrored but by the augmentation.
    """

    name: ClassVar[str] = "restoration"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[TaskSettings]] = RestorationSettings
    terms: ClassVar[tuple[str, ...]] = ("restoration",)
    need: ClassVar[Need] = Need(targets=False)
    trains_decoder: ClassVar[bool] = True
    is_regression: ClassVar[bool] = True
    weight: ClassVar[float] = 0.5

    def build(self, parts: Parts) -> None:
        """Adds "restored", a 1x1 convolution to the image's channels."""
        parts["restored"] = DenseHead(self.configuration.topology, self.n_inputs)

    def losses(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The term "restoration": the mean squared error of all voxels, which have unit variance or so."""
        return {"restoration": self._restored(parts, batch.image).error}

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The share of the images' variance that is restored; the same changes whenever it is asked for."""
        return {"explained": self._restored(parts, batch.image, torch.Generator().manual_seed(0)).explained}

    def _restored(self, parts: Parts, image: Tensor, generator: torch.Generator | None = None) -> Painted:
        settings = self.settings
        chances = Chances(settings.bend_p, settings.shuffle_p, settings.paint_p, settings.outside_p)
        # what is drawn depends on what was drawn before, so the whole batch is changed
        changed = ranks.own(distorted(ranks.gathered(image), chances, generator))
        painted = parts["restored"](parts["decoder"](parts["encoder"](changed)))
        return compared(painted, image, torch.ones_like(image[:, :1], dtype=torch.bool))
