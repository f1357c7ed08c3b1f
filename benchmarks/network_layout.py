"""Time of a forward and backward pass by precision, memory layout and instance norm; the numbers behind `place`.

Prints, for a 3D and a 2D U-Net of nnU-Net's size, the processor milliseconds of the fastest of several rounds, in which
the variants take turns so that whatever else the machine does hits all of them. On a CPU only.

    python benchmarks/network_layout.py --rounds 3 --threads 1
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import product

import torch
from torch import nn

from selfcfg.engine.device import autocast
from selfcfg.nets import unet
from selfcfg.nets.norm import InstanceNorm2d, InstanceNorm3d
from selfcfg.topology import Topology

SHAPES = {3: (2, 1, 40, 56, 40), 2: (4, 1, 256, 256)}
FEATURES = {3: (32, 64, 128, 256), 2: (32, 64, 128, 256, 512, 512, 512)}
NORMS = {"stock norm": (nn.InstanceNorm2d, nn.InstanceNorm3d), "our norm": (InstanceNorm2d, InstanceNorm3d)}
LAYOUTS = {"contiguous": False, "channels-last": True}
CPU = torch.device("cpu")


def network(dimensions: int, norm: str) -> nn.ModuleDict:
    """A U-Net of nnU-Net's shape with one of the norms."""
    features = FEATURES[dimensions]
    topology = Topology(
        features=features,
        kernel_sizes=((3,) * dimensions,) * len(features),
        strides=((1,) * dimensions, *((2,) * dimensions for _ in features[1:])),
        encoder_blocks=(2,) * len(features),
        decoder_blocks=(2,) * (len(features) - 1),
    )
    unet.InstanceNorm2d, unet.InstanceNorm3d = NORMS[norm]  # type: ignore[assignment, misc]
    torch.manual_seed(0)
    return unet.build_parts(topology, 1, 3)


def layout_of(dimensions: int, is_last: bool) -> torch.memory_format:
    """The memory format in which the weights are put."""
    if not is_last:
        return torch.contiguous_format
    return torch.channels_last if dimensions == 2 else torch.channels_last_3d


def measure(parts: nn.ModuleDict, image: torch.Tensor, precision: str) -> tuple[float, float]:
    """Processor seconds of a forward pass, and of forward and backward together."""
    began = time.process_time()
    with autocast(CPU, precision):
        outputs = parts["head"](parts["decoder"](parts["encoder"](image)))
    forward = time.process_time() - began
    sum(output.float().square().mean() for output in outputs).backward()
    parts.zero_grad()
    return forward, time.process_time() - began


def main() -> None:
    """Measures everything and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    networks = {(dimensions, norm): network(dimensions, norm) for dimensions, norm in product(SHAPES, NORMS)}
    best: dict[tuple[int, str, str, str], tuple[float, float]] = {}
    for _ in range(options.rounds):
        for (dimensions, norm), parts in networks.items():
            for precision, (layout, is_last) in product(("float32", "bfloat16"), LAYOUTS.items()):
                parts.to(memory_format=layout_of(dimensions, is_last))
                found = measure(parts, torch.randn(SHAPES[dimensions]), precision)
                key = (dimensions, precision, layout, norm)
                before = best.get(key, (math.inf, math.inf))
                best[key] = (min(found[0], before[0]), min(found[1], before[1]))
    for (dimensions, precision, layout, norm), (forward, both) in sorted(best.items()):
        print(f"{dimensions}D  {precision:8}  {layout:13}  {norm:10}  {forward * 1e3:6.0f} ms  {both * 1e3:6.0f} ms")


if __name__ == "__main__":
    main()
