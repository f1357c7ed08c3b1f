from __future__ import annotations

import pytest
import torch

from selfcfg.kernels.masking import block_mask


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("size", "block"), [((16, 16), (4, 4)), ((8, 16, 16), (2, 4, 8))])
def test_whole_blocks_are_hidden_the_same_share_in_each_image(size: tuple[int, ...], block: tuple[int, ...]) -> None:
    mask = block_mask(5, size, block, 0.25, drawn())
    assert mask.shape == (5, 1, *size) and mask.dtype == torch.bool
    assert mask.flatten(1).float().mean(1).tolist() == [0.25] * 5
    blocks = mask[:, 0]
    for axis, edge in enumerate(block):
        blocks = blocks.unfold(1 + axis, edge, edge)
    inside = blocks.flatten(1 + len(size)).float().mean(-1)
    assert ((inside == 0) | (inside == 1)).all()


def test_blocks_at_the_far_ends_are_cut() -> None:
    mask = block_mask(50, (10, 7), (4, 4), 0.5, drawn())
    assert mask.shape == (50, 1, 10, 7)
    assert torch.equal(mask[..., 8, :4], mask[..., 9, :4])


def test_every_block_is_hidden_as_often() -> None:
    share = block_mask(2000, (8, 8), (4, 4), 0.5, drawn()).float().mean(0)
    assert share.min() > 0.45 and share.max() < 0.55


@pytest.mark.parametrize(("ratio", "hidden"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_something_is_hidden_and_something_is_left(ratio: float, hidden: int) -> None:
    assert block_mask(3, (8, 8), (4, 4), ratio, drawn()).flatten(1).sum(1).tolist() == [16 * hidden] * 3


def test_the_generator_decides() -> None:
    first, again, other = (block_mask(2, (16, 16), (2, 2), 0.5, drawn(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(block_mask(2, (16, 16), (2, 2), 0.5), first)
