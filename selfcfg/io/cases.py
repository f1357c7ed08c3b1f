"""One case as arrays: its channels stacked, its label beside them, and a hash of what it was read from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfcfg.dataset import Case
from selfcfg.errors import DataError
from selfcfg.files import hash_file
from selfcfg.fixes import Fixes
from selfcfg.geometry import Geometry
from selfcfg.io.images import read_image, read_label

_REMEDY = "run: selfcfg check"


@dataclass(frozen=True)
class CaseArrays:
    """A case in memory.

    Args:
        image: float32 (C, Z, Y, X), finite.
        label: int16 (Z, Y, X), or None.
        geometry: of the first channel's file.
    """

    image: np.ndarray[Any, np.dtype[np.float32]]
    label: np.ndarray[Any, np.dtype[np.int16]] | None
    geometry: Geometry


def read_case(case: Case, fixes: Fixes | None = None) -> CaseArrays:
    """The voxels of a case, all channels and the label on one grid.

    Args:
        case: its files.
        fixes: recorded corrections of headers; see `Fixes`.

    Raises:
        DataError: a file is missing or damaged, holds NaN, or lies elsewhere than the first channel; names the case.
    """
    fixes = fixes or Fixes()
    channels: list[np.ndarray[Any, Any]] = []
    reference: Geometry | None = None
    label = None
    try:
        for index, path in enumerate(case.images):
            image, geometry = read_image(path)
            reference = reference or geometry
            _same_place(path, fixes.corrected(case.id, index, geometry), reference)
            channels.append(_finite(path, image))
        if reference is None:
            raise DataError("its images", "there are none", "put them into imagesTr")
        if case.label is not None:
            stored, geometry = read_label(case.label)
            _same_place(case.label, fixes.corrected(case.id, None, geometry), reference)
            label = _as_int16(case.label, stored)
    except DataError as error:
        raise DataError(f"case '{case.id}'", f"{error.asked}: {error.found}", error.remedy) from error
    image = channels[0] if len(channels) == 1 else np.concatenate(channels)
    return CaseArrays(image, label, reference)


def hash_case(case: Case) -> str:
    """The hash of the bytes of a case's images and label, 32 hex digits; names and places do not matter.

    Recorded fixes change no voxel and no geometry that is used, so they are not part of it.
    """
    return _hash([*case.images, *([case.label] if case.label is not None else [])])


def hash_images(case: Case) -> str:
    """The hash of the bytes of a case's images without its label, 32 hex digits."""
    return _hash(case.images)


def _hash(paths: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            digest.update(hash_file(path).encode())
            if beside := _sidecar(path):
                digest.update(hash_file(beside).encode())
        except OSError as error:
            raise DataError(f"read {path}", str(error), "check the path and its permissions") from error
    return digest.hexdigest()


def _sidecar(path: Path) -> Path | None:
    """The spacing file beside a TIFF stack."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    from selfcfg.io.tiff import sidecar  # noqa: PLC0415 - only TIFF files need tifffile

    return sidecar(path)


def _same_place(path: Path, geometry: Geometry, reference: Geometry) -> None:
    if differences := geometry.differences(reference):
        raise DataError(f"read {path}", f"differs from the first channel: {', '.join(differences)}", _REMEDY)


def _finite(path: Path, image: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    with np.errstate(over="ignore"):
        result = image.astype(np.float32)
    if image.dtype.kind == "f" and not np.isfinite(result).all():
        count = int(np.count_nonzero(~np.isfinite(result)))
        raise DataError(
            f"read {path}", f"{count} voxels are NaN or infinite", "replace them, for example by the background value"
        )
    return result


def _as_int16(path: Path, label: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int16]]:
    low, high = int(label.min()), int(label.max())
    if low < 0 or high > np.iinfo(np.int16).max:
        raise DataError(f"read {path}", f"label values from {low} to {high}", "map them to 0, 1, 2, ...")
    return label.astype(np.int16)
