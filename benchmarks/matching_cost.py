"""What each way of matching gradients costs: time and memory of a step, in parts of those of the plain sum.

    python benchmarks/matching_cost.py [--only 2d,3d,residual_3d] [--steps 5] [--rounds 4]

One step is the losses and gradients of one batch of the trainer `reference_guided` with the task `masked`, on noise;
the optimiser is left out. The ways take turns, and of each the fastest step counts, so that other work on the machine
changes little. Memory is that of storages kept for backward passes at once. A line a way goes to
``benchmarks/results/matching_cost.jsonl``.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from recording import append
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from selfcfg.engine.trainer import Batch, Parts
from selfcfg.engine.training.optimisation import seed_globals
from selfcfg.testing import DATASETS, MemoryBatches, small_plan
from selfcfg.topology import Topology
from selfcfg.trainers.reference_guided import GuidedSettings, ReferenceGuided

WAYS: dict[str, dict[str, Any]] = {
    "sum": {"matching": "sum"},
    "fish": {"matching": "fish"},
    "pcgrad": {"matching": "pcgrad"},
    "cosine, all": {"matching": "cosine", "matching_stages": None},
    "cosine, last 2": {"matching": "cosine", "matching_stages": 2},
    "cosine, last": {"matching": "cosine", "matching_stages": 1},
    "l2, all": {"matching": "l2", "matching_stages": None},
    "l2, last 2": {"matching": "l2", "matching_stages": 2},
}
"""Each matches in every step; with matching_every = k, of what is beyond the sum 1 / k is left."""

FEATURES = (16, 32, 64, 128)


@dataclass(frozen=True)
class Network:
    """A network and its batches."""

    dimensions: int
    kind: str
    patch: int
    batch: int


NETWORKS = {
    "2d": Network(2, "plain", 64, 8),
    "3d": Network(3, "plain", 32, 2),
    "residual_3d": Network(3, "residual", 32, 2),
}


class Saved:
    """The bytes of storages kept for backward passes, at most at once; one that is kept several times counts once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.kept: Counter[int] = Counter()

    def pack(self, tensor: Tensor) -> Kept:
        """Counts a tensor for as long as it is kept."""
        return Kept(tensor, self)


class Kept:
    """A tensor that is kept."""

    def __init__(self, tensor: Tensor, saved: Saved) -> None:
        self.tensor, self.saved = tensor, saved
        storage = tensor.untyped_storage()
        self.place, self.bytes = storage.data_ptr(), storage.nbytes()
        saved.kept[self.place] += 1
        if saved.kept[self.place] == 1:
            saved.now += self.bytes
            saved.most = max(saved.most, saved.now)

    def __del__(self) -> None:
        self.saved.kept[self.place] -= 1
        if not self.saved.kept[self.place]:
            self.saved.now -= self.bytes


def trainer_of(network: Network, settings: dict[str, Any]) -> ReferenceGuided:
    """A trainer on one network."""
    plan, n = small_plan(network.dimensions), network.dimensions
    topology = Topology(
        kind=network.kind,
        features=FEATURES,
        kernel_sizes=((3,) * n,) * len(FEATURES),
        strides=((1,) * n, *[(2,) * n] * (len(FEATURES) - 1)),
        encoder_blocks=(2,) * len(FEATURES),
        decoder_blocks=(2,) * (len(FEATURES) - 1),
    )
    sizes = {"patch_size": (network.patch,) * n, "batch_size": network.batch, "topology": topology}
    configuration = plan.configurations["small"].model_copy(update=sizes)
    typed = GuidedSettings(matching_warmup=0, matching_every=1, **settings)
    return ReferenceGuided(typed, plan, configuration, DATASETS)


def step(trainer: ReferenceGuided, parts: Parts, streams: dict[str, Batch]) -> float:
    """The seconds of one batch's losses and gradients."""
    parts.zero_grad()
    seed_globals(0, "step", 0)
    began = time.perf_counter()
    for terms in trainer.losses(parts, streams):
        trainer.backward(terms, parts)
    return time.perf_counter() - began


def measured(network: Network, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds and bytes of a step by each way."""
    trainers = {name: trainer_of(network, settings) for name, settings in WAYS.items()}
    one = trainers["sum"]
    needs = one.needs_for(one.settings)
    streams = next(MemoryBatches(needs, one.configuration, one.plan).training(0, 1))
    found: dict[str, dict[str, float]] = {}
    built = {}
    for name, trainer in trainers.items():
        seed_globals(0, "build", 0)
        built[name], saved = trainer.build(), Saved()
        with saved_tensors_hooks(saved.pack, lambda kept: kept.tensor):
            step(trainer, built[name], streams)
        found[name] = {"seconds": float("inf"), "bytes": saved.most}
    for _ in range(rounds):
        for name, trainer in trainers.items():
            seconds = min(step(trainer, built[name], streams) for _ in range(steps))
            found[name]["seconds"] = min(found[name]["seconds"], seconds)
    return found


def main() -> None:
    """Every way on every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(NETWORKS))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only.split(","):
        found = measured(NETWORKS[name], options.steps, options.rounds)
        plain = found["sum"]
        for way, cost in found.items():
            ratios = {"time": cost["seconds"] / plain["seconds"], "memory": cost["bytes"] / plain["bytes"]}
            row = {"network": name, "way": way, "seconds": cost["seconds"], "saved_bytes": int(cost["bytes"])}
            append("matching_cost.jsonl", {**row, **{key: round(ratio, 2) for key, ratio in ratios.items()}})


if __name__ == "__main__":
    main()
