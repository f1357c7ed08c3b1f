"""Pictures of every kind: the stored numbers come out, transparency and palettes are handled as documented."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from selfcfg.errors import UsageError
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import read_header, read_image, read_label, write_image, write_label
from selfcfg.io.images import inspect_image
from selfcfg.io.problems import BadAlpha, BadLabel, BadSpacing, FileProblem, Unsupported

RNG = np.random.Generator(np.random.Philox(key=[3, 0]))
GRAY = RNG.integers(0, 255, (7, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 255, (7, 5, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65535, (7, 5, 3), dtype=np.uint16)
OPAQUE = np.full((7, 5, 1), 255, np.uint8)


def flat(shape: tuple[int, int] = (7, 5)) -> Geometry:
    return Geometry(shape=(1, *shape), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)


def read(path: Path) -> np.ndarray[Any, Any]:
    """The picture (C, Y, X), after the header was compared with it."""
    image, geometry = read_image(path)
    assert geometry == flat(image.shape[2:])
    assert read_header(path) == (len(image), geometry)
    return image[:, 0]


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".tiff"])
def test_gray_and_colour(tmp_path: Path, ending: str) -> None:
    Image.fromarray(GRAY).save(tmp_path / f"g{ending}")
    Image.fromarray(COLOUR).save(tmp_path / f"c{ending}")
    assert np.array_equal(read(tmp_path / f"g{ending}"), GRAY[np.newaxis])
    assert np.array_equal(read(tmp_path / f"c{ending}"), np.moveaxis(COLOUR, -1, 0))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_are_not_cut_to_eight(tmp_path: Path, ending: str) -> None:
    write_image(tmp_path / f"g{ending}", DEEP[np.newaxis, np.newaxis, ..., 0], flat())
    write_image(tmp_path / f"c{ending}", np.moveaxis(DEEP, -1, 0)[:, np.newaxis], flat())
    assert np.array_equal(read(tmp_path / f"g{ending}"), DEEP[np.newaxis, ..., 0])
    assert np.array_equal(read(tmp_path / f"c{ending}"), np.moveaxis(DEEP, -1, 0))
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"c{ending}")))
    assert np.array_equal(expected, DEEP)


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("colour", [GRAY[..., np.newaxis], COLOUR])
def test_opaque_alpha_is_dropped_and_other_alpha_refused(
    tmp_path: Path, ending: str, colour: np.ndarray[Any, Any]
) -> None:
    path = tmp_path / f"a{ending}"
    Image.fromarray(np.concatenate([colour, OPAQUE], axis=-1)).save(path)
    assert np.array_equal(read(path), np.moveaxis(colour, -1, 0))
    clear = OPAQUE.copy()
    clear[2, 3] = 0
    Image.fromarray(np.concatenate([colour, clear], axis=-1)).save(path)
    with pytest.raises(BadAlpha, match="1 of 35 pixels are transparent; flatten"):
        read_image(path)


def deep_gray_alpha(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    """Writes (Y, X, 2) as a PNG whose lines are stored as differences, in turn from the left and from above."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(len(pixels), -1)
    lines = b""
    for number, row in enumerate(rows):
        before = np.concatenate([np.zeros(4, np.uint8), row[:-4]]) if number % 2 == 0 else rows[number - 1]
        lines += bytes([1 + number % 2]) + (row - before).tobytes()
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 4, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def test_opaque_alpha_of_sixteen_bits_is_dropped_too(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, 2), dtype=np.uint16)
    pixels[..., 1] = 65535
    deep_gray_alpha(tmp_path / "a.png", pixels)
    assert read(tmp_path / "a.png").dtype == np.uint16
    assert np.array_equal(read(tmp_path / "a.png"), pixels[np.newaxis, ..., 0])
    pixels[3, 2, 1] -= 1
    deep_gray_alpha(tmp_path / "a.png", pixels)
    with pytest.raises(BadAlpha, match="1 of 35 pixels are transparent"):
        read_image(tmp_path / "a.png")


def test_a_transparent_colour_counts_as_alpha(tmp_path: Path) -> None:
    picture = np.array([[10, 20], [30, 40]], np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png", transparency=99)
    assert np.array_equal(read(tmp_path / "a.png"), picture[np.newaxis])
    Image.fromarray(picture).save(tmp_path / "b.png", transparency=20)
    with pytest.raises(BadAlpha, match="1 of 4"):
        read_image(tmp_path / "b.png")


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_two_valued_pictures_give_zero_and_one(tmp_path: Path, ending: str) -> None:
    Image.fromarray(GRAY > 100).save(tmp_path / f"a{ending}")
    label, _ = read_label(tmp_path / f"a{ending}")
    assert np.array_equal(label[0], GRAY > 100)
    assert set(np.unique(read(tmp_path / f"a{ending}"))) <= {0, 1}


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_gray_levels_are_not_stretched(tmp_path: Path, bits: int) -> None:
    picture = GRAY % 2**bits
    Image.fromarray(picture).save(tmp_path / "a.png", bits=bits)
    assert np.array_equal(read(tmp_path / "a.png")[0], picture)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_a_palette_is_colours_as_image_and_indices_as_label(tmp_path: Path, ending: str) -> None:
    indices = GRAY % 3
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / f"a{ending}")
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]])[indices]
    assert np.array_equal(read_image(tmp_path / f"a{ending}")[0][:, 0], np.moveaxis(colours, -1, 0))
    assert np.array_equal(read_label(tmp_path / f"a{ending}")[0][0], indices)


def test_a_gray_palette_is_one_channel(tmp_path: Path) -> None:
    picture = Image.fromarray(GRAY % 2, mode="P")
    picture.putpalette([7, 7, 7, 200, 200, 200])
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png")[0], np.where(GRAY % 2, 200, 7))


def test_jpeg_is_an_image_but_never_a_label(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg").shape == (3, 7, 5)
    with pytest.raises(BadLabel, match="JPEG changes label values; store the labels as PNG"):
        read_label(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match="JPEG changes label values"):
        write_label(tmp_path / "b.jpg", np.ones((1, 7, 5)), flat())


def test_an_exif_orientation_is_a_doubt(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GRAY).save(tmp_path / "a.jpg", exif=exif)
    image, _, doubts = inspect_image(tmp_path / "a.jpg")
    assert image.shape == (1, 1, 7, 5)
    assert "EXIF orientation is 6" in doubts[0]


def test_what_a_camera_appends_to_a_jpeg_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.jpg")
    before = read(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + b"preview")
    assert np.array_equal(read(tmp_path / "a.jpg"), before)


def test_other_colour_models_are_unsupported(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(Unsupported, match="CMYK; store it as gray or RGB"):
        read_image(tmp_path / "a.jpg")


def test_several_pictures_in_a_file_are_unsupported(tmp_path: Path) -> None:
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(Unsupported, match="2 pictures in one file"):
        read_image(tmp_path / "a.png")


def test_gray_stored_as_colour_is_a_label_and_true_colour_is_not(tmp_path: Path) -> None:
    Image.fromarray(np.stack([GRAY % 3] * 3, axis=-1)).save(tmp_path / "a.png")
    assert np.array_equal(read_label(tmp_path / "a.png")[0][0], GRAY % 3)
    Image.fromarray(COLOUR).save(tmp_path / "b.png")
    with pytest.raises(BadLabel, match="3 channels"):
        read_label(tmp_path / "b.png")


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_labels_come_back(tmp_path: Path, ending: str) -> None:
    label = (GRAY % 4)[np.newaxis].astype(np.int16)
    write_label(tmp_path / f"a{ending}", label, flat())
    found, geometry = read_label(tmp_path / f"a{ending}")
    assert np.array_equal(found, label)
    assert geometry == flat()
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    high = np.full((1, 7, 5), 300)
    with pytest.raises(UsageError, match="uint16"):
        write_label(tmp_path / "a.bmp", high, flat())
    with pytest.raises(UsageError, match="from -1 to"):
        write_label(tmp_path / "a.png", high - 301, flat())
    with pytest.raises(UsageError, match="float32"):
        write_image(tmp_path / "a.png", np.ones((1, 1, 7, 5), np.float32), flat())
    with pytest.raises(UsageError, match="2 slices"):
        deep = Geometry(shape=(2, 7, 5), spacing=(1, 1, 1))
        write_image(tmp_path / "a.png", np.ones((1, 2, 7, 5), np.uint8), deep)
    with pytest.raises(ValueError, match="shape"):
        write_image(tmp_path / "a.png", np.ones((1, 1, 5, 7), np.uint8), flat())
    assert list(tmp_path.iterdir()) == []


STACK = RNG.integers(0, 999, (6, 7, 5), dtype=np.uint16)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"imagej": True}, {"bigtiff": True}, {"byteorder": ">"}]
)
def test_tiff_stacks_with_their_spacing_beside_them(tmp_path: Path, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "scan_0000.tif", STACK, **({"photometric": "minisblack"} | options))
    image, geometry, doubts = inspect_image(tmp_path / "scan_0000.tif")
    assert np.array_equal(image[0], STACK)
    assert (geometry.dimensions, geometry.spacing) == (3, (1.0, 1.0, 1.0))
    assert "no spacing" in doubts[0]
    (tmp_path / "scan.json").write_text('{"spacing": [5.0, 0.5, 0.6]}')
    _, geometry, doubts = inspect_image(tmp_path / "scan_0000.tif")
    assert (geometry.spacing, doubts) == ((5.0, 0.5, 0.6), ())
    assert read_header(tmp_path / "scan_0000.tif") == (1, geometry)


def test_a_stack_of_labels_comes_back_with_its_spacing(tmp_path: Path) -> None:
    geometry = Geometry(shape=(6, 7, 5), spacing=(5.0, 0.5, 0.6))
    write_label(tmp_path / "scan.tif", STACK % 3, geometry)
    label, found = read_label(tmp_path / "scan.tif")
    assert np.array_equal(label, STACK % 3)
    assert found == geometry
    assert json.loads((tmp_path / "scan.json").read_text()) == {"spacing": [5.0, 0.5, 0.6]}


@pytest.mark.parametrize(
    "content", ['{"spacing": [1, 2]}', '{"spacing": [0, 1, 1]}', "{}", "[1]", "no json", '{"spacing": "x"}']
)
def test_a_wrong_spacing_file_is_refused(tmp_path: Path, content: str) -> None:
    tifffile.imwrite(tmp_path / "scan.tif", STACK, photometric="minisblack")
    (tmp_path / "scan.json").write_text(content)
    with pytest.raises(BadSpacing, match=r"scan\.json"):
        read_image(tmp_path / "scan.tif")


def test_stacks_of_colour_and_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([STACK] * 3, -1), photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "a.tif")[0], np.stack([STACK] * 3))
    channels = np.stack([STACK, STACK + 1], axis=1)
    tifffile.imwrite(tmp_path / "b.tif", channels, imagej=True, metadata={"axes": "ZCYX"})
    assert np.array_equal(read_image(tmp_path / "b.tif")[0], np.moveaxis(channels, 1, 0))


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "packbits", "group4"])
def test_compressions_that_only_libtiff_knows(tmp_path: Path, compression: str) -> None:
    picture = GRAY > 100 if compression == "group4" else GRAY
    Image.fromarray(picture).save(tmp_path / "a.tif", compression=compression)
    found = read(tmp_path / "a.tif")[0]
    assert np.abs(found.astype(int) - picture).max() <= (20 if compression == "jpeg" else 0)


def test_a_deep_lzw_tiff_keeps_sixteen_bits(tmp_path: Path) -> None:
    writer: Any = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.tif"))
    writer.SetUseCompression(True)
    writer.SetCompressor("LZW")
    writer.Execute(sitk.GetImageFromArray(DEEP, isVector=True))
    assert np.array_equal(read(tmp_path / "a.tif"), np.moveaxis(DEEP, -1, 0))


def test_a_smaller_preview_in_a_tiff_is_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GRAY)
        file.write(GRAY[::2, ::2], subfiletype=1)
    assert np.array_equal(read(tmp_path / "a.tif")[0], GRAY)
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(GRAY)
        file.write(np.zeros((20, 20), np.uint8))
    with pytest.raises(Unsupported, match="2 images of different kinds"):
        read_image(tmp_path / "b.tif")


def test_a_page_table_in_a_circle_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY, metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    first = int.from_bytes(content[4:8], "little")
    after = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    content[after : after + 4] = content[4:8]
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FileProblem, match="page 2"):
        read_image(tmp_path / "a.tif")


def test_every_real_picture_format(real_data: Any) -> None:
    folder = real_data("reader_formats")
    gray = read(folder / "sub-png_sample-8gray_SEM.png")
    for name in ("8grayalhpa", "8grayalpha"):
        assert np.array_equal(read(folder / f"sub-png_sample-{name}_SEM.png")[0], gray[0])
    deep = read(folder / "sub-png_sample-16gray_SEM.png")
    assert deep.dtype == np.uint16
    assert deep.max() == 55255
    for name in ("png_sample-16rgb", "png_sample-16rgba", "tif_sample-16rgb", "tif_sample-16rgba"):
        picture = read(folder / f"sub-{name}_SEM.{name[:3]}")
        assert picture.dtype == np.uint16
        assert picture.shape == (3, 256, 256)
        assert np.array_equal(picture[0], deep[0])
