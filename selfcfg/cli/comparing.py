"""The command that puts systems side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    split_values,
)
from selfcfg.dataset import DatasetDescription
from selfcfg.errors import UsageError, counted
from selfcfg.workspace import Workspace

if TYPE_CHECKING:
    from selfcfg.engine.comparison.records import Comparison
    from selfcfg.report.names import Written

SystemsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME=PATH...",
        help="PATH: experiment or fold folder, folder with a summary.json (ours or nnU-Net's), or of label maps; "
        "NAME=PATH,PATH or NAME='PATH*': repetitions, such as seeds, which are averaged",
    ),
]
SubjectsOption = Annotated[
    str | None,
    typer.Option(
        metavar="CSV|RE",
        help="table with columns case and subject, or regular expression whose first group is the subject in a case "
        "id; default: from the dataset, else each case by itself",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(help="folder of the images, for pictures; default: those beside the dataset.json, or the runs'"),
]
EmptyOption = Annotated[
    Literal["exclude", "score"],
    typer.Option(help="of label maps scored here, a class absent from both masks: leave out, or score as perfect"),
]


def compare(
    systems: SystemsArgument,
    references: Annotated[
        Path | None, typer.Option(help="folder of reference label maps: label maps of the systems are scored here")
    ] = None,
    dataset_json: Annotated[
        Path | None, typer.Option(help="dataset.json with the labels; also names the classes of nnU-Net's scores")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="repeated or with commas, the main one first; default: dice,nsd,hd95")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="compare all others with this NAME; default: all pairs")] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=1e-9, help="by how much the main metric may be worse: non-inferiority"),
    ] = None,
    subjects: SubjectsOption = None,
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("comparison"),
    nsd_tolerance: Annotated[float, typer.Option(min=0, help="of label maps scored here: mm, or pixels")] = 2.0,
    empty: EmptyOption = "exclude",
    seed: Annotated[int, typer.Option(min=0, help="seed of the resamples")] = 0,
    images: ImagesOption = None,
    anonymise: AnonymiseOption = False,
    anonymise_key: AnonymiseKeyOption = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Says what may be concluded of two or more systems on the same cases: intervals, corrected tests, ranking."""
    from selfcfg.engine.comparison import compare as engine  # noqa: PLC0415
    from selfcfg.engine.comparison.scoring import LabelScoring  # noqa: PLC0415
    from selfcfg.engine.comparison.subjects import subjects_of  # noqa: PLC0415
    from selfcfg.engine.comparison.systems import given_systems, read_system, refuse_baseline  # noqa: PLC0415
    from selfcfg.engine.scoring.extras import Extras, asked_for  # noqa: PLC0415
    from selfcfg.engine.scoring.metrics import metrics_of  # noqa: PLC0415
    from selfcfg.engine.scoring.scores import Scoring  # noqa: PLC0415
    from selfcfg.report.comparison import write_comparison  # noqa: PLC0415
    from selfcfg.report.names import Naming  # noqa: PLC0415
    from selfcfg.report.page.comparison import Places  # noqa: PLC0415

    refuse_key_alone(anonymise, anonymise_key)
    given = given_systems(systems)
    refuse_baseline(baseline, (one.name for one in given))
    speaker, chosen = Speaker(as_json), metrics_of(split_values(metric))
    labels = DatasetDescription.read(dataset_json).schema_of_labels if dataset_json else None
    scoring = None
    if references is not None:
        if labels is None:
            raise UsageError("--references", "the meaning of the values is not known", "add --dataset-json FILE")
        extras = Extras(metrics=asked_for(chosen))
        scoring = LabelScoring(references, labels, Scoring(nsd_tolerance, empty, extras), jobs, out / "scores")
    read = [read_system(one, labels, scoring) for one in given]
    place = Workspace.at(workspace)
    of_cases, source = subjects_of(read, subjects, dataset_json, place)
    wanted = engine.Wanted(chosen, baseline, margin, of_cases, source, seed)
    found, scores = engine.compare(read, wanted)
    places = Places(given, out, references, images, dataset_json, place)
    written = write_comparison(out, found, scores, places, Naming(anonymise, anonymise_key))
    _tell(speaker, found, written)


def _tell(speaker: Speaker, found: Comparison, written: Written) -> None:
    """The table of the main metric, what may be concluded, and where the rest is."""
    from selfcfg.report.comparison import pairs_table, scores_table  # noqa: PLC0415
    from selfcfg.report.tables import for_terminal  # noqa: PLC0415

    speaker.say(f"{counted(found.cases, 'case')} of {counted(found.subjects, 'subject')}")
    table = pairs_table if found.pairs else scores_table
    speaker.say(for_terminal(table(found, found.metrics[0])))
    speaker.say("\n".join(found.conclusions))
    speaker.say(f"report: {written.page}")
    verdicts = [pair.model_dump(mode="json", exclude_none=True) for pair in found.pairs if pair.family == "main"]
    told = {"report": str(written.page), "markdown": str(written.markdown)}
    speaker.done({**told, "conclusions": list(found.conclusions), "pairs": verdicts})
