"""The probabilities of cases by the networks that did not train on them, made where they are missing."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfcfg.engine import pipeline
from selfcfg.engine.footprint import gigabytes
from selfcfg.engine.prediction.cascade import PreviousStage, bring_to_grid, first_stage
from selfcfg.engine.scoring.validation import Keeping, predict_validation, probabilities_file
from selfcfg.engine.selection.entrants import Entrant
from selfcfg.errors import DataError
from selfcfg.geometry import Shape
from selfcfg.progress import say
from selfcfg.project import Project
from selfcfg.splits import Split

TOLD_BYTES = 2**30
"""From so many on, it is said beforehand what probabilities may take."""


@dataclass(frozen=True)
class HeldOut:
    """What an experiment says of a case by the fold that did not train on it.

    Args:
        labels: file of the label map.
        probabilities: file of the probabilities.
    """

    labels: Path
    probabilities: Path


def held_out(
    project: Project,
    entrant: Entrant,
    cases: Sequence[str],
    *,
    keeping: Keeping,
    device: str | None,
    jobs: int,
) -> dict[str, HeldOut]:
    """The files of each case, predicted where they are missing or were made otherwise.

    Args:
        project: of the dataset.
        entrant: the experiment, with its plan, store and, in a cascade, the stage before from its own records.
        cases: validated ones.
        keeping: whether probabilities that are made here are kept.
        device: to predict on; None: the best there is.
        jobs: processes at most.

    Raises:
        SelfcfgError: a case cannot be preprocessed or predicted, or the stage before is gone.
    """
    record, plan = entrant.records[0], entrant.plan
    ending = project.dataset.description.label_ending
    run_of = entrant.run_of
    store = pipeline.store(project, plan, record.configuration, jobs)
    previous = _previous(project, entrant, cases, jobs)
    for run in entrant.runs:
        predict_validation(
            run,
            [case for case in cases if run_of[case] == run],
            store,
            ending,
            device=device,
            precision=str(record.settings.get("precision", "auto")),
            previous=previous,
            probabilities=keeping,
        )
    return {
        case: HeldOut(run_of[case].validation / f"{case}{ending}", probabilities_file(run_of[case], case))
        for case in cases
    }


def tell_space(entrants: Sequence[Entrant], shapes: Mapping[str, Shape]) -> None:
    """Says what the probabilities that are not there yet may take of the disk, where that is much.

    Args:
        entrants: the experiments.
        shapes: voxels of the image of each case that is compared.
    """
    needed = 0
    for entrant in entrants:
        for case, run in entrant.run_of.items():
            if case in shapes and not probabilities_file(run, case).is_file():
                needed += probability_bytes(entrant, shapes[case])
    if needed < TOLD_BYTES:
        return
    free = shutil.disk_usage(entrants[0].folder).free
    say(f"probabilities of validation cases take up to {gigabytes(needed)}, most often a tenth of it, beside them")
    if needed > free:
        say(f"warning: {gigabytes(free)} are free in {entrants[0].folder.parent}")


def probability_bytes(entrant: Entrant, shape: Shape) -> int:
    """Bytes of the probabilities of a case before compression."""
    return 2 * entrant.plan.labels.n_outputs * math.prod(shape)


def _previous(project: Project, entrant: Entrant, cases: Sequence[str], jobs: int) -> PreviousStage | None:
    """In a cascade, the label maps of the stage before as the runs' own records say it."""
    record = entrant.records[0]
    if record.previous is None:
        return None
    configuration = entrant.configuration
    first, ending = project.results / record.previous, project.dataset.description.label_ending
    splits = [Split(train=(), val=tuple(cases))]
    after = str(configuration.after)
    files = first_stage(first, project.results, splits, after, ending, record.label_fraction)
    store = pipeline.store(project, entrant.plan, record.configuration, jobs)
    stage = bring_to_grid(files, first, store, configuration, jobs=jobs)
    for other in entrant.records:
        if other.previous_weights != stage.weights:
            found = f"{record.previous} was trained again since"
            raise DataError(f"predict with {entrant.name}", found, "train this second stage again, too")
    return stage
