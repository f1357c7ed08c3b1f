"""How good a prediction is likely to be: what is known of it without a reference, and what that was worth before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.uncertainty import Uncertainty
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.kernels.ridge import Ridge
from selfcfg.plan import Plan
from selfcfg.records import Record

QUALITY, CALIBRATION = "quality.json", "calibration.json"
"""Files of an experiment, beside its folds."""

FEATURES = (
    "expected_dice",
    "entropy_foreground",
    "entropy_border",
    "uncertain_share",
    "volume_distance",
    "components",
    "input_spacing",
    "input_extent",
    "input_intensity",
)
"""What is known of a case out of fold and of a new one; see `features_of`."""

UNSURE = 0.5
"""Entropy from which on a voxel counts as uncertain."""

Features = dict[str, float | None]
Labels = NDArray[np.integer[Any]]


class Expected(NamedTuple):
    """The Dice that a prediction is likely to have, and between what it lies."""

    dice: float
    low: float
    high: float


class Quality(Record):
    """What the features of a prediction were worth in cross-validation, and the linear prediction made of them.

    Args:
        confidence: of the interval.
        n_cases: it was fitted on.
        n_subjects: these belong to.
        mean_dice: of these.
        left_out: what was left out together: the cases of a fold and so its network, or of one fold a subject.
        error: mean absolute error on what was left out.
        error_of_mean: the same of the mean Dice of all others, told without looking at the case.
        p: of the error being no smaller, one-sided, permutation of subjects.
        rank_correlation: of what was predicted and the Dice, within a fold (Spearman, mean over folds weighted by
            subjects); None where it has none.
        rank_p: of it being no higher than 0, one-sided, permutation of subjects within folds.
        is_useful: whether the error was shown to be smaller; else no Dice is predicted.
        is_ranking: whether the rank correlation was shown to be above 0; else cases are not put in order by it.
        reason: in words.
        features: in the order of what follows, which is empty where there are too few subjects.
        mean: of each.
        scale: of each.
        coefficients: of each, standardised.
        intercept: what is predicted of means.
        penalty: of the coefficients.
        half_width: of the interval.
        weights: hash of the final weights of each fold that was looked at, by folder name.
    """

    confidence: float
    n_cases: int
    n_subjects: int
    mean_dice: float
    left_out: Literal["fold", "subject"]
    error: float | None = None
    error_of_mean: float | None = None
    p: float | None = None
    rank_correlation: float | None = None
    rank_p: float | None = None
    is_useful: bool
    is_ranking: bool = False
    reason: str
    features: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    coefficients: tuple[float, ...] = ()
    intercept: float = 0.0
    penalty: float = 0.0
    half_width: float = 0.0
    weights: dict[str, str]

    def expected(self, features: Mapping[str, float | None]) -> Expected | None:
        """What is to be expected of a case; None where features were not shown to tell more than the mean."""
        if not self.is_useful:
            return None
        dice = self._fitted(features)
        low, high = dice - self.half_width, dice + self.half_width
        return Expected(*(min(1.0, max(0.0, value)) for value in (dice, low, high)))

    def rank(self, features: Mapping[str, float | None]) -> float | None:
        """Higher for a case that is likely to be better; None where features were not shown to tell the order."""
        return self._fitted(features) if self.is_ranking or self.is_useful else None

    def _fitted(self, features: Mapping[str, float | None]) -> float:
        ridge = Ridge(
            np.array(self.mean), np.array(self.scale), np.array(self.coefficients), self.intercept, self.penalty
        )
        return float(ridge.predict(as_row(features, self.features))[0])


def as_row(features: Mapping[str, float | None], names: Sequence[str]) -> NDArray[np.float64]:
    """Features in order, (1, p); NaN where one is not known."""
    return np.array([[math.nan if (value := features.get(name)) is None else value for name in names]])


def features_of(
    labels: Labels, uncertainty: Uncertainty, geometry: Geometry, plan: Plan, facts: Fingerprint | None
) -> Features:
    """What is known of a prediction without a reference; None where something is not known.

    ``expected_dice``: mean over the predicted classes of `SoftVolume.expected_dice`; 0 without any.
    ``entropy_foreground``: mean entropy within the predicted foreground. ``entropy_border``: the same of the voxels at
    both sides of its border. ``uncertain_share``: log(1 + uncertain voxels by voxels of the foreground).
    ``volume_distance``: mean over classes of the absolute log(volume / median volume of the training cases), one voxel
    more each.
    ``components``: mean over the predicted classes of the log of the number of connected components.
    All are of the probabilities without a temperature, as they were fitted.
    ``disagreement_foreground``: where it was asked for; it is told, not used: out of fold there is but one network.

    Args:
        labels: (Z, Y, X) predicted.
        uncertainty: of the prediction.
        geometry: of the file.
        plan: the model's.
        facts: fingerprint of the training cases.
    """
    foreground = labels != 0
    said = uncertainty.untempered or uncertainty
    entropy, count = said.entropy, int(foreground.sum())
    border = _border(foreground)
    expected = [dice for one in said.volumes.values() if (dice := one.expected_dice) is not None]
    found: Features = {
        "expected_dice": fmean(expected) if expected else 0.0,
        "entropy_foreground": _mean(entropy, foreground),
        "entropy_border": _mean(entropy, border),
        "uncertain_share": math.log1p(int((entropy > UNSURE).sum()) / max(1, count)),
        "volume_distance": _volume_distance(said, geometry, plan, facts),
        "components": _components(labels, plan),
    }
    if uncertainty.disagreement is not None:
        found["disagreement_foreground"] = _mean(uncertainty.disagreement, foreground)
    return found


def input_features(
    image: NDArray[np.float32], labels: Labels, spacing: Sequence[float], shape: Sequence[int], plan: Plan
) -> Features:
    """How far an image is from the training cases.

    ``input_spacing`` and ``input_extent``: largest absolute log(value / median) along an axis. ``input_intensity``:
    largest distance over channels of the mean within the predicted foreground from that of training, in standard
    deviations.

    Args:
        image: (C, Z, Y, X) as in the file.
        labels: (Z, Y, X) predicted.
        spacing: of the file in mm, in the plan's axis order.
        shape: voxels without the empty margin, in the plan's axis order.
        plan: the model's, with medians and foreground intensities of the training cases.
    """
    spacings, extents = [], []
    for own, size, usual, common in zip(spacing, shape, plan.median_spacing, plan.median_shape, strict=True):
        if FLAT_SPACING not in (own, usual):
            spacings.append(abs(math.log(own / usual)))
            extents.append(abs(math.log(own * size / (usual * common))))
    foreground, distances = labels != 0, []
    for channel, known in zip(image, plan.intensities, strict=True):
        if known.std > 0 and (mean := _mean(channel, foreground)) is not None:
            distances.append(abs(mean - known.mean) / known.std)
    return {
        "input_spacing": max(spacings, default=None),
        "input_extent": max(extents, default=None),
        "input_intensity": max(distances, default=None),
    }


def _mean(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> float | None:
    return float(values[mask].mean(dtype=np.float64)) if mask.any() else None


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The voxels that share a face with one on the other side of the mask's border."""
    found = np.zeros_like(mask)
    for axis in range(mask.ndim):
        before = tuple(slice(None, -1) if one == axis else slice(None) for one in range(mask.ndim))
        after = tuple(slice(1, None) if one == axis else slice(None) for one in range(mask.ndim))
        differ = mask[before] != mask[after]
        found[before] |= differ
        found[after] |= differ
    return found


def _volume_distance(
    uncertainty: Uncertainty, geometry: Geometry, plan: Plan, facts: Fingerprint | None
) -> float | None:
    cases = [case for case in facts.cases if case.voxels] if facts else []
    voxel, found = math.prod(geometry.spacing), []
    for name, values in plan.labels.targets.items():
        volumes = [sum(case.voxels.get(value, 0) for value in values) * math.prod(case.spacing) for case in cases]
        if there := [volume for volume in volumes if volume]:
            own = uncertainty.volumes[name].voxels * voxel
            found.append(abs(math.log((own + voxel) / (median(there) + voxel))))
    return fmean(found) if found else None


def _components(labels: Labels, plan: Plan) -> float | None:
    from scipy.ndimage import find_objects, label  # noqa: PLC0415 - the import takes a third of a second

    found = []
    for values in plan.labels.targets.values():
        mask = np.isin(labels, values)
        boxes = find_objects(mask.astype(np.uint8))
        if boxes:
            found.append(math.log(label(mask[boxes[0]], np.ones((3,) * mask.ndim))[1]))
    return fmean(found) if found else None
