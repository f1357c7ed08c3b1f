"""The command that plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from selfcfg.cli.options import (
    DebugOption,
    JobsOption,
    JsonOption,
    MemoryOption,
    PlannerOption,
    SpacingOption,
    Speaker,
    WorkspaceOption,
    open_project,
    spacing_of,
)
from selfcfg.errors import UsageError

if TYPE_CHECKING:
    from selfcfg.fingerprint import Fingerprint
    from selfcfg.geometry import Vector
    from selfcfg.plan import Plan
    from selfcfg.project import Project


def plan(
    dataset: Annotated[
        str | None, typer.Argument(help="id, folder name or path of a dataset; not with --fingerprint")
    ] = None,
    planner: PlannerOption = "standard",
    memory: MemoryOption = None,
    spacing: SpacingOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="print what was measured, what was decided and why")
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
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Plans network, patch, batch and preprocessing from a dataset's fingerprint."""
    speaker = Speaker(as_json)
    wish = _Wish(planner, memory, spacing_of(spacing), from_nnunet, nnunet_format)
    if from_nnunet is not None and (memory is not None or spacing is not None or nnunet_format):
        found = "nothing is planned, so --memory, --spacing and --nnunet-format mean nothing"
        raise UsageError("plan --from-nnunet", found, "leave them out")
    if fingerprint_file is not None:
        if dataset_json is None or out is None or dataset is not None:
            raise UsageError(
                "plan --fingerprint", "it needs --dataset-json and --out, and no DATASET", "see: selfcfg plan --help"
            )
        facts, made = _from_files(wish, fingerprint_file, dataset_json, out)
        files = [out]
    elif dataset is not None:
        facts, made, files = _for_dataset(wish, open_project(dataset, workspace), jobs)
    else:
        raise UsageError(
            "plan", "no dataset was named", "give a DATASET, or --fingerprint with --dataset-json and --out"
        )
    if explain:
        from selfcfg.report.plan_page import plan_page  # noqa: PLC0415

        speaker.say(plan_page(made, facts))
    for name, configuration in made.configurations.items():
        patch = "x".join(map(str, configuration.patch_size))
        speaker.say(
            f"{name}: patch {patch}, batch {configuration.batch_size}, {configuration.topology.n_stages} stages"
        )
    speaker.say(f"written to {' and '.join(map(str, files))}")
    chosen = "" if memory is None and from_nnunet is None else f" --planner {files[0].stem}"
    next_command = f"selfcfg preprocess {made.dataset}{chosen}" if fingerprint_file is None else ""
    speaker.done({"plan": str(files[0]), "configurations": list(made.configurations)}, next_command)


class _Wish(NamedTuple):
    planner: str
    memory: float | None
    spacing: Vector | None
    from_nnunet: Path | None
    nnunet_format: bool


def _from_files(wish: _Wish, fingerprint: Path, dataset_json: Path, out: Path) -> tuple[Fingerprint, Plan]:
    """The facts and the plan, written to `out`."""
    from selfcfg.dataset import DatasetDescription  # noqa: PLC0415
    from selfcfg.engine.planner import plan_from_files  # noqa: PLC0415
    from selfcfg.files import write_json  # noqa: PLC0415
    from selfcfg.fingerprint import Fingerprint  # noqa: PLC0415
    from selfcfg.interop import nnunet_read, nnunet_write  # noqa: PLC0415

    description = DatasetDescription.read(dataset_json)
    if wish.from_nnunet is not None:
        name = dataset_json.absolute().parent.name
        facts, made = Fingerprint.read(fingerprint), nnunet_read.read_plans(wish.from_nnunet, description, name)
    else:
        facts, made = plan_from_files(fingerprint, dataset_json, wish.planner, wish.memory, wish.spacing)
    if wish.nnunet_format:
        name = nnunet_write.plans_name(made.planner, wish.memory)
        write_json(out, nnunet_write.to_nnunet(made, description, name))
    else:
        made.write(out)
    return facts, made


def _for_dataset(wish: _Wish, project: Project, jobs: int) -> tuple[Fingerprint, Plan, list[Path]]:
    """The facts, the plan, and the files it was written to."""
    from selfcfg.engine import pipeline  # noqa: PLC0415
    from selfcfg.interop import nnunet_read, nnunet_write  # noqa: PLC0415

    if wish.from_nnunet is not None:
        file, made = nnunet_read.import_plans(project, wish.from_nnunet)
        return pipeline.fingerprint(project, jobs), made, [file]
    facts = pipeline.fingerprint(project, jobs)
    file, made = pipeline.make_plan(project, facts, wish.planner, wish.memory, wish.spacing)
    files = [file]
    if wish.nnunet_format:
        files.append(nnunet_write.export_plans(project, made, nnunet_write.plans_name(made.planner, wish.memory)))
    return facts, made, files
