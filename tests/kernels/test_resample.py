import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import resize

from selfcfg.kernels.resample import (
    axis_matrix,
    nearest_index,
    new_shape,
    resample_image,
    resample_labels,
    separate_axis,
)

SHAPES = [
    ((20, 40, 36), (31, 30, 50)),  # up, down, up
    ((20, 40, 36), (10, 77, 20)),
    ((24, 21, 30), (24, 33, 19)),  # one axis stays
    ((1, 40, 36), (1, 77, 20)),  # a picture
    ((9, 1, 36), (3, 1, 20)),  # one-voxel axes
    ((1, 12, 12), (4, 9, 20)),
    ((40, 11, 7), (1, 5, 13)),
]


def smooth(shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=shape)
    return (ndimage.gaussian_filter(noise, 1.0) * 10 + noise * 0.2).astype(np.float32)


def blobs(shape, n_labels, seed=0):
    """A label map from -1 on, with many borders and voxels where several labels meet."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in range(n_labels)]
    return (np.argmax(fields, 0) - 1).astype(np.int16)


def cubic(values, shape):
    return resize(values.astype(np.float64), shape, 3, mode="edge", clip=True, anti_aliasing=False)


def largest_indicator(labels, shape):
    """Each label's indicator resized on its own; the largest wins, then the nearest, then the lowest."""
    present = np.unique(labels)
    scores = np.stack(
        [resize((labels == label).astype(float), shape, 1, mode="edge", anti_aliasing=False) for label in present]
    )
    near = resize(labels.astype(float), shape, 0, mode="edge", anti_aliasing=False)
    tied = scores >= scores.max(0) - 1e-12
    lowest = present[tied.argmax(0)]
    is_near = (tied & (present.reshape(-1, *[1] * labels.ndim) == near)).any(0)
    return np.where(is_near, near, lowest)


def slice_by_slice(values, shape, axis, function):
    """Every slice on its own, then the nearest slice, by scipy's coordinates."""
    inner = tuple(size for index, size in enumerate(shape) if index != axis)
    slices = np.stack([function(part, inner) for part in np.moveaxis(values, axis, 0)])
    position = values.shape[axis] / shape[axis] * (np.arange(shape[axis]) + 0.5) - 0.5
    index = ndimage.map_coordinates(np.arange(len(slices)), [position], order=0, mode="nearest")
    return np.moveaxis(slices[index], 0, axis)


@pytest.mark.parametrize("old", [1, 2, 3, 13, 64])
@pytest.mark.parametrize("new", [1, 2, 7, 29, 64])
@pytest.mark.parametrize("order", [1, 3])
def test_axis_matrix_is_zooming_the_identity(old, new, order):
    zoomed = [
        ndimage.zoom(row, new / old, order=order, mode="nearest", grid_mode=True, output=np.float64)
        for row in np.eye(old)
    ]
    np.testing.assert_allclose(axis_matrix(old, new, order), np.stack(zoomed, 1), atol=1.2e-7)


def test_axis_matrix_of_another_order_is_refused():
    with pytest.raises(ValueError, match="order 2"):
        axis_matrix(4, 5, 2)


@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_image_equals_the_reference(old, new):
    image = np.stack([smooth(old), smooth(old, 1) * 300 + 40])
    result = resample_image(image, new, None)
    assert result.dtype == np.float32
    for channel, found in zip(image, result, strict=True):
        np.testing.assert_allclose(found, cubic(channel, new), atol=1e-5 * channel.std())


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_image_with_a_separate_axis_equals_the_reference(old, new, axis):
    image = smooth(old)[None]
    expected = slice_by_slice(image[0], new, axis, cubic)
    np.testing.assert_allclose(resample_image(image, new, axis)[0], expected, atol=1e-5 * image.std())


def test_linear_image():
    image, shape = smooth((9, 14, 11))[None], (13, 10, 20)
    expected = resize(image[0].astype(float), shape, 1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(resample_image(image, shape, None, order=1)[0], expected, atol=1e-5)


def test_overshoot_is_clipped_to_the_channel_or_to_each_slice():
    image = np.zeros((1, 4, 12, 12), np.float32)
    image[0, :, 4:8, 4:8] = np.arange(1, 5).reshape(4, 1, 1)
    whole = resample_image(image, (4, 29, 29), None)[0]
    single = resample_image(image, (4, 29, 29), 0)[0]
    assert (whole.min(), whole.max()) == (0, 4)
    assert [plane.max() for plane in single] == [1, 2, 3, 4]
    assert whole[0].max() > 1


def test_own_size_is_the_same_array():
    image, label = smooth((5, 6, 7))[None], blobs((5, 6, 7), 3)
    assert resample_image(image, (5, 6, 7), None) is image
    assert resample_labels(label, (5, 6, 7), 0) is label


def test_result_goes_where_it_is_wanted():
    image = smooth((5, 6, 7))[None]
    out = np.empty((1, 8, 5, 7), np.float32)
    assert resample_image(image, (8, 5, 7), None, out=out) is out
    np.testing.assert_array_equal(out, resample_image(image, (8, 5, 7), None))
    same = np.empty_like(image)
    resample_image(image, (5, 6, 7), None, out=same)
    np.testing.assert_array_equal(same, image)


def test_read_only_and_strided_images_are_taken():
    image = smooth((6, 8, 10))[None]
    expected = resample_image(np.ascontiguousarray(image.transpose(0, 3, 1, 2)), (7, 9, 5), None)
    image.setflags(write=False)
    np.testing.assert_array_equal(resample_image(image.transpose(0, 3, 1, 2), (7, 9, 5), None), expected)


def test_more_threads_change_nothing():
    image, label = smooth((70, 90, 40))[None], blobs((70, 90, 40), 4)
    alone = (
        [resample_image(image, (50, 60, 70), axis) for axis in (None, 0)],
        resample_labels(label, (150, 99, 80), None),
    )
    torch.set_num_threads(3)
    together = (
        [resample_image(image, (50, 60, 70), axis) for axis in (None, 0)],
        resample_labels(label, (150, 99, 80), None),
    )
    assert torch.get_num_threads() == 3
    for one, other in zip([*alone[0], alone[1]], [*together[0], together[1]], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("old", "new"), SHAPES)
@pytest.mark.parametrize("n_labels", [2, 6])
def test_labels_equal_the_reference(old, new, n_labels):
    label = blobs(old, n_labels)
    result = resample_labels(label, new, None)
    assert result.dtype == np.int16
    assert (result != largest_indicator(label, new)).mean() <= 1e-4


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_labels_with_a_separate_axis_equal_the_reference(old, new, axis):
    label = blobs(old, 5)
    expected = slice_by_slice(label, new, axis, largest_indicator)
    assert (resample_labels(label, new, axis) != expected).mean() <= 1e-4


def test_labels_in_noise_where_most_voxels_see_many():
    label = np.random.default_rng(2).integers(-1, 120, (18, 20, 22)).astype(np.int16)
    for shape in ((27, 31, 15), (9, 10, 11), (36, 40, 44)):
        assert (resample_labels(label, shape, None) != largest_indicator(label, shape)).mean() < 2e-4


def test_halving_gives_ties_to_the_nearest_voxel():
    label = np.array([0, 0, 0, 1, 2, 1, 1, 1], np.int16).reshape(1, 1, 8)
    np.testing.assert_array_equal(resample_labels(label, (1, 1, 4), None).ravel(), [0, 1, 1, 1])


def test_a_label_map_in_slabs_is_the_same(monkeypatch):
    label = blobs((30, 20, 25), 5)
    whole = resample_labels(label, (44, 31, 18), None)
    monkeypatch.setattr("selfcfg.kernels.resample._LABEL_SLAB", 1500)
    monkeypatch.setattr("selfcfg.kernels.resample._LABEL_CHUNK", 100)
    np.testing.assert_array_equal(resample_labels(label, (44, 31, 18), None), whole)


def test_new_shape_rounds_to_even_and_never_to_nothing():
    assert new_shape((10, 20, 1), (2.0, 1.0, 1.0), (1.0, 1.5, 9.0)) == (20, 13, 1)
    assert new_shape((5, 5, 5), (1.0, 1.0, 1.0), (2.0, 2.0, 10 / 7)) == (2, 2, 4)


@pytest.mark.parametrize(
    ("old", "new", "axis"),
    [
        ((1.0, 1.0, 1.0), (2.0, 1.0, 1.0), None),
        ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), None),  # exactly three times is not more than three times
        ((3.1, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 4.0), 2),
        ((1.0, 5.0, 1.0), (4.0, 1.0, 1.0), 1),
        ((0.24, 1.25, 1.25), (4.0, 1.0, 1.0), None),  # two coarsest axes
        ((999.0, 1.0, 1.0), (999.0, 2.0, 2.0), 0),
    ],
)
def test_separate_axis(old, new, axis):
    assert separate_axis(old, new) == axis


def test_nearest_index_is_that_of_scipy():
    for old, new in ((10, 5), (5, 10), (7, 3), (3, 7), (1, 4), (4, 1), (13, 200)):
        position = old / new * (np.arange(new) + 0.5) - 0.5
        expected = ndimage.map_coordinates(np.arange(old), [position], order=0, mode="nearest")
        np.testing.assert_array_equal(nearest_index(old, new), expected)
