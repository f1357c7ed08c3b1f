"""The part of a page that tells of one benchmark of label efficiency."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pretrainings import what_was_learnt
from studying import DOMAINS, MADE_ON
from verdicts import between, makers, probability, summed_up, verdict

from selfcfg.engine.label_efficiency.results import PROTOCOL, LabelResult, Protocol, read_results
from selfcfg.files import read_json
from selfcfg.kernels.statistics import Paired
from selfcfg.report.label_cells import Cell, baseline_of, cells_of, rates_at_an_end
from selfcfg.report.label_efficiency import table_of
from selfcfg.report.tables import table


@dataclass(frozen=True)
class Claim:
    """That an arm is better than another one, and what this would mean."""

    arm: str
    other: str
    words: str


@dataclass(frozen=True)
class Design:
    """What a study would have when it is done.

    Args:
        arms: their names.
        fractions: labelled subjects as they were asked for.
        seeds: their number.
        claims: what it is to show.
    """

    arms: Sequence[str]
    fractions: Sequence[str]
    seeds: int
    claims: Sequence[Claim]


def section(folder: Path, design: Design) -> list[str]:
    """Blocks of Markdown on the results in a folder, whose name is that of the dataset and of the study's part."""
    protocol, results = Protocol.read(folder / PROTOCOL), read_results(folder)
    name, _, part = folder.name.partition("_")
    subjects = subjects_of(folder)
    cells, baseline = cells_of(results, subjects), baseline_of(results)
    file = folder / MADE_ON
    blocks = [
        f"## {name.capitalize()}" + f", {part}" * bool(part),
        f"{len(protocol.train)} training and {len(protocol.test)} test cases ({cells[0].dice.n} subjects). "
        + makers(read_json(file) if file.is_file() else [])
        + " One seed: another start, or other labelled subjects, may say otherwise." * (design.seeds == 1),
        *_progress(results, design, protocol),
        *_judged(results, design, subjects),
        f"![Dice over labelled subjects]({picture_of(folder)})",
    ]
    for budget in dict.fromkeys(cell.budget for cell in cells):
        mine = [cell for cell in cells if cell.budget == budget]
        blocks += [
            f"### {name.capitalize()}{f', {part}' * bool(part)}: {mine[0].steps} steps with labels",
            table_of(mine, baseline),
        ]
    return [*blocks, *rates_at_an_end(results, protocol.rates), *what_was_learnt(folder)]


def subjects_of(folder: Path) -> dict[str, str]:
    """The subject of each test case of the results in a folder."""
    pattern = DOMAINS[folder.name.partition("_")[0]].subjects or "(.*)"
    return {case: found[1] for case in Protocol.read(folder / PROTOCOL).test if (found := re.match(pattern, case))}


def picture_of(folder: Path) -> str:
    """The name that the plot of the results in a folder has among the pages."""
    return f"{folder.parent.name}-{folder.name}.png"


def _progress(results: Sequence[LabelResult], design: Design, protocol: Protocol) -> Iterator[str]:
    """How much of the design is there, as a sentence and, where something is missing, a table."""
    done = [(str(result.fraction), result.budget) for result in results if result.arm in design.arms]
    fractions = [*dict.fromkeys([*design.fractions, *(fraction for fraction, _ in done)])]
    each = len(design.arms) * design.seeds
    planned = [(fraction, budget) for fraction in design.fractions for budget in protocol.budgets]
    there = sum(min(done.count(one), each) for one in planned)
    yield f"**{there} of {each * len(planned)} jobs** are done" + ("." if there == each * len(planned) else ":")
    if there < each * len(planned):
        rows = [
            [fraction, *(f"{done.count((fraction, budget))} of {each}" for budget in protocol.budgets)]
            for fraction in fractions
        ]
        yield table(["labelled", *(f"{budget}, {steps} steps" for budget, steps in protocol.budgets.items())], rows)


def _judged(results: Sequence[LabelResult], design: Design, subjects: Mapping[str, str]) -> Iterator[str]:
    """What the intervals say of each claim, summed up and one by one."""
    lines, rows, missing = [], [], []
    for claim in design.claims:
        verdicts = []
        for cell, against, n_seeds in _compared(results, claim, subjects):
            difference = against.difference
            verdicts.append(verdict(difference, is_whole=n_seeds >= design.seeds))
            told = [between(difference.mean, difference.interval, "+"), probability(against.sign_flip), cell.ahead]
            rows.append([f"{claim.arm} - {claim.other}", cell.subjects, cell.steps, *told, f"**{verdicts[-1]}**"])
        if verdicts:
            lines.append(summed_up(f"{claim.words} (`{claim.arm}` better than `{claim.other}`)", verdicts))
        else:
            missing.append(f"{claim.arm} with {claim.other}")
    if missing:
        lines.append(f"- Not compared yet: {', '.join(missing)}.")
    yield "\n".join(lines)
    if rows:
        yield table(["difference", "labelled", "steps", "Dice (95 %)", "p, uncorrected", "ahead", "claim"], rows)


def _compared(
    results: Sequence[LabelResult], claim: Claim, subjects: Mapping[str, str]
) -> Iterator[tuple[Cell, Paired, int]]:
    """The cells of the claim's arm with their differences to the other one, and the number of seeds that both have."""
    other, arm = ([one for one in results if one.arm == name] for name in (claim.other, claim.arm))
    if not other or not arm:
        return
    for cell in cells_of([*other, *arm], subjects):
        if cell.arm == claim.arm and cell.against is not None:
            theirs = {one.seed for one in other if (str(one.fraction), one.budget) == (str(cell.fraction), cell.budget)}
            yield cell, cell.against, len(theirs & {*cell.by_seed})


def gradients(file: Path) -> list[str]:
    """A table of what pretrainings logged of both tasks, each the mean over seeds; nothing without the file."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        logged = list(csv.DictReader(stream))
    heads = {
        "cosine": ("gradient cosine", False),
        "of the last stage": ("gradient cosine last stage", False),
        "norm, without labels": ("gradient norm pretext", False),
        "norm, reference": ("gradient norm reference", False),
        "masked explained": ("masked explained", True),
        "reference Dice": ("reference dice", True),
        "s a step": ("seconds_per_iteration", False),
    }
    rows = []
    for arm in dict.fromkeys(row["arm"] for row in logged):
        mine = [row for row in logged if row["arm"] == arm]
        last = {row["seed"]: row for row in mine}
        cells = []
        for column, at_end in heads.values():
            values = [float(row[column]) for row in (last.values() if at_end else mine) if row[column]]
            if "cosine" in column:
                values = [value for value in values if value]  # where one task has no weight, it has no gradient
            cells.append(f"{fmean(values):.3g}" if values else "-")
        rows.append([arm, len(last), *cells])
    told = (
        "What the pretrainings logged on images that are not trained on: cosine and norms of both tasks' gradients on "
        "the encoder, the mean of all epochs; the scores of the last one. A high cosine is no success by itself."
    )
    return [told, table(["arm", "seeds", *heads], rows)]
