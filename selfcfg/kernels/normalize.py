"""Intensity normalisation of one channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from selfcfg.fingerprint import ChannelStatistics

_EPSILON = 1e-8
_CHUNK = 1 << 20

Channel = NDArray[np.float32]
Scheme = Literal["ct", "zscore", "none", "rescale_to_0_1", "rgb_to_0_1"]


def normalize(
    channel: Channel, scheme: Scheme, statistics: ChannelStatistics | None, mask: NDArray[np.bool_] | None
) -> Channel:
    """The channel, normalised in place.

    Args:
        channel: float32, any shape, contiguous.
        scheme: "ct" clips to the dataset's 0.5 and 99.5 percentiles and standardises with its mean and deviation;
            "zscore" standardises with the channel's own; "rescale_to_0_1" maps its range to [0, 1]; "rgb_to_0_1"
            divides by 255; "none" changes nothing.
        statistics: of the dataset's foreground; "ct" needs them.
        mask: for "zscore", the voxels that are normalised, all others keeping their value; None for all.

    Raises:
        ValueError: an "rgb_to_0_1" channel holds values outside [0, 255], or "ct" was given no statistics.

    Source: nnU-Net v2.8.1, ``default_normalization_schemes.py``; sums are taken in float64 here.
    """
    if scheme == "ct":
        if statistics is None:
            raise ValueError("CT normalisation needs the dataset's intensity statistics")
        np.clip(channel, statistics.percentile_00_5, statistics.percentile_99_5, out=channel)
        _standardize(channel, statistics.mean, statistics.std)
    elif scheme == "zscore":
        if mask is None:
            _standardize(channel, *_mean_and_deviation(channel))
        else:
            inside = channel[mask]
            _standardize(inside, *_mean_and_deviation(inside))
            channel[mask] = inside
    elif scheme == "rescale_to_0_1":
        channel -= channel.min()
        channel /= max(float(channel.max()), _EPSILON)
    elif scheme == "rgb_to_0_1":
        low, high = float(channel.min()), float(channel.max())
        if low < 0 or high > 255:
            raise ValueError(f"colour values must lie in [0, 255], found {low:g} to {high:g}")
        channel /= 255
    return channel


def _standardize(values: Channel, mean: float, deviation: float) -> None:
    values -= np.float32(mean)
    values /= np.float32(max(deviation, _EPSILON))


def _mean_and_deviation(values: Channel) -> tuple[float, float]:
    """Mean and population standard deviation in float64, without a float64 copy of the whole."""
    flat = values.reshape(-1)
    mean = float(flat.mean(dtype=np.float64))
    squares = 0.0
    for start in range(0, flat.size, _CHUNK):
        difference = flat[start : start + _CHUNK].astype(np.float64) - mean
        squares += float(np.square(difference, out=difference).sum())
    return mean, (squares / flat.size) ** 0.5
