"""Our metrics beside those of other people's packages, on the same random masks.

MONAI takes voxels for a surface, as we do, so its numbers are ours. surface-distance (the authors' own code of the NSD)
takes the elements of a surface between the voxels, each weighted by its area: its numbers differ by what a voxel is
large, and where both definitions have one answer they are equal.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import surface_distance
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from monai.metrics.panoptic_quality import compute_panoptic_quality
from scipy.ndimage import gaussian_filter, label

from selfcfg.engine.scoring.extras import lesion_scores
from selfcfg.engine.scoring.scores import ClassScores, score_case
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.kernels.lesions import lesions
from selfcfg.labels import LabelSchema

LABELS = LabelSchema(labels={"background": 0, "organ": 1})
SHAPES = [((9, 20, 18), (3.1, 0.7, 1.2)), ((1, 30, 28), (FLAT_SPACING, 0.5, 0.8)), ((1, 30, 28), (FLAT_SPACING, 1, 1))]


def blob(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    noise = gaussian_filter(rng.normal(size=shape), [0 if size == 1 else 1.5 for size in shape])
    return noise > np.quantile(noise, 1 - share)


def ours(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...], tolerance: float = 1.0) -> ClassScores:
    dimensions = 2 if a.shape[0] == 1 else 3
    place = Geometry(shape=a.shape, spacing=spacing, dimensions=dimensions)
    return score_case(a.astype(np.uint8), b.astype(np.uint8), place, LABELS, nsd_tolerance=tolerance)["organ"]


def batch(mask: np.ndarray) -> torch.Tensor:
    """A mask (Z, Y, X) as MONAI takes it: (1, 1, [Z,] Y, X)."""
    return torch.from_numpy(mask[0] if mask.shape[0] == 1 else mask)[None, None].float()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_monai_says_the_same(shape: tuple[int, ...], spacing: tuple[float, ...], share: float) -> None:
    rng = np.random.default_rng(round(100 * share))
    a, b = blob(rng, shape, share), blob(rng, shape, share)
    found = ours(a, b, spacing)
    here = list(spacing if shape[0] > 1 else spacing[1:])
    y, y_pred = batch(a), batch(b)
    assert found.dice == pytest.approx(compute_dice(y_pred, y).item(), abs=1e-6)
    assert found.iou == pytest.approx(compute_iou(y_pred, y).item(), abs=1e-6)
    for metric, percentile in (("hd", None), ("hd95", 95)):
        theirs = compute_hausdorff_distance(
            y_pred, y, include_background=True, percentile=percentile, directed=False, spacing=here
        )
        assert found.value(metric) == pytest.approx(theirs.item(), rel=1e-5)
    theirs = compute_average_surface_distance(y_pred, y, include_background=True, symmetric=True, spacing=here)
    assert found.assd == pytest.approx(theirs.item(), rel=1e-5)
    theirs = compute_surface_dice(y_pred, y, class_thresholds=[1.0], include_background=True, spacing=here)
    assert found.nsd == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_is_monais(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=(40, 44)), 1.5)
    a = noise > np.quantile(noise, 0.8)
    b = noise + gaussian_filter(rng.normal(size=noise.shape), 1.5) * 0.2 > np.quantile(noise, 0.8)
    instances = torch.stack([torch.from_numpy(label(mask, np.ones((3, 3)))[0]).int() for mask in (b, a)])
    found = lesion_scores(lesions(a[None], b[None]), 0.5)
    assert 0 < found["panoptic_quality"] < 1
    for metric, name in (
        ("panoptic_quality", "pq"),
        ("segmentation_quality", "sq"),
        ("recognition_quality", "rq"),
        ("lesion_f1", "rq"),
    ):
        theirs = compute_panoptic_quality(instances[0], instances[1], metric_name=name, match_iou_threshold=0.5)
        assert found[metric] == pytest.approx(theirs.item(), abs=1e-4), metric


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
@pytest.mark.parametrize(("shape", "spacing"), SHAPES[:1])
def test_surface_distance_differs_by_a_voxel_at_most(
    shape: tuple[int, ...], spacing: tuple[float, ...], share: float
) -> None:
    """Each voxel of a surface has an element of theirs within half a voxel's diagonal, and the other way round."""
    rng = np.random.default_rng(round(100 * share))
    a, b = blob(rng, shape, share), blob(rng, shape, share)
    voxel = math.hypot(*spacing)
    found = ours(a, b, spacing)
    assert found.dice == pytest.approx(surface_distance.compute_dice_coefficient(a, b))
    theirs = surface_distance.compute_surface_distances(a, b, spacing)
    assert abs(found.hd - surface_distance.compute_robust_hausdorff(theirs, 100)) <= voxel
    assert surface_distance.compute_surface_dice_at_tolerance(theirs, found.hd + voxel) == 1
    assert ours(a, b, spacing, tolerance=found.hd).nsd == 1


def test_a_moved_box_is_as_far_in_surface_distance() -> None:
    a = np.zeros((16, 20, 24), dtype=bool)
    a[3:9, 4:12, 5:15] = True
    spacing = (2.5, 0.8, 1.1)
    for axis, step in ((0, 3), (1, 2), (2, -3)):
        b = np.roll(a, step, axis)
        theirs = surface_distance.compute_surface_distances(a, b, spacing)
        moved = abs(step) * spacing[axis]
        assert surface_distance.compute_robust_hausdorff(theirs, 100) == pytest.approx(moved)
        assert ours(a, b, spacing).hd == pytest.approx(moved)
        assert ours(b, a, spacing).hd == pytest.approx(moved)
