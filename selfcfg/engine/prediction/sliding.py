"""A network moved over a whole image: overlapping tiles, mirrored copies, and the mean of several networks.

Logits come out a few planes at a time, as soon as no further tile touches them, so memory is bounded by one row of
tiles however long the image is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from selfcfg.engine.device import autocast
from selfcfg.kernels.tiles import tile_weights
from selfcfg.kernels.uncertainty import disagreement, entropy, probabilities_of

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Disagreement:
    """That it is to be told how far networks and mirrored copies disagree.

    Args:
        exclusive: whether the classes exclude each other; else they are regions.
        temperature: that the logits are divided by.
    """

    exclusive: bool
    temperature: float = 1.0


@dataclass(frozen=True)
class Window:
    """How networks see an image.

    Args:
        patch: voxels of a tile, one number an axis of the network (2 or 3).
        n_outputs: channels of the logits.
        mirror_axes: image axes (0 = first of three) along which mirrored copies are predicted too; all their subsets
            are averaged. Axis 0 has no meaning for a 2D network and is left out.
        step: largest distance between neighbouring tiles, in tile lengths.
        batch: tiles (times mirrored copies) in one forward pass.
        precision: "float32" or "bfloat16", what the networks compute in.
        disagreement: where asked for, the logits have one channel more, see `slide`.
    """

    patch: tuple[int, ...]
    n_outputs: int
    mirror_axes: tuple[int, ...] = ()
    step: float = 0.5
    batch: int = 1
    precision: str = "float32"
    disagreement: Disagreement | None = None

    @property
    def n_channels(self) -> int:
        """Channels of what comes out."""
        return self.n_outputs + (self.disagreement is not None)

    @property
    def tile(self) -> tuple[int, int, int]:
        """Voxels of a tile along the three image axes; a 2D network sees one plane at a time."""
        z, y, x = self.patch if len(self.patch) == 3 else (1, *self.patch)
        return z, y, x

    @property
    def mirrors(self) -> tuple[tuple[int, ...], ...]:
        """The sets of axes of a (Z, Y, X) tile that are flipped in turn; the first is empty."""
        axes = [axis for axis in self.mirror_axes if axis >= 3 - len(self.patch)]
        sizes = range(len(axes) + 1)
        return tuple(itertools.chain.from_iterable(itertools.combinations(axes, size) for size in sizes))


def slide(
    networks: Sequence[nn.Module],
    image: Image,
    window: Window,
    device: torch.device,
    memory: torch.device | None = None,
) -> Iterator[Tensor]:
    """Yields the logits of an image, (z, n_outputs, Y, X) float32, some planes of axis 0 at a time and in order.

    At each voxel they are the mean over networks and mirrored copies, and the Gaussian-weighted mean over tiles. What
    is yielded is valid until the next slab is asked for. An axis shorter than the tile is padded with zeros on both
    sides.

    Where it is asked for, the last channel holds how far the networks and mirrored copies that see the same tile
    disagree: the entropy of their mean probabilities less their mean entropy, as a share of the largest entropy. It is
    averaged over tiles like the logits; 0 where there is but one network and no mirrored copy. The mean of
    probabilities is taken for this, not of logits, since only then it cannot be below 0.

    Args:
        networks: each maps (B, C, [Z,] Y, X) to (B, n_outputs, [Z,] Y, X); in evaluation mode and on `device`.
        image: (C, Z, Y, X), preprocessed.
        window: how the networks see it.
        device: where the networks are.
        memory: where logits are added up; `device` by default.

    Source: nnU-Net v2.8.1, section 2.15; adding up and finalising row by row: our choice, the same mean.
    """
    memory = memory or device
    padded, inside = _pad(image, window.tile)
    axes = [_sides(size, tile, window, memory) for size, tile in zip(padded.shape[1:], window.tile, strict=True)]
    rows = list(_rows(axes[0], window, padded.shape[1]))
    depth = max(row[-1].start - row[0].start for row, _ in rows) + window.tile[0]
    planes = torch.zeros((depth, window.n_channels, *padded.shape[2:]), device=memory)
    first = 0
    for row, finished in rows:
        tiles = [_Tile(z, y, x) for z in row for y in axes[1] for x in axes[2]]
        for tile, logits in _told(_forward(networks, padded, tiles, window, device), window):
            z, y, x = tile.box()
            values = logits.to(memory).transpose(0, 1)
            planes[z.start - first : z.stop - first, :, y, x].addcmul_(values, tile.weight())
        slab = planes[max(inside[0].start - first, 0) : min(finished, inside[0].stop) - first]
        if len(slab):
            yield slab[:, :, inside[1], inside[2]]
        _advance(planes, finished - first)
        first = finished


@dataclass(frozen=True)
class _Side:
    """One tile along one axis: its first voxel, and the weight of each of its voxels."""

    start: int
    weight: Tensor


@dataclass(frozen=True, eq=False)
class _Tile:
    z: _Side
    y: _Side
    x: _Side

    def box(self) -> tuple[slice, slice, slice]:
        """The voxels of the tile in the padded image."""
        z, y, x = (slice(side.start, side.start + len(side.weight)) for side in (self.z, self.y, self.x))
        return z, y, x

    def weight(self) -> Tensor:
        """(Z, 1, Y, X): the product of the weights of its sides."""
        return self.z.weight[:, None, None, None] * (self.y.weight[:, None] * self.x.weight)


def _pad(image: Image, tile: tuple[int, int, int]) -> tuple[Image, tuple[slice, ...]]:
    """The image with zeros around so that no axis is shorter than the tile, and the place of the image in it."""
    missing = [max(size - length, 0) for size, length in zip(tile, image.shape[1:], strict=True)]
    inside = tuple(slice(lack // 2, lack // 2 + size) for lack, size in zip(missing, image.shape[1:], strict=True))
    if not any(missing):
        return image, inside
    return np.pad(image, [(0, 0), *((lack // 2, lack - lack // 2) for lack in missing)]), inside


def _sides(length: int, tile: int, window: Window, memory: torch.device) -> list[_Side]:
    starts, weights = tile_weights(length, tile, 1.0 if tile == 1 else window.step)
    return [_Side(start, torch.from_numpy(weight).to(memory)) for start, weight in zip(starts, weights, strict=True)]


def _rows(sides: list[_Side], window: Window, length: int) -> Iterator[tuple[list[_Side], int]]:
    """Tiles along axis 0 that are added up together, and the plane up to which all is finished after them."""
    size = 1 if len(window.patch) == 3 else window.batch
    for index in range(0, len(sides), size):
        following = sides[index + size].start if index + size < len(sides) else length
        yield sides[index : index + size], following


def _advance(planes: Tensor, finished: int) -> None:
    """Drops the first planes, moves the others to the front and leaves zeros behind them."""
    kept = len(planes) - finished
    for index in range(kept):
        planes[index] = planes[index + finished]
    planes[kept:] = 0


def _told(shares: Iterator[tuple[_Tile, Tensor]], window: Window) -> Iterator[tuple[_Tile, Tensor]]:
    """The shares of `_forward`; where asked for, with one channel of disagreement instead of what it is made of."""
    asked = window.disagreement
    if asked is None:
        yield from shares
        return
    summed: Tensor | None = None
    for number, (tile, values) in enumerate(shares):
        logits, sums = values[: window.n_outputs], values[window.n_outputs :]
        summed = sums if summed is None else summed + sums
        told = torch.zeros_like(logits[:1])
        if (number + 1) % len(window.mirrors) == 0:
            told = disagreement(summed[:-1], summed[-1], 0, exclusive=asked.exclusive)[None]
            summed = None
        yield tile, torch.cat([logits, told])


def _forward(
    networks: Sequence[nn.Module], image: Image, tiles: list[_Tile], window: Window, device: torch.device
) -> Iterator[tuple[_Tile, Tensor]]:
    """Yields, for each tile and mirrored copy, its share (n_outputs, Z, Y, X) of the mean over copies and networks.

    Where disagreement is asked for, the shares of the probabilities and of the entropy are channels behind.
    """
    passes = itertools.product(tiles, window.mirrors)
    while chunk := list(itertools.islice(passes, window.batch)):
        views = {tile: torch.from_numpy(image[(slice(None), *tile.box())]).to(device) for tile, _ in chunk}
        batch = torch.stack([_flip(views[tile], axes) for tile, axes in chunk])
        for (tile, axes), logits in zip(chunk, _mean_logits(networks, batch, window, device), strict=True):
            yield tile, _flip(logits, axes)


@torch.inference_mode()
def _mean_logits(networks: Sequence[nn.Module], batch: Tensor, window: Window, device: torch.device) -> Tensor:
    """The mean over networks, by the number of mirrored copies: (B, n_outputs, Z, Y, X) float32; see `_forward`."""
    flat = len(window.patch) == 2
    share = 1 / (len(networks) * len(window.mirrors))
    n_channels = window.n_outputs if window.disagreement is None else 2 * window.n_outputs + 1
    total = torch.zeros((len(batch), n_channels, *(batch.shape[3:] if flat else batch.shape[2:])), device=device)
    for network in networks:
        with autocast(device, window.precision):
            logits = network(batch[:, :, 0] if flat else batch)
        total[:, : window.n_outputs].add_(logits, alpha=share)
        if window.disagreement is not None:
            total[:, window.n_outputs :].add_(_doubted(logits, window.disagreement), alpha=share)
    return total[:, :, None] if flat else total


def _doubted(logits: Tensor, asked: Disagreement) -> Tensor:
    """The probabilities of logits and behind them their entropy, (B, n_outputs + 1, ...) float32."""
    found = probabilities_of(logits.float(), 1, exclusive=asked.exclusive, temperature=asked.temperature)
    return torch.cat([found, entropy(found, 1, exclusive=asked.exclusive)[:, None]], 1)


def _flip(volume: Tensor, axes: tuple[int, ...]) -> Tensor:
    """A (C, Z, Y, X) volume flipped along some of its three image axes."""
    return volume.flip([axis + 1 for axis in axes]) if axes else volume
