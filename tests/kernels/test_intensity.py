"""Changes of intensity against scipy, scikit-image and values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, gaussian_filter
from skimage.transform import resize

from selfcfg.kernels.intensity import blur, contrast, gamma, gaussian_kernel, low_resolution, low_resolution_shape


def volume(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize(("sigma", "size"), [(0.5, 3), (0.58, 3), (0.59, 5), (0.9, 5), (0.92, 7), (1.0, 7), (0.05, 1)])
def test_the_kernel_has_the_odd_size_nearest_to_six_sigma_and_a_half(sigma: float, size: int) -> None:
    weights = gaussian_kernel(sigma)
    assert len(weights) == size and sum(weights) == pytest.approx(1)
    assert weights == weights[::-1]
    if size > 1:
        assert weights[size // 2 - 1] / weights[size // 2] == pytest.approx(np.exp(-0.5 / sigma**2))


@pytest.mark.parametrize("shape", [(9, 11, 10), (20, 21), (2, 9, 3), (1, 8, 8)])
def test_blur_is_separable_and_mirrors_at_the_border(shape: tuple[int, ...]) -> None:
    channel, sigmas = volume(*shape), [0.6, 0.95, 0.5][: len(shape)]
    expected = channel.numpy().astype(np.float64)
    for axis, sigma in enumerate(sigmas):
        expected = correlate1d(expected, gaussian_kernel(sigma), axis=axis, mode="mirror")
    before = channel.clone()
    np.testing.assert_allclose(blur(channel, sigmas), expected, atol=1e-5)
    assert torch.equal(channel, before)


def test_blur_is_close_to_the_full_gaussian() -> None:
    channel = volume(30, 32)
    np.testing.assert_allclose(blur(channel, (1, 1)), gaussian_filter(channel.numpy(), 1, mode="mirror"), atol=0.05)


def test_contrast_by_hand() -> None:
    # Mean 2; twice the distance from it would be -2, 2, 6 and leaves the range 0 to 4.
    assert contrast(torch.tensor([0.0, 2, 4]), 2).tolist() == [0, 2, 4]
    assert contrast(torch.tensor([0.0, 2, 4]), 0.5).tolist() == [1, 2, 3]


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_gamma_bends_and_keeps_the_statistics(exponent: float, inverted: bool) -> None:
    channel = volume(12, 13)
    bent = gamma(channel, exponent, inverted=inverted)
    x = channel.numpy().astype(np.float64) * (-1 if inverted else 1)
    y = ((x - x.min()) / np.ptp(x)) ** exponent
    y = (y - y.mean()) / y.std() * x.std() + x.mean()
    np.testing.assert_allclose(bent, -y if inverted else y, atol=1e-5)
    assert float(bent.mean()) == pytest.approx(float(channel.mean()), abs=1e-5)
    assert float(bent.std()) == pytest.approx(float(channel.std()), abs=1e-5)
    assert not torch.allclose(bent, channel, atol=0.05)


def test_a_constant_channel_stays_constant() -> None:
    flat = torch.full((4, 5), 3.0)
    assert torch.equal(contrast(flat, 1.2), flat)
    assert torch.equal(gamma(flat, 0.8, inverted=False), flat)
    assert torch.equal(low_resolution(flat, (2, 3)), flat)
    torch.testing.assert_close(blur(flat, (0.7, 0.9)), flat)


@pytest.mark.parametrize("zoom", [0.5, 0.63, 0.8, 1.0])
def test_low_resolution_takes_the_nearest_voxel_and_comes_back_linearly(zoom: float) -> None:
    channel = volume(13, 16, 11)
    shape = low_resolution_shape(channel.shape, zoom, keep_first=False)
    assert shape == tuple(round(size * zoom) for size in channel.shape)
    taken = [np.floor((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(channel.shape, shape, strict=True)]
    coarse = channel.numpy()[np.ix_(*taken)].astype(np.float64)
    expected = resize(coarse, channel.shape, order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(low_resolution(channel, shape), expected, atol=1e-5)


def test_low_resolution_keeps_the_first_axis_on_request_and_never_vanishes() -> None:
    assert low_resolution_shape((10, 10), 0.5, keep_first=True) == (10, 5)
    assert low_resolution_shape((1, 10), 0.4, keep_first=False) == (1, 4)
