"""How unsure a prediction is, voxel by voxel on the grid of the image's file, and what that says of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfcfg.engine.data.store import CaseInfo
from selfcfg.geometry import Geometry
from selfcfg.image_files import ending_in
from selfcfg.io import write_image
from selfcfg.kernels.uncertainty import entropy
from selfcfg.labels import LabelSchema

FOLDER = "uncertainty"
"""Folder of the maps beside the label maps, so that they are not taken for such."""

MAPS = ("entropy", "disagreement")

Wanted = Literal["entropy", "all"]
"""Of an image: only how unsure the prediction is, or also how far networks and mirrored copies disagree."""

Map = NDArray[np.float32]


@dataclass(frozen=True)
class SoftVolume:
    """What the probabilities of one class or region add up to.

    Args:
        voxels: that are predicted to belong to it.
        inside: sum of its probabilities over these.
        total: sum of its probabilities over the whole image.
    """

    voxels: int
    inside: float
    total: float

    @property
    def expected_dice(self) -> float | None:
        """The Dice that its probabilities promise, 2 `inside` / (`voxels` + `total`); None where it is not predicted.

        Source: our choice; the ratio of expectations in place of the expectation of the ratio.
        """
        return 2 * self.inside / (self.voxels + self.total) if self.voxels else None


@dataclass(frozen=True)
class Uncertainty:
    """How unsure a prediction is.

    Args:
        entropy: (Z, Y, X) of its probabilities, from 0 (sure) to 1 (all classes are as likely, all regions as likely as
            not); 0 outside of the box that is not empty, which is background.
        disagreement: (Z, Y, X) how far the networks and mirrored copies disagree, see
            `selfcfg.engine.prediction.sliding.slide`; on the scale of the entropy. None where it was not asked for.
        volumes: by class or region.
        untempered: the same of probabilities without a temperature, which is what quality is told by; None where there
            is none.
    """

    entropy: Map
    disagreement: Map | None
    volumes: Mapping[str, SoftVolume]
    untempered: Uncertainty | None = None

    def maps(self) -> dict[str, Map]:
        """The maps by name."""
        found = {"entropy": self.entropy}
        return found if self.disagreement is None else {**found, "disagreement": self.disagreement}

    def write(self, label: Path, case: str, geometry: Geometry) -> dict[str, int]:
        """Writes the maps beside a case's label map and gives their bytes, by name."""
        sizes = {}
        for name, values in self.maps().items():
            file = map_file(label, case, name)
            write_image(file, values[np.newaxis], geometry)
            sizes[name] = file.stat().st_size
        return sizes


def map_file(label: Path, case: str, name: str) -> Path:
    """``uncertainty/<case>_<map>`` beside a label map; of the same format, but TIFF for pictures of 8 bits."""
    ending = ending_in(label.name) or ".nii.gz"
    return label.parent / FOLDER / f"{case}_{name}{'.tif' if ending in ('.png', '.bmp') else ending}"


def uncertainty_of(
    probabilities: NDArray[np.floating[Any]], prediction: NDArray[np.integer], labels: LabelSchema
) -> Uncertainty:
    """How unsure a prediction is, from its probabilities (n_outputs, Z, Y, X) and its label map (Z, Y, X)."""
    found = Gathering(prediction.shape, labels)
    for index in range(len(prediction)):
        plane = torch.from_numpy(np.ascontiguousarray(prediction[index]).astype(np.int32))
        values = torch.from_numpy(np.ascontiguousarray(probabilities[:, index], dtype=np.float32))
        found.add(found.entropy, index, values, plane)
    return found.finished()


def uncertainty_of_mean(
    probabilities: NDArray[np.floating[Any]],
    prediction: NDArray[np.integer],
    labels: LabelSchema,
    members: Sequence[tuple[float, Uncertainty]],
) -> Uncertainty:
    """How unsure the weighted mean of several models is, and how far all their networks and mirrored copies disagree.

    The disagreement is the entropy of the mean less the weighted mean of what each network by itself is unsure of,
    which for a member is about its entropy less its disagreement: its entropy is of averaged logits, its disagreement
    of averaged probabilities. What this carries beyond 0 and 1 is cut off.

    Args:
        probabilities: (n_outputs, Z, Y, X), the mean.
        prediction: (Z, Y, X) what is made of it.
        labels: meaning of the outputs.
        members: the weight of each and how unsure it is; weights add up to 1.
    """
    found = uncertainty_of(probabilities, prediction, labels)
    if len(members) == 1:
        return replace(found, disagreement=members[0][1].disagreement)
    alone = np.zeros_like(found.entropy)
    for weight, one in members:
        if one.disagreement is None:
            return found
        alone += weight * (one.entropy - one.disagreement)
    return replace(found, disagreement=np.clip(found.entropy - alone, 0, 1))


class Gathering:
    """The uncertainty of an image, plane by plane.

    Args:
        shape: (Z, Y, X) of the file.
        labels: meaning of the outputs.
        disagreement: whether it is told, too.
        untempered: takes in the same planes without a temperature; None: there is none.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        labels: LabelSchema,
        *,
        disagreement: bool = False,
        untempered: Gathering | None = None,
    ) -> None:
        self.untempered = untempered
        self.entropy = np.zeros(shape, np.float32)
        self.disagreement = np.zeros(shape, np.float32) if disagreement else None
        self._labels = labels
        self._sums = {name: np.zeros(3) for name in labels.targets}

    def cropped(self, info: CaseInfo) -> tuple[Map, Map | None]:
        """Both maps as the plan sees them: in its order of axes, within the box that is not empty."""
        inside = tuple(slice(start, stop) for start, stop in info.box)
        own = None if self.disagreement is None else self.disagreement.transpose(info.axis_order)[inside]
        return self.entropy.transpose(info.axis_order)[inside], own

    def add(self, target: Map, index: int, probabilities: Tensor, plane: Tensor) -> None:
        """Takes in one plane.

        Args:
            target: where its entropy goes: all planes, or those of `cropped`.
            index: of the plane in these.
            probabilities: (n_outputs, Y, X).
            plane: (Y, X) predicted values.
        """
        labels, exclusive = self._labels, not self._labels.has_regions
        target[index] = entropy(probabilities, 0, exclusive=exclusive).clamp(0, 1).cpu().numpy()
        for output, (name, values) in enumerate(labels.targets.items()):
            own = probabilities[values[0] if exclusive else output]
            mask = torch.isin(plane, torch.tensor(values, device=plane.device, dtype=plane.dtype))
            inside = torch.where(mask, own, 0).sum(dtype=torch.float64)
            self._sums[name] += (mask.sum().item(), inside.item(), own.sum(dtype=torch.float64).item())

    def finished(self) -> Uncertainty:
        """The uncertainty of the planes that were taken in."""
        volumes = {name: SoftVolume(round(voxels), own, total) for name, (voxels, own, total) in self._sums.items()}
        plain = None if self.untempered is None else self.untempered.finished()
        return Uncertainty(self.entropy, self.disagreement, volumes, plain)
