"""Commands that try the installation and look at what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from selfcfg.cli.options import DebugOption, JsonOption, Speaker, WorkspaceOption
from selfcfg.records import Record
from selfcfg.workspace import Workspace


def demo(
    workspace: Annotated[Path, typer.Option(help="folder to work in")] = Path("demo"),
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Makes a synthetic dataset and runs the whole road on it, in minutes on two processor cores."""
    from selfcfg.engine.demo import run_demo  # noqa: PLC0415

    speaker = Speaker(as_json)
    dice, report = run_demo(Workspace.at(workspace), speaker.say)
    speaker.say(f"mean Dice of the test cases: {dice:.3f}\nreport: {report}")
    speaker.done({"dice": dice, "report": str(report)}, "selfcfg convert folder --help")


def list_things(
    what: Annotated[Literal["planners", "trainers", "datasets"], typer.Argument(help="what to list")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Lists what is installed (planners, trainers with their settings) or the datasets of the workspace."""
    speaker = Speaker(as_json)
    if what == "datasets":
        entries: list[dict[str, Any]] = [
            {"id": number, "name": folder.name} for number, folder in Workspace.at(workspace).datasets().items()
        ]
        for entry in entries:
            speaker.say(f"{entry['id']:3d}  {entry['name']}")
    else:
        entries = _registered(speaker, what)
    speaker.done({what: entries})


def _registered(speaker: Speaker, what: Literal["planners", "trainers"]) -> list[dict[str, Any]]:
    from selfcfg import registry  # noqa: PLC0415

    entries = []
    for name, point in registry.registered(what).items():
        found = registry.load(what, name)
        summary = (found.__doc__ or "").strip().splitlines()[0] if found.__doc__ else ""
        speaker.say(f"{name}  ({point.value})\n    {summary}")
        entry: dict[str, Any] = {"name": name, "summary": summary, "origin": point.value}
        if what == "trainers":
            entry["settings"] = {}
            for key, field in found.settings_type.model_fields.items():
                default = field.get_default()
                entry["settings"][key] = default.model_dump() if isinstance(default, Record) else default
                speaker.say("\n".join(_setting(key, default, field.description or "")))
        entries.append(entry)
    return entries


def _setting(key: str, default: Any, description: str) -> list[str]:
    """A setting as it is given to --set; one that holds others, those."""
    if not isinstance(default, Record):
        return [f"    {key} = {default}    {description}"]
    return [f"    {key}: {description}", *(f"    {key}.{inner} = {value}" for inner, value in default)]


def report(
    target: Annotated[
        str, typer.Argument(metavar="RUN_OR_DATASET", help="an experiment folder, or a dataset for all its experiments")
    ],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Writes report.md with scores and pictures for finished experiments."""
    from selfcfg.engine.experiment import experiments_of  # noqa: PLC0415
    from selfcfg.report.report import report_experiment  # noqa: PLC0415

    speaker = Speaker(as_json)
    reports = [
        report_experiment(folder, Workspace.at(workspace)) for folder in experiments_of(target, Workspace.at(workspace))
    ]
    for file in reports:
        speaker.say(f"report: {file}")
    speaker.done({"report": str(reports[0])})


def doctor(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Says what this machine has: versions, device, precision, cores and memory."""
    from selfcfg.engine.device import choose_device, machine_facts, package_versions, resolve_precision  # noqa: PLC0415

    speaker = Speaker(as_json)
    device = choose_device(None)
    facts = {**machine_facts(device), "precision": resolve_precision(device, "auto")}
    versions = package_versions()
    for key, value in {**versions, **facts}.items():
        speaker.say(f"{key:32s} {value}")
    speaker.done({"versions": versions, "machine": facts})
