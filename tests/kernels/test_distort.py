"""Changes that an image is to be restored from."""

from __future__ import annotations

import pytest
import torch

from selfcfg.kernels.distort import Chances, bent, distorted, painted_boxes, shuffled

each = pytest.mark.parametrize("size", [(20, 30), (12, 20, 25), (3, 41)])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@each
def test_bending_keeps_range_and_order(size: tuple[int, ...]) -> None:
    images = torch.randn(4, 2, *size, generator=seeded())
    found = bent(images, seeded(1))
    for old, new in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        torch.testing.assert_close(torch.stack(torch.aminmax(new)), torch.stack(torch.aminmax(old)))
        assert (new.flatten()[old.flatten().argsort()].diff() >= -1e-6).all()
        assert not torch.allclose(new, old, atol=1e-3)


def test_bending_a_constant_leaves_it() -> None:
    assert torch.allclose(bent(torch.full((1, 1, 8, 8), 2.0), seeded()), torch.tensor(2.0))


@each
def test_shuffling_keeps_each_window_and_channels_together(size: tuple[int, ...]) -> None:
    first = torch.randn(2, 1, *size, generator=seeded())
    images = torch.cat([first, 2 * first], 1)
    found = shuffled(images, seeded(1))
    assert not torch.equal(found, images)
    assert torch.equal(found[:, 1], 2 * found[:, 0])
    assert torch.equal(found.flatten(1).sort(1).values, images.flatten(1).sort(1).values)


def test_shuffling_moves_no_voxel_out_of_its_window() -> None:
    rows = torch.arange(40.0).view(1, 1, 40, 1).expand(1, 1, 40, 60)
    moved = (shuffled(rows, seeded()) - rows).abs()
    assert 0 < moved.max() <= 3, "windows are four voxels high"


@each
def test_boxes_are_inside_or_all_but_some(size: tuple[int, ...]) -> None:
    masks = painted_boxes(size, [False, True] * 20, seeded()).flatten(1).float().mean(1)
    assert masks.min() > 0 and masks.max() < 1
    if min(size) > 10:
        assert masks[::2].mean() < masks[1::2].mean()


def test_nothing_happens_without_chances_and_all_is_alike_for_the_same_seed() -> None:
    images = torch.randn(3, 1, 16, 16, generator=seeded())
    assert torch.equal(distorted(images, Chances(0, 0, 0, 0), seeded()), images)
    always = Chances(1, 1, 1, 0.5)
    changed = distorted(images, always, seeded(1))
    assert torch.equal(changed, distorted(images, always, seeded(1)))
    assert all(not torch.equal(one, other) for one, other in zip(changed, images, strict=True))


def test_painted_voxels_tell_nothing_of_the_image() -> None:
    images = torch.rand(2, 1, 30, 30, generator=seeded())
    images[:, :, 0, 0], images[:, :, 0, 1] = 0, 1  # the range, from which the noise is drawn
    painted = distorted(images, Chances(0, 0, 1, 0), seeded(1))
    hidden = painted != images
    again = distorted(torch.where(hidden, 1 - images, images), Chances(0, 0, 1, 0), seeded(1))
    assert hidden.any() and torch.equal(painted[hidden], again[hidden])
