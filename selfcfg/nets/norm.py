"""Instance normalisation that keeps the memory layout of its input on a CPU; a drop-in for PyTorch's own.

PyTorch's instance norm turns a channels-last tensor back into a contiguous one, so that every convolution after it
converts again. Its batch norm keeps the layout, and on one sample it is the same thing. (Group norm with one channel a
group keeps it too, but its channels-last kernel subtracts two large sums: where the mean is 30 standard deviations from
zero it is wrong in the second digit.)

Batch norm adds up the voxels of a map one after the other in float32: of a million, mean and variance are wrong in the
fourth digit. So they are taken of pieces and put together in float64; batch norm then only applies them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_FAST_TYPES = (torch.float32, torch.bfloat16)

_PIECE = 4096
"""Voxels whose sum in float32 is right to seven digits."""


class InstanceNorm2d(nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` with affine parameters that keeps a channels-last input channels-last on a CPU.

    Source: measured: benchmarks/network_layout.py.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The normalised (B, C, Y, X) input, in its own layout and type."""
        return _normalise(self, input) if _has_fast_path(self, input) else super().forward(input)


class InstanceNorm3d(nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` with affine parameters that keeps a channels-last input channels-last on a CPU.

    Source: measured: benchmarks/network_layout.py.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The normalised (B, C, Z, Y, X) input, in its own layout and type."""
        return _normalise(self, input) if _has_fast_path(self, input) else super().forward(input)


def _has_fast_path(norm: nn.InstanceNorm2d | nn.InstanceNorm3d, image: Tensor) -> bool:
    return (
        image.device.type == "cpu"
        and image.dtype in _FAST_TYPES
        and norm.affine
        and norm.weight.dtype == torch.float32
        and not norm.track_running_stats
        and image[0, 0].numel() > 1
    )


def _normalise(norm: nn.InstanceNorm2d | nn.InstanceNorm3d, image: Tensor) -> Tensor:
    layout = _channels_last(image)
    if image.is_contiguous() or not image.is_contiguous(memory_format=layout):
        return functional.group_norm(image, image.shape[1], norm.weight, norm.bias, norm.eps)
    normalised: Tensor = _ChannelsLast.apply(image, norm.weight, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
    return normalised


def _channels_last(image: Tensor) -> torch.memory_format:
    return torch.channels_last if image.dim() == 4 else torch.channels_last_3d


class _ChannelsLast(torch.autograd.Function):
    """Batch norm sample by sample; plain arithmetic where gradients of gradients are asked for."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        normalised = torch.empty_like(image)
        mean, scale = (image.new_empty(image.shape[:2], dtype=weight.dtype) for _ in range(2))
        unused = mean.new_empty(0)
        for index in range(image.shape[0]):
            one = slice(index, index + 1)
            mean[index], variance = _statistics(image[index])
            scale[index] = torch.rsqrt(variance + eps)
            torch.ops.aten.native_batch_norm.out(
                image[one], weight, bias, mean[index], variance, False, 0.0, eps,
                out=normalised[one], save_mean=unused, save_invstd=unused,
            )  # fmt: skip
        ctx.save_for_backward(image, weight, mean, scale)
        ctx.eps = eps
        return normalised

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        image, weight, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable_backward(gradients[0], image, weight, ctx.eps), None
        gradient = gradients[0].contiguous(memory_format=_channels_last(image))
        of_image = torch.empty_like(image)
        of_weight, of_bias = (torch.empty_like(mean) for _ in range(2))
        for index in range(image.shape[0]):
            one = slice(index, index + 1)
            torch.ops.aten.native_batch_norm_backward.out(
                gradient[one], image[one], weight, None, None, mean[index], scale[index], True, ctx.eps,
                [True, True, True], out0=of_image[one], out1=of_weight[index], out2=of_bias[index],
            )  # fmt: skip
        return of_image, of_weight.sum(0), of_bias.sum(0), None


def _statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance, float32 (C,), of one channels-last sample (C, [Z,] Y, X)."""
    voxels = image.movedim(0, -1).reshape(-1, image.shape[0])
    kept = image.new_zeros((2, image.shape[0]), dtype=torch.float32)  # that a batch norm would update; not read
    found = []
    for start in range(0, len(voxels), _PIECE):
        piece = voxels[start : start + _PIECE]
        as_image = piece.view(1, len(piece), 1, -1).permute(0, 3, 1, 2)
        found.append(torch.stack(torch.batch_norm_update_stats(as_image, kept[0], kept[1], 0.0)))
    if len(found) == 1:
        return found[0][0], found[0][1]
    means, variances = torch.stack(found, 1).double()
    shares = torch.full((len(found), 1), _PIECE / len(voxels), dtype=torch.float64)
    shares[-1] = 1 - shares[:-1].sum()
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean).square())).sum(0)
    return mean.float(), variance.float()


def _differentiable_backward(
    gradient: Tensor, image: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    space = tuple(range(2, image.dim()))
    gradient, values = gradient.float(), image.float()
    centred = values - values.mean(space, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(space, keepdim=True) + eps)
    normalised = centred * scale
    along = (gradient * normalised).mean(space, keepdim=True)
    shaped = weight.view(1, -1, *(1 for _ in space))
    of_image = shaped * scale * (gradient - gradient.mean(space, keepdim=True) - normalised * along)
    return of_image.to(image.dtype), (gradient * normalised).sum((0, *space)), gradient.sum((0, *space))
