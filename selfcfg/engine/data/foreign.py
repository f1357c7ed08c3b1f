"""Another dataset's cases, and the plan that brings them to the network that is trained for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

from selfcfg.dataset import Case, Dataset, DatasetDescription
from selfcfg.engine.data.preprocess import preprocess
from selfcfg.engine.data.store import Store
from selfcfg.errors import DataError, SelfcfgError, counted
from selfcfg.files import hash_json
from selfcfg.fingerprint import ChannelStatistics
from selfcfg.geometry import Geometry, Vector
from selfcfg.io import read_header
from selfcfg.plan import Configuration, Plan
from selfcfg.progress import say
from selfcfg.project import Project

SAME_VIEW = 2.0
"""By what factor images may be larger or smaller than the target's before they are scaled to the same field of view."""

_UNKNOWN = ChannelStatistics(mean=0, std=1, min=0, max=0, median=0, percentile_00_5=0, percentile_99_5=0)


@dataclass(frozen=True)
class Foreign:
    """Another dataset's cases and the plan that suits them.

    Args:
        dataset: the cases; its description has the labels of the plan.
        plan: with one configuration, for these images.
    """

    dataset: Dataset
    plan: Plan

    @classmethod
    def of(
        cls, name: str, folder: Path, cases: Sequence[Case], plan: Plan, configuration: str, *, alike: bool
    ) -> Foreign:
        """The cases of a set of images, and a plan adapted to them.

        Args:
            name: of the set, for messages.
            folder: that they are from.
            cases: at least one.
            plan: of the dataset that the network is meant for.
            configuration: name within the plan.
            alike: see `selfcfg.engine.data.collection.gather`.

        Raises:
            DataError: an image cannot be read, or does not suit the network.
        """
        wanted = plan.configuration(configuration)
        headers = {case.id: _header(name, case) for case in cases}
        n_channels = headers[cases[0].id][0] if alike else len(plan.channels)
        for case, (count, geometry) in headers.items():
            asked = f"pretrain on case '{case}' of {name}"
            if count != n_channels:
                others = f"'{cases[0].id}' has" if alike else "the plan has"
                remedy = "give images of one kind" if alike else "leave it out, or use a trainer that draws one channel"
                raise DataError(asked, f"{counted(count, 'channel')}, {others} {n_channels}", remedy)
            if wanted.dimensions == 3 and geometry.dimensions == 2:
                raise DataError(asked, "a 2D image, the network is 3D", "leave it out, or train with -c 2d")
        channels = plan.channels if n_channels == len(plan.channels) else _numbered(n_channels)
        spacing = _spacing(name, [geometry for _, geometry in headers.values()], plan, wanted)
        description = DatasetDescription(
            channel_names={str(index): channel for index, channel in enumerate(channels)},
            labels=plan.labels.labels,
            regions_class_order=plan.labels.regions_class_order,
            numTraining=len(cases),
            file_ending=".nii.gz",
        )
        dataset = Dataset(root=folder, description=description, cases=tuple(cases))
        return cls(dataset, adapted(plan, configuration, channels, spacing, alike=alike))

    def preprocessed(self, project: Project, configuration: str, jobs: int, kind: str = "unlabelled") -> Store:
        """The preprocessed cases, in a folder of their kind beside those of the project; what is there is kept."""
        # folders of the same name have stores of their own
        place = hash_json(str(self.dataset.root.resolve()))[:8]
        folder = project.preprocessed / kind / f"{self.dataset.name}-{place}"
        folder /= f"{configuration}-{self.plan.preprocessing_hash(configuration)}"
        return preprocess(self.dataset, self.plan, configuration, folder, jobs=jobs)


def adapted(plan: Plan, configuration: str, channels: Sequence[str], spacing: Vector | None, *, alike: bool) -> Plan:
    """The plan with one configuration, for images with other channels or another spacing.

    Args:
        plan: of the dataset that the network is meant for.
        configuration: name within the plan.
        channels: of the images.
        spacing: that replaces the configuration's, or None.
        alike: see `selfcfg.engine.data.collection.gather`.
    """
    wanted = plan.configuration(configuration)
    changed: dict[str, Any] = {"after": None}
    if spacing is not None:
        changed["spacing"] = spacing
    if alike:
        changed |= {"normalization": ("zscore",) * len(channels), "use_mask_for_norm": (False,) * len(channels)}
    intensities = (_UNKNOWN,) * len(channels) if alike else plan.intensities
    return plan.model_copy(
        update={
            "channels": tuple(channels),
            "intensities": intensities,
            "configurations": {configuration: wanted.model_copy(update=changed)},
        }
    )


def _header(name: str, case: Case) -> tuple[int, Geometry]:
    try:
        headers = [read_header(file) for file in case.images]
    except SelfcfgError as error:
        raise DataError(f"pretrain on case '{case.id}' of {name}", error.found, error.remedy) from error
    return sum(count for count, _ in headers), headers[0][1]


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"channel {index}" for index in range(count))


def _spacing(name: str, geometries: Sequence[Geometry], plan: Plan, wanted: Configuration) -> Vector | None:
    """The spacing of images of another size, so that a patch shows as much of them; None: the plan's.

    Source: our choice. A patch that shows an eye of one image and half a chest of another is told by that alone.
    """
    order = plan.axis_order[3 - wanted.dimensions :]
    extents = [median(g.shape[axis] * g.spacing[axis] for g in geometries) for axis in order]
    theirs = [extent / step for extent, step in zip(extents, wanted.spacing[-len(order) :], strict=True)]
    ratios = [there / here for there, here in zip(theirs, wanted.median_shape[-len(order) :], strict=True)]
    ratio = math.prod(ratios) ** (1 / len(ratios))
    if 1 / SAME_VIEW <= ratio <= SAME_VIEW:
        return None
    say(f"{name}: images are {ratio:.2g} times as large as those of {plan.dataset}; scaled to the same field of view")
    scaled: Vector = cast(Vector, tuple(step * ratio for step in wanted.spacing))
    return scaled
