"""The largest patch, the network and the batch that fit a memory budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from selfcfg.errors import UsageError
from selfcfg.topology import Topology

MIN_EDGE = 4
"""Smallest edge of a feature map in voxels."""
BASE_FEATURES = 32
MAX_FEATURES = {2: 512, 3: 320}
MIN_BATCH = 2
REFERENCE_BATCH = {2: 12, 3: 2}
"""Batch size that the budgets' reference values stand for, by dimensions."""
START_EDGE = {2: 2048, 3: 256}
"""Edge in voxels of the square or cube whose content the first patch has before it is cut to the median image."""


@dataclass(frozen=True)
class Budget:
    """The constants of one planner: its network and how much of it fits a given accelerator.

    Args:
        kind: see `Topology`.
        reference_3d: feature elements of one 3D patch of which `REFERENCE_BATCH` fit `gigabytes`.
        reference_2d: the same of a 2D patch.
        gigabytes: accelerator memory that the references stand for; also the default to plan for.
        coverage: largest share of the dataset's voxels in one batch.
        encoder_blocks: blocks of each encoder stage; the last number holds for all further stages.
        decoder_blocks: convolutions of every decoder stage.
        shrinks_to_minimum: whether the patch only shrinks until a batch of `MIN_BATCH` fits, rather than until the
            reference batch does. In 2D that keeps patches larger and batches smaller.

    Source: nnU-Net v2.8.1, experiment planners.
    """

    kind: Literal["plain", "residual"]
    reference_3d: float
    reference_2d: float
    gigabytes: float
    coverage: float
    encoder_blocks: tuple[int, ...]
    decoder_blocks: int
    shrinks_to_minimum: bool

    def elements(self, dimensions: int, memory_gb: float) -> float:
        """Feature elements of one patch that may be used, if the batch is `REFERENCE_BATCH`."""
        reference = self.reference_2d if dimensions == 2 else self.reference_3d
        return reference * (memory_gb / self.gigabytes)

    def most_voxels(self, dimensions: int, memory_gb: float) -> float:
        """A number of voxels that no patch exceeds: each costs at least what the first stage writes."""
        convolutions = self.encoder_blocks[0] if self.kind == "plain" else 1 + 2 * self.encoder_blocks[0]
        allowed = self.elements(dimensions, memory_gb)
        if self.shrinks_to_minimum:
            allowed *= REFERENCE_BATCH[dimensions] / MIN_BATCH
        return allowed / (convolutions * BASE_FEATURES)

    def memory_bytes(self, dimensions: int, elements: int, batch_size: int) -> int:
        """A rough forecast of the accelerator memory of a training step, in mixed precision.

        It scales the measured pair (reference elements at the reference batch, gigabytes) linearly, which is 6 to 8
        bytes for each feature element. Good to about a third: what does not grow with the patch (weights, optimiser,
        workspace) is not seen by it.
        """
        at_reference = self.elements(dimensions, self.gigabytes) * REFERENCE_BATCH[dimensions]
        return round(self.gigabytes * 2**30 * elements * batch_size / at_reference)


@dataclass(frozen=True)
class Allowance:
    """What a configuration may use.

    Args:
        budget: the planner's constants.
        memory_gb: accelerator memory to plan for.
        n_heads: entries of the ``labels`` of dataset.json, which the reference takes for channels of the head.
    """

    budget: Budget
    memory_gb: float
    n_heads: int


@dataclass(frozen=True)
class Fit:
    """A patch, a network and a batch that fit, with the numbers that led there.

    Args:
        patch_size: voxels.
        batch_size: patches.
        topology: the network.
        elements: feature elements of one patch.
        start: patch that has the aspect of the voxels in mm and the content of `START_EDGE`.
        clipped: `start` cut to the median image.
        padded: `clipped` rounded up so that the network can halve it: the first patch that was tried.
        n_shrinks: how often the patch had to give way to memory.
        batch_by_memory: the batch that memory allows.
        batch_by_coverage: the batch that the size of the dataset allows.
        coverage: the largest share of the dataset's voxels in one batch, which that comes from.
    """

    patch_size: tuple[int, ...]
    batch_size: int
    topology: Topology
    elements: int
    start: tuple[int, ...]
    clipped: tuple[float, ...]
    padded: tuple[int, ...]
    n_shrinks: int
    batch_by_memory: int
    batch_by_coverage: int
    coverage: float


def fit(allowance: Allowance, spacing: Sequence[float], median_shape: Sequence[float], voxels: float) -> Fit:
    """The largest patch in the aspect of the image whose network fits the memory, and the batch that then still fits.

    Args:
        allowance: what may be used.
        spacing: mm along each axis of the network, two or three.
        median_shape: median image in voxels at that spacing.
        voxels: of the whole dataset at that spacing, for the limit on the batch.

    Raises:
        UsageError: not even the smallest patch fits.

    Source: nnU-Net v2.8.1, ``get_plans_for_configuration``.
    """
    budget, n_heads = allowance.budget, allowance.n_heads
    start = _start(spacing)
    clipped = tuple(min(edge, limit) for edge, limit in zip(start, median_shape, strict=True))
    allowed = budget.elements(len(spacing), allowance.memory_gb)
    reference_batch = REFERENCE_BATCH[len(spacing)]
    padded, topology = network(budget, spacing, clipped)
    patch, n_shrinks = padded, 0
    elements = topology.feature_elements(patch, n_heads)
    while (elements / reference_batch * MIN_BATCH if budget.shrinks_to_minimum else elements) > allowed:
        smaller = _shrink(spacing, patch, topology.divisors, median_shape)
        if smaller is None:
            asked = f"plan for {allowance.memory_gb:g} GB"
            raise UsageError(asked, "not even the smallest patch fits", "give more --memory")
        patch, topology = network(budget, spacing, smaller)
        elements = topology.feature_elements(patch, n_heads)
        n_shrinks += 1
    by_memory = round(allowed / elements * reference_batch)
    by_coverage = round(voxels * budget.coverage / math.prod(patch))
    return Fit(
        patch_size=patch,
        batch_size=max(min(by_memory, by_coverage), MIN_BATCH),
        topology=topology,
        elements=elements,
        start=start,
        clipped=clipped,
        padded=padded,
        n_shrinks=n_shrinks,
        batch_by_memory=by_memory,
        batch_by_coverage=by_coverage,
        coverage=budget.coverage,
    )


def network(budget: Budget, spacing: Sequence[float], size: Sequence[float]) -> tuple[tuple[int, ...], Topology]:
    """`size` rounded up to what its network can halve, and that network.

    Args:
        budget: the planner's constants.
        spacing: mm along each axis.
        size: voxels along each axis; may be fractions, as medians are.
    """
    strides, kernels = pooling(tuple(spacing), tuple(size))
    topology = _topology(budget, strides, kernels)
    patch = tuple(math.ceil(edge / step) * step for edge, step in zip(size, topology.divisors, strict=True))
    return patch, topology


@lru_cache(maxsize=1)  # what `_shrink` tried is most often the next patch
def pooling(
    spacing: tuple[float, ...], size: tuple[float, ...]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """The strides and the kernel sizes of each stage of a network for patches of `size` voxels.

    Each stage halves the axes that still have eight voxels and are less than twice as coarse as the finest of these,
    unless it would be a single axis of fewer than twelve. A kernel has width 1 along an axis until its spacing comes
    within a factor two of the finest; the bottleneck always has width 3.

    Source: nnU-Net v2.8.1, ``get_pool_and_conv_props``.
    """
    axes = range(len(spacing))
    current, edges = [float(value) for value in spacing], list(size)
    strides, kernels = [(1,) * len(spacing)], []
    kernel = [1] * len(spacing)
    while large := [axis for axis in axes if edges[axis] >= 2 * MIN_EDGE]:
        finest = min(current[axis] for axis in large)
        halved = [axis for axis in large if current[axis] / finest < 2]
        if len(halved) == 1 and edges[halved[0]] < 3 * MIN_EDGE:
            break
        finest_of_all = min(current)
        close = [value / finest_of_all < 2 for value in current]
        kernel = [3 if width == 3 or near else 1 for width, near in zip(kernel, close, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        for axis in halved:
            current[axis] *= 2
            edges[axis] = math.ceil(edges[axis] / 2)
    kernels.append((3,) * len(spacing))
    return tuple(strides), tuple(kernels)


def _start(spacing: Sequence[float]) -> tuple[int, ...]:
    """The patch that spans the same mm along each axis and holds `START_EDGE` to the power of the dimensions."""
    density = 1 / np.array(spacing, dtype=np.float64)
    n = len(spacing)
    edges = density * (START_EDGE[n] ** n / np.prod(density)) ** (1 / n)
    return tuple(max(round(edge), 1) for edge in edges)


@lru_cache(maxsize=256)
def _topology(budget: Budget, strides: tuple[tuple[int, ...], ...], kernels: tuple[tuple[int, ...], ...]) -> Topology:
    n = len(strides)
    widest = MAX_FEATURES[len(strides[0])]
    blocks = budget.encoder_blocks + (budget.encoder_blocks[-1],) * n
    return Topology(
        kind=budget.kind,
        features=tuple(min(widest, BASE_FEATURES * 2**stage) for stage in range(n)),
        kernel_sizes=kernels,
        strides=strides,
        encoder_blocks=blocks[:n],
        decoder_blocks=(budget.decoder_blocks,) * (n - 1),
    )


def _shrink(
    spacing: Sequence[float], patch: tuple[int, ...], divisors: tuple[int, ...], median_shape: Sequence[float]
) -> tuple[int, ...] | None:
    """The patch with its largest edge, relative to the image, cut; None when every edge is one voxel.

    The cut is the step of the network that the patch would have one step of its own down: from 256 (step 64) that
    gives 224, where taking its own step would jump to 192.
    """
    axes = [axis for axis in range(len(patch)) if patch[axis] > 1]
    if not axes:
        return None
    axis = max(axes, key=lambda axis: (patch[axis] / median_shape[axis], axis))
    lower = tuple(edge - divisors[axis] * (index == axis) for index, edge in enumerate(patch))
    strides, _ = pooling(tuple(spacing), lower)
    step = math.prod(stride[axis] for stride in strides)
    return tuple(edge - step * (index == axis) for index, edge in enumerate(patch))
