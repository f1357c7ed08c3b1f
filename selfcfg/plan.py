"""What a planner decided, with the reason of every decision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from selfcfg import inheritance
from selfcfg.errors import UsageError, nearest
from selfcfg.files import hash_json, write_text
from selfcfg.fingerprint import ChannelStatistics
from selfcfg.geometry import Vector
from selfcfg.image_targets import ImageTarget, TargetName
from selfcfg.inheritance import INHERITS_FROM
from selfcfg.labels import LabelSchema
from selfcfg.records import Problem, Record, Sparing, refuse, unusable
from selfcfg.topology import Count, Topology

Normalization = Literal["ct", "zscore", "none", "rescale_to_0_1", "rgb_to_0_1"]
Length = Annotated[float, Field(strict=True, gt=0)]
"""Millimetres, or voxels where a median may lie between two whole numbers."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
"""What may become part of a folder's name."""

Flag = Annotated[bool, Field(strict=True)]
Axis = Annotated[int, Field(strict=True, ge=0, le=2)]

ABOUT_VALUES = frozenset({"reasons", "memory_bytes"})
"""What a configuration says about its own values; not inherited, as the heir's values are others."""

PREPROCESSING_VERSION = 1
"""Counts changes of the preprocessing that change its output; part of every preprocessing hash."""


class Reason(Record):
    """One decision.

    Args:
        what: what was decided.
        value: its value as text.
        why: by which rule, and from which facts.
        change: what would change it.
    """

    what: str
    value: str
    why: str
    change: str = ""


def _may_inherit(schema: dict[str, Any]) -> None:
    """Says in the schema of a configuration that one which inherits from another needs no key of its own."""
    network = [name for name, field in Topology.model_fields.items() if field.is_required()]
    whole = {"required": schema.pop("required"), "properties": {"topology": {"required": network}}}
    schema["properties"][INHERITS_FROM] = {
        "type": "string",
        "description": "the configuration whose values hold wherever this one says nothing",
    }
    schema["anyOf"] = [whole, {"required": [INHERITS_FROM]}]


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

    model_config = ConfigDict(allow_inf_nan=False, json_schema_extra=_may_inherit)

    spacing: tuple[Length, ...]
    patch_size: tuple[Count, ...]
    batch_size: Count
    median_shape: tuple[Length, ...]
    normalization: tuple[Normalization, ...]
    use_mask_for_norm: tuple[Flag, ...]
    topology: Topology
    batch_dice: Flag
    after: str | None = None
    memory_bytes: int | None = None
    reasons: tuple[Reason, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self._problems(), self)
        return self

    def _problems(self) -> Iterator[Problem]:
        axes = self.topology.dimensions
        for name in ("spacing", "patch_size", "median_shape"):
            if (found := len(getattr(self, name))) != axes:
                yield Problem((name,), f"needs {axes} numbers for this {axes}D network, found {found}")
        if len(self.use_mask_for_norm) != len(self.normalization):
            found = len(self.use_mask_for_norm)
            yield Problem(
                ("use_mask_for_norm",), f"needs {len(self.normalization)} values like 'normalization', found {found}"
            )
        if len(self.patch_size) != axes:
            return
        divisors = self.topology.divisors
        for axis, (size, factor) in enumerate(zip(self.patch_size, divisors, strict=True)):
            if size % factor:
                near = max(size // factor, 1) * factor
                yield Problem(
                    ("patch_size", axis),
                    f"must be a multiple of {factor} along {'zyx'[axis - axes]}, such as {near} or {near + factor}, "
                    f"found {size}",
                )
        if prod(self.patch_size) <= prod(divisors):
            yield Problem(
                ("patch_size",),
                f"must be more than {' x '.join(map(str, divisors))} voxels: the last stage of the network would see a "
                f"single one, which has no spread to normalise by; found {' x '.join(map(str, self.patch_size))}",
            )

    @classmethod
    def keys(cls) -> list[str]:
        """The keys that a configuration may have in a file."""
        return [*super().keys(), INHERITS_FROM]

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
        if not given:
            return self
        made = Configuration.parse({**self.model_dump(), **given}, "the network")
        if self.memory_bytes is None:
            return made
        before, after = (one.topology.feature_elements(one.patch_size, 0) * one.batch_size for one in (self, made))
        return made.model_copy(update={"memory_bytes": round(self.memory_bytes * after / before)})


class Plan(Sparing):
    """Everything a planner decided for one dataset; preprocessing, network and prediction follow from it alone.

    In a file, a configuration may say ``inherits_from`` with the name of another and hold only what differs from it.

    Args:
        format: version of the file format.
        dataset: folder name of the dataset.
        planner: entry-point name of the planner.
        memory_gb: the accelerator memory it planned for.
        channels: names of the input channels in order.
        labels: meaning of the label values.
        image_targets: meaning of the image-level targets, by name.
        axis_order: array axes (z, y, x) in the order the plan works in; the coarsest axis comes first.
        median_spacing: median spacing of the dataset in mm, in the plan's axis order.
        median_shape: median shape after cropping, in the plan's axis order.
        intensities: foreground statistics of each channel, for CT normalisation and the input check.
        mirror_axes: array axes (0 = first of the plan's order) along which mirroring is allowed.
        dimensions: 2 when every case is a 2D image, else 3.
        configurations: what was planned, by name.
        reasons: decisions that hold for all configurations.
    """

    model_config = ConfigDict(allow_inf_nan=False)
    spared: ClassVar[frozenset[str]] = frozenset({"image_targets"})

    format: Literal[1] = 1
    dataset: str
    planner: str
    memory_gb: Length
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    labels: LabelSchema
    image_targets: dict[TargetName, ImageTarget] = {}
    axis_order: tuple[Axis, Axis, Axis]
    median_spacing: tuple[Length, Length, Length]
    median_shape: tuple[Length, Length, Length]
    intensities: tuple[ChannelStatistics, ...]
    mirror_axes: tuple[Axis, ...]
    dimensions: Annotated[int, Field(strict=True, ge=2, le=3)]
    configurations: Annotated[dict[Name, Configuration], Field(min_length=1)]
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def parse(cls, content: Any, source: str) -> Self:
        """The plan held by `content`, with what its configurations inherit, read from `source` (for messages).

        Raises:
            DataError: every field that is unknown, missing, wrong or contradicts another is named.
        """
        said = content.get("configurations") if isinstance(content, Mapping) else None
        if not isinstance(said, Mapping):
            return super().parse(content, source)
        whole, loose = inheritance.complete(said, _heir)
        made, found = cls.attempt({**content, "configurations": whole})
        if made is None:
            loose += inheritance.loose_ends(
                {name: c.get("after") for name, c in whole.items() if isinstance(c, Mapping)}, said
            )
        problems = [*(Problem(("configurations", *place), what) for place, what in loose), *found]
        told = inheritance.told_once(problems, said)
        if made is None or told:
            raise unusable(source, told)
        return made

    def write(self, path: Path) -> None:
        """Stores the plan as JSON, whole or not at all.

        A configuration that differs from another only in what it works after is written as inheriting from it, so
        that whoever edits the one edits both.
        """
        content = self.model_dump(mode="json")
        configurations = content["configurations"]
        for name, parent in self.parents().items():
            said = inheritance.difference(configurations[name], _heir(configurations[parent], {}))
            for key in ABOUT_VALUES:
                if not said.get(key):
                    said.pop(key, None)
            configurations[name] = {INHERITS_FROM: parent, **said}
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def write_whole(self, path: Path) -> None:
        """Stores the plan with every configuration complete: what a run keeps, whose bytes `content_hash` is of."""
        super().write(path)

    def parents(self) -> dict[str, str]:
        """The configurations that work after another one, each with one that is the same but for that."""
        aside = {"after": None, "memory_bytes": None, "reasons": ()}
        stripped = {name: c.model_copy(update=aside) for name, c in self.configurations.items()}
        found = {}
        for name, configuration in self.configurations.items():
            same = (other for other in stripped if self.configurations[other].after is None)
            parent = next((other for other in same if stripped[other] == stripped[name]), None)
            if configuration.after is not None and parent is not None:
                found[name] = parent
        return found

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse(self._problems(), self)
        return self

    def _problems(self) -> Iterator[Problem]:
        if (found := len(self.intensities)) != len(self.channels):
            yield Problem(("intensities",), f"needs one entry for each of {len(self.channels)} channels, found {found}")
        if sorted(self.axis_order) != [0, 1, 2]:
            yield Problem(("axis_order",), f"must hold 0, 1 and 2 once each, found {list(self.axis_order)}")
        for index, axis in enumerate(self.mirror_axes):
            if axis < 3 - self.dimensions or axis in self.mirror_axes[:index]:
                allowed = "1 and 2" if self.dimensions == 2 else "0, 1 and 2"
                yield Problem(("mirror_axes", index), f"must be one of {allowed}, each at most once, found {axis}")
        links = inheritance.loose_ends({name: c.after for name, c in self.configurations.items()}, self.configurations)
        yield from (Problem(("configurations", *link.place), link.what) for link in links)
        for name, configuration in self.configurations.items():
            place = ("configurations", name)
            if (found := len(configuration.normalization)) != len(self.channels):
                what = f"needs one scheme for each of {len(self.channels)} channels, found {found}"
                yield Problem((*place, "normalization"), what)
            if configuration.dimensions > self.dimensions:
                yield Problem((*place, "topology"), "is a 3D network, but every case is a 2D image ('dimensions')")
            before = self.configurations.get(configuration.after or "")
            if before is not None and 2 in (before.dimensions, configuration.dimensions):
                what = f"joins {configuration.after} and {name}, and one of them is 2D; both must be 3D"
                yield Problem((*place, "after"), what)

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
        """3d_fullres where planned, else 2d, else the first that works alone."""
        alone = [name for name, configuration in self.configurations.items() if configuration.after is None]
        return next((name for name in ("3d_fullres", "2d") if name in self.configurations), alone[0])

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


def _heir(inherited: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration made of what it inherits and what it says itself."""
    return inheritance.merged({k: value for k, value in inherited.items() if k not in ABOUT_VALUES}, said)
