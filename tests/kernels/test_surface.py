from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter, generate_binary_structure

from selfcfg.kernels.surface import boundary_iou, diagonal, surface_distances


def blob(rng: np.random.Generator, shape: tuple[int, ...], share: float = 0.3) -> np.ndarray:
    noise = gaussian_filter(rng.normal(size=shape), 1.2)
    return noise > np.quantile(noise, 1 - share)


def brute_surface(mask: np.ndarray) -> np.ndarray:
    found = []
    for place in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                other = place.copy()
                other[axis] += step
                inside = 0 <= other[axis] < mask.shape[axis]
                if mask.shape[axis] > 1 and not (inside and mask[tuple(other)]):
                    found.append(tuple(place))
    return np.array(sorted(set(found)))


def brute_distances(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    difference = (a[:, None, :] - b[None, :, :]) * np.asarray(spacing)
    return np.sqrt((difference**2).sum(-1)).min(1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("shape", "spacing"), [((7, 14, 12), (5.0, 0.7, 1.1)), ((1, 20, 22), (999.0, 0.5, 0.25))])
def test_distances_are_those_of_brute_force_on_random_masks(
    shape: tuple[int, ...], spacing: tuple[float, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = blob(rng, shape), blob(rng, shape)
    found = surface_distances(a, b, spacing)
    assert found is not None
    points_a, points_b = brute_surface(a), brute_surface(b)
    expected_ab, expected_ba = (
        brute_distances(points_a, points_b, spacing),
        brute_distances(points_b, points_a, spacing),
    )
    np.testing.assert_allclose(found.to_prediction, expected_ab, atol=1e-9)
    np.testing.assert_allclose(found.to_reference, expected_ba, atol=1e-9)
    assert found.hausdorff() == pytest.approx(max(np.percentile(expected_ab, 95), np.percentile(expected_ba, 95)))
    assert found.hausdorff(100) == pytest.approx(max(expected_ab.max(), expected_ba.max()))
    assert found.average() == pytest.approx(np.concatenate([expected_ab, expected_ba]).mean())
    near = (expected_ab <= 1.0).sum() + (expected_ba <= 1.0).sum()
    assert found.surface_dice(1.0) == pytest.approx(near / (len(points_a) + len(points_b)))


def test_distances_are_those_of_a_distance_transform() -> None:
    rng = np.random.default_rng(5)
    shape, spacing = (20, 40, 36), (3.0, 0.8, 0.9)
    a, b = blob(rng, shape, 0.1), blob(rng, shape, 0.1)
    edges = [mask & ~binary_erosion(mask, generate_binary_structure(3, 1)) for mask in (a, b)]
    found = surface_distances(a, b, spacing)
    assert found is not None
    np.testing.assert_allclose(
        found.to_prediction, distance_transform_edt(~edges[1], sampling=spacing)[edges[0]], atol=1e-9
    )
    np.testing.assert_allclose(
        found.to_reference, distance_transform_edt(~edges[0], sampling=spacing)[edges[1]], atol=1e-9
    )


def test_two_voxels_worked_by_hand() -> None:
    a, b = np.zeros((2, 6, 6), dtype=bool), np.zeros((2, 6, 6), dtype=bool)
    a[0, 1, 1] = True
    b[1, 1, 5] = True
    found = surface_distances(a, b, (3.0, 1.0, 1.0))
    assert found is not None
    assert found.hausdorff() == pytest.approx(5.0)
    assert found.surface_dice(4.999) == 0
    assert found.surface_dice(5.0) == 1


def test_a_shifted_box_worked_by_hand() -> None:
    a = np.zeros((12, 12, 12), dtype=bool)
    a[2:6, 2:6, 2:6] = True
    b = np.roll(a, 2, axis=0)
    found = surface_distances(a, b, (2.0, 1.0, 1.0))
    assert found is not None
    assert found.to_prediction.size == 4**3 - 2**3
    # The outer face of each, 16 of its 56 voxels, lies 2 voxels of 2 mm beyond the other's.
    assert found.hausdorff() == pytest.approx(4.0)
    assert found.hausdorff(50) < 4.0


def test_hd95_is_the_larger_directed_percentile_and_not_that_of_all_distances() -> None:
    a, b = np.zeros((1, 4, 400), dtype=bool), np.zeros((1, 4, 400), dtype=bool)
    a[0, 1, :200] = True
    b[0, 1, :200] = True
    b[0, 1, 390:392] = True
    b[0, 3, 380:392] = True
    found = surface_distances(a, b, (999.0, 1.0, 1.0))
    assert found is not None
    assert np.percentile(found.to_prediction, 95) == 0
    assert found.hausdorff() == pytest.approx(np.percentile(found.to_reference, 95))
    assert found.hausdorff() > 180
    assert np.percentile(np.concatenate([found.to_prediction, found.to_reference]), 95) < found.hausdorff()


def test_the_same_mask_has_no_distance_and_the_image_edge_is_a_surface() -> None:
    mask = np.ones((3, 4, 5), dtype=bool)
    found = surface_distances(mask, mask, (1.0, 1.0, 1.0))
    assert found is not None
    assert found.to_prediction.size == 3 * 4 * 5 - 1 * 2 * 3
    assert found.hausdorff() == 0
    assert found.surface_dice(0.0) == 1


def test_an_empty_mask_has_no_distances() -> None:
    full, empty = np.ones((3, 3, 3), dtype=bool), np.zeros((3, 3, 3), dtype=bool)
    assert surface_distances(full, empty, (1, 1, 1)) is None
    assert surface_distances(empty, full, (1, 1, 1)) is None
    assert surface_distances(empty, empty, (1, 1, 1)) is None


def test_a_contact_with_ignored_voxels_is_no_surface() -> None:
    reference, prediction = np.zeros((1, 5, 20), dtype=bool), np.zeros((1, 5, 20), dtype=bool)
    ignored = np.zeros((1, 5, 20), dtype=bool)
    ignored[..., 10:] = True
    reference[0, 1:4, 4:10] = True
    prediction[0, 1:4, 4:18] = True
    found = surface_distances(reference, prediction, (999.0, 1.0, 1.0), ignored)
    assert found is not None
    assert found.to_prediction.size == 3 + 2 * 5
    assert found.hausdorff(100) == 0
    prediction[0, 1:4, 4] = False
    found = surface_distances(reference, prediction, (999.0, 1.0, 1.0), ignored)
    assert found is not None
    assert found.hausdorff(100) == 1


def test_the_diagonal_leaves_flat_axes_out() -> None:
    assert diagonal((10, 30, 40), (2.0, 1.0, 1.0)) == pytest.approx(math.sqrt(20**2 + 30**2 + 40**2))
    assert diagonal((1, 30, 40), (999.0, 1.0, 1.0)) == pytest.approx(50)


def brute_band(mask: np.ndarray, spacing: tuple[float, ...], width: float) -> set[tuple[int, ...]]:
    if not mask.any():
        return set()
    places = np.argwhere(mask)
    near = brute_distances(places, brute_surface(mask), spacing) <= width
    return {tuple(place) for place in places[near]}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize(("shape", "spacing"), [((7, 10, 9), (2.9, 0.7, 1.1)), ((1, 20, 22), (999.0, 1.0, 1.0))])
def test_the_boundary_iou_is_that_of_brute_force(
    shape: tuple[int, ...], spacing: tuple[float, ...], share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = blob(rng, shape, share), blob(rng, shape, 0.6)
    for width in (0.0, 1.5, 3.3):
        first, second = brute_band(a, spacing, width), brute_band(b, spacing, width)
        assert boundary_iou(a, b, spacing, width) == pytest.approx(len(first & second) / len(first | second))
        assert boundary_iou(b, a, spacing, width) == boundary_iou(a, b, spacing, width)


def test_a_boundary_as_wide_as_the_mask_is_the_mask() -> None:
    rng = np.random.default_rng(1)
    a, b = blob(rng, (6, 9, 8)), blob(rng, (6, 9, 8))
    iou = np.count_nonzero(a & b) / np.count_nonzero(a | b)
    assert boundary_iou(a, b, (1.0, 1.0, 1.0), 50.0) == pytest.approx(iou)


def test_boundary_iou_without_a_surface() -> None:
    full, empty = np.ones((3, 3, 3), dtype=bool), np.zeros((3, 3, 3), dtype=bool)
    assert boundary_iou(empty, empty, (1, 1, 1), 1.0) is None
    assert boundary_iou(full, empty, (1, 1, 1), 1.0) == 0
    ignored = np.zeros((1, 3, 8), dtype=bool)
    ignored[..., 4:] = True
    mask = np.zeros((1, 3, 8), dtype=bool)
    mask[0, 1, 2:4] = True
    beyond = mask.copy()
    beyond[0, 1, 4:7] = True
    assert boundary_iou(mask, beyond, (999, 1, 1), 1.0, ignored) == 1
