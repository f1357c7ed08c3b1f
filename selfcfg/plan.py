"""What a planner decided, with the reason of every decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from selfcfg.errors import UsageError, nearest
from selfcfg.files import hash_json
from selfcfg.fingerprint import ChannelStatistics
from selfcfg.geometry import Vector
from selfcfg.labels import LabelSchema
from selfcfg.records import Record
from selfcfg.topology import Topology

Normalization = Literal["ct", "zscore", "none", "rescale_to_0_1", "rgb_to_0_1"]

PREPROCESSING_VERSION = 1
"""Counts changes of the preprocessing that change its output; part of every preprocessing hash."""


class Reason(Record):
    """One decision: what was decided, its value as text, by which rule, from which facts, and what would change it."""

    what: str
    value: str
    why: str
    change: str = ""


class Configuration(Record):
    """How one network sees the data. Axes are already in the plan's order (`Plan.axis_order` applied).

    Args:
        spacing: target spacing in mm; two numbers for a 2D configuration.
        patch_size: voxels of a training patch, one number an axis of the network.
        batch_size: patches in a batch.
        median_shape: median over cases of the shape at the target spacing.
        normalization: one scheme a channel.
        use_mask_for_norm: a channel, whether only voxels inside the non-zero mask are normalised and the rest stays 0.
        topology: the network.
        batch_dice: whether the Dice loss sums over the batch before it divides.
        after: the configuration whose predictions are extra input channels (a cascade), or None.
        memory_bytes: forecast accelerator memory of a training step.
        reasons: why each value is what it is.
    """

    spacing: tuple[float, ...]
    patch_size: tuple[int, ...]
    batch_size: int
    median_shape: tuple[float, ...]
    normalization: tuple[Normalization, ...]
    use_mask_for_norm: tuple[bool, ...]
    topology: Topology
    batch_dice: bool
    after: str | None = None
    memory_bytes: int | None = None
    reasons: tuple[Reason, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        axes = self.topology.dimensions
        for name in ("spacing", "patch_size", "median_shape"):
            if len(getattr(self, name)) != axes:
                raise ValueError(f"{name} needs {axes} numbers for this {axes}D network")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {self.batch_size}")
        for axis, size in enumerate(self.patch_size):
            factor = 1
            for stride in self.topology.strides:
                factor *= stride[axis]
            if size < 1 or size % factor:
                near = max(size // factor, 1) * factor
                raise ValueError(
                    f"patch_size along {'zyx'[axis - axes]} must be a multiple of {factor}, such as {near} or "
                    f"{near + factor}, found {size}"
                )
        return self

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return self.topology.dimensions

    def target_spacing(self, spacing: Vector) -> Vector:
        """The (z, y, x) spacing in mm a case of `spacing` is resampled to, both in the plan's axis order.

        A 2D configuration keeps the case's own distance of slices.
        """
        z, y, x = self.spacing if self.dimensions == 3 else (spacing[0], *self.spacing)
        return z, y, x

    def resized(self, *, batch_size: int | None, patch_size: Sequence[int] | None) -> Configuration:
        """The configuration with another batch or patch size; None keeps the planned one.

        Raises:
            DataError: the network cannot take that patch size.
        """
        changes = {"batch_size": batch_size, "patch_size": patch_size}
        given = {name: value for name, value in changes.items() if value is not None}
        return Configuration.parse({**self.model_dump(), **given}, "the network") if given else self


class Plan(Record):
    """Everything a planner decided for one dataset; preprocessing, network and prediction follow from it alone.

    Args:
        dataset: folder name of the dataset.
        planner: entry-point name of the planner.
        memory_gb: the accelerator memory it planned for.
        channels: names of the input channels in order.
        labels: meaning of the label values.
        axis_order: array axes (z, y, x) in the order the plan works in; the coarsest axis comes first.
        median_spacing: median spacing of the dataset in mm, in the plan's axis order.
        median_shape: median shape after cropping, in the plan's axis order.
        intensities: foreground statistics of each channel, for CT normalisation and the input check.
        mirror_axes: array axes (0 = first of the plan's order) along which mirroring is allowed.
        dimensions: 2 when every case is a 2D image, else 3.
        configurations: what was planned, by name.
        reasons: decisions that hold for all configurations.
    """

    format: Literal[1] = 1
    dataset: str
    planner: str
    memory_gb: float
    channels: tuple[str, ...]
    labels: LabelSchema
    axis_order: tuple[int, int, int]
    median_spacing: Vector
    median_shape: Vector
    intensities: tuple[ChannelStatistics, ...]
    mirror_axes: tuple[int, ...]
    dimensions: int
    configurations: dict[str, Configuration]
    reasons: tuple[Reason, ...] = ()

    def configuration(self, name: str) -> Configuration:
        """The configuration called `name`.

        Raises:
            UsageError: it was not planned; the message lists what was.
        """
        if name not in self.configurations:
            raise UsageError(f"configuration '{name}'", "not in this plan", nearest(name, self.configurations))
        return self.configurations[name]

    def input_channels(self, configuration: Configuration) -> int:
        """Channels that its network takes in: the image's and, in a cascade, one for each foreground value before."""
        return len(self.channels) + (len(self.labels.foreground_values) if configuration.after else 0)

    @property
    def default_configuration(self) -> str:
        """3d_fullres where planned, else 2d."""
        return "3d_fullres" if "3d_fullres" in self.configurations else "2d"

    def preprocessing_hash(self, name: str) -> str:
        """Eight hex digits over everything that changes a configuration's preprocessed files, and nothing else."""
        configuration = self.configuration(name)
        return hash_json(
            {
                "version": PREPROCESSING_VERSION,
                "axis_order": self.axis_order,
                "spacing": configuration.spacing,
                "normalization": configuration.normalization,
                "use_mask_for_norm": configuration.use_mask_for_norm,
                "labels": self.labels.model_dump(mode="json"),
                "intensities": [s.model_dump() for s in self.intensities]
                if "ct" in configuration.normalization
                else None,
            }
        )[:8]
