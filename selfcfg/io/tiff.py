"""TIFF pictures and 3D stacks; a stack's spacing stands beside it in ``<case>.json`` as {"spacing": [z, y, x]}."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from selfcfg.errors import DataError, UsageError
from selfcfg.files import read_json, replacing, write_json
from selfcfg.geometry import Geometry, Vector
from selfcfg.io.inflate import DEFLATE_RATIO
from selfcfg.io.problems import COPY_AGAIN, BadSpacing, FileProblem, Unsupported, refuse_swelling
from selfcfg.io.raster import from_pillow, without_alpha
from selfcfg.io.verify import verify_tiff

_READABLE = {1, 8, 32946, 32773}
"""Compressions that tifffile reads by itself: none, deflate (twice), PackBits."""

_RATIOS = {1: 8, 8: DEFLATE_RATIO, 32946: DEFLATE_RATIO, 32773: 128}
"""By compression, the bytes that a stored one becomes at most (none: a bit becomes a byte)."""

_OTHER_RATIO = 4096
"""Of other compressions; LZW makes 1300 of a byte."""

_ALPHA = {1, 2}
_STRUCTURE = {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 296} | {
    *(317, 320, 322, 323, 324, 325, 338, 339, 340, 341)
}
"""Tags that say how the pixels are stored; all others may say anything."""

_OWN_MARK = 305, "tifffile.py"
"""The name of the program in files that we write."""

# tifffile only logs what it cannot read; damage is found by the checks here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

Array = np.ndarray[Any, Any]


def read(path: Path, *, indices: bool = False) -> tuple[Array, bool]:
    """The image (C, Z, Y, X) in its stored type, and whether it is a stack.

    Raises:
        FileProblem: damaged, cut short, or holding pictures of different sizes.
    """
    content = path.read_bytes()
    verify_tiff(path, content)
    with tifffile.TiffFile(path) as file:
        series = _series(path, file)
        page = file.pages.first
        _verify_strips(path, file, len(content))
        axes, shape = series.axes, tuple(series.shape)
        palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE
        alpha = "S" in axes and bool(page.extrasamples) and int(page.extrasamples[-1]) in _ALPHA
        single = not _stack_axes(axes, shape)
        if single and palette:
            return from_pillow(path, content, indices=indices)[:, np.newaxis], False
        if int(page.compression) in _READABLE:
            image = _arranged(path, series.asarray(), axes)
        elif single and page.bitspersample <= 8:
            return from_pillow(path, content, indices=indices)[:, np.newaxis], False
        else:
            from selfcfg.io import itk  # noqa: PLC0415 - for compressions that only libtiff reads

            image = _arranged(path, itk.read_pixels(path).reshape(shape), axes)
    if image.dtype == np.bool_:
        image = image.astype(np.uint8)
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    return without_alpha(path, image, alpha=alpha), not single


def layout(path: Path) -> tuple[int, tuple[int, int, int], bool]:
    """How many channels `read` would give, the size (Z, Y, X), and whether it is a stack; no pixel is decoded."""
    verify_tiff(path, path.read_bytes())
    with tifffile.TiffFile(path) as file:
        series = _series(path, file)
        page = file.pages.first
        axes, shape = series.axes, tuple(series.shape)
        stack, colours = _stack_axes(axes, shape), _colour_axis(axes, shape)
        count = shape[colours] if colours is not None else 1
        if count > 1 and page.extrasamples and int(page.extrasamples[-1]) in _ALPHA:
            count -= 1
        depth = shape[stack[0]] if stack else 1
        return count, (depth, shape[axes.index("Y")], shape[axes.index("X")]), bool(stack)


def is_plain(path: Path) -> bool:
    """Whether any reader sees the same: gray or RGB, no palette, no alpha, a compression all know, and no notes."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        tags = [tag for one in file.pages for tag in getattr(one, "tags", ())]
        if any(tag.code not in _STRUCTURE and (tag.code, tag.value) != _OWN_MARK for tag in tags):
            return False
        plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        return bool(plain and not page.extrasamples and page.bitspersample >= 8 and int(page.compression) in _READABLE)


def read_spacing(path: Path) -> Vector | None:
    """The spacing (z, y, x) in mm from the file beside a TIFF, or None where there is none.

    Raises:
        BadSpacing: it does not hold three positive numbers under "spacing".
    """
    file = sidecar(path)
    if file is None:
        return None
    try:
        values = [float(value) for value in read_json(file)["spacing"]]
    except (DataError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadSpacing(f"read {file}", f"no spacing in it ({error})", 'write {"spacing": [z, y, x]}') from error
    if len(values) != 3 or not all(0 < value < float("inf") for value in values):
        raise BadSpacing(f"read {file}", f"spacing {values}", 'write {"spacing": [z, y, x]}, in mm')
    return values[0], values[1], values[2]


def sidecar(path: Path) -> Path | None:
    """The JSON file that belongs to a TIFF: of its own name, or of its case's name without the channel number."""
    stem = path.name[: -len(path.suffix)]
    for name in dict.fromkeys((stem, re.sub(r"_\d{4}$", "", stem))):
        if (file := path.with_name(f"{name}.json")).is_file():
            return file
    return None


def write(path: Path, image: Array, geometry: Geometry) -> None:
    """Writes a picture or a stack (C, Z, Y, X) of one or three channels; a stack's spacing goes beside it.

    Raises:
        UsageError: another number of channels.
    """
    if len(image) not in (1, 3):
        raise UsageError(f"write {path}", f"{len(image)} channels", "write one file a channel, or three colours")
    pixels = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    if geometry.dimensions == 2:
        pixels = pixels[0]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    photometric = "rgb" if len(image) == 3 else "minisblack"
    with replacing(path) as temporary:
        tifffile.imwrite(temporary, pixels, photometric=photometric, compression="zlib", metadata=None)
    if geometry.dimensions == 3:
        stem = path.name[: -len(path.suffix)]
        write_json(path.with_name(f"{stem}.json"), {"spacing": list(geometry.spacing)})


def _series(path: Path, file: tifffile.TiffFile) -> Any:
    """The first image of a file; further, smaller ones are previews of it."""
    if not file.series:
        raise FileProblem(f"read {path}", "no image in it", COPY_AGAIN)
    first = file.series[0]
    if any(other.size >= first.size and not other.keyframe.is_reduced for other in file.series[1:]):
        raise Unsupported(f"read {path}", f"{len(file.series)} images of different kinds", "store one file an image")
    if not {"Y", "X"} <= set(first.axes):
        raise Unsupported(f"read {path}", f"axes {first.axes}", "store a picture or a stack of pictures")
    return first


def _verify_strips(path: Path, file: tifffile.TiffFile, size: int) -> None:
    """Whether the compressed pieces of every page lie within the file, and uncompressed ones are of full length."""
    for number, page in enumerate(file.pages):
        keyframe: Any = page.keyframe
        counts, offsets = page.databytecounts, page.dataoffsets
        inside = all(count > 0 and at + count <= size for at, count in zip(offsets, counts, strict=True))
        full = int(keyframe.compression) != 1 or sum(counts) * 8 >= keyframe.size * keyframe.bitspersample
        if not counts or not inside or not full:
            raise FileProblem(f"read {path}", f"cut short: page {number + 1} is not in its {size} bytes", COPY_AGAIN)
    for series in file.series[:1]:
        compression = int(series.keyframe.compression)
        refuse_swelling(path, int(series.nbytes), size, _RATIOS.get(compression, _OTHER_RATIO))
        if series.dataoffset is not None and series.dataoffset + series.nbytes > size:
            raise FileProblem(f"read {path}", f"cut short: {size} bytes do not hold {series.shape}", COPY_AGAIN)


def _colour_axis(axes: str, shape: tuple[int, ...]) -> int | None:
    """The axis of colours or channels: S; else C when some other axis is the stack."""
    if "S" in axes:
        return axes.index("S")
    others = [at for at, name in enumerate(axes) if name not in "YXC" and shape[at] > 1]
    return axes.index("C") if "C" in axes and others else None


def _stack_axes(axes: str, shape: tuple[int, ...]) -> list[int]:
    """The axes besides Y, X and colours that hold more than one picture."""
    colours = _colour_axis(axes, shape)
    return [at for at, name in enumerate(axes) if name not in "YX" and at != colours and shape[at] > 1]


def _arranged(path: Path, pixels: Array, axes: str) -> Array:
    """The pixels with axes (C, Z, Y, X)."""
    stack, colours = _stack_axes(axes, pixels.shape), _colour_axis(axes, pixels.shape)
    if len(stack) > 1:
        raise Unsupported(f"read {path}", f"axes {axes} of {pixels.shape}", "store one three-dimensional stack a file")
    ends = [axes.index("Y"), axes.index("X")]
    starts = [at for at in (colours, stack[0] if stack else None) if at is not None]
    rest = [at for at in range(len(axes)) if at not in (*starts, *ends)]
    arranged = pixels.transpose(*rest, *starts, *ends)
    arranged = arranged.reshape(arranged.shape[len(rest) :])
    if colours is None:
        arranged = arranged[np.newaxis]
    return arranged if stack else arranged[:, np.newaxis]
