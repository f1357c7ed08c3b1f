"""What a plan takes of a machine, from its numbers alone: disk, memory and passes of the network. No torch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from selfcfg.errors import SelfcfgError
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import Shape, Vector
from selfcfg.kernels.resample import new_shape
from selfcfg.kernels.tiles import tile_starts
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import say

PROCESS_BYTES = 400 * 2**20
"""What a process takes before it holds any image: interpreter, numpy, torch. Measured: 280-400 MB."""

LEAST_VOXEL_BYTES = 0.5
SECONDS_PER_BYTE, SECONDS_PER_CASE, SECONDS_TO_START = 1.5e-9, 0.01, 0.6
"""Time to preprocess on one core: by the memory a case takes and for each case; and to start a process.

Source: measured; the last: benchmarks/worker_start.py.
"""

MULTIPLICATIONS_A_SECOND = 3e10
"""Of a processor's core in training; between half and three times that on the machines tried."""


def resampled_shapes(facts: Fingerprint, plan: Plan, configuration: Configuration) -> dict[str, Shape]:
    """The shape of each case as preprocessed for a configuration, in the plan's axis order.

    Args:
        facts: the dataset's fingerprint; one of nnU-Net names no cases, which are then numbered.
        plan: what was planned.
        configuration: one of the plan's.
    """
    first, second, third = plan.axis_order
    names = [case.case for case in facts.cases] or [str(number) for number in range(facts.n_cases)]
    shapes = {}
    for name, size, mm in zip(names, facts.shapes_after_crop, facts.spacings, strict=True):
        spacing: Vector = mm[first], mm[second], mm[third]
        shape: Shape = size[first], size[second], size[third]
        shapes[name] = new_shape(shape, spacing, configuration.target_spacing(spacing))
    return shapes


def n_passes(shape: Shape, plan: Plan, configuration: Configuration, *, step: float = 0.5) -> int:
    """How often the network runs over a patch to predict an image of this shape, mirrored copies included."""
    slices = 3 - configuration.dimensions
    pairs = zip(shape[slices:], configuration.patch_size, strict=True)
    along = [len(tile_starts(max(length, size), size, step)) for length, size in pairs]
    mirrors = [axis for axis in plan.mirror_axes if axis >= slices]
    return math.prod((*shape[:slices], *along)) << len(mirrors)


def total_passes(shapes: Sequence[Shape], plan: Plan, configuration: Configuration) -> int:
    """`n_passes` of several images."""
    return sum(n_passes(shape, plan, configuration) for shape in shapes)


def store_bytes(shapes: Sequence[Shape], plan: Plan, voxel_bytes: float = 3.6) -> int:
    """Disk that preprocessed cases of these shapes take at most; with `LEAST_VOXEL_BYTES` at least.

    Measured on six real datasets: 2.5 to 3.6 bytes a voxel and channel; 0.6 for CT that is mostly empty.
    """
    voxels = sum(math.prod(shape) for shape in shapes)
    return round(voxels * (voxel_bytes * len(plan.channels) + 0.1)) + len(shapes) * 100_000


def case_bytes(before: Shape, after: Shape, n_channels: int) -> int:
    """Memory of a process that preprocesses a case of a shape into another one, at most."""
    return PROCESS_BYTES + math.prod(before) * (4 * n_channels + 16) + math.prod(after) * (4 * n_channels + 12)


def preprocessing_seconds(needed: Iterable[int]) -> float:
    """Time to preprocess cases of which each needs so many bytes (`case_bytes`), on one core."""
    return sum((size - PROCESS_BYTES) * SECONDS_PER_BYTE + SECONDS_PER_CASE for size in needed)


def training_bytes(plan: Plan, configuration: Configuration, value_bytes: int) -> int:
    """Memory of a process that trains on a processor, to a tenth.

    The maps that the backward pass needs, and for each weight itself, gradient, momentum and the copies in which the
    kernels want it.

    Args:
        plan: what was planned.
        configuration: the one to train, with the batch and patch size of the training.
        value_bytes: 2 in bfloat16, 4 in float32.

    Source: measured: benchmarks/forecast.py.
    """
    topology = configuration.topology
    maps = topology.saved_elements(configuration.patch_size) * configuration.batch_size * value_bytes
    weights = topology.n_parameters(plan.input_channels(configuration), plan.labels.n_outputs)
    return PROCESS_BYTES + maps + 16 * weights + 80 * 2**20


def prediction_bytes(shape: Shape, plan: Plan, configuration: Configuration) -> int:
    """Memory of a process that predicts an image of a shape on a processor, at most: image, sums of logits, weights."""
    values = plan.input_channels(configuration) + 2 * plan.labels.n_outputs
    weights = configuration.topology.n_parameters(plan.input_channels(configuration), plan.labels.n_outputs)
    widest = 4 * configuration.topology.features[0] * math.prod(configuration.patch_size)
    return PROCESS_BYTES + 4 * (math.prod(shape) * values + weights + widest)


def rough_step_seconds(plan: Plan, configuration: Configuration, cores: int) -> float:
    """A training step on a processor, to the order of magnitude; `selfcfg forecast` measures it."""
    one = configuration.topology.multiplications(configuration.patch_size, plan.input_channels(configuration))
    return 3 * one * configuration.batch_size / (cores * MULTIPLICATIONS_A_SECOND)


def refuse_full_disk(folder: Path, shapes: Sequence[Shape], plan: Plan) -> None:
    """Nothing, where preprocessed cases of these shapes fit on the disk; a warning where they may not.

    Raises:
        SelfcfgError: they cannot.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free, most = shutil.disk_usage(existing).free, store_bytes(shapes, plan)
    found = f"the preprocessed cases take up to {gigabytes(most)}, {gigabytes(free)} are free"
    if store_bytes(shapes, plan, LEAST_VOXEL_BYTES) > free:
        raise SelfcfgError(f"write into {folder}", found, "free some space, or choose another --workspace")
    if most > free:
        say(f"warning: {found} at {folder}")


def gigabytes(size: float) -> str:
    """A number of bytes in words: "0.35 GB"."""
    return f"{size / 2**30:.2g} GB" if size < 100 * 2**30 else f"{size / 2**30:.0f} GB"
