from __future__ import annotations

import numpy as np
import pytest

from selfcfg.kernels.overlap import counts, joint_histogram


def test_the_histogram_counts_pairs_worked_by_hand() -> None:
    reference = np.array([[0, 0, 1], [1, 2, 2]], dtype=np.int16)
    prediction = np.array([[0, 1, 1], [0, 2, 1]], dtype=np.uint8)
    expected = [[1, 1, 0], [1, 1, 0], [0, 1, 1]]
    assert joint_histogram(reference, prediction, 3).tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_the_histogram_is_that_of_numpy_on_more_voxels_than_a_block(dtype: type) -> None:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 5, (3, 500, 451)).astype(dtype)
    prediction = rng.integers(0, 5, reference.shape).astype(dtype)[::1]
    expected, _, _ = np.histogram2d(reference.ravel(), prediction.ravel(), bins=np.arange(6) - 0.5)
    np.testing.assert_array_equal(joint_histogram(reference, prediction, 5), expected)
    np.testing.assert_array_equal(
        joint_histogram(reference.transpose(2, 0, 1), prediction.transpose(2, 0, 1), 5), expected
    )


@pytest.mark.parametrize("bad", [-1, 4])
def test_values_out_of_range_and_different_shapes_are_refused(bad: int) -> None:
    reference = np.zeros((4, 4), dtype=np.int16)
    wrong = reference.copy()
    wrong[2, 2] = bad
    with pytest.raises(ValueError, match="reference holds"):
        joint_histogram(wrong, reference, 4)
    with pytest.raises(ValueError, match="prediction holds"):
        joint_histogram(reference, wrong, 4)
    with pytest.raises(ValueError, match="shape"):
        joint_histogram(reference, reference[:3], 4)


@pytest.mark.parametrize("values", [(1,), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("ignore", [None, 4])
def test_counts_are_those_of_masks(values: tuple[int, ...], ignore: int | None) -> None:
    rng = np.random.default_rng(1)
    reference = rng.integers(0, 5, (12, 13, 14))
    prediction = rng.integers(0, 4, reference.shape)
    found = counts(joint_histogram(reference, prediction, 5), values, ignore)
    seen = np.ones(reference.shape, dtype=bool) if ignore is None else reference != ignore
    a, b = np.isin(reference, values)[seen], np.isin(prediction, values)[seen]
    assert (found.tp, found.fp, found.fn, found.tn) == (
        (a & b).sum(),
        (~a & b).sum(),
        (a & ~b).sum(),
        (~a & ~b).sum(),
    )
    assert found.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert found.iou == pytest.approx((a & b).sum() / (a | b).sum())


def test_a_class_in_neither_map_has_no_score_and_one_in_either_map_scores_zero() -> None:
    empty, full = np.zeros(8, dtype=int), np.ones(8, dtype=int)
    nowhere = counts(joint_histogram(empty, empty, 2), (1,))
    assert nowhere.dice is None
    assert nowhere.iou is None
    for reference, prediction in ((empty, full), (full, empty)):
        found = counts(joint_histogram(reference, prediction, 2), (1,))
        assert found.dice == 0
        assert found.iou == 0
