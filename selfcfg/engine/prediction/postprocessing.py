"""Steps that remove connected components from a predicted label map: the same in their choice and in prediction.

A class or region is a part; parts are nested: all foreground holds every class, and a region those within it. So a
component of a part lies in just one component of the part around it, and goes where that one goes. What each step
removes therefore follows from numbers about components alone, and an image is needed only to take the voxels away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.export import LabelMap
from selfcfg.errors import DataError
from selfcfg.geometry import Geometry
from selfcfg.kernels.components import connected_components
from selfcfg.labels import LabelSchema
from selfcfg.records import Record

Kind = Literal["min_size", "min_mean_probability", "min_max_probability", "keep_largest"]
ORDER: tuple[Kind, ...] = ("min_size", "min_mean_probability", "min_max_probability", "keep_largest")
"""In which the steps of one part follow each other."""

OF_PROBABILITY = ("min_mean_probability", "min_max_probability")


_COMPARED = {
    "min_size": "size",
    "min_mean_probability": "mean probability",
    "min_max_probability": "highest probability",
}


class Step(Record):
    """One step: which components go.

    Args:
        kind: keep_largest: all but the largest of each image; min_size: those smaller than the value;
            min_mean_probability, min_max_probability: those whose mean or highest probability is below the value.
        target: the class or region whose components these are; None: all foreground as one.
        value: the least that is kept; 0 with keep_largest.
        unit: of a size: "mm3", "mm2" or "px"; else empty.
    """

    kind: Kind
    target: str | None = None
    value: float = 0.0
    unit: Literal["mm3", "mm2", "px", ""] = ""

    def __str__(self) -> str:
        of = "all foreground together" if self.target is None else self.target
        if self.kind == "keep_largest":
            return f"{of}: only the largest component"
        return f"{of}: only components of {_COMPARED[self.kind]} {self.value:.4g} {self.unit}".rstrip() + " and more"


@dataclass(frozen=True)
class Part:
    """A mask of a label map whose components can be removed.

    Args:
        name: of the class or region; None for all foreground.
        values: that belong to it.
        parent: index of the smallest part around it, or None.
        left: the value that removed voxels take: that of the part around it.
        output: index of its probabilities among the outputs; None for all foreground.
    """

    name: str | None
    values: tuple[int, ...]
    parent: int | None
    left: int
    output: int | None


@dataclass(frozen=True)
class Components:
    """Numbers about the components of one part, in one image or in many; an entry a component.

    Args:
        case: index of its image.
        parent: index of the component of the parent part that it lies in; 0 without a parent.
        size: in the unit of sizes.
        mean: mean probability; NaN where none was given.
        highest: highest probability; NaN where none was given.
    """

    case: NDArray[np.intp]
    parent: NDArray[np.intp]
    size: NDArray[np.float64]
    mean: NDArray[np.float64]
    highest: NDArray[np.float64]

    @cached_property
    def by_size(self) -> NDArray[np.intp]:
        """Their indices image by image, in each the largest first, of equally large ones the first."""
        return np.lexsort((np.arange(len(self.case)), -self.size, self.case))


def parts_of(labels: LabelSchema) -> tuple[Part, ...]:
    """All foreground, where it is more than one class, then every class or region, outer ones first.

    Raises:
        DataError: two regions overlap and neither holds the other, or no value says that a voxel is in the outer region
            alone; then components of regions cannot be removed one by one.
    """
    everything = labels.foreground_values
    named = list(labels.targets.items())
    outputs = {name: index for index, (name, _) in enumerate(named)}
    if not labels.has_regions:
        outputs = {name: values[0] for name, values in named}
    named.sort(key=lambda entry: -len(entry[1]))
    whole = any(set(values) == set(everything) for _, values in named)
    parts = [] if whole else [Part(None, everything, None, 0, None)]
    for name, values in named:
        around = [index for index, part in enumerate(parts) if set(values) <= set(part.values)]
        _refuse_crossing(name, values, parts)
        regions = {found.name for found in (parts[index] for index in around) if found.name is not None}
        left = _value_within(regions, labels) if regions else 0
        if left is None:
            found = f"no value says that a voxel is in {' and '.join(sorted(regions))}, but not in {name}"
            raise DataError(f"remove components of {name}", found, "leave post-processing out")
        parts.append(Part(name, values, around[-1] if around else None, left, outputs[name]))
    return tuple(parts)


def needs_probabilities(steps: Sequence[Step]) -> bool:
    """Whether some step looks at probabilities."""
    return any(step.kind in OF_PROBABILITY for step in steps)


def voxel_size(geometry: Geometry, dimensions: int) -> float:
    """What a voxel counts in sizes: mm3; of models of pictures mm2, which are pixels where these have no size."""
    return geometry.voxel_volume if dimensions == 3 else geometry.spacing[1] * geometry.spacing[2]


def components_of(
    labels: LabelMap, probabilities: NDArray[Any] | None, size: float, parts: Sequence[Part]
) -> list[tuple[NDArray[np.int32], Components]]:
    """Of each part of one image, its components (Z, Y, X) numbered from 1, and the numbers about them.

    Args:
        labels: (Z, Y, X).
        probabilities: (K, Z, Y, X), or None.
        size: of a voxel.
        parts: see `parts_of`.
    """
    found: list[tuple[NDArray[np.int32], Components]] = []
    for part in parts:
        places, count = connected_components(np.isin(labels, part.values))
        inside = np.flatnonzero(places)
        owner = places.reshape(-1)[inside] - 1
        voxels = np.bincount(owner, minlength=count)
        parent = np.zeros(count, dtype=np.intp)
        if part.parent is not None:
            parent[owner] = found[part.parent][0].reshape(-1)[inside] - 1
        mean, highest = np.full(count, np.nan), np.full(count, np.nan)
        if probabilities is not None and part.output is not None:
            sure = probabilities[part.output].reshape(-1)[inside].astype(np.float64)
            mean = np.bincount(owner, weights=sure, minlength=count) / voxels
            highest = np.zeros(count)
            np.maximum.at(highest, owner, sure)
        found.append(
            (places, Components(np.zeros(count, dtype=np.intp), parent, voxels * np.float64(size), mean, highest))
        )
    return found


def survivors(
    parts: Sequence[Part], components: Sequence[Components], steps: Sequence[Step]
) -> list[NDArray[np.bool_]]:
    """Of each part, which components are left after some steps, one after the other."""
    left = [np.ones(len(one.case), dtype=bool) for one in components]
    index = {part.name: place for place, part in enumerate(parts)}
    for step in steps:
        place = index[step.target]
        one = components[place]
        if step.kind == "keep_largest":
            left[place] = largest(one, left[place])
        else:
            left[place] = left[place] & (measure(one, step.kind) >= step.value)
        inherit(parts, components, left)
    return left


def measure(components: Components, kind: Kind) -> NDArray[np.float64]:
    """What a step of some kind compares with its value."""
    if kind == "min_size":
        return components.size
    return components.mean if kind == "min_mean_probability" else components.highest


def largest(components: Components, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest component of each image among some; of equally large ones the first."""
    chosen = np.zeros(len(among), dtype=bool)
    order = components.by_size[among[components.by_size]]
    case = components.case[order]
    chosen[order[np.concatenate([[True], case[1:] != case[:-1]])[: len(case)]]] = True
    return chosen


def inherit(parts: Sequence[Part], components: Sequence[Components], left: list[NDArray[np.bool_]]) -> None:
    """Takes away every component whose parent is away."""
    for place, part in enumerate(parts):
        if part.parent is not None:
            left[place] = left[place] & left[part.parent][components[place].parent]


def postprocessed(
    labels: LabelMap, probabilities: NDArray[Any] | None, size: float, schema: LabelSchema, steps: Sequence[Step]
) -> LabelMap:
    """A label map (Z, Y, X) after some steps; a new one where there are any.

    Args:
        labels: as predicted.
        probabilities: (K, Z, Y, X); None where no step needs them.
        size: of a voxel, see `voxel_size`.
        schema: meaning of the values.
        steps: in order.
    """
    if not steps:
        return labels
    parts = parts_of(schema)
    found = components_of(labels, probabilities, size, parts)
    left = survivors(parts, [one for _, one in found], steps)
    result = labels.copy()
    for place, part in enumerate(parts):
        stays = np.concatenate([[True], left[place]])
        above = True if part.parent is None else np.concatenate([[True], left[part.parent]])[found[part.parent][0]]
        result[~stays[found[place][0]] & above] = part.left
    return result


def _refuse_crossing(name: str, values: Sequence[int], parts: Sequence[Part]) -> None:
    for part in parts:
        shared = set(values) & set(part.values)
        if part.name is not None and shared and (shared != set(values) or len(values) == len(part.values)):
            found = f"the regions {part.name} and {name} overlap, and neither lies within the other"
            raise DataError(f"remove components of {name}", found, "leave post-processing out")


def _value_within(regions: set[str], labels: LabelSchema) -> int | None:
    """The value of a voxel that is in just these regions."""
    for value in labels.foreground_values:
        if {name for name, values in labels.targets.items() if value in values} == regions:
            return value
    return None
