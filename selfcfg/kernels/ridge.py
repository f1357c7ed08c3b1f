"""A linear prediction from a few features, held back by a penalty, with what it errs on groups that it never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PENALTIES = tuple(float(10.0**power) for power in np.arange(-2, 3.5, 0.5))
"""Of the squared coefficients of standardised features, a sample each."""


class Ridge(NamedTuple):
    """A fitted prediction.

    Args:
        mean: of each feature.
        scale: of each feature, its standard deviation; 1 where it is always the same.
        coefficients: of the standardised features.
        intercept: what is predicted of the mean.
        penalty: see `PENALTIES`.
    """

    mean: Floats
    scale: Floats
    coefficients: Floats
    intercept: float
    penalty: float

    def predict(self, features: Floats) -> Floats:
        """What is predicted from features (n, p); one that is not known (NaN) counts as its mean."""
        standard = np.nan_to_num((features - self.mean) / self.scale)
        return np.asarray(self.intercept + standard @ self.coefficients)


def fit_ridge(features: Floats, values: Floats) -> Ridge:
    """The prediction with the penalty of the smallest squared error on samples left out one by one.

    Args:
        features: (n, p); NaN where one is not known.
        values: (n,).

    Source: Hoerl and Kennard 1970; the errors from one fit with all samples: Allen 1974 (PRESS).
    """
    known = np.isfinite(features)
    counts = np.maximum(known.sum(0), 1)
    mean = np.where(known, features, 0).sum(0) / counts
    spread = np.sqrt((np.where(known, features - mean, 0) ** 2).sum(0) / counts)
    scale = np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, np.inf)
    standard = np.where(known, features - mean, 0) / scale
    centred = values - values.mean()
    left, singular, right = np.linalg.svd(standard, full_matrices=False)
    along = left.T @ centred
    best, chosen = math.inf, PENALTIES[-1]
    for penalty in PENALTIES[::-1]:
        shrunk = singular**2 / (singular**2 + penalty * len(values))
        leverage = 1 / len(values) + (left**2 * shrunk).sum(1)
        errors = (centred - left @ (shrunk * along)) / np.maximum(1 - leverage, 1e-9)
        if (error := float((errors**2).mean())) < best:
            best, chosen = error, penalty
    coefficients = right.T @ (singular / (singular**2 + chosen * len(values)) * along)
    return Ridge(mean, np.where(np.isfinite(scale), scale, 1.0), coefficients, float(values.mean()), chosen)


def leave_groups_out(features: Floats, values: Floats, groups: Sequence[str]) -> tuple[Floats, Floats]:
    """Two predictions (n,) of each sample, made without its group: by the features, and the mean of the others.

    Everything is fitted anew without the group, the penalty included.

    Args:
        features: (n, p).
        values: (n,).
        groups: that each sample belongs to, such as its subject; two at least.
    """
    owners = np.asarray(groups)
    by_features, by_mean = np.empty(len(values)), np.empty(len(values))
    for group in np.unique(owners):
        own = owners == group
        by_features[own] = fit_ridge(features[~own], values[~own]).predict(features[own])
        by_mean[own] = values[~own].mean()
    return by_features, by_mean


def half_width(errors: Floats, confidence: float) -> float | None:
    """How far from a prediction the value lies at most with a confidence; None where there are too few samples.

    Args:
        errors: (n,) of predictions made without the sample.
        confidence: such as 0.9: then 9 samples are the fewest.

    Source: Barber et al. 2021, "Predictive inference with the jackknife+", section 2 (the jackknife).
    """
    rank = math.ceil(confidence * (len(errors) + 1) - 1e-9)
    return float(np.sort(np.abs(errors))[rank - 1]) if rank <= len(errors) else None
