from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from selfcfg.nets.norm import InstanceNorm2d, InstanceNorm3d

KINDS = [
    (InstanceNorm2d, nn.InstanceNorm2d, (3, 8, 5, 6), torch.channels_last),
    (InstanceNorm3d, nn.InstanceNorm3d, (2, 8, 5, 6, 7), torch.channels_last_3d),
]
every_kind = pytest.mark.parametrize(("ours", "stock", "shape", "layout"), KINDS, ids=["2D", "3D"])


def affine(kind: type[nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    norm = kind(8, eps=1e-5, affine=True)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 8))
        norm.bias.copy_(torch.linspace(-1, 1, 8))
    return norm.to(dtype)


def run(norm: nn.Module, image: Tensor, gradient: Tensor) -> list[Tensor]:
    image = image.detach().requires_grad_()
    output = norm(image)
    output.backward(gradient)
    return [output, image.grad, norm.weight.grad, norm.bias.grad]


@every_kind
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_equals_the_stock_norm_in_float64(ours, stock, shape, layout, is_last, mean) -> None:
    image, gradient = torch.randn(shape) + mean, torch.randn(shape)
    expected = run(affine(stock, torch.float64), image.double(), gradient.double())
    given = image.contiguous(memory_format=layout) if is_last else image
    found = run(affine(ours), given, gradient)
    # float32 itself is this much coarser where the mean is 30 standard deviations away
    tolerance = 1e-5 if mean == 0 else 3e-4
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("voxels", [4096, 4097, 2**20 + 3])
def test_is_as_exact_for_a_million_voxels_as_for_few(voxels) -> None:
    image = torch.randn(1, 8, 1, voxels) + 1
    expected = affine(nn.InstanceNorm2d, torch.float64)(image.double())
    found = affine(InstanceNorm2d)(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_the_layout_both_ways(ours, stock, shape, layout, dtype) -> None:
    image = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
    output, gradient, *_ = run(affine(ours), image, torch.randn(shape).to(dtype))
    for tensor in (output, gradient):
        assert tensor.is_contiguous(memory_format=layout)
        assert tensor.dtype == dtype
    assert affine(stock)(image).is_contiguous(memory_format=layout) is False


@every_kind
def test_bfloat16_is_as_close_as_rounding_allows(ours, stock, shape, layout) -> None:
    image, gradient = torch.randn(shape).bfloat16(), torch.randn(shape).bfloat16()
    expected = run(affine(stock, torch.float64), image.double(), gradient.double())
    found = run(affine(ours), image.contiguous(memory_format=layout), gradient)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0.01, atol=0.02)


@every_kind
def test_gradients_of_gradients(ours, stock, shape, layout) -> None:
    image = torch.randn(shape)

    def second(norm: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
        image = image.requires_grad_()
        first = torch.autograd.grad(norm(image).pow(3).sum(), [image, norm.weight], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), [image, norm.weight, norm.bias])

    found = second(affine(ours), image.contiguous(memory_format=layout))
    expected = second(affine(stock, torch.float64), image.double())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@every_kind
def test_a_single_voxel_is_refused_as_by_the_stock_norm(ours, stock, shape, layout) -> None:
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        affine(ours)(torch.randn(*shape[:2], *(1 for _ in shape[2:])))


def test_same_names_as_the_stock_norm() -> None:
    assert list(affine(InstanceNorm3d).state_dict()) == list(affine(nn.InstanceNorm3d).state_dict())
