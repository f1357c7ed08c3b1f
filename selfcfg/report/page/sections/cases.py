"""Single cases: those to look at slice by slice, those that failed, and those that are doubtful."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from selfcfg.engine.comparison.alignment import MEAN
from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.errors import counted
from selfcfg.report.cases import failures, renamed
from selfcfg.report.page.blocks import Block, Bullets, Heading, Section, Text
from selfcfg.report.page.facts import Facts
from selfcfg.report.tables import number

MAX_NAMED = 60
FENCE = 1.5
"""Quartile ranges below the lower quartile from which a Dice is doubtful. Source: Tukey 1977, the inner fence."""
TWICE = 2.0
"""Ratio of the volumes of prediction and reference from which a case is doubtful (our choice)."""
_ENOUGH = 8


def cases(facts: Facts) -> Section | None:
    """The slices of the worst, median and best cases."""
    if not facts.viewers:
        return None
    systems = facts.scores is not None and len(facts.scores.systems) > 1
    lead = "By the mean of all systems: " if systems else "By the mean over classes of the main metric: "
    lead += "the worst cases, the median and the best."
    slices = [viewer.slices for viewer in facts.viewers if viewer.slices is not None]
    told = []
    if any(len(one.frames) > 1 for one in slices):
        told.append(
            "Move through the slices with the slider, the mouse wheel, or the arrow keys while a picture is in focus."
        )
    if any(len(one.classes) > 1 for one in slices):
        told.append("Dashes tell classes apart.")
    if any(one.edges for one in slices):
        told.append(
            "Letters at the edges: R and L are the patient's right and left, A and P front and back, S and I head and "
            "feet."
        )
    told.append("Pictures are compressed and made smaller: not for diagnosis.")
    blocks: list[Block] = [Text(lead, "lead"), Text(" ".join(told), "note"), *facts.viewers]
    return Section("cases", "Cases to look at", tuple(blocks))


def failed(facts: Facts) -> Section | None:
    """What failed altogether, and what a person should look at."""
    if facts.evaluation is None:
        return _counted_failures(facts)
    expected: list[str] = []
    if facts.experiment is not None:
        done = set(facts.experiment.scored)
        expected = [case for _, record in facts.experiment.folds if record.fold in done for case in record.validation]
    evaluation = renamed(facts.evaluation, facts.names)
    found = failures(evaluation, [facts.names.case(case) for case in expected])
    blocks: list[Block] = [Heading("Failures")]
    blocks += _listed(found, "None: every case was scored, and no class was missed or invented altogether.")
    blocks.append(Heading("Doubtful cases"))
    blocks += _listed([*doubtful(evaluation)], "No case stands out from the others.")
    rule = (
        f"Doubtful is a Dice more than {FENCE:g} quartile ranges below the lower quartile of its class, with {_ENOUGH} "
        f"cases or more, and a predicted volume of less than half or more than twice that of the reference."
    )
    return Section("failures", "Failures and doubtful cases", (*blocks, Text(rule, "note")))


def doubtful(evaluation: Evaluation) -> Iterator[str]:
    """Sentences on cases that did not fail altogether, but are far worse than others or of another size."""
    for name in evaluation.mean:
        by_case = {case.case: case.scores[name] for case in evaluation.cases if case.scores[name].tp}
        dice = {case: scores.dice for case, scores in by_case.items() if scores.dice is not None}
        low = -1.0
        if len(dice) >= _ENOUGH:
            lower, _, upper = statistics.quantiles(dice.values(), n=4, method="inclusive")
            low = lower - FENCE * (upper - lower)
        for case in sorted(dice, key=lambda one: dice[one]):
            told = [f"Dice {number(dice[case])} where others are above {number(low)}"] if dice[case] < low else []
            ratio = by_case[case].volume_pred / by_case[case].volume_ref
            if not 1 / TWICE <= ratio <= TWICE:
                told.append(f"the prediction has {ratio:.2g} times the volume of the reference")
            if told:
                yield f"{case}: {name}: {', '.join(told)}"


def _counted_failures(facts: Facts) -> Section | None:
    """Of systems whose label maps are not known, how often they failed."""
    if facts.found is None:
        return None
    sentences = []
    for system in facts.found.systems:
        missed = sum(system.failed.values())
        each = ", ".join(f"{name} {count}" for name, count in system.failed.items() if count)
        sentences.append(
            f"{system.name}: {counted(missed, 'class', 'classes')} missed or invented altogether"
            + (f" ({each})" if each else "")
        )
        if system.lost:
            sentences[-1] += f"; {counted(system.lost, 'case')} not compared, because another system lacks them"
    undefined = sum(score.undefined for score in facts.found.scores if score.target != MEAN)
    note = [Text("Where a score is undefined for one system, the case is left out for all of them.", "note")]
    return Section("failures", "Failures", (Bullets(tuple(sentences)), *(note if undefined else [])))


def _listed(sentences: list[str], otherwise: str) -> Iterator[Block]:
    if not sentences:
        yield Text(otherwise)
        return
    yield Bullets(tuple(sentences[:MAX_NAMED]))
    if len(sentences) > MAX_NAMED:
        yield Text(f"And {len(sentences) - MAX_NAMED} more.", "note")
