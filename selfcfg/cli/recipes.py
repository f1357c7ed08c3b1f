"""What commands tell of recipes: their stages, candidates and jobs, and what came of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfcfg.cli.options import Speaker, settings_of
from selfcfg.errors import SelfcfgError, UsageError, counted, listed
from selfcfg.recipes.expansion import Expanded
from selfcfg.recipes.recipe import Recipe, find_recipe
from selfcfg.recipes.stages import Stage

if TYPE_CHECKING:
    from selfcfg.engine.experiment import Experiment
    from selfcfg.engine.recipes.jobs import Finished
    from selfcfg.engine.recipes.opening import OpenRecipe
    from selfcfg.project import Project


def recipe_of(name: str, settings: list[str] | None, **decided: object) -> Recipe:
    """A recipe with the settings of its stages, complete.

    Raises:
        UsageError: there is none, settings are wrong, or an option was given, too, that a recipe decides itself: what
            each stage trains and starts from.
    """
    from selfcfg.engine.recipes.trainers import completed  # noqa: PLC0415

    if given := [option for option, value in decided.items() if value is not None]:
        option = f"--{given[0].replace('_', '-')}"
        raise UsageError(f"--recipe {name}", f"{option} was given, too", "leave it out, or write it into a recipe")
    said = find_recipe(name).changed(settings_of(settings))
    completed(said)
    return said


def train_recipe(
    speaker: Speaker, project: Project, opened: OpenRecipe, *, jobs: int, at_once: int
) -> list[Experiment]:
    """Runs the jobs of a recipe; the experiments that it ends with: of its last stage, what is kept or all.

    Raises:
        SelfcfgError: jobs failed; each is named, those that did not depend on them are done.
    """
    from selfcfg.engine.recipes.jobs import run_graph  # noqa: PLC0415

    finished = run_graph(project, opened.graph, jobs=jobs, at_once=at_once, tell=speaker.say)
    for error in finished.diverged.values():
        speaker.say(f"left out of the choice: {error}")
    if finished.failed:
        raise _failure(finished)
    return ends_of(project, opened, finished.places, jobs=jobs)


def ends_of(project: Project, opened: OpenRecipe, places: Mapping[str, Path], *, jobs: int) -> list[Experiment]:
    """The experiments that a recipe ends with, once the folder of each candidate and kept one is known."""
    from selfcfg.engine.experiment import open_experiment  # noqa: PLC0415

    graph, last = opened.graph, opened.recipe.expansion.stages[-1]
    ends = [places[one.key] for one in last.handed_on]
    experiments = []
    for folder in dict.fromkeys(ends):
        folds = [job for job in graph.jobs if graph.folder / job.key == folder]
        request = folds[0].resolved(places)
        experiments.append(open_experiment(project, request, [job.fold for job in folds], jobs=jobs))
    return experiments


def tell_all(speaker: Speaker, folder: Path, experiments: Sequence[Experiment], told: Mapping[str, Any]) -> None:
    """The scores of a recipe that ends with several experiments, and the report on each that has any."""
    from selfcfg.engine.scoring.validation import cross_validated, scored_folds  # noqa: PLC0415
    from selfcfg.report.report import write_report  # noqa: PLC0415

    ends: list[dict[str, Any]] = []
    for one in experiments:
        scores = cross_validated(one.folder) if scored_folds(one.folder) else None
        dice = scores.foreground_mean["dice"] if scores else None
        report = None
        if scores:
            measured = one.project.fingerprint_file
            written = write_report(one.folder, scores, one.project.dataset, one.plan, fingerprint=measured)
            report = str(written.page)
        speaker.say(f"{one.folder}: " + ("pretrained" if dice is None else f"Dice {dice:.3f}"))
        ends.append({"run": str(one.folder), "dice": dice, "report": report})
    folds = [f"fold_{fold}" for fold in experiments[0].folds]
    speaker.done({"run": str(folder), "folds": folds, "dice": None, "candidates": ends, **told})


def overview(recipe: Recipe) -> dict[str, Any]:
    """A recipe with its candidates, what each starts from, what is kept, and how much all of it is, as JSON."""
    from selfcfg.engine.recipes.graph import total_steps  # noqa: PLC0415
    from selfcfg.engine.recipes.trainers import completed, parts_handed_on, steps_of, trainer_of  # noqa: PLC0415

    used = completed(recipe)
    inherits = {one.key: parts for one, parts in parts_handed_on(used)}
    steps = {key: steps_of(trainer_of(one)[1]) for key, one in used.expansion.candidates.items()}
    totals = total_steps(used.expansion, steps)
    stages = []
    for stage in used.expansion.stages:
        candidates = [
            {
                "key": one.key,
                "values": one.values,
                "trainer": one.trainer,
                "init": one.init,
                "teachers": list(one.teachers),
                "inherits": list(inherits[one.key]),
                "steps": steps[one.key],
                "steps_with_starts": totals[one.key],
            }
            for one in stage.candidates
        ]
        kept = [{"key": slot.key, "values": slot.values, "among": list(slot.among)} for slot in stage.slots]
        parts = list(dict.fromkeys(part for one in stage.candidates for part in inherits[one.key]))
        told = {"inherits": parts, "candidates": candidates, "kept": kept}
        stages.append({**stage.stage.model_dump(mode="json"), **told})
    whole = {"jobs_per_fold": len(steps), "steps_per_fold": sum(steps.values())}
    return {**used.model_dump(mode="json"), "stage": stages, **whole}


def described(recipe: Recipe, told: Mapping[str, Any]) -> Iterator[str]:
    """A recipe, line by line, for people; `told` is its `overview`."""
    yield f"{recipe.name}: {recipe.description.strip()}"
    for expanded, stage in zip(recipe.expansion.stages, told["stage"], strict=True):
        yield ""
        yield _headline(expanded, stage)
        yield from (f"    {line}" for line in _said(expanded.stage))
        if len(stage["candidates"]) > 1:
            yield from (f"    - {_one_line(one)}" for one in stage["candidates"])
        if expanded.slots:
            rule = expanded.stage.keep
            yield from (f"    keeps the best {rule.best_by if rule else ''}{_place(slot)}" for slot in stage["kept"])
    jobs = counted(told["jobs_per_fold"], "training")
    yield f"\nfor each fold: {jobs}, {counted(told['steps_per_fold'], 'optimiser step')}"


def _headline(expanded: Expanded, stage: Mapping[str, Any]) -> str:
    name, said = expanded.stage.name, expanded.stage
    if not expanded.candidates:
        return f"{name}: trains nothing, keeps of {listed(said.keep.of if said.keep else (), 10)}"
    trainers = listed(dict.fromkeys(one.trainer for one in expanded.candidates), 10)
    inits = said.foreach.get("init", [said.init])
    start = listed(("random weights" if init in (None, "none") else f"'{init}'" for init in inits), 10)
    is_alike = all(one["inherits"] == stage["inherits"] for one in stage["candidates"])
    taken = f", which hands on {', '.join(stage['inherits'])}" if stage["inherits"] and is_alike else ""
    many = "" if len(expanded.candidates) == 1 else f", {len(expanded.candidates)} candidates"
    return f"{name}: trainer {trainers}, from {start}{taken}{many}"


def _said(stage: Stage) -> Iterator[str]:
    """What a stage says besides its trainer and its start."""
    for key, value in stage.settings.items():
        yield f"{key} = {value}"
    for key, values in stage.varied.items():
        yield f"for each {key} of {listed(values, 20)}"
    if stage.teachers:
        yield f"learns from {listed(stage.teachers, 20)}"
    for one in stage.images:
        yield f"images of {one.name}" + (f", group {one.group}" if one.group else "")
    if stage.reference is not None:
        yield f"reference: {stage.reference}"
    if stage.folds is not None:
        yield f"folds: {stage.folds if stage.folds == 'all' else listed(stage.folds)}"
    if stage.trainer is not None:
        yield f"all other settings: see selfcfg list trainers ({stage.trainer})"


def _one_line(one: Mapping[str, Any]) -> str:
    parts = f" ({', '.join(one['inherits'])})" if one["inherits"] else ""
    start = f" from {one['init']}{parts}" if one["init"] else ""
    with_starts = f", {one['steps_with_starts']} with what it starts from" if start else ""
    return f"{one['key']}{start}: {counted(one['steps'], 'step')}{with_starts}"


def _place(slot: Mapping[str, Any]) -> str:
    place = "".join(f" for {key} = {value}" for key, value in slot["values"].items())
    return f"{place} of {listed(slot['among'], 20)}"


def _failure(finished: Finished) -> SelfcfgError:
    """The error that names every job that failed, and those that came to nothing with it."""
    told = []
    for name in finished.failed:
        lost = [waiting for waiting, cause in finished.waiting.items() if cause == name]
        told.append(f" (and with it {listed(lost, 10)})" if lost else "")
    (name, error), *others = finished.failed.items()
    if not others:
        return type(error)(f"job {name}{told[0]}: {error.asked}", error.found, error.remedy)
    every = "\n  ".join(f"{name}: {one}{lost}" for (name, one), lost in zip(finished.failed.items(), told, strict=True))
    kinds = {type(one) for one in finished.failed.values()}
    found = f"{len(finished.failed)} jobs failed, what does not depend on them is done:\n  {every}\n"
    return (kinds.pop() if len(kinds) == 1 else SelfcfgError)("train the recipe", found, "mend these and train again")
