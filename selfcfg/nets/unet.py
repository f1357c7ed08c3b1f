"""A Topology turned into the named parts of a U-Net of dynamic-network-architectures.

The original modules are used as they are, but each tensor is registered once: the decoder does not hold the encoder
again, and a convolution block does not list its layers twice. So names are short, and a state dict holds no copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn

from selfcfg.nets.norm import InstanceNorm2d, InstanceNorm3d
from selfcfg.topology import Topology


class Decoder(nn.Module):
    """The way up: feature maps of the encoder in, feature maps of each decoder stage out.

    Args:
        transpconvs: one transposed convolution a stage, lowest resolution first.
        stages: the convolutions after each concatenation, lowest resolution first.
    """

    def __init__(self, transpconvs: nn.ModuleList, stages: nn.ModuleList) -> None:
        super().__init__()
        self.transpconvs = transpconvs
        self.stages = stages

    def forward(self, skips: Sequence[Tensor]) -> list[Tensor]:
        """The feature maps of the decoder, full resolution first; `skips` are the encoder's, full resolution first."""
        features: list[Tensor] = []
        below = skips[-1]
        for up, convolutions, skip in zip(self.transpconvs, self.stages, skips[-2::-1], strict=True):
            below = convolutions(torch.cat((up(below), skip), 1))
            features.insert(0, below)
        return features


class Head(nn.Module):
    """One 1x1 convolution a resolution, from decoder features to logits.

    Args:
        seg_layers: lowest resolution first, as in the original.
    """

    def __init__(self, seg_layers: nn.ModuleList) -> None:
        super().__init__()
        self.seg_layers = seg_layers

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits of each given feature map, full resolution first; give only the first to get only full resolution."""
        return [layer(feature) for layer, feature in zip(reversed(self.seg_layers), features, strict=False)]

    def expect_share(self, share: float, *, exclusive: bool) -> None:
        """Sets the biases so that every foreground channel starts with this probability, as far as the weights let it.

        Args:
            share: of the voxels, for each channel; all together are held at one half where they exclude each other.
            exclusive: a softmax with the background in channel 0, else a sigmoid a channel.

        Source: Lin et al., Focal Loss for Dense Object Detection, 2017, section 4.1.
        """
        for layer in self.seg_layers:
            bias = cast(nn.Conv3d, layer).bias
            if bias is None:
                continue
            foreground = len(bias) - 1 if exclusive else 1
            each = min(share, 0.5 / foreground)
            nn.init.constant_(bias, math.log(each / (1 - foreground * each)))
            if exclusive:
                nn.init.zeros_(bias[:1])


class Segmenter(nn.Module):
    """Encoder, decoder and full-resolution head as one module, for prediction.

    Args:
        parts: holds "encoder", "decoder" and "head", as made by `build_parts`.
    """

    def __init__(self, parts: nn.ModuleDict) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = parts["encoder"], parts["decoder"], parts["head"]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, [Z,] Y, X) of an image (B, C, [Z,] Y, X)."""
        logits: Tensor = self.head(self.decoder(self.encoder(image))[:1])[0]
        return logits


def build_parts(topology: Topology, in_channels: int, n_outputs: int) -> nn.ModuleDict:
    """A freshly initialised U-Net as parts "encoder", "decoder" and "head".

    The encoder gives a list of feature maps, full resolution first; the decoder turns it into such a list; the head
    turns that into a list of logits. Weights are Kaiming-normal for a leaky ReLU of slope 0.01, biases 0, and the last
    norm of every residual block is 0. Called after `torch.manual_seed`, the weights depend on the seed alone.

    Args:
        topology: the shape of the network.
        in_channels: channels of the image.
        n_outputs: channels of the logits.

    Source: nnU-Net v2.8.1, get_network_from_plans and dynamic-network-architectures 0.4.
    """
    network = _original(topology, in_channels, n_outputs)
    decoder = Decoder(network.decoder.transpconvs, network.decoder.stages)
    parts = nn.ModuleDict({"encoder": network.encoder, "decoder": decoder, "head": Head(network.decoder.seg_layers)})
    for block in parts.modules():
        if isinstance(block, ConvDropoutNormReLU):
            _register_once(block)
    parts.apply(type(network).initialize)
    return parts


def _original(topology: Topology, in_channels: int, n_outputs: int) -> PlainConvUNet | ResidualEncoderUNet:
    flat = topology.dimensions == 2
    shared: dict[str, Any] = {
        "input_channels": in_channels,
        "n_stages": topology.n_stages,
        "features_per_stage": topology.features,
        "conv_op": nn.Conv2d if flat else nn.Conv3d,
        "kernel_sizes": topology.kernel_sizes,
        "strides": topology.strides,
        "num_classes": n_outputs,
        # the original lists decoder stages from the lowest resolution upwards
        "n_conv_per_stage_decoder": topology.decoder_blocks[::-1],
        "conv_bias": True,
        "norm_op": InstanceNorm2d if flat else InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"negative_slope": 0.01, "inplace": True},
        "deep_supervision": True,
    }
    if topology.kind == "residual":
        return ResidualEncoderUNet(**shared, n_blocks_per_stage=topology.encoder_blocks)
    return PlainConvUNet(**shared, n_conv_per_stage=topology.encoder_blocks)


def _register_once(block: ConvDropoutNormReLU) -> None:
    """Takes the second registration of a block's layers away; the block still runs them in the same order."""
    layers = block.all_modules
    del block.all_modules
    object.__setattr__(block, "all_modules", layers)
