"""The shape of a U-Net as plain data, and how much memory it needs as a closed formula. No torch."""

from __future__ import annotations

from typing import Literal

from selfcfg.records import Record


class Topology(Record):
    """A U-Net of dynamic-network-architectures, stage by stage from full resolution to the bottleneck.

    Args:
        kind: "plain" (stacked convolutions) or "residual" (ResNet-D basic blocks and a stem).
        features: feature maps of each encoder stage.
        kernel_sizes: kernel of each stage, one entry an axis.
        strides: stride on entering each stage; the first is all ones.
        encoder_blocks: convolutions (plain) or residual blocks of each encoder stage.
        decoder_blocks: convolutions of each decoder stage, from full resolution downwards; one fewer than stages.
    """

    kind: Literal["plain", "residual"] = "plain"
    features: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.strides[0])

    @property
    def n_stages(self) -> int:
        """Encoder stages, bottleneck included."""
        return len(self.features)
