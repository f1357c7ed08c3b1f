"""The scheme of each channel name, and the mask."""

from __future__ import annotations

import pytest

from selfcfg.planners.normalization import scheme_of, uses_mask


@pytest.mark.parametrize(
    ("channel", "scheme"),
    [
        ("CT", "ct"),
        ("ct", "ct"),
        ("CT scan", "zscore"),
        ("MRI", "zscore"),
        ("zScore", "zscore"),
        ("noNorm", "none"),
        ("rescale_to_0_1", "rescale_to_0_1"),
        ("RGB_to_0_1", "rgb_to_0_1"),
    ],
)
def test_the_name_chooses_the_scheme(channel, scheme):
    assert scheme_of(channel) == scheme


@pytest.mark.parametrize(
    ("scheme", "size", "used"), [("zscore", 0.7499, True), ("zscore", 0.75, False), ("ct", 0.2, False)]
)
def test_only_zscore_of_mostly_empty_images_uses_the_mask(scheme, size, used):
    assert uses_mask(scheme, size) is used
