from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from selfcfg.kernels.tiles import gaussian_profile, tile_starts, tile_weights


@pytest.mark.parametrize(
    ("length", "patch", "step", "starts"),
    [
        (10, 10, 0.5, (0,)),
        (11, 10, 0.5, (0, 1)),
        (110, 64, 0.5, (0, 23, 46)),
        (110, 64, 1.0, (0, 46)),
        (145, 32, 0.5, (0, 14, 28, 42, 56, 71, 85, 99, 113)),
        (5, 1, 1.0, (0, 1, 2, 3, 4)),
    ],
)
def test_starts_worked_by_hand(length: int, patch: int, step: float, starts: tuple[int, ...]) -> None:
    assert tile_starts(length, patch, step) == starts


@pytest.mark.parametrize("step", [0.05, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("patch", [1, 7, 16])
def test_tiles_cover_every_voxel_in_steps_no_longer_than_asked(patch: int, step: float) -> None:
    for length in range(patch, 5 * patch + 3):
        starts = tile_starts(length, patch, step)
        assert starts[0] == 0
        assert starts[-1] == length - patch
        covered = {voxel for start in starts for voxel in range(start, start + patch)}
        assert covered == set(range(length))
        assert max(np.diff(starts), default=0) <= int(np.ceil(max(patch * step, 1)))


def test_a_step_that_leaves_gaps_and_an_image_shorter_than_the_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        tile_starts(10, 4, 1.5)
    with pytest.raises(ValueError, match="step"):
        tile_starts(10, 4, 0.0)
    with pytest.raises(ValueError, match="shorter"):
        tile_starts(3, 4, 0.5)


@pytest.mark.parametrize("patch", [(8, 16, 12), (7, 5, 40)])
def test_profiles_multiply_to_the_filtered_delta_of_the_reference(patch: tuple[int, int, int]) -> None:
    delta = np.zeros(patch)
    delta[tuple(size // 2 for size in patch)] = 1
    filtered = gaussian_filter(delta, [size / 8 for size in patch], mode="constant")
    z, y, x = (gaussian_profile(size) for size in patch)
    product = z[:, None, None] * y[None, :, None] * x[None, None, :]
    np.testing.assert_allclose(product, filtered / filtered.max(), rtol=1e-10)


@pytest.mark.parametrize(
    ("length", "patch", "step"), [(64, 64, 0.5), (110, 64, 0.5), (33, 8, 0.2), (9, 1, 1.0), (41, 40, 1.0)]
)
def test_weights_add_up_to_one(length: int, patch: int, step: float) -> None:
    starts, weights = tile_weights(length, patch, step)
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + patch] += weight
    assert weights.dtype == np.float32
    assert weights.min() > 0
    np.testing.assert_allclose(total, 1, atol=1e-6)
