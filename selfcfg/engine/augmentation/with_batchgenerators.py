"""The second executor of an augmentation draw: batchgenerators' building blocks, on numpy arrays.

Blocks that draw their parameters inside are given one-point ranges. Those for which that is not possible (noise, blur,
gamma below 1, mirroring) are their deterministic core: the same formula on numpy and scipy.
"""

from __future__ import annotations

import numpy as np
import torch
from batchgenerators.augmentations.color_augmentations import augment_brightness_multiplicative, augment_contrast
from batchgenerators.augmentations.resample_augmentations import augment_linear_downsampling_scipy
from batchgenerators.augmentations.utils import (
    create_zero_centered_coordinate_mesh,
    interpolate_img,
    rotate_coords_2d,
    rotate_coords_3d,
    scale_coords,
)
from scipy.ndimage import correlate1d
from torch import Tensor

from selfcfg.engine.augmentation.transforms import AugmentDraw, PatchSpace, View
from selfcfg.kernels.intensity import gaussian_kernel

_EPSILON = 1e-7


def apply_with_batchgenerators(view: View, space: PatchSpace) -> tuple[Tensor, Tensor | None]:
    """The augmented patch and its label maps, as `selfcfg.engine.augmentation.transforms.apply` gives them.

    All of it is computed on the CPU.

    Args:
        view: the box that was read.
        space: the patch of the configuration.

    Returns:
        Image (C, *patch) float32, and label maps (N, *patch) int16 with -1 made 0, or None.
    """
    image = view.image.cpu().numpy().astype(np.float32)
    labels = None if view.labels is None else view.labels.cpu().numpy()
    image, labels = _spatial(image, labels, view.draw, space)
    image, soft = image[: len(space.masked)], image[len(space.masked) :]
    if view.draw.noise is not None and view.noise is not None:
        image = image + np.multiply(view.noise.cpu().numpy(), view.draw.noise[0], dtype=np.float32)
    image = np.stack([_intensities(channel, number, view.draw, space) for number, channel in enumerate(image)])
    mirrored = tuple(axis + 1 for axis in view.draw.mirror)
    image, soft = np.flip(image, mirrored), np.flip(soft, mirrored)
    if labels is not None:
        labels = np.flip(labels, mirrored)
        image = np.where(_masked(labels[0], space), np.float32(0), image)
        labels = np.maximum(labels, 0)
    tensor = torch.from_numpy(np.ascontiguousarray(np.concatenate([image, soft]), dtype=np.float32))
    return tensor, None if labels is None else torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int16))


def _masked(label: np.ndarray, space: PatchSpace) -> np.ndarray:
    channels = np.array(space.masked).reshape([-1] + [1] * label.ndim)
    return np.asarray(channels & (label < 0))


def _spatial(
    image: np.ndarray, labels: np.ndarray | None, wish: AugmentDraw, space: PatchSpace
) -> tuple[np.ndarray, np.ndarray | None]:
    affine = wish.affine(space)
    if affine is None:
        return image, labels
    coordinates = scale_coords(create_zero_centered_coordinate_mesh(affine.patch_size), wish.scale)
    if len(wish.angles) == 1:
        coordinates = rotate_coords_2d(coordinates, -wish.angles[0])
    elif wish.angles:
        coordinates = rotate_coords_3d(coordinates, *(-angle for angle in wish.angles))
    for axis, ((start, _), size) in enumerate(zip(affine.source_box, affine.patch_size, strict=True)):
        coordinates[axis] += (size - 1) / 2 - start
    moved = _each(image, coordinates, is_seg=False)
    return moved, None if labels is None else _each(labels, coordinates, is_seg=True)


def _each(array: np.ndarray, coordinates: np.ndarray, *, is_seg: bool) -> np.ndarray:
    """The array sampled at coordinates of its last axes, one picture or volume after the other."""
    axes = len(coordinates)
    pictures = array.reshape(-1, *array.shape[-axes:])
    sampled = [interpolate_img(picture, coordinates, order=1, mode="nearest", is_seg=is_seg) for picture in pictures]
    return np.stack(sampled).reshape(*array.shape[:-axes], *coordinates.shape[1:])


def _intensities(channel: np.ndarray, number: int, wish: AugmentDraw, space: PatchSpace) -> np.ndarray:
    sample = channel[None].astype(np.float32)
    if wish.blur and (sigmas := wish.blur[number]):
        for axis, sigma in enumerate(sigmas, start=1):
            sample = correlate1d(sample, gaussian_kernel(sigma), axis=axis, mode="mirror")
    if wish.brightness:
        sample = augment_brightness_multiplicative(sample, (wish.brightness[number],) * 2, per_channel=False)
    if wish.contrast:
        factor = wish.contrast[number]
        sample = augment_contrast(sample, lambda: factor, preserve_range=True, per_channel=False)
    if wish.low_resolution and (zoom := wish.low_resolution[number]):
        sample = augment_linear_downsampling_scipy(
            sample, (zoom, zoom), per_channel=False, order_downsample=0, order_upsample=1,
            ignore_axes=(0,) if space.in_plane else None,
        )  # fmt: skip
    if wish.gamma_inverted:
        sample = -_gamma(-sample, wish.gamma_inverted[number])
    if wish.gamma:
        sample = _gamma(sample, wish.gamma[number])
    return np.asarray(sample[0])


def _gamma(sample: np.ndarray, exponent: float) -> np.ndarray:
    """The core of batchgenerators' augment_gamma with retained statistics, for an exponent that is given."""
    mean, deviation = sample.mean(), sample.std(ddof=1)
    lowest, extent = sample.min(), np.ptp(sample)
    bent = np.power((sample - lowest) / max(float(extent), _EPSILON), np.float32(exponent)) * extent + lowest
    bent = bent - bent.mean()
    return np.asarray(bent / max(float(bent.std(ddof=1)), _EPSILON) * deviation + mean, dtype=np.float32)
