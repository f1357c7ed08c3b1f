"""Commands that train, one fold or the whole road."""

from __future__ import annotations

from collections.abc import Mapping
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
    JobsOption,
    JsonOption,
    MemoryOption,
    NameOption,
    PlannerOption,
    PlanOption,
    SeedOption,
    SetOption,
    Speaker,
    TrainerOption,
    WorkspaceOption,
    folds_of,
    open_project,
    settings_of,
)
from selfcfg.cli.planning import warn
from selfcfg.errors import counted
from selfcfg.plan import Plan

if TYPE_CHECKING:
    from selfcfg.engine.experiment import TrainRequest
    from selfcfg.project import Project

InitOption = Annotated[
    Path | None, typer.Option(help="run folder or weights file to start from; what fits is taken over")
]


def train(
    dataset: DatasetArgument,
    configuration: ConfigurationOption = None,
    fold: FoldOption = None,
    trainer: TrainerOption = "supervised",
    planner: PlanOption = None,
    settings: SetOption = None,
    label_fraction: FractionOption = 1.0,
    seed: SeedOption = 0,
    init: InitOption = None,
    name: NameOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an unfinished run where it stopped")] = False,
    device: DeviceOption = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Trains folds of one configuration, then predicts and scores their validation cases."""
    from selfcfg.engine.experiment import TrainRequest  # noqa: PLC0415

    request = TrainRequest(
        configuration=configuration,
        planner=planner,
        trainer=trainer,
        settings=settings_of(settings),
        label_fraction=label_fraction,
        seed=seed,
        init=init.absolute() if init else None,
        name=name,
        resume=resume,
        device=device,
    )
    project = open_project(dataset, workspace)
    _train_and_tell(Speaker(as_json), project, request, folds_of(fold, [0]), jobs)


def plan_and_train(
    dataset: DatasetArgument,
    configuration: ConfigurationOption = None,
    fold: FoldOption = None,
    trainer: TrainerOption = "supervised",
    planner: PlannerOption = "standard",
    memory: MemoryOption = None,
    settings: SetOption = None,
    seed: SeedOption = 0,
    name: NameOption = None,
    device: DeviceOption = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Checks, measures, plans, preprocesses and trains folds 0 to 4; the same command continues where it stopped."""
    from selfcfg.engine import pipeline  # noqa: PLC0415
    from selfcfg.engine.experiment import TrainRequest  # noqa: PLC0415

    speaker = Speaker(as_json)
    project = open_project(dataset, workspace)
    warnings = pipeline.checked(project, jobs)
    speaker.say(f"{project.name}: {counted(len(project.dataset.cases), 'case')}, {counted(len(warnings), 'warning')}")
    facts = pipeline.fingerprint(project, jobs)
    file = project.plan_file(planner, memory)
    if file.is_file():
        made = Plan.read(file)
        speaker.say(f"plan: {file} as it is (to make it again: selfcfg plan {project.name})")
    else:
        _, made = pipeline.make_plan(project, facts, planner, memory)
        speaker.say(f"planned: {file} (to read it: selfcfg plan {project.name} --explain)")
    told = warn(made, facts)
    request = TrainRequest(
        configuration=configuration,
        planner=file.stem,
        trainer=trainer,
        settings=settings_of(settings),
        seed=seed,
        name=name,
        resume=True,
        device=device,
    )
    _train_and_tell(speaker, project, request, folds_of(fold, []) or None, jobs, {"warnings": told})


def _train_and_tell(
    speaker: Speaker,
    project: Project,
    request: TrainRequest,
    folds: list[int] | None,
    jobs: int,
    told: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    from selfcfg.engine.experiment import open_experiment, train_fold  # noqa: PLC0415
    from selfcfg.engine.validation import cross_validated, scored_folds  # noqa: PLC0415
    from selfcfg.report.report import write_report  # noqa: PLC0415

    experiment = open_experiment(project, request, folds, jobs=jobs)
    for fold in experiment.folds:
        result = train_fold(experiment, fold)
        speaker.say(f"fold {fold}: {result.run.path}\n{result.evaluation.table()}")
    scores, scored = cross_validated(experiment.folder), scored_folds(experiment.folder)
    if len(scored) > 1:
        speaker.say(f"all finished folds together:\n{scores.table()}")
    report = write_report(experiment.folder, scores, project.dataset, experiment.plan)
    speaker.say(f"report: {report}")
    speaker.done(
        {
            "run": str(experiment.folder),
            "folds": [run.path.name for run in scored],
            "dice": scores.foreground_mean["dice"],
            "report": str(report),
            **told,
        },
        f"selfcfg predict {experiment.folder} -i INPUT -o OUTPUT",
    )
