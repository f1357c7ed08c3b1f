"""The shape of a U-Net as plain data, and how much memory it needs as a closed formula. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from selfcfg.records import Problem, Record, refuse

MAX_STAGES = 32
"""More halvings than the edge of any image allows."""

Count = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
"""A whole number from 1 upwards."""


class Topology(Record):
    """A U-Net of dynamic-network-architectures, stage by stage from full resolution to the bottleneck.

    Args:
        kind: "plain" (stacked convolutions) or "residual" (ResNet-D basic blocks and a stem).
        features: feature maps of each encoder stage.
        kernel_sizes: kernel of each stage, one entry an axis.
        strides: stride on entering each stage; the first is all ones.
        encoder_blocks: convolutions (plain) or residual blocks of each encoder stage.
        decoder_blocks: convolutions of each decoder stage, from full resolution downwards; one fewer than stages.
    """

    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required"))  # see `Configuration`

    kind: Literal["plain", "residual"] = "plain"
    features: Annotated[tuple[Count, ...], Field(min_length=1, max_length=MAX_STAGES)]
    kernel_sizes: tuple[tuple[Count, ...], ...]
    strides: tuple[tuple[Count, ...], ...]
    encoder_blocks: tuple[Count, ...]
    decoder_blocks: tuple[Count, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self._problems(), self)
        return self

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.strides[0])

    @property
    def n_stages(self) -> int:
        """Encoder stages, bottleneck included."""
        return len(self.features)

    @property
    def divisors(self) -> tuple[int, ...]:
        """What each edge of a patch must be a multiple of: the product of the strides along that axis."""
        return tuple(math.prod(along) for along in zip(*self.strides, strict=True))

    def narrowest(self, patch_size: Sequence[int]) -> int:
        """The smallest edge, in voxels, of a feature map along an axis that some kernel extends over.

        Args:
            patch_size: voxels along each axis of the network, multiples of `divisors`.
        """
        edges = tuple(patch_size)
        found = []
        for kernel, stride in zip(self.kernel_sizes, self.strides, strict=True):
            edges = tuple(edge // step for edge, step in zip(edges, stride, strict=True))
            covered = (max(width, step) > 1 for width, step in zip(kernel, stride, strict=True))
            found += [edge for edge, is_covered in zip(edges, covered, strict=True) if is_covered]
        return min(found, default=max(patch_size))

    def feature_elements(self, patch_size: Sequence[int], n_heads: int) -> int:
        """The number of values that the convolutions write for one patch: the planner's measure of memory.

        Counted are the outputs of every convolution and transposed convolution, of residual blocks also of the
        skip branch where it changes the shape, and the segmentation map at full resolution alone. Normalisations,
        non-linearities, the weights and the maps of deep supervision are not.

        Args:
            patch_size: voxels along each axis of the network, multiples of `divisors`.
            n_heads: channels of the segmentation map.

        Source: nnU-Net v2.8.1, ``compute_conv_feature_map_size`` of dynamic-network-architectures.
        """
        voxels = self._voxels(patch_size)
        encoder = sum(
            outputs * features * count
            for outputs, features, count in zip(self._encoder_outputs(), self.features, voxels, strict=True)
        )
        # zip stops before the bottleneck, which has no decoder stage
        decoder = sum(
            (blocks + 1) * features * count
            for blocks, features, count in zip(self.decoder_blocks, self.features, voxels, strict=False)
        )
        stem = self.features[0] * math.prod(patch_size) if self.kind == "residual" else 0
        head = n_heads * voxels[0] if self.decoder_blocks else 0
        return stem + encoder + decoder + head

    def _problems(self) -> Iterator[Problem]:
        """What contradicts itself, or what no network can be built of."""
        stages = self.n_stages
        for name in ("kernel_sizes", "strides", "encoder_blocks"):
            if (found := len(getattr(self, name))) != stages:
                yield Problem((name,), f"needs one entry for each of the {stages} stages of 'features', found {found}")
        if (found := len(self.decoder_blocks)) != stages - 1:
            yield Problem(("decoder_blocks",), f"needs {stages - 1} entries, one fewer than 'features', found {found}")
        if self.strides and max(self.strides[0], default=1) > 1:
            yield Problem(("strides", 0), f"must be all ones, found {list(self.strides[0])}")
        yield from self._problems_of_entries()

    def _problems_of_entries(self) -> Iterator[Problem]:
        lengths = Counter(map(len, (*self.kernel_sizes, *self.strides)))
        axes = lengths.most_common(1)[0][0] if lengths else 0
        if axes not in (2, 3):
            yield Problem(("strides",), f"needs 2 or 3 numbers a stage, found {axes}")
        for name in ("kernel_sizes", "strides"):
            for stage, entry in enumerate(getattr(self, name)):
                if len(entry) != axes:
                    yield Problem((name, stage), f"needs {axes} numbers like the others, found {list(entry)}")
        for stage, kernel in enumerate(self.kernel_sizes):
            for axis, width in enumerate(kernel):
                if width % 2 == 0:
                    yield Problem(("kernel_sizes", stage, axis), f"must be odd, found {width}")

    def saved_elements(self, patch_size: Sequence[int]) -> int:
        """The number of values that a training step keeps of one patch until its backward pass.

        Of every convolution in a block these are its output and what normalisation and non-linearity make of that; of
        a decoder stage also the output of its transposed convolution and the maps put together with it.

        Args:
            patch_size: voxels along each axis of the network, multiples of `divisors`.
        """
        voxels = self._voxels(patch_size)
        stem = 2 * self.features[0] * math.prod(patch_size) if self.kind == "residual" else 0
        encoder = sum(
            2 * outputs * features * count
            for outputs, features, count in zip(self._encoder_outputs(), self.features, voxels, strict=True)
        )
        decoder = sum(
            (2 * blocks + 3) * features * count
            for blocks, features, count in zip(self.decoder_blocks, self.features, voxels, strict=False)
        )
        return stem + encoder + decoder

    def n_parameters(self, in_channels: int, n_outputs: int) -> int:
        """The number of weights, biases and normalisation factors of the network, heads of all resolutions included.

        Args:
            in_channels: channels of the image.
            n_outputs: channels of the segmentation map.
        """
        kernels = [math.prod(kernel) for kernel in self.kernel_sizes]
        count, before = 0, in_channels
        if self.kind == "residual":
            count, before = _block(kernels[0], in_channels, self.features[0]), self.features[0]
        for kernel, features, blocks in zip(kernels, self.features, self.encoder_blocks, strict=True):
            convolutions = blocks if self.kind == "plain" else 2 * blocks
            count += _block(kernel, before, features) + (convolutions - 1) * _block(kernel, features, features)
            if self.kind == "residual" and features != before:
                count += before * features + 2 * features
            before = features
        below = zip(self.features, self.features[1:], self.strides[1:], kernels, self.decoder_blocks, strict=False)
        for features, deeper, stride, kernel, blocks in below:
            count += (deeper * math.prod(stride) + 1) * features
            count += _block(kernel, 2 * features, features) + (blocks - 1) * _block(kernel, features, features)
            count += (features + 1) * n_outputs
        return count

    def multiplications(self, patch_size: Sequence[int], in_channels: int) -> int:
        """Multiplications of the convolutions in one forward pass over a patch, heads left out.

        Args:
            patch_size: voxels along each axis of the network, multiples of `divisors`.
            in_channels: channels of the image.
        """
        voxels = self._voxels(patch_size)
        count, before = 0, in_channels
        if self.kind == "residual":
            count, before = (
                math.prod(self.kernel_sizes[0]) * in_channels * self.features[0] * voxels[0],
                self.features[0],
            )
        stages = zip(self.kernel_sizes, self.features, self.encoder_blocks, voxels, strict=True)
        for kernel, features, blocks, size in stages:
            more = (blocks if self.kind == "plain" else 2 * blocks) - 1
            count += math.prod(kernel) * (before + more * features) * features * size
            count += before * features * size if self.kind == "residual" and features != before else 0
            before = features
        below = zip(self.features, self.features[1:], self.kernel_sizes, self.decoder_blocks, voxels, strict=False)
        for features, deeper, kernel, blocks, size in below:
            count += deeper * features * size + math.prod(kernel) * (1 + blocks) * features * features * size
        return count

    def _voxels(self, patch_size: Sequence[int]) -> list[int]:
        """Voxels of the feature maps of each stage."""
        counts = []
        edges = tuple(patch_size)
        for stride in self.strides:
            edges = tuple(edge // step for edge, step in zip(edges, stride, strict=True))
            counts.append(math.prod(edges))
        return counts

    def _encoder_outputs(self) -> list[int]:
        """Tensors of the stage's size that each encoder stage writes."""
        if self.kind == "plain":
            return list(self.encoder_blocks)
        before = (self.features[0], *self.features)
        return [
            2 * blocks + (max(stride) > 1 or features != previous)
            for blocks, stride, features, previous in zip(
                self.encoder_blocks, self.strides, self.features, before, strict=False
            )
        ]


def _block(kernel: int, inputs: int, outputs: int) -> int:
    """Parameters of a convolution with bias and of the normalisation after it; `kernel` counts its voxels."""
    return (kernel * inputs + 3) * outputs
