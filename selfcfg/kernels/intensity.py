"""Changes of intensity for one channel: blur, contrast, gamma, lower resolution. Any number of axes, any device.

All parameters are given, nothing is drawn; every function leaves its input as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-7
_UPWARDS = {1: "linear", 2: "bilinear", 3: "trilinear"}


def gaussian_kernel(sigma: float) -> tuple[float, ...]:
    """The weights of a Gaussian with standard deviation `sigma` in voxels, an odd number of them, summing to 1.

    Source: nnU-Net v2.8.1 (batchgeneratorsv2): as many as the odd number nearest to ``6 sigma + 0.5``.
    """
    radius = max(0, math.floor((6 * sigma + 0.5) / 2))
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-radius, radius + 1)]
    return tuple(weight / sum(weights) for weight in weights)


def blur(channel: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The channel smoothed by a Gaussian along each axis; borders are mirrored about the outermost voxel.

    Args:
        channel: float32 (*spatial).
        sigmas: standard deviation in voxels, one an axis.
    """
    for axis, sigma in enumerate(sigmas):
        weights = gaussian_kernel(sigma)
        padded, size = _mirrored(channel, axis, len(weights) // 2), channel.shape[axis]
        channel = padded.narrow(axis, 0, size) * weights[0]
        for shift, weight in enumerate(weights[1:], start=1):
            channel.add_(padded.narrow(axis, shift, size), alpha=weight)
    return channel


def contrast(channel: Tensor, factor: float) -> Tensor:
    """The channel stretched about its mean by `factor`, held inside its own range.

    Source: nnU-Net v2.8.1 (batchgeneratorsv2, ContrastTransform with preserve_range).
    """
    lowest, highest = torch.aminmax(channel)
    return torch.add(channel.mean() * (1 - factor), channel, alpha=factor).clamp_(lowest, highest)


def gamma(channel: Tensor, exponent: float, *, inverted: bool) -> Tensor:
    """The channel with its range bent by a power, mean and standard deviation kept.

    Args:
        channel: float32 (*spatial), more than one voxel.
        exponent: below 1 brightens, above 1 darkens.
        inverted: bends the negative image, so that the bright end is stretched instead of the dark one.

    Source: nnU-Net v2.8.1 (batchgeneratorsv2, GammaTransform with retained statistics).
    """
    mean = channel.mean()
    values = mean - channel if inverted else channel - mean
    deviation = values.square().mean().sqrt()
    lowest, highest = torch.aminmax(values)
    values.sub_(lowest).div_((highest - lowest).clamp(min=_EPSILON))
    values.log2_().mul_(exponent).exp2_()  # a power, in half the time of pow
    values.sub_(values.mean())
    values.mul_(deviation / values.square().mean().sqrt().clamp(min=_EPSILON))
    return torch.sub(mean, values) if inverted else values.add_(mean)


def low_resolution_shape(shape: Sequence[int], zoom: float, *, keep_first: bool) -> tuple[int, ...]:
    """The coarse shape for a zoom below 1, at least one voxel an axis; the first axis stays with `keep_first`."""
    return tuple(size if axis == 0 and keep_first else max(1, round(size * zoom)) for axis, size in enumerate(shape))


def low_resolution(channel: Tensor, shape: Sequence[int]) -> Tensor:
    """The channel as if it had been taken on the coarser grid `shape`: nearest voxel down, linear back up.

    Source: nnU-Net v2.8.1 (batchgeneratorsv2, SimulateLowResolutionTransform).
    """
    coarse = functional.interpolate(channel[None, None], tuple(shape), mode="nearest-exact")
    return functional.interpolate(coarse, channel.shape, mode=_UPWARDS[channel.ndim], align_corners=False)[0, 0]


def _mirrored(channel: Tensor, axis: int, radius: int) -> Tensor:
    """The channel with `radius` voxels more at both ends of an axis, mirrored as often as the axis is too short."""
    size = channel.shape[axis]
    period = max(1, 2 * (size - 1))
    outside = [*range(-radius, 0), *range(size, size + radius)]
    inside = [min(index % period, period - index % period) if size > 1 else 0 for index in outside]
    before, after = (
        torch.tensor(half, dtype=torch.long, device=channel.device) for half in (inside[:radius], inside[radius:])
    )
    return torch.cat([channel.index_select(axis, before), channel, channel.index_select(axis, after)], dim=axis)
