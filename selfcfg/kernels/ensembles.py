"""How much each member of an ensemble counts, from what it scores on cases that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]


def score_weights(scores: NDArray[np.float64], scale: float) -> Weights:
    """Weights that grow exponentially with a score, together 1 over the members (first axis).

    Args:
        scores: (members, ...).
        scale: by which a score must be higher for e times the weight.
    """
    raised = np.exp((scores - scores.max(0)) / scale)
    found: Weights = raised / raised.sum(0)
    return found


def greedy_choice(count: int, score: Callable[[Sequence[int]], float]) -> tuple[int, ...]:
    """The members that are chosen one by one, each the one with which the ensemble scores best, while it gets better.

    Of equally good ones the first is taken.

    Args:
        count: members.
        score: of the ensemble of some of them, in the order in which they were chosen; higher is better.

    Source: Caruana et al., Ensemble Selection from Libraries of Models, 2004, section 2; without repetition: our
    choice, since there are few members.
    """
    chosen: tuple[int, ...] = ()
    best = -np.inf
    while left := [member for member in range(count) if member not in chosen]:
        scored = {member: score((*chosen, member)) for member in left}
        member = max(left, key=lambda one: scored[one])
        if scored[member] <= best:
            break
        best, chosen = scored[member], (*chosen, member)
    return chosen
