"""What the features of predictions say of their Dice, learnt from cross-validation and tried on subjects left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.quality import FEATURES, Features, Quality, as_row
from selfcfg.kernels.ridge import fit_ridge, half_width, leave_subjects_out
from selfcfg.kernels.statistics import SURE, sign_flip_above, subject_means

CONFIDENCE = 0.9
FEWEST = 10
"""Subjects below which nothing is fitted: an interval of 90 % needs 9 errors at least."""


@dataclass(frozen=True)
class Scored:
    """A case that was predicted out of fold and has a reference.

    Args:
        case: its id.
        subject: whose it is.
        dice: mean over the foreground classes that reference or prediction hold.
        features: see `selfcfg.engine.prediction.quality.features_of`.
    """

    case: str
    subject: str
    dice: float
    features: Features


def fit_quality(cases: Sequence[Scored], weights: Mapping[str, str], seed: int = 0) -> Quality:
    """What the features say of the Dice.

    It is used only where, on subjects left out, it errs less than the mean Dice of the others does, which tells nothing
    of the case: one-sided permutation test by subject, p below 0.05.

    Args:
        cases: all cases of the cross-validation that have a Dice, one at least.
        weights: hash of the final weights of each fold, by folder name.
        seed: of the permutations.

    Source: ridge regression and the jackknife's interval in `selfcfg.kernels.ridge`; learning a score of quality from
        cross-validation as Robinson et al. 2018, "Real-time prediction of segmentation quality", do with networks.
        Features and test: our choice.
    """
    values = np.array([case.dice for case in cases])
    subjects = [case.subject for case in cases]
    features = np.concatenate([as_row(case.features, FEATURES) for case in cases])
    known = Quality(
        confidence=CONFIDENCE,
        n_cases=len(cases),
        n_subjects=len(set(subjects)),
        mean_dice=float(values.mean()),
        is_useful=False,
        reason=f"{len(set(subjects))} subjects are too few to say what features are worth ({FEWEST} are needed)",
        features=FEATURES,
        weights=dict(weights),
    )
    if known.n_subjects < FEWEST:
        return known
    guessed, mean = leave_subjects_out(features, values, subjects)
    errors, others = np.abs(values - guessed), np.abs(values - mean)
    gains = np.array(list(subject_means((others - errors).tolist(), subjects).values()))
    p = sign_flip_above(gains, 0.0, np.random.default_rng(seed))
    reach = half_width(errors, CONFIDENCE)
    fitted = fit_ridge(features, values)
    useful = p is not None and p < SURE and reach is not None
    return known.model_copy(
        update={
            "error": float(errors.mean()),
            "error_of_mean": float(others.mean()),
            "p": p,
            "rank_correlation": rank_correlation(guessed, values),
            "is_useful": useful,
            "reason": _reason(float(errors.mean()), float(others.mean()), p, useful=useful),
            "mean": tuple(fitted.mean.tolist()),
            "scale": tuple(fitted.scale.tolist()),
            "coefficients": tuple(fitted.coefficients.tolist()),
            "intercept": fitted.intercept,
            "penalty": fitted.penalty,
            "half_width": reach or 0.0,
        }
    )


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Spearman's correlation of ranks; None where all values of either are the same."""
    from scipy.stats import rankdata  # noqa: PLC0415 - slow to import

    one, other = rankdata(first), rankdata(second)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _reason(error: float, other: float, p: float | None, *, useful: bool) -> str:
    found = f"on subjects left out it errs by {error:.4f} Dice, the mean of the others by {other:.4f}"
    tested = "" if p is None else f" (p = {p:.2g})"
    if useful:
        return f"{found}{tested}"
    return f"no better than the mean as far as can be told: {found}{tested}; so nothing is predicted"
