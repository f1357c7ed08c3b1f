"""How near a U-Net's forward pass is to what the processor can multiply at all: the limit of prediction without a GPU.

    python benchmarks/forward_limit.py --model EXPERIMENT [--threads 2] [--rounds 5]

EXPERIMENT is a trained model, such as the one that `performance.py` leaves in ``DIR/coarse/results``. Prints, for
float32 and bfloat16, the arithmetic of one tile (two operations a multiplication), the fastest of the rounds, and the
share of the speed of a product of two square matrices.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from selfcfg.engine.device import autocast
from selfcfg.engine.prediction.loading import load_model

SIDE = 3072


def fastest(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of several rounds."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


@torch.inference_mode()
def told(folder: Path, precision: str, dtype: torch.dtype, rounds: int) -> str:
    """One line: time and arithmetic of a tile, and their share of the speed of a matrix product."""
    model = load_model(folder, device="cpu", precision=precision)
    configuration = model.configuration
    channels, patch = model.plan.input_channels(configuration), configuration.patch_size
    image, square = torch.randn(1, channels, *patch), torch.randn(SIDE, SIDE).to(dtype)
    operations = 2 * configuration.topology.multiplications(patch, channels)
    with autocast(torch.device("cpu"), precision):
        tile = fastest(lambda: model.networks[0](image), rounds)
    product = 2 * SIDE**3 / fastest(lambda: square @ square, rounds)
    speed = operations / tile
    return (
        f"{precision}: a tile of {'x'.join(map(str, patch))} takes {tile:.2f} s for {operations / 1e9:.0f} GFLOP: "
        f"{speed / 1e9:.0f} GFLOP/s, {speed / product:.0%} of the {product / 1e9:.0f} GFLOP/s of a matrix product"
    )


def main() -> None:
    """Prints a line a precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        print(told(options.model, precision, dtype, options.rounds))


if __name__ == "__main__":
    main()
