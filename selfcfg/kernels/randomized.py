"""Images whose intensities, sharpness and borders are made random, so that they no longer tell where an image is from.

Source: our choice, in the manner of domain randomisation (Tobin et al., 2017; Billot et al., SynthSeg, 2023).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from selfcfg.kernels import ranks
from selfcfg.kernels.intensity import blur, gamma

KEPT = (0.75, 1.0)
"""Share of each edge that is kept: what lies beyond becomes border."""

EXPONENT = (0.6, 1.7)
"""By which the intensity range is bent, drawn evenly on a logarithmic scale."""

SIGMA = (0.1, 1.0)
"""Of the blur in voxels."""

NOISE = (0.0, 0.2)
"""Standard deviation of the noise, in parts of the image's."""


class Change(NamedTuple):
    """What is done to one channel.

    Args:
        box: what is kept of it.
        exponent: that bends the intensities.
        sign: -1 inverts them.
        level: value of everything outside.
        sigma: of the blur in voxels.
        noise: standard normal values of the channel's shape, scaled.
    """

    box: tuple[slice, ...]
    exponent: float
    sign: float
    level: float
    sigma: float
    noise: Tensor


def randomized(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images (N, C, [Z,] Y, X) of which every channel was changed by numbers of its own.

    A random box is kept; what lies outside of it, and voxels that are exactly 0, as beyond the border of a normalised
    image, get one random value. The intensities of the rest are bent, inverted in half of the cases, and brought to
    zero mean and unit variance. Then all is blurred, and noise hides what was constant.

    Args:
        images: float32, normalised, 0 beyond their borders.
        generator: on the CPU, draws everything; None: torch's global one.
    """
    mine, found = ranks.rows(len(images)), []
    for number in range(ranks.whole(len(images))):
        changes = [draw(images.shape[2:], generator) for _ in range(images.shape[1])]
        if number in mine:
            pairs = zip(images[number - mine.start], changes, strict=True)
            found.append(torch.stack([changed(one, change) for one, change in pairs]))
    return torch.stack(found)


def draw(size: torch.Size, generator: torch.Generator | None = None) -> Change:
    """Everything that happens to one channel of this size."""
    n_axes = len(size)
    drawn = torch.rand(2 * n_axes + 4, generator=generator).tolist()
    starts, kept, (bend, side, sigma, noise) = drawn[:n_axes], drawn[n_axes : 2 * n_axes], drawn[2 * n_axes :]
    lengths = [max(1, round(n * _between(KEPT, share))) for n, share in zip(size, kept, strict=True)]
    first = [int(at * (n - k + 1)) for at, n, k in zip(starts, size, lengths, strict=True)]
    low, high = EXPONENT
    return Change(
        box=tuple(slice(start, start + length) for start, length in zip(first, lengths, strict=True)),
        exponent=low * (high / low) ** bend,
        sign=-1.0 if side < 0.5 else 1.0,
        level=float(torch.randn((), generator=generator)),
        sigma=_between(SIGMA, sigma),
        noise=_between(NOISE, noise) * torch.randn(size, generator=generator),
    )


def changed(channel: Tensor, change: Change) -> Tensor:
    """A channel (*spatial) after one change."""
    inside = torch.zeros_like(channel, dtype=torch.bool)
    inside[change.box] = channel[change.box] != 0
    values = channel[inside]
    if len(values) > 1:
        values = gamma(values, change.exponent, inverted=False)
        values = (values - values.mean()) / values.std(correction=0).clamp_min(1e-6)
    whole = torch.full_like(channel, change.level)
    whole[inside] = change.sign * values
    return blur(whole, [change.sigma] * channel.ndim) + change.noise.to(channel.device)


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share
