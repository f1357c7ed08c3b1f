"""How the intensities of each channel are scaled."""

from __future__ import annotations

from selfcfg.plan import Normalization

SCHEMES: dict[str, Normalization] = {
    "ct": "ct",
    "nonorm": "none",
    "zscore": "zscore",
    "rescale_to_0_1": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}
"""Channel name in small letters to its scheme. Source: nnU-Net v2.8.1, ``channel_name_to_normalization_mapping``."""

MASK_THRESHOLD = 0.75
"""Median share of the image left after cropping below which only its inside is normalised. Source: nnU-Net v2.8.1."""


def scheme_of(channel: str) -> Normalization:
    """The normalisation for a channel of this name; z-score where the name says nothing."""
    return SCHEMES.get(channel.casefold(), "zscore")


def uses_mask(scheme: Normalization, median_relative_size: float) -> bool:
    """Whether only voxels inside the non-zero mask are normalised and the rest stays 0.

    Only z-score leaves zeros in place; it does so where cropping removed more than a quarter of the typical image.

    Args:
        scheme: of the channel.
        median_relative_size: median over cases of cropped volume by full volume.
    """
    return scheme == "zscore" and median_relative_size < MASK_THRESHOLD
