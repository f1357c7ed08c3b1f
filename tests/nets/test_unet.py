from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from selfcfg.engine.device import place
from selfcfg.nets.unet import Segmenter, build_parts
from selfcfg.topology import Topology


def topology(kind: str, dimensions: int) -> Topology:
    """Unequal everywhere, so that a mixed-up order shows."""
    blocks = (1, 2, 2, 1) if kind == "residual" else (2, 1, 2, 2)
    return Topology(
        kind=kind,
        features=(4, 8, 12, 16),
        kernel_sizes=(((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)) if dimensions == 3 else ((3, 3),) * 4),
        strides=(((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 2)) if dimensions == 3 else ((1, 1), (2, 2), (2, 1), (2, 2))),
        encoder_blocks=blocks,
        decoder_blocks=(2, 1, 3),
    )


def original(shape: Topology, in_channels: int, n_outputs: int) -> nn.Module:
    """The network as nnU-Net makes it; its decoder counts from the lowest resolution."""
    flat = shape.dimensions == 2
    kind, blocks = (
        (ResidualEncoderUNet, "n_blocks_per_stage") if shape.kind == "residual" else (PlainConvUNet, "n_conv_per_stage")
    )
    return kind(
        in_channels,
        shape.n_stages,
        shape.features,
        nn.Conv2d if flat else nn.Conv3d,
        shape.kernel_sizes,
        shape.strides,
        num_classes=n_outputs,
        n_conv_per_stage_decoder=shape.decoder_blocks[::-1],
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if flat else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **{blocks: shape.encoder_blocks},
    )


def original_name(name: str) -> str:
    return name.replace("head.", "decoder.", 1)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_equals_the_original_network(kind: str, dimensions: int, layout: str) -> None:
    shape = topology(kind, dimensions)
    parts = build_parts(shape, 2, 3)
    for parameter in parts.parameters():
        nn.init.normal_(parameter, std=0.3)
    network = original(shape, 2, 3)
    state = network.state_dict()
    tensors = parts.state_dict()
    for name, tensor in tensors.items():
        state[original_name(name)].copy_(tensor)
    image = torch.randn(2, 2, *(8, 16, 16)[3 - dimensions :])
    expected = network(image)
    if layout == "channels last":
        place(parts, torch.device("cpu"))
    found = parts["head"](parts["decoder"](parts["encoder"](image)))
    assert len(found) == len(expected) == 3
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())
    torch.testing.assert_close(Segmenter(parts)(image), found[0])


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_each_tensor_has_one_name_and_the_originals_number_of_parameters(kind: str) -> None:
    parts = build_parts(topology(kind, 3), 1, 2)
    state = parts.state_dict(keep_vars=True)
    assert len({id(tensor) for tensor in state.values()}) == len(state)
    assert not [name for name in state if "all_modules" in name or "decoder.encoder" in name]
    assert {name.split(".")[0] for name in state} == {"encoder", "decoder", "head"}
    network = original(topology(kind, 3), 1, 2)
    assert sum(p.numel() for p in parts.parameters()) == sum(p.numel() for p in network.parameters())


def test_initial_weights() -> None:
    parts = build_parts(topology("residual", 3), 1, 2)
    for name, module in parts.named_modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            expected = (2 / (1 + 0.01**2) / module.weight[0].numel()) ** 0.5
            if module.weight.numel() > 200:
                assert module.weight.std().item() == pytest.approx(expected, rel=0.2), name
            assert module.bias is None or not module.bias.any()
        if name.endswith("conv2.norm"):
            assert not module.weight.any(), "the last norm of a residual block starts at zero"


def test_same_seed_same_network() -> None:
    torch.manual_seed(3)
    first = build_parts(topology("plain", 2), 1, 2).state_dict()
    torch.manual_seed(3)
    second = build_parts(topology("plain", 2), 1, 2).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_only_the_heads_asked_for_are_computed() -> None:
    parts = build_parts(topology("plain", 2), 1, 2)
    features = parts["decoder"](parts["encoder"](torch.randn(1, 1, 16, 16)))
    assert [tuple(feature.shape[1:]) for feature in features] == [(4, 16, 16), (8, 8, 8), (12, 4, 8)]
    assert len(parts["head"](features[:2])) == 2


@pytest.mark.parametrize("n_outputs", [2, 4, 61])
def test_a_head_that_expects_little_foreground(n_outputs: int) -> None:
    head = build_parts(topology("plain", 2), 1, n_outputs)["head"]
    nothing = [torch.zeros(1, channels, 4, 4) for channels in (4, 8, 12)]
    head.expect_share(0.03, exclusive=True)
    for logits in head(nothing):
        expected = min(0.03, 0.5 / (n_outputs - 1))
        torch.testing.assert_close(logits.softmax(1)[:, 1:], torch.full((1, n_outputs - 1, 4, 4), expected))
    head.expect_share(0.03, exclusive=False)
    for logits in head(nothing):
        torch.testing.assert_close(logits.sigmoid(), torch.full((1, n_outputs, 4, 4), 0.03))


def test_nothing_imports_timm_or_torchvision() -> None:
    code = (
        "import sys, selfcfg.nets.unet; print(sorted({m.split('.')[0] for m in sys.modules} & {'timm', 'torchvision'}))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
