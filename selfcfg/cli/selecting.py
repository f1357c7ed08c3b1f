"""Commands that choose the model of a dataset from its experiments."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from selfcfg.cli.options import (
    DatasetArgument,
    DebugOption,
    DeviceOption,
    JobsOption,
    JsonOption,
    Speaker,
    WorkspaceOption,
    going_on,
    open_project,
    typed,
)
from selfcfg.cli.training import plan_and_train
from selfcfg.errors import UsageError
from selfcfg.parallel import default_jobs
from selfcfg.workspace import Workspace

if TYPE_CHECKING:
    from selfcfg.engine.selection.records import Selection
    from selfcfg.engine.selection.select import Wanted
    from selfcfg.project import Project


def select(
    dataset: DatasetArgument,
    name: Annotated[str | None, typer.Option(help="keeps this selected model apart from others of the dataset")] = None,
    rule: Annotated[
        Literal["simplest", "highest"],
        typer.Option(help="the simplest that is not shown to be worse than the best, or the highest score"),
    ] = "simplest",
    no_postprocessing: Annotated[
        bool, typer.Option("--no-postprocessing", help="remove no components from label maps, whatever it is worth")
    ] = False,
    keep_probabilities: Annotated[
        bool,
        typer.Option("--keep-probabilities", help="keep what it predicts: it is quick the next time"),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="seed of the resamples")] = 0,
    device: DeviceOption = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Chooses experiment, ensemble and post-processing by cross-validation; predict with the dataset then uses them."""
    from selfcfg.engine.selection.select import Wanted  # noqa: PLC0415

    if name is not None and (set(name) & set("/\\") or name in ("", ".", "..")):
        raise UsageError(f"--name '{name}'", "it cannot be part of a folder's name", "give one without slashes")
    wanted = Wanted(name, rule, not no_postprocessing, keep_probabilities, device, jobs, seed)
    _select(Speaker(as_json), open_project(dataset, workspace), wanted, Workspace.at(workspace), {})


@wraps(plan_and_train)
def run(**given: Any) -> None:
    """Does plan-and-train, then select, and ends with the report."""
    from selfcfg.engine.prediction.selected import selected_folder  # noqa: PLC0415
    from selfcfg.engine.selection.records import FILE, Selection  # noqa: PLC0415
    from selfcfg.engine.selection.select import Wanted  # noqa: PLC0415

    with going_on() as ends:
        plan_and_train(**given)
    speaker, project = Speaker(given["as_json"]), open_project(given["dataset"], given["workspace"])
    if "submit" in ends[0]:
        speaker.done(ends[0], f"bash {ends[0]['submit']}")
        return
    if ends[0].get("dice") is None and "candidates" not in ends[0]:
        speaker.done(ends[0], f"selfcfg train {typed(project.name)} --init {typed(ends[0]['run'])}")
        return
    if given["cluster"]:
        folder = selected_folder(project.results)
        _chosen(speaker, project, (folder, Selection.read(folder / FILE)), Workspace.at(given["workspace"]), ends[0])
        return
    wanted = Wanted(device=given["device"], jobs=given["jobs"] or default_jobs())
    _select(speaker, project, wanted, Workspace.at(given["workspace"]), ends[0])


run.__doc__ = "Does plan-and-train, then select, and ends with the report."


def _select(speaker: Speaker, project: Project, wanted: Wanted, place: Workspace, told: dict[str, Any]) -> None:
    """Chooses, and writes the report that was there before once more, with what was chosen."""
    from selfcfg.engine.selection import select as engine  # noqa: PLC0415

    _chosen(speaker, project, engine.select(project, wanted), place, told)


def _chosen(
    speaker: Speaker, project: Project, found: tuple[Path, Selection], place: Workspace, told: dict[str, Any]
) -> None:
    """Tells what was chosen."""
    from selfcfg.report.report import report_experiment  # noqa: PLC0415

    folder, selection = found
    speaker.say(_summary(selection))
    speaker.say(f"model: {folder}; all that was compared, and why: {folder / 'selection.md'}")
    if told.get("report"):
        report = report_experiment(Path(told["report"]).parent, place)
        speaker.say(f"report: {report.page}")
    answer = {**told, "model": str(folder), "dice": selection.dice}
    speaker.done(answer, f"selfcfg predict {typed(project.name)} -i INPUT -o OUTPUT")


def _summary(selection: Selection) -> str:
    """What was chosen and why, in a few lines."""
    from selfcfg.engine.selection.records import weighted  # noqa: PLC0415

    chosen = selection.chosen
    lines = [f"chosen of {len(selection.candidates)}: {weighted(chosen)}: {chosen.why}"]
    steps = [str(step) for tuned in selection.postprocessing if tuned.adopted for step in tuned.steps]
    lines += [f"after it: {step}" for step in steps] or [selection.postprocessing_note or "post-processing: none helps"]
    if selection.dice is not None:
        lines.append(f"Dice {selection.dice:.4f}, cross-validated")
    return "\n".join(lines)
