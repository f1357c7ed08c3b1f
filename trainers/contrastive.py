"""Momentum contrast: two views of one image are to be alike, and unlike all other images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor

from selfcfg.engine.augment import Augmentation
from selfcfg.engine.trainer import Batch, Need, Parts, Settings
from selfcfg.kernels.contrast import Contrast, contrast, spread
from selfcfg.nets.heads import Centre, GlobalHead, Queue, follow, momentum_copy
from selfcfg.nets.unet import build_parts
from selfcfg.trainers.pretraining import PROBE, UNLABELLED, Pretraining, PretrainingSettings

STRONG = Augmentation(
    rotation_p=0.5, scale_p=0.8, scale=(0.5, 1.4), brightness_p=0.8, brightness=(0.6, 1.4), contrast_p=0.8,
    contrast=(0.6, 1.4), blur_p=0.5, gamma_p=0.5,
)  # fmt: skip
"""What the two views of an image differ in; weaker changes leave the task too easy (our choice, after MoCo v2)."""


class ContrastiveSettings(PretrainingSettings):
    """The settings of pretraining, and those of the contrast."""

    transforms: Augmentation = Field(STRONG, description="how often each transform is drawn, and its range")
    temperature: float = Field(0.2, gt=0, description="that similarities are divided by")
    queue: int = Field(1024, ge=1, description="earlier images that each image is compared with")
    width: int = Field(128, ge=2, description="length of the vectors that are compared")
    follow: float = Field(0.99, ge=0, lt=1, description="how slowly the second encoder follows the first")


class Contrastive(Pretraining[ContrastiveSettings]):
    """Pretrains the encoder by momentum contrast of two views of each patch (MoCo v2).

    Vectors are compared without their moving mean: see `selfcfg.nets.heads.Centre`, without which they collapse here.

    Source: He et al., Momentum Contrast, 2020; Chen et al., Improved Baselines with Momentum Contrastive Learning,
    2020: an MLP on top, stronger changes, temperature 0.2. Our choice for small data: a queue of 1024, momentum 0.99.
    The network has no batch norm, so that batches need not be shuffled. The second
    view is moved by a quarter of the patch at most along each axis.
    """

    name: ClassVar[str] = "contrastive"
    settings_type: ClassVar[type[Settings]] = ContrastiveSettings
    needs: ClassVar[Mapping[str, Need]] = {
        UNLABELLED: Need(targets=False, views=2, shift=0.25),
        PROBE: Need(targets=True, validation_only=True),
    }
    exports: ClassVar[tuple[str, ...]] = ("encoder",)

    def build(self) -> Parts:
        """Encoder and "projection", the slow copies of both, the "centre" of the vectors, and the "queue"."""
        topology, settings = self.configuration.topology, self.settings
        encoder = build_parts(topology, self.n_inputs, 1)["encoder"]
        projection = GlobalHead(topology, settings.width)
        self._keys: list[Tensor] = []
        return torch.nn.ModuleDict(
            {
                "encoder": encoder,
                "projection": projection,
                "slow_encoder": momentum_copy(encoder),
                "slow_projection": momentum_copy(projection),
                "centre": Centre(settings.width),
                "queue": Queue(settings.queue, settings.width),
            }
        )

    def losses(self, parts: Parts, batches: Mapping[str, Batch]) -> Iterator[dict[str, Tensor]]:
        """One group: "contrast", the InfoNCE of each patch's views against the other patches and the queue, in nats."""
        compared, keys = self._compared(parts, batches[UNLABELLED])
        self._keys.append(keys)
        yield {"contrast": compared.loss}

    def after_step(self, parts: Parts) -> None:
        """The slow copies follow, and the keys of this step go into the queue."""
        follow(parts["slow_encoder"], parts["encoder"], self.settings.follow)
        follow(parts["slow_projection"], parts["projection"], self.settings.follow)
        keys = torch.cat(self._keys)
        cast(Queue, parts["queue"]).push(keys, keys.new_zeros((len(keys), 1)))
        self._keys.clear()

    def started(self, parts: Parts) -> None:
        """The slow copies begin where the first encoder and its projection do, which may have been taken over."""
        follow(parts["slow_encoder"], parts["encoder"], 0)
        follow(parts["slow_projection"], parts["projection"], 0)

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The share of patches whose own second view is nearest, and the spread of the vectors (0: collapsed)."""
        compared, keys = self._compared(parts, batch)
        queue = cast(Queue, parts["queue"])
        vectors = torch.cat([keys, queue.vectors[queue.filled]])
        return {"contrast accuracy": compared.accuracy, "spread": spread(vectors)}

    def _compared(self, parts: Parts, batch: Batch) -> tuple[Contrast, Tensor]:
        """The contrast of a batch, and the vectors of its second views by the slow copies."""
        centre = cast(Centre, parts["centre"])
        with torch.no_grad():
            keys = parts["slow_projection"](parts["slow_encoder"](batch.views[0])).float()
            centre.move(keys)
            keys = centre(keys)
        queries = centre(parts["projection"](parts["encoder"](batch.image)))
        queue = cast(Queue, parts["queue"])
        itself = torch.eye(len(keys), dtype=torch.bool, device=keys.device)
        positive = torch.cat([itself, itself.new_zeros((len(keys), len(queue.vectors)))], 1)
        usable = torch.cat([torch.ones_like(itself), queue.filled.expand(len(keys), -1)], 1)
        everything = torch.cat([keys, queue.vectors])
        return contrast(queries, everything, positive, self.settings.temperature, usable), keys
