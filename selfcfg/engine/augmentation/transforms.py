"""Augmentation in two halves: `draw` decides every number of one sample, `apply` carries it out with torch.

What is drawn is data, so the box to read is known before anything is read, and another executor
(`selfcfg.engine.augmentation.with_batchgenerators`) can carry out the same draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple, TypeVar

import numpy as np
import torch
from pydantic import AfterValidator, ConfigDict, Field
from torch import Tensor

from selfcfg.kernels.intensity import blur, contrast, gamma, low_resolution, low_resolution_shape
from selfcfg.kernels.spatial import Affine, rotation_and_scale, warp
from selfcfg.plan import Configuration, Plan
from selfcfg.records import Record

ANISOTROPIC_PATCH = 3.0
"""Patches whose longest side is more than this many times the first are rotated and scaled in the plane only."""

ELONGATED_PICTURE = 1.5
"""2D patches with a larger ratio of sides than this are only turned a little."""


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("the lower limit comes first")
    return limits


Probability = Annotated[float, Field(ge=0, le=1)]
Angle = Annotated[float, Field(ge=0, le=math.pi)]
Above0 = Annotated[float, Field(gt=0)]
Range = Annotated[tuple[Above0, Above0], AfterValidator(_rising)]
From0 = Annotated[float, Field(ge=0)]
Drawn = TypeVar("Drawn")


class Augmentation(Record):
    """How often each transform is drawn and from which range; the defaults are the reference's.

    Probabilities are per sample, those ending in ``_channel`` per channel of a sample that was chosen. A factor range
    (a, b) around 1 is drawn from (a, 1) or (max(a, 1), b) with equal probability. Rotations are the largest angle in
    radians: about each axis of a 3D patch, in the plane, and in the plane of an elongated 2D patch. The fields
    ``previous_...`` are for a cascade: how often, in the label map of the stage before, a class is grown, shrunk,
    closed or opened by a ball of some radius in voxels, and how often one of its components is taken away, if it fills
    less than some share of the patch.

    Source: nnU-Net v2.8.1, get_training_transforms.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    rotation_p: Probability = 0.2
    rotation_3d: Angle = math.radians(30)
    rotation_2d: Angle = math.radians(180)
    rotation_elongated: Angle = math.radians(15)
    scale_p: Probability = 0.2
    scale: Range = (0.7, 1.4)
    noise_p: Probability = 0.1
    noise: Annotated[tuple[From0, From0], AfterValidator(_rising)] = (0.0, 0.1)
    blur_p: Probability = 0.2
    blur_p_channel: Probability = 0.5
    blur: Range = (0.5, 1.0)
    brightness_p: Probability = 0.15
    brightness: Range = (0.75, 1.25)
    contrast_p: Probability = 0.15
    contrast: Range = (0.75, 1.25)
    low_resolution_p: Probability = 0.25
    low_resolution_p_channel: Probability = 0.5
    low_resolution: Range = (0.5, 1.0)
    gamma_inverted_p: Probability = 0.1
    gamma_p: Probability = 0.3
    gamma: Range = (0.7, 1.5)
    mirror_p: Probability = 0.5
    previous_change_p: Probability = 0.4
    previous_change_p_class: Probability = 0.5
    previous_change_radius: Annotated[tuple[From0, From0], AfterValidator(_rising)] = (1.0, 8.0)
    previous_removal_p: Probability = 0.2
    previous_removal_p_class: Probability = 0.5
    previous_removal_share: Probability = 0.15


REFERENCE = Augmentation()


@dataclass(frozen=True)
class PatchSpace:
    """What a patch of one configuration is, as far as augmentation needs to know.

    Args:
        patch_size: voxels along the axes of the network (two or three).
        masked: a channel, whether it is 0 wherever the label says the voxel lies outside the non-zero mask.
        mirror_axes: the network's axes along which mirroring is allowed.
        stacked: whether a 3D patch is one of a stack along its first axis: then it is not moved out of line.
    """

    patch_size: tuple[int, ...]
    masked: tuple[bool, ...]
    mirror_axes: tuple[int, ...]
    stacked: bool = False

    @classmethod
    def of(cls, configuration: Configuration, plan: Plan) -> PatchSpace:
        """The patch of a configuration; a 2D network's axes 0 and 1 are axes 1 and 2 of the plan."""
        skipped = 3 - configuration.dimensions
        mirror_axes = tuple(axis - skipped for axis in plan.mirror_axes if axis >= skipped)
        return cls(configuration.patch_size, configuration.use_mask_for_norm, mirror_axes)

    def in_stack(self) -> PatchSpace:
        """The same for the patches of a sequence: a 3D one is rotated, scaled and mirrored in the plane only.

        Else each would turn about its own centre, and one would not go on where the other ends.
        """
        if len(self.patch_size) == 2:
            return self
        return replace(self, mirror_axes=tuple(axis for axis in self.mirror_axes if axis), stacked=True)

    @property
    def in_plane(self) -> bool:
        """Whether only the last two axes of a 3D patch are rotated, scaled and coarsened: it is flat, or in a stack."""
        flat = max(self.patch_size) / self.patch_size[0] > ANISOTROPIC_PATCH
        return len(self.patch_size) == 3 and (flat or self.stacked)

    @property
    def moved_size(self) -> tuple[int, ...]:
        """The patch along the axes that rotation and scaling act on."""
        return self.patch_size[1:] if self.in_plane else self.patch_size


@dataclass(frozen=True)
class AugmentDraw:
    """Everything that was drawn for one sample; the default changes nothing.

    Args:
        angles: radians, three for a 3D rotation, one for a rotation in the plane, none for no rotation.
        scale: more than 1 shows more of the case in the patch.
        noise: standard deviation of the noise and the seed of its field, or None.
        blur: a channel, its standard deviation in voxels an axis, or None; empty for no channel at all.
        brightness: a channel, its factor; likewise `contrast`, `gamma_inverted` and `gamma` (exponents).
        low_resolution: a channel, its zoom, or None.
        mirror: the network's axes to mirror.
    """

    angles: tuple[float, ...] = ()
    scale: float = 1.0
    noise: tuple[float, int] | None = None
    blur: tuple[tuple[float, ...] | None, ...] = ()
    brightness: tuple[float, ...] = ()
    contrast: tuple[float, ...] = ()
    low_resolution: tuple[float | None, ...] = ()
    gamma_inverted: tuple[float, ...] = ()
    gamma: tuple[float, ...] = ()
    mirror: tuple[int, ...] = ()

    def affine(self, space: PatchSpace) -> Affine | None:
        """The rotation and scaling of the patch's moved axes, or None when there is neither."""
        if not self.angles and self.scale == 1.0:
            return None
        angles = self.angles or (0.0,) * _n_angles(space)
        return Affine(rotation_and_scale(angles, self.scale), space.moved_size)

    def source_box(self, space: PatchSpace) -> tuple[tuple[int, int], ...]:
        """What must be read: (start, stop) along each axis of the network, counted from the patch's first voxel."""
        affine = self.affine(space)
        if affine is None:
            return tuple((0, size) for size in space.patch_size)
        carried = space.patch_size[: len(space.patch_size) - len(affine.patch_size)]
        return (*((0, size) for size in carried), *affine.source_box)


UNCHANGED = AugmentDraw()


class View(NamedTuple):
    """One sample as it was read, before its draw is applied.

    Args:
        image: float32 (C, *box), the box being `AugmentDraw.source_box`; 0 outside the case. Soft targets follow as
            further channels than the space has: they are moved like the image, and nothing else is done to them.
        labels: int16 (N, *box), all of it moved like the image: the target, -1 outside the case and outside its
            non-zero mask, and in a cascade the label map of the stage before; None where there are neither.
        noise: standard normal float32 (C, *patch) when the draw asks for noise, else None.
        draw: what to do.
    """

    image: Tensor
    labels: Tensor | None
    noise: Tensor | None
    draw: AugmentDraw

    def to(self, device: torch.device) -> View:
        """The same with its tensors on a device."""
        labels, noise = (
            None if part is None else part.to(device, non_blocking=True) for part in (self.labels, self.noise)
        )
        return View(self.image.to(device, non_blocking=True), labels, noise, self.draw)


def draw(rng: np.random.Generator, space: PatchSpace, augmentation: Augmentation = REFERENCE) -> AugmentDraw:
    """Everything that happens to one sample, drawn in the reference's order.

    Source: nnU-Net v2.8.1, get_training_transforms: list, order, probabilities and ranges.
    """
    chosen = _Dice(rng, len(space.masked))
    a = augmentation
    rotates, scales = chosen.happens(a.rotation_p), chosen.happens(a.scale_p)
    largest = _largest_angle(space, a)
    return AugmentDraw(
        angles=tuple(rng.uniform(-largest, largest) for _ in range(_n_angles(space))) if rotates else (),
        scale=rng.uniform(*a.scale) if scales else 1.0,
        noise=(rng.uniform(*a.noise), int(rng.integers(1 << 62))) if chosen.happens(a.noise_p) else None,
        blur=chosen.channels(a.blur_p, a.blur_p_channel, lambda: tuple(rng.uniform(*a.blur) for _ in space.patch_size)),
        brightness=chosen.factors(a.brightness_p, a.brightness),
        contrast=chosen.factors(a.contrast_p, a.contrast),
        low_resolution=chosen.channels(
            a.low_resolution_p, a.low_resolution_p_channel, lambda: rng.uniform(*a.low_resolution)
        ),
        gamma_inverted=chosen.factors(a.gamma_inverted_p, a.gamma),
        gamma=chosen.factors(a.gamma_p, a.gamma),
        mirror=tuple(axis for axis in space.mirror_axes if chosen.happens(a.mirror_p)),
    )


def apply(view: View, space: PatchSpace) -> tuple[Tensor, Tensor | None]:
    """The augmented patch and its label maps, computed with torch where the view's tensors are.

    Args:
        view: the box that was read; its tensors may be changed.
        space: the patch of the configuration.

    Returns:
        Image (C, *patch) float32 with what follows it, and label maps (N, *patch) int16 with -1 made 0, or None.
    """
    image, labels, wish = view.image, view.labels, view.draw
    affine = wish.affine(space)
    if affine is not None:
        image, labels = warp(image, labels, affine)
    own = image[: len(space.masked)]
    if wish.noise is not None and view.noise is not None:
        own.add_(view.noise, alpha=wish.noise[0])
    for number, channel in enumerate(own):
        changed = _intensities(channel, number, wish, space)
        if changed is not channel:
            image[number] = changed
    if wish.mirror:
        axes = [axis + 1 for axis in wish.mirror]
        image, labels = image.flip(axes), None if labels is None else labels.flip(axes)
    if labels is None:
        return image, None
    if any(space.masked):
        outside = labels[0] < 0
        for channel, masked in zip(image, space.masked, strict=False):
            if masked:
                channel.masked_fill_(outside, 0.0)
    return image, labels.clamp(min=0)


def _intensities(channel: Tensor, number: int, wish: AugmentDraw, space: PatchSpace) -> Tensor:
    """One channel after its changes of intensity; the channel itself when there are none."""
    if wish.blur and (sigmas := wish.blur[number]):
        channel = blur(channel, sigmas)
    if wish.brightness:
        channel = channel * wish.brightness[number]
    if wish.contrast:
        channel = contrast(channel, wish.contrast[number])
    if wish.low_resolution and (zoom := wish.low_resolution[number]):
        channel = low_resolution(channel, low_resolution_shape(channel.shape, zoom, keep_first=space.in_plane))
    if wish.gamma_inverted:
        channel = gamma(channel, wish.gamma_inverted[number], inverted=True)
    if wish.gamma:
        channel = gamma(channel, wish.gamma[number], inverted=False)
    return channel


def _n_angles(space: PatchSpace) -> int:
    return 3 if len(space.moved_size) == 3 else 1


def _largest_angle(space: PatchSpace, augmentation: Augmentation) -> float:
    if len(space.moved_size) == 3:
        return augmentation.rotation_3d
    if len(space.patch_size) == 2 and max(space.patch_size) / min(space.patch_size) > ELONGATED_PICTURE:
        return augmentation.rotation_elongated
    return augmentation.rotation_2d


class _Dice:
    """The ways in which the transforms are drawn, over one generator."""

    def __init__(self, rng: np.random.Generator, n_channels: int) -> None:
        self.rng, self.n_channels = rng, n_channels

    def happens(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def factors(self, probability: float, limits: Range) -> tuple[float, ...]:
        """A factor around 1 for every channel, or none at all."""
        if not self.happens(probability):
            return ()
        return tuple(self._factor(*limits) for _ in range(self.n_channels))

    def channels(self, probability: float, per_channel: float, value: Callable[[], Drawn]) -> tuple[Drawn | None, ...]:
        """A value for each channel that is chosen, or none at all."""
        if not self.happens(probability):
            return ()
        return tuple(value() if self.happens(per_channel) else None for _ in range(self.n_channels))

    def _factor(self, low: float, high: float) -> float:
        if low < 1 and self.happens(0.5):
            return float(self.rng.uniform(low, 1))
        return float(self.rng.uniform(max(low, 1), high))
