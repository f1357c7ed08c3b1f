"""The scores of one predicted label map against its reference, by class and region."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from selfcfg.engine.scoring.extras import AVERAGED, NO_EXTRAS, OF_PROBABILITIES, Extras, extra_scores
from selfcfg.engine.scoring.metrics import ALWAYS
from selfcfg.geometry import Geometry
from selfcfg.kernels.morphology import Mask
from selfcfg.kernels.overlap import Counts, counts, joint_histogram
from selfcfg.kernels.surface import SurfaceDistances, diagonal, surface_distances
from selfcfg.labels import LabelSchema
from selfcfg.records import Record, Sparing

Empty = Literal["exclude", "score"]
"""What happens to a class that neither mask of a case holds: it is left out, or scored as found perfectly."""

Labels = npt.NDArray[np.integer]
Box = tuple[slice, ...]


class ClassScores(Sparing):
    """How well one class or region of one case was found; None where a metric is not defined.

    Args:
        dice: 2 TP / (2 TP + FP + FN).
        iou: TP / (TP + FP + FN).
        hd95: the larger of the two directed 95th percentiles of the surface distances, mm; the image's diagonal where
            only one of the two masks is empty.
        nsd: share of the surface voxels of both masks within the tolerance of the other surface; 0 where only one of
            the two masks is empty.
        volume_ref: volume of the reference, ml (area in mm2 for a 2D image).
        volume_pred: volume of the prediction, in the same unit.
        volume_error: absolute difference of the two, in the same unit.
        volume_error_relative: `volume_error` by `volume_ref`; None where the reference is empty.
        tp: voxels of the class in both.
        fp: voxels of the class in the prediction only.
        fn: voxels of the class in the reference only.
        tn: voxels of the class in neither.
        hd: the larger of the two directed maxima of the surface distances, mm; else as `hd95`.
        assd: mean of the surface distances of both ways, mm; else as `hd95`.
        extra: what else was asked for, by name.
    """

    spared: ClassVar[frozenset[str]] = frozenset({"extra"})

    dice: float | None
    iou: float | None
    hd95: float | None
    nsd: float | None
    volume_ref: float
    volume_pred: float
    volume_error: float | None
    volume_error_relative: float | None
    tp: int
    fp: int
    fn: int
    tn: int
    hd: float | None = None
    assd: float | None = None
    extra: dict[str, int | float | None] = {}

    def value(self, metric: str) -> int | float | None:
        """A metric or count by its name; None where it is not defined, or was not asked for."""
        if metric in ClassScores.model_fields and metric != "extra":
            found: int | float | None = getattr(self, metric)
            return found
        return self.extra.get(metric)


class CaseScores(Record):
    """The scores of one case by class or region."""

    case: str
    reference: Path
    prediction: Path
    scores: dict[str, ClassScores]

    def mean(self, metric: str) -> float | None:
        """The mean of a metric over the classes for which it is defined; None where there is none."""
        known = [value for scores in self.scores.values() if (value := scores.value(metric)) is not None]
        return fmean(known) if known else None


@dataclass(frozen=True)
class Scoring:
    """How cases are scored.

    Args:
        nsd_tolerance: mm; pixels for pictures.
        empty: whether a class absent from both masks of a case is left out or scored as found perfectly.
        extras: what is computed besides what always is.
    """

    nsd_tolerance: float = 2.0
    empty: Empty = "exclude"
    extras: Extras = NO_EXTRAS

    @property
    def averaged(self) -> tuple[str, ...]:
        """The names of the metrics that are averaged, those that were asked for at the end."""
        return (*ALWAYS, *(name for kind in self.extras.metrics for name in AVERAGED[kind]))

    @property
    def of_label_maps(self) -> Scoring:
        """The same without what only probabilities tell."""
        kept = tuple(kind for kind in self.extras.metrics if kind not in OF_PROBABILITIES)
        return replace(self, extras=self.extras.model_copy(update={"metrics": kept}))


def score_case(
    reference: Labels,
    prediction: Labels,
    geometry: Geometry,
    labels: LabelSchema,
    *,
    nsd_tolerance: float = 2.0,
    empty: Empty = "exclude",
    extras: Extras = NO_EXTRAS,
) -> dict[str, ClassScores]:
    """The scores of one case by class or region.

    Args:
        reference: (Z, Y, X) declared values.
        prediction: (Z, Y, X) declared values other than the ignore value.
        geometry: of both.
        labels: meaning of the values.
        nsd_tolerance: mm.
        empty: see `evaluate`.
        extras: metrics that are asked for.

    Raises:
        ValueError: the shapes differ, or a value is not declared.

    Source: the metrics themselves in `selfcfg.kernels.overlap`, `selfcfg.kernels.surface` and
        `selfcfg.engine.scoring.extras`. Empty masks: a class in neither mask says nothing about how well it is found
        and is left out; one that is missed or invented altogether is as far away as it can be, the diagonal, as in the
        BraTS challenges (373.13 mm there).
    """
    histogram = joint_histogram(reference, prediction, len(labels.values))
    ignored = None if labels.ignore is None or not histogram[labels.ignore].any() else reference == labels.ignore
    boxes = _value_boxes(reference, prediction, labels.foreground_values)
    farthest = diagonal(geometry.shape, geometry.spacing)
    scores = {}
    for name, values in labels.targets.items():
        found = counts(histogram, values, labels.ignore)
        surface = _Surface() if found.dice is None else _Surface(farthest, 0.0, farthest, farthest)
        masks: tuple[Mask, Mask, Mask | None] | None = None
        if (found.n_reference and found.n_prediction) or (extras.metrics and found.dice is not None):
            box = _joint_box([boxes[value] for value in values if value in boxes], reference.shape)
            first, second = np.isin(reference[box], values), np.isin(prediction[box], values)
            masks = (first, second, None if ignored is None else ignored[box])
        if masks and found.n_reference and found.n_prediction:
            surface = _Surface.of(surface_distances(*masks[:2], geometry.spacing, masks[2]), nsd_tolerance)
        extra = extra_scores(masks, geometry.spacing, extras, nsd_tolerance, perfect=empty == "score")
        scores[name] = _class_scores(found, surface, geometry, empty, extra)
    return scores


@dataclass(frozen=True)
class _Surface:
    """The metrics of the surfaces of one class."""

    hd95: float | None = None
    nsd: float | None = None
    hd: float | None = None
    assd: float | None = None

    @classmethod
    def of(cls, distances: SurfaceDistances | None, tolerance: float) -> _Surface:
        if distances is None:
            return cls()
        return cls(
            distances.hausdorff(), distances.surface_dice(tolerance), distances.hausdorff(100), distances.average()
        )


def _value_boxes(reference: Labels, prediction: Labels, values: Iterable[int]) -> dict[int, Box]:
    """For each value present in either map, the box that holds all its voxels in both."""
    from scipy.ndimage import find_objects  # noqa: PLC0415 - the import takes a third of a second

    found: dict[int, Box] = {}
    for maps in (reference, prediction):
        for index, box in enumerate(find_objects(maps.astype(np.int32, copy=False), max_label=max(values, default=0))):
            if box is not None:
                value = index + 1
                found[value] = _union([found[value], box]) if value in found else box
    return found


def _union(boxes: list[Box]) -> Box:
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )


def _joint_box(boxes: list[Box], shape: tuple[int, ...]) -> Box:
    """The box around all boxes and one voxel more, inside the image."""
    joint = _union(boxes)
    return tuple(
        slice(max(side.start - 1, 0), min(side.stop + 1, size)) for side, size in zip(joint, shape, strict=True)
    )


def _class_scores(
    found: Counts, surface: _Surface, geometry: Geometry, empty: Empty, extra: dict[str, int | float | None]
) -> ClassScores:
    unit = geometry.voxel_volume * (1.0 if geometry.dimensions == 2 else 1e-3)
    reference, prediction = found.n_reference * unit, found.n_prediction * unit
    error: float | None = abs(prediction - reference)
    relative = error / reference if error is not None and reference else None
    dice, iou = found.dice, found.iou
    if dice is None:
        perfect = empty == "score"
        dice, iou, error, relative = (1.0, 1.0, 0.0, 0.0) if perfect else (None, None, None, None)
        surface = _Surface(0.0, 1.0, 0.0, 0.0) if perfect else _Surface()
    return ClassScores(
        dice=dice,
        iou=iou,
        hd95=surface.hd95,
        nsd=surface.nsd,
        volume_ref=reference,
        volume_pred=prediction,
        volume_error=error,
        volume_error_relative=relative,
        tp=found.tp,
        fp=found.fp,
        fn=found.fn,
        tn=found.tn,
        hd=surface.hd,
        assd=surface.assd,
        extra=extra,
    )
