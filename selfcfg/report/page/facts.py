"""Everything a page is made from, gathered once; a section reads it and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfcfg.dataset import Dataset
from selfcfg.engine.comparison.alignment import Aligned
from selfcfg.engine.comparison.records import Comparison
from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.fingerprint import Fingerprint
from selfcfg.plan import Configuration, Plan
from selfcfg.report.names import Names
from selfcfg.report.page.blocks import Viewer
from selfcfg.runs import RunFolder, RunRecord

Folds = Sequence[tuple[RunFolder, RunRecord]]


@dataclass(frozen=True)
class Rivals:
    """Other experiments of the same dataset beside this one.

    Args:
        found: what may be concluded; None where nothing can be.
        scores: of every case that all have.
        problem: why not.
    """

    found: Comparison | None
    scores: Aligned | None
    problem: str = ""


@dataclass(frozen=True)
class Experiment:
    """How a model was trained.

    Args:
        dataset: on what.
        plan: with what.
        folds: its runs.
        scored: fold numbers of those that are finished and scored.
        logs: lines of each fold's log, by fold.
        fingerprint: what was measured of the dataset; None where that is not known.
        rivals: other experiments with scores; None where there are none.
    """

    dataset: Dataset
    plan: Plan
    folds: Folds
    scored: tuple[int | str, ...]
    logs: Mapping[int | str, Sequence[Mapping[str, Any]]]
    fingerprint: Fingerprint | None = None
    rivals: Rivals | None = None

    @property
    def record(self) -> RunRecord:
        """Of its first fold: what all of them share."""
        return self.folds[0][1]

    @property
    def configuration(self) -> Configuration:
        """The network as it was planned; the settings of the run may give it another batch or patch."""
        return self.plan.configuration(self.record.configuration)

    @property
    def cases(self) -> tuple[str, ...]:
        """Those that some fold trained on or validated; of an imported model, those of the dataset."""
        used = {case for _, record in self.folds for case in (*record.train, *record.validation)}
        return tuple(sorted(used)) or tuple(case.id for case in self.dataset.cases)

    @property
    def n_subjects(self) -> int:
        """People whose cases these are."""
        subjects = {case.id: case.subject for case in self.dataset.cases}
        return len({subjects.get(case, case) for case in self.cases})


@dataclass(frozen=True)
class Facts:
    """What is known.

    Args:
        title: of the page.
        subtitle: what it is a report of, in a few words.
        folder: what it is a report on; further sections may look for files of their own there. None: there is none.
        names: what cases are called.
        found: scores with intervals, and differences where there are several systems; None where nothing is defined.
        scores: of every case; None likewise.
        evaluation: of a single system, where it was scored by selfcfg.
        viewers: the cases that are shown.
        experiment: of a report on one.
        sources: of a comparison, where the scores of each system come from.
    """

    title: str
    subtitle: str
    folder: Path | None
    names: Names
    found: Comparison | None
    scores: Aligned | None
    evaluation: Evaluation | None
    viewers: tuple[Viewer, ...]
    experiment: Experiment | None = None
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def systems(self) -> tuple[str, ...]:
        """Their names."""
        return self.scores.systems if self.scores else ()
