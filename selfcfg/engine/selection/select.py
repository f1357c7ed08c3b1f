"""The model of a dataset: which experiment or ensemble, with which weights, and what is removed from its label maps."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.ledger import FOLDER as LEDGER
from selfcfg.engine.prediction.postprocessing import parts_of
from selfcfg.engine.prediction.selected import MODEL, SelectedMember, SelectedModel, selected_folder
from selfcfg.engine.scoring.validation import Keeping, remove_passing
from selfcfg.engine.selection.component_tables import Predicted, component_tables
from selfcfg.engine.selection.entrants import Entrant, compared_cases, find_entrants, weights_of_folds
from selfcfg.engine.selection.greedy import cross_fitted, greedy_counts
from selfcfg.engine.selection.held_out import HeldOut, held_out, tell_space
from selfcfg.engine.selection.records import Candidate, Kind, Rule, Selection, Unit
from selfcfg.engine.selection.trials import (
    CaseFiles,
    Counts,
    Tallies,
    Trials,
    by_subject,
    case_scores,
    mean_dice,
    reduced,
    weights_from,
)
from selfcfg.engine.selection.tuning import Outcome, Trialled, tune
from selfcfg.engine.selection.verdict import judged
from selfcfg.errors import DataError, UsageError, counted
from selfcfg.image_files import RASTER_ENDINGS, ending_in
from selfcfg.io import read_header
from selfcfg.kernels.statistics import FEWEST
from selfcfg.progress import say
from selfcfg.project import Project
from selfcfg.runs import RunFolder

_SCRATCH = ".trials-"
"""How the folder begins that holds what trials need, for as long as they go on."""


@dataclass(frozen=True)
class Wanted:
    """How to select.

    Args:
        name: distinguishes this selected model from others of the dataset.
        rule: see `Selection`.
        postprocessing: whether any is tried.
        keep_probabilities: keep those that are made for it; else they are removed at the end.
        device: to predict on; None: the best there is.
        jobs: processes at most.
        seed: of resamples and sign flips.
    """

    name: str | None = None
    rule: Rule = "simplest"
    postprocessing: bool = True
    keep_probabilities: bool = False
    device: str | None = None
    jobs: int = 1
    seed: int = 0


@dataclass(frozen=True)
class _Contest:
    """What is compared on which cases; arrays hold an entry a case, in order."""

    project: Project
    entrants: tuple[Entrant, ...]
    left_out: Mapping[str, str]
    cases: tuple[str, ...]
    folds: NDArray[np.intp]
    subjects: NDArray[np.intp]

    @property
    def n_folds(self) -> int:
        """How many there are."""
        return int(self.folds.max()) + 1


@dataclass(frozen=True)
class _Option:
    """A candidate with what it predicts: the ensemble of each fold's cases, and the one of new cases."""

    candidate: Candidate
    counts: Counts
    of_fold: tuple[Counts, ...]
    tallies: Tallies


def select(project: Project, wanted: Wanted) -> tuple[Path, Selection]:
    """The folder of the selected model, and what was compared; predictions that are there already are used.

    Raises:
        UsageError: nothing was trained yet.
        DataError: no experiment can be chosen, or a file is not usable.
        SelfcfgError: a case cannot be predicted.
    """
    contest = _contest(project)
    entrants = contest.entrants
    labels = entrants[0].plan.labels
    references = {case.id: case.label for case in project.dataset.cases if case.label is not None}
    note = _why_no_postprocessing(contest, wanted)
    keeping: Keeping = "kept" if wanted.keep_probabilities else "passing"
    if note and len(entrants) == 1:
        keeping = "none"
    else:
        tell_space(entrants, {case: read_header(references[case])[1].shape for case in contest.cases})
    contest, said = _said(contest, keeping, wanted)
    files = [
        CaseFiles(case, references[case], tuple(one[case] for one in said), labels.n_outputs) for case in contest.cases
    ]
    folder = selected_folder(project.results, wanted.name)
    folder.mkdir(parents=True, exist_ok=True)
    for abandoned in folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with TemporaryDirectory(prefix=_SCRATCH, dir=folder) as scratch:
        options = _options(contest, Trials(files, labels, Path(scratch), wanted.jobs))
    values = [by_subject(case_scores(one.tallies), contest.subjects) for one in options]
    candidates = judged([one.candidate for one in options], values, wanted.rule, wanted.seed)
    name = next(one.name for one in candidates if one.chosen)
    kind = next(one.kind for one in candidates if one.chosen)
    chosen = next(one for one in options if (one.candidate.name, one.candidate.kind) == (name, kind))
    outcome = None if note else _tuned(contest, chosen, files, wanted)
    model = _model(contest, chosen, outcome)
    dice, classes = mean_dice(chosen.tallies if outcome is None else outcome.tallies, labels)
    selection = Selection(
        dataset=project.name,
        rule=wanted.rule,
        cases=len(contest.cases),
        subjects=len(np.unique(contest.subjects)),
        folds=contest.n_folds,
        candidates=tuple(candidates),
        left_out=dict(contest.left_out),
        postprocessing=() if outcome is None else outcome.tuned,
        postprocessing_note=note,
        model={member.experiment: member.weight for member in model.members},
        dice=dice,
        classes=classes,
    )
    selection.write_whole(folder)
    model.write(folder / MODEL)
    if not wanted.keep_probabilities:
        for ledger in project.results.rglob(f"fold_*/validation/{LEDGER}"):
            remove_passing(RunFolder(ledger.parents[1]))
    return folder, selection


def _said(contest: _Contest, keeping: Keeping, wanted: Wanted) -> tuple[_Contest, list[dict[str, HeldOut]]]:
    """What every experiment says of the cases; the contest is without those that can no longer say it.

    Raises:
        SelfcfgError: none can, or it was stopped.
    """
    left_out = dict(contest.left_out)
    said: list[tuple[Entrant, dict[str, HeldOut]]] = []
    for one in contest.entrants:
        try:
            made = held_out(
                contest.project, one, contest.cases, keeping=keeping, device=wanted.device, jobs=wanted.jobs
            )
        except (DataError, UsageError) as error:
            if not said and one == contest.entrants[-1]:
                raise
            left_out[one.name] = error.found
            say(f"left out: {one.name}: {error.found}")
            continue
        said.append((one, made))
    kept = replace(contest, entrants=tuple(one for one, _ in said), left_out=left_out)
    return kept, [made for _, made in said]


def _contest(project: Project) -> _Contest:
    entrants, left_out = find_entrants(project)
    for name, why in left_out.items():
        say(f"left out: {name}: {why}")
    cases = compared_cases(entrants, project)
    subject_of = {case.id: case.subject for case in project.dataset.cases}
    names = sorted({subject_of[case] for case in cases})
    index = {name: place for place, name in enumerate(names)}
    fold_of = entrants[0].fold_of
    known, folds = np.unique([fold_of[case] for case in cases], return_inverse=True)
    say(
        f"{counted(len(entrants), 'experiment')}, {counted(len(cases), 'case')} of {counted(len(names), 'subject')} in "
        f"{counted(len(known), 'fold')}"
    )
    subjects = np.array([index[subject_of[case]] for case in cases], dtype=np.intp)
    return _Contest(project, tuple(entrants), left_out, tuple(cases), folds.astype(np.intp), subjects)


def _options(contest: _Contest, trials: Trials) -> list[_Option]:
    """Every experiment, every pair, and the ensemble that is found greedily, where it is another one."""
    members = range(trials.members)
    singles = [tuple(int(place == one) for place in members) for one in members]
    pairs = [tuple(int(place in pair) for place in members) for pair in itertools.combinations(members, 2)]
    found = trials.tallies([*singles, *pairs])
    options = [_option(contest, "single", one, (one,) * contest.n_folds, found[one]) for one in singles]
    options += [_option(contest, "pair", one, (one,) * contest.n_folds, found[one]) for one in pairs]
    if trials.members < 2 or contest.n_folds < 2:
        return options
    everything = np.ones(len(contest.cases), dtype=bool)
    without = [contest.folds != fold for fold in range(contest.n_folds)]
    final, *of_fold = greedy_counts(trials, [everything, *without], contest.subjects)
    if final not in found:
        tallies = cross_fitted(trials, of_fold, contest.folds)
        options.append(_option(contest, "greedy", final, tuple(of_fold), tallies))
    return options


def _option(contest: _Contest, kind: Kind, counts: Counts, of_fold: tuple[Counts, ...], tallies: Tallies) -> _Option:
    used = [(entrant, weight) for entrant, weight in zip(contest.entrants, weights_from(counts), strict=True) if weight]
    labels = contest.entrants[0].plan.labels
    dice, classes = mean_dice(tallies, labels)
    candidate = Candidate(
        name=" + ".join(entrant.name for entrant, _ in used),
        kind=kind,
        weights={entrant.name: weight for entrant, weight in used},
        dice=dice,
        classes=classes,
        score=float(by_subject(case_scores(tallies), contest.subjects).mean()),
        cost=sum(entrant.cost for entrant, _ in used) / contest.entrants[0].cost,
    )
    return _Option(candidate, reduced(counts), of_fold, tallies)


def _why_no_postprocessing(contest: _Contest, wanted: Wanted) -> str:
    """Why none can be tried; empty where it can."""
    if not wanted.postprocessing:
        return "None was to be tried."
    subjects, labels = len(np.unique(contest.subjects)), contest.entrants[0].plan.labels
    if contest.n_folds < 2 or subjects < FEWEST:
        have = f"{counted(subjects, 'subject')} in {counted(contest.n_folds, 'fold')}"
        return f"None was tried: that takes at least {FEWEST} subjects in 2 folds, here are {have}."
    try:
        parts_of(labels)
    except DataError as error:
        return f"None was tried: {error.found}."
    return ""


def _tuned(contest: _Contest, chosen: _Option, files: Sequence[CaseFiles], wanted: Wanted) -> Outcome:
    """What came of trying post-processing."""
    plan = contest.entrants[0].plan
    cases = [Predicted(one, weights_from(chosen.of_fold[fold])) for one, fold in zip(files, contest.folds, strict=True)]
    tables = component_tables(cases, plan.labels, plan.dimensions, wanted.jobs)
    _, geometry = read_header(files[0].reference)
    is_picture = ending_in(files[0].reference.name) in RASTER_ENDINGS and geometry.spacing[1:] == (1.0, 1.0)
    unit: Unit = "mm3" if plan.dimensions == 3 else "px" if is_picture else "mm2"
    return tune(tables, Trialled(contest.folds, contest.subjects, unit, wanted.seed))


def _model(contest: _Contest, chosen: _Option, outcome: Outcome | None) -> SelectedModel:
    members = [
        SelectedMember(
            experiment=entrant.name,
            configuration=entrant.records[0].configuration,
            folds=tuple(int(record.fold) for record in entrant.records),
            plan_hash=entrant.records[0].plan_hash,
            weights=weights_of_folds(entrant),
            weight=weight,
        )
        for entrant, weight in zip(contest.entrants, weights_from(chosen.counts), strict=True)
        if weight
    ]
    steps = () if outcome is None else outcome.steps
    return SelectedModel(dataset=contest.project.name, members=tuple(members), postprocessing=steps)
