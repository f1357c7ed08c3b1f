"""Commands that give trained models to others and take them in: packages, and models of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import typer
from typer.core import TyperGroup

from selfcfg.cli.inference import run_of
from selfcfg.cli.options import DebugOption, FoldOption, JsonOption, Speaker, WorkspaceOption, split_values, typed
from selfcfg.errors import UsageError, counted
from selfcfg.workspace import Workspace

if TYPE_CHECKING:
    from selfcfg.dataset import DatasetDescription
    from selfcfg.interop.exchanged import Exchanged

PACKAGE = "package"


class _OrPackage(TyperGroup):
    """`import FILE` is short for `import package FILE`, whichever option stands first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = [PACKAGE, *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


importing = typer.Typer(
    help="Takes over a model: from a package (import FILE), or one that another tool trained.",
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=_OrPackage,
)


@importing.command(PACKAGE)
def import_package(
    file: Annotated[Path, typer.Argument(help="what selfcfg export MODEL --to package wrote")],
    out: Annotated[
        Path | None, typer.Option(help="folder to make; default: named like the file, in the current folder")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Takes in a packaged model, after every name, size and hash in it was found right; nothing in it is run."""
    from selfcfg.interop.package_read import import_package as read  # noqa: PLC0415

    speaker = Speaker(as_json)
    made = read(file, out or Path(file.stem))
    speaker.say(f"imported {counted(made.networks, 'network')}, packaged by selfcfg {made.made_by}: {made.model}")
    speaker.say(f"what it is and is not for: {made.folder / 'README.md'}")
    speaker.done({"model": str(made.model)}, f"selfcfg predict {typed(made.model)} -i IMAGES -o PREDICTIONS")


@importing.command("nnunet")
def import_nnunet(
    source: Annotated[Path, typer.Argument(metavar="MODEL_DIR_OR_ZIP", help="model folder of nnU-Net v2, or a zip")],
    out: Annotated[Path, typer.Option(help="folder of the model to make; a cascade's first model goes beside it")],
    configuration: Annotated[
        str | None,
        typer.Option(
            "-c", "--configuration", help="which to take where there are several, or the whole name of its folder"
        ),
    ] = None,
    fold: Annotated[
        list[str] | None, typer.Option(help="folds, repeated or with commas; default: the numbered ones, else fold_all")
    ] = None,
    weights: Annotated[
        Literal["final", "best", "latest"], typer.Option(help="which checkpoint becomes the final weights")
    ] = "final",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Makes a model of selfcfg from a trained nnU-Net; code in its files is never run."""
    from selfcfg.interop.nnunet_model_read import LEFT_BEHIND, import_model  # noqa: PLC0415

    speaker = Speaker(as_json)
    made = import_model(source, out, configuration=configuration, folds=split_values(fold) or None, weights=weights)
    _tell(speaker, "imported", made)
    speaker.say(f"not taken over: {LEFT_BEHIND}")
    speaker.done({"model": str(made.model)}, f"selfcfg predict {typed(made.model)} -i IMAGES -o PREDICTIONS")


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="experiment or fold folder of a finished training; for packages also a selected model"
        ),
    ],
    to: Annotated[
        Literal["package", "nnunet"], typer.Option("--to", help="one file for selfcfg, or a folder for nnU-Net")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="file or folder to make; a cascade's first model goes into the package, for nnunet beside the folder; "
            "default: a package named after the dataset, in the current folder"
        ),
    ] = None,
    fold: FoldOption = None,
    weights: Annotated[
        Literal["final", "best"], typer.Option(help="weights of the last or of the best epoch")
    ] = "final",
    dataset_json: Annotated[
        Path | None,
        typer.Option(
            help="dataset.json of the training; default: what an imported model brought, else that of the workspace"
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Writes a trained model: as one file that selfcfg imports elsewhere, or so that another tool predicts with it."""
    from selfcfg.engine.prediction.packaged import model_folder  # noqa: PLC0415

    speaker, place = Speaker(as_json), Workspace.at(workspace)
    folder = model_folder(run_of(model, place))
    folds = split_values(fold)
    what = _What(
        folds=None if "all" in folds else folds or None,
        weights=weights,
        description=_description(folder, dataset_json, place),
    )
    (_to_nnunet if to == "nnunet" else _to_package)(speaker, folder, out, what)


class _What(TypedDict):
    """What of a model is exported, as all writers take it."""

    folds: list[str] | None
    weights: Literal["final", "best"]
    description: DatasetDescription | None


def _to_package(speaker: Speaker, folder: Path, out: Path | None, what: _What) -> None:
    from selfcfg.interop.package_write import write_package  # noqa: PLC0415

    made = write_package(folder, out or Path(f"{_dataset_of(folder)}__{folder.resolve().name}.zip"), **what)
    speaker.say(f"packed {', '.join(made.experiments)}: {made.file}, {made.size} bytes")
    for note in made.notes:
        speaker.say(f"note: {note}")
    speaker.done({"package": str(made.file), "model": made.model}, f"selfcfg import {typed(made.file)} --out MODEL")


def _to_nnunet(speaker: Speaker, folder: Path, out: Path | None, what: _What) -> None:
    from selfcfg.engine.prediction.selected import MODEL  # noqa: PLC0415
    from selfcfg.interop.nnunet_model_write import export_model  # noqa: PLC0415

    if out is None:
        raise UsageError("export --to nnunet", "no --out", "name the folder to make")
    if (folder / MODEL).is_file():
        found = f"{folder} is a selected model, which nnU-Net has no folder for"
        raise UsageError("export --to nnunet", found, "give the folder of one experiment, or use --to package")
    made = export_model(folder, out, **what)
    _tell(speaker, "exported", made)
    speaker.say(f"nnunet: nnUNetv2_predict_from_modelfolder -m {typed(made.model)} -i IMAGES -o PREDICTIONS")
    speaker.done({"model": str(made.model), "folds": list(made.folds)})


def _description(folder: Path, dataset_json: Path | None, workspace: Workspace) -> DatasetDescription | None:
    """dataset.json of a training: the one that is given, else what came with the model, else that of the workspace."""
    from selfcfg.dataset import DatasetDescription  # noqa: PLC0415
    from selfcfg.interop.exchanged import came_with  # noqa: PLC0415

    if dataset_json is None:
        if (told := came_with(folder)) is not None:
            return told
        dataset_json = workspace.raw / _dataset_of(folder) / "dataset.json"
        if not dataset_json.is_file():
            return None
    return DatasetDescription.read(dataset_json)


def _dataset_of(folder: Path) -> str:
    """The dataset that a model was trained on."""
    from selfcfg.engine.prediction.selected import MODEL, SelectedModel  # noqa: PLC0415
    from selfcfg.runs import RunRecord, fold_folders  # noqa: PLC0415

    if (folder / MODEL).is_file():
        return SelectedModel.read(folder / MODEL).dataset
    return RunRecord.read(fold_folders(folder)[0].record).dataset


def _tell(speaker: Speaker, done: str, made: Exchanged) -> None:
    speaker.say(f"{done} {', '.join(made.folds)}: {made.model}")
    if made.first is not None:
        speaker.say(f"the first model of the cascade: {made.first}")
    for note in made.notes:
        speaker.say(f"note: {note}")
