"""How thick structures are, beside shapes whose thickness is known."""

from __future__ import annotations

import numpy as np
import pytest

from selfcfg.kernels.thickness import structures


def test_a_box_is_as_thick_as_its_sides():
    label = np.zeros((8, 9, 10), np.int16)
    label[1:3, 2:7, 0:10] = 4
    assert structures(label).thickness == {4: (2.0, 5.0, 10.0)}


def test_a_ball_has_two_thirds_of_its_diameter():
    z, y, x = np.indices((60, 60, 60)) - 29.5
    label = (z**2 + y**2 + x**2 <= 24**2).astype(np.int16)
    assert structures(label).thickness[1] == pytest.approx((32, 32, 32), rel=0.02)


def test_touching_values_are_told_apart():
    assert structures(np.array([[[1, 1, 2, 2, 2, 1]]])).thickness == {1: (1.0, 1.0, 1.5), 2: (1.0, 1.0, 3.0)}


def test_stray_voxels_hardly_count():
    label = np.zeros((40, 40, 40), np.int16)
    label[10:30, 10:30, 10:30] = 1
    label[::8, ::8, ::8] = 1
    assert min(structures(label).thickness[1]) > 14


def test_without_structures_there_is_nothing():
    assert structures(np.zeros((3, 4, 5), np.int16)) == ({0: 60}, {})


def test_voxels_are_counted():
    label = np.random.default_rng(0).integers(0, 5, (6, 7, 8)).astype(np.uint8)
    label[label == 3], label[2:4] = 4, 0
    values, counts = np.unique(label, return_counts=True)
    assert structures(label).voxels == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert structures(np.full((2, 2, 2), 2)).voxels == {2: 8}
