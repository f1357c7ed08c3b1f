"""The command that plans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

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
from selfcfg.dataset import DatasetDescription
from selfcfg.engine.planner import Alternative, other_memories, plan_from_files
from selfcfg.errors import UsageError
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Plan
from selfcfg.progress import say


def plan(
    dataset: Annotated[
        str | None, typer.Argument(help="id, folder name or path of a dataset; not with --fingerprint")
    ] = None,
    planner: PlannerOption = "standard",
    memory: MemoryOption = None,
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
    out: Annotated[Path | None, typer.Option(help="where to write the plan made from --fingerprint")] = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Plans network, patch, batch and preprocessing from a dataset's fingerprint."""
    speaker = Speaker(as_json)
    target = spacing_of(spacing)
    if fingerprint_file is not None:
        from selfcfg.report.plan_files import remove_page  # noqa: PLC0415

        if dataset_json is None or out is None or dataset is not None:
            raise UsageError(
                "plan --fingerprint", "it needs --dataset-json and --out, and no DATASET", "see: selfcfg plan --help"
            )
        facts, made = plan_from_files(fingerprint_file, dataset_json, planner, memory, target)
        remove_page(out)
        made.write(out)
        file, description = out, DatasetDescription.read(dataset_json)
    else:
        from selfcfg.engine import pipeline  # noqa: PLC0415

        if dataset is None:
            raise UsageError(
                "plan", "no dataset was named", "give a DATASET, or --fingerprint with --dataset-json and --out"
            )
        project = open_project(dataset, workspace)
        facts, description = pipeline.fingerprint(project, jobs), project.dataset.description
        file, made = pipeline.make_plan(project, facts, planner, memory, target)
    if explain:
        _explain(speaker, file, made, facts, other_memories(made, facts, description, target))
    for name, configuration in made.configurations.items():
        patch = "x".join(map(str, configuration.patch_size))
        speaker.say(
            f"{name}: patch {patch}, batch {configuration.batch_size}, {configuration.topology.n_stages} stages"
        )
    speaker.say(f"written to {file}")
    chosen = "" if memory is None else f" --planner {file.stem}"
    next_command = f"selfcfg preprocess {made.dataset}{chosen}" if fingerprint_file is None else ""
    result = {"plan": str(file), "configurations": list(made.configurations), "warnings": warn(made, facts)}
    speaker.done(result, next_command)


def warn(plan: Plan, facts: Fingerprint) -> list[dict[str, Any]]:
    """The cautions about a dataset that need a decision, said one a line on stderr."""
    from selfcfg.engine.cautions import cautions  # noqa: PLC0415

    found = [caution for caution in cautions(plan, facts) if caution.severity == "warning"]
    for caution in found:
        say(f"warning: {caution}")
    return [caution.model_dump(mode="json") for caution in found]


def _explain(speaker: Speaker, file: Path, plan: Plan, facts: Fingerprint, others: Sequence[Alternative]) -> None:
    """Says why the plan is as it is, and writes the same with plots beside it."""
    from selfcfg.report.plan_files import write_page  # noqa: PLC0415
    from selfcfg.report.plan_page import plan_page  # noqa: PLC0415

    speaker.say(plan_page(plan, facts, others))
    speaker.say(f"the same with plots: {write_page(file, plan, facts, others)}")
