"""What must hold between the keys and the stages of a recipe, looked for in what was read, valid or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfcfg.errors import nearest
from selfcfg.recipes.expansion import SCRATCH
from selfcfg.recipes.stages import Stage, flat, is_path
from selfcfg.records import Problem

_NO_TRAINING = ("trainer", "settings", "foreach", "init", "teachers", "folds", "unlabelled", "datasets", "reference")
"""Keys that a stage which only chooses has no use for."""


def between_stages(content: Any) -> Iterator[Problem]:
    """What is wrong between the stages of a recipe as it was read, as far as they can be told apart."""
    said = content.get("stage") if isinstance(content, Mapping) else None
    stages = [stage if isinstance(stage, Mapping) else {} for stage in said] if isinstance(said, list | tuple) else []
    names = [str(stage.get("name")) for stage in stages]
    if said is not None and not said:
        yield Problem(("stage",), "must hold one stage or more")
    for index, (name, stage) in enumerate(zip(names, stages, strict=True)):
        before = dict(zip(names[:index], stages[:index], strict=True))
        found = [*_own(stage), *_foreach(stage), *_references(stage, before, names)]
        if name in before:
            found.append(Problem(("name",), f"'{name}' is the name of stage[{names.index(name)}] already"))
        if name.startswith("fold_"):
            found.append(Problem(("name",), f"must not begin as the folders of folds do, found '{name}'"))
        yield from (Problem(("stage", index, *place), what) for place, what in found)


def _own(stage: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with a stage whatever the others are."""
    if stage.get("folds") == []:
        yield Problem(("folds",), "must name a fold or more, or be left out")
    if _compares(stage):
        for key in _NO_TRAINING:
            if stage.get(key):
                yield Problem((key,), "a stage with keep.of chooses among others and trains nothing; leave it out")
    elif stage and stage.get("trainer") is None and "trainer" not in _table(stage, "foreach"):
        yield Problem(("trainer",), "is missing")


def _foreach(stage: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the values that a stage is repeated for."""
    for key, values in flat(dict(_table(stage, "foreach"))).items():
        place = ("foreach", *key.split("."))
        if key in Stage.model_fields and key not in ("init", "trainer"):
            yield Problem(place, "takes settings of the trainer, 'trainer' and 'init'")
        elif not isinstance(values, list | tuple) or not values:
            yield Problem(place, f"must be a list of one value or more, found {values!r}")
        else:
            if any(value in values[:index] for index, value in enumerate(values)):
                yield Problem(place, "holds a value twice")
            for index, value in enumerate(values):
                is_name = key in ("init", "trainer")
                if not isinstance(value, str if is_name else str | int | float | list | tuple) or value in ("", []):
                    kinds = "a name" if is_name else "a text, a number, true, false or a list of these"
                    yield Problem((*place, index), f"must be {kinds}, found {value!r}")
        said = stage.get(key) is not None if key in ("init", "trainer") else _has(_table(stage, "settings"), key)
        if said:
            yield Problem(place, "is said for the whole stage, too; leave out one of the two")


def _references(
    stage: Mapping[str, Any], before: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> Iterator[Problem]:
    """Names of stages that are not there, or not before this one."""
    inits, teachers = _table(stage, "foreach").get("init"), stage.get("teachers")
    named: list[tuple[tuple[str | int, ...], Any]] = [(("init",), stage.get("init"))]
    if isinstance(inits, list | tuple):
        listed = [one for one in enumerate(inits) if one[1] != SCRATCH]
        named += [(("foreach", "init", index), name) for index, name in listed]
    if isinstance(teachers, list | tuple):
        named += [(("teachers", index), name) for index, name in enumerate(teachers)]
    for place, name in named:
        if isinstance(name, str) and name not in before and not is_path(name):
            yield Problem(place, _unknown(name, before, names))
    of = _table(stage, "keep").get("of")
    several: Sequence[Any] = of if isinstance(of, list | tuple) else ()
    for index, name in enumerate(several):
        if name not in before:
            yield Problem(("keep", "of", index), _unknown(str(name), before, names, path=False))
        elif before[name].get("keep") is not None:
            yield Problem(("keep", "of", index), f"'{name}' keeps some of its own; name stages without keep")
        elif name in several[:index]:
            yield Problem(("keep", "of", index), f"names '{name}' twice")


def _unknown(name: str, before: Mapping[str, Any], names: Sequence[str], *, path: bool = True) -> str:
    if name in names:
        return f"must be an earlier stage, found '{name}', which is not trained before this one"
    what = f"no stage '{name}', {nearest(name, set(before))}"
    return f"{what}; the path of a run has a slash, such as ./{name}" if path else what


def _compares(stage: Mapping[str, Any]) -> bool:
    return bool(_table(stage, "keep").get("of"))


def _table(stage: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = stage.get(key)
    return value if isinstance(value, Mapping) else {}


def _has(settings: Mapping[str, Any], key: str) -> bool:
    """Whether a setting is among others, as it is or within a table."""
    outer, _, inner = key.partition(".")
    within = settings.get(outer)
    return key in settings or (isinstance(within, Mapping) and inner in within)
