"""The planner ``standard``: nnU-Net's rules and plain U-Net, with the reason of every decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfcfg.dataset import DatasetDescription
from selfcfg.errors import DataError, UsageError
from selfcfg.fingerprint import ChannelStatistics, Fingerprint
from selfcfg.geometry import FLAT_SPACING, Vector
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration, Normalization, Plan, Reason
from selfcfg.planners import reasons
from selfcfg.planners.budget import Allowance, Budget, Fit, fit
from selfcfg.planners.lowres import low_resolution
from selfcfg.planners.normalization import scheme_of, uses_mask
from selfcfg.planners.spacing import COARSEST, FINEST, Array, TargetSpacing, axis_order, median_shape, target_spacing

PLAIN = Budget(
    kind="plain",
    reference_3d=560e6,
    reference_2d=85e6,
    gigabytes=8,
    coverage=0.05,
    encoder_blocks=(2,),
    decoder_blocks=2,
    shrinks_to_minimum=True,
)
"""Source: nnU-Net v2.8.1, ``ExperimentPlanner``."""

SLICES_ARE_SPARSE = "A 2D patch may hold little or nothing of a class; one alone would give a jumpy score."
PATCHES_ARE_SPARSE = "A patch shows so little of the image that it often lacks a class; one alone gives a jumpy score."

LONGEST = 1e9
"""Voxels along an edge that are planned for; no image comes near it."""
MOST_MEMORY = 1e6
"""Gigabytes that are planned for."""


@dataclass(frozen=True)
class RulePlanner:
    """nnU-Net's planning rules within one budget; a `selfcfg.engine.planner.Planner`.

    Args:
        name: entry-point name.
        summary: one line on what it is for, shown by `selfcfg list planners`.
        budget: the kind of network and how much of it fits a given accelerator.

    Source: nnU-Net v2.8.1, ``ExperimentPlanner.plan_experiment``.
    """

    name: str
    summary: str
    budget: Budget

    def __post_init__(self) -> None:
        # whoever lists planners reads their docstrings, and a planner may as well be a function
        object.__setattr__(self, "__doc__", self.summary)

    def __call__(
        self,
        fingerprint: Fingerprint,
        description: DatasetDescription,
        *,
        dataset: str,
        memory_gb: float | None = None,
        spacing: Vector | None = None,
    ) -> Plan:
        """The plan for a dataset; the arguments are those of `selfcfg.engine.planner.Planner`.

        Raises:
            UsageError: the memory or the spacing is not possible, or nothing fits the memory.
            DataError: the fingerprint is empty or of another dataset, or holds what no image has.
        """
        statistics = _statistics(fingerprint, description)
        memory = self.budget.gigabytes if memory_gb is None else memory_gb
        if not 0 < memory <= MOST_MEMORY:
            found = f"not a positive number of GB up to {MOST_MEMORY:g}"
            raise UsageError(f"--memory {memory:g}", found, "give the accelerator's memory")
        labels = description.schema_of_labels
        dimensions = _dimensions(fingerprint)
        if spacing is not None and dimensions == 2:
            spacing = (FLAT_SPACING, *spacing[1:])
        target = target_spacing(fingerprint, spacing)
        order = axis_order(target.values)
        relative_size = fingerprint.median_relative_size_after_cropping
        schemes = tuple(scheme_of(channel) for channel in description.channels)
        work = _Work(
            allowance=Allowance(self.budget, memory, len(labels.labels)),
            n_training=description.numTraining,
            spacing=target.values[list(order)],
            median_shape=median_shape(fingerprint, target.values)[list(order)],
            normalization=schemes,
            masks=tuple(uses_mask(scheme, relative_size) for scheme in schemes),
            pictures=dimensions == 2,
        )
        configurations, about_3d = work.configurations()
        mirror_axes, about_mirroring = _mirroring(fingerprint, labels, order, dimensions)
        return Plan(
            dataset=dataset,
            planner=self.name,
            memory_gb=memory,
            channels=description.channels,
            labels=labels,
            image_targets=description.image_meanings,
            axis_order=order,
            median_spacing=_median(fingerprint.spacings, order),
            median_shape=_median(fingerprint.shapes_after_crop, order),
            intensities=statistics,
            mirror_axes=mirror_axes,
            dimensions=dimensions,
            configurations=configurations,
            reasons=(
                reasons.memory(memory, given=memory_gb is not None),
                *_about_space(target, fingerprint, order, dimensions),
                *reasons.normalizations(description.channels, schemes, statistics),
                reasons.mask(work.masks, relative_size),
                about_3d,
                about_mirroring,
            ),
        )


@dataclass(frozen=True)
class _Work:
    """What all configurations are made from, axes in the plan's order."""

    allowance: Allowance
    n_training: int
    spacing: Array
    median_shape: Array
    normalization: tuple[Normalization, ...]
    masks: tuple[bool, ...]
    pictures: bool

    def configurations(self) -> tuple[dict[str, Configuration], Reason]:
        """The configurations by name, and why there are 3D ones and a cascade, or not."""
        spacing, shape = self.spacing.tolist(), self.median_shape.tolist()
        voxels = float(np.prod(self.median_shape)) * self.n_training
        flat = self._configuration(self._fit(spacing[1:], shape[1:], voxels), spacing[1:], shape[1:], SLICES_ARE_SPARSE)
        if shape[0] == 1:
            return {"2d": flat}, reasons.no_3d(shape, pictures=self.pictures)
        full = self._fit(spacing, shape, voxels)
        most = self.allowance.budget.most_voxels(3, self.allowance.memory_gb)
        low = low_resolution(full, self.spacing, self.median_shape, self.n_training, self._fit, most_voxels=most)
        about_low = reasons.low_resolution(low)
        if low.fit is None or low.spacing is None:
            return {"2d": flat, "3d_fullres": self._configuration(full, spacing, shape, "")}, about_low
        fullres = self._configuration(full, spacing, shape, PATCHES_ARE_SPARSE)
        cascade = fullres.model_copy(update={"after": "3d_lowres", "reasons": (reasons.cascade(),)})
        return {
            "2d": flat,
            "3d_lowres": self._configuration(low.fit, low.spacing, low.median_shape, ""),
            "3d_fullres": fullres,
            "3d_cascade_fullres": cascade,
        }, about_low

    def _fit(self, spacing: Sequence[float], shape: Sequence[float], voxels: float) -> Fit:
        return fit(self.allowance, spacing, shape, voxels)

    def _configuration(
        self, fitted: Fit, spacing: Sequence[float], shape: Sequence[float], batch_dice: str
    ) -> Configuration:
        return Configuration(
            spacing=tuple(spacing),
            patch_size=fitted.patch_size,
            batch_size=fitted.batch_size,
            median_shape=tuple(shape),
            normalization=self.normalization,
            use_mask_for_norm=self.masks,
            topology=fitted.topology,
            batch_dice=bool(batch_dice),
            memory_bytes=self.allowance.budget.memory_bytes(len(spacing), fitted.elements, fitted.batch_size),
            reasons=reasons.of_configuration(
                fitted, self.allowance.memory_gb, () if self.pictures else spacing, shape, batch_dice=batch_dice
            ),
        )


def _statistics(fingerprint: Fingerprint, description: DatasetDescription) -> tuple[ChannelStatistics, ...]:
    """The intensity statistics in the order of the channels, once the fingerprint is known to fit the dataset."""
    remedy = "measure the dataset again with `selfcfg fingerprint`"
    if not fingerprint.n_cases or len(fingerprint.shapes_after_crop) != fingerprint.n_cases:
        found = f"{fingerprint.n_cases} spacings and {len(fingerprint.shapes_after_crop)} shapes"
        raise DataError("plan from a fingerprint", found, remedy)
    limits = {
        "a spacing in mm": (fingerprint.spacings, FINEST, COARSEST),
        "an edge in voxels": (fingerprint.shapes_after_crop, 1, LONGEST),
    }
    for what, (cases, low, high) in limits.items():
        wrong = [value for case in cases for value in case if not low <= value <= high]
        if wrong:
            found = f"it holds {what} of {wrong[0]}, which is not from {low:g} to {high:g}"
            raise DataError("plan from a fingerprint", found, remedy)
    known = fingerprint.foreground_intensity_properties_per_channel
    if set(known) != {str(index) for index in range(len(description.channels))}:
        found = f"it holds {len(known)} channels, dataset.json names {len(description.channels)}"
        raise DataError("plan from a fingerprint", found, remedy)
    statistics = tuple(known[str(index)] for index in range(len(known)))
    for name, channel in zip(description.channels, statistics, strict=True):
        if not all(map(math.isfinite, channel.model_dump().values())):
            found = f"channel '{name}' has an intensity that is not a number: there was no foreground to measure"
            raise DataError("plan from a fingerprint", found, "check the labels, then " + remedy)
    return statistics


def _dimensions(fingerprint: Fingerprint) -> int:
    """2 when every case is a single 2D image, else 3."""
    pairs = zip(fingerprint.spacings, fingerprint.shapes_after_crop, strict=True)
    return 2 if all(spacing[0] == FLAT_SPACING and shape[0] == 1 for spacing, shape in pairs) else 3


def _about_space(
    target: TargetSpacing, fingerprint: Fingerprint, order: Sequence[int], dimensions: int
) -> list[Reason]:
    if dimensions == 2:
        return [reasons.picture_spacing(target)]
    rule = target_spacing(fingerprint) if target.rule == "given" else target
    return [reasons.spacing(target, rule, fingerprint.n_cases), reasons.axes(order, target)]


def _mirroring(
    fingerprint: Fingerprint, labels: LabelSchema, order: Sequence[int], dimensions: int
) -> tuple[tuple[int, ...], Reason]:
    """The axes of the plan's order along which mirroring is allowed, and why.

    With left-right pairs among the classes the left-right axis is left out; in pictures, which do not say how they
    are oriented, the horizontal one.
    """
    excluded: tuple[int, ...] = ()
    if labels.lateral_pairs:
        excluded = (2,) if dimensions == 2 else fingerprint.left_right_axes
    present = order[1:] if dimensions == 2 else order
    allowed = tuple(order.index(axis) for axis in present if axis not in excluded)
    return allowed, reasons.mirroring(allowed, order, labels, excluded=excluded, dimensions=dimensions)


def _median(values: Sequence[Sequence[float]], order: Sequence[int]) -> Vector:
    """The median over cases, axis by axis, in the plan's order."""
    middle = np.median(values, axis=0).tolist()
    first, second, third = order
    return middle[first], middle[second], middle[third]


plan = RulePlanner("standard", "nnU-Net's default rules: plain U-Nets for 8 GB or whatever --memory says.", PLAIN)
