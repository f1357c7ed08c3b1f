"""From logits at the network's spacing to a label map on the grid of the input file, plane by plane.

Interpolation is linear and separable, so a plane of the result needs two planes of logits: each is brought to full size
in-plane, class by class, and the classes are compared at once. Classes that cannot win anywhere in those planes are
not resampled at all. The stack of all classes at full size never exists, unless probabilities are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from torch import Tensor

from selfcfg.engine.data.store import CaseInfo
from selfcfg.engine.prediction.uncertainty import Gathering
from selfcfg.errors import SelfcfgError
from selfcfg.geometry import Vector
from selfcfg.kernels.resample import axis_matrix, nearest_index, separate_axis
from selfcfg.kernels.uncertainty import probabilities_of
from selfcfg.labels import LabelSchema

LabelMap = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Probabilities = npt.NDArray[np.float16]

MARGIN = 1e-5
"""How far, relative to the largest logit, a class must stay below the background to be left out; rounding is 100 times
smaller."""


def export(
    slabs: Iterable[Tensor],
    info: CaseInfo,
    spacing: Vector,
    labels: LabelSchema,
    *,
    probabilities: bool = False,
    temperature: float = 1.0,
    uncertainty: Gathering | None = None,
) -> tuple[LabelMap, Probabilities | None]:
    """The label map on the grid of the case's file, (Z, Y, X), and the probabilities (n_outputs, Z, Y, X) if asked for.

    Args:
        slabs: (z, n_outputs, Y, X) logits in order along the plan's first axis, `info.shape` voxels together.
        info: how the case was cut and resampled.
        spacing: of the logits in mm, in the plan's axis order.
        labels: meaning of the outputs.
        probabilities: also give softmax, or sigmoid where there are regions; outside the crop all is background.
        temperature: that logits are divided by before; it changes no label.
        uncertainty: takes in each plane; where it tells disagreement, the slabs have a channel of it behind the logits.

    Raises:
        SelfcfgError: a logit is not a finite number.

    Source: nnU-Net v2.8.1, section 2.16; plane by plane and the classes left out: our choice, the same labels.
    """
    shape = info.geometry.shape
    full = np.zeros(shape, dtype=np.uint8 if max(labels.values) < 256 else np.uint16)
    inside = tuple(slice(start, stop) for start, stop in info.box)
    cropped = full.transpose(info.axis_order)[inside]
    stack = np.zeros((labels.n_outputs if probabilities else 0, *shape), dtype=np.float16)
    stack_cropped = stack.transpose(0, *(axis + 1 for axis in info.axis_order))[:, *inside]
    if probabilities and not labels.has_regions:
        stack[0] = 1
    doubts, differences = (None, None) if uncertainty is None else uncertainty.cropped(info)
    plain = uncertainty.untempered.cropped(info)[0] if uncertainty is not None and uncertainty.untempered else None
    for index, pair in enumerate(_pairs(_checked(slabs), _Grid.of(info, spacing), labels.n_outputs)):
        plane = _painted(pair, labels) if labels.has_regions else _largest(pair)
        cropped[index] = plane.cpu().numpy()
        if not probabilities and uncertainty is None:
            continue
        logits = torch.stack([pair.logits(output) for output in range(labels.n_outputs)])
        values = probabilities_of(logits, 0, exclusive=not labels.has_regions, temperature=temperature)
        if probabilities:
            stack_cropped[:, index] = values.half().cpu().numpy()
        if uncertainty is not None and doubts is not None:
            uncertainty.add(doubts, index, values, plane)
            if uncertainty.untempered is not None and plain is not None:
                as_said = probabilities_of(logits, 0, exclusive=not labels.has_regions, temperature=1)
                uncertainty.untempered.add(plain, index, as_said, plane)
        if differences is not None:
            differences[index] = pair.logits(labels.n_outputs).cpu().numpy()
    return full, stack if probabilities else None


@dataclass(frozen=True)
class _Grid:
    """How the planes of the logits become those of the cropped image.

    Args:
        lower: for each plane of the result, the first of the planes of logits it lies between.
        upper: the second, the same where it lies on one.
        share: the weight of the second.
        plane: voxels of a plane of the result.
        nearest: the in-plane axis (0 or 1) that is not interpolated, or None.
    """

    lower: tuple[int, ...]
    upper: tuple[int, ...]
    share: tuple[float, ...]
    plane: tuple[int, int]
    nearest: int | None

    @classmethod
    def of(cls, info: CaseInfo, spacing: Vector) -> _Grid:
        separate = separate_axis(spacing, info.spacing)
        old, new = info.shape[0], info.cropped_shape[0]
        if separate == 0:
            index = tuple(nearest_index(old, new).tolist())
            lower, upper, share = index, index, (0.0,) * new
        else:
            lower, upper, share = _taps(old, new)
        nearest = separate - 1 if separate in (1, 2) else None
        return cls(lower, upper, share, info.cropped_shape[1:], nearest)

    def resize(self, plane: Tensor) -> Tensor:
        """One output's (Y, X) logits at the size of the result."""
        if tuple(plane.shape) == self.plane:
            return plane
        if self.nearest is not None:
            index = nearest_index(plane.shape[self.nearest], self.plane[self.nearest])
            plane = plane.index_select(self.nearest, torch.from_numpy(index).to(plane.device))
        return F.interpolate(plane[None, None], self.plane, mode="bilinear", align_corners=False)[0, 0]


class _Plane:
    """The channels of one plane, logits of the outputs first; one is resized when it is first asked for."""

    def __init__(self, channels: Tensor, grid: _Grid, n_outputs: int) -> None:
        self.raw, self.grid = channels, grid
        self.resized: dict[int, Tensor] = {}
        logits = channels[:n_outputs]
        highest = (logits - logits[:1]).amax((1, 2))
        self.over_background = highest + MARGIN * logits.abs().max()
        self.highest = logits.amax((1, 2))

    def logits(self, output: int) -> Tensor:
        if output not in self.resized:
            self.resized[output] = self.grid.resize(self.raw[output])
        return self.resized[output]


@dataclass(frozen=True)
class _Pair:
    """One plane of the result, between two planes of logits."""

    lower: _Plane
    upper: _Plane
    share: float

    def logits(self, output: int) -> Tensor:
        """(Y, X) logits of one output on the grid of the result."""
        if not self.share:
            return self.lower.logits(output)
        return torch.lerp(self.lower.logits(output), self.upper.logits(output), self.share)

    def rivals(self) -> list[int]:
        """The outputs besides the background that may be the largest somewhere."""
        over = torch.maximum(self.lower.over_background, self.upper.over_background)[1:] > 0
        return [index + 1 for index in torch.nonzero(over)[:, 0].tolist()]

    def positive(self) -> list[int]:
        """The outputs that may be above zero somewhere."""
        return torch.nonzero(torch.maximum(self.lower.highest, self.upper.highest) > 0)[:, 0].tolist()


def _taps(old: int, new: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    """The two old voxels each new one lies between, and the weight of the second, of linear interpolation."""
    weights = axis_matrix(old, new, 1)
    used = weights != 0
    lower = used.argmax(1)
    upper = old - 1 - used[:, ::-1].argmax(1)
    share = np.where(lower == upper, 0, weights[np.arange(new), upper])
    return tuple(lower.tolist()), tuple(upper.tolist()), tuple(share.tolist())


def _checked(slabs: Iterable[Tensor]) -> Iterator[Tensor]:
    for slab in slabs:
        if not torch.isfinite(slab.sum()):
            raise SelfcfgError("predict", "the network gave values that are not finite numbers", "compute in float32")
        yield slab


def _pairs(slabs: Iterable[Tensor], grid: _Grid, n_outputs: int) -> Iterator[_Pair]:
    """Yields the planes of the result in order, each as soon as the logits on both sides of it are there."""
    held: dict[int, _Plane] = {}
    arrived = done = 0
    for slab in slabs:
        for channels in slab:
            if arrived in grid.lower or arrived in grid.upper:
                held[arrived] = _Plane(channels.clone(), grid, n_outputs)
            while done < len(grid.upper) and grid.upper[done] <= arrived:
                yield _Pair(held[grid.lower[done]], held[grid.upper[done]], grid.share[done])
                done += 1
            arrived += 1
            needed = grid.lower[done] if done < len(grid.lower) else arrived
            held = {index: plane for index, plane in held.items() if index >= needed}


def _largest(pair: _Pair) -> Tensor:
    """The output with the largest logit at each voxel, the first of equals, (Y, X) int32."""
    best = pair.logits(0)
    labels = torch.zeros(best.shape, dtype=torch.int32, device=best.device)
    for output in pair.rivals():
        logits = pair.logits(output)
        labels = torch.where(logits > best, output, labels)
        best = torch.maximum(best, logits)
    return labels


def _painted(pair: _Pair, labels: LabelSchema) -> Tensor:
    """The values of the regions whose probability is above one half, later regions over earlier ones, (Y, X) int32."""
    painted = torch.zeros(pair.lower.grid.plane, dtype=torch.int32, device=pair.lower.raw.device)
    for output in pair.positive():
        painted = torch.where(pair.logits(output) > 0, labels.regions_class_order[output], painted)
    return painted
