"""Momentum contrast: two views of one image are to be alike, and unlike all other images."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor

from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts
from selfcfg.kernels.contrast import Contrast, contrast, spread
from selfcfg.nets.heads import Queue
from selfcfg.plan import Configuration, Plan
from selfcfg.trainers.momentum import STRONG, Momentum, add_contrast, follow_both, vectors_of
from selfcfg.trainers.pretext.task import Task, TaskSettings


class Moco(Task[Momentum]):
    """Contrasts two views of each patch with each other, all other patches and a queue of earlier ones (MoCo v2).

    Vectors are compared without their moving mean: see `selfcfg.nets.heads.Centre`, without which they collapse here.

    Source: He et al., Momentum Contrast, 2020; Chen et al., Improved Baselines with Momentum Contrastive Learning,
    2020: an MLP on top, stronger changes. Our choice for small data and few steps: a queue of 1024, temperature 0.1,
    momentum 0.9; of slices of hippocampus MR 0.19 were told from 1040 others after 400 steps, with MoCo v2's
    temperature of 0.2 and momentum 0.99 it were 0.11. The network has no batch norm, so that batches need not be
    shuffled. The second view is moved by a quarter of the patch at most along each axis.
    """

    name: ClassVar[str] = "moco"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[TaskSettings]] = Momentum
    terms: ClassVar[tuple[str, ...]] = ("contrast",)
    need: ClassVar[Need] = Need(targets=False, views=2, shift=0.25, transforms=STRONG)

    def __init__(self, settings: Momentum, plan: Plan, configuration: Configuration, datasets: Datasets = OWN) -> None:
        super().__init__(settings, plan, configuration, datasets)
        self._keys: list[Tensor] = []

    def build(self, parts: Parts) -> None:
        """Adds "projection", the slow copies of it and the encoder, the "centre" of the vectors, and the "queue"."""
        self._keys.clear()
        add_contrast(parts, self.configuration.topology, self.settings)

    def losses(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The term "contrast": InfoNCE of each patch's views against the other patches and the queue, in nats."""
        compared, keys = self._compared(parts, batch)
        self._keys.append(keys)
        return {"contrast": compared.loss}

    def after_step(self, parts: Parts) -> None:
        """The slow copies follow, and the keys of this step go into the queue."""
        follow_both(parts, self.settings.follow)
        keys = torch.cat(self._keys)
        cast(Queue, parts["queue"]).push(keys, keys.new_zeros((len(keys), 1)))
        self._keys.clear()

    def started(self, parts: Parts) -> None:
        """The slow copies begin where the first encoder and its projection do, which may have been taken over."""
        follow_both(parts, 0)

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The share of patches whose own second view is nearest, and the spread of the vectors (0: collapsed)."""
        compared, keys = self._compared(parts, batch)
        queue = cast(Queue, parts["queue"])
        vectors = torch.cat([keys, queue.vectors[queue.filled]])
        return {"contrast accuracy": compared.accuracy, "spread": spread(vectors)}

    def _compared(self, parts: Parts, batch: Batch) -> tuple[Contrast, Tensor]:
        """The contrast of a batch, and the vectors of its second views by the slow copies."""
        queries, keys = vectors_of(parts, parts["encoder"](batch.image), batch.views[0])
        queue = cast(Queue, parts["queue"])
        itself = torch.eye(len(keys), dtype=torch.bool, device=keys.device)
        positive = torch.cat([itself, itself.new_zeros((len(keys), len(queue.vectors)))], 1)
        usable = torch.cat([torch.ones_like(itself), queue.filled.expand(len(keys), -1)], 1)
        everything = torch.cat([keys, queue.vectors])
        return contrast(queries, everything, positive, self.settings.temperature, usable), keys
