"""Momentum contrast: what strategies have in common that compare images by slow copies of encoder and projection."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor

from selfcfg.engine.augmentation.transforms import Augmentation
from selfcfg.engine.trainer import Parts
from selfcfg.kernels import ranks
from selfcfg.nets.heads import Centre, GlobalHead, Queue, follow, momentum_copy
from selfcfg.topology import Topology
from selfcfg.trainers.pretext.task import TaskSettings
from selfcfg.trainers.pretraining import TILT, PretrainingSettings

STRONG = Augmentation(
    rotation_p=0.2, scale_p=0.8, brightness_p=0.8, brightness=(0.6, 1.4), contrast_p=0.8, contrast=(0.6, 1.4),
    blur_p=0.5, gamma_p=0.5, mirror_p=0, rotation_2d=TILT, rotation_3d=TILT,
)  # fmt: skip
"""What the two views of an image differ in: much in intensities, as in MoCo v2, and little in place (our choice)."""


class Momentum(TaskSettings):
    """The settings of the contrast."""

    temperature: float = Field(0.1, gt=0, description="that similarities are divided by")
    queue: int = Field(1024, ge=1, description="earlier patches that each patch is compared with")
    width: int = Field(128, ge=2, description="length of the vectors that are compared")
    follow: float = Field(0.9, ge=0, lt=1, description="how slowly the second encoder follows the first")


class MomentumSettings(Momentum, PretrainingSettings):
    """The settings of pretraining, and those of the contrast."""

    transforms: Augmentation = Field(STRONG, description="how often each transform is drawn, and its range")


def add_contrast(parts: Parts, topology: Topology, settings: Momentum, tags: int = 1) -> None:
    """Adds "projection", the slow copies of it and of the encoder, the "centre" of the vectors, and the "queue".

    Args:
        parts: hold the encoder.
        topology: of the encoder.
        settings: width and length.
        tags: numbers that the queue keeps beside each vector.
    """
    parts["projection"] = GlobalHead(topology, settings.width)
    parts["slow_encoder"] = momentum_copy(parts["encoder"])
    parts["slow_projection"] = momentum_copy(parts["projection"])
    parts["centre"] = Centre(settings.width)
    parts["queue"] = Queue(settings.queue, settings.width, tags)


def follow_both(parts: Parts, momentum: float) -> None:
    """The slow copies follow encoder and projection; with momentum 0 they become them."""
    follow(parts["slow_encoder"], parts["encoder"], momentum)
    follow(parts["slow_projection"], parts["projection"], momentum)


def vectors_of(
    parts: Parts, features: list[Tensor], second: Tensor, counted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The queries of first views and the keys of second views, (B, width) each, without their moving mean.

    B is the size of the whole batch where processes share it.

    Args:
        parts: as `add_contrast` made them.
        features: of the first views, by the encoder.
        second: the second views (B, C, [Z,] Y, X).
        counted: bool (B,), the patches of the whole batch whose keys move the mean; None: all.
    """
    centre = cast(Centre, parts["centre"])
    with torch.no_grad():
        keys = ranks.gathered(parts["slow_projection"](parts["slow_encoder"](second)))
        centre.move(keys if counted is None else keys[counted])
        keys = centre(keys)
    return centre(ranks.gathered(parts["projection"](features))), keys
