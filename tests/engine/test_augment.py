"""Draws: how often, from where, from what; and the two executors against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from selfcfg.engine.augmentation.transforms import UNCHANGED, Augmentation, AugmentDraw, PatchSpace, View, apply, draw
from selfcfg.engine.augmentation.with_batchgenerators import apply_with_batchgenerators
from selfcfg.engine.randomness import generator, noise_field

VOLUME = PatchSpace((16, 20, 12), (False, True), (0, 1, 2))
FLAT = PatchSpace((4, 16, 14), (False, False), (1, 2))
PICTURE = PatchSpace((24, 20), (True, False), (0,))
SPACES = pytest.mark.parametrize("space", [VOLUME, FLAT, PICTURE], ids=["3d", "in-plane", "2d"])

MANY = 20_000


def view_of(one: AugmentDraw, space: PatchSpace, seed: int = 0) -> View:
    """A view with smooth-free noise for an image and two maps with blocks of labels, -1 among them."""
    rng = np.random.default_rng(seed)
    box = tuple(stop - start for start, stop in one.source_box(space))
    image = torch.from_numpy(rng.standard_normal((len(space.masked), *box)).astype(np.float32))
    coarse = rng.integers(-1, 4, (2, *(math.ceil(size / 4) for size in box))).astype(np.int16)
    for axis in range(len(box)):
        coarse = coarse.repeat(4, axis + 1)
    labels = torch.from_numpy(coarse[(slice(None), *(slice(size) for size in box))].copy())
    noise = None
    if one.noise is not None:
        noise = torch.from_numpy(noise_field(one.noise[1], (len(space.masked), *space.patch_size)))
    return View(image, labels, noise, one)


def copied(view: View) -> View:
    labels, noise = (None if part is None else part.clone() for part in (view.labels, view.noise))
    return View(view.image.clone(), labels, noise, view.draw)


def both(view: View, space: PatchSpace) -> tuple[float, float]:
    """Largest difference of the images and share of different labels between the executors."""
    image, label = apply(copied(view), space)
    other, other_label = apply_with_batchgenerators(copied(view), space)
    assert image.shape == other.shape == (len(space.masked), *space.patch_size)
    assert label is not None and other_label is not None
    assert label.dtype == other_label.dtype == torch.int16 and image.dtype == other.dtype == torch.float32
    assert label.min() >= 0 and other_label.min() >= 0
    return float((image - other).abs().max()), float((label != other_label).float().mean())


# --- the two executors ------------------------------------------------------------------------------------------------


@SPACES
def test_the_executors_agree_on_many_draws(space: PatchSpace) -> None:
    often = Augmentation(
        **{name: 0.6 for name in Augmentation.model_fields if name.endswith("_p") or name.endswith("_p_channel")}
    )
    differing = []
    for number in range(60):
        one = draw(generator(0, "test", number), space, often)
        image, label = both(view_of(one, space, number), space)
        assert image < 1e-4, one
        differing.append(label)
    assert np.mean(differing) < 1e-3


SINGLE: list[Callable[[PatchSpace], AugmentDraw]] = [
    lambda space: AugmentDraw(angles=(0.4,) * (3 if space is VOLUME else 1)),
    lambda space: AugmentDraw(scale=0.7),
    lambda space: AugmentDraw(scale=1.4),
    lambda space: AugmentDraw(noise=(0.1, 7)),
    lambda space: AugmentDraw(blur=((0.5, 0.7, 1.0)[: len(space.patch_size)], None)),
    lambda space: AugmentDraw(brightness=(0.8, 1.2)),
    lambda space: AugmentDraw(contrast=(0.8, 1.2)),
    lambda space: AugmentDraw(low_resolution=(None, 0.55)),
    lambda space: AugmentDraw(gamma_inverted=(0.7, 1.5)),
    lambda space: AugmentDraw(gamma=(0.7, 1.5)),
    lambda space: AugmentDraw(mirror=space.mirror_axes),
]


@SPACES
@pytest.mark.parametrize("make", SINGLE)
def test_each_transform_changes_the_image_and_the_executors_agree(
    make: Callable[[PatchSpace], AugmentDraw], space: PatchSpace
) -> None:
    one = make(space)
    view = view_of(one, space)
    image, label = both(view, space)
    assert image < 1e-4 and label < 1e-3
    unmasked = PatchSpace(space.patch_size, (False, False), space.mirror_axes)
    changed, _ = apply(copied(view), unmasked)
    assert changed.shape != view.image.shape or not torch.allclose(changed, view.image, atol=1e-3)


@pytest.mark.gpu
@SPACES
def test_an_accelerator_gives_the_same(space: PatchSpace) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for number in range(30):
        view = view_of(draw(generator(0, "test", number), space), space, number)
        image, label = apply(copied(view), space)
        there = View(*(None if part is None else part.cuda() for part in view[:3]), view.draw)
        other, other_label = apply(there, space)
        torch.testing.assert_close(other.cpu(), image, atol=1e-4, rtol=0)
        assert label is not None and other_label is not None
        assert (other_label.cpu() != label).float().mean() < 1e-3


# --- what applying means ----------------------------------------------------------------------------------------------


@SPACES
def test_nothing_drawn_leaves_the_patch_and_masks_it(space: PatchSpace) -> None:
    view = view_of(UNCHANGED, space)
    image, label = apply(copied(view), space)
    assert view.labels is not None and label is not None
    assert torch.equal(label, view.labels.clamp(min=0))
    for number, masked in enumerate(space.masked):
        kept = view.image[number] * (view.labels[0] >= 0) if masked else view.image[number]
        assert torch.equal(image[number], kept)


def test_a_view_without_labels() -> None:
    view = view_of(AugmentDraw(angles=(0.3,), mirror=(0,)), PICTURE)._replace(labels=None)
    image, label = apply(copied(view), PICTURE)
    other, other_label = apply_with_batchgenerators(copied(view), PICTURE)
    assert label is None and other_label is None
    torch.testing.assert_close(image, other, atol=1e-4, rtol=0)


def test_mirroring_turns_image_and_label_alike() -> None:
    view = view_of(AugmentDraw(mirror=(0, 2)), VOLUME)
    view = view._replace(labels=(view.image[:1] > 0).to(torch.int16))
    image, label = apply(copied(view), VOLUME)
    assert label is not None and torch.equal(label, (image[:1] > 0).to(torch.int16))
    assert torch.equal(image[0], view.image[0].flip(0, 2))


def test_a_rotation_in_the_plane_leaves_the_first_axis_alone() -> None:
    one = AugmentDraw(angles=(0.5,))
    assert FLAT.in_plane and not VOLUME.in_plane
    assert one.source_box(FLAT)[0] == (0, 4)
    view = view_of(one, FLAT)
    view.image[:, 2] = 0
    image, _ = apply(copied(view), FLAT)
    assert (image[:, 2] == 0).all() and (image[:, 1] != 0).any()


def test_patches_of_a_stack_stay_in_line() -> None:
    stack = VOLUME.in_stack()
    assert stack.in_plane and stack.moved_size == (20, 12) and stack.mirror_axes == (1, 2)
    assert all(len(one.angles) <= 1 and 0 not in one.mirror for one in drawn(stack, 200))
    assert PICTURE.in_stack() == PICTURE


def test_noise_is_a_function_of_its_seed() -> None:
    np.testing.assert_array_equal(noise_field(3, (2, 4)), noise_field(3, (2, 4)))
    assert not np.array_equal(noise_field(3, (2, 4)), noise_field(4, (2, 4)))
    field = noise_field(5, (100, 100))
    assert abs(field.mean()) < 0.05 and abs(field.std() - 1) < 0.03


# --- what is drawn ----------------------------------------------------------------------------------------------------


def drawn(space: PatchSpace, count: int = MANY) -> list[AugmentDraw]:
    rng = generator(1, "test")
    return [draw(rng, space) for _ in range(count)]


def share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def volumes() -> list[AugmentDraw]:
    return drawn(VOLUME)


def test_how_often_each_transform_is_drawn(volumes: list[AugmentDraw]) -> None:
    near = {"abs": 4 * 0.5 / math.sqrt(MANY)}  # four standard deviations of a share
    assert share([bool(one.angles) for one in volumes]) == pytest.approx(0.2, **near)
    assert share([one.scale != 1 for one in volumes]) == pytest.approx(0.2, **near)
    assert share([one.affine(VOLUME) is not None for one in volumes]) == pytest.approx(0.36, **near)
    assert share([one.noise is not None for one in volumes]) == pytest.approx(0.1, **near)
    assert share([bool(one.blur) for one in volumes]) == pytest.approx(0.2, **near)
    assert share([bool(one.blur) and one.blur[0] is not None for one in volumes]) == pytest.approx(0.1, **near)
    assert share([bool(one.brightness) for one in volumes]) == pytest.approx(0.15, **near)
    assert share([bool(one.contrast) for one in volumes]) == pytest.approx(0.15, **near)
    assert share([bool(one.low_resolution) for one in volumes]) == pytest.approx(0.25, **near)
    assert share([bool(one.gamma_inverted) for one in volumes]) == pytest.approx(0.1, **near)
    assert share([bool(one.gamma) for one in volumes]) == pytest.approx(0.3, **near)
    for axis in range(3):
        assert share([axis in one.mirror for one in volumes]) == pytest.approx(0.5, **near)


def test_from_which_ranges(volumes: list[AugmentDraw]) -> None:
    def check(values: list[float], low: float, high: float, mean: float) -> None:
        assert low <= min(values) < low + 0.05 * (high - low) and high - 0.05 * (high - low) < max(values) <= high
        assert np.mean(values) == pytest.approx(mean, abs=5 * np.std(values) / math.sqrt(len(values)))

    angles = np.array([one.angles for one in volumes if one.angles])
    for axis in range(3):
        check(angles[:, axis].tolist(), -math.radians(30), math.radians(30), 0)
    assert abs(np.corrcoef(angles.T)[0, 1]) < 0.1
    check([one.scale for one in volumes if one.scale != 1], 0.7, 1.4, 1.05)
    check([one.noise[0] for one in volumes if one.noise], 0, 0.1, 0.05)
    check([sigmas[1] for one in volumes for sigmas in one.blur if sigmas], 0.5, 1, 0.75)
    # Half below 1 and half above: the means of (0.75, 1) and (1, 1.25), and of (0.7, 1) and (1, 1.5).
    check([value for one in volumes for value in one.brightness], 0.75, 1.25, (0.875 + 1.125) / 2)
    check([value for one in volumes for value in one.contrast], 0.75, 1.25, 1)
    check([value for one in volumes for value in one.gamma], 0.7, 1.5, (0.85 + 1.25) / 2)
    assert share([value < 1 for one in volumes for value in one.gamma]) == pytest.approx(0.5, abs=0.02)
    check([zoom for one in volumes for zoom in one.low_resolution if zoom], 0.5, 1, 0.75)


def test_the_patch_decides_the_rotation() -> None:
    def largest(size: tuple[int, ...]) -> tuple[int, float]:
        angles = [one.angles for one in drawn(PatchSpace(size, (False,), ()), 1500) if one.angles]
        return len(angles[0]), math.degrees(max(abs(angle) for one in angles for angle in one))

    assert largest((16, 48, 48)) == (3, pytest.approx(30, abs=1))
    assert largest((16, 48, 49)) == (1, pytest.approx(180, abs=3))
    assert largest((48, 32)) == (1, pytest.approx(180, abs=3))
    assert largest((49, 32)) == (1, pytest.approx(15, abs=1))


def test_only_allowed_axes_are_mirrored() -> None:
    assert {axis for one in drawn(PatchSpace((8, 8, 8), (False,), (0, 2)), 200) for axis in one.mirror} == {0, 2}


def test_a_draw_is_a_function_of_its_generator() -> None:
    assert draw(generator(0, "a", 5), VOLUME) == draw(generator(0, "a", 5), VOLUME)
    others = [generator(1, "a", 5), generator(0, "b", 5), generator(0, "a", 6)]
    assert len({rng.integers(1 << 62) for rng in [generator(0, "a", 5), *others]}) == 4
