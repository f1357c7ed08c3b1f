"""Image-level targets: what is known of a whole image besides its label map, a class or a number."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from statistics import fmean, pstdev
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from selfcfg.errors import UsageError, listed, nearest
from selfcfg.records import Problem, Record, Sparing, refuse

TargetName = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]
"""Of a target or a class: one line without spaces around it."""

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class ImageTarget(Sparing):
    """What an image-level target means: with classes it is a classification, else a regression.

    Args:
        classes: names of the classes in order, of two the positive one last; empty for a regression.
        unit: of a regression, such as "years"; empty where it has none.
    """

    spared: ClassVar[frozenset[str]] = frozenset({"classes", "unit"})

    classes: tuple[TargetName, ...] = ()
    unit: str = ""

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if self.classes and self.unit:
            raise ValueError("a target has classes or a unit, not both")
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be two or more different names, found {list(self.classes)}")
        return self

    @property
    def n_outputs(self) -> int:
        """Outputs of a network for it: one a class, or one number."""
        return len(self.classes) or 1

    @property
    def meaning(self) -> ImageTarget:
        """The target without its values."""
        return ImageTarget(classes=self.classes, unit=self.unit)


class GivenTarget(ImageTarget):
    """An image-level target with the values of cases, as in dataset.json.

    Args:
        classes: see `ImageTarget`.
        unit: see `ImageTarget`.
        values: by case id, a class or a number; a case without an entry has no value. Cases in imagesTs may have one.
    """

    values: dict[str, str | Number]

    @model_validator(mode="after")
    def _has_such_values(self) -> Self:
        refuse(
            [
                Problem(("values", case), self._wrong(value))
                for case, value in self.values.items()
                if (value not in self.classes if self.classes else isinstance(value, str))
            ],
            self,
        )
        return self

    def _wrong(self, value: str | float) -> str:
        if not self.classes:
            return f"must be a number, or the target needs 'classes', found {value!r}"
        return f"found {value!r}, which is none of its classes, {nearest(str(value), self.classes)}"

    def encoded(self, case: str) -> float:
        """The value of a case: the index of its class, or the number; NaN without one."""
        value = self.values.get(case)
        if value is None:
            return math.nan
        return float(self.classes.index(str(value))) if self.classes else float(value)


class ImageLevel(Record):
    """What a model says of one image as a whole, of one target.

    Args:
        value: the class, or the number in the target's unit.
        probabilities: of each class; empty for a regression.
    """

    value: str | float
    probabilities: dict[str, float] = {}


Values = Mapping[str, tuple[float, ...]]
"""By case id, the value of each target in order: the index of a class, a number, or NaN."""


def columns(targets: Mapping[str, ImageTarget]) -> list[str]:
    """The heading of a table of predictions: the case, and for each target its value and the probability of classes."""
    parts = ([name, *(f"{name}={one}" for one in target.classes)] for name, target in targets.items())
    return ["case", *(column for part in parts for column in part)]


def encoded(wanted: Mapping[str, ImageTarget], given: Mapping[str, GivenTarget]) -> dict[str, tuple[float, ...]]:
    """The values of every case that has one.

    Args:
        wanted: the targets of a plan, in its order.
        given: those of dataset.json.

    Raises:
        UsageError: they are not the same targets.
    """
    here = {name: target.meaning for name, target in given.items()}
    if changed := [name for name, target in wanted.items() if here.get(name) != target]:
        found = f"{listed(repr(name) for name in changed)} in dataset.json is not what the plan says"
        raise UsageError("read the image-level targets", found, "plan again: selfcfg plan")
    cases = {case: None for name in wanted for case in given[name].values}
    return {case: tuple(given[name].encoded(case) for name in wanted) for case in cases}


def scales(wanted: Mapping[str, ImageTarget], values: Values, cases: Collection[str]) -> dict[str, tuple[float, float]]:
    """The mean and standard deviation of every regression over those of these cases that have a value."""
    found = {}
    for index, (name, target) in enumerate(wanted.items()):
        known = [values[case][index] for case in cases if case in values and not math.isnan(values[case][index])]
        if not target.classes and known:
            found[name] = (fmean(known), pstdev(known) or 1.0)
    return found
