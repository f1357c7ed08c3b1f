"""What the integer values of a label map mean: classes, overlapping regions, and "not annotated"."""

from __future__ import annotations

import re
from typing import Self

from pydantic import model_validator

from selfcfg.records import Record

BACKGROUND = "background"
IGNORE = "ignore"

_SIDES = (("left", "right"), ("lt", "rt"), ("l", "r"), ("sin", "dex"), ("links", "rechts"), ("gauche", "droite"))


class LabelSchema(Record):
    """Names and values of a label map, as in the ``labels`` of dataset.json.

    Args:
        labels: name to value, or to the values a region is made of; ``background`` is 0 and ``ignore``, if any, is the
            highest value plus one.
        regions_class_order: with regions, the value painted for each foreground region in declaration order; later
            ones overwrite earlier ones. Empty without regions.
    """

    labels: dict[str, int | tuple[int, ...]]
    regions_class_order: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.labels.get(BACKGROUND) != 0:
            raise ValueError("labels must declare 'background' with the value 0")
        if len(self.labels) < 2 or not self.targets:
            raise ValueError("labels declare no foreground class")
        if isinstance(self.labels.get(IGNORE), tuple):
            raise ValueError("'ignore' must be one value, not a region")
        values = self.values
        if list(values) != list(range(len(values))):
            raise ValueError(f"label values must be consecutive integers from 0, found {list(values)}")
        if self.ignore is not None and self.ignore != values[-1]:
            raise ValueError(f"'ignore' must be the highest value ({values[-1]}), found {self.ignore}")
        if self.has_regions and len(self.regions_class_order) != len(self.targets):
            raise ValueError(
                f"regions_class_order needs one value for each of the {len(self.targets)} foreground regions, "
                f"found {len(self.regions_class_order)}"
            )
        if unknown := set(self.regions_class_order) - set(self.foreground_values):
            raise ValueError(f"regions_class_order names values that no region holds: {sorted(unknown)}")
        return self

    @property
    def ignore(self) -> int | None:
        """The value of voxels that are not annotated, or None."""
        value = self.labels.get(IGNORE)
        return value if isinstance(value, int) else None

    @property
    def has_regions(self) -> bool:
        """Whether some class is made of several values, so that classes overlap and heads are sigmoids."""
        return any(isinstance(value, tuple) and len(value) > 1 for value in self.labels.values())

    @property
    def targets(self) -> dict[str, tuple[int, ...]]:
        """The foreground classes or regions in declaration order, each with the values that belong to it."""
        return {
            name: value if isinstance(value, tuple) else (value,)
            for name, value in self.labels.items()
            if name not in (BACKGROUND, IGNORE) and value != 0
        }

    @property
    def values(self) -> tuple[int, ...]:
        """Every declared value in ascending order, background and ignore included."""
        found: set[int] = set()
        for value in self.labels.values():
            found.update(value if isinstance(value, tuple) else (value,))
        return tuple(sorted(found))

    @property
    def foreground_values(self) -> tuple[int, ...]:
        """The values a prediction may hold besides 0: neither background nor ignore."""
        return tuple(value for value in self.values if value not in (0, self.ignore))

    @property
    def value_names(self) -> dict[int, str]:
        """The name of each foreground value: its class, or the smallest region that holds it."""
        by_size = sorted(self.targets.items(), key=lambda target: len(target[1]))
        return {value: next(name for name, values in by_size if value in values) for value in self.foreground_values}

    @property
    def n_outputs(self) -> int:
        """Channels of the segmentation head: one a region, or one a label with background."""
        return len(self.targets) if self.has_regions else len(self.foreground_values) + 1

    @property
    def lateral_pairs(self) -> tuple[tuple[str, str], ...]:
        """Pairs of classes whose names differ only in a word for left and right: ("left kidney", "right kidney")."""
        by_words = {tuple(_words(name)): name for name in self.targets}
        pairs = []
        for left, right in _SIDES:
            for words, name in by_words.items():
                if left in words:
                    other = by_words.get(tuple(right if word == left else word for word in words))
                    if other is not None:
                        pairs.append((name, other))
        return tuple(dict.fromkeys(pairs))


def _words(name: str) -> list[str]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]
