"""Commands from a raw dataset to preprocessed cases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from selfcfg.cli.options import (
    ConfigurationOption,
    DatasetArgument,
    DebugOption,
    JobsOption,
    JsonOption,
    PlanOption,
    Speaker,
    WorkspaceOption,
    open_project,
    split_values,
    typed,
)
from selfcfg.errors import UsageError, counted
from selfcfg.workspace import Workspace

ChannelsOption = Annotated[
    list[str] | None,
    typer.Option(help="channel names in order, such as CT or T1,T2; they choose the normalisation"),
]
SubjectPatternOption = Annotated[
    str | None, typer.Option(metavar="RE", help="regular expression whose first group is the subject in a case id")
]
IdOption = Annotated[int, typer.Option("--id", help="number of the new dataset, 1 to 999")]
NewNameOption = Annotated[str, typer.Option("--name", help="name of the new dataset: letters, digits, '-' and '_'")]

convert = typer.Typer(
    help="Brings a dataset into the standard folder format.", no_args_is_help=True, rich_markup_mode=None
)


@convert.command("msd")
def convert_msd(
    source: Annotated[Path, typer.Argument(help="a task folder of the Medical Segmentation Decathlon")],
    number: IdOption,
    name: NewNameOption,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Converts a dataset of the Medical Segmentation Decathlon."""
    from selfcfg.convert.msd import convert_msd as convert_dataset  # noqa: PLC0415

    dataset = convert_dataset(source, Workspace.at(workspace).new_dataset_folder(number, name))
    _converted(Speaker(as_json), dataset.root, len(dataset.cases))


@convert.command("folder")
def convert_folder(
    images: Annotated[
        list[Path], typer.Option(help="folder of images; repeat once per channel, or use _0000 suffixes")
    ],
    labels: Annotated[Path, typer.Option(help="folder of label maps named like the images")],
    number: IdOption,
    name: NewNameOption,
    channels: ChannelsOption = None,
    labels_json: Annotated[
        Path | None, typer.Option(help='{"name": original value}, or the "labels" of a dataset.json')
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="label values above this are foreground, the others background")
    ] = None,
    subject_pattern: SubjectPatternOption = None,
    image_targets: Annotated[
        Path | None, typer.Option(help="table (CSV) of image-level targets: a column of case ids, then one a target")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option(help="columns of --image-targets that are classes although they hold numbers")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Converts folders of images and labels, paired by name."""
    from selfcfg.convert.folder import FolderRequest  # noqa: PLC0415
    from selfcfg.convert.folder import convert_folder as convert_dataset  # noqa: PLC0415

    speaker = Speaker(as_json)
    request = FolderRequest(
        images=tuple(images),
        labels=labels,
        channels=tuple(split_values(channels)),
        labels_json=labels_json,
        threshold=threshold,
        subject_pattern=subject_pattern,
        image_targets=image_targets,
        class_columns=tuple(split_values(classes)),
    )
    dataset = convert_dataset(request, Workspace.at(workspace).new_dataset_folder(number, name))
    if labels_json is None:
        speaker.say(f"classes: {', '.join(dataset.labels.targets)} (to name them: --labels-json)")
    _converted(speaker, dataset.root, len(dataset.cases))


@convert.command("rle-csv")
def convert_rle_csv(
    images: Annotated[Path, typer.Option(help="folder of pictures (DICOM, PNG, ...), with all folders in it")],
    table: Annotated[Path, typer.Option("--csv", help="table with a row a mask: the image's name, the run lengths")],
    number: IdOption,
    name: NewNameOption,
    coding: Annotated[
        Literal["relative", "absolute"] | None,
        typer.Option(help="starts of runs count from the run before, or from the first pixel; default: what fits"),
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="column of image names; default: ImageId or the like")] = None,
    code_column: Annotated[str | None, typer.Option(help="column of codes; default: EncodedPixels or the like")] = None,
    unlisted: Annotated[
        Literal["leave-out", "empty"], typer.Option(help="images without a row: unlabelled, or without a mask")
    ] = "leave-out",
    label_name: Annotated[str, typer.Option(help="name of what the masks show")] = "foreground",
    channels: ChannelsOption = None,
    subject_pattern: SubjectPatternOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Converts pictures whose masks are run lengths in a table, such as those of SIIM-ACR pneumothorax segmentation."""
    from selfcfg.convert.rle_csv import RleRequest  # noqa: PLC0415
    from selfcfg.convert.rle_csv import convert_rle_csv as convert_dataset  # noqa: PLC0415

    request = RleRequest(
        images=images,
        table=table,
        coding=coding,
        id_column=id_column,
        code_column=code_column,
        unlisted=unlisted,
        label_name=label_name,
        channels=tuple(split_values(channels)),
        subject_pattern=subject_pattern,
    )
    dataset = convert_dataset(request, Workspace.at(workspace).new_dataset_folder(number, name))
    _converted(Speaker(as_json), dataset.root, len(dataset.cases))


def _converted(speaker: Speaker, root: Path, n_cases: int) -> None:
    speaker.say(f"converted {counted(n_cases, 'case')} to {root}")
    speaker.done({"dataset": str(root)}, f"selfcfg check {typed(root.name)}")


def check(
    dataset: DatasetArgument,
    fix: Annotated[
        bool, typer.Option("--fix", help="record fixes of tiny geometry drift in fixes.json; no image is changed")
    ] = False,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Looks for everything in a dataset that would make training go wrong; exit code 1 where something does."""
    from selfcfg.engine.checks.check import check as find  # noqa: PLC0415
    from selfcfg.engine.checks.check import write_fixes  # noqa: PLC0415

    speaker = Speaker(as_json)
    root = Workspace.at(workspace).dataset_folder(dataset)
    findings = find(root, jobs)
    if fix and (fixed := write_fixes(root, findings)):
        speaker.say(f"recorded {counted(len(fixed), 'fix', 'fixes')} in {root / 'fixes.json'}")
        findings = find(root, jobs)
    for finding in findings:
        speaker.say(str(finding))
    errors = sum(finding.severity == "error" for finding in findings)
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(finding.kind for finding in findings).most_common())
    found = f"{counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}"
    speaker.say(f"{root.name}: {found}" + (f" ({kinds})" if kinds else ""))
    next_command = "" if errors else f"selfcfg plan {typed(root.name)} --explain"
    speaker.done({"findings": [finding.model_dump(mode="json") for finding in findings]}, next_command)
    if errors:
        raise typer.Exit(1)


def fingerprint(
    dataset: DatasetArgument,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Measures a dataset: spacings, shapes, intensities, class volumes; only new or changed cases are read."""
    from selfcfg.engine import pipeline  # noqa: PLC0415

    speaker = Speaker(as_json)
    project = open_project(dataset, workspace)
    facts = pipeline.fingerprint(project, jobs)
    speaker.say(f"measured {counted(facts.n_cases, 'case')} of {project.name}: {project.fingerprint_file}")
    speaker.done({"fingerprint": str(project.fingerprint_file)}, f"selfcfg plan {typed(project.name)} --explain")


def preprocess(
    dataset: DatasetArgument,
    configuration: ConfigurationOption = None,
    planner: PlanOption = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="N/ALL", help="a share of the cases, such as 1/4; other machines do the others"),
    ] = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Crops, normalises and resamples the cases of a dataset; only new or changed cases are done."""
    from selfcfg.engine import pipeline  # noqa: PLC0415

    share = pipeline.WHOLE if shard is None else pipeline.Shard(*_share_of(shard))
    speaker = Speaker(as_json)
    project = open_project(dataset, workspace)
    _, chosen = project.plan(planner)
    name = configuration or chosen.default_configuration
    chosen.configuration(name)
    store = pipeline.store(project, chosen, name, jobs, share)
    used = f" --planner {planner}" if planner else ""
    speaker.say(f"{len(store.cases())} cases of {project.name} are ready for {name}: {store.folder}")
    speaker.done(
        {"store": str(store.folder), "configuration": name}, f"selfcfg train {typed(project.name)} -c {name}{used}"
    )


def _share_of(text: str) -> tuple[int, int]:
    """The numbers of a share given as N/ALL.

    Raises:
        UsageError: no such share.
    """
    number, _, of_all = text.partition("/")
    if not number.isdigit() or not of_all.isdigit() or not 1 <= int(number) <= int(of_all):
        raise UsageError("--shard", f"'{text}' is no share of the cases", "write 1/4 for the first of four")
    return int(number), int(of_all)
