"""CT-like volumes and label maps of realistic size, made of ellipsoids; the same arguments give the same voxels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from selfcfg.files import write_json
from selfcfg.geometry import Geometry, Vector
from selfcfg.io import write_image, write_label

Labels = NDArray[np.uint8]
Size = tuple[int, int, int]
Ellipsoid = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Centre and radii in parts of the volume."""

AIR, FAT = -1000.0, -80.0
HU = (40.0, 130.0, 230.0, 420.0, 800.0)
"""Mean intensity of each organ; the classes are told apart by it, so that a short training suffices."""
NOISE_HU = 18.0

SCANS: tuple[tuple[Size, Vector], ...] = (
    ((130, 256, 256), (2.5, 1.3, 1.3)),
    ((120, 248, 264), (3.0, 1.2, 1.2)),
    ((140, 256, 256), (2.0, 1.4, 1.4)),
    ((128, 272, 240), (2.5, 1.1, 1.1)),
    ((150, 240, 240), (2.0, 1.5, 1.5)),
    ((110, 256, 272), (3.0, 1.3, 1.3)),
)
"""Voxels and spacing in mm (z, y, x) of the scans of a dataset: mixed, as in practice."""


def organs(count: int, rng: np.random.Generator) -> list[Ellipsoid]:
    """Ellipsoids within the body; more of them are smaller."""
    size = 0.36 / count ** (1 / 3)
    return [(rng.uniform(0.25, 0.75, 3), size * rng.uniform(0.6, 1.2, 3)) for _ in range(count)]


def moved(those: Sequence[Ellipsoid], rng: np.random.Generator) -> list[Ellipsoid]:
    """The same ellipsoids a little displaced and resized: a prediction that is nearly right."""
    return [(c + rng.normal(0, 0.008, 3), r * rng.uniform(0.93, 1.07, 3)) for c, r in those]


def painted(those: Sequence[Ellipsoid], size: Size) -> Labels:
    """The label map (Z, Y, X) with value 1 for the first ellipsoid and so on; later ones over earlier ones."""
    label = np.zeros(size, dtype=np.uint8)
    for value, (centre, radii) in enumerate(those, start=1):
        ends = [(max(0, int((c - r) * n)), min(n, int((c + r) * n) + 2)) for c, r, n in zip(centre, radii, size)]  # noqa: B905
        box = tuple(slice(*end) for end in ends)
        grid = np.ogrid[box]
        far = sum((((g + 0.5) / n - c) / r) ** 2 for g, n, c, r in zip(grid, size, centre, radii, strict=True))
        label[box][far < 1] = value
    return label


def scan(label: Labels, rng: np.random.Generator) -> NDArray[np.int16]:
    """CT numbers (Z, Y, X) of a body that holds the organs: smooth variation and noise."""
    body = painted([(np.full(3, 0.5), np.array([0.7, 0.44, 0.46]))], label.shape)
    image = np.where(body > 0, FAT, AIR).astype(np.float32)
    for value in range(1, int(label.max()) + 1):
        image[label == value] = HU[(value - 1) % len(HU)]
    image += smooth(label.shape, rng, 25.0)
    image += rng.standard_normal(label.shape, dtype=np.float32) * np.float32(NOISE_HU)
    return np.rint(image).clip(-1024, 3071).astype(np.int16)


def smooth(size: Size, rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """A field that varies slowly over the volume."""
    coarse = rng.standard_normal([max(2, n // 16) for n in size]).astype(np.float32) * strength
    factors = [n / m for n, m in zip(size, coarse.shape, strict=True)]
    return zoom(coarse, factors, order=1, output=np.float32)[: size[0], : size[1], : size[2]]


def write_dataset(folder: Path, scans: Sequence[tuple[Size, Vector]], n_labels: int = 5) -> None:
    """A dataset in the standard folder format, one case for each size and spacing."""
    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    for number, (size, spacing) in enumerate(scans):
        geometry = Geometry(shape=size, spacing=spacing, dimensions=3)
        label = painted(organs(n_labels, rng), size)
        write_image(folder / "imagesTr" / f"ct_{number}_0000.nii.gz", scan(label, rng)[None], geometry)
        write_label(folder / "labelsTr" / f"ct_{number}.nii.gz", label, geometry)
    write_json(folder / "dataset.json", description(n_labels, len(scans)))


def description(n_labels: int, n_cases: int) -> dict[str, Any]:
    """The content of dataset.json for CTs with organs numbered from 1."""
    names = {"background": 0, **{f"organ {value}": value for value in range(1, n_labels + 1)}}
    return {"channel_names": {"0": "CT"}, "labels": names, "numTraining": n_cases, "file_ending": ".nii.gz"}


def write_pairs(folder: Path, n_cases: int, n_labels: int, size: Size) -> None:
    """References and predictions of `n_cases` cases as label files, and their dataset.json."""
    rng = np.random.default_rng(1)
    geometry = Geometry(shape=size, spacing=(2.5, 1.3, 1.3), dimensions=3)
    for name in ("references", "predictions"):
        (folder / name).mkdir()
    for number in range(n_cases):
        those = organs(n_labels, rng)
        write_label(folder / "references" / f"case_{number:02d}.nii.gz", painted(those, size), geometry)
        found = painted(moved(those, rng), size)
        write_label(folder / "predictions" / f"case_{number:02d}.nii.gz", found, geometry)
    write_json(folder / "dataset.json", description(n_labels, n_cases))
