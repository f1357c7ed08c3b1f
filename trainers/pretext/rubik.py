"""A puzzle of tiles: in which order they were put together, and which of them were mirrored."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from pydantic import Field
from torch import Tensor

from selfcfg.engine.augmentation.transforms import Augmentation
from selfcfg.engine.trainer import OWN, Batch, Datasets, Need, Parts
from selfcfg.errors import UsageError
from selfcfg.geometry import times
from selfcfg.kernels.puzzle import LEAST_EDGE, Tiling, draw, far_permutations, put_together
from selfcfg.nets.heads import TileHead
from selfcfg.plan import Configuration, Plan
from selfcfg.trainers.pretext.task import Task, TaskSettings

UPRIGHT = Augmentation(
    rotation_p=0.5, rotation_3d=math.radians(10), rotation_2d=math.radians(10), rotation_elongated=math.radians(10),
    scale_p=0.5, mirror_p=0,
)  # fmt: skip
"""What patches are augmented with: never mirrored and little turned, for that is what is asked for."""


class RubikSettings(TaskSettings):
    """How images are cut."""

    pieces: int = Field(2, ge=2, le=4, description="tiles along each axis that is long enough")
    permutations: int = Field(100, ge=2, description="orders of the tiles that are told apart, or all if fewer")
    gap: float = Field(0.1, gt=0, le=0.5, description="between tiles, in parts of their edge; a voxel at least")


class Rubik(Task[RubikSettings]):
    """Tells in which order tiles were put together to an image, and along which axes each was mirrored.

    The tiles are put together to one image, which the encoder sees as a whole. Against shortcuts there are gaps between
    tiles, what is shown of a tile is cut at random, and each tile is standardised.

    Source: Zhuang et al., Self-supervised Feature Learning for 3D Medical Images by Playing a Rubik's Cube, 2019: cells
    exchanged and turned, told by one class of order and flags for each axis. Our choice: one image in place of a
    network a cell, since small tiles do not pass a deep encoder; mirroring in place of half turns, in 2D too.
    """

    name: ClassVar[str] = "rubik"
    splits: ClassVar[bool] = True
    settings_type: ClassVar[type[TaskSettings]] = RubikSettings
    terms: ClassVar[tuple[str, ...]] = ("order", "flips")
    need: ClassVar[Need] = Need(targets=False, transforms=UPRIGHT)

    def __init__(
        self, settings: RubikSettings, plan: Plan, configuration: Configuration, datasets: Datasets = OWN
    ) -> None:
        super().__init__(settings, plan, configuration, datasets)
        self.tiling = Tiling.of(configuration.patch_size, settings.pieces, settings.gap)
        self._cut = [axis for axis, count in enumerate(self.tiling.grid) if count > 1]
        if not self._cut:
            raise UsageError(
                "task 'rubik'",
                f"tiles of a patch of {times(configuration.patch_size)} voxels would be thinner than {LEAST_EDGE}",
                "give larger patches, or fewer pieces",
            )
        self._permutations = far_permutations(self.tiling.n_tiles, settings.permutations)

    def build(self, parts: Parts) -> None:
        """Adds "solution", which looks at each tile."""
        grid, n_orders = self.tiling.grid, len(self._permutations)
        parts["solution"] = TileHead(self.configuration.topology, grid, n_orders, len(self._cut))

    def losses(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The terms "order", a cross entropy, and "flips", the mean binary cross entropy of all tiles and axes."""
        solved = self._solved(parts, batch.image)
        order = F.cross_entropy(solved.order.float(), solved.which)
        return {"order": order, "flips": F.binary_cross_entropy_with_logits(solved.flips.float(), solved.flipped)}

    def scores(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """The share of images whose order is told, and the share of flips (0.5 by chance); always the same puzzles."""
        solved = self._solved(parts, batch.image, torch.Generator().manual_seed(0))
        found = {
            "order accuracy": solved.order.argmax(1) == solved.which,
            "flip accuracy": (solved.flips > 0) == (solved.flipped > 0),
        }
        return {name: right.float().mean() for name, right in found.items()}

    def _solved(self, parts: Parts, image: Tensor, generator: torch.Generator | None = None) -> _Solved:
        which, drawn = draw(len(image), self.tiling, self._permutations, generator)
        order, flips = parts["solution"](parts["encoder"](put_together(image, self.tiling, drawn)))
        return _Solved(order, which.to(image.device), flips, drawn.flips[..., self._cut].float().to(image.device))


class _Solved(NamedTuple):
    """Logits and truth: of the order (B, P) and (B,), of the flips (B, T, axes that are cut) both."""

    order: Tensor
    which: Tensor
    flips: Tensor
    flipped: Tensor
