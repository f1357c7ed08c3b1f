"""Configurations that name another one with ``inherits_from`` and hold only what differs from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from selfcfg.errors import nearest
from selfcfg.records import Problem

INHERITS_FROM = "inherits_from"

Content = Mapping[str, Any]


def complete(
    configurations: Content, merge: Callable[[Content, Content], Content]
) -> tuple[dict[str, Any], list[Problem]]:
    """The configurations with what they inherit, and every reference among them that leads nowhere.

    One whose references lead nowhere is left out; one that is no JSON object is kept as it is.

    Args:
        configurations: by name, as they stand in the file.
        merge: makes one of what is inherited and what is said anew.
    """
    whole: dict[str, Any] = {}
    problems: dict[Problem, None] = {}
    for name, content in configurations.items():
        chain = _chain(name, configurations)
        if isinstance(chain, Problem):
            problems[chain] = None
        elif isinstance(content, Mapping):
            both: Content = {}
            for link in chain:
                both = merge(both, configurations[link])
            whole[name] = {key: value for key, value in both.items() if key != INHERITS_FROM}
        else:
            whole[name] = content
    return whole, list(problems)


def merged(inherited: Content, said: Content) -> dict[str, Any]:
    """What is inherited with what is said anew in its place; objects within are merged key by key."""
    both = {
        key: merged(inherited[key], value)
        if isinstance(value, Mapping) and isinstance(inherited.get(key), Mapping)
        else value
        for key, value in said.items()
    }
    return {**inherited, **both}


def difference(whole: Content, inherited: Content) -> dict[str, Any]:
    """What must be said anew so that `merged` gives `whole`, which has every key of `inherited`."""
    found = {}
    for key, value in whole.items():
        if key not in inherited or value != inherited[key]:
            nested = isinstance(value, Mapping) and isinstance(inherited.get(key), Mapping)
            found[key] = difference(value, inherited[key]) if nested else value
    return found


def loose_ends(after: Mapping[str, Any], names: Iterable[str]) -> list[Problem]:
    """The configurations, with what they work after, whose predecessor does not exist or has one itself."""
    known = list(names)
    found = []
    for name, before in after.items():
        if not isinstance(before, str):
            continue
        if before not in known:
            found.append(Problem((name, "after"), f"found '{before}', " + nearest(before, known)))
        elif after.get(before) is not None:
            what = f"found '{before}', which works after '{after[before]}' itself; name one that works alone"
            found.append(Problem((name, "after"), what))
    return found


def told_once(problems: Sequence[Problem], said: Content) -> list[Problem]:
    """The problems of a plan without those of values that a configuration only inherits, which its parent has too.

    Args:
        problems: of the complete configurations.
        said: the configurations as they stand in the file.
    """

    def is_inherited(problem: Problem) -> bool:
        match problem.place:
            case ("configurations", str(name), *rest) if isinstance(said.get(name), Mapping):
                parent = said[name].get(INHERITS_FROM, name)
                return parent != name and Problem(("configurations", parent, *rest), problem.what) in problems
        return False

    return [problem for problem in dict.fromkeys(problems) if not is_inherited(problem)]


def _chain(name: str, configurations: Content) -> list[str] | Problem:
    """A configuration and those it inherits from, the farthest first."""
    chain = [name]
    while isinstance(content := configurations[chain[0]], Mapping) and INHERITS_FROM in content:
        parent = content[INHERITS_FROM]
        place = (chain[0], INHERITS_FROM)
        if not isinstance(parent, str) or parent not in configurations:
            return Problem(place, f"found {parent!r}, " + nearest(str(parent), configurations))
        if not isinstance(configurations[parent], Mapping):
            return Problem((parent,), "must be an object")
        if parent in chain:
            circle = sorted(chain[: chain.index(parent) + 1])
            return Problem((circle[0], INHERITS_FROM), f"goes in a circle through {', '.join(circle)}")
        chain.insert(0, parent)
    return chain
