"""The trainers of a recipe: every setting that they use, what they hand on, and what they cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfcfg import registry
from selfcfg.engine.choice import setting_values
from selfcfg.engine.trainer import Settings, Trainer
from selfcfg.errors import UsageError
from selfcfg.recipes.expansion import Candidate, Expanded, with_setting
from selfcfg.recipes.recipe import Recipe
from selfcfg.recipes.stages import Images, Stage
from selfcfg.records import Problem, unusable


def completed(recipe: Recipe, further: Sequence[Images] = (), reference: str | None = None) -> Recipe:
    """The recipe with every setting of every stage, those that it does not name as their trainers have them.

    Of a stage whose candidates have different trainers, the settings stay as they were said.

    Args:
        recipe: as it was read.
        further: images for the stages that learn without labels.
        reference: a labelled dataset for the stages that need one and name none.

    Raises:
        UsageError: stages name trainers that are not installed, settings these cannot take, or datasets or teachers
            they do not look at, all of it told at once, with its place; or there are further images, or a reference,
            and no stage for them.
    """
    problems: list[Problem] = []
    stages = []
    for index, expanded in enumerate(recipe.expansion.stages):
        made, found = _complete(expanded, further, reference)
        stages.append(made)
        problems += [Problem(("stage", index, *place), what) for place, what in dict.fromkeys(found)]
    used = recipe.model_copy(update={"stage": tuple(stages)})
    if not problems:
        problems = list(_without_scores(used))
    if problems:
        told = unusable(f"recipe {recipe.name}", problems, "see: selfcfg list trainers")
        raise UsageError(told.asked, told.found, told.remedy)
    strategies = [trainer_of(one) for one in used.expansion.candidates.values()]
    if further and not any(trainer.unlabelled(settings) for trainer, settings in strategies):
        found_none = f"no stage of the recipe {recipe.name} learns without labels"
        raise UsageError("--unlabelled", found_none, "leave it out, or choose another recipe: selfcfg list recipes")
    if reference and not any(stage.reference == reference for stage in used.stage):
        found_none = f"no stage of the recipe {recipe.name} is without a reference and needs one"
        raise UsageError("--reference", found_none, "leave it out, or choose another recipe: selfcfg list recipes")
    return used


def parts_handed_on(recipe: Recipe) -> Iterator[tuple[Candidate, tuple[str, ...]]]:
    """Each candidate, with the parts that what it starts from hands on; none where it starts from elsewhere.

    Of what will be kept, the parts that all who may be hand on.
    """
    exports: dict[str, tuple[str, ...]] = {}
    for stage in recipe.expansion.stages:
        for one in stage.candidates:
            yield one, exports.get(one.init or "", ())
            trainer, settings = trainer_of(one)
            exports[one.key] = trainer.exports_for(settings)
        for slot in stage.slots:
            first, *others = (exports[key] for key in slot.among)
            exports[slot.key] = tuple(part for part in first if all(part in other for other in others))


def trainer_of(candidate: Candidate) -> tuple[type[Trainer[Any]], Settings]:
    """The trainer of a candidate of a complete recipe, and its settings.

    Raises:
        UsageError: it is not installed.
        DataError: it cannot take these settings.
    """
    trainer: type[Trainer[Any]] = registry.load("trainers", candidate.trainer)
    values = setting_values(trainer.settings_type, candidate.settings)
    return trainer, trainer.settings_type.parse(values, f"settings of {candidate.key}")


def steps_of(settings: Settings) -> int:
    """Optimiser steps of one training."""
    return settings.epochs * settings.iterations_per_epoch


def _complete(expanded: Expanded, further: Sequence[Images], reference: str | None) -> tuple[Stage, list[Problem]]:
    """The stage with all settings of its trainer, and what is wrong with any of its candidates."""
    stage, found = expanded.stage, list[Problem]()
    wholes, takes_images, takes_reference = list[dict[str, Any]](), set[bool](), set[bool]()
    for one in expanded.candidates:
        try:
            trainer: type[Trainer[Any]] = registry.load("trainers", one.trainer)
        except UsageError as error:
            what = f"{error.found}, found '{one.trainer}', {error.remedy}"
            found.append(Problem(_place(stage, "trainer", one), what))
            continue
        settings, problems = trainer.settings_type.attempt(setting_values(trainer.settings_type, one.settings))
        found += [Problem(_place(stage, "settings", one, place), what) for place, what in problems]
        if settings is None:
            continue
        found += _misused(stage, one.trainer, trainer, settings)
        wholes.append(settings.model_dump(mode="json"))
        takes_images.add(bool(trainer.unlabelled(settings)))
        takes_reference.add(trainer.takes_reference(settings))
    first, changed = expanded.candidates[0].trainer if expanded.candidates else "", dict[str, Any]()
    if wholes and "trainer" not in stage.foreach:
        # a default may follow from what differs between candidates; each of them finds its own
        alike = {key: value for key, value in wholes[0].items() if all(one[key] == value for one in wholes)}
        given = {key: value for key, value in stage.settings.items() if key.partition(".")[0] not in alike}
        changed["settings"] = _without({**given, **alike}, stage.varied)
    if True in takes_images:
        changed["datasets"] = (*stage.datasets, *further)
    elif stage.images and takes_images:
        key = "unlabelled" if stage.unlabelled else "datasets"
        found.append(Problem((key,), f"the trainer '{first}' learns from labels alone, and takes no images"))
    if True in takes_reference:
        changed["reference"] = stage.reference or reference
    elif stage.reference and takes_reference:
        found.append(Problem(("reference",), f"the trainer '{first}' looks at no reference dataset"))
    return stage.model_copy(update=changed), found


def _misused(stage: Stage, name: str, trainer: type[Trainer[Any]], settings: Settings) -> Iterator[Problem]:
    """Keys of a stage that its trainer has no use for, or that it lacks."""
    if stage.teachers and not trainer.is_taught(settings):
        yield Problem(("teachers",), f"the trainer '{name}' learns from no finished runs; leave it out")
    if trainer.is_taught(settings) and not stage.teachers:
        yield Problem(("teachers",), f"is missing: the trainer '{name}' learns from finished runs; name earlier stages")


def _without_scores(recipe: Recipe) -> Iterator[Problem]:
    """The stages that would keep the best of candidates which only pretrain."""
    for index, stage in enumerate(recipe.expansion.stages):
        for key in dict.fromkeys(key for slot in stage.slots for key in slot.among):
            trainer, settings = trainer_of(recipe.expansion.candidates[key])
            if not trainer.segments(settings):
                what = f"'{key}' only pretrains, which gives no score; compare trainings that go on from it"
                yield Problem(("stage", index, "keep"), what)


def _place(stage: Stage, table: str, one: Candidate, within: tuple[str | int, ...] = ()) -> tuple[str | int, ...]:
    """Where in a stage something stands: in its own keys, or in `foreach` with the index of the candidate's value."""
    key = "trainer" if table == "trainer" else ".".join(str(step) for step in within[:2])
    for name in (key, str(within[0]) if within else key):
        if name in stage.varied:
            return ("foreach", *name.split("."), stage.varied[name].index(one.values[name]))
    return (table, *within)


def _without(settings: dict[str, Any], varied: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that `foreach` gives."""
    for key in varied:
        outer, dot, inner = key.partition(".")
        if dot and outer in settings:
            rest = {name: value for name, value in settings[outer].items() if name != inner}
            settings = with_setting(settings, outer, rest)
        else:
            settings = {name: value for name, value in settings.items() if name != key}
    return settings
