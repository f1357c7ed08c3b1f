"""The model card: what the model is, what it may be used for, and what it was made with."""

from __future__ import annotations

from collections.abc import Iterator

from selfcfg.errors import counted, listed
from selfcfg.report.page.blocks import Block, Details, Section, Table, Terms, Text
from selfcfg.report.page.facts import Experiment, Facts
from selfcfg.report.page.sections.summary import NOTICE
from selfcfg.report.tables import span

USER = "For you to say: "


def card(facts: Facts) -> Section | None:
    """A model card, as far as the records fill it."""
    experiment = facts.experiment
    if experiment is None:
        return None
    blocks: list[Block] = [
        Terms((*_model(experiment), *_limits(facts, experiment))),
        Details("Versions and machine", (_versions(experiment),)),
    ]
    if experiment.record.settings:
        blocks.append(Details("All settings", (_settings(facts, experiment),)))
    source = "The topics follow Mitchell et al., Model Cards for Model Reporting, 2019."
    return Section("card", "Model card", (*blocks, Text(source, "note")))


def _by_fold(experiment: Experiment) -> str:
    """How many of them each network saw."""
    counts = {len(record.train) for _, record in experiment.folds if record.train}
    return f", of which a network was trained on {span(counts)}" if counts else ""


def _model(experiment: Experiment) -> Iterator[tuple[str, str]]:
    record, plan = experiment.record, experiment.plan
    yield (
        "Model",
        f"{record.trainer}, {record.configuration}, planner {record.planner}; "
        f"{counted(len(experiment.folds), 'network')}, one a fold",
    )
    if record.origin is not None:
        yield "Imported", f"from {record.origin.tool}, trainer {record.origin.trainer}, epoch {record.origin.epoch}"
    yield "Input", f"{counted(len(plan.channels), 'channel')} ({listed(plan.channels, 12)}), {plan.dimensions}D"
    yield "Output", f"label maps of {listed(plan.labels.targets, 24)}"
    yield (
        "Trained on",
        f"{experiment.dataset.name}: {counted(len(experiment.cases), 'case')} of "
        f"{counted(experiment.n_subjects, 'subject')}{_by_fold(experiment)}",
    )
    for key in ("licence", "license", "reference"):
        told = (experiment.dataset.description.model_extra or {}).get(key)
        if isinstance(told, str) and told:
            yield f"Dataset's {key}", told
    if record.unlabelled:
        yield "Pretrained on images of", listed(record.unlabelled, 8)
    if record.reference:
        yield "Guided by", listed(record.reference, 8)
    yield "Seed", str(record.seed)
    hashes = ", ".join(f"fold {one.fold} {one.data_hash[:12]}" for _, one in experiment.folds if one.data_hash)
    if record.plan_hash:
        yield "Hash of the plan", record.plan_hash
    if hashes:
        yield "Hash of the training cases", hashes


def _limits(facts: Facts, experiment: Experiment) -> Iterator[tuple[str, str]]:
    yield "Intended use", USER + "which question, whose images, who reads the result. " + NOTICE
    yield (
        "Out of scope",
        (
            "Images unlike the ones it was trained on: other modalities, contrasts, body parts, ages or scanners. "
            "selfcfg "
            "predict warns of spacings and intensities far from the dataset's, which does not catch all of it."
        ),
    )
    external = "none in this report: scores are of cases of the same dataset, held out by fold"
    yield "External validation", external
    lost = len(experiment.folds) - len(experiment.scored)
    if lost:
        yield "Incomplete", f"{counted(lost, 'fold')} not finished or not scored"
    groups = facts.evaluation is not None and facts.evaluation.subgroups is not None
    yield (
        "Fairness",
        "scores by groups are in this report"
        if groups
        else USER + "whether it is as good for every group of people; --attributes adds a table",
    )


def _versions(experiment: Experiment) -> Table:
    record = experiment.record
    rows = {**record.versions, **{name: str(value) for name, value in record.machine.items()}}
    return Table("Versions and machine of the first fold", ("what", "value"), tuple(rows.items()), numbers_from=9)


def _settings(facts: Facts, experiment: Experiment) -> Table:
    rows = []
    for name, value in experiment.record.settings.items():
        if isinstance(value, dict):
            rows += [(f"{name}.{inner}", facts.names.text(one)) for inner, one in value.items()]
        else:
            rows.append((name, facts.names.text(value)))
    return Table("Settings of the trainer", ("setting", "value"), tuple(rows), numbers_from=9)
