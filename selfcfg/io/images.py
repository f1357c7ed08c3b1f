"""Any image file by its suffix: read, read as a label map, look at the header, write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from selfcfg.errors import UsageError, nearest
from selfcfg.geometry import FLAT_SPACING, Geometry, Shape, Vector
from selfcfg.image_files import FILE_ENDINGS, RASTER_ENDINGS, ending_in
from selfcfg.io.problems import BadLabel, FileProblem, reading

Array = np.ndarray[Any, Any]

_ROUNDING = 1e-3
"""How far a stored label may lie from a whole number: what scaling to an integer type and back leaves."""

_TIFF = (".tif", ".tiff")
_JPEG = (".jpg", ".jpeg")


def read_image(path: Path) -> tuple[Array, Geometry]:
    """The image (C, Z, Y, X) in its stored type and where it lies; verified to the last byte before it is decoded.

    Raises:
        FileProblem: no such file, damaged, cut short, of no known format, or with a header that cannot be true.
    """
    image, geometry, _ = inspect_image(path)
    return image, geometry


def inspect_image(path: Path) -> tuple[Array, Geometry, tuple[str, ...]]:
    """As `read_image`, with what looks suspicious in the header, in words."""
    with reading(path):
        return _read(path, indices=False)


def read_label(path: Path) -> tuple[Array, Geometry]:
    """The label map (Z, Y, X) as integers and where it lies.

    A colour picture is taken when its three channels are the same; of a palette picture the indices are taken.

    Raises:
        FileProblem: as `read_image`; several channels, values that are not whole numbers, or a JPEG.
    """
    with reading(path):
        if ending_of(path) in _JPEG:
            found = "JPEG changes label values"
            raise BadLabel(f"read {path}", found, "store the labels as PNG, or convert them with --threshold")
        image, geometry, _ = _read(path, indices=True)
        if len(image) > 1 and ending_of(path) in RASTER_ENDINGS and (image == image[:1]).all():
            image = image[:1]
        if len(image) != 1:
            raise BadLabel(f"read {path}", f"{len(image)} channels", "store one channel of class numbers")
        return _whole_numbers(path, image[0]), geometry


def read_header(path: Path) -> tuple[int, Geometry]:
    """Channels and geometry of an image file; pixels are not decoded.

    Raises:
        FileProblem: no such file, of no known format, or with a header that cannot be true.
    """
    with reading(path):
        ending = ending_of(path)
        if ending in (".nii.gz", ".nii"):
            from selfcfg.io import nifti  # noqa: PLC0415

            header = nifti.read_header(path)
            return header.channels, header.geometry
        if ending in (".nrrd", ".mha"):
            from selfcfg.io import itk  # noqa: PLC0415

            return itk.read_header(path)
        if ending in _TIFF:
            from selfcfg.io import tiff  # noqa: PLC0415

            n_channels, shape, stack = tiff.layout(path)
            return n_channels, picture_geometry(shape, tiff.read_spacing(path) if stack else None, stack=stack)
        from selfcfg.io import raster  # noqa: PLC0415

        n_channels, size = raster.channels(path)
        return n_channels, picture_geometry((1, *size))


def write_image(path: Path, image: Array, geometry: Geometry) -> None:
    """Writes an image (C, Z, Y, X), whole or not at all; one channel for volumes, one or three for pictures.

    Raises:
        UsageError: the format cannot hold it.
        SelfcfgError: the disk refused the bytes.
    """
    if tuple(image.shape[1:]) != geometry.shape:
        raise ValueError(f"image of shape {image.shape} and geometry of shape {geometry.shape}")
    ending = ending_of(path)
    if ending in RASTER_ENDINGS:
        _write_picture(path, image, geometry, ending)
        return
    if len(image) != 1:
        raise UsageError(f"write {path}", f"{len(image)} channels", "write one file a channel")
    if ending in (".nii.gz", ".nii"):
        from selfcfg.io import nifti  # noqa: PLC0415

        nifti.write(path, image[0], geometry)
    else:
        from selfcfg.io import itk  # noqa: PLC0415

        itk.write(path, image[0], geometry)


def write_label(path: Path, label: Array, geometry: Geometry) -> None:
    """Writes a label map (Z, Y, X) as 8-bit numbers, or 16-bit where a value needs it; whole or not at all.

    Raises:
        UsageError: the format cannot hold it (JPEG changes values), or a value is negative or above 65535.
        SelfcfgError: the disk refused the bytes.
    """
    low, high = (int(label.min()), int(label.max())) if label.size else (0, 0)
    if low < 0 or high > 65535:
        raise UsageError(f"write {path}", f"label values from {low} to {high}", "use values from 0 to 65535")
    if ending_of(path) in _JPEG:
        raise UsageError(f"write {path}", "JPEG changes label values", "write a .png")
    write_image(path, label.astype(np.uint8 if high < 256 else np.uint16)[np.newaxis], geometry)


def ending_of(path: Path) -> str:
    """The supported suffix of a file name, in lower case.

    Raises:
        FileProblem: it has none; the message names the nearest.
    """
    if ending := ending_in(path.name):
        return ending
    suffix = "".join(path.suffixes[-2:]) or path.name
    raise FileProblem(f"read {path}", "its suffix is of no supported format", nearest(suffix, FILE_ENDINGS))


def picture_geometry(shape: tuple[int, ...], spacing: Vector | None = None, *, stack: bool = False) -> Geometry:
    """The geometry of a picture of shape (1, Y, X), or of a stack (Z, Y, X) with its spacing where that is known."""
    size: Shape = (int(shape[0]), int(shape[1]), int(shape[2]))
    if stack:
        return Geometry(shape=size, spacing=spacing or (1.0, 1.0, 1.0))
    return Geometry(shape=size, spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)


def _read(path: Path, *, indices: bool) -> tuple[Array, Geometry, tuple[str, ...]]:
    ending = ending_of(path)
    if ending in (".nii.gz", ".nii"):
        from selfcfg.io import nifti  # noqa: PLC0415

        image, header = nifti.read(path)
        return _opaque(path, image, header.samples), header.geometry, header.doubts
    if ending in (".nrrd", ".mha"):
        from selfcfg.io import itk  # noqa: PLC0415

        return itk.read(path)
    if ending in _TIFF:
        return _read_tiff(path, indices=indices)
    from selfcfg.io import raster  # noqa: PLC0415

    picture = raster.read(path, indices=indices)[:, np.newaxis]
    doubts: tuple[str, ...] = ()
    if ending in _JPEG and (turned := raster.exif_orientation(path)) != 1:
        doubts = (f"its EXIF orientation is {turned}, which is not applied: viewers show it turned",)
    return picture, picture_geometry(picture.shape[1:]), doubts


def _read_tiff(path: Path, *, indices: bool) -> tuple[Array, Geometry, tuple[str, ...]]:
    from selfcfg.io import tiff  # noqa: PLC0415

    image, stack = tiff.read(path, indices=indices)
    spacing = tiff.read_spacing(path) if stack else None
    doubts = () if spacing or not stack else ("no spacing stands beside this stack, so 1 mm is taken",)
    return image, picture_geometry(image.shape[1:], spacing, stack=stack), doubts


def _opaque(path: Path, image: Array, samples: int) -> Array:
    if samples != 4:
        return image
    from selfcfg.io.raster import without_alpha  # noqa: PLC0415

    return without_alpha(path, image, alpha=True)


def _write_picture(path: Path, image: Array, geometry: Geometry, ending: str) -> None:
    if ending in _TIFF:
        from selfcfg.io import tiff  # noqa: PLC0415

        tiff.write(path, image, geometry)
        return
    from selfcfg.io import raster  # noqa: PLC0415

    if geometry.shape[0] != 1:
        raise UsageError(f"write {path}", f"{geometry.shape[0]} slices", "write a volume format such as .nii.gz")
    raster.write(path, image[:, 0])


def _whole_numbers(path: Path, label: Array) -> Array:
    if label.dtype.kind in "ui":
        return label
    missing = int(np.count_nonzero(~np.isfinite(label)))
    if missing:
        raise BadLabel(f"read {path}", f"{missing} voxels are NaN or infinite", "store whole numbers")
    rounded = np.rint(label)
    wrong = np.abs(label - rounded) > _ROUNDING
    if wrong.any():
        values = ", ".join(f"{value:g}" for value in np.unique(label[wrong])[:5])
        found = f"{int(wrong.sum())} voxels are not whole numbers, such as {values}"
        raise BadLabel(f"read {path}", found, "resample labels by nearest neighbour and store whole numbers")
    return rounded.astype(np.int64 if np.abs(rounded).max(initial=0) > 2**31 - 1 else np.int32)
