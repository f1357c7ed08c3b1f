"""Radiographs made of random numbers, in folders as SIIM-ACR pneumothorax segmentation has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

sitk: Any = SimpleITK

ROOT_UID = "1.2.276.0.7230010.3.1"


def draw_picture(number: int, shape: tuple[int, int] = (40, 48)) -> np.ndarray[Any, Any]:
    """Smooth noise of 8 bits (Y, X)."""
    rng = np.random.Generator(np.random.Philox(key=[number, 11]))
    noise = rng.normal(110, 20, shape) + 40 * np.sin(np.arange(shape[0]) / 7)[:, np.newaxis]
    return np.clip(noise, 0, 255).astype(np.uint8)


def draw_mask(number: int, shape: tuple[int, int] = (40, 48)) -> np.ndarray[Any, Any]:
    """A disc somewhere in a picture (Y, X)."""
    rng = np.random.Generator(np.random.Philox(key=[number, 12]))
    y, x = (rng.uniform(0.3, 0.7) * side for side in shape)
    rows, columns = np.indices(shape)
    return np.hypot(rows - y, columns - x) < rng.uniform(0.1, 0.2) * min(shape)


def encode_relative(mask: np.ndarray[Any, Any]) -> str:
    """The code of a mask as SIIM-ACR's table holds it; "-1" for none."""
    edges = np.flatnonzero(np.diff(np.pad(mask.ravel(order="F").astype(np.int8), 1)))
    if not len(edges):
        return "-1"
    starts, ends = edges[::2], edges[1::2]
    gaps = starts - np.concatenate([[0], ends[:-1]])
    return " ".join(f"{gap} {length}" for gap, length in zip(gaps, ends - starts, strict=True))


def encode_absolute(mask: np.ndarray[Any, Any]) -> str:
    """The code of a mask by first pixels, counted from 1; empty for none."""
    edges = np.flatnonzero(np.diff(np.pad(mask.ravel(order="F").astype(np.int8), 1)))
    return " ".join(f"{start + 1} {end - start}" for start, end in edges.reshape(-1, 2))


def uid(number: int, kind: int = 4) -> str:
    """A UID of a study (2), series (3) or picture (4)."""
    return f"{ROOT_UID}.{kind}.8323329.{300 + number}.1517875162.{258080 + number}"


def write_dicom(
    path: Path, picture: np.ndarray[Any, Any], patient: str = "", *, compressed: bool = False, **tags: str
) -> None:
    """A picture (Y, X), frames (Z, Y, X) or colours (Y, X, 3) as DICOM; tags as ``tag_0008_0060="CR"``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(picture, isVector=picture.shape[2:] == (3,))
    for key, value in {"tag_0010_0020": patient, "tag_0008_0060": "CR", **tags}.items():
        image.SetMetaData(key.removeprefix("tag_").replace("_", "|"), value)
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.SetUseCompression(compressed)
    writer.Execute(image)


def write_siim(root: Path, n_images: int, shape: tuple[int, int] = (40, 48), n_patients: int | None = None) -> Path:
    """``dicom-images-train/STUDY/SERIES/PICTURE.dcm`` and ``train-rle.csv``; every third picture has no mask.

    The heading's second name has a space before it, and so have all codes, as in the real table. Pictures 1 and 4 have
    a second mask in a row of its own; picture 2 has no row at all.
    """
    rows = ["ImageId, EncodedPixels"]
    for number in range(n_images):
        file = root / "dicom-images-train" / uid(number, 2) / uid(number, 3) / f"{uid(number)}.dcm"
        owner = number % (n_patients or n_images)
        write_dicom(file, draw_picture(number, shape), f"secret-{owner}", tag_0010_0010=f"Doe^Jane {owner}")
        masks = [] if number % 3 == 0 else [draw_mask(number, shape)]
        masks += [draw_mask(number + 500, shape)] if number in (1, 4) else []
        codes = [encode_relative(mask) for mask in masks] or ["-1"]
        rows += [f"{uid(number)}, {code}" for code in codes if number != 2]
    (root / "train-rle.csv").write_text("\n".join(rows) + "\n")
    return root
