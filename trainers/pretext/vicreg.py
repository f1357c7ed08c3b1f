"""Variance, invariance, covariance: two views of an image are to be alike, and vectors to vary in every component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from pydantic import Field
from torch import Tensor

from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts
from selfcfg.kernels import ranks
from selfcfg.kernels.contrast import contrast, spread
from selfcfg.kernels.redundancy import among, covariance, too_little_variance, without_mean
from selfcfg.nets.heads import GlobalHead, Queue
from selfcfg.plan import Configuration, Plan
from selfcfg.trainers.momentum import STRONG
from selfcfg.trainers.pretext.task import Task, TaskSettings


class VicregSettings(TaskSettings):
    """The weights of the three terms, and what their statistics are over."""

    invariance_weight: float = Field(25.0, ge=0, description="weight of the distance of two views")
    variance_weight: float = Field(25.0, ge=0, description="weight of the lack of variance")
    covariance_weight: float = Field(1.0, ge=0, description="weight of the covariance of components")
    width: int = Field(128, ge=2, description="length of the vectors")
    hidden: int = Field(512, ge=1, description="width of the layer before them")
    earlier: int = Field(256, ge=1, description="vectors of earlier patches that variance and covariance also look at")


class Vicreg(Task[VicregSettings]):
    """Brings the vectors of two views of each patch together, while their components vary and do not repeat each other.

    Source: Bardes, Ponce and LeCun, VICReg, 2022, with its weights; as in its code, the variances of the two views are
    averaged and their covariances added. Our choice for batches of a few patches, whose statistics say little: they are
    taken over the batch and vectors of earlier patches, each batch without its own mean; and a smaller expander. The
    mean moves as the encoder learns, which would count as variance (our explanation). Measured once on slices of
    hippocampus MR, 60 steps of 16 patches: with a moving mean taken off instead, the term "variance" rose from 0.90 to
    0.93 and more (0.99: all vectors are one); so it falls, unsteadily, to 0.64.
    """

    name: ClassVar[str] = "vicreg"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[TaskSettings]] = VicregSettings
    terms: ClassVar[tuple[str, ...]] = ("invariance", "variance", "covariance")
    need: ClassVar[Need] = Need(targets=False, views=2, shift=0.25, transforms=STRONG)
    is_regression: ClassVar[bool] = True
    weight: ClassVar[float] = 0.01

    def __init__(
        self, settings: VicregSettings, plan: Plan, configuration: Configuration, datasets: Datasets = OWN
    ) -> None:
        super().__init__(settings, plan, configuration, datasets)
        self._seen: list[Tensor] = []

    def build(self, parts: Parts) -> None:
        """Adds the "expander", and the "queue" of its earlier vectors."""
        self._seen.clear()
        settings = self.settings
        parts["expander"] = GlobalHead(self.configuration.topology, settings.width, settings.hidden)
        parts["queue"] = Queue(settings.earlier, settings.width)

    def weights(self) -> Mapping[str, float]:
        """As the settings say."""
        return {name: getattr(self.settings, f"{name}_weight") for name in self.terms}

    def losses(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The terms "invariance", a mean squared distance, "variance" and "covariance"."""
        queue = cast(Queue, parts["queue"])
        views = self._vectors(parts, batch)
        centred = [without_mean(one) for one in views]
        self._seen += [one.detach() for one in centred]
        populations = [among(one, queue.vectors[queue.filled]) for one in centred]
        return {
            "invariance": F.mse_loss(*views),
            "variance": torch.stack([too_little_variance(one) for one in populations]).mean(),
            "covariance": torch.stack([covariance(one) for one in populations]).sum(),
        }

    def after_step(self, parts: Parts) -> None:
        """The vectors of this step go into the queue."""
        vectors = torch.cat(self._seen)
        cast(Queue, parts["queue"]).push(vectors, vectors.new_zeros((len(vectors), 1)))
        self._seen.clear()

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The share of patches whose own second view is nearest, in the batch, and the spread (0: collapsed)."""
        first, second = (without_mean(one) for one in self._vectors(parts, batch))
        itself = torch.eye(len(first), dtype=torch.bool, device=first.device)
        queue = cast(Queue, parts["queue"])
        vectors = torch.cat([second, queue.vectors[queue.filled]])
        return {"view accuracy": contrast(first, second, itself, 1.0).accuracy, "spread": spread(vectors)}

    def _vectors(self, parts: Parts, batch: Batch) -> tuple[Tensor, Tensor]:
        """The vectors of both views of the whole batch."""
        both = torch.cat([batch.image, batch.views[0]])
        first, second = parts["expander"](parts["encoder"](both)).float().chunk(2)
        return ranks.gathered(first), ranks.gathered(second)
