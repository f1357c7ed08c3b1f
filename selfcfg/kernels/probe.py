"""What a linear classifier can read from the features of voxels: a cheap look at how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def voxel_features(maps: Sequence[Tensor], voxels: Tensor) -> Tensor:
    """The features of some voxels of one image, those of all maps one after the other, (n, sum of channels) float32.

    Args:
        maps: (C, [Z,] Y, X), each of its own resolution; the first has that of the image.
        voxels: (n, 2 or 3) indices into the first map; in a coarser one the voxel that covers them is taken.
    """
    full = torch.tensor(maps[0].shape[1:], device=voxels.device)
    found = []
    for one in maps:
        size = torch.tensor(one.shape[1:], device=voxels.device)
        places = torch.div(voxels * size, full, rounding_mode="floor")
        index: tuple[Any, ...] = (slice(None), *places.unbind(1))
        found.append(one[index].T.float())
    return torch.cat(found, 1)


def drawn_voxels(label: Tensor, each: int, generator: torch.Generator) -> Tensor:
    """Up to `each` voxels of every value of a label map that is not negative, (n, 2 or 3) indices.

    Args:
        label: integers ([Z,] Y, X).
        each: voxels of a value.
        generator: draws them.
    """
    found = []
    for value in torch.unique(label).tolist():
        places = torch.nonzero(label == value)
        if value >= 0:
            found.append(places[torch.randperm(len(places), generator=generator)[:each]])
    return torch.cat(found) if found else torch.empty((0, label.dim()), dtype=torch.int64)


def linear_probe(features: Tensor, labels: Tensor, seen: Tensor, ridge: float = 1e-2) -> float:
    """The balanced accuracy of a linear classifier of voxels, fitted on some and scored on the others.

    Args:
        features: (n, d).
        labels: (n,) integers.
        seen: bool (n,), the voxels it is fitted on.
        ridge: penalty on the weights, relative to the mean square of the features.

    Returns:
        The mean over the labels of the share that is recognised; NaN where fewer than two labels are in both parts.

    Source: our choice; ridge regression on the indicators of the labels has a closed form and no rate to tune.
    """
    shared = sorted(set(labels[seen].tolist()) & set(labels[~seen].tolist()))
    if len(shared) < 2:
        return float("nan")
    x, held = features[seen].double(), features[~seen].double()
    mean, deviation = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
    x, held = (torch.nn.functional.pad((part - mean) / deviation, (0, 1), value=1.0) for part in (x, held))
    indicators = torch.stack([(labels[seen] == value).double() for value in shared], 1)
    weights = 1 / indicators.sum(0).clamp_min(1)
    share = (indicators * weights).sum(1, keepdim=True)
    weighted = x * share
    gram = x.T @ weighted + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    found = (held @ torch.linalg.solve(gram, weighted.T @ indicators)).argmax(1)
    right = torch.tensor(shared, device=found.device)[found] == labels[~seen]
    return sum(float(right[labels[~seen] == value].float().mean()) for value in shared) / len(shared)
