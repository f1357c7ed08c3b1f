"""The head that tells image-level targets from the features of an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from selfcfg.image_targets import ImageTarget
from selfcfg.nets.heads import GlobalHead
from selfcfg.topology import Topology

PART, NAME = "image_level", "image_head"
"""The part of a trained model that holds it, and its name therein."""

_WIDTH = f"{PART}.{NAME}.pooled.mlp.0.weight"


class ImageHead(nn.Module):
    """One output a class of each classification, and one a regression, from pooled features.

    Regressions are told in standard deviations from the mean of the training cases, which are saved with the weights.

    Args:
        topology: of the encoder.
        targets: by name.
        hidden: see `GlobalHead`.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, topology: Topology, targets: Mapping[str, ImageTarget], hidden: int) -> None:
        super().__init__()
        self.targets = dict(targets)
        self.sizes = [target.n_outputs for target in targets.values()]
        self.pooled = GlobalHead(topology, sum(self.sizes), hidden)
        self.register_buffer("centre", torch.zeros(len(self.sizes)))
        self.register_buffer("spread", torch.ones(len(self.sizes)))

    def scale(self, scales: Mapping[str, tuple[float, float]]) -> None:
        """Takes over the mean and standard deviation of regressions; those that are not named get 0 and 1."""
        for index, name in enumerate(self.targets):
            self.centre[index], self.spread[index] = scales.get(name, (0.0, 1.0))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, outputs) float32 from the encoder's feature maps: logits, and standardised numbers."""
        outputs: Tensor = self.pooled(features).float()
        return outputs

    def groups(self, outputs: Tensor) -> dict[str, Tensor]:
        """The outputs (B, outputs) of each target."""
        return dict(zip(self.targets, torch.split(outputs, self.sizes, 1), strict=True))

    def standardised(self, values: Tensor) -> Tensor:
        """Values (B, targets) with each regression as its outputs have it, and classes by index."""
        return (values - self.centre) / self.spread

    def in_units(self, outputs: Tensor) -> Tensor:
        """Outputs (B, outputs) with the numbers of regressions in their units."""
        repeats = torch.tensor(self.sizes, device=outputs.device)
        return outputs * self.spread.repeat_interleave(repeats) + self.centre.repeat_interleave(repeats)


def image_head_like(tensors: Mapping[str, Tensor], topology: Topology, targets: Mapping[str, ImageTarget]) -> ImageHead:
    """A head, not initialised, for the weights of a trained model that has one: see `has_image_head`."""
    return ImageHead(topology, targets, len(tensors[_WIDTH]))


def has_image_head(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a trained model hold those of such a head."""
    return _WIDTH in tensors


def image_head_of(parts: nn.ModuleDict) -> ImageHead:
    """The head among the parts of a task."""
    return cast(ImageHead, parts[NAME])
