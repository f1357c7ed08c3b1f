from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from selfcfg.kernels.centreline import centreline, centreline_dice


def tube(shape: tuple[int, ...], *spans: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


def test_a_tube_cut_short_worked_by_hand() -> None:
    whole, half = tube((9, 9, 40), (3, 6), (3, 6), (0, 40)), tube((9, 9, 40), (3, 6), (3, 6), (0, 20))
    line = centreline(whole)
    assert line.sum() == np.count_nonzero(line[4, 4]) >= 38
    inside = np.count_nonzero(line & half) / np.count_nonzero(line)
    assert centreline_dice(whole, half) == pytest.approx(2 * inside / (1 + inside))
    assert centreline_dice(half, whole) == pytest.approx(2 * inside / (1 + inside))


def test_a_thinner_tube_has_the_same_course_though_dice_is_low() -> None:
    thick, thin = tube((1, 21, 60), (0, 1), (6, 15), (2, 58)), tube((1, 21, 60), (0, 1), (10, 11), (2, 58))
    assert centreline_dice(thick, thin) > 0.95
    assert 2 * np.count_nonzero(thick & thin) / (thick.sum() + thin.sum()) == pytest.approx(0.2)


def test_every_component_keeps_a_centreline_inside_it() -> None:
    rng = np.random.default_rng(0)
    for shape in ((5, 6, 7), (1, 12, 13), (1, 1, 20)):
        for share in (0.05, 0.3, 0.6, 1.0):
            mask = rng.random(shape) < share
            line = centreline(mask)
            assert not (line & ~mask).any()
            parts, n_parts = label(mask, np.ones((3, 3, 3)))
            assert set(np.unique(parts[line])) == set(range(1, n_parts + 1))


def test_a_small_even_block_that_thinning_wears_away_counts_whole() -> None:
    block = tube((6, 6, 6), (2, 4), (2, 4), (2, 4))
    np.testing.assert_array_equal(centreline(block), block)
    assert centreline_dice(block, block) == 1


def test_empty_masks() -> None:
    full, empty = tube((5, 5, 5), (1, 4), (1, 4), (0, 5)), np.zeros((5, 5, 5), dtype=bool)
    assert centreline_dice(empty, empty) is None
    assert centreline_dice(full, empty) == 0
    assert centreline_dice(empty, full) == 0
    far = tube((5, 5, 5), (0, 1), (0, 1), (0, 5))
    assert centreline_dice(full, far) == 0
