"""The scores of one predicted label map against its reference, by class and region."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from selfcfg.geometry import Geometry
from selfcfg.kernels.overlap import Counts, counts, joint_histogram
from selfcfg.kernels.surface import diagonal, surface_distances
from selfcfg.labels import LabelSchema
from selfcfg.records import Record

Empty = Literal["exclude", "score"]
"""What happens to a class that neither mask of a case holds: it is left out, or scored as found perfectly."""

Labels = npt.NDArray[np.integer]
Box = tuple[slice, ...]


class ClassScores(Record):
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
    """

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


def score_case(
    reference: Labels,
    prediction: Labels,
    geometry: Geometry,
    labels: LabelSchema,
    *,
    nsd_tolerance: float = 2.0,
    empty: Empty = "exclude",
) -> dict[str, ClassScores]:
    """The scores of one case by class or region.

    Args:
        reference: (Z, Y, X) declared values.
        prediction: (Z, Y, X) declared values other than the ignore value.
        geometry: of both.
        labels: meaning of the values.
        nsd_tolerance: mm.
        empty: see `evaluate`.

    Raises:
        ValueError: the shapes differ, or a value is not declared.

    Source: the metrics themselves in `selfcfg.kernels.overlap` and `selfcfg.kernels.surface`. Empty masks: a class in
        neither mask says nothing about how well it is found and is left out; one that is missed or invented altogether
        is as far away as it can be, the diagonal, as in the BraTS challenges (373.13 mm there).
    """
    histogram = joint_histogram(reference, prediction, len(labels.values))
    ignored = None if labels.ignore is None or not histogram[labels.ignore].any() else reference == labels.ignore
    boxes = _value_boxes(reference, prediction, labels.foreground_values)
    scores = {}
    for name, values in labels.targets.items():
        found = counts(histogram, values, labels.ignore)
        hd95, nsd = None, None
        if found.n_reference and found.n_prediction:
            box = _joint_box([boxes[value] for value in values if value in boxes], reference.shape)
            masks = (np.isin(reference[box], values), np.isin(prediction[box], values))
            distances = surface_distances(*masks, geometry.spacing, None if ignored is None else ignored[box])
            if distances is not None:
                hd95, nsd = distances.hausdorff(), distances.surface_dice(nsd_tolerance)
        elif found.n_reference or found.n_prediction:
            hd95, nsd = diagonal(geometry.shape, geometry.spacing), 0.0
        scores[name] = _class_scores(found, hd95, nsd, geometry, empty)
    return scores


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
    found: Counts, hd95: float | None, nsd: float | None, geometry: Geometry, empty: Empty
) -> ClassScores:
    unit = geometry.voxel_volume * (1.0 if geometry.dimensions == 2 else 1e-3)
    reference, prediction = found.n_reference * unit, found.n_prediction * unit
    error: float | None = abs(prediction - reference)
    relative = error / reference if error is not None and reference else None
    dice, iou = found.dice, found.iou
    if dice is None:
        perfect = empty == "score"
        dice, iou, nsd = (1.0, 1.0, 1.0) if perfect else (None, None, None)
        hd95, error, relative = (0.0, 0.0, 0.0) if perfect else (None, None, None)
    return ClassScores(
        dice=dice,
        iou=iou,
        hd95=hd95,
        nsd=nsd,
        volume_ref=reference,
        volume_pred=prediction,
        volume_error=error,
        volume_error_relative=relative,
        tp=found.tp,
        fp=found.fp,
        fn=found.fn,
        tn=found.tn,
    )
