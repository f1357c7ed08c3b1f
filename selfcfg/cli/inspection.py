"""Commands that try the installation and look at what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from selfcfg.cli.options import (
    AnonymiseKeyOption,
    AnonymiseOption,
    DebugOption,
    JobsOption,
    JsonOption,
    Speaker,
    WorkspaceOption,
    refuse_key_alone,
)
from selfcfg.errors import DataError
from selfcfg.recipes.recipe import Recipe, find_recipe, shipped_recipes
from selfcfg.records import Record
from selfcfg.workspace import SET_WORKSPACE, Workspace


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
    what: Annotated[Literal["planners", "trainers", "recipes", "datasets"], typer.Argument(help="what to list")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Lists what is installed (planners, trainers with their settings, recipes) or the datasets of the workspace."""
    speaker = Speaker(as_json)
    if what == "datasets":
        entries: list[dict[str, Any]] = [
            {"id": number, "name": folder.name} for number, folder in Workspace.at(workspace).datasets().items()
        ]
        for entry in entries:
            speaker.say(f"{entry['id']:3d}  {entry['name']}")
        if not entries:
            speaker.say(f"no datasets in {Workspace.at(workspace).raw}; {SET_WORKSPACE}")
    elif what == "recipes":
        entries = [_told(speaker, recipe) for recipe in shipped_recipes().values()]
    else:
        entries = _registered(speaker, what)
    speaker.done({what: entries})


def _told(speaker: Speaker, recipe: Recipe) -> dict[str, Any]:
    """Name, stages and summary of a recipe."""
    stages = [stage.name for stage in recipe.stage]
    speaker.say(f"{recipe.name}  ({', then '.join(stages)})\n    {recipe.summary}")
    return {"name": recipe.name, "stages": stages, "summary": recipe.summary}


def show(
    recipe: Annotated[
        str, typer.Argument(help="name of a recipe, a TOML file, or the recipe.json beside the results of one")
    ],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Shows the stages of a recipe: what each trains, starts from and keeps, every setting that it names, all jobs."""
    from selfcfg.cli.recipes import described, overview  # noqa: PLC0415

    speaker, said = Speaker(as_json), find_recipe(recipe)
    told = overview(said)
    speaker.say("\n".join(described(said, told)))
    speaker.done({"recipe": told})


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
    told = {inner: field.description for inner, field in type(default).model_fields.items()}
    lines = (f"    {key}.{inner} = {value}    {told[inner] or ''}".rstrip() for inner, value in default)
    return [f"    {key}: {description}", *lines]


def report(
    target: Annotated[
        str, typer.Argument(metavar="RUN_OR_DATASET", help="an experiment folder, or a dataset for all its experiments")
    ],
    attributes: Annotated[
        Path | None, typer.Option(help="table with a row a case (site, scanner, sex, age ...): scores by groups")
    ] = None,
    readers: Annotated[
        list[Path] | None, typer.Option(help="folder of another reader's labels of the same cases; repeated")
    ] = None,
    anonymise: AnonymiseOption = False,
    anonymise_key: AnonymiseKeyOption = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Writes report.html, one file to open and give away, and report.md for every experiment that has scores."""
    from selfcfg.engine.scoring.validation import scored_folds  # noqa: PLC0415
    from selfcfg.project import experiments_of  # noqa: PLC0415
    from selfcfg.report.names import Naming  # noqa: PLC0415
    from selfcfg.report.report import Asked, report_experiment  # noqa: PLC0415

    refuse_key_alone(anonymise, anonymise_key)
    speaker, place = Speaker(as_json), Workspace.at(workspace)
    asked = Asked(attributes, tuple(readers or ()), Naming(anonymise, anonymise_key), jobs)
    folders = experiments_of(target, place)
    reports = []
    for folder in folders:
        if len(folders) > 1 and not scored_folds(folder):
            speaker.say(f"left out: {folder.name}, which has no scores yet")
            continue
        reports.append(report_experiment(folder, place, asked))
        speaker.say(f"report: {reports[-1].page}")
    if not reports:
        raise DataError(f"report on '{target}'", "no experiment has scores yet", "finish training with --resume")
    if anonymise_key is not None:
        speaker.say(f"which case has which name: {anonymise_key} (keep it apart from the report)")
    every = [str(one.page) for one in reports]
    speaker.done({"report": every[0], "markdown": str(reports[0].markdown), "reports": every})


def doctor(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Says what this machine has: versions, device, precision, cores, memory and disk."""
    import psutil  # noqa: PLC0415

    from selfcfg.engine.device import choose_device, machine_facts, package_versions, resolve_precision  # noqa: PLC0415
    from selfcfg.parallel import default_jobs  # noqa: PLC0415

    speaker = Speaker(as_json)
    device = choose_device(None)
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(Path.cwd()))
    facts = {
        **machine_facts(device),
        "precision": resolve_precision(device, "auto"),
        "cores": default_jobs(),
        "memory": f"{memory.total / 2**30:.1f} GB, {memory.available / 2**30:.1f} GB free",
        "disk": f"{disk.free / 2**30:.1f} GB free in {Path.cwd()}",
    }
    versions = package_versions()
    for key, value in {**versions, **facts}.items():
        speaker.say(f"{key:32s} {value}")
    speaker.done({"versions": versions, "machine": facts})
