from __future__ import annotations

import pytest
import torch

from selfcfg.kernels.randomized import Change, changed, randomized


def nothing(shape: tuple[int, ...]) -> Change:
    box = tuple(slice(None) for _ in shape)
    return Change(box, exponent=1.0, sign=1.0, level=5.0, sigma=1e-3, noise=torch.zeros(shape))


@pytest.mark.parametrize("shape", [(12, 10), (8, 9, 7)])
def test_without_a_change_an_image_is_standardised(shape: tuple[int, ...]) -> None:
    image = torch.randn(shape) * 3 + 7
    torch.testing.assert_close(changed(image, nothing(shape)), (image - image.mean()) / image.std(correction=0))


def test_padding_and_what_lies_outside_of_the_box_get_the_same_value() -> None:
    image = torch.randn(12, 10) + 9
    image[:, :3] = 0
    made = changed(image, nothing((12, 10))._replace(box=(slice(2, 12), slice(0, 10))))
    outside = torch.zeros(12, 10, dtype=torch.bool)
    outside[:2], outside[:, :3] = True, True
    assert (made[outside] == 5).all() and (made[~outside] != 5).all()


def test_an_inverted_image_is_the_negative() -> None:
    image = torch.randn(12, 10)
    once = changed(image, nothing((12, 10)))
    torch.testing.assert_close(changed(image, nothing((12, 10))._replace(sign=-1.0)), -once)


def test_bent_intensities_keep_their_order() -> None:
    image = torch.randn(12, 10)
    bent = changed(image, nothing((12, 10))._replace(exponent=2.0))
    assert torch.equal(bent.flatten().argsort(), image.flatten().argsort())
    assert not torch.allclose(bent, changed(image, nothing((12, 10))), atol=0.1)


@pytest.mark.parametrize("value", [0.0, 4.0])
def test_a_constant_image_stays_finite(value: float) -> None:
    assert randomized(torch.full((3, 1, 8, 8), value)).isfinite().all()


def test_every_image_is_changed_by_numbers_of_its_own_and_left_as_it_was() -> None:
    image = torch.randn(1, 1, 16, 16)
    twice = image.repeat(2, 1, 1, 1)
    one, other = randomized(twice, torch.Generator().manual_seed(0))
    assert not torch.allclose(one, other, atol=0.5)
    assert torch.equal(twice[1], image[0])


def test_the_generator_decides() -> None:
    image = torch.randn(2, 1, 16, 16)
    one, other = (randomized(image, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
