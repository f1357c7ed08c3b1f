"""Masked reconstruction: the network paints what is hidden of an image from what is left."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from selfcfg.engine.trainer import Batch, Need, Parts
from selfcfg.kernels.masking import Painted, compared, hidden_blocks
from selfcfg.nets.heads import DenseHead
from selfcfg.trainers.pretext.task import Task, TaskSettings


class Hiding(TaskSettings):
    """What is hidden."""

    mask_ratio: float = Field(0.6, gt=0, lt=1, description="share of the blocks of a patch that are hidden")
    mask_block: int = Field(8, ge=1, description="edge of a hidden block in voxels, at most half the patch's")


class MaskedTask(Task[Hiding]):
    """Reconstructs hidden blocks of images.

    The hidden voxels are 0, the mean of a normalised image; the loss is the mean squared error over them alone.

    Source: He et al., Masked Autoencoders, 2022, for a U-Net, as Wald et al., Revisiting MAE pre-training for 3D
    medical image segmentation, 2024. Block and share are our choice for small patches; theirs: 16 voxels of 160, 75 %.
    """

    name: ClassVar[str] = "masked"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[TaskSettings]] = Hiding
    terms: ClassVar[tuple[str, ...]] = ("reconstruction",)
    need: ClassVar[Need] = Need(targets=False)
    trains_decoder: ClassVar[bool] = True
    is_regression: ClassVar[bool] = True
    weight: ClassVar[float] = 0.5

    def build(self, parts: Parts) -> None:
        """Adds "reconstruction", a 1x1 convolution to the image's channels."""
        parts["reconstruction"] = DenseHead(self.configuration.topology, self.n_inputs)

    def losses(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The term "reconstruction": mean squared error of the hidden voxels, which have unit variance or so."""
        return {"reconstruction": repainted(parts, batch.image, self.settings).error}

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The share of the hidden voxels' variance that is reconstructed; the same blocks whenever it is asked for."""
        generator = torch.Generator().manual_seed(0)
        return {"explained": repainted(parts, batch.image, self.settings, generator).explained}


def repainted(parts: Parts, image: Tensor, settings: Hiding, generator: torch.Generator | None = None) -> Painted:
    """How well "encoder", "decoder" and "reconstruction" paint hidden blocks of images (B, C, [Z,] Y, X).

    Args:
        parts: of the network.
        image: hidden voxels are 0 in what the network sees of it.
        settings: how much is hidden.
        generator: draws the blocks; None: torch's global one.
    """
    mask = hidden_blocks(image, settings.mask_block, settings.mask_ratio, generator)
    painted = parts["reconstruction"](parts["decoder"](parts["encoder"](image.masked_fill(mask, 0))))
    return compared(painted, image, mask)
