"""What the features of predictions say of their Dice, learnt from cross-validation and tried on subjects left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.quality import FEATURES, Features, Quality, as_row
from selfcfg.kernels.ridge import fit_ridge, half_width, leave_groups_out
from selfcfg.kernels.statistics import RESAMPLES, SURE, sign_flip_above, subject_means

Values = NDArray[np.float64]

CONFIDENCE = 0.9
FEWEST = 10
"""Subjects below which nothing is fitted: an interval of 90 % needs 9 errors at least."""


@dataclass(frozen=True)
class Scored:
    """A case that was predicted out of fold and has a reference.

    Args:
        case: its id.
        subject: whose it is.
        fold: name of the fold that it was validated in.
        dice: mean over the foreground classes that reference or prediction hold.
        features: see `selfcfg.engine.prediction.quality.features_of`.
    """

    case: str
    subject: str
    fold: str
    dice: float
    features: Features


def fit_quality(cases: Sequence[Scored], weights: Mapping[str, str], seed: int = 0) -> Quality:
    """What the features say of the Dice.

    It is tried on one fold after the other, fitted on all others, so that neither the subjects nor the network are
    known: how sure a network is of its own cases says less of those of another. With one fold, on one subject after the
    other. A Dice is predicted only where it errs less so than the mean Dice of the others, which knows nothing of the
    case: one-sided permutation test by subject, p below 0.05. Cases are put in order by it where its rank correlation
    within folds is above 0 by the same measure, which asks for less.

    Args:
        cases: all cases of the cross-validation that have a Dice, one at least.
        weights: hash of the final weights of each fold, by folder name.
        seed: of the permutations.

    Source: ridge regression and the jackknife's interval in `selfcfg.kernels.ridge`; learning a score of quality from
        cross-validation as Robinson et al. 2018, "Real-time prediction of segmentation quality", do with networks.
        Features and test: our choice.
    """
    values = np.array([case.dice for case in cases])
    subjects, folds = [case.subject for case in cases], [case.fold for case in cases]
    by_fold = len(set(folds)) > 1
    features = np.concatenate([as_row(case.features, FEATURES) for case in cases])
    known = Quality(
        confidence=CONFIDENCE,
        n_cases=len(cases),
        n_subjects=len(set(subjects)),
        mean_dice=float(values.mean()),
        left_out="fold" if by_fold else "subject",
        is_useful=False,
        reason=f"{len(set(subjects))} subjects are too few to say what features are worth ({FEWEST} are needed)",
        features=FEATURES,
        weights=dict(weights),
    )
    if known.n_subjects < FEWEST:
        return known
    guessed, mean = leave_groups_out(features, values, folds if by_fold else subjects)
    errors, others = np.abs(values - guessed), np.abs(values - mean)
    gains = np.array(list(subject_means((others - errors).tolist(), subjects).values()))
    rng = np.random.default_rng(seed)
    p = sign_flip_above(gains, 0.0, rng)
    ranked = rank_test(_by_subject(guessed, cases), _by_subject(values, cases), rng)
    reach = half_width(errors, CONFIDENCE)
    fitted = fit_ridge(features, values)
    useful = p is not None and p < SURE and reach is not None
    ranking = ranked is not None and ranked.p < SURE
    return known.model_copy(
        update={
            "error": float(errors.mean()),
            "error_of_mean": float(others.mean()),
            "p": p,
            "rank_correlation": ranked.correlation if ranked else None,
            "rank_p": ranked.p if ranked else None,
            "is_useful": useful,
            "is_ranking": ranking,
            "reason": _reason(errors, others, p, ranked, known.left_out),
            "mean": tuple(fitted.mean.tolist()),
            "scale": tuple(fitted.scale.tolist()),
            "coefficients": tuple(fitted.coefficients.tolist()),
            "intercept": fitted.intercept,
            "penalty": fitted.penalty,
            "half_width": reach or 0.0,
        }
    )


class RankTest(NamedTuple):
    """A correlation of ranks within folds, and p of it being no higher than 0."""

    correlation: float
    p: float


def rank_test(
    first: Sequence[Values], second: Sequence[Values], rng: np.random.Generator, permutations: int = RESAMPLES
) -> RankTest | None:
    """Spearman's correlation within each fold, its mean over folds by their size; None where no fold has one.

    Args:
        first: values of each fold.
        second: other values of the same.
        rng: draws the permutations within folds.
        permutations: for p, one-sided.

    Source: stratified permutation test; p as Phipson and Smyth 2010.
    """
    from scipy.stats import rankdata  # noqa: PLC0415 - slow to import

    total = np.zeros(1 + permutations)
    size = 0
    for one, other in zip(first, second, strict=True):
        ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (one, other)]
        length = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
        if length == 0:
            continue
        orders = rng.permuted(np.broadcast_to(ranks[1], (permutations, len(one))), axis=1)
        total += len(one) * np.concatenate([[ranks[0] @ ranks[1]], orders @ ranks[0]]) / length
        size += len(one)
    if not size:
        return None
    return RankTest(float(total[0] / size), float((total >= total[0] - 1e-9).sum() / (1 + permutations)))


def _by_subject(values: Values, cases: Sequence[Scored]) -> list[Values]:
    """The mean of each subject's values, fold by fold."""
    parts = []
    for fold in sorted({case.fold for case in cases}):
        own = [(value, case.subject) for value, case in zip(values.tolist(), cases, strict=True) if case.fold == fold]
        parts.append(np.array(list(subject_means(*map(list, zip(*own, strict=True))).values())))
    return parts


def _reason(errors: Values, others: Values, p: float | None, ranked: RankTest | None, left_out: str) -> str:
    error, other = float(errors.mean()), float(others.mean())
    found = f"on {left_out}s left out it errs by {error:.4f} Dice, the mean of the others by {other:.4f}"
    found += "" if p is None else f" (p = {p:.2g})"
    if ranked is not None:
        found += f"; rank correlation within folds {ranked.correlation:.2f} (p = {ranked.p:.2g})"
    if p is not None and p < SURE:
        return found
    order = "it" if ranked is not None and ranked.p < SURE else "entropy"
    end = f"so no Dice is predicted, and cases are put in order by {order}"
    return f"no better than the mean as far as can be told: {found}; {end}"
