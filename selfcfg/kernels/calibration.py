"""Whether probabilities come true: reliability in bins, Brier score, likelihood, and one temperature that mends them.

Voxels lie along the last axis. Probabilities are those of classes that exclude each other, (K, n), background first;
a region that may overlap others is a pair of classes of its own, see `pair`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 15
"""Equally wide bins of the confidence, as in the source of the error (Guo et al. 2017, section 2)."""

FLOOR = 2.0**-24
"""The smallest probability whose logarithm is taken: the smallest number above 0 that half precision can hold."""

COMPLEMENT = 2.0**-13
"""The smallest value of 1 - p: half precision holds any p that is nearer to 1 than this doubled as 1."""

COLDEST, HOTTEST = 0.05, 20.0
"""Between these a temperature is looked for."""


@dataclass(frozen=True)
class Tally:
    """Sums over voxels that tell how far probabilities can be trusted; those of several cases are added.

    Args:
        count: voxels (or their weights) in each bin of the confidence, (bins,).
        confidence: sum of the confidence in each bin.
        hits: how often what was believed was true in each bin.
        squared: sum of the squared errors.
        log: sum of the negative log likelihoods.
    """

    count: Floats
    confidence: Floats
    hits: Floats
    squared: float
    log: float

    @classmethod
    def empty(cls, bins: int = BINS) -> Tally:
        """The tally of no voxel."""
        return cls(np.zeros(bins), np.zeros(bins), np.zeros(bins), 0.0, 0.0)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.count + other.count,
            self.confidence + other.confidence,
            self.hits + other.hits,
            self.squared + other.squared,
            self.log + other.log,
        )

    @property
    def n(self) -> float:
        """Voxels."""
        return float(self.count.sum())

    @property
    def ece(self) -> float | None:
        """The expected calibration error: the mean over voxels of how far their bin's accuracy is from its confidence.

        Source: Naeini et al. 2015; Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.
        """
        return float(np.abs(self.hits - self.confidence).sum() / self.n) if self.n else None

    @property
    def brier(self) -> float | None:
        """The mean squared error (Brier 1950); of several classes the sum over them."""
        return self.squared / self.n if self.n else None

    @property
    def nll(self) -> float | None:
        """The mean negative log likelihood, in nats."""
        return self.log / self.n if self.n else None


def pair(probability: NDArray[Any]) -> Floats:
    """A region as two classes that exclude each other, (2, n): not in it, in it."""
    inside = np.asarray(probability, dtype=np.float64)
    return np.stack([np.maximum(1 - inside, COMPLEMENT), inside])


def top_label(
    probabilities: NDArray[Any], target: NDArray[np.integer], weights: Floats | None = None, bins: int = BINS
) -> Tally:
    """The tally of the class that is believed most at each voxel.

    Args:
        probabilities: (K, n).
        target: (n,) index of the true class.
        weights: (n,) how many voxels each stands for; None: one.
        bins: of the confidence.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    of_target = np.take_along_axis(values, target[np.newaxis].astype(np.intp), 0)[0]
    squared = (values**2).sum(0) - 2 * of_target + 1
    return _tally(values.max(0), values.argmax(0) == target, squared, of_target, weights=weights, bins=bins)


def one_class(probability: NDArray[Any], truth: NDArray[np.bool_], bins: int = BINS) -> Tally:
    """The tally of one class against all others: how often it is there, where it is believed with such a probability.

    Args:
        probability: (n,) of the class.
        truth: (n,) whether it is there.
        bins: of the probability.

    Source: Kull et al. 2019, "Beyond temperature scaling", section 2 (classwise calibration).
    """
    values = np.asarray(probability, dtype=np.float64)
    of_truth = np.where(truth, values, np.maximum(1 - values, COMPLEMENT))
    return _tally(values, truth, (values - truth) ** 2, of_truth, weights=None, bins=bins)


def log_probabilities(probabilities: NDArray[Any]) -> Floats:
    """Their logarithms, which are logits up to a constant at each voxel; values below the `FLOOR` count as it."""
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), FLOOR))


def tempered(probabilities: NDArray[Any], temperature: float, *, exclusive: bool) -> Floats:
    """Probabilities (K, ...) of logits divided by a temperature; what is believed most stays so.

    Args:
        probabilities: of classes that exclude each other, or of regions by themselves.
        temperature: above 1 makes them less sure, below 1 more.
        exclusive: whether the classes exclude each other: softmax(log p / T), else sigmoid(logit p / T).

    Source: Guo et al. 2017, section 4.2.
    """
    if exclusive:
        return _softmax(log_probabilities(probabilities) / temperature)
    inside = np.clip(np.asarray(probabilities, dtype=np.float64), FLOOR, 1 - COMPLEMENT)
    odds = (1 / inside - 1) ** (1 / temperature)
    return np.asarray(1 / (1 + odds))


def fit_temperature(logs: Floats, target: NDArray[np.integer], weights: Floats) -> float:
    """The temperature with the highest likelihood; the likelihood has one maximum, being concave in its inverse.

    Args:
        logs: (K, n) log probabilities.
        target: (n,) index of the true class.
        weights: (n,) how many voxels each stands for.

    Source: Guo et al. 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - slow to import
    from scipy.special import logsumexp  # noqa: PLC0415

    of_target = np.take_along_axis(logs, target[np.newaxis].astype(np.intp), 0)[0]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(weights @ (logsumexp(logs * inverse, axis=0) - of_target * inverse) / weights.sum())

    bounds = (float(np.log(COLDEST)), float(np.log(HOTTEST)))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def tempered_top_label(logs: Floats, target: NDArray[np.integer], weights: Floats, temperature: float) -> Tally:
    """The tally of log probabilities (K, n) divided by a temperature, see `top_label`."""
    return top_label(_softmax(logs / temperature), target, weights)


def _softmax(logs: Floats) -> Floats:
    raised = np.exp(logs - logs.max(0))
    return np.asarray(raised / raised.sum(0))


def _tally(
    confidence: Floats,
    hit: NDArray[np.bool_],
    squared: Floats,
    of_truth: Floats,
    *,
    weights: Floats | None,
    bins: int,
) -> Tally:
    """Bins are open at their lower end and closed at the upper one, the first one at both."""
    one = np.ones_like(confidence) if weights is None else weights
    index = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    count, sums, hits = (
        np.bincount(index, values, bins).astype(np.float64) for values in (one, one * confidence, one * hit)
    )
    log = -(one @ np.log(np.maximum(of_truth, FLOOR)))
    return Tally(count, sums, hits, float(one @ squared), float(log))
