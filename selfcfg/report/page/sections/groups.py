"""What was asked for besides: groups of cases, several readers, lesions, and what was said of whole images."""

from __future__ import annotations

from collections.abc import Iterator

from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.engine.scoring.readers import SHOWN, Readers
from selfcfg.engine.scoring.subgroups import MEAN, Spread, Subgroups
from selfcfg.errors import counted
from selfcfg.kernels.statistics import FEWEST
from selfcfg.report.page import svg
from selfcfg.report.page.blocks import SPACE, Block, Bullets, Plot, Section, Table, Text
from selfcfg.report.page.facts import Facts
from selfcfg.report.tables import number

_METRICS = ("dice", "nsd", "hd95")


def subgroups(facts: Facts) -> Section | None:
    """The scores by site, scanner, sex, age: whatever the table of attributes tells."""
    evaluation = facts.evaluation
    if evaluation is None or evaluation.subgroups is None:
        return None
    blocks: list[Block] = []
    for attribute in evaluation.subgroups.attributes:
        blocks += _attribute(attribute)
    without = len(evaluation.subgroups.without_row)
    note = f"95 % intervals by the bootstrap, none for a group of fewer than {FEWEST}; groups are not tested."
    if without:
        note += f" The table tells nothing of {counted(without, 'case')}."
    return Section("subgroups", "Is it as good everywhere?", (*blocks, Text(note, "note")))


def readers(facts: Facts) -> Section | None:
    """How far readers agree, and the model with them."""
    found = facts.evaluation.readers if facts.evaluation is not None else None
    if found is None:
        return None
    sentences = tuple(found.comparisons[metric].sentence(metric) for metric in SHOWN if metric in found.comparisons)
    blocks: list[Block] = [Bullets(sentences)] if sentences else []
    return Section("readers", "Is it as good as readers?", (*blocks, _agreements(found)))


def lesions(facts: Facts) -> Section | None:
    """The lesions of all cases together."""
    if facts.evaluation is None or not facts.evaluation.lesions:
        return None
    heads = ("class", "there", "found", "missed", "false", "false a case", "sensitivity", "precision", "F1", "PQ")
    rows = tuple(
        (
            name,
            *(str(count) for count in (one.lesions_ref, one.lesion_tp, one.lesion_fn, one.lesion_fp)),
            f"{one.false_positives_a_case:.2f}",
            *map(number, (one.lesion_sensitivity, one.lesion_precision, one.lesion_f1, one.panoptic_quality)),
        )
        for name, one in facts.evaluation.lesions.items()
    )
    how = facts.evaluation.extras.how if facts.evaluation.extras else ""
    return Section("lesions", "Lesions", (Table("Lesions of all cases together", heads, rows), Text(how, "note")))


def whole_images(facts: Facts) -> Section | None:
    """What was said of images as a whole."""
    if facts.evaluation is None or not facts.evaluation.image_targets:
        return None
    rows = tuple(_image_rows(facts.evaluation))
    heads = ("target", "metric", "value", "cases", "without a value")
    return Section("images", "What it said of whole images", (Table("Image-level targets", heads, rows, 2),))


def _attribute(found: Subgroups) -> Iterator[Block]:
    heads = (found.attribute, "cases", *(METRICS[metric].title for metric in _METRICS))
    rows = [
        (group.name, str(group.n_cases), *(_cell(group.scores[MEAN][metric], metric) for metric in _METRICS))
        for group in found.groups
    ]
    yield Table(f"By {found.attribute}", heads, tuple(rows))
    marks = []
    for place, group in enumerate(found.groups):
        dice = group.scores[MEAN]["dice"]
        if dice.mean is not None:
            marks.append(svg.Row(f"{group.name} ({group.n_cases})", (), dice.mean, dice.low, dice.high, color=place))
    if marks:
        axis = svg.Axis("Dice, mean over classes", 0.0, 1.02)
        yield Plot(svg.strips(marks, axis, f"Dice by {found.attribute}"), f"Mean Dice by {found.attribute}.")
    if found.is_banded or found.n_missing:
        notes = ["Numbers are cut into bands at their terciles."] if found.is_banded else []
        notes += [f"{counted(found.n_missing, 'case')} without a value left out."] if found.n_missing else []
        yield Text(" ".join(notes), "note")


def _cell(found: Spread, metric: str) -> str:
    digits = min(METRICS[metric].digits, 3)
    mean = number(found.mean, digits)
    return (
        mean
        if found.low is None
        else f"{mean} ({number(found.low, digits)}{SPACE}to{SPACE}{number(found.high, digits)})"
    )


def _agreements(found: Readers) -> Table:
    metrics = [metric for metric in SHOWN if metric in found.agreements[0].mean[MEAN]]
    heads = ("agreement of", *(METRICS[metric].title for metric in metrics), "cases")
    rows = tuple(
        (
            f"{one.first} and {one.second}",
            *(number(one.mean[MEAN][metric], min(METRICS[metric].digits, 3)) for metric in metrics),
            str(one.n_cases),
        )
        for one in found.agreements
    )
    return Table("Means over cases", heads, rows)


def _image_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    for name, scores in evaluation.image_targets.items():
        for what, value in scores.metrics().items():
            yield name, what, number(value), str(scores.n), str(scores.n_missing)
