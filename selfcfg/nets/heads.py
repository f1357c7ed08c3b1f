"""Small networks on top of a U-Net's parts for tasks other than segmentation, and copies that follow a part slowly."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from selfcfg.topology import Topology

STAGES = 2
"""Encoder stages, lowest resolutions, that a global head looks at."""


class GlobalHead(nn.Module):
    """From the feature maps of an encoder to one vector an image.

    The maps of the last `STAGES` stages pass a 1x1 convolution and a nonlinearity before they are pooled, by mean and
    by maximum: behind an instance norm the plain mean of a map is nearly its bias, the same for every image (measured
    on untrained U-Nets: mean cosine of two images 0.999 for the pooled mean, 0.97 for the maximum).

    Args:
        topology: of the encoder.
        n_outputs: length of the vector.
        hidden: width of the layer before it.
    """

    def __init__(self, topology: Topology, n_outputs: int, hidden: int = 256) -> None:
        super().__init__()
        widths = topology.features[-STAGES:]
        self.mixers = _mixers(topology)
        self.mlp = nn.Sequential(
            nn.Linear(2 * sum(widths), hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, n_outputs)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, n_outputs) from the encoder's feature maps, full resolution first."""
        flat = (mixed.flatten(2) for mixed in _mixed(self.mixers, features))
        pooled = [vector for one in flat for vector in (one.mean(2), one.amax(2))]
        vector: Tensor = self.mlp(torch.cat(pooled, 1))
        return vector


class TileHead(nn.Module):
    """From the feature maps of an encoder to what was done to the tiles of an image: one class, and flags a tile.

    The maps of the last `STAGES` stages are mixed as by `GlobalHead`, but pooled within each tile.

    Args:
        topology: of the encoder.
        grid: tiles along each axis of the image.
        n_classes: that the whole image is told apart in.
        n_flags: of each tile.
        hidden: length of a tile's vector.
    """

    def __init__(
        self, topology: Topology, grid: Sequence[int], n_classes: int, n_flags: int, hidden: int = 128
    ) -> None:
        super().__init__()
        size, widths = tuple(grid), topology.features[-STAGES:]
        self.mixers = _mixers(topology)
        self.pools = nn.ModuleList(
            [nn.AdaptiveAvgPool2d(size), nn.AdaptiveMaxPool2d(size)]
            if topology.dimensions == 2
            else [nn.AdaptiveAvgPool3d(size), nn.AdaptiveMaxPool3d(size)]
        )
        self.tile = nn.Sequential(nn.Linear(2 * sum(widths), hidden), nn.LayerNorm(hidden), nn.GELU())
        self.whole = nn.Linear(math.prod(grid) * hidden, n_classes)
        self.flags = nn.Linear(hidden, n_flags)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, n_classes) and (B, tiles, n_flags) from the encoder's feature maps, full resolution first."""
        pooled = [pool(mixed).flatten(2) for mixed in _mixed(self.mixers, features) for pool in self.pools]
        tiles = self.tile(torch.cat(pooled, 1).transpose(1, 2))
        return self.whole(tiles.flatten(1)), self.flags(tiles)


class DenseHead(nn.Module):
    """One 1x1 convolution on the decoder's feature map of full resolution.

    Args:
        topology: of the decoder.
        n_outputs: channels of the result.
    """

    def __init__(self, topology: Topology, n_outputs: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if topology.dimensions == 2 else nn.Conv3d
        self.layer = convolution(topology.features[0], n_outputs, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, n_outputs, [Z,] Y, X) from the decoder's feature maps, full resolution first."""
        values: Tensor = self.layer(features[0])
        return values


def _mixers(topology: Topology) -> nn.ModuleList:
    """A 1x1 convolution and a nonlinearity for each of the last `STAGES` stages of an encoder."""
    convolution, widths = nn.Conv2d if topology.dimensions == 2 else nn.Conv3d, topology.features[-STAGES:]
    return nn.ModuleList(nn.Sequential(convolution(width, width, 1), nn.GELU()) for width in widths)


def _mixed(mixers: nn.ModuleList, features: Sequence[Tensor]) -> Iterator[Tensor]:
    """The last of an encoder's feature maps, each after its mixer."""
    return (mixer(feature) for mixer, feature in zip(mixers, features[-len(mixers) :], strict=True))


def momentum_copy(module: nn.Module) -> nn.Module:
    """A copy that gets no gradient; `follow` moves it."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(behind: nn.Module, ahead: nn.Module, momentum: float) -> None:
    """Moves the weights of `behind` towards those of `ahead`, by 1 - `momentum` of the way.

    Source: He et al., Momentum Contrast, 2020, equation 2.
    """
    torch._foreach_lerp_(list(behind.parameters()), [one.detach() for one in ahead.parameters()], 1 - momentum)


class Centre(nn.Module):
    """Takes a moving mean of vectors off vectors; saved with the run.

    Vectors of an encoder have much in common and little of their own. What they have in common moves as the encoder
    learns, so that in a queue it tells new keys from old ones: queries then follow the newest keys and all vectors
    become one. Measured on slices of hippocampus MR: the spread of the vectors fell from 0.19 to 0.04 and less in 120
    steps; without the mean it stayed above 0.8.

    Args:
        width: of a vector.
        momentum: share of the old mean that stays.

    Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021, equation 4.
    """

    mean: Tensor
    is_known: Tensor

    def __init__(self, width: int, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("is_known", torch.zeros((), dtype=torch.bool))

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (N, width) without the mean."""
        return vectors.float() - self.mean

    @torch.no_grad()
    def move(self, vectors: Tensor) -> None:
        """In training mode, moves the mean towards that of vectors (N, width); the first ones set it."""
        if self.training and len(vectors):
            new = vectors.float().mean(0)
            self.mean.copy_(torch.where(self.is_known, self.mean.lerp(new, 1 - self.momentum), new))
            self.is_known.fill_(True)


class Queue(nn.Module):
    """The newest vectors that were put in, each with numbers that tell where it is from; all saved with the run.

    Args:
        length: vectors kept.
        width: of a vector.
        tags: numbers beside each vector.
    """

    vectors: Tensor
    tags: Tensor
    filled: Tensor
    cursor: Tensor

    def __init__(self, length: int, width: int, tags: int = 1) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(length, width))
        self.register_buffer("tags", torch.zeros(length, tags))
        self.register_buffer("filled", torch.zeros(length, dtype=torch.bool))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, vectors: Tensor, tags: Tensor) -> None:
        """Puts vectors (N, width) with tags (N, tags) in the places of the oldest; of too many the last are kept."""
        vectors, tags = vectors[-len(self.vectors) :], tags[-len(self.vectors) :]
        places = (torch.arange(len(vectors), device=vectors.device) + self.cursor) % len(self.vectors)
        self.vectors[places], self.tags[places] = vectors.to(self.vectors.dtype), tags.to(self.tags.dtype)
        self.filled[places] = True
        self.cursor.copy_((self.cursor + len(vectors)) % len(self.vectors))
