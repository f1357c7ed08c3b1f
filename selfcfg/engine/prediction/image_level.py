"""What networks say of an image as a whole: their image-level outputs on tiles that cover it, averaged."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from selfcfg.engine.device import autocast
from selfcfg.engine.prediction.sliding import Image, Window
from selfcfg.image_targets import ImageLevel, ImageTarget
from selfcfg.kernels.tiles import tile_starts
from selfcfg.nets.image_head import ImageHead


@dataclass(frozen=True)
class Teller:
    """An encoder with the head that tells image-level targets, both in evaluation mode and on one device."""

    encoder: nn.Module
    head: ImageHead


@torch.inference_mode()
def told_of(tellers: Sequence[Teller], image: Image, window: Window, device: torch.device) -> dict[str, ImageLevel]:
    """What they say of an image (C, Z, Y, X), by target.

    Logits and numbers are averaged over tiles that cover the image, side by side and not mirrored, then over networks;
    numbers in their units, since each network has a scale of its own. A 2D network sees every slice.

    Source: our choice. The mean is what training asked for: each patch was to say what its case is. So tiles that do
    not show the evidence dilute it; a maximum would instead take the one tile that errs most for the truth.
    """
    tiles = _tiles(image, window)
    outputs = torch.stack([_outputs(teller, tiles, window, device) for teller in tellers]).mean(0, keepdim=True)
    head = tellers[0].head
    return {name: _level(head.targets[name], group[0]) for name, group in head.groups(outputs).items()}


def _tiles(image: Image, window: Window) -> list[Image]:
    """The tiles (C, *tile) of an image; an axis shorter than the tile gets zeros on both sides."""
    missing = [max(tile - length, 0) for tile, length in zip(window.tile, image.shape[1:], strict=True)]
    padded = np.pad(image, [(0, 0), *((lack // 2, lack - lack // 2) for lack in missing)])
    starts = [tile_starts(length, tile, 1.0) for length, tile in zip(padded.shape[1:], window.tile, strict=True)]
    return [
        padded[:, *(slice(start, start + tile) for start, tile in zip(corner, window.tile, strict=True))]
        for corner in itertools.product(*starts)
    ]


def _outputs(teller: Teller, tiles: Sequence[Image], window: Window, device: torch.device) -> Tensor:
    """The mean outputs (n,) of one network, numbers in their units."""
    found = []
    for first in range(0, len(tiles), window.batch):
        batch = torch.from_numpy(np.stack(tiles[first : first + window.batch])).to(device)
        with autocast(device, window.precision):
            found.append(teller.head(teller.encoder(batch[:, :, 0] if len(window.patch) == 2 else batch)))
    return teller.head.in_units(torch.cat(found).mean(0, keepdim=True))[0].cpu()


def _level(target: ImageTarget, outputs: Tensor) -> ImageLevel:
    if not target.classes:
        return ImageLevel(value=outputs.item())
    probabilities = dict(zip(target.classes, outputs.double().softmax(0).tolist(), strict=True))
    return ImageLevel(value=max(probabilities, key=probabilities.__getitem__), probabilities=probabilities)
