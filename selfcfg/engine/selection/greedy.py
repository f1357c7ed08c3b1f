"""Weights of an ensemble found greedily, and fitted once more without each fold, so that its score is not flattered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.selection.trials import Counts, Tallies, Trials, by_subject, case_scores, reduced

MOST = 12
"""Members of an ensemble at most, repetitions counted."""


def greedy_counts(trials: Trials, groups: Sequence[NDArray[np.bool_]], subjects: NDArray[np.intp]) -> list[Counts]:
    """For each group of cases, how often each experiment is in the ensemble that is found greedily on it.

    It begins with the best experiment; whichever raises the mean Dice most is added, also one that is in it already,
    until none raises it. Of equally good ones the first is taken. All groups go on together: their trials are one pass.

    Args:
        trials: of the experiments.
        groups: masks of the cases.
        subjects: of each case, the index of its subject.

    Source: Caruana et al., Ensemble Selection from Libraries of Models, 2004, sections 2 and 2.1 (with replacement),
        without bagging and with the end at the first step that is not better: our choice, since there are few
        experiments and each step is a pass over all cases.
    """
    singles = [tuple(int(one == member) for one in range(trials.members)) for member in range(trials.members)]
    chosen: list[Counts] = [()] * len(groups)
    best = [-np.inf] * len(groups)
    going_on = list(range(len(groups)))
    for _ in range(MOST):
        offered = {
            group: [tuple(np.add(chosen[group] or (0,) * trials.members, one).tolist()) for one in singles]
            for group in going_on
        }
        found = trials.tallies(one for options in offered.values() for one in options)
        still = []
        for group, options in offered.items():
            scores = [_mean(found[reduced(one)], groups[group], subjects) for one in options]
            place = int(np.argmax(scores))
            if scores[place] > best[group]:
                best[group], chosen[group] = scores[place], options[place]
                still.append(group)
        going_on = still
        if not going_on:
            break
    return [reduced(one) for one in chosen]


def cross_fitted(trials: Trials, counts: Sequence[Counts], folds: NDArray[np.intp]) -> Tallies:
    """The tallies of every case by the ensemble that was fitted without its fold.

    Args:
        trials: of the experiments.
        counts: of each fold, the ensemble that was fitted on the others.
        folds: of each case, the index of its fold.
    """
    found = trials.tallies(counts)
    return np.stack([found[counts[fold]][case] for case, fold in enumerate(folds)])


def _mean(tallies: Tallies, group: NDArray[np.bool_], subjects: NDArray[np.intp]) -> float:
    return float(by_subject(case_scores(tallies[group]), subjects[group]).mean())
