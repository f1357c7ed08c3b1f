"""The closed-form count of feature elements beside the count of the network itself."""

from __future__ import annotations

import pytest

from selfcfg.planners.budget import network
from selfcfg.planners.residual import plan_m
from selfcfg.planners.standard import PLAIN
from selfcfg.topology import Topology

SIZES = [
    ((1.0, 1.0, 1.0), (128, 160, 112)),
    ((5.0, 0.8, 0.8), (20, 256, 224)),
    ((1.0, 1.0), (2048, 1024)),
    ((0.5, 2.0), (64, 12)),
    ((1.0, 1.0, 1.0), (16, 16, 16)),
]


def built(topology: Topology, n_heads: int):
    torch = pytest.importorskip("torch")
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    n = topology.dimensions
    kind, blocks = (
        (PlainConvUNet, "n_conv_per_stage") if topology.kind == "plain" else (ResidualEncoderUNet, "n_blocks_per_stage")
    )
    with torch.device("meta"):
        return kind(
            input_channels=2,
            n_stages=topology.n_stages,
            features_per_stage=topology.features,
            conv_op=torch.nn.Conv2d if n == 2 else torch.nn.Conv3d,
            kernel_sizes=topology.kernel_sizes,
            strides=topology.strides,
            num_classes=n_heads,
            n_conv_per_stage_decoder=topology.decoder_blocks,
            conv_bias=True,
            norm_op=torch.nn.InstanceNorm2d if n == 2 else torch.nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=torch.nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            **{blocks: topology.encoder_blocks},
        )


@pytest.mark.parametrize(("spacing", "size"), SIZES)
@pytest.mark.parametrize("budget", [PLAIN, plan_m.budget], ids=["plain", "residual"])
def test_count_equals_that_of_the_network(budget, spacing, size):
    patch, topology = network(budget, spacing, size)
    assert all(edge <= whole < edge + step for edge, whole, step in zip(size, patch, topology.divisors, strict=True))
    expected = int(built(topology, 5).compute_conv_feature_map_size(patch))
    assert topology.feature_elements(patch, 5) == expected


def test_count_worked_by_hand():
    topology = Topology(
        features=(2, 4),
        kernel_sizes=((3, 3), (3, 3)),
        strides=((1, 1), (2, 2)),
        encoder_blocks=(2, 1),
        decoder_blocks=(1,),
    )
    # encoder 2 x 2 x 64 + 1 x 4 x 16, decoder (1 + 1) x 2 x 64, head 3 x 64
    assert topology.feature_elements((8, 8), 3) == 256 + 64 + 256 + 192
    assert topology.divisors == (2, 2)
    residual = topology.model_copy(update={"kind": "residual"})
    # stem 2 x 64, encoder 4 x 2 x 64 + 3 x 4 x 16
    assert residual.feature_elements((8, 8), 3) == 128 + 512 + 192 + 256 + 192


def test_a_single_stage_has_no_decoder():
    topology = Topology(
        features=(32,), kernel_sizes=((3, 3),), strides=((1, 1),), encoder_blocks=(2,), decoder_blocks=()
    )
    assert topology.feature_elements((5, 6), 7) == 2 * 32 * 30


def test_narrowest_looks_only_along_axes_that_a_kernel_extends_over() -> None:
    thick = Topology(
        features=(2, 4, 8),
        kernel_sizes=((1, 3, 3), (1, 3, 3), (3, 3, 3)),
        strides=((1, 1, 1), (1, 2, 2), (1, 2, 2)),
        encoder_blocks=(1, 1, 1),
        decoder_blocks=(1, 1),
    )
    assert thick.narrowest((5, 64, 40)) == 5  # depth, covered in the last stage
    assert thick.narrowest((20, 64, 40)) == 10
    flat = thick.model_copy(update={"kernel_sizes": ((1, 3, 3),) * 3})
    assert flat.narrowest((1, 64, 40)) == 10
