"""Commands that take trained models from other tools and give them back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selfcfg.cli.options import DebugOption, FoldOption, JsonOption, Speaker, WorkspaceOption, split_values
from selfcfg.workspace import Workspace

if TYPE_CHECKING:
    from selfcfg.interop.exchanged import Exchanged

importing = typer.Typer(
    help="Takes over a model that another tool trained.", no_args_is_help=True, rich_markup_mode=None
)


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
    speaker.done({"model": str(made.model)}, f"selfcfg predict {made.model} -i IMAGES -o PREDICTIONS")


def export(
    model: Annotated[Path, typer.Argument(help="experiment or fold folder of a finished training")],
    to: Annotated[Literal["nnunet"], typer.Option("--to", help="the tool that is to predict with it")],
    out: Annotated[Path, typer.Option(help="folder to make; a cascade's first model goes beside it")],
    fold: FoldOption = None,
    weights: Annotated[
        Literal["final", "best"], typer.Option(help="weights of the last or of the best epoch")
    ] = "final",
    dataset_json: Annotated[
        Path | None, typer.Option(help="dataset.json of the training; default: that of the workspace, if it is there")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Writes a trained model so that another tool predicts with it."""
    from selfcfg.dataset import DatasetDescription  # noqa: PLC0415
    from selfcfg.interop.nnunet_model_write import export_model  # noqa: PLC0415
    from selfcfg.runs import RunRecord, fold_folders  # noqa: PLC0415

    speaker = Speaker(as_json)
    folds = split_values(fold)
    if dataset_json is None:
        dataset = RunRecord.read(fold_folders(model)[0].record).dataset
        there = Workspace.at(workspace).raw / dataset / "dataset.json"
        dataset_json = there if there.is_file() else None
    description = DatasetDescription.read(dataset_json) if dataset_json else None
    chosen = None if "all" in folds or not folds else folds
    made = export_model(model, out, folds=chosen, weights=weights, description=description)
    _tell(speaker, "exported", made)
    speaker.say(f"{to}: nnUNetv2_predict_from_modelfolder -m {made.model} -i IMAGES -o PREDICTIONS")
    speaker.done({"model": str(made.model), "folds": list(made.folds)})


def _tell(speaker: Speaker, done: str, made: Exchanged) -> None:
    speaker.say(f"{done} {', '.join(made.folds)}: {made.model}")
    if made.first is not None:
        speaker.say(f"the first model of the cascade: {made.first}")
    for note in made.notes:
        speaker.say(f"note: {note}")
