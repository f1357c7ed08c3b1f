from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selfcfg.kernels.probe import drawn_voxels, linear_probe, voxel_features


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_features_of_a_voxel_come_from_every_resolution() -> None:
    full = torch.arange(2 * 4 * 6).view(2, 4, 6)
    coarse = 100 + torch.arange(2 * 3).view(1, 2, 3)
    found = voxel_features([full, coarse], torch.tensor([[0, 0], [3, 5], [2, 1]]))
    assert found.dtype == torch.float32
    assert found.tolist() == [[0, 24, 100], [23, 47, 105], [13, 37, 103]]


def test_voxels_are_drawn_of_every_value_that_counts() -> None:
    label = torch.full((8, 8), -1, dtype=torch.int16)
    label[:4], label[4, 4] = 0, 3
    voxels = drawn_voxels(label, 5, drawn())
    values = label[voxels.unbind(1)]
    assert sorted(values.tolist()) == [0] * 5 + [3]
    assert len({tuple(voxel) for voxel in voxels.tolist()}) == 6
    assert drawn_voxels(torch.full((2, 2, 2), -1), 5, drawn()).shape == (0, 3)


def test_the_probe_is_a_weighted_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 2, 5], [60, 20, 10])
    features = rng.normal(size=(90, 4)) + labels[:, None] * [0.3, 0.0, -0.2, 0.1]
    seen = np.arange(90) % 2 == 0
    mean, deviation = features[seen].mean(0), features[seen].std(0)
    x = np.hstack([(features - mean) / deviation, np.ones((90, 1))])
    weight = np.array([1 / (labels[seen] == value).sum() for value in labels[seen]])
    wanted = (labels[seen][:, None] == [0, 2, 5]).astype(float)
    gram = x[seen].T @ (x[seen] * weight[:, None]) + 0.01 * np.eye(5)
    found = np.array([0, 2, 5])[(x[~seen] @ np.linalg.solve(gram, x[seen].T @ (wanted * weight[:, None]))).argmax(1)]
    expected = np.mean([(found == labels[~seen])[labels[~seen] == value].mean() for value in (0, 2, 5)])
    score = linear_probe(torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(seen))
    assert score == pytest.approx(expected)


def test_it_finds_what_is_there_and_nothing_where_nothing_is() -> None:
    labels = torch.arange(2000) % 2
    seen = torch.arange(2000) % 4 < 2
    noise = torch.randn(2000, 3, generator=drawn())
    assert linear_probe(noise, labels, seen) == pytest.approx(0.5, abs=0.05)
    assert linear_probe(noise + 20 * labels[:, None], labels, seen) == 1


def test_a_rare_label_counts_as_much_as_a_frequent_one() -> None:
    labels = (torch.arange(400) % 20 == 0).long()
    score = linear_probe(torch.zeros(400, 2), labels, torch.arange(400) < 200)
    assert score == 0.5, "one label is always said, and never the other"


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 0, 1, 1]])
def test_fewer_than_two_labels_in_both_parts_give_no_score(labels: list[int]) -> None:
    seen = torch.tensor([True, True, False, False])
    assert math.isnan(linear_probe(torch.randn(4, 2, generator=drawn()), torch.tensor(labels), seen))
