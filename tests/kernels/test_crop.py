import numpy as np
import pytest
from scipy import ndimage

from selfcfg.kernels.crop import nonzero_box


def reference(image):
    """As nnU-Net does it: the holes of the whole mask filled, then the box of it."""
    mask = ndimage.binary_fill_holes((image != 0).any(0))
    where = np.argwhere(mask)
    box = tuple(slice(low, high + 1) for low, high in zip(where.min(0), where.max(0), strict=True))
    return mask[box], box


def ball(shape, radius):
    grid = np.indices(shape) - np.reshape([(size - 1) / 2 for size in shape], (3, 1, 1, 1))
    return (grid**2).sum(0) < radius**2


@pytest.mark.parametrize("seed", range(6))
def test_mask_and_box_equal_filling_the_whole_volume(seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((2, 14, 17, 19), np.float32)
    smooth = ndimage.gaussian_filter(rng.normal(size=image.shape[1:]), 1.2)
    image[0, 3:12, 2:15, 4:18] = np.where(smooth > 0, 1.5, 0)[3:12, 2:15, 4:18]
    image[1, 5:8, 5:9, 6:8] = -2
    expected_mask, expected_box = reference(image)
    mask, box = nonzero_box(image)
    assert box == expected_box
    np.testing.assert_array_equal(mask, expected_mask)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.6])
def test_scattered_zeros(share):
    rng = np.random.default_rng(3)
    image = np.where(rng.random((1, 30, 34, 38)) < share, 0, -1000).astype(np.int16)
    image[0, 10:20, 10:20, 10:20] = 0
    image[0, 0, :, :3] = -5
    expected_mask, expected_box = reference(image)
    mask, box = nonzero_box(image)
    assert box == expected_box
    np.testing.assert_array_equal(mask, expected_mask)


def test_a_winding_tunnel_is_outside_to_its_end():
    image = np.ones((1, 9, 41, 41), np.float32)
    for row in range(1, 40, 2):
        image[0, 4, row, 1:40] = 0
        image[0, 4, row : row + 3, 39 if row % 4 == 1 else 1] = 0
    image[0, 4, 1, 0] = 0
    image[0, 6, 3, 3] = 0
    mask, _ = nonzero_box(image)
    np.testing.assert_array_equal(mask, reference(image)[0])
    assert mask[6, 3, 3]
    assert not mask[4, 39, 20]


def test_a_hole_counts_as_inside_but_a_tunnel_to_the_face_does_not():
    image = ball((15, 15, 15), 6).astype(np.float32)[None]
    image[0, 7, 7, 7] = 0
    mask, _ = nonzero_box(image)
    assert mask[mask.shape[0] // 2, mask.shape[1] // 2, mask.shape[2] // 2]
    image[0, 7, 7, :8] = 0
    mask, _ = nonzero_box(image)
    assert not mask[mask.shape[0] // 2, mask.shape[1] // 2, mask.shape[2] // 2]


def test_no_mask_where_nothing_is_zero_or_only_holes_are():
    image = np.full((1, 4, 5, 6), -1000, np.int16)
    assert nonzero_box(image) == (None, (slice(0, 4), slice(0, 5), slice(0, 6)))
    image[0, 2, 2, 2] = 0
    assert nonzero_box(image)[0] is None


def test_zero_border_is_cut_off():
    image = np.zeros((1, 8, 9, 10), np.float32)
    image[0, 2:5, 3:9, 0:4] = 7
    mask, box = nonzero_box(image)
    assert mask is None
    assert box == (slice(2, 5), slice(3, 9), slice(0, 4))


def test_one_voxel_and_a_flat_image():
    image = np.zeros((1, 1, 6, 7), np.uint8)
    image[0, 0, 4, 2] = 1
    assert nonzero_box(image) == (None, (slice(0, 1), slice(4, 5), slice(2, 3)))


def test_an_image_of_zeros_gives_an_empty_mask_of_the_whole():
    mask, box = nonzero_box(np.zeros((2, 3, 4, 5), np.float32))
    assert mask.shape == (3, 4, 5)
    assert not mask.any()
    assert box == (slice(0, 3), slice(0, 4), slice(0, 5))


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 3, 2, 1), (0, 1, 3, 2)])
def test_a_transposed_view_is_taken_as_it_is(order):
    image = np.zeros((1, 26, 27, 28), np.float32)
    image[0, 1:25, 2:26, 3:27] = ball((24, 24, 24), 20) & (np.random.default_rng(0).random((24, 24, 24)) > 0.01)
    mask, box = nonzero_box(image.transpose(order))
    expected_mask, expected_box = reference(image.transpose(order))
    assert box == expected_box
    np.testing.assert_array_equal(mask, expected_mask)
