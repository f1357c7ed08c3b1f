"""Counts wrong results of PyTorch's bfloat16 convolution on a processor: output, input gradient, weight gradient.

    python benchmarks/bfloat16_gradients.py [--repeats 25]

Freed memory is filled with large numbers before each trial, so that a kernel that reads what it never wrote shows it.
With torch 2.13.0 (AVX-512 BF16) the weight gradient of a 3x3x3 convolution of 320 channels is wrong in some trials on
maps of 2x2x2 and 2x4x4 voxels; output and input gradient are not. That is why training on a processor is in float32.
"""

from __future__ import annotations

import argparse

import torch
from torch.nn import functional

SHAPES = ((2, 2, 2), (2, 4, 4), (4, 4, 4), (5, 7, 5), (8, 8, 8), (1, 4, 4), (3, 6, 6), (4, 16, 16))
LIMIT = 1e4
"""No right value comes near it."""


def main() -> None:
    """Prints, for each type, layout and shape, the trials with a wrong output, input gradient and weight gradient."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25)
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    for dtype in (torch.bfloat16, torch.float32):
        for layout in (torch.channels_last_3d, torch.contiguous_format):
            for shape in SHAPES:
                wrong = [0, 0, 0]
                for _ in range(repeats):
                    for index, value in enumerate(trial(shape, dtype, layout)):
                        wrong[index] += not bool((value.abs() < LIMIT).all())
                print(f"{dtype} {layout} {shape}: {wrong} of {repeats}", flush=True)


def trial(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> tuple[torch.Tensor, ...]:
    """Output, input gradient and weight gradient of one convolution."""
    junk = torch.full((30_000_000,), 1e30)
    del junk
    weight = torch.randn(320, 320, 3, 3, 3).mul(0.02).to(dtype).contiguous(memory_format=layout).requires_grad_()
    image = torch.randn(2, 320, *shape).to(dtype).contiguous(memory_format=layout).requires_grad_()
    output = functional.conv3d(image, weight, padding=1)
    of_image, of_weight = torch.autograd.grad(output, (image, weight), torch.randn_like(output))
    return output.detach(), of_image, of_weight


if __name__ == "__main__":
    main()
