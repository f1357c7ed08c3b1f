"""A recipe on one dataset: its jobs, all of them checked before the first one begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfcfg.engine import pipeline
from selfcfg.engine.checkpoint import weights_of
from selfcfg.engine.choice import TrainRequest, refuse_without_reference
from selfcfg.engine.data.collection import Unlabelled
from selfcfg.engine.experiment import choose_feasible, existing_folds, results_folder
from selfcfg.engine.footprint import training_bytes
from selfcfg.engine.recipes.graph import Graph, Piece, build_graph
from selfcfg.engine.recipes.trainers import completed, steps_of, trainer_of
from selfcfg.engine.training.opening import changes
from selfcfg.errors import UsageError, listed
from selfcfg.project import Project
from selfcfg.recipes.recipe import RECIPE, Recipe
from selfcfg.recipes.stages import Images, Stage, is_path
from selfcfg.runs import INCIDENTAL, RunFolder, RunRecord, StageOf, same_fold
from selfcfg.workspace import Workspace


@dataclass(frozen=True)
class OpenRecipe:
    """A recipe that can be trained.

    Args:
        recipe: with every setting that is used.
        graph: its jobs; the parent of their folders is `graph.folder`.
    """

    recipe: Recipe
    graph: Graph


def open_recipe(
    project: Project,
    request: TrainRequest,
    recipe: Recipe,
    workspace: Workspace,
    folds: Sequence[int] | None = None,
    *,
    jobs: int,
) -> OpenRecipe:
    """The stages of a recipe as jobs; leaves the recipe as it is used in its results' folder.

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
    request = request.model_copy(update={"unlabelled": (), "reference": None})
    folder = _folder(project, request, used)
    folds_of = _folds(project, used, folds, jobs)
    made_by = {"recipe": used.name, "recipe_hash": used.content_hash()}
    pieces = {}
    for stage in used.expansion.stages:
        unlabelled, named = _unlabelled(stage.stage, workspace), stage.stage.reference
        reference = workspace.dataset_folder(named) if named else None
        for one in stage.candidates:
            trainer, settings = trainer_of(one)
            own = {
                "trainer": one.trainer,
                "settings": one.settings,
                "unlabelled": unlabelled if trainer.unlabelled(settings) else (),
                "reference": reference if trainer.takes_reference(settings) else None,
                "stage": StageOf(stage=one.stage, candidate=one.name, **made_by),
            }
            piece = request.model_copy(update=own)
            refuse_without_reference(piece, trainer, settings)
            # where teachers will lie is not known of those that are kept
            chosen = choose_feasible(project, piece.model_copy(update={"teachers": tuple(map(Path, one.teachers))}))
            memory = training_bytes(chosen.plan, chosen.configuration, value_bytes=4)
            pieces[one.key] = Piece(piece, folds_of[one.stage], steps_of(settings), memory)
    _refuse_another(folder, used)
    graph = build_graph(folder, used.expansion, pieces)
    _refuse_unfinished(graph, resume=request.resume)
    used.write(folder / RECIPE)
    return OpenRecipe(used, graph)


def _folder(project: Project, request: TrainRequest, recipe: Recipe) -> Path:
    """The parent of the stages' folders."""
    first = next(iter(recipe.expansion.candidates.values()))
    chosen = choose_feasible(project, request.model_copy(update={"trainer": first.trainer, "settings": first.settings}))
    if chosen.configuration.after is not None:
        found = f"{chosen.configuration_name} works after another configuration"
        raise UsageError(f"recipe {recipe.name}", found, "name one that works alone with -c")
    named = request.model_copy(update={"trainer": recipe.name, "stage": None})
    return results_folder(project, named, chosen.plan_name, chosen.configuration_name)


def _unlabelled(stage: Stage, workspace: Workspace) -> tuple[Unlabelled, ...]:
    return tuple(Unlabelled(images=workspace.dataset_folder(one.name), group=one.group) for one in stage.images)


def _folds(project: Project, recipe: Recipe, asked: Sequence[int] | None, jobs: int) -> dict[str, tuple[int, ...]]:
    """The folds of each stage; those that it starts from, learns from or compares have to be trained on them, too."""
    n_folds = len(pipeline.splits(project, pipeline.known_fingerprint(project, jobs)))
    found: dict[str, tuple[int, ...]] = {}
    for stage in recipe.stage:
        if stage.keep is not None and stage.keep.of:
            found[stage.name] = _common_folds(recipe, stage, {name: found[name] for name in stage.keep.of})
            continue
        wanted = asked if stage.folds is None else None if stage.folds == "all" else stage.folds
        found[stage.name] = existing_folds(project, wanted, n_folds)
        for used, how in _uses(stage):
            there = found.get(used, found[stage.name])
            if missing := sorted(set(found[stage.name]) - set(there)):
                said = f"it {how} '{used}', which trains fold {listed(there)} alone"
                remedy = f"let '{used}' train them, too"
                raise UsageError(f"stage '{stage.name}' of recipe {recipe.name}, fold {listed(missing)}", said, remedy)
    return found


def _common_folds(recipe: Recipe, stage: Stage, folds: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    first = next(iter(folds.values()))
    if any(set(other) != set(first) for other in folds.values()):
        told = listed(f"'{name}' fold {listed(here)}" for name, here in folds.items())
        asked = f"stage '{stage.name}' of recipe {recipe.name}"
        raise UsageError(asked, f"it compares scores of different folds: {told}", "let all of them train the same")
    return first


def _uses(stage: Stage) -> Iterator[tuple[str, str]]:
    """The names of what a stage takes from earlier ones, and how."""
    for init in stage.foreach.get("init", [stage.init]):
        yield str(init), "starts from"
    for teacher in stage.teachers:
        yield teacher, "learns from"


def _refuse_unfinished(graph: Graph, *, resume: bool) -> None:
    """Looks for what a later job would stumble over: runs cut short, and weights from elsewhere that are not there."""
    for job in graph.jobs:
        run = job.run(graph.folder)
        if resume:
            continue
        if run.record.is_file() and _is_unfinished(run):
            remedy = "continue it with --resume, or give a new --name"
            raise UsageError(f"train into {run.path}", "it holds this run unfinished", remedy)
        if not job.needs and job.init is not None:
            weights_of(same_fold(Path(job.init), job.fold))


def _is_unfinished(run: RunFolder) -> bool:
    has_checkpoint = run.last.is_file() or run.previous.is_file()
    status = RunRecord.read(run.record).status
    return status == "running" and has_checkpoint


def _refuse_another(folder: Path, recipe: Recipe) -> None:
    """Refuses a folder in which a candidate was trained in another way; those that have not begun may still change."""
    asked, remedy = f"train into {folder}", "give this one a new --name"
    if any(folder.glob("fold_*/run.json")):
        raise UsageError(asked, f"it holds a training by the trainer '{recipe.name}', not by the recipe", remedy)
    if not (folder / RECIPE).is_file():
        return
    here = _compared(recipe)
    for key, there in _compared(Recipe.read(folder / RECIPE)).items():
        if not any((folder / key).glob("fold_*/run.json")):
            continue
        if key not in here:
            raise UsageError(asked, f"a stage '{key}' was trained there, which this recipe has not", remedy)
        if told := changes(there, here[key]):
            raise UsageError(asked, f"its stage '{key}' was trained in another way ({listed(told)})", remedy)


def _compared(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """By candidate what must stay; what lies at a path may move, and is compared by its hash when it is trained."""
    known = {one.key for stage in recipe.expansion.stages for one in stage.handed_on}

    def place(name: str) -> str:
        return "a path" if is_path(name) and name not in known else name

    found = {}
    for stage in recipe.expansion.stages:
        said = [f"{one.group}={place(one.name)}" if one.group else place(one.name) for one in stage.stage.images]
        reference = None if stage.stage.reference is None else place(stage.stage.reference)
        for one in stage.candidates:
            init = None if one.init is None else place(one.init)
            settings = {name: value for name, value in one.settings.items() if name not in INCIDENTAL}
            teachers = listed([place(name) for name in one.teachers], len(one.teachers)) or "none"
            images = listed(said, len(said)) or "none"
            about = {"trainer": one.trainer, "init": init, "teachers": teachers, "unlabelled": images}
            found[one.key] = {**about, "reference": reference, **settings}
    return found
