"""Metrics that are computed when they are asked for: boundary IoU, centreline Dice, lesions, calibration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, Self

from pydantic import Field, field_validator

from selfcfg.engine.scoring.metrics import ALWAYS
from selfcfg.errors import UsageError, nearest
from selfcfg.kernels.centreline import centreline_dice
from selfcfg.kernels.lesions import Lesions, Neighbours, lesions
from selfcfg.kernels.morphology import Mask
from selfcfg.kernels.surface import boundary_iou
from selfcfg.records import Record

Extra = Literal["boundary_iou", "centreline_dice", "lesions", "calibration"]
Values = dict[str, int | float | None]

LESION_COUNTS = ("lesions_ref", "lesions_pred", "lesion_tp", "lesion_fp", "lesion_fn")
LESION_SCORES = (
    "lesion_sensitivity",
    "lesion_precision",
    "lesion_f1",
    "panoptic_quality",
    "segmentation_quality",
    "recognition_quality",
)
AVERAGED: dict[Extra, tuple[str, ...]] = {
    "boundary_iou": ("boundary_iou",),
    "centreline_dice": ("centreline_dice",),
    "lesions": (*LESION_COUNTS, *LESION_SCORES),
    "calibration": ("ece", "brier", "nll"),
}
"""The numbers that each of them is made of; counts are averaged over all cases."""

MARGIN = 5.0
"""mm (pixels for pictures) around reference and prediction within which voxels count for calibration (our choice)."""

OF_PROBABILITIES: frozenset[Extra] = frozenset({"calibration"})
"""Those that label maps alone do not tell, so that "all" leaves them out."""

_ALSO_CALLED: dict[str, Extra] = {"cldice": "centreline_dice", "pq": "lesions"}
_IOU = re.compile(r"iou:(0?\.\d+|0)")


class Extras(Record):
    """What is computed besides the metrics that always are, and how.

    Args:
        metrics: which.
        boundary_width: for the boundary IoU, how far into a mask its boundary reaches: mm, pixels for pictures; None:
            the tolerance of the NSD.
        match: when two lesions are the same: ``iou:T``, their IoU is above T and each has one partner; ``overlap``,
            they share a voxel.
        neighbours: how much two voxels of one lesion touch at least.
        calibration_margin: how far from reference and prediction voxels count for calibration: mm, pixels for
            pictures.
    """

    metrics: tuple[Extra, ...] = ()
    boundary_width: float | None = Field(default=None, ge=0)
    match: str = "iou:0.5"
    neighbours: Neighbours = "corners"
    calibration_margin: float = Field(default=MARGIN, ge=0)

    @field_validator("match")
    @classmethod
    def _is_a_match(cls, match: str) -> str:
        if match != "overlap" and not _IOU.fullmatch(match):
            raise ValueError("must be 'overlap' or 'iou:T' with T from 0 to below 1, such as iou:0.5")
        return match

    @property
    def threshold(self) -> float | None:
        """Of the IoU of two lesions that are the same; None where an overlap is enough."""
        return None if self.match == "overlap" else float(self.match[4:])

    @property
    def how(self) -> str:
        """How they are computed, in words."""
        width = "the NSD's tolerance" if self.boundary_width is None else f"{self.boundary_width:g}"
        far = f", calibration margin {self.calibration_margin:g}" if "calibration" in self.metrics else ""
        return f"boundary width {width}, match {self.match}, neighbours by {self.neighbours}{far}"

    @classmethod
    def asked(
        cls,
        metrics: tuple[Extra, ...],
        boundary_width: float | None,
        match: str,
        neighbours: str,
        calibration_margin: float = MARGIN,
    ) -> Self:
        """The extras that options of the command line ask for.

        Raises:
            UsageError: an option has a value that it cannot have.
        """
        options = {
            "boundary_width": boundary_width,
            "match": match,
            "neighbours": neighbours,
            "calibration_margin": calibration_margin,
        }
        made, problems = cls.attempt({"metrics": metrics, **options})
        if made is None:
            place = str(problems[0].place[0])
            raise UsageError(f"--{place.replace('_', '-')} {options[place]}", problems[0].what)
        return made


NO_EXTRAS = Extras()


def asked_for(names: Iterable[str]) -> tuple[Extra, ...]:
    """Which metrics of this module the names of metrics, or "all" that label maps tell, ask for.

    Args:
        names: of metrics or of the numbers they are made of.

    Raises:
        UsageError: a name is not known.
    """
    found: set[Extra] = set()
    for name in names:
        plain = name.lower().replace("-", "_")
        if plain == "all":
            found |= set(AVERAGED) - OF_PROBABILITIES
        elif kind := _ALSO_CALLED.get(plain):
            found.add(kind)
        elif makes := [kind for kind, made in AVERAGED.items() if plain == kind or plain in made]:
            found.update(makes)
        elif plain not in ALWAYS:
            known = (*ALWAYS, *AVERAGED, "all")
            raise UsageError("--metrics", f"there is no metric '{name}'", nearest(plain, known))
    return tuple(kind for kind in AVERAGED if kind in found)


def extra_scores(
    masks: tuple[Mask, Mask, Mask | None] | None,
    spacing: Sequence[float],
    extras: Extras,
    nsd_tolerance: float,
    *,
    perfect: bool,
) -> Values:
    """The metrics that are asked for, of one class of one case.

    Args:
        masks: (Z, Y, X) of reference, prediction, and what is not annotated, if anything; None where neither of the
            first two holds a voxel.
        spacing: mm along (z, y, x).
        extras: what is asked for.
        nsd_tolerance: mm, stands in for `Extras.boundary_width`.
        perfect: whether a class that neither mask holds is scored as found perfectly, or left out.
    """
    if masks is None:
        whole = 1.0 if perfect else None
        names = [name for kind in extras.metrics if kind not in OF_PROBABILITIES for name in AVERAGED[kind]]
        return {name: 0 if name in LESION_COUNTS else whole for name in names}
    reference, prediction, ignored = masks
    found: Values = {}
    if "boundary_iou" in extras.metrics:
        width = nsd_tolerance if extras.boundary_width is None else extras.boundary_width
        found["boundary_iou"] = boundary_iou(reference, prediction, spacing, width, ignored)
    if ignored is not None:
        reference, prediction = reference & ~ignored, prediction & ~ignored
    if "centreline_dice" in extras.metrics:
        found["centreline_dice"] = centreline_dice(reference, prediction)
    if "lesions" in extras.metrics:
        found |= lesion_scores(lesions(reference, prediction, extras.neighbours), extras.threshold)
    return found


def lesion_scores(found: Lesions, threshold: float | None) -> Values:
    """Counts and scores of the lesions of one class of one case; None where a score is not defined.

    Args:
        found: the lesions, at least one.
        threshold: of the IoU of two that are the same; None where an overlap is enough. Panoptic quality is of pairs,
            and takes 0.5 then.

    Source: sensitivity over lesions of the reference, precision over those of the prediction and F1 as their harmonic
        mean: Commowick et al. 2018, "Objective evaluation of multiple sclerosis lesion segmentation"; any overlap finds
        a lesion, in place of their shares of its volume (our choice). Pairs and PQ = SQ x RQ: Kirillov et al.
        2019, "Panoptic Segmentation", eq. 1.
    """
    total = found.n_reference + found.n_prediction
    ious = found.matched(0.5 if threshold is None else threshold)
    tp, right = found.touched() if threshold is None else (len(ious), len(ious))
    fp = found.n_prediction - right
    return {
        "lesions_ref": found.n_reference,
        "lesions_pred": found.n_prediction,
        "lesion_tp": tp,
        "lesion_fp": fp,
        "lesion_fn": found.n_reference - tp,
        **detection(found.n_reference, found.n_prediction, tp, fp),
        "panoptic_quality": 2 * float(ious.sum()) / total,
        "segmentation_quality": float(ious.mean()) if len(ious) else None,
        "recognition_quality": 2 * len(ious) / total,
    }


def detection(n_reference: int, n_prediction: int, tp: int, fp: int) -> dict[str, float | None]:
    """Sensitivity, precision and F1 of lesions; None where there are none to be found, or none were."""
    sensitivity = tp / n_reference if n_reference else None
    precision = (n_prediction - fp) / n_prediction if n_prediction else None
    f1: float | None = None
    if n_reference or n_prediction:
        both = (sensitivity or 0.0) + (precision or 0.0)
        f1 = 2 * (sensitivity or 0.0) * (precision or 0.0) / both if both else 0.0
    return {"lesion_sensitivity": sensitivity, "lesion_precision": precision, "lesion_f1": f1}


class LesionTotals(Record):
    """The lesions of one class in all cases together; a score is None where it is not defined.

    Args:
        lesions_ref: lesions of the references.
        lesions_pred: lesions of the predictions.
        lesion_tp: lesions of the references that were found.
        lesion_fp: lesions of the predictions that are none.
        lesion_fn: lesions of the references that were missed.
        false_positives_a_case: `lesion_fp` by the number of cases.
        lesion_sensitivity: found ones among those of the references.
        lesion_precision: right ones among those of the predictions.
        lesion_f1: harmonic mean of the two.
        panoptic_quality: of all pairs together, as its source computes it.
    """

    lesions_ref: int
    lesions_pred: int
    lesion_tp: int
    lesion_fp: int
    lesion_fn: int
    false_positives_a_case: float
    lesion_sensitivity: float | None
    lesion_precision: float | None
    lesion_f1: float | None
    panoptic_quality: float | None


def lesion_totals(cases: Sequence[Values]) -> LesionTotals:
    """The lesions of one class in all cases together, from its scores in each."""
    counts = {name: sum(int(case[name] or 0) for case in cases) for name in LESION_COUNTS}
    total = counts["lesions_ref"] + counts["lesions_pred"]
    # PQ of a case is twice the sum of its pairs' IoU by the number of its lesions
    sums = [
        (case["panoptic_quality"] or 0.0) * ((case["lesions_ref"] or 0) + (case["lesions_pred"] or 0)) for case in cases
    ]
    scores = detection(counts["lesions_ref"], counts["lesions_pred"], counts["lesion_tp"], counts["lesion_fp"])
    scores["panoptic_quality"] = sum(sums) / total if total else None
    return LesionTotals.model_validate({**counts, **scores, "false_positives_a_case": counts["lesion_fp"] / len(cases)})
