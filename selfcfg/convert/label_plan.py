"""From any label values to consecutive ones, with their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfcfg.errors import DataError, UsageError
from selfcfg.files import read_json
from selfcfg.labels import BACKGROUND, IGNORE, LabelSchema

MAX_UNNAMED = 64
"""More distinct values than this without names are taken for a gray picture, not for classes."""

_ORDER = "regions_class_order"


@dataclass(frozen=True)
class Declared:
    """Names and original values, as a user gave them."""

    labels: dict[str, int | tuple[int, ...]]
    order: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class LabelPlan:
    """What to write: the schema with consecutive values, and where each original value goes."""

    schema: LabelSchema
    label_map: dict[int, int]

    @property
    def changes(self) -> bool:
        """Whether some value is written as another one."""
        return any(original != new for original, new in self.label_map.items())

    def undeclared(self, values: Mapping[int, int]) -> str:
        """The values of a case that have no name, with their number of voxels; empty when all have one."""
        return ", ".join(f"{value} ({count} voxels)" for value, count in values.items() if value not in self.label_map)


def read_declared(path: Path) -> Declared:
    """Names and values from a JSON file: {name: value or values}, dataset.json's "labels", or {"value": name}.

    Raises:
        DataError: not of this form.
    """
    return parse_declared(read_json(path), str(path))


def parse_declared(content: Any, source: str) -> Declared:
    """As `read_declared`, from JSON that was read already.

    Raises:
        DataError: not of this form.
    """
    form = 'write {"name": value, ...}'
    if not isinstance(content, dict):
        raise DataError(f"read {source}", "not a JSON object", form)
    labels = content.get("labels", content)
    if not isinstance(labels, dict):
        raise DataError(f"read {source}", f"'labels' is {labels!r}", form)
    names = {key: value for key, value in labels.items() if key != _ORDER}
    if names and all(_is_number(key) and isinstance(value, str) for key, value in names.items()):
        names = {name: int(value) for value, name in names.items()}
    parsed: dict[str, int | tuple[int, ...]] = {}
    for name, value in names.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(number, int) and not isinstance(number, bool) for number in values):
            raise DataError(
                f"read {source}", f"label '{name}' has the value {value!r}", "give a whole number, or a list of them"
            )
        key = name.lower() if name.lower() in (BACKGROUND, IGNORE) else name
        parsed[key] = tuple(values) if isinstance(value, list) else value
    order = content.get(_ORDER, labels.get(_ORDER, ()))
    if not isinstance(order, list | tuple) or not all(isinstance(number, int) for number in order):
        raise DataError(f"read {source}", f"{_ORDER} is {order!r}", "give a list of label values")
    return Declared(parsed, tuple(order), source)


def plan_declared(declared: Declared) -> LabelPlan:
    """Consecutive values for declared names: background 0, classes in the order of their values, ignore last.

    Raises:
        DataError: the declaration contradicts itself.
    """
    background, ignore = declared.labels.get(BACKGROUND, 0), declared.labels.get(IGNORE)
    if isinstance(background, tuple) or isinstance(ignore, tuple):
        raise DataError(f"read {declared.source}", "background or ignore is a list", "give one value")
    values: set[int] = set()
    for value in declared.labels.values():
        values.update(value if isinstance(value, tuple) else (value,))
    classes = sorted(values - {background, ignore})
    label_map = {background: 0, **{value: number for number, value in enumerate(classes, 1)}}
    if ignore is not None:
        label_map[ignore] = len(classes) + 1
    labels: dict[str, int | tuple[int, ...]] = {BACKGROUND: 0}
    for name, value in declared.labels.items():
        if name != BACKGROUND:
            labels[name] = tuple(label_map[v] for v in value) if isinstance(value, tuple) else label_map[value]
    unknown = [value for value in declared.order if value not in label_map]
    if unknown:
        raise DataError(
            f"read {declared.source}", f"{_ORDER} names {unknown}, which no label has", "use values of the labels"
        )
    content = {"labels": labels, _ORDER: tuple(label_map[value] for value in declared.order)}
    return LabelPlan(LabelSchema.parse(content, declared.source), label_map)


def plan_found(values: set[int], where: str) -> LabelPlan:
    """Consecutive values and plain names for the values that were found in the labels.

    Raises:
        DataError: there is no foreground, a value is negative, or there are too many to be classes.
    """
    classes = sorted(values - {0})
    remedy = "name the classes with --labels-json, or make masks with --threshold"
    if not classes:
        raise DataError(f"labels of {where}", "no voxel of any class in any label", "check the labels")
    if classes[0] < 0:
        raise DataError(f"labels of {where}", f"the value {classes[0]}", remedy)
    if len(classes) > MAX_UNNAMED:
        raise DataError(f"labels of {where}", f"{len(classes)} values, from {classes[0]} to {classes[-1]}", remedy)
    names = ["foreground"] if len(classes) == 1 else [f"class_{value}" for value in classes]
    labels = {BACKGROUND: 0, **{name: number for number, name in enumerate(names, 1)}}
    label_map = {0: 0, **{value: number for number, value in enumerate(classes, 1)}}
    return LabelPlan(LabelSchema(labels=dict(labels)), label_map)


def plan_mask(declared: Declared | None) -> LabelPlan:
    """The plan of a thresholded mask: one class, under the declared name where there is one.

    Raises:
        DataError: more than one class is declared.
    """
    names = [name for name in (declared.labels if declared else ()) if name != BACKGROUND] or ["foreground"]
    if len(names) > 1 or names[0] == IGNORE:
        source = declared.source if declared else ""
        raise DataError(
            f"read {source}", f"{len(names)} classes with --threshold", "declare one class, or leave --threshold out"
        )
    return plan_class(names[0])


def plan_class(name: str) -> LabelPlan:
    """The plan of masks of one class.

    Raises:
        UsageError: the name has a meaning of its own, or is empty.
    """
    if not name.strip() or name.strip().lower() in (BACKGROUND, IGNORE):
        raise UsageError(f"label name '{name}'", "not a name of what masks show", "choose another")
    return LabelPlan(LabelSchema(labels={BACKGROUND: 0, name.strip(): 1}), {0: 0, 1: 1})


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,9}", text) is not None
