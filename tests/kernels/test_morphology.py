"""Balls on masks, against scipy with the ball as its structure."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from selfcfg.kernels.morphology import Operation, apply_operation, dilate, extent

SHAPES = pytest.mark.parametrize("shape", [(30, 41), (12, 17, 21)])


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5) > 0.15)


def ball(radius: float, dimensions: int) -> np.ndarray:
    reach = int(radius)
    grid = np.mgrid[tuple(slice(-reach, reach + 1) for _ in range(dimensions))]
    return np.asarray((grid**2).sum(0) <= radius**2)


@SHAPES
@pytest.mark.parametrize("radius", [0.5, 1, 1.5, 2.83, 4, 8])
def test_dilation_reaches_every_voxel_within_the_radius(shape: tuple[int, ...], radius: float) -> None:
    mask = blobs(shape)
    np.testing.assert_array_equal(
        dilate(mask, radius), ndimage.binary_dilation(mask, structure=ball(radius, mask.ndim))
    )


@SHAPES
@pytest.mark.parametrize("radius", [0.0, 0.9, 2.5, 7.0])
def test_dilation_in_mm_reaches_every_voxel_within_the_radius(shape: tuple[int, ...], radius: float) -> None:
    mask, spacing = blobs(shape), (2.3, 0.7, 1.1)[: len(shape)]
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
    np.testing.assert_array_equal(dilate(mask, radius, spacing), distance <= radius)


@SHAPES
@pytest.mark.parametrize("operation", ["erode", "close", "open"])
def test_the_other_operations_are_made_of_it(shape: tuple[int, ...], operation: Operation) -> None:
    mask, structure = blobs(shape), ball(2, len(shape))

    def grown(found: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.binary_dilation(found, structure=structure))

    def eroded(found: np.ndarray) -> np.ndarray:
        # outside of the array there is neither mask nor anything that eats it
        return np.asarray(ndimage.binary_erosion(found, structure=structure, border_value=1))

    expected = {"erode": eroded(mask), "close": eroded(grown(mask)), "open": grown(eroded(mask))}
    np.testing.assert_array_equal(apply_operation(mask, operation, 2), expected[operation])


def test_the_extent_of_a_mask() -> None:
    mask = np.zeros((9, 9), bool)
    assert extent(mask, 1) is None
    mask[3, 5:9] = True
    box = extent(mask, 2)
    assert box is not None
    assert mask[box].sum() == mask.sum() and mask[box].shape == (5, 6)
