"""What a paper has to report, which of it stands here, and which only its authors can say."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from selfcfg.report.page.blocks import Section, Table, Text
from selfcfg.report.page.facts import Facts


class Item(NamedTuple):
    """A topic that a report has to answer.

    Args:
        topic: what it belongs to.
        question: to be answered.
        answer: where this page answers it; None where it does not.
    """

    topic: str
    question: str
    answer: Callable[[Facts], str | None]


def _never(facts: Facts) -> str | None:
    return None


def _trained(where: str) -> Callable[[Facts], str | None]:
    return lambda facts: where if facts.experiment is not None else None


def _scored(where: str) -> Callable[[Facts], str | None]:
    return lambda facts: where if facts.found is not None else None


def _evaluated(where: str, part: str) -> Callable[[Facts], str | None]:
    return lambda facts: where if facts.evaluation is not None and getattr(facts.evaluation, part) else None


def _both(facts: Facts) -> str | None:
    metrics = set(facts.found.metrics) if facts.found is not None else set()
    return "Scores" if metrics & {"dice", "iou"} and metrics & {"nsd", "hd95", "hd", "assd", "boundary_iou"} else None


def _compared(facts: Facts) -> str | None:
    if facts.found is not None and facts.found.pairs:
        return "Differences"
    has_rivals = facts.experiment is not None and facts.experiment.rivals is not None
    return "Beside other experiments" if has_rivals else None


ITEMS = (
    Item("Purpose", "Which clinical question, and what is done with the result", _never),
    Item("Purpose", "Whether the study looks back or forward, and what was fixed before", _never),
    Item("Data", "Where the images come from, when they were made, and who was included", _never),
    Item("Data", "Ethics approval, consent, and how identities were removed", _never),
    Item("Data", "How many cases and subjects; sizes, spacings, intensities", _trained("Data")),
    Item("Data", "Age, sex and other traits of the subjects", _evaluated("Is it as good everywhere?", "subgroups")),
    Item("Data", "Cases that were left out or could not be used, and why", _never),
    Item("Reference", "Who drew it, with which tools, rules and experience", _never),
    Item("Reference", "How far several readers agree", _evaluated("Is it as good as readers?", "readers")),
    Item("Partitions", "How cases were divided, at which level, and how many are in each part", _trained("Training")),
    Item("Partitions", "Test on data of another site or time", _never),
    Item("Model", "Architecture, input, output", _trained("Plan, and why")),
    Item("Model", "Preprocessing and augmentation", _trained("Methods paragraph; Model card, All settings")),
    Item("Model", "Settings of the training, and what they were chosen by", _trained("Plan, and why; Model card")),
    Item("Model", "How it was initialised, and what it was pretrained on", _trained("Methods paragraph")),
    Item("Model", "Software with versions, hardware, seeds", _trained("Model card")),
    Item("Model", "How the final model was chosen among several", _never),
    Item(
        "Metrics",
        "Which metrics, with their parameters and what happens to absent classes",
        _scored("Methods paragraph"),
    ),
    Item("Metrics", "Why these suit the question: size and number of structures, cost of an error", _never),
    Item("Metrics", "Overlap and boundary are both measured, by class and not pooled", _both),
    Item("Metrics", "Single objects are counted where the question is about objects", _evaluated("Lesions", "lesions")),
    Item("Results", "How sure the numbers are, with the subject as the unit", _scored("Scores")),
    Item("Results", "The distribution over cases, not only means", _scored("Scores")),
    Item(
        "Results",
        "Failures, with examples",
        lambda facts: "Failures and doubtful cases; Cases to look at" if facts.viewers else None,
    ),
    Item("Results", "Comparison with other methods, with tests", _compared),
    Item("Discussion", "Limits, biases, and where it must not be used", _never),
    Item("Access", "Whether code, weights and data can be had", _never),
)
"""Our own words; topics from the CLAIM checklist (Mongan et al. 2020, update 2024), and Metrics Reloaded (Maier-Hein,
Reinke et al. 2024)."""


def checklist(facts: Facts) -> Section:
    """The topics, each with where it is answered."""
    answers = [(item, item.answer(facts)) for item in ITEMS]
    rows = tuple((one.topic, one.question, f"here: {where}" if where else "yours to answer") for one, where in answers)
    count = sum(where is not None for _, where in answers)
    text = f"{count} of {len(rows)} topics are answered here, as far as a program can; the others are for the authors."
    source = (
        "In our own words, after the CLAIM checklist (Mongan et al. 2020, updated 2024) and Metrics Reloaded "
        "(Maier-Hein, "
        "Reinke et al. 2024). Journals ask for the originals."
    )
    heads = ("about", "what is to be reported", "answered")
    table = Table("Topics", heads, rows, numbers_from=9)
    return Section("checklist", "Reporting checklist", (Text(text, "lead"), table, Text(source, "note")))
