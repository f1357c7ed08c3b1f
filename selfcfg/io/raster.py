"""Pictures: PNG, BMP, JPEG and TIFF, gray or in colour, 8 or 16 bits, with transparency handled explicitly.

Values are kept as they are stored: a two-value picture gives 0 and 1, four gray levels give 0 to 3. A palette picture
gives its colours as an image (one channel when they are all gray) and its palette indices as a label map. An alpha
channel that is opaque everywhere is dropped; any other is refused. An EXIF orientation is not applied, as in nnU-Net.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfcfg.errors import UsageError
from selfcfg.files import replacing
from selfcfg.io.problems import BadAlpha, Unsupported
from selfcfg.io.verify import verify_bmp, verify_jpeg, verify_png

JPEG_ENDINGS = (".jpg", ".jpeg")

_DIRECT = ("1", "L", "LA", "RGB", "RGBA", "I", "F")
_SAMPLES = {"1": 1, "L": 1, "LA": 1, "I": 1, "F": 1, "RGB": 3, "RGBA": 3}

Array = np.ndarray[Any, Any]


def read(path: Path, *, indices: bool = False) -> Array:
    """The picture (C, Y, X) in its stored type; palette indices instead of colours where `indices` is set.

    Raises:
        FileProblem: damaged, cut short, or of a kind that is not a picture of numbers.
    """
    content = path.read_bytes()
    depth, colour = _verified(path, content)
    if depth == 16 and colour == 4:
        return without_alpha(path, _deep_gray_alpha(path, content), alpha=True)
    if depth == 16 and colour in (2, 6):
        from selfcfg.io import itk  # noqa: PLC0415 - pillow would silently drop the lower eight bits

        return without_alpha(path, np.moveaxis(itk.read_pixels(path), -1, 0), alpha=colour == 6)
    picture = from_pillow(path, content, indices=indices)
    return picture // (255 // (2**depth - 1)) if colour == 0 and depth in (2, 4) else picture


def channels(path: Path) -> tuple[int, tuple[int, int]]:
    """How many channels `read` would give, and the size (Y, X); no pixel is decoded but of palette pictures."""
    content = path.read_bytes()
    _, colour = _verified(path, content)
    with _quiet(), Image.open(BytesIO(content)) as picture:
        mode = picture.mode
        if mode == "P":
            mode = "L" if _gray_palette(picture) else "RGB"
        if colour == 4:
            mode = "LA"  # pillow takes 16 bits of both for RGBA
        return _SAMPLES.get(mode, 1), (picture.height, picture.width)


def is_plain(path: Path) -> bool:
    """Whether any reader sees the same numbers in this picture: gray or RGB of 8 or 16 bits, no palette, no alpha."""
    with Image.open(path) as picture:
        if path.name.lower().endswith(".png"):
            depth, colour = _png_kind(path)
            return colour in (0, 2) and depth in (8, 16) and "transparency" not in picture.info
        return picture.mode in ("L", "RGB")


def exif_orientation(path: Path) -> int:
    """The EXIF orientation of a picture; 1 means upright or not said."""
    with Image.open(path) as picture:
        return int(picture.getexif().get(0x0112, 1))


def write(path: Path, picture: Array) -> None:
    """Writes a picture (C, Y, X) of one or three channels, 8 or 16 bits; JPEG only 8 bits and with loss.

    Raises:
        UsageError: the format cannot hold these channels or this type.
    """
    name = path.name.lower()
    kinds = (np.uint8, np.uint16) if name.endswith(".png") else (np.uint8,)
    if picture.dtype not in kinds or len(picture) not in (1, 3):
        raise UsageError(
            f"write {path}",
            f"{len(picture)} channels of {picture.dtype}",
            "write one or three channels of 8-bit numbers (PNG: or 16-bit)",
        )
    pixels = picture[0] if len(picture) == 1 else np.ascontiguousarray(np.moveaxis(picture, 0, -1))
    with replacing(path) as temporary:
        if picture.dtype == np.uint16 and len(picture) == 3:
            from selfcfg.io import itk  # noqa: PLC0415

            itk.write_pixels(temporary, pixels)
        elif name.endswith(JPEG_ENDINGS):
            Image.fromarray(pixels).save(temporary, quality=95, subsampling=0)
        else:
            Image.fromarray(pixels).save(temporary)


def from_pillow(path: Path, content: bytes, *, indices: bool) -> Array:
    """The picture (C, Y, X) that pillow reads from verified bytes."""
    picture = _loaded(path, content)
    if picture.mode == "P" and not indices:
        gray = _gray_palette(picture)
        if "transparency" in picture.info:
            colours = np.moveaxis(np.asarray(picture.convert("RGBA")), -1, 0)
            colours = without_alpha(path, colours, alpha=True)
        else:
            colours = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
        return colours[:1] if gray else colours
    if "transparency" in picture.info and picture.mode in ("L", "RGB"):
        picture = picture.convert("LA" if picture.mode == "L" else "RGBA")
    if picture.mode not in _DIRECT and not picture.mode.startswith("I;16") and picture.mode != "P":
        raise Unsupported(f"read {path}", f"colour mode {picture.mode}", "store it as gray or RGB")
    pixels = np.array(picture)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    pixels = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[np.newaxis]
    return without_alpha(path, pixels, alpha=picture.mode in ("LA", "RGBA"))


def without_alpha(path: Path, picture: Array, *, alpha: bool) -> Array:
    """The picture (C, Y, X) without its last channel where that is an alpha channel.

    Raises:
        BadAlpha: the alpha channel is not opaque everywhere.
    """
    if not alpha:
        return np.ascontiguousarray(picture)
    opaque = np.iinfo(picture.dtype).max if picture.dtype.kind in "ui" else 1.0
    clear = int(np.count_nonzero(picture[-1] != opaque))
    if clear:
        raise BadAlpha(
            f"read {path}",
            f"{clear} of {picture[-1].size} pixels are transparent",
            "flatten the picture onto a background, or remove its alpha channel",
        )
    return np.ascontiguousarray(picture[:-1])


def _loaded(path: Path, content: bytes) -> Image.Image:
    with _quiet():
        picture: Image.Image = Image.open(BytesIO(content))
        # A camera's MPO is a JPEG with previews after it; of anything else, several pictures are several images.
        if (count := getattr(picture, "n_frames", 1)) > 1 and picture.format != "MPO":
            raise Unsupported(f"read {path}", f"{count} pictures in one file", "store one file a picture")
        picture.load()
    return picture


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns of large pictures; whether a file can hold so many pixels was found out before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _verified(path: Path, content: bytes) -> tuple[int, int]:
    """Bits and colour type of a PNG, -1 of others, after the file was found whole."""
    name = path.name.lower()
    if name.endswith(".png"):
        return verify_png(path, content)
    if name.endswith(".bmp"):
        verify_bmp(path, content)
    else:
        verify_jpeg(path, content)
    return -1, -1


def _deep_gray_alpha(path: Path, content: bytes) -> Array:
    """The gray and alpha (2, Y, X) of a PNG with 16 bits of both, which neither pillow nor ITK reads.

    Its pixels have four bytes, as those of 8-bit RGBA, and PNG's filters work on bytes: under such a header pillow
    decodes them as they are.
    """
    header = bytearray(content[12:29])  # "IHDR", width, height, depth, colour, ...
    header[12:14] = 8, 6
    changed = content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]
    values = np.array(_loaded(path, changed)).view(">u2").astype(np.uint16)
    return np.moveaxis(values, -1, 0)


def _png_kind(path: Path) -> tuple[int, int]:
    """Bits and colour type in a PNG's header."""
    with path.open("rb") as stream:
        start = stream.read(26)
    return start[24], start[25]


def _gray_palette(picture: Image.Image) -> bool:
    colours = np.array(picture.getpalette() or [0, 0, 0], dtype=np.int64).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())
