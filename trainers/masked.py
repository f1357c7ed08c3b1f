"""Masked reconstruction: the network paints what is hidden of an image from what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from selfcfg.engine.trainer import Batch, Parts, Settings
from selfcfg.kernels.masking import block_mask
from selfcfg.nets.heads import DenseHead
from selfcfg.nets.unet import build_parts
from selfcfg.trainers.pretraining import UNLABELLED, Pretraining, PretrainingSettings

_LEAST_VARIANCE = 0.01
"""Variance of a patch in which there is something to see; images are normalised to 1."""


class MaskedSettings(PretrainingSettings):
    """The settings of pretraining, and what is hidden."""

    mask_ratio: float = Field(0.6, gt=0, lt=1, description="share of the blocks of a patch that are hidden")
    mask_block: int = Field(8, ge=1, description="edge of a hidden block in voxels, at most half the patch's")


class Masked(Pretraining[MaskedSettings]):
    """Pretrains encoder and decoder by the reconstruction of hidden blocks of images.

    The hidden voxels are 0, the mean of a normalised image; the loss is the mean squared error over them alone.

    Source: He et al., Masked Autoencoders, 2022, for a U-Net, as Wald et al., Revisiting MAE pre-training for 3D
    medical image segmentation, 2024. Block and share are our choice for small patches; theirs: 16 voxels of 160, 75 %.
    """

    name: ClassVar[str] = "masked"
    settings_type: ClassVar[type[Settings]] = MaskedSettings

    def build(self) -> Parts:
        """Encoder, decoder and "reconstruction", a 1x1 convolution to the image's channels."""
        topology = self.configuration.topology
        parts = build_parts(topology, self.n_inputs, 1)
        del parts["head"]
        parts["reconstruction"] = DenseHead(topology, self.n_inputs)
        return parts

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """One group: "reconstruction", the mean squared error of the hidden voxels, which have unit variance or so."""
        image = batches[UNLABELLED].image
        yield {"reconstruction": self._errors(parts, image, self._mask(image))[0]}

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The share of the hidden voxels' variance that is reconstructed; the same blocks whenever it is asked for.

        Patches of nothing but air count as if they had a little variance, else one of them would decide the mean.
        """
        mask = self._mask(batch.image, torch.Generator().manual_seed(0))
        error, variance = self._errors(parts, batch.image, mask)
        return {"explained": 1 - error / variance.clamp_min(_LEAST_VARIANCE)}

    def _errors(self, parts: Parts, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error of the hidden voxels, and their variance."""
        painted = parts["reconstruction"](parts["decoder"](parts["encoder"](image.masked_fill(mask, 0))))
        hidden = mask.expand_as(image)
        wanted = image[hidden].float()
        return (painted[hidden].float() - wanted).square().mean(), wanted.var(correction=0)

    def _mask(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        size = tuple(image.shape[2:])
        block = [max(1, min(self.settings.mask_block, edge // 2)) for edge in size]
        return block_mask(len(image), size, block, self.settings.mask_ratio, generator).to(image.device)
