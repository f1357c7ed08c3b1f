"""The report on a student beside its teachers: scores, time, size, and whether it is no worse than they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfcfg.engine.distillation.side_by_side import ENSEMBLE, STUDENT, System
from selfcfg.engine.scoring.evaluate import case_dice
from selfcfg.errors import counted
from selfcfg.files import write_json, write_text
from selfcfg.kernels.statistics import FEWEST, NonInferiority, non_inferiority, subject_means
from selfcfg.report.tables import cell as plain
from selfcfg.report.tables import number, table

PAGE, RESULTS = "report.md", "results.json"


class Against(NamedTuple):
    """The student against one other system."""

    other: str
    subjects: int
    found: NonInferiority

    def sentence(self) -> str:
        """What may be concluded."""
        found, beside = self.found, f"the student against {self.other}: {self.found.difference:+.4f} Dice"
        if found.low is None:
            return f"{beside}; {counted(self.subjects, 'subject')} are too few to tell more (at least {FEWEST})"
        what = "is not worse" if found.is_shown else "is not shown to be not worse"
        return f"{beside}, above {found.low:+.4f} with 95 % confidence; it {what} by {found.margin:g} or more"


def compared(systems: Sequence[System], subjects: Mapping[str, str], margin: float) -> list[Against]:
    """The student against the best teacher and against the ensemble, by the Dice of the same subjects.

    Args:
        systems: see `selfcfg.engine.distillation.side_by_side.side_by_side`.
        subjects: of each case.
        margin: Dice by which the student may be worse.
    """
    by_name = {system.name: _by_subject(system, subjects) for system in systems}
    found = []
    for other in (best_teacher(systems, subjects), ENSEMBLE):
        pairs = [by_name[STUDENT][subject] - dice for subject, dice in by_name[other].items()]
        rng = np.random.default_rng(0)
        found.append(Against(other, len(pairs), non_inferiority(pairs, margin, rng)))
    return found


def best_teacher(systems: Sequence[System], subjects: Mapping[str, str]) -> str:
    """The name of the teacher with the highest Dice on these very cases: a choice that speaks for it."""
    teachers = [system for system in systems if system.name not in (STUDENT, ENSEMBLE)]
    return max(teachers, key=lambda system: _mean(system, subjects)).name


def write_distillation_report(
    folder: Path, title: str, systems: Sequence[System], subjects: Mapping[str, str], margin: float
) -> list[Against]:
    """Writes report.md and results.json into a folder; gives what was compared."""
    against = compared(systems, subjects, margin)
    best = best_teacher(systems, subjects)
    sections = [
        f"# Distillation: {plain(title)}",
        "\n".join(f"- {plain(one.sentence())}" for one in against),
        table_of(systems, subjects, best),
        _NOTES.format(cases=len(systems[0].evaluation.cases), tolerance=_tolerance(systems[0])),
    ]
    write_text(folder / PAGE, "\n\n".join(sections) + "\n")
    write_json(folder / RESULTS, as_json(systems, subjects, against))
    return against


def table_of(systems: Sequence[System], subjects: Mapping[str, str], best: str) -> str:
    """A Markdown table with one row a system."""
    heads = ["system", "Dice", f"NSD {_tolerance(systems[0])}", "s a case", "parameters", "memory MB"]
    rows = []
    for system in systems:
        name = f"{system.name} (best teacher)" if system.name == best else system.name
        rows.append(
            [
                name,
                number(_mean(system, subjects), 4),
                number(system.evaluation.foreground_mean["nsd"], 4),
                f"{system.seconds:.3g}",
                f"{system.parameters:,}",
                f"{system.memory / 2**20:.0f}",
            ]
        )
    return table(heads, rows)


def as_json(systems: Sequence[System], subjects: Mapping[str, str], against: Sequence[Against]) -> dict[str, object]:
    """The same for programs."""
    results = [
        {
            "system": system.name,
            "dice": _mean(system, subjects),
            "nsd": system.evaluation.foreground_mean["nsd"],
            "seconds": system.seconds,
            "parameters": system.parameters,
            "memory": system.memory,
        }
        for system in systems
    ]
    comparisons = [
        {"against": one.other, "subjects": one.subjects, "shown": one.found.is_shown, **one.found._asdict()}
        for one in against
    ]
    return {"results": results, "comparisons": comparisons}


_NOTES = """{cases} cases, each predicted by all systems. The Dice of a case is the mean over its classes, that of a
subject the mean over its cases; NSD with a tolerance of {tolerance}, the mean over classes. The best teacher is the one
with the highest Dice on these cases, which speaks for it and against the student. Time is the median over cases, from
the image that was read to the label map; the ensemble runs its teachers one after the other. Memory is a forecast for
the largest case on a processor. Bounds are of the bootstrap over subjects (one-sided, 95 %). Validation cases chose
neither weights nor epochs of the final networks, except where teachers were weighted by their scores."""


def _by_subject(system: System, subjects: Mapping[str, str]) -> dict[str, float]:
    cases = system.evaluation.cases
    return subject_means([case_dice(case) for case in cases], [subjects.get(case.case, case.case) for case in cases])


def _mean(system: System, subjects: Mapping[str, str]) -> float:
    values = _by_subject(system, subjects).values()
    return sum(values) / len(values)


def _tolerance(system: System) -> str:
    return f"{system.evaluation.nsd_tolerance:g} {system.evaluation.distance_unit}"
