"""Commands that predict and score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from selfcfg.cli.options import (
    DebugOption,
    DeviceOption,
    FoldOption,
    JobsOption,
    JsonOption,
    Speaker,
    WorkspaceOption,
    folds_of,
    split_values,
)
from selfcfg.dataset import DatasetDescription
from selfcfg.errors import UsageError, listed
from selfcfg.project import Project, experiments_of
from selfcfg.workspace import Workspace


def predict(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_DATASET", help="folder of an experiment, fold, recipe, selected model; or dataset"
        ),
    ],
    inputs: Annotated[
        list[Path], typer.Option("-i", "--input", help="an image, one image per channel (repeat), or a folder")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for the label maps")],
    fold: FoldOption = None,
    no_mirroring: Annotated[
        bool,
        typer.Option(
            "--no-mirroring", help="one pass instead of one per mirrored copy: faster, a little less accurate"
        ),
    ] = False,
    step: Annotated[float, typer.Option(min=0.05, max=1, help="step between tiles as a share of the patch")] = 0.5,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="auto: bfloat16 where the device has it")
    ] = "auto",
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="write the class probabilities beside each label map")
    ] = False,
    uncertainty: Annotated[
        bool,
        typer.Option("--uncertainty", help="also maps of how unsure it is, in the folder uncertainty, and quality.csv"),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="predict every case again, and write over files made otherwise")
    ] = False,
    weights: Annotated[
        Literal["final", "best"], typer.Option(help="weights of the last or of the best epoch")
    ] = "final",
    device: DeviceOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Predicts label maps in the geometry of the input; finished cases are kept, failed ones listed at the end."""
    from selfcfg.engine.prediction.opening import load_model  # noqa: PLC0415
    from selfcfg.engine.prediction.predict import PredictOptions, find_inputs, predict_cases  # noqa: PLC0415

    speaker = Speaker(as_json)
    folder, folds = run_of(run, Workspace.at(workspace)), folds_of(fold, []) or None
    model = load_model(folder, folds=folds, device=device, precision=precision, weights=weights)
    cases = find_inputs(inputs[0] if len(inputs) == 1 else inputs, model.plan)
    options = PredictOptions(
        not no_mirroring, step, probabilities=save_probabilities, overwrite=overwrite, uncertainty=uncertainty
    )
    outcome = predict_cases(model, cases, output, options)
    for failure in outcome.failed:
        speaker.say(f"failed: {failure.case}: {failure.reason}")
    speaker.say(
        f"{len(outcome.done)} predicted, {len(outcome.skipped)} there already, {len(outcome.failed)} failed: {output}"
    )
    speaker.done({"predictions": str(output), **outcome.model_dump(mode="json")})
    if outcome.failed:
        raise typer.Exit(1)


def run_of(target: str, workspace: Workspace) -> Path:
    """The folder that is meant: a folder itself, or of a dataset the selected model, else its only experiment.

    Raises:
        UsageError: a dataset has several of either.
    """
    from selfcfg.engine.prediction.selected import FOLDER, selected_models  # noqa: PLC0415

    if is_run(target):
        return Path(target)
    selected = selected_models(Project.of(workspace, target).results)
    if not selected:
        return only_experiment(target, workspace, "predict with")
    if len(selected) > 1 and selected[0].name != FOLDER:
        names = listed(selected, shown=20, separator="\n  ")
        found = f"it has several selected models:\n  {names}\n"
        raise UsageError(f"predict with '{target}'", found, "give the folder of one")
    return selected[0]


def is_run(target: str) -> bool:
    """Whether a text names a folder of runs, not a dataset."""
    path = Path(target)
    return (path.exists() or len(path.parts) > 1) and not (path / "dataset.json").is_file()


def only_experiment(target: str, workspace: Workspace, doing: str) -> Path:
    """The folder of the only experiment of a dataset.

    Raises:
        UsageError: it has several, or none; `doing` is for the message.
    """
    found = experiments_of(target, workspace)
    if len(found) > 1:
        names = listed(found, shown=20, separator="\n  ")
        remedy = f"give the folder of one, or run: selfcfg select {target}"
        raise UsageError(f"{doing} '{target}'", f"it has several experiments:\n  {names}\n", remedy)
    return found[0]


MetricsOption = Annotated[
    list[str] | None,
    typer.Option(
        help="also boundary_iou, centreline_dice (cldice), lesions, or all of these; calibration, of the probabilities "
        "beside the predictions; repeated or with commas"
    ),
]
BoundaryOption = Annotated[
    float | None,
    typer.Option(min=0, help="boundary IoU: how far a boundary reaches inwards; default: the NSD's tolerance"),
]
MatchOption = Annotated[
    str, typer.Option(help="lesions are the same: iou:T, IoU above T and one partner each; or overlap")
]
NeighboursOption = Annotated[
    Literal["corners", "edges", "faces"],
    typer.Option(help="voxels of one lesion touch at least by these: 26, 18, 6 neighbours; 2D: 8, 8, 4"),
]
MarginOption = Annotated[
    float,
    typer.Option(min=0, help="calibration: voxels count this far from reference and prediction: mm, or pixels"),
]
AttributesOption = Annotated[
    Path | None,
    typer.Option(help="CSV, a row a case: id, then site, sex, age ...; scores by group (a column 'subject' joins)"),
]
ReadersOption = Annotated[
    list[Path] | None,
    typer.Option(help="folder of another reader's label maps; repeat for several: agreement of all of them"),
]


def evaluate(
    references: Annotated[Path, typer.Argument(help="folder of reference label maps")],
    predictions: Annotated[Path, typer.Argument(help="folder of predicted label maps with the same names")],
    dataset_json: Annotated[Path, typer.Option(help="dataset.json with the labels")],
    out: Annotated[
        Path | None, typer.Option(help="folder for summary.json and metrics.csv; default: the predictions'")
    ] = None,
    nsd_tolerance: Annotated[
        float, typer.Option(min=0, help="surface distance that counts as agreement: mm, or pixels")
    ] = 2.0,
    empty: Annotated[
        Literal["exclude", "score"],
        typer.Option(help="a class absent from both masks: leave the case out, or score it as perfect"),
    ] = "exclude",
    metrics: MetricsOption = None,
    boundary_width: BoundaryOption = None,
    match: MatchOption = "iou:0.5",
    neighbours: NeighboursOption = "corners",
    calibration_margin: MarginOption = 5.0,
    attributes: AttributesOption = None,
    readers: ReadersOption = None,
    jobs: JobsOption = 0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Scores predictions against references: overlap, distances, lesions, calibration; by groups, beside readers."""
    from selfcfg.engine.scoring.evaluate import evaluate as score  # noqa: PLC0415
    from selfcfg.engine.scoring.evaluate import with_image_targets, with_readers, with_subgroups  # noqa: PLC0415
    from selfcfg.engine.scoring.extras import Extras, asked_for  # noqa: PLC0415

    speaker = Speaker(as_json)
    description = DatasetDescription.read(dataset_json)
    labels = description.schema_of_labels
    asked = asked_for(split_values(metrics))
    extras = Extras.asked(asked, boundary_width, match, neighbours, calibration_margin)
    scores = score(references, predictions, labels, nsd_tolerance=nsd_tolerance, empty=empty, extras=extras, jobs=jobs)
    scores = with_image_targets(scores, predictions, description.image_targets)
    if attributes is not None:
        scores = with_subgroups(scores, attributes)
    if readers:
        scores = with_readers(scores, references, readers, labels, jobs=jobs)
    folder = out or predictions
    scores.write(folder)
    speaker.say(scores.text())
    speaker.say(f"written: {folder / 'summary.json'} and {listed(scores.tables())}")
    answer = {"foreground_mean": scores.foreground_mean, "summary": str(folder / "summary.json")}
    if scores.image_targets:
        answer["image_targets"] = {name: one.metrics() for name, one in scores.image_targets.items()}
    if scores.calibration:
        answer["calibration"] = {name: getattr(scores.calibration.overall, name) for name in ("ece", "brier", "nll")}
    if scores.readers:
        answer["readers"] = {name: one.verdict for name, one in scores.readers.comparisons.items()}
    speaker.done(answer)
