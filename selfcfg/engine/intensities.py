"""Foreground intensities: the statistics of one case, and of all cases from those of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from selfcfg.fingerprint import CaseFingerprint, ChannelStatistics

Values = NDArray[np.float32]

N_QUANTILES = 257
QUANTILES = (1 - np.cos(np.linspace(0, np.pi, N_QUANTILES))) / 2
"""The shares at which the quantiles of a case are kept: dense at both ends, where the percentiles for CT lie."""

MAX_SAMPLE = 1 << 22
"""Voxels of one case from which its percentiles are taken; more are thinned out evenly. Mean and extremes see all."""

_PERCENTILES = np.array([0.5, 50.0, 99.5])
_BLOCK = 1 << 20
_POINTS = 8
"""Points by which each stretch between two kept quantiles is stood for when cases are pooled."""


def describe(values: Values, seed: int = 0) -> tuple[ChannelStatistics, str]:
    """The statistics of one case's foreground in one channel, and its quantiles as text.

    Mean, standard deviation and extremes are exact. Percentiles are exact up to `MAX_SAMPLE` values; of more, one is
    drawn at random from each of that many equal stretches, which is off by less than 0.0002 of a rank.

    Args:
        values: at least one finite value; their order is lost.
        seed: of the draw.
    """
    mean = sum(float(block.sum(dtype=np.float64)) for block in _blocks(values)) / values.size
    squares = sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in _blocks(values))
    lowest, highest = float(values.min()), float(values.max())
    sample = _thinned(values, seed) if values.size > MAX_SAMPLE else values
    sample.sort()
    low, middle, high = _at(sample, _PERCENTILES / 100).tolist()
    kept = sample[np.rint(QUANTILES * (sample.size - 1)).astype(np.int64)]
    kept[0], kept[-1] = lowest, highest
    statistics = ChannelStatistics(
        max=highest,
        mean=mean,
        median=middle,
        min=lowest,
        percentile_00_5=low,
        percentile_99_5=high,
        std=float(np.sqrt(squares / values.size)),
    )
    return statistics, " ".join(f"{value:.7g}" for value in kept)


def pool(cases: Sequence[CaseFingerprint], channel: int) -> ChannelStatistics | None:
    """The statistics of a channel over all cases, each case with the same weight; None where none has foreground.

    Mean, standard deviation and extremes are exact. Percentiles come from the kept quantiles of each case; on eight
    real datasets they lay within 0.0003 of the rank that sorting all values gives.

    Source: nnU-Net v2.8.1, which draws equally many values from every case and pools them.
    """
    found = [(case.intensities[channel], case.quantiles[channel]) for case in cases if case.intensities]
    known = [(statistics, text) for statistics, text in found if statistics is not None]
    if not known:
        return None
    means = np.array([statistics.mean for statistics, _ in known])
    variances = np.array([statistics.std for statistics, _ in known]) ** 2
    low, middle, high = _pooled([np.array(text.split(), dtype=np.float64) for _, text in known])
    return ChannelStatistics(
        max=max(statistics.max for statistics, _ in known),
        mean=float(means.mean()),
        median=middle,
        min=min(statistics.min for statistics, _ in known),
        percentile_00_5=low,
        percentile_99_5=high,
        std=float(np.sqrt(variances.mean() + means.var())),
    )


def _pooled(quantiles: Sequence[NDArray[np.float64]]) -> list[float]:
    """The percentiles of the even mixture of distributions given by their quantiles."""
    inner = (np.arange(_POINTS) + 0.5) / _POINTS
    widths = np.diff(QUANTILES)
    shares = (QUANTILES[:-1, None] + widths[:, None] * inner).ravel()
    weights = np.tile(np.repeat(widths / _POINTS, _POINTS), len(quantiles))
    points = np.concatenate([_between(shares, kept) for kept in quantiles])
    order = np.argsort(points, kind="stable")
    reached = np.cumsum(weights[order]) / len(quantiles)
    places = np.minimum(np.searchsorted(reached, _PERCENTILES / 100), points.size - 1)
    return [float(value) for value in points[order][places]]


def _between(shares: NDArray[np.float64], kept: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of one case between the kept ones; whole numbers where all of its values are."""
    points = np.interp(shares, QUANTILES, kept)
    whole = np.rint(points)
    return whole if np.array_equal(np.rint(kept), kept) else points


def _blocks(values: Values) -> Iterator[Values]:
    return (values[start : start + _BLOCK] for start in range(0, values.size, _BLOCK))


def _thinned(values: Values, seed: int) -> Values:
    """One value from each of `MAX_SAMPLE` equal stretches."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    places = (np.arange(MAX_SAMPLE) + generator.random(MAX_SAMPLE)) * (values.size / MAX_SAMPLE)
    return values[np.minimum(places.astype(np.int64), values.size - 1)]


def _at(ordered: Values, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quantiles of sorted values by linear interpolation."""
    places = shares * (ordered.size - 1)
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, ordered.size - 1)
    lower, upper = ordered[below].astype(np.float64), ordered[above].astype(np.float64)
    result: NDArray[np.float64] = lower + (upper - lower) * (places - below)
    return result
