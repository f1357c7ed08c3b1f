"""A dataset made of random numbers: for the demo, the tests and the tutorial, where no real case may be shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfcfg.convert.building import building
from selfcfg.dataset import Dataset
from selfcfg.errors import UsageError
from selfcfg.files import write_json
from selfcfg.geometry import FLAT_SPACING, Geometry, Shape, Vector
from selfcfg.io import write_image, write_label

LABELS = {"background": 0, "organ": 1, "lesion": 2}

_CONTRAST = ((0.15, 1.0, 0.55), (0.3, 0.45, 1.0))
"""Mean intensity of background, organ and lesion in each of the two channels."""

_NOISE = 0.08
_BIAS = 0.25
_CASE, _TEST = 1, 2

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Kind:
    """Which files to write: their suffix, the axes of a case, and whether channels are the colours of a picture."""

    ending: str
    dimensions: int
    color: bool
    mean_shape: Shape

    @property
    def channels(self) -> tuple[str, ...]:
        return ("R", "G", "B") if self.color else ("T1", "T2")


def make_synthetic(
    destination: Path,
    *,
    n_cases: int,
    seed: int = 0,
    dimensions: int = 3,
    mean_shape: Shape = (20, 40, 36),
    n_test: int = 0,
    color: bool = False,
) -> Dataset:
    """The dataset it wrote to `destination`, in the standard folder format, readable by nnU-Net as well.

    Each case holds an organ (a bent ellipsoid) and a lesion on its surface, in two channels of different contrast, with
    noise, a smooth bias field and an intensity scale of its own; shapes, spacings (coarse along z) and positions vary.
    Sizes are drawn in millimetres, so spacing matters. The same arguments always give the same voxels.

    Args:
        destination: the dataset folder to make, such as ``raw/Dataset999_Synthetic``.
        n_cases: training cases.
        seed: of every random number; another seed gives other cases of the same kind.
        dimensions: 3 for NIfTI volumes, 2 for PNG pictures.
        mean_shape: (z, y, x) voxels about which shapes vary by 15 percent; z is not used for pictures.
        n_test: further cases in imagesTs and labelsTs.
        color: with two dimensions, one RGB picture a case instead of two gray ones.

    Raises:
        UsageError: the folder exists already, or an argument cannot be used.
    """
    if dimensions not in (2, 3) or (color and dimensions == 3):
        raise UsageError(
            "synthetic dataset", f"dimensions={dimensions}, color={color}", "choose 3, or 2 with or without color"
        )
    if n_cases < 1:
        raise UsageError("synthetic dataset", f"{n_cases} cases asked for", "ask for at least one")
    kind = _Kind(".png" if dimensions == 2 else ".nii.gz", dimensions, color, mean_shape)
    with building(destination) as folder:
        for index in range(n_cases):
            _write_case(folder, f"case_{index:03d}", "Tr", _generator(seed, _CASE, index), kind)
        for index in range(n_test):
            _write_case(folder, f"test_{index:03d}", "Ts", _generator(seed, _TEST, index), kind)
        write_json(folder / "dataset.json", _description(kind, n_cases, seed))
    return Dataset.open(destination)


def _generator(seed: int, purpose: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, (purpose << 32) + index], dtype=np.uint64)))


def _description(kind: _Kind, n_cases: int, seed: int) -> dict[str, object]:
    return {
        "name": "Synthetic",
        "description": "two classes in random images; not medical data",
        "channel_names": {str(index): name for index, name in enumerate(kind.channels)},
        "labels": LABELS,
        "numTraining": n_cases,
        "file_ending": kind.ending,
        "selfcfg": {"source": f"synthetic, seed {seed}"},
    }


def _write_case(root: Path, name: str, part: str, rng: np.random.Generator, kind: _Kind) -> None:
    """Draws one case and writes its image files and its label."""
    geometry = _draw_geometry(rng, kind)
    label, image = _draw_case(rng, geometry)
    if kind.color:
        pictures = [np.stack([image[0], image[1], (image[0] + image[1]) / 2])]
    else:
        pictures = [channel[None] for channel in image]
    for channel, picture in enumerate(pictures):
        stored = _as_bytes(picture) if kind.dimensions == 2 else np.round(picture * 1000).astype(np.int16)
        write_image(root / f"images{part}" / f"{name}_{channel:04d}{kind.ending}", stored, geometry)
    write_label(root / f"labels{part}" / f"{name}{kind.ending}", label, geometry)


def _as_bytes(picture: Array) -> NDArray[np.uint8]:
    return np.clip(np.round(picture * 128), 0, 255).astype(np.uint8)


def _draw_geometry(rng: np.random.Generator, kind: _Kind) -> Geometry:
    sizes = np.maximum(np.round(np.asarray(kind.mean_shape) * rng.uniform(0.85, 1.15, 3)), 1).astype(int)
    in_plane = float(round(rng.uniform(0.85, 1.15), 3))
    through = float(round(rng.uniform(1.8, 2.6), 3))
    origin = tuple(float(value) for value in np.round(rng.uniform(-50, 50, 3), 2))
    if kind.dimensions == 2:
        return Geometry(shape=(1, int(sizes[1]), int(sizes[2])), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
    shape = (int(sizes[0]), int(sizes[1]), int(sizes[2]))
    return Geometry(shape=shape, spacing=(through, in_plane, in_plane), origin=(origin[0], origin[1], origin[2]))


def _draw_case(rng: np.random.Generator, geometry: Geometry) -> tuple[NDArray[np.uint8], Array]:
    """The label (Z, Y, X) and the image (2, Z, Y, X), about 0 to 2, of one case."""
    spacing: Vector = (1.0, *geometry.spacing[1:]) if geometry.dimensions == 2 else geometry.spacing
    axes = [np.arange(size) * mm for size, mm in zip(geometry.shape, spacing, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    extent = np.asarray(geometry.shape) * np.asarray(spacing)
    radii = extent * rng.uniform(0.28, 0.37, 3)
    center = (extent - spacing) / 2 + extent * rng.uniform(-0.08, 0.08, 3)
    flat = geometry.dimensions == 2
    turn = _rotation(rng, flat)
    organ = _ellipsoid(rng, grid, center, radii, turn)
    towards = turn @ (_direction(rng, flat) * radii)
    lesion = _ellipsoid(rng, grid, center + 0.8 * towards, np.full(3, np.sort(radii)[1] * rng.uniform(0.5, 0.65)), turn)
    label = np.where(lesion > 0, 2, np.where(organ > 0, 1, 0)).astype(np.uint8)
    return label, _intensities(rng, grid / extent.max(), organ, lesion)


def _direction(rng: np.random.Generator, flat: bool) -> Array:
    vector = rng.normal(size=3)
    vector[0] *= 0.0 if flat else 0.5
    return np.asarray(vector / np.linalg.norm(vector))


def _rotation(rng: np.random.Generator, flat: bool) -> Array:
    """A turn about the z axis, and in a volume a small tilt as well, as a 3x3 matrix on (z, y, x)."""
    angle, tilt = rng.uniform(-0.6, 0.6), 0.0 if flat else rng.uniform(-0.2, 0.2)
    about_z = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    about_x = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x)


def _ellipsoid(rng: np.random.Generator, grid: Array, center: Array, radii: Array, turn: Array) -> Array:
    """How deep each voxel lies inside a bent ellipsoid: 1 at its centre, 0 on its surface, negative outside."""
    away = np.tensordot(turn.T, grid - center[:, None, None, None], axes=1) / radii[:, None, None, None]
    waves = sum(
        np.cos(np.tensordot(rng.normal(size=3) * 1.5, away, axes=1) + rng.uniform(0, 2 * np.pi)) for _ in range(3)
    )
    return np.asarray(1 + 0.07 * waves - np.sqrt((away**2).sum(axis=0)))


def _intensities(rng: np.random.Generator, grid: Array, organ: Array, lesion: Array) -> Array:
    """Two channels with soft borders, a multiplicative bias field, noise and a scale of the case's own."""
    inside = [np.clip(0.5 + depth / 0.25, 0, 1) for depth in (organ, lesion)]
    channels = []
    for background, bright, spot in _CONTRAST:
        clean = background + (bright - background) * inside[0]
        clean = clean + (spot - clean) * inside[1]
        slope = rng.normal(size=3)
        bias = np.exp(_BIAS * np.tensordot(slope / np.linalg.norm(slope), grid - 0.5, axes=1))
        noisy = clean * bias + rng.normal(scale=_NOISE, size=organ.shape)
        channels.append(np.maximum(noisy * rng.uniform(0.8, 1.25), 0))
    return np.stack(channels)
