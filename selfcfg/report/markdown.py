"""The report of an experiment as Markdown with pictures: scores first, then cases, training, data and decisions."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

from selfcfg.dataset import Dataset
from selfcfg.engine.augmentation.transforms import REFERENCE
from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.engine.scoring.validation import scored_folds
from selfcfg.errors import listed
from selfcfg.files import write_bytes
from selfcfg.plan import Configuration, Plan, Reason
from selfcfg.report.calibration import calibration_section
from selfcfg.report.cases import Shown, draw, failures, renamed
from selfcfg.report.names import Names
from selfcfg.report.page.facts import Experiment, Folds
from selfcfg.report.page.sections.summary import NOTICE
from selfcfg.report.tables import cell, number, spread, table
from selfcfg.runs import RunFolder, RunRecord

PICTURES = "pictures"
MAX_FAILURES = 40

NOT_ANNOTATED = (
    "Voxels labelled 'ignore' are not annotated: they count nowhere, so volumes and distances are those of the "
    "annotated part alone, not of the whole structure."
)


def markdown_report(folder: Path, place: Path, evaluation: Evaluation, experiment: Experiment, names: Names) -> str:
    """The text of report.md; its pictures are drawn beside it.

    Args:
        folder: the experiment, parent of its folds.
        place: folder of the report.
        evaluation: cross-validated scores of all folds that are finished.
        experiment: how it was trained.
        names: what cases are called.
    """
    folds, dataset, plan = experiment.folds, experiment.dataset, experiment.plan
    shown = draw(evaluation, dataset, folder, place / PICTURES, names)
    done = [record for _, record in folds if record.status == "finished"]
    expected = [names.case(case) for record in done for case in record.validation]
    sections = [
        _title(folds, dataset),
        _scores(evaluation, folds, scored_folds(folder), has_ignore=plan.labels.ignore is not None),
        _failures(failures(renamed(evaluation, names), expected)),
        calibration_section(folder, place / PICTURES, names),
        _cases(shown),
        _training(place, folds, evaluation),
        _data(dataset, evaluation, plan),
        _decisions(plan, experiment.configuration, folds[0][1].configuration, names),
        _making(folds, names),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _title(folds: Folds, dataset: Dataset) -> str:
    record = folds[0][1]
    return f"# {dataset.name}: {record.trainer}, {record.configuration}, planner {record.planner}\n\n{NOTICE}"


def _scores(evaluation: Evaluation, folds: Folds, scored: list[RunFolder], *, has_ignore: bool) -> str:
    mean, far = evaluation.foreground_mean, evaluation.distance_unit
    which = listed((record.fold for run, record in folds if run in scored), 8)
    text = [
        "## Scores",
        f"Mean foreground Dice **{number(mean['dice'])}**, HD95 {number(mean['hd95'], 2)} {far} and NSD at "
        f"{evaluation.nsd_tolerance:g} {far} {number(mean['nsd'])}, over {evaluation.n_cases} cases, each predicted by "
        f"the network of the fold that did not train on it (fold {which}).",
        _dice_table(evaluation),
        _other_table(evaluation),
    ]
    if evaluation.image_targets:
        text.append("Of whole images it told:\n\n" + _image_table(evaluation))
    if has_ignore:
        text.append(NOT_ANNOTATED)
    if evaluation.empty == "exclude" and any(evaluation.n_excluded.values()):
        text.append("A case in which neither reference nor prediction holds a class is left out for that class.")
    return "\n\n".join(text)


def _dice_table(evaluation: Evaluation) -> str:
    heads = ["class", "Dice mean", "median", "std", "min", "max", "cases", "left out", "missed or invented"]
    rows: list[list[object]] = []
    for name in evaluation.mean:
        values = _known(evaluation, name, "dice")
        counts = [len(values), evaluation.n_excluded[name], evaluation.n_one_empty[name]]
        rows.append([name, *spread(values), *counts])
    return table(heads, rows)


def _other_table(evaluation: Evaluation) -> str:
    heads = ["class", "IoU", f"HD95 {evaluation.distance_unit} mean", "median", "max", "NSD", "volume error (relative)"]
    rows: list[list[object]] = []
    for name, means in evaluation.mean.items():
        distance = spread(_known(evaluation, name, "hd95"), 2)
        relative = number(means["volume_error_relative"])
        rows.append([name, number(means["iou"]), distance[0], distance[1], distance[4], number(means["nsd"]), relative])
    return table(heads, rows)


def _image_table(evaluation: Evaluation) -> str:
    """A row a metric of each image-level target."""
    rows: list[list[object]] = [
        [name, what, number(value), scores.n, scores.n_missing]
        for name, scores in evaluation.image_targets.items()
        for what, value in scores.metrics().items()
    ]
    return table(["image-level target", "metric", "value", "cases", "without a value"], rows, numbers_from=2)


def _known(evaluation: Evaluation, name: str, metric: str) -> list[float]:
    values = [getattr(case.scores[name], metric) for case in evaluation.cases]
    return [value for value in values if value is not None]


def _failures(sentences: list[str]) -> str:
    if not sentences:
        return "## Failures\n\nNone: every case was scored, and no class was missed or invented altogether."
    lines = [f"- {cell(sentence)}" for sentence in sentences[:MAX_FAILURES]]
    if len(sentences) > MAX_FAILURES:
        lines.append(f"- and {len(sentences) - MAX_FAILURES} more; see cross_validation/metrics.csv")
    return "## Failures\n\n" + "\n".join(lines)


def _cases(shown: list[Shown]) -> str:
    blocks = ["## Cases to look at"]
    for case in shown:
        head = f"### {case.why}: {cell(case.case)}\n\nDice {cell(case.scores)}"
        picture = (
            f"![{cell(case.case)}]({PICTURES}/{case.picture})" if case.picture else f"No picture: {cell(case.problem)}"
        )
        blocks.append(f"{head}\n\n{picture}")
    return "\n\n".join(blocks) if shown else ""


def _training(place: Path, folds: Folds, evaluation: Evaluation) -> str:
    rows: list[list[object]] = [
        [record.fold, record.status, len(record.train), len(record.validation), number(_fold_dice(evaluation, record))]
        for _, record in folds
    ]
    text = ["## Training", table(["fold", "status", "trained on", "validated on", "Dice"], rows, numbers_from=2)]
    for run, record in folds:
        if run.curves.is_file():
            text.append(f"![curves of fold {record.fold}]({_beside(run.curves, place)})")
    return "\n\n".join(text)


def _beside(curves: Path, place: Path) -> str:
    """The link to the picture of a fold's curves; a report in a folder of its own takes a copy along."""
    if curves.is_relative_to(place):
        return curves.relative_to(place).as_posix()
    copy = place / PICTURES / f"curves_{curves.parent.name}.png"
    write_bytes(copy, curves.read_bytes())
    return copy.relative_to(place).as_posix()


def _fold_dice(evaluation: Evaluation, record: RunRecord) -> float | None:
    """The mean over classes of the mean over the fold's cases."""
    cases = [case for case in evaluation.cases if case.case in record.validation]
    means = []
    for name in evaluation.mean:
        values = [dice for case in cases if (dice := case.scores[name].dice) is not None]
        means += [statistics.mean(values)] if values else []
    return statistics.mean(means) if means else None


def _data(dataset: Dataset, evaluation: Evaluation, plan: Plan) -> str:
    subjects = len({case.subject for case in dataset.cases})
    size = " x ".join(f"{value:g}" for value in plan.median_shape)
    spacing = " x ".join(f"{value:.4g}" for value in plan.median_spacing)
    facts = [
        ["cases", f"{len(dataset.cases)} of {subjects} subjects"],
        ["channels", listed(plan.channels, 8)],
        ["median size after cropping", f"{size} voxels"],
        ["median spacing", f"{spacing} mm" if plan.dimensions == 3 else "none: 2D pictures"],
    ]
    rows: list[list[object]] = []
    for name in evaluation.mean:
        volumes = [case.scores[name].volume_ref for case in evaluation.cases if case.scores[name].volume_ref > 0]
        rows.append([name, len(volumes), *spread(volumes, 2)])
    unit = evaluation.volume_unit
    heads = ["class", "in cases", f"{unit} mean", "median", "std", "min", "max"]
    found = table(["what", "found"], facts, numbers_from=9)
    return "\n\n".join(["## Data", found, "How large the classes are in the scored cases:", table(heads, rows)])


def _decisions(plan: Plan, configuration: Configuration, name: str, names: Names) -> str:
    network = configuration.topology
    facts = [
        ["patch", f"{' x '.join(map(str, configuration.patch_size))} voxels, {configuration.batch_size} in a batch"],
        [
            "spacing",
            " x ".join(f"{value:.4g}" for value in configuration.spacing) + (" mm" if plan.dimensions == 3 else ""),
        ],
        ["normalisation", listed(configuration.normalization, 8)],
        ["network", f"{network.kind} U-Net of {network.n_stages} stages, features {listed(network.features, 8)}"],
    ]
    text = [f"## Plan: {name}", table(["what", "decided"], facts, numbers_from=9)]
    if reasons := [*plan.reasons, *configuration.reasons]:
        text += ["\n".join(_reason(reason, names) for reason in reasons)]
        text.append(f"In full: `selfcfg plan {plan.dataset} --planner {plan.planner} --explain`")
    return "\n\n".join(text)


def _reason(reason: Reason, names: Names) -> str:
    """The decision with the first sentence of its reason; the page of `selfcfg plan --explain` has all of it."""
    why = re.split(r"(?<=[.:]) (?=[A-Z])", reason.why, maxsplit=1)[0]
    return f"- **{cell(reason.what)}: {cell(reason.value)}.** {cell(names.text(why))}"


def _making(folds: Folds, names: Names) -> str:
    record = folds[0][1]
    facts: dict[str, Any] = {"seed": record.seed, "share of labels used": record.label_fraction}
    if record.stage is not None:
        of = "/".join(part for part in (record.stage.stage, record.stage.candidate) if part)
        facts["recipe"] = f"{record.stage.recipe}, its stage {of}"
    if record.init is not None:
        facts["started from"] = "/".join(Path(record.init).parts[-2:])
    if record.taken_over is not None:
        facts |= {
            "taken over": ", ".join(record.taken_over.taken),
            "not taken over": ", ".join(record.taken_over.skipped),
        }
        facts |= {f"adapted {name}": how for name, how in record.taken_over.adapted.items()}
    if record.origin is not None:
        facts |= {f"imported: {name}": value for name, value in record.origin.model_dump().items()}
    settings = {**record.settings, "transforms": _changed_transforms(record.settings.get("transforms") or {})}
    facts |= settings | record.versions | record.machine
    rows = [[what, names.text(value)] for what, value in facts.items()]
    return "## How it was made\n\n" + table(["what", "value"], rows, numbers_from=9)


def _changed_transforms(transforms: dict[str, Any]) -> str:
    """The numbers of the augmentation that are not the reference's."""
    reference = REFERENCE.model_dump(mode="json")
    changed = [f"{name} = {value}" for name, value in transforms.items() if value != reference.get(name)]
    return "; ".join(changed) or "as nnU-Net's"
