"""What the stages of a recipe expand into: a candidate for each combination of values, and what is kept of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import PureWindowsPath
from typing import Any, NamedTuple

from selfcfg.errors import nearest
from selfcfg.files import hash_json
from selfcfg.recipes.stages import Keep, Stage, is_path
from selfcfg.records import Problem

LONGEST = 64
"""Characters of a candidate's name at most; a longer one is cut, and a hash of all of it added."""

SCRATCH = "none"
"""In ``foreach.init``: random weights."""


class Candidate(NamedTuple):
    """A training that a stage stands for, of all folds.

    Args:
        stage: name of its stage.
        name: that tells it from the others of the stage; "" where it is the only one by construction.
        values: by key, what tells it apart, that of the candidate it starts from included.
        trainer: entry-point name.
        settings: as the stage and its combination of values say.
        init: `key` of the earlier candidate or choice that it starts from, or a path; None: random weights.
        teachers: keys likewise, and paths.
    """

    stage: str
    name: str
    values: dict[str, Any]
    trainer: str
    settings: dict[str, Any]
    init: str | None = None
    teachers: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its folder in that of the recipe's results; others refer to it by this."""
        return f"{self.stage}/{self.name}" if self.name else self.stage


class Slot(NamedTuple):
    """A place for one candidate that is kept, of which it is known only in the end which one it is.

    Args:
        stage: that keeps.
        name: from the value that it is the best for; "" for the best of all.
        values: that value by its key.
        among: keys of the candidates that are compared.
    """

    stage: str
    name: str
    values: dict[str, Any]
    among: tuple[str, ...]

    @property
    def key(self) -> str:
        """By which stages refer to whatever is kept here."""
        return f"{self.stage}:{self.name or 'best'}"


Start = Candidate | Slot | str | None
"""What a candidate starts from: an earlier one, one that will be kept, a path, or random weights."""


class Expanded(NamedTuple):
    """A stage with what it trains and what it keeps; later stages get all candidates where nothing is chosen."""

    stage: Stage
    candidates: tuple[Candidate, ...] = ()
    slots: tuple[Slot, ...] = ()

    @property
    def handed_on(self) -> tuple[Candidate | Slot, ...]:
        """What the stage's name stands for in later stages."""
        return self.slots or self.candidates


class Expansion(NamedTuple):
    """All stages expanded, and what is wrong with them, in which case they may lack candidates."""

    stages: tuple[Expanded, ...]
    problems: tuple[Problem, ...]

    @property
    def candidates(self) -> dict[str, Candidate]:
        """Every candidate by its key, in an order in which each comes after what it starts from."""
        return {one.key: one for stage in self.stages for one in stage.candidates}


def expand(stages: Sequence[Stage]) -> Expansion:
    """The candidates of stages that refer to earlier ones by names that exist."""
    done: dict[str, Expanded] = {}
    problems: list[Problem] = []
    for index, stage in enumerate(stages):
        place = ("stage", index)
        made = _candidates(stage, done) if stage.trains else []
        problems += (Problem((*place, *where), what) for where, what in _wrong_names(stage, made))
        starts = [one for _, several in _starts_by_init(stage, done) for one in several]
        told = {key for one in starts if isinstance(one, Candidate | Slot) for key in one.values}
        for key in sorted(told & set(stage.varied)):
            what = "tells the candidates apart that it starts from, too; vary it in one of the two stages"
            problems.append(Problem((*place, "foreach", *key.split(".")), what))
        expanded = Expanded(stage, tuple(made))
        if stage.keep is not None:
            among = [one for name in stage.keep.of for one in done[name].candidates] if stage.keep.of else made
            slots, wrong = _slots(stage.name, stage.keep, among)
            expanded = expanded._replace(slots=tuple(slots))
            problems += (Problem((*place, "keep", *where), what) for where, what in wrong)
        done[stage.name] = expanded
    return Expansion(tuple(done.values()), tuple(problems))


def value_name(key: str, value: Any) -> str:
    """A text for a value that can be part of a folder's name: words stand for themselves, numbers follow their key."""
    values = value if isinstance(value, list | tuple) else [value]
    words = [_word(one) for one in values]
    text = "+".join(words)
    is_clear = all(isinstance(one, str) for one in values) and re.match(r"[A-Za-z]", text)
    return text if is_clear and not text.startswith("fold_") else f"{_word(key)}_{text}"


def with_setting(settings: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The settings with another value; of a key with a dot, within the table where there is one."""
    outer, dot, inner = key.partition(".")
    if dot and isinstance(settings.get(outer), dict):
        return {**settings, outer: {**settings[outer], inner: value}}
    return {**settings, key: value}


def _candidates(stage: Stage, done: Mapping[str, Expanded]) -> list[Candidate]:
    """One candidate for each combination of what it may start from and of the values of `foreach`."""
    varied = {key: values for key, values in stage.varied.items() if key != "init"}
    combinations = [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]
    teachers = [one for name in stage.teachers for one in _referred(name, done)]
    keys = tuple(one if isinstance(one, str) else one.key for one in teachers)
    return [
        _candidate(stage, init, start, values)._replace(teachers=keys)
        for init, starts in _starts_by_init(stage, done)
        for start in starts
        for values in combinations
    ]


def _candidate(stage: Stage, init: str | None, start: Start, values: Mapping[str, Any]) -> Candidate:
    named = {"init": init, **values} if "init" in stage.foreach else dict(values)
    parts = [value_name(key, value) for key, value in named.items()]
    if start is None or isinstance(start, str):
        key, told = start, named
    else:
        key, told = start.key, {**start.values, **named}
        if start.name:
            parts.insert(1 if "init" in stage.foreach else 0, start.name)
    settings: dict[str, Any] = dict(stage.settings)
    for name, value in values.items():
        if name != "trainer":
            settings = with_setting(settings, name, value)
    trainer = str(values.get("trainer", stage.trainer))
    return Candidate(stage.name, _shortened("-".join(parts)), told, trainer, settings, key)


def _starts_by_init(stage: Stage, done: Mapping[str, Expanded]) -> Iterator[tuple[str | None, Sequence[Start]]]:
    """Each value of `init`, with everything that it stands for."""
    for init in stage.foreach.get("init", [stage.init]):
        is_scratch = init is None or (init == SCRATCH and "init" in stage.foreach and init not in done)
        yield init, [None] if is_scratch else _referred(str(init), done)


def _referred(name: str, done: Mapping[str, Expanded]) -> Sequence[Candidate | Slot | str]:
    return [name] if is_path(name) else done[name].handed_on


def _slots(stage: str, keep: Keep, among: Sequence[Candidate]) -> tuple[list[Slot], list[Problem]]:
    """The places for what is kept, and what is wrong with the rule."""
    if keep.per is None:
        return [Slot(stage, "", {}, tuple(one.key for one in among))], []
    if lacking := [one for one in among if keep.per not in one.values]:
        known = {key for one in lacking for key in one.values}
        what = f"'{lacking[0].key}' has no '{keep.per}' that tells it apart, {nearest(keep.per, known)}"
        return [], [Problem(("per",), what)]
    groups: dict[str, list[Candidate]] = {}
    for one in among:
        groups.setdefault(_shortened(value_name(keep.per, one.values[keep.per])), []).append(one)
    return [
        Slot(stage, name, {keep.per: group[0].values[keep.per]}, tuple(one.key for one in group))
        for name, group in groups.items()
    ], []


def _wrong_names(stage: Stage, candidates: Sequence[Candidate]) -> Iterator[Problem]:
    """Candidates whose folders would be the same, also where capitals do not count."""
    seen: dict[str, Candidate] = {}
    for one in candidates:
        if one.name.casefold() in seen:
            place = ("foreach",) if stage.foreach else ("init",)
            yield Problem(place, f"two combinations of values would both be called '{one.name}'; write them otherwise")
            return
        seen[one.name.casefold()] = one


def _word(value: Any) -> str:
    """A value as letters, digits, points, underscores and hyphens; of a path its last part."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, str) and is_path(value):
        parts = PureWindowsPath(value).parts
        text = "_".join(parts[-2:] if parts[-1].startswith("fold_") else parts[-1:])
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip(".") or "_"


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}_{hash_json(name)[:8]}"
