"""The command that plans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from selfcfg.cli.options import (
    ConfigurationOption,
    DatasetArgument,
    DebugOption,
    DeviceOption,
    FoldOption,
    JobsOption,
    JsonOption,
    MemoryOption,
    PlannerOption,
    PlanOption,
    SetOption,
    SpacingOption,
    Speaker,
    TrainerOption,
    WorkspaceOption,
    folds_of,
    open_project,
    seconds_of,
    settings_of,
    spacing_of,
    typed,
)
from selfcfg.engine.planner import Target
from selfcfg.errors import UsageError
from selfcfg.plan import Plan
from selfcfg.progress import duration, say

if TYPE_CHECKING:
    from selfcfg.dataset import DatasetDescription
    from selfcfg.fingerprint import Fingerprint
    from selfcfg.geometry import Vector
    from selfcfg.project import Project


def plan(
    dataset: Annotated[
        str | None, typer.Argument(help="id, folder name or path of a dataset; not with --fingerprint")
    ] = None,
    planner: PlannerOption = "standard",
    memory: MemoryOption = None,
    time_budget: Annotated[
        str | None,
        typer.Option(help="such as 12h: a network small enough to be trained once in that time on this machine"),
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="fill this machine's accelerator, trying steps out instead of forecasting")
    ] = False,
    spacing: SpacingOption = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="print, and write beside the plan with plots, what was measured, decided and why"
        ),
    ] = False,
    fingerprint_file: Annotated[
        Path | None, typer.Option("--fingerprint", help="plan from this file, of selfcfg or nnU-Net; no images needed")
    ] = None,
    dataset_json: Annotated[Path | None, typer.Option(help="dataset.json that belongs to --fingerprint")] = None,
    out: Annotated[Path | None, typer.Option(help="where to write the plan when there is no DATASET")] = None,
    from_nnunet: Annotated[
        Path | None, typer.Option(metavar="PLANS.json", help="take over this plan of nnU-Net instead of planning")
    ] = None,
    nnunet_format: Annotated[
        bool, typer.Option("--nnunet-format", help="write nnU-Net's plans.json: beside the plan, or as --out")
    ] = False,
    device: DeviceOption = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Plans network, patch, batch and preprocessing from a dataset's fingerprint."""
    speaker = Speaker(as_json)
    wish = _Wish(
        planner, Target(memory, seconds_of(time_budget), fit, device), spacing_of(spacing), from_nnunet, nnunet_format
    )
    _refuse_contradictions(wish, dataset, fingerprint_file, dataset_json, out)
    if fingerprint_file is not None and dataset_json is not None and out is not None:
        made = _from_files(wish, fingerprint_file, dataset_json, out)
    else:
        made = _for_dataset(wish, open_project(str(dataset), workspace), jobs)
    if explain:
        _explain(speaker, made, wish.spacing)
    for name, configuration in made.plan.configurations.items():
        patch = "x".join(map(str, configuration.patch_size))
        speaker.say(
            f"{name}: patch {patch}, batch {configuration.batch_size}, {configuration.topology.n_stages} stages"
        )
    speaker.say(f"written to {' and '.join(map(str, made.files))}")
    if dataset is not None and not wish.target.suffix and from_nnunet is None:
        offer_less(speaker, made.plan, device)
    result = {"plan": str(made.files[0]), "configurations": list(made.plan.configurations)}
    speaker.done({**result, "warnings": warn(made.plan, made.facts)}, _next(made, time_budget) if dataset else "")


def forecast(
    dataset: DatasetArgument,
    configuration: ConfigurationOption = None,
    fold: FoldOption = None,
    trainer: TrainerOption = "supervised",
    planner: PlanOption = None,
    settings: SetOption = None,
    device: DeviceOption = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Says what preprocessing, training and prediction will take here: time, memory, disk. A few steps are tried."""
    from selfcfg.engine.choice import TrainRequest  # noqa: PLC0415
    from selfcfg.engine.experiment import forecast_of, stages  # noqa: PLC0415

    speaker, project = Speaker(as_json), open_project(dataset, workspace)
    request = TrainRequest(
        configuration=configuration, planner=planner, trainer=trainer, settings=settings_of(settings), device=device
    )
    folds = folds_of(fold, []) or None
    *before, last = stages(project, request, folds, jobs=jobs)
    made = [forecast_of(project, stage, jobs=jobs) for stage in before]
    made.append(forecast_of(project, last, folds, jobs=jobs))
    for found in made:
        speaker.say(f"{found.configuration} of {project.name} on {found.device} in {found.precision}, at most:")
        speaker.say(found.table())
    result = {
        "forecast": made[-1].model_dump(mode="json"),
        "before": [one.model_dump(mode="json") for one in made[:-1]],
    }
    used = f" --planner {planner}" if planner else ""
    speaker.done(result, f"selfcfg train {typed(project.name)} -c {made[-1].configuration}{used}")


def warn(plan: Plan, facts: Fingerprint) -> list[dict[str, Any]]:
    """The cautions about a dataset that need a decision, said one a line on stderr."""
    from selfcfg.engine.checks.cautions import cautions  # noqa: PLC0415

    found = [caution for caution in cautions(plan, facts) if caution.severity == "warning"]
    for caution in found:
        say(f"warning: {caution}")
    return [caution.model_dump(mode="json") for caution in found]


def plan_of(speaker: Speaker, project: Project, facts: Fingerprint, planner: str, target: Target) -> tuple[Path, Plan]:
    """The plan that is there already, or a new one, with its file."""
    from selfcfg.engine import pipeline  # noqa: PLC0415
    from selfcfg.engine.planner import other_memories  # noqa: PLC0415
    from selfcfg.report.plan_files import write_page  # noqa: PLC0415

    file = project.plan_file(planner, target.suffix)
    if file.is_file():
        speaker.say(f"plan: {file} as it is (to make it again: selfcfg plan {project.name})")
        return file, Plan.read(file)
    _, made = pipeline.make_plan(project, facts, planner, target)
    page = write_page(file, made, facts, other_memories(made, facts, project.dataset.description))
    speaker.say(f"planned: {file}, explained in {page}")
    return file, made


def offer_less(speaker: Speaker, plan: Plan, device: str | None) -> None:
    """Says how long the plan would take without an accelerator, and how to get one that does not, if that is long."""
    from selfcfg.engine.device import choose_device  # noqa: PLC0415
    from selfcfg.engine.footprint import rough_step_seconds  # noqa: PLC0415
    from selfcfg.engine.forecasting.fitting import MOST_STEPS, NIGHT  # noqa: PLC0415
    from selfcfg.parallel import default_jobs  # noqa: PLC0415

    configuration = plan.configuration(plan.default_configuration)
    seconds = MOST_STEPS * rough_step_seconds(plan, configuration, default_jobs())
    if choose_device(device).type == "cpu" and seconds > 2 * NIGHT:
        speaker.say(
            f"without an accelerator, training this plan with nnU-Net's {MOST_STEPS} steps takes roughly "
            f"{duration(seconds)} here, once. A network for a night, and what is given up for it: "
            f"selfcfg plan {plan.dataset} --time-budget 12h --explain"
        )


class _Wish(NamedTuple):
    """What a plan is to be made of."""

    planner: str
    target: Target
    spacing: Vector | None
    from_nnunet: Path | None
    nnunet_format: bool


def _refuse_contradictions(
    wish: _Wish, dataset: str | None, fingerprint: Path | None, dataset_json: Path | None, out: Path | None
) -> None:
    """Raises where options of `plan` exclude each other, or one is missing."""
    if wish.from_nnunet is not None and (wish.target.suffix or wish.spacing is not None or wish.nnunet_format):
        found = "nothing is planned, so the options that say how mean nothing"
        raise UsageError("plan --from-nnunet", found, "leave them out")
    if fingerprint is None:
        if dataset is None:
            remedy = "give a DATASET, or --fingerprint with --dataset-json and --out"
            raise UsageError("plan", "no dataset was named", remedy)
        return
    if wish.target.fill or wish.target.seconds is not None:
        raise UsageError("plan --fingerprint", "no machine to try steps on", "give a DATASET, or --memory")
    if dataset_json is None or out is None or dataset is not None:
        found = "it needs --dataset-json and --out, and no DATASET"
        raise UsageError("plan --fingerprint", found, "see: selfcfg plan --help")


class _Made(NamedTuple):
    """A plan, what it was made from, and the files it was written to, ours first."""

    plan: Plan
    facts: Fingerprint
    description: DatasetDescription
    files: Sequence[Path]


def _from_files(wish: _Wish, fingerprint: Path, dataset_json: Path, out: Path) -> _Made:
    """The plan for a fingerprint file, written to `out`."""
    from selfcfg.dataset import DatasetDescription  # noqa: PLC0415
    from selfcfg.engine.planner import plan_from_files  # noqa: PLC0415
    from selfcfg.files import write_json  # noqa: PLC0415
    from selfcfg.fingerprint import Fingerprint  # noqa: PLC0415
    from selfcfg.interop import nnunet_read, nnunet_write  # noqa: PLC0415
    from selfcfg.report.plan_files import remove_page  # noqa: PLC0415

    description = DatasetDescription.read(dataset_json)
    if wish.from_nnunet is not None:
        name = dataset_json.absolute().parent.name
        facts, made = Fingerprint.read(fingerprint), nnunet_read.read_plans(wish.from_nnunet, description, name)
    else:
        facts, made = plan_from_files(fingerprint, dataset_json, wish.planner, wish.target.memory_gb, wish.spacing)
    remove_page(out)
    if wish.nnunet_format:
        name = nnunet_write.plans_name(made.planner, wish.target.suffix)
        write_json(out, nnunet_write.to_nnunet(made, description, name))
    else:
        made.write(out)
    return _Made(made, facts, description, [out])


def _for_dataset(wish: _Wish, project: Project, jobs: int) -> _Made:
    """The plan for a dataset, written into its folder."""
    from selfcfg.engine import pipeline  # noqa: PLC0415
    from selfcfg.interop import nnunet_read, nnunet_write  # noqa: PLC0415
    from selfcfg.report.plan_files import remove_page  # noqa: PLC0415

    description = project.dataset.description
    if wish.from_nnunet is not None:
        file, made = nnunet_read.import_plans(project, wish.from_nnunet)
        remove_page(file)
        return _Made(made, pipeline.fingerprint(project, jobs), description, [file])
    facts = pipeline.fingerprint(project, jobs)
    file, made = pipeline.make_plan(project, facts, wish.planner, wish.target, wish.spacing)
    files = [file]
    if wish.nnunet_format:
        files.append(
            nnunet_write.export_plans(project, made, nnunet_write.plans_name(made.planner, wish.target.suffix))
        )
    return _Made(made, facts, description, files)


def _next(made: _Made, time_budget: str | None) -> str:
    """The command that follows; it names the plan where there are others."""
    file, name = made.files[0], typed(made.plan.dataset)
    used = f" --planner {file.stem}" if len(list(file.parent.glob("*.json"))) > 1 else ""
    if time_budget is not None:
        return f"selfcfg train {name}{used} --time-budget {time_budget}"
    return f"selfcfg preprocess {name}{used}"


def _explain(speaker: Speaker, made: _Made, spacing: Vector | None) -> None:
    """Says why the plan is as it is, and writes the same with plots beside it."""
    from selfcfg.engine.planner import other_memories  # noqa: PLC0415
    from selfcfg.report.plan_files import write_page  # noqa: PLC0415
    from selfcfg.report.plan_page import plan_page  # noqa: PLC0415

    others = other_memories(made.plan, made.facts, made.description, spacing)
    speaker.say(plan_page(made.plan, made.facts, others))
    speaker.say(f"the same with plots: {write_page(made.files[0], made.plan, made.facts, others)}")
