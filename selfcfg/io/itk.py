"""What SimpleITK reads and writes for us: NRRD, MetaImage, and the pictures that pillow and tifffile cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK

from selfcfg.files import replacing
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import metaimage
from selfcfg.io.problems import Unsupported
from selfcfg.io.world import checked_geometry

sitk: Any = SimpleITK


def read(path: Path) -> tuple[np.ndarray[Any, Any], Geometry, tuple[str, ...]]:
    """The image (C, Z, Y, X) of an NRRD or .mha file, its geometry, and doubts about its header.

    Raises:
        FileProblem: damaged, cut short, longer than its header says, or not of this format.
    """
    voxels, volume = metaimage.read_voxels(path, path.read_bytes())
    geometry, doubts = _geometry_of(path, volume)
    has_components = volume.component_axis is not None
    if volume.component_axis is not None:
        voxels = np.moveaxis(voxels, voxels.ndim - 1 - volume.component_axis, 0)
    return _arranged(path, voxels, len(volume.spatial), has_components=has_components), geometry, doubts


def unpack(path: Path, image: Any) -> tuple[np.ndarray[Any, Any], Geometry, tuple[str, ...]]:
    """The voxels (C, Z, Y, X), geometry and header doubts of a SimpleITK image; `path` names it in messages.

    Raises:
        FileProblem: it stores something no segmentation is trained on, or its header cannot be true.
    """
    geometry, doubts = _geometry(path, image)
    voxels = sitk.GetArrayFromImage(image)
    if np.iscomplexobj(voxels):
        raise Unsupported(f"read {path}", "complex numbers", "store their magnitude")
    has_components = image.GetNumberOfComponentsPerPixel() > 1
    if has_components:
        voxels = np.moveaxis(voxels, -1, 0)
    return _arranged(path, voxels, image.GetDimension(), has_components=has_components), geometry, doubts


def read_header(path: Path) -> tuple[int, Geometry]:
    """Channels and geometry of an NRRD or .mha file; no voxel is decoded.

    Raises:
        FileProblem: not of this format, or a header that cannot be true.
    """
    with path.open("rb") as stream:
        volume = metaimage.read_header(path, stream.read(metaimage.HEADER_LIMIT))
    geometry, _ = _geometry_of(path, volume)
    return math.prod(volume.sizes) // math.prod(volume.spatial[:3]), geometry


def write(path: Path, image: np.ndarray[Any, Any], geometry: Geometry) -> None:
    """Writes a volume (Z, Y, X), compressed."""
    voxels = image.astype(np.uint8) if image.dtype == np.bool_ else image
    direction = np.array(geometry.direction).reshape(3, 3)
    n_axes = geometry.dimensions
    result = sitk.GetImageFromArray(voxels[0] if n_axes == 2 else voxels)
    result.SetSpacing(geometry.spacing[::-1][:n_axes])
    result.SetOrigin(geometry.origin[:n_axes])
    result.SetDirection(direction[:n_axes, :n_axes].reshape(-1).tolist())
    with replacing(path) as temporary:
        _write(result, temporary)


def read_pixels(path: Path) -> np.ndarray[Any, Any]:
    """The numbers of a picture in SimpleITK's axis order, colours last."""
    with quiet():
        return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def write_pixels(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    """Writes a colour picture (Y, X, C) to `path` itself."""
    _write(sitk.GetImageFromArray(pixels, isVector=True), path)


@contextmanager
def quiet() -> Iterator[None]:
    """ITK prints warnings straight to the terminal; what matters of them is found by our own look at the header."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _geometry_of(path: Path, volume: metaimage.Volume) -> tuple[Geometry, tuple[str, ...]]:
    """The geometry that ITK makes of a header, which it gets without anything that was not understood."""
    with TemporaryDirectory(prefix="selfcfg-") as folder:
        file = Path(folder) / f"header{path.suffix.lower()}"
        file.write_text(volume.canonical, encoding="ascii")
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        with quiet():
            reader.ReadImageInformation()
    if tuple(reader.GetSize()) != volume.spatial:
        found = f"its axes are {volume.spatial}, and as an image {tuple(reader.GetSize())}"
        raise Unsupported(f"read {path}", found, "store one number a voxel, or a fixed number of channels")
    return _geometry(path, reader)


def _arranged(path: Path, voxels: np.ndarray[Any, Any], n_axes: int, *, has_components: bool) -> np.ndarray[Any, Any]:
    """Voxels, where there are several numbers each these first, as (C, Z, Y, X)."""
    if has_components and n_axes == 4:
        raise Unsupported(f"read {path}", "a fourth axis and several numbers a voxel", "store one file a channel")
    if not has_components and n_axes < 4:
        voxels = voxels[np.newaxis]
    return np.ascontiguousarray(voxels[:, np.newaxis] if n_axes == 2 else voxels)


def _write(image: Any, path: Path) -> None:
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise OSError(" ".join(str(error).split())[-200:]) from error


def _geometry(path: Path, image: Any) -> tuple[Geometry, tuple[str, ...]]:
    """The geometry of a SimpleITK image or reader."""
    size, n_axes = image.GetSize(), image.GetDimension()
    if not 2 <= n_axes <= 4:
        raise Unsupported(f"read {path}", f"{n_axes} axes", "store two or three axes, or a fourth for channels")
    axes = min(n_axes, 3)
    columns, origin = np.eye(3), np.zeros(3)
    columns[:axes, :axes] = np.array(image.GetDirection()).reshape(n_axes, n_axes)[:axes, :axes]
    origin[:axes] = image.GetOrigin()[:axes]
    spacing = [abs(float(side)) for side in image.GetSpacing()[:axes]]
    if n_axes == 2:
        size, spacing = (*size, 1), [*spacing, FLAT_SPACING]
    geometry, doubts = checked_geometry(path, size[:3], spacing, origin, columns, dimensions=axes)
    return geometry, tuple(doubts)
