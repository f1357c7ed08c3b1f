"""Where a stream of batches draws its patches from: the preprocessed cases of one dataset or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from selfcfg.engine.data.stored_array import StoredArray
from selfcfg.engine.trainer import Need
from selfcfg.image_targets import Values
from selfcfg.plan import Plan

Phase = Literal["training", "validation"]


@dataclass(frozen=True)
class Domain:
    """The preprocessed cases of one dataset.

    Args:
        store_folder: where they are.
        training: case ids drawn from in training.
        validation: case ids drawn from in validation.
        group: index of the group of related datasets that it belongs to.
        soft: folder of what teachers say of each training case, on the grid of its preprocessed image; None without.
    """

    store_folder: Path
    training: tuple[str, ...]
    validation: tuple[str, ...] = ()
    group: int = 0
    soft: Path | None = None

    def cases(self, phase: Phase) -> tuple[str, ...]:
        """The case ids of a phase."""
        return self.training if phase == "training" else self.validation

    def soft_targets(self, case: str) -> StoredArray | None:
        """What teachers say of a case, float32 (F, Z, Y, X), to be read by slicing."""
        return None if self.soft is None else StoredArray(self.soft / f"{case}.b2nd", np.float32)


@dataclass(frozen=True)
class Source:
    """Where one stream of batches comes from.

    Args:
        domains: datasets, each as likely as any other whatever its size.
        need: what the trainer wants of the stream.
        previous: folder of the previous stage's label map of each case, on the grid of its preprocessed image: in a
            cascade; else None.
        plan: of images whose labels are not those of the run's plan; None: the run's.
        image_values: the image-level values of its cases; None in a stream that does not need them.
    """

    domains: tuple[Domain, ...]
    need: Need
    previous: Path | None = None
    plan: Plan | None = None
    image_values: Values | None = None

    def drawn_from(self, phase: Phase) -> tuple[int, ...]:
        """Indices of the domains that have cases in a phase; none: the stream is left out of it."""
        if phase == "training" and self.need.validation_only:
            return ()
        return tuple(index for index, domain in enumerate(self.domains) if domain.cases(phase))

    def image_targets(self, cases: Sequence[str]) -> Tensor | None:
        """What `Batch.image_targets` says of patches of these cases."""
        return None if self.image_values is None else torch.tensor([self.image_values[case] for case in cases])

    def previous_labels(self, case: str) -> StoredArray | None:
        """The previous stage's label map of a case, int16 (Z, Y, X), to be read by slicing."""
        return None if self.previous is None else StoredArray(self.previous / f"{case}.b2nd", np.int16)
