"""Commands that train, one fold or the whole road."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfcfg.cli.budget import Budget
from selfcfg.cli.clusters import Cluster, ClusterOption, ClusterSetOption, Here
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
    settings_of,
    split_values,
)
from selfcfg.cli.planning import offer_less, plan_of, warn
from selfcfg.cli.recipes import recipe_of
from selfcfg.cli.sharing import (
    DevicesOption,
    NodesOption,
    RendezvousOption,
    RestartsOption,
    restarted,
    shared_by,
    start_others,
)
from selfcfg.cli.trainings import Trainings
from selfcfg.engine.planner import Target
from selfcfg.errors import UsageError
from selfcfg.workspace import Workspace

if TYPE_CHECKING:
    from selfcfg.engine.data.collection import Unlabelled

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

OnlyOption = Annotated[
    str | None,
    typer.Option(
        metavar="JOB", help="of a recipe this job alone, what it needs being done; 'prepare' comes before all"
    ),
]

ForSelectOption = Annotated[
    bool,
    typer.Option(
        "--for-select", help="keep the class probabilities of the validation cases until select has used them"
    ),
]

ReferenceOption = Annotated[
    str | None, typer.Option(help="labelled dataset that guides a pretraining, see: --trainer reference_guided")
]

PreviousOption = Annotated[
    Path | None, typer.Option(help="for a cascade: the experiment folder of its first stage; default: its twin's")
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
    previous: PreviousOption = None,
    name: NameOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an unfinished run where it stopped")] = False,
    time_budget: TimeBudgetOption = None,
    save_probabilities: SaveProbabilitiesOption = False,
    for_select: ForSelectOption = False,
    device: DeviceOption = None,
    devices: DevicesOption = None,
    nodes: NodesOption = 1,
    rendezvous: RendezvousOption = None,
    max_restarts: RestartsOption = 0,
    jobs: TrainJobsOption = 0,
    cluster: ClusterOption = None,
    cluster_set: ClusterSetOption = None,
    only: OnlyOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Trains folds of one configuration, then predicts and scores their validation cases."""
    from selfcfg.engine.choice import TrainRequest  # noqa: PLC0415

    share = shared_by(devices, nodes, rendezvous, max_restarts, recipe=recipe, time_budget=time_budget, cluster=cluster)
    given = {"trainer": trainer, "init": init, "teacher": teacher, "previous": previous, "time_budget": time_budget}
    said = None if recipe is None else recipe_of(recipe, settings, **given)
    refuse_only(only, recipe)
    request = TrainRequest(
        configuration=configuration,
        planner=planner,
        trainer=trainer or SUPERVISED,
        settings={} if said else settings_of(settings),
        label_fraction=label_fraction,
        seed=seed,
        **_sources(init, teacher, unlabelled, reference, previous, workspace),
        name=name,
        resume=resume or restarted(),
        device=device,
        processes=share.processes,
        probabilities=keeping(save_probabilities, for_select),
    )
    project, speaker, folds = open_project(dataset, workspace), Speaker(as_json), folds_of(fold, [0])
    there = Cluster.of(cluster, cluster_set, speaker, project, workspace, Here(device, jobs, only))
    trainings = Trainings.on(speaker, project, workspace, jobs, there, Budget.of(time_budget))
    if said is not None:
        trainings.recipe(request, said, folds, only=only)
    elif not start_others(share, project, request):
        trainings.folds([request], folds)


def _sources(
    init: Path | None,
    teacher: list[str] | None,
    unlabelled: list[str] | None,
    reference: str | None,
    previous: Path | None,
    workspace: Path | None,
) -> dict[str, Any]:
    """What a training starts and learns from besides its dataset, as fields of a request."""
    return {
        "init": init.absolute() if init else None,
        "teachers": tuple(Path(path).absolute() for path in split_values(teacher)),
        "unlabelled": unlabelled_sets(unlabelled, workspace),
        "reference": reference_folder(reference, workspace),
        "previous": previous.absolute() if previous else None,
    }


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
    cluster: ClusterOption = None,
    cluster_set: ClusterSetOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Checks, measures, plans, preprocesses and trains folds 0 to 4; the same command continues where it stopped."""
    from selfcfg.engine import pipeline  # noqa: PLC0415
    from selfcfg.engine.choice import TrainRequest  # noqa: PLC0415
    from selfcfg.engine.experiment import stages  # noqa: PLC0415

    speaker, budget, project = Speaker(as_json), Budget.of(time_budget), open_project(dataset, workspace)
    recipe_said = None if recipe is None else recipe_of(recipe, settings, trainer=trainer, time_budget=time_budget)
    there = Cluster.of(cluster, cluster_set, speaker, project, workspace, Here(device, jobs))
    trainings = Trainings.on(speaker, project, workspace, jobs, there, budget)
    strategy, facts, chosen = trainer or SUPERVISED, trainings.measured(), folds_of(fold, []) or None
    n_all = len(pipeline.splits(project, facts))
    n_folds = len(chosen or range(n_all))
    share = n_folds + (n_all if configuration == CASCADE else 0)
    wanted = Target(device=device, configuration=configuration, trainer=strategy)
    file, made = plan_of(speaker, project, facts, planner, budget.target(memory, wanted, share))
    if budget.seconds is None and settings is None and there is None:
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
        elsewhere=there is not None,
    )
    if recipe_said:
        trainings.recipe(request, recipe_said, chosen, told)
    else:
        both = stages(project, request, chosen, jobs=trainings.processes)
        trainings.folds(both, chosen, told, n_folds=n_folds)


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


def refuse_only(only: str | None, recipe: str | None) -> None:
    """Raises where one job alone is asked for, and there are none.

    Raises:
        UsageError: says which option is missing.
    """
    if only is not None and recipe is None:
        raise UsageError(f"--only {only}", "jobs have names in a recipe", "name it with --recipe, or give --fold")
