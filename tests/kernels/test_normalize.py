import numpy as np
import pytest

from selfcfg.fingerprint import ChannelStatistics
from selfcfg.kernels.normalize import normalize

STATISTICS = ChannelStatistics(
    max=2000, mean=90.0, median=80, min=-900, percentile_00_5=-500, percentile_99_5=700, std=120.0
)


@pytest.fixture
def channel():
    return np.random.default_rng(3).normal(200, 400, (6, 7, 8)).astype(np.float32)


def test_works_in_place_and_keeps_the_type(channel):
    for scheme in ("none", "zscore", "rescale_to_0_1", "ct"):
        values = channel.copy()
        assert normalize(values, scheme, STATISTICS, None) is values
        assert values.dtype == np.float32


def test_ct_clips_and_uses_the_dataset(channel):
    expected = (np.clip(channel.astype(np.float64), -500, 700) - 90) / 120
    np.testing.assert_allclose(normalize(channel, "ct", STATISTICS, None), expected, atol=1e-6)


def test_ct_without_statistics_is_refused(channel):
    with pytest.raises(ValueError, match="statistics"):
        normalize(channel, "ct", None, None)


def test_zscore_of_the_whole(channel):
    expected = (channel.astype(np.float64) - channel.mean(dtype=np.float64)) / channel.std(dtype=np.float64)
    np.testing.assert_allclose(normalize(channel, "zscore", None, None), expected, atol=1e-6)


def test_zscore_inside_a_mask_leaves_the_rest(channel):
    mask = np.zeros(channel.shape, bool)
    mask[2:5, 1:6, 3:] = True
    before = channel.copy()
    normalize(channel, "zscore", None, mask)
    inside = before[mask].astype(np.float64)
    np.testing.assert_allclose(channel[mask], (inside - inside.mean()) / inside.std(), atol=1e-6)
    np.testing.assert_array_equal(channel[~mask], before[~mask])


def test_sums_do_not_lose_digits_far_from_zero():
    values = (1.7e6 + np.random.default_rng(0).normal(size=(64, 128, 300))).astype(np.float32)
    spread = values.astype(np.float64).std()
    result = normalize(values, "zscore", None, None)
    assert abs(result.mean(dtype=np.float64)) < 0.07 / spread
    assert result.std(dtype=np.float64) == pytest.approx(1, abs=1e-4)


def test_constant_channel_becomes_zero():
    for value in (0.1, -1000.0, 3e5):
        result = normalize(np.full((3, 4, 5), value, np.float32), "zscore", None, None)
        np.testing.assert_array_equal(result, 0)
    np.testing.assert_array_equal(normalize(np.full((3, 4, 5), 7, np.float32), "rescale_to_0_1", None, None), 0)


def test_rescaling_to_the_unit_range(channel):
    result = normalize(channel, "rescale_to_0_1", None, None)
    assert (result.min(), result.max()) == (0, 1)


def test_colours(channel):
    colours = np.array([0, 51, 255], np.float32)
    np.testing.assert_allclose(normalize(colours, "rgb_to_0_1", None, None), [0, 0.2, 1])
    with pytest.raises(ValueError, match=r"\[0, 255\], found -1 to 3"):
        normalize(np.array([-1, 3], np.float32), "rgb_to_0_1", None, None)
