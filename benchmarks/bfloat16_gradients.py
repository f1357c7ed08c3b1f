"""Counts wrong bfloat16 weight gradients of random convolutions on a processor, by the smallest map they slide over.

    python benchmarks/bfloat16_gradients.py [--trials 400] [--threads 1] [--seed 0]

Freed memory is filled with large numbers before each trial, so that a kernel that reads what it never wrote shows it;
each size has a process of its own, since a kernel that writes where it must not can bring the process down.
With torch 2.13.0 (AVX-512 BF16) weight gradients are wrong in 2D where an axis under a kernel has one voxel, in 3D also
where one has two; outputs and input gradients are always right. Hence `engine.device.training_precision`.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from dataclasses import dataclass
from itertools import product

import torch
from torch.nn import functional

CHANNELS = (1, 2, 3, 8, 16, 24, 32, 48, 64, 96, 128, 160, 256, 320, 512)
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48)
SMALLEST = (1, 2, 3, 4, 6)
WORK = 2e9
"""Multiplications a trial may cost."""
LIMIT = 0.02
"""Relative error a right result stays far below: bfloat16 gives about 0.0017."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution and the map it gets."""

    channels: tuple[int, int]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    shape: tuple[int, ...]
    batch: int
    is_channels_last: bool
    is_transposed: bool


def main() -> None:
    """Prints, for each smallest size, how many trials had a wrong output, input gradient or weight gradient."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs=2, metavar=("DIMENSIONS", "SIZE"), help="in this process")
    options = parser.parse_args()
    if options.only:
        torch.set_num_threads(options.threads)
        count_wrong(*options.only, options.trials, options.seed)
        return
    for dimensions, smallest in product((2, 3), SMALLEST):
        command = [sys.executable, *sys.argv, "--only", str(dimensions), str(smallest)]
        if code := subprocess.run(command, check=False).returncode:
            print(f"{dimensions}D, smallest axis {smallest}: the process died with status {code}", flush=True)


def count_wrong(dimensions: int, smallest: int, trials: int, seed: int) -> None:
    """Prints each wrong layer and the count."""
    torch.manual_seed(seed)
    chance = random.Random(seed)
    wrong = [0, 0, 0]
    for _ in range(trials):
        layer = draw(chance, dimensions, smallest)
        errors = trial(layer)
        for index, error in enumerate(errors):
            wrong[index] += not error < LIMIT
        if not max(errors) < LIMIT:
            print(layer, [f"{error:.2g}" for error in errors], flush=True)
    case = f"{dimensions}D, smallest axis {smallest}"
    print(f"{case}: wrong output, input gradient, weight gradient {wrong} of {trials}", flush=True)


def draw(chance: random.Random, dimensions: int, smallest: int) -> Layer:
    """A random layer whose smallest axis under a kernel larger than 1 has `smallest` voxels."""
    while True:
        is_transposed = chance.random() < 0.15
        first = chance.choice(CHANNELS)
        channels = (first, first if chance.random() < 0.5 else chance.choice(CHANNELS))
        stride = tuple(chance.choice((1, 1, 1, 2)) for _ in range(dimensions))
        kernel = stride if is_transposed else tuple(chance.choice((1, 3, 3, 3)) for _ in range(dimensions))
        shape = tuple(chance.choice(SIZES) for _ in range(dimensions))
        covered = [size for size, width in zip(shape, kernel, strict=True) if width > 1]
        batch = chance.choice((1, 2, 2, 3, 4))
        cost = channels[0] * channels[1] * batch
        for size, width in zip(shape, kernel, strict=True):
            cost *= size * width
        if covered and min(covered) == smallest and cost < WORK:
            return Layer(channels, kernel, stride, shape, batch, chance.random() < 0.8, is_transposed)


def trial(layer: Layer) -> list[float]:
    """Relative errors of output, input gradient and weight gradient; infinite where one is not finite."""
    junk = torch.full((20_000_000,), 1e30)
    del junk
    dimensions = len(layer.shape)
    last = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    layout = last if layer.is_channels_last else torch.contiguous_format
    source, target = layer.channels
    kind = "conv_transpose" if layer.is_transposed else "conv"
    convolve = getattr(functional, f"{kind}{dimensions}d")
    weights = (source, target) if layer.is_transposed else (target, source)
    weight = torch.randn(*weights, *layer.kernel).mul(0.02).bfloat16().contiguous(memory_format=layout)
    image = torch.randn(layer.batch, source, *layer.shape).bfloat16().contiguous(memory_format=layout)
    padding = 0 if layer.is_transposed else [width // 2 for width in layer.kernel]
    gradient: torch.Tensor | None = None
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = [tensor.to(dtype).requires_grad_() for tensor in (image, weight)]
        output = convolve(*inputs, stride=layer.stride, padding=padding)
        gradient = torch.randn_like(output) if gradient is None else gradient.to(dtype)
        results.append([output.detach(), *torch.autograd.grad(output, inputs, gradient)])
    return [_error(found.float(), right) for found, right in zip(*results, strict=True)]


def _error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).norm() / right.norm()) if bool(found.isfinite().all()) else float("inf")


if __name__ == "__main__":
    main()
