"""Commands that train, one fold or the whole road."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfcfg.cli.options import (
    ConfigurationOption,
    DatasetArgument,
    DebugOption,
    DeviceOption,
    FoldOption,
    FractionOption,
    JsonOption,
    MemoryOption,
    NameOption,
    PlannerOption,
    PlanOption,
    SaveProbabilitiesOption,
    SeedOption,
    SetOption,
    Speaker,
    TimeBudgetOption,
    WorkspaceOption,
    folds_of,
    keeping,
    open_project,
    seconds_of,
    settings_of,
    split_values,
)
from selfcfg.cli.planning import offer_less, plan_of, warn
from selfcfg.cli.recipes import recipe_of, tell_all, train_recipe
from selfcfg.engine.planner import Target
from selfcfg.errors import UsageError, counted
from selfcfg.parallel import default_jobs
from selfcfg.workspace import Workspace

if TYPE_CHECKING:
    from selfcfg.engine.choice import TrainRequest
    from selfcfg.engine.data.collection import Unlabelled
    from selfcfg.engine.experiment import Experiment
    from selfcfg.engine.recipes.opening import OpenRecipe
    from selfcfg.project import Project

InitOption = Annotated[
    Path | None, typer.Option(help="run folder or weights file to start from; what fits is taken over")
]

StrategyOption = Annotated[
    str | None,
    typer.Option("--trainer", help="training strategy, see: selfcfg list trainers; default: supervised"),
]

TeacherOption = Annotated[
    list[str] | None,
    typer.Option(help="finished run to learn from, with --trainer distillation: experiment, fold or imported model"),
]

RecipeOption = Annotated[
    str | None,
    typer.Option(help="stages to train one after the other, see: selfcfg list recipes; or a TOML file of your own"),
]

UnlabelledOption = Annotated[
    list[str] | None,
    typer.Option(
        help="dataset or folder of images to pretrain on besides the dataset's own; repeated; GROUP=NAME for a group"
    ),
]

TrainJobsOption = Annotated[
    int,
    typer.Option(
        min=0,
        show_default=False,
        help="processes at most, of a recipe also trainings at once; 0: one a core, but one training",
    ),
]

ReferenceOption = Annotated[
    str | None, typer.Option(help="labelled dataset that guides a pretraining, see: --trainer reference_guided")
]

SUPERVISED = "supervised"

CASCADE = "3d_cascade_fullres"
"""The configuration whose first stage is planned with it: its trainings count, too, before there is a plan."""


def train(
    dataset: DatasetArgument,
    configuration: ConfigurationOption = None,
    fold: FoldOption = None,
    trainer: StrategyOption = None,
    recipe: RecipeOption = None,
    planner: PlanOption = None,
    settings: SetOption = None,
    label_fraction: FractionOption = 1.0,
    seed: SeedOption = 0,
    init: InitOption = None,
    teacher: TeacherOption = None,
    unlabelled: UnlabelledOption = None,
    reference: ReferenceOption = None,
    previous: Annotated[
        Path | None, typer.Option(help="for a cascade: the experiment folder of its first stage; default: its twin's")
    ] = None,
    name: NameOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an unfinished run where it stopped")] = False,
    time_budget: TimeBudgetOption = None,
    save_probabilities: SaveProbabilitiesOption = False,
    device: DeviceOption = None,
    jobs: TrainJobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Trains folds of one configuration, then predicts and scores their validation cases."""
    from selfcfg.engine.choice import TrainRequest  # noqa: PLC0415
    from selfcfg.engine.recipes.opening import open_recipe  # noqa: PLC0415

    said = None
    if recipe is not None:
        given = {"trainer": trainer, "init": init, "teacher": teacher, "previous": previous}
        said = recipe_of(recipe, settings, **given, time_budget=time_budget)
    request = TrainRequest(
        configuration=configuration,
        planner=planner,
        trainer=trainer or SUPERVISED,
        settings={} if said else settings_of(settings),
        label_fraction=label_fraction,
        seed=seed,
        init=init.absolute() if init else None,
        teachers=tuple(Path(path).absolute() for path in split_values(teacher)),
        unlabelled=unlabelled_sets(unlabelled, workspace),
        reference=reference_folder(reference, workspace),
        previous=previous.absolute() if previous else None,
        name=name,
        resume=resume,
        device=device,
        probabilities=keeping(save_probabilities),
    )
    project, speaker, folds = open_project(dataset, workspace), Speaker(as_json), folds_of(fold, [0])
    processes = jobs or default_jobs()
    if said is not None:
        opened = open_recipe(project, request, said, Workspace.at(workspace), folds, jobs=processes)
        _train_recipe(speaker, project, opened, processes, jobs or 1)
        return
    _tell(speaker, project, _train(speaker, project, request, folds, processes, _Budget.of(time_budget)))


def plan_and_train(
    dataset: DatasetArgument,
    configuration: ConfigurationOption = None,
    fold: FoldOption = None,
    trainer: StrategyOption = None,
    recipe: RecipeOption = None,
    planner: PlannerOption = "standard",
    memory: MemoryOption = None,
    settings: SetOption = None,
    seed: SeedOption = 0,
    name: NameOption = None,
    time_budget: TimeBudgetOption = None,
    save_probabilities: SaveProbabilitiesOption = False,
    device: DeviceOption = None,
    jobs: TrainJobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Checks, measures, plans, preprocesses and trains folds 0 to 4; the same command continues where it stopped."""
    from selfcfg.engine import pipeline  # noqa: PLC0415
    from selfcfg.engine.choice import TrainRequest  # noqa: PLC0415
    from selfcfg.engine.experiment import stages  # noqa: PLC0415
    from selfcfg.engine.recipes.opening import open_recipe  # noqa: PLC0415

    speaker, budget, project = Speaker(as_json), _Budget.of(time_budget), open_project(dataset, workspace)
    recipe_said = None if recipe is None else recipe_of(recipe, settings, trainer=trainer, time_budget=time_budget)
    processes, strategy = jobs or default_jobs(), trainer or SUPERVISED
    warnings = pipeline.checked(project, processes)
    speaker.say(f"{project.name}: {counted(len(project.dataset.cases), 'case')}, {counted(len(warnings), 'warning')}")
    facts = pipeline.fingerprint(project, processes)
    chosen = folds_of(fold, []) or None
    n_all = len(pipeline.splits(project, facts))
    n_folds = len(chosen or range(n_all))
    share = n_folds + (n_all if configuration == CASCADE else 0)
    target = budget.target(memory, Target(device=device, configuration=configuration, trainer=strategy), share)
    file, made = plan_of(speaker, project, facts, planner, target)
    if budget.seconds is None and settings is None:
        offer_less(speaker, made, device)
    told = {"warnings": warn(made, facts)}
    request = TrainRequest(
        configuration=configuration,
        planner=file.stem,
        trainer=strategy,
        settings={} if recipe_said else settings_of(settings),
        seed=seed,
        name=name,
        resume=True,
        device=device,
        probabilities=keeping(save_probabilities),
    )
    if recipe_said:
        opened = open_recipe(project, request, recipe_said, Workspace.at(workspace), chosen, jobs=processes)
        _train_recipe(speaker, project, opened, processes, jobs or 1, told)
        return
    *before, last = stages(project, request, chosen, jobs=processes)
    for stage in before:
        _train(speaker, project, stage, None, processes, budget, n_later=n_folds)
    _tell(speaker, project, _train(speaker, project, last, chosen, processes, budget), told)


def _train_recipe(
    speaker: Speaker,
    project: Project,
    opened: OpenRecipe,
    jobs: int,
    at_once: int,
    told: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Trains a recipe; the scores are those of what its last stage ends with."""
    folder, experiments = opened.graph.folder, train_recipe(speaker, project, opened, jobs=jobs, at_once=at_once)
    if len(experiments) == 1:
        _tell(speaker, project, experiments[0], {"run": str(folder), **told})
    else:
        tell_all(speaker, folder, experiments, told)


def _tell(
    speaker: Speaker, project: Project, experiment: Experiment, told: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """The scores of all finished folds, and the report on them; `told` goes into the JSON object, and before it."""
    from selfcfg.engine.scoring.validation import cross_validated, scored_folds  # noqa: PLC0415
    from selfcfg.report.report import write_report  # noqa: PLC0415

    if not experiment.trainer_type.segments(experiment.settings):
        first = experiment.run(experiment.folds[0]).path
        folds = [experiment.run(fold).path.name for fold in experiment.folds]
        told = {"run": str(experiment.folder), "folds": folds, "dice": None, **told}
        again = f"selfcfg train {experiment.project.name} -c {experiment.configuration_name}"
        speaker.done(told, f"{again} --fold {experiment.folds[0]} --init {first}")
        return
    scores, scored = cross_validated(experiment.folder), scored_folds(experiment.folder)
    if len(scored) > 1:
        speaker.say(f"all finished folds together:\n{scores.table()}")
    measured = project.fingerprint_file
    report = write_report(experiment.folder, scores, project.dataset, experiment.plan, fingerprint=measured)
    speaker.say(f"report: {report.page}")
    result = {
        "run": str(experiment.folder),
        "folds": [run.path.name for run in scored],
        "dice": scores.foreground_mean["dice"],
        "report": str(report.page),
        "markdown": str(report.markdown),
        **told,
    }
    speaker.done(result, f"selfcfg predict {result['run']} -i INPUT -o OUTPUT")


@dataclass(frozen=True)
class _Budget:
    """The time that a command may take, from when it was given.

    Args:
        seconds: of the whole command; None: as long as it takes.
        began: when it was given.
    """

    seconds: float | None
    began: float

    @classmethod
    def of(cls, text: str | None) -> _Budget:
        return cls(seconds_of(text), time.monotonic())

    def target(self, memory_gb: float | None, wanted: Target, n_trainings: int) -> Target:
        """What a plan is to fit: the time of one training on a processor, unless a memory was given."""
        from selfcfg.engine.device import choose_device  # noqa: PLC0415

        if self.seconds is None or memory_gb is not None or choose_device(wanted.device).type != "cpu":
            return Target(memory_gb)
        return replace(wanted, seconds=self.seconds / n_trainings)

    def applied(self, experiment: Experiment, n_later: int) -> Experiment:
        """The experiment with as many epochs as its share of the time left allows, `n_later` folds to come after it."""
        from selfcfg.engine.forecasting.time_budget import within  # noqa: PLC0415

        if self.seconds is None:
            return experiment
        left = self.seconds - (time.monotonic() - self.began)
        here = len(experiment.folds)
        return within(experiment, left * here / (here + n_later), self.seconds)


def _train(
    speaker: Speaker,
    project: Project,
    request: TrainRequest,
    folds: list[int] | None,
    jobs: int,
    budget: _Budget,
    *,
    n_later: int = 0,
) -> Experiment:
    """Trains and scores the folds of one experiment."""
    from selfcfg.engine.experiment import open_experiment  # noqa: PLC0415
    from selfcfg.engine.folds import train_fold  # noqa: PLC0415

    experiment = budget.applied(open_experiment(project, request, folds, jobs=jobs), n_later)
    for fold in experiment.folds:
        result = train_fold(experiment, fold)
        scores = f"\n{result.evaluation.table()}" if result.evaluation else ", pretrained"
        speaker.say(f"{experiment.configuration_name}, fold {fold}: {result.run.path}{scores}")
    return experiment


def reference_folder(given: str | None, workspace: Path | None) -> Path | None:
    """The raw folder of the reference dataset that an option names."""
    return Workspace.at(workspace).dataset_folder(given) if given else None


def unlabelled_sets(given: list[str] | None, workspace: Path | None) -> tuple[Unlabelled, ...]:
    """The sets of images that options name: DATASET, FOLDER, or either of them after a group's name and "="."""
    from selfcfg.engine.data.collection import Unlabelled  # noqa: PLC0415

    found = []
    for text in split_values(given):
        group, name = text.split("=", 1) if "=" in text and not Path(text).is_dir() else ("", text)
        if not name:
            raise UsageError(f"--unlabelled {text}", "nothing after '='", "give GROUP=NAME, or NAME alone")
        images = Workspace.at(workspace).dataset_folder(name)
        found.append(Unlabelled(images=images, group=group or None))
    return tuple(found)
