"""A recipe on one dataset: its stages as trainings, all of them checked before the first one begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from selfcfg import registry
from selfcfg.engine import pipeline
from selfcfg.engine.checkpoint import weights_of
from selfcfg.engine.choice import TrainRequest, parse_settings, refuse_without_reference, setting_values
from selfcfg.engine.collection import Unlabelled
from selfcfg.engine.experiment import choose_feasible, existing_folds, results_folder
from selfcfg.engine.opening import changes
from selfcfg.engine.trainer import Settings, Trainer
from selfcfg.errors import UsageError, listed
from selfcfg.project import Project
from selfcfg.recipe import RECIPE, Images, Recipe, Stage, is_path
from selfcfg.records import Problem, unusable
from selfcfg.runs import INCIDENTAL, StageOf, same_fold
from selfcfg.workspace import Workspace


class StageTraining(NamedTuple):
    """One stage as `selfcfg.engine.experiment.open_experiment` takes it: what to train, and which folds."""

    request: TrainRequest
    folds: tuple[int, ...]


@dataclass(frozen=True)
class OpenRecipe:
    """A recipe that can be trained.

    Args:
        folder: of its results, the parent of the stages' folders.
        recipe: with every setting that is used.
        trainings: the stages in order.
    """

    folder: Path
    recipe: Recipe
    trainings: tuple[StageTraining, ...]


def open_recipe(
    project: Project,
    request: TrainRequest,
    recipe: Recipe,
    workspace: Workspace,
    folds: Sequence[int] | None = None,
    *,
    jobs: int,
) -> OpenRecipe:
    """The stages of a recipe as trainings to be run in order; leaves the recipe as it is used in its results' folder.

    Args:
        project: of the dataset.
        request: what holds for all stages: configuration, planner, share of labels, seed, name, device, and images to
            pretrain on, or a reference, in the stages that do; stages say the rest.
        recipe: its stages.
        workspace: of the datasets that it names.
        folds: those to train where a stage names none; None: all.
        jobs: processes at most.

    Raises:
        UsageError: a stage names something that does not exist, settings are wrong (all of it is told at once), or the
            folder holds other trainings.
        SelfcfgError: a stage does not fit the memory.
    """
    further = [Images(name=str(one.images), group=one.group) for one in request.unlabelled]
    used = completed(recipe, further, str(request.reference) if request.reference else None)
    made_by = {"recipe": used.name, "recipe_hash": used.content_hash()}
    requests = [
        request.model_copy(
            update={
                "trainer": stage.trainer,
                "settings": stage.settings,
                "unlabelled": _unlabelled(stage, workspace),
                "reference": stage.reference and workspace.dataset_folder(stage.reference),
                "stage": StageOf(stage=stage.name, **made_by),
            }
        )
        for stage in used.stage
    ]
    choices = [choose_feasible(project, one) for one in requests]
    for one, choice in zip(requests, choices, strict=True):
        refuse_without_reference(one, choice.trainer_type, choice.settings)
    chosen = choices[0]
    if chosen.configuration.after is not None:
        found = f"{chosen.configuration_name} works after another configuration"
        raise UsageError(f"recipe {used.name}", found, "name one that works alone with -c")
    folder = results_folder(project, requests[0], chosen.plan_name, chosen.configuration_name).parent
    folds_of = _folds(project, used, folds, jobs)
    _refuse_another(folder, used)
    trainings = [
        StageTraining(one.model_copy(update={"init": _init(stage, folder)}), folds_of[stage.name])
        for stage, one in zip(used.stage, requests, strict=True)
    ]
    if not request.resume:
        _refuse_without_weights(used, trainings)
    used.write(folder / RECIPE)
    return OpenRecipe(folder, used, tuple(trainings))


def completed(recipe: Recipe, further: Sequence[Images] = (), reference: str | None = None) -> Recipe:
    """The recipe with every setting of every stage, those that it does not name as their trainers have them.

    Args:
        recipe: as it was read.
        further: images for the stages that learn without labels.
        reference: a labelled dataset for the stages that need one and name none.

    Raises:
        UsageError: stages name trainers that are not installed, settings these cannot take, or datasets they do not
            look at, all of it told at once, with its place; or there are further images, or a reference, and no stage
            for them.
    """
    problems: list[Problem] = []
    stages = []
    for index, stage in enumerate(recipe.stage):
        made, found = _complete(stage, further, reference)
        stages.append(made)
        problems += [Problem(("stage", index, *place), what) for place, what in found]
    if problems:
        told = unusable(f"recipe {recipe.name}", problems, "see: selfcfg list trainers")
        raise UsageError(told.asked, told.found, told.remedy)
    if further and not any(trainer.unlabelled(settings) for trainer, settings in map(_strategy, stages)):
        found_none = f"no stage of the recipe {recipe.name} learns without labels"
        raise UsageError("--unlabelled", found_none, "leave it out, or choose another recipe: selfcfg list recipes")
    if reference and not any(stage.reference == reference for stage in stages):
        found_none = f"no stage of the recipe {recipe.name} is without a reference and needs one"
        raise UsageError("--reference", found_none, "leave it out, or choose another recipe: selfcfg list recipes")
    return recipe.model_copy(update={"stage": tuple(stages)})


def parts_handed_on(recipe: Recipe) -> Iterator[tuple[Stage, tuple[str, ...]]]:
    """Each stage, with the parts that the stage it starts from hands on; none where it starts from elsewhere."""
    exports: dict[str, tuple[str, ...]] = {}
    for stage in recipe.stage:
        yield stage, exports.get(stage.init or "", ())
        trainer, settings = _strategy(stage)
        exports[stage.name] = trainer.exports_for(settings)


def _strategy(stage: Stage) -> tuple[type[Trainer[Any]], Settings]:
    """The trainer of a stage, and its settings."""
    trainer: type[Trainer[Any]] = registry.load("trainers", stage.trainer)
    return trainer, parse_settings(trainer, stage.settings)


def _complete(stage: Stage, further: Sequence[Images], reference: str | None) -> tuple[Stage, list[Problem]]:
    """The stage with all settings of its trainer, and what is wrong with it."""
    try:
        trainer: type[Trainer[Any]] = registry.load("trainers", stage.trainer)
    except UsageError as error:
        return stage, [Problem(("trainer",), f"{error.found}, found '{stage.trainer}', {error.remedy}")]
    settings, problems = trainer.settings_type.attempt(setting_values(trainer.settings_type, stage.settings))
    found = [Problem(("settings", *place), what) for place, what in problems]
    takes_images = settings is not None and bool(trainer.unlabelled(settings))
    if stage.images and settings is not None and not takes_images:
        key = "unlabelled" if stage.unlabelled else "datasets"
        found.append(Problem((key,), f"the trainer '{stage.trainer}' learns from labels alone, and takes no images"))
    changed: dict[str, Any] = {"settings": settings.model_dump(mode="json")} if settings else {}
    if takes_images:
        changed["datasets"] = (*stage.datasets, *further)
    if settings is not None and trainer.takes_reference(settings):
        changed["reference"] = stage.reference or reference
    elif stage.reference and settings is not None:
        found.append(Problem(("reference",), f"the trainer '{stage.trainer}' looks at no reference dataset"))
    return stage.model_copy(update=changed), found


def _unlabelled(stage: Stage, workspace: Workspace) -> tuple[Unlabelled, ...]:
    return tuple(Unlabelled(images=workspace.dataset_folder(one.name), group=one.group) for one in stage.images)


def _folds(project: Project, recipe: Recipe, asked: Sequence[int] | None, jobs: int) -> dict[str, tuple[int, ...]]:
    """The folds that each stage trains; the stage that it starts from has to train them, too."""
    n_folds = len(pipeline.splits(project, pipeline.known_fingerprint(project, jobs)))
    found: dict[str, tuple[int, ...]] = {}
    for stage in recipe.stage:
        wanted = asked if stage.folds is None else None if stage.folds == "all" else stage.folds
        found[stage.name] = existing_folds(project, wanted, n_folds)
        there = found.get(stage.init or "", found[stage.name])
        if missing := sorted(set(found[stage.name]) - set(there)):
            said = f"it starts from '{stage.init}', which trains fold {listed(there)} alone"
            remedy = f"let '{stage.init}' train them, too"
            raise UsageError(f"stage '{stage.name}' of recipe {recipe.name}, fold {listed(missing)}", said, remedy)
    return found


def _init(stage: Stage, folder: Path) -> Path | None:
    if stage.init is None:
        return None
    return Path(stage.init) if is_path(stage.init) else folder / stage.init


def _refuse_without_weights(recipe: Recipe, trainings: Sequence[StageTraining]) -> None:
    """Looks for weights that come from elsewhere while no stage has been trained yet."""
    for stage, (request, folds) in zip(recipe.stage, trainings, strict=True):
        if request.init is not None and stage.init is not None and is_path(stage.init):
            for fold in folds:
                weights_of(same_fold(request.init, fold))


def _refuse_another(folder: Path, recipe: Recipe) -> None:
    """Refuses a folder in which a stage was trained in another way; stages that have not begun may still change."""
    asked, remedy = f"train into {folder}", "give this one a new --name"
    if any(folder.glob("fold_*/run.json")):
        raise UsageError(asked, f"it holds a training by the trainer '{recipe.name}', not by the recipe", remedy)
    if not (folder / RECIPE).is_file():
        return
    here = {stage.name: stage for stage in recipe.stage}
    for stage in Recipe.read(folder / RECIPE).stage:
        if not any((folder / stage.name).glob("fold_*/run.json")):
            continue
        if stage.name not in here:
            raise UsageError(asked, f"a stage '{stage.name}' was trained there, which this recipe has not", remedy)
        if told := changes(_compared(stage), _compared(here[stage.name])):
            raise UsageError(asked, f"its stage '{stage.name}' was trained in another way ({listed(told)})", remedy)


def _compared(stage: Stage) -> dict[str, Any]:
    """What a stage must keep; what lies at a path may move, and is compared by its hash when the stage is trained."""

    def place(name: str) -> str:
        return "a path" if is_path(name) else name

    init = None if stage.init is None else place(stage.init)
    images = [f"{one.group}={place(one.name)}" if one.group else place(one.name) for one in stage.images]
    settings = {name: value for name, value in stage.settings.items() if name not in INCIDENTAL}
    reference = None if stage.reference is None else place(stage.reference)
    about = {"trainer": stage.trainer, "init": init, "unlabelled": listed(images) or "none", "reference": reference}
    return {**about, **settings}
