import numpy as np
import pytest

from selfcfg.kernels.locations import FRACTION, MINIMUM, sample_locations

TARGETS = {"liver": (1,), "organs": (1, 2), "tumour": (3,), "absent": (9,), "absent region": (8, 9)}


@pytest.fixture(scope="module")
def label():
    rng = np.random.default_rng(1)
    label = np.full((40, 150, 160), -1, np.int16)
    label[2:38] = 0
    label[5:30, 10:140, 10:150] = 1
    label[8:20, 20:80, 30:90][rng.random((12, 60, 60)) < 0.3] = 2
    label[11, 50, 40:60] = 3
    return label


def test_samples_are_voxels_of_the_target_sorted_and_distinct(label):
    for name, found in sample_locations(label, TARGETS, "case").items():
        assert found.dtype == np.uint32
        assert np.isin(label.ravel()[found], TARGETS[name]).all()
        assert (np.diff(found.astype(np.int64)) > 0).all()


def test_ten_thousand_or_a_hundredth_or_all(label):
    found = sample_locations(label, {**TARGETS, "annotated": (0, 1, 2, 3)}, "case")
    assert (len(found["tumour"]), len(found["absent"]), len(found["absent region"])) == (20, 0, 0)
    assert len(found["liver"]) == MINIMUM
    everything = np.zeros((120, 100, 100), np.int16)
    assert len(sample_locations(everything, {"all": (0,)}, "case")["all"]) == 1_200_000 * FRACTION


def test_every_voxel_of_a_region_is_as_likely(label):
    block = label[8:20, 20:80, 30:90].copy()
    counts = np.zeros(block.size, int)
    for seed in range(40):
        counts[sample_locations(block, {"both": (2, 1)}, str(seed))["both"]] += 1
    expected = 40 * MINIMUM / np.isin(block, (1, 2)).sum()
    assert expected < 20
    for value in (1, 2):
        assert counts[block.ravel() == value].mean() == pytest.approx(expected, rel=0.02)
    assert counts.max() < 40


def test_depends_on_the_seed_and_on_nothing_else(label):
    all_targets = sample_locations(label, TARGETS, "case")
    alone = sample_locations(label, {"liver": (1,)}, "case")
    other = sample_locations(label, {"liver": (1,)}, "other")
    np.testing.assert_array_equal(all_targets["liver"], alone["liver"])
    assert not np.array_equal(alone["liver"], other["liver"])


def test_slabs_change_nothing(label, monkeypatch):
    whole = sample_locations(label, TARGETS, "case")
    monkeypatch.setattr("selfcfg.kernels.locations._SLAB", 7001)
    for name, found in sample_locations(label, TARGETS, "case").items():
        np.testing.assert_array_equal(found, whole[name])


def test_a_map_without_any_target():
    found = sample_locations(np.zeros((2, 3, 4), np.int16), {"a": (1,), "b": (2, 3)}, "case")
    assert {name: len(indices) for name, indices in found.items()} == {"a": 0, "b": 0}
