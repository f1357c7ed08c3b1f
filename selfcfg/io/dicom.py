"""Single DICOM pictures, such as radiographs: their numbers in the order of brightness, and whose they are.

The rescale slope and intercept are applied, windows and lookup tables are not. MONOCHROME1, where small numbers are
bright, is turned round by ITK within the range that its bits can hold, so that all pictures of a dataset are alike.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from selfcfg.geometry import Geometry
from selfcfg.io.dicom_elements import verify_elements
from selfcfg.io.images import picture_geometry
from selfcfg.io.itk import quiet, sitk
from selfcfg.io.problems import COPY_AGAIN, FileProblem, Unsupported, reading, refuse_swelling

Array = np.ndarray[Any, Any]

_PATIENT = "0010|0020"

_RATIO = 4096
"""Pixels of a stored byte: more than any of the standard's encodings makes of a picture that is not empty."""


def read_picture(path: Path) -> tuple[Array, Geometry]:
    """The picture (C, 1, Y, X) and the geometry of a flat picture: its pixel spacing is not used.

    Whole numbers from 0 to 65535 come as 8 or 16 bits, whatever type the rescaling gave them.

    Raises:
        FileProblem: no such file, no DICOM, cut short, or with several pictures in it.
    """
    with reading(path):
        reader = _open(path)
        if (frames := reader.GetSize()[2:]) not in ((), (1,)):
            raise Unsupported(f"read {path}", f"{frames[0]} pictures in one file", "store one file a picture")
        promised = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
        refuse_swelling(path, promised, path.stat().st_size, _RATIO)
        with quiet():
            image = reader.Execute()
    width, height = image.GetSize()[:2]
    picture = np.moveaxis(sitk.GetArrayFromImage(image).reshape(1, height, width, -1), -1, 0)
    return np.ascontiguousarray(_compact(picture)), picture_geometry(picture.shape[1:])


def patient_of(path: Path) -> str:
    """The PatientID of a DICOM file, empty where it has none; no pixel is decoded.

    Raises:
        FileProblem: no such file, no DICOM, or cut short.
    """
    with reading(path):
        reader = _open(path)
    return str(reader.GetMetaData(_PATIENT)).strip(" \0") if reader.HasMetaDataKey(_PATIENT) else ""


def _open(path: Path) -> Any:
    """A reader that has read the header."""
    if not path.is_file():
        raise FileNotFoundError(path)
    verify_elements(path, path.read_bytes())
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with quiet():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise FileProblem(f"read {path}", "not a DICOM picture, or cut short", COPY_AGAIN) from error
    return reader


def _compact(picture: Array) -> Array:
    """Whole numbers as 8 or 16 bits where they fit; others as 32-bit numbers."""
    if picture.dtype in (np.uint8, np.uint16):
        return picture
    low, high = picture.min(), picture.max()
    if low >= 0 and high <= np.iinfo(np.uint16).max and (picture.dtype.kind in "ui" or (picture % 1 == 0).all()):
        return picture.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)
    return picture.astype(np.float32 if picture.dtype.kind == "f" else np.int32)
