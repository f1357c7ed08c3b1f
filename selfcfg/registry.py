"""Planners, trainers and their tasks found by entry-point name; ours are declared as a third party's would be."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from selfcfg.errors import SelfcfgError, UsageError, nearest

Group = Literal["planners", "trainers", "tasks"]


def registered(group: Group) -> dict[str, EntryPoint]:
    """The entry points of a group by name, without importing any.

    Raises:
        SelfcfgError: two distributions claim the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"selfcfg.{group}"):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise SelfcfgError(
                f"{group} '{point.name}'",
                f"claimed by both {_origin(other)} and {_origin(point)}",
                "uninstall one of them or rename its entry point",
            )
        found[point.name] = point
    return dict(sorted(found.items()))


def load(group: Group, name: str) -> Any:
    """The class or function registered under `name`.

    Raises:
        UsageError: no such name; the message has the nearest one.
        SelfcfgError: its module cannot be imported.
    """
    points = registered(group)
    if name not in points:
        raise UsageError(f"{group.removesuffix('s')} '{name}'", "no such name is installed", nearest(name, points))
    try:
        return points[name].load()
    except (ImportError, AttributeError) as error:
        raise SelfcfgError(
            f"{group.removesuffix('s')} '{name}'", f"{_origin(points[name])} failed to import ({error})", "reinstall it"
        ) from error


def _origin(point: EntryPoint) -> str:
    distribution = f" of {point.dist.name}" if point.dist else ""
    return f"{point.value}{distribution}"
