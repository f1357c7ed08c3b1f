"""Rotation and scaling against scipy's interpolation and values worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from selfcfg.kernels.spatial import Affine, rotation_and_scale, warp

CASES = [
    ((9, 12, 10), (0.3, -0.2, 0.5), 1.0),
    ((9, 12, 10), (0.5, 0.4, -0.5), 1.35),
    ((8, 7, 6), (0.0, 0.0, 0.0), 0.7),
    ((16, 12), (2.9,), 1.2),
    ((15, 9), (-0.7,), 0.8),
]


def coordinates(affine: Affine) -> np.ndarray:
    """Where each voxel of the patch is sampled, counted in the box: straight from the definition."""
    centre = (np.array(affine.patch_size) - 1) / 2
    start = np.array([first for first, _ in affine.source_box])
    voxels = np.indices(affine.patch_size).reshape(len(centre), -1) - centre[:, None]
    return np.array(affine.matrix) @ voxels + (centre - start)[:, None]


def box_shape(affine: Affine) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in affine.source_box)


def by_scipy(image: np.ndarray, affine: Affine) -> np.ndarray:
    moved = map_coordinates(image.astype(np.float64), coordinates(affine), order=1, mode="nearest")
    return moved.reshape(affine.patch_size)


@pytest.mark.parametrize(("patch", "angles", "scale"), CASES)
def test_images_are_sampled_linearly(patch: tuple[int, ...], angles: tuple[float, ...], scale: float) -> None:
    affine = Affine(rotation_and_scale(angles, scale), patch)
    image = np.random.default_rng(0).standard_normal((2, *box_shape(affine))).astype(np.float32)
    moved, none = warp(torch.from_numpy(image), None, affine)
    assert none is None and moved.dtype == torch.float32
    np.testing.assert_allclose(moved, np.stack([by_scipy(channel, affine) for channel in image]), atol=1e-4)


@pytest.mark.parametrize(("patch", "angles", "scale"), CASES)
@pytest.mark.parametrize("smooth", [0.0, 1.5])
def test_labels_are_the_largest_one_hot_share(
    patch: tuple[int, ...], angles: tuple[float, ...], scale: float, smooth: float
) -> None:
    affine = Affine(rotation_and_scale(angles, scale), patch)
    noise = np.random.default_rng(1).standard_normal(box_shape(affine))
    field = gaussian_filter(noise, smooth) if smooth else noise
    label = (np.digitize(field, np.quantile(field, [0.2, 0.5, 0.6, 0.8])) - 1).astype(np.int16)
    image = torch.zeros((1, *label.shape))
    _, moved = warp(image, torch.from_numpy(label), affine)
    values = np.unique(label)
    shares = np.stack([by_scipy(label == value, affine) for value in values])
    ordered = np.sort(shares, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-4
    assert clear.mean() > 0.99 and moved is not None and moved.dtype == torch.int16
    np.testing.assert_array_equal(moved.numpy()[clear], values[shares.argmax(0)][clear])


def test_an_equal_share_goes_by_place_not_by_value() -> None:
    # Scale 2 samples a patch of two voxels at -0.5 and 1.5: half way between the first two voxels of its box and
    # between the last two.
    affine = Affine(((2.0,),), (2,))
    assert affine.source_box == ((-1, 3),)
    for labels in ([3, 5, 5, 3], [5, 3, 3, 5]):
        _, moved = warp(torch.zeros(1, 4), torch.tensor(labels, dtype=torch.int16), affine)
        assert moved is not None and moved.tolist() == [labels[0], labels[2]]


def test_a_label_can_win_although_another_is_nearer() -> None:
    # Scale 0.2 samples the patch of 2 x 2 at 0.4 and 0.6. At (0.4, 0.4) the shares are 0.36 for the corner 1, which is
    # the nearest, 0.24 + 0.24 for the corners 2, and 0.16 for the corner 3; likewise at the other three voxels.
    affine = Affine(((0.2, 0.0), (0.0, 0.2)), (2, 2))
    assert affine.source_box == ((0, 2), (0, 2))
    _, moved = warp(torch.zeros(1, 2, 2), torch.tensor([[1, 2], [2, 3]], dtype=torch.int16), affine)
    assert moved is not None and (moved == 2).all()


def test_a_quarter_turn_is_exact() -> None:
    # The matrix of +90 degrees sends the step (row, column) to (-column, row): the last column shows the first row.
    affine = Affine(rotation_and_scale((math.pi / 2,), 1.0), (5, 5))
    picture = torch.arange(25.0).view(5, 5)
    box = torch.zeros(1, *box_shape(affine))
    low = -affine.source_box[0][0]
    box[0, low : low + 5, low : low + 5] = picture
    moved, _ = warp(box, None, affine)
    np.testing.assert_allclose(moved[0], np.rot90(picture, -1), atol=1e-4)


def test_leading_axes_are_carried_along() -> None:
    affine = Affine(rotation_and_scale((0.6,), 1.1), (8, 10))
    image = torch.randn(2, 3, *box_shape(affine))
    label = torch.randint(-1, 3, (3, *box_shape(affine)), dtype=torch.int16)
    moved, moved_label = warp(image, label, affine)
    assert moved.shape == (2, 3, 8, 10) and moved_label is not None and moved_label.shape == (3, 8, 10)
    for z in range(3):
        alone, alone_label = warp(image[:, z], label[z], affine)
        assert torch.equal(moved[:, z], alone) and alone_label is not None
        assert torch.equal(moved_label[z], alone_label)


def test_the_box_holds_every_corner_that_is_sampled() -> None:
    rng = np.random.default_rng(2)
    for dimensions, _ in itertools.product((2, 3), range(50)):
        patch = tuple(int(size) for size in rng.integers(1, 12, dimensions))
        angles = rng.uniform(-math.pi, math.pi, 3 if dimensions == 3 else 1)
        affine = Affine(rotation_and_scale(angles, rng.uniform(0.5, 2)), patch)
        places, shape = coordinates(affine), np.array(box_shape(affine))[:, None]
        assert (places >= 0).all() and (np.floor(places) + 1 <= shape - 1).all()
        assert (places.min(1) < 2).all() and (places.max(1) > shape[:, 0] - 3).all()


def test_another_box_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs a box of \(5, 6\), got \(5, 5\)"):
        warp(torch.zeros(1, 5, 5), None, Affine(((1.0, 0.0), (0.0, 1.0)), (3, 4)))


def test_slabs_do_not_show() -> None:
    affine = Affine(rotation_and_scale((0.1, 0.2, 0.3), 1.0), (7, 100, 90))
    image = np.random.default_rng(0).standard_normal(box_shape(affine)).astype(np.float32)
    moved, _ = warp(torch.from_numpy(image)[None], None, affine)
    np.testing.assert_allclose(moved[0], by_scipy(image, affine), atol=2e-4)


@pytest.mark.gpu
def test_an_accelerator_gives_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    affine = Affine(rotation_and_scale((0.1, 0.2, 0.3), 1.2), (20, 24, 28))
    image, label = torch.randn(2, *box_shape(affine)), torch.randint(-1, 4, box_shape(affine), dtype=torch.int16)
    here, here_label = warp(image, label, affine)
    there, there_label = warp(image.cuda(), label.cuda(), affine)
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=0)
    assert here_label is not None and there_label is not None
    assert (there_label.cpu() == here_label).float().mean() > 0.999
