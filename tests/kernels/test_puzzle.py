"""Tiles of images: every one comes to its place, mirrored where it should be, with gaps around."""

from __future__ import annotations

import itertools

import pytest
import torch

from selfcfg.kernels.puzzle import Draw, Tiling, draw, far_permutations, put_together

SIZES = [(16, 24), (13, 17), (8, 16, 12)]


def untouched(tiling: Tiling, count: int) -> Draw:
    shape = (count, tiling.n_tiles, len(tiling.grid))
    order = torch.arange(tiling.n_tiles).expand(count, -1)
    return Draw(order, torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.int64))


def test_all_permutations_of_few_tiles_and_the_farthest_of_many() -> None:
    assert sorted(map(tuple, far_permutations(4, 100).tolist())) == sorted(itertools.permutations(range(4)))
    many = far_permutations(8, 100)
    assert many[0].tolist() == list(range(8)) and torch.equal(many, far_permutations(8, 100))
    apart = (many[:, None] != many).sum(2) + 8 * torch.eye(100, dtype=torch.int64)
    assert apart.min() >= 5, "no two are alike in more than three places"
    assert (far_permutations(27, 10).sort(1).values == torch.arange(27)).all()


def test_thin_axes_are_not_cut() -> None:
    tiling = Tiling.of((6, 64, 64), 2, 0.1)
    assert tiling.grid == (1, 2, 2) and tiling.edge == (6, 32, 32) and tiling.gap == (0, 3, 3)
    which, drawn = draw(5, tiling, far_permutations(4, 24), torch.Generator().manual_seed(0))
    assert which.shape == (5,) and not drawn.flips[..., 0].any() and drawn.flips[..., 1:].any()
    assert drawn.offsets[..., 1:].amax() == 3 and not drawn.offsets[..., 0].any()


@pytest.mark.parametrize("size", SIZES)
def test_a_puzzle_is_as_by_hand(size: tuple[int, ...]) -> None:
    """Each place of the result against a tile that is cut, mirrored and standardised by itself."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 2, *size, generator=generator)
    tiling = Tiling.of(size, 2, 0.2)
    _, drawn = draw(3, tiling, far_permutations(tiling.n_tiles, 24), generator)
    found = put_together(images, tiling, drawn)
    empty = torch.ones_like(found, dtype=torch.bool)
    edges = zip(tiling.grid, tiling.edge, strict=True)
    corners = list(itertools.product(*(range(0, count * edge, edge) for count, edge in edges)))
    for image, (place, corner) in itertools.product(range(3), enumerate(corners)):
        source = corners[drawn.order[image, place]]
        offsets, flips = drawn.offsets[image, place].tolist(), drawn.flips[image, place].tolist()
        starts = zip(source, offsets, tiling.kept, strict=True)
        cut = [slice(start + offset, start + offset + n) for start, offset, n in starts]
        tile = images[(image, slice(None), *cut)].flip([1 + axis for axis, flip in enumerate(flips) if flip])
        space = tuple(range(1, tile.dim()))
        tile = (tile - tile.mean(space, keepdim=True)) / tile.std(space, correction=0, keepdim=True)
        there = [
            slice(start + gap // 2, start + gap // 2 + n)
            for start, gap, n in zip(corner, tiling.gap, tiling.kept, strict=True)
        ]
        torch.testing.assert_close(found[(image, slice(None), *there)], tile)
        empty[(image, slice(None), *there)] = False
    assert empty.any() and not found[empty].any()


def test_neighbouring_tiles_do_not_touch() -> None:
    tiling = Tiling.of((20, 20), 2, 0.1)
    found = put_together(torch.randn(1, 1, 20, 20), tiling, untouched(tiling, 1))[0, 0]
    assert not found[9].any() and not found[:, 9].any(), "the last row and column of the first tiles' places"


def test_a_constant_tile_is_finite() -> None:
    tiling = Tiling.of((16, 16), 2, 0.1)
    assert put_together(torch.full((1, 1, 16, 16), 3.0), tiling, untouched(tiling, 1)).isfinite().all()
