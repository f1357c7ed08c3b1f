"""The command that plans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
        from selfcfg.engine.planner import plan_from_files  # noqa: PLC0415

        if dataset_json is None or out is None or dataset is not None:
            raise UsageError(
                "plan --fingerprint", "it needs --dataset-json and --out, and no DATASET", "see: selfcfg plan --help"
            )
        facts, made = plan_from_files(fingerprint_file, dataset_json, planner, memory, target)
        made.write(out)
        file = out
    else:
        from selfcfg.engine import pipeline  # noqa: PLC0415

        if dataset is None:
            raise UsageError(
                "plan", "no dataset was named", "give a DATASET, or --fingerprint with --dataset-json and --out"
            )
        project = open_project(dataset, workspace)
        facts = pipeline.fingerprint(project, jobs)
        file, made = pipeline.make_plan(project, facts, planner, memory, target)
    if explain:
        from selfcfg.report.plan_page import plan_page  # noqa: PLC0415

        speaker.say(plan_page(made, facts))
    for name, configuration in made.configurations.items():
        patch = "x".join(map(str, configuration.patch_size))
        speaker.say(
            f"{name}: patch {patch}, batch {configuration.batch_size}, {configuration.topology.n_stages} stages"
        )
    speaker.say(f"written to {file}")
    chosen = "" if memory is None else f" --planner {file.stem}"
    next_command = f"selfcfg preprocess {made.dataset}{chosen}" if fingerprint_file is None else ""
    speaker.done({"plan": str(file), "configurations": list(made.configurations)}, next_command)
