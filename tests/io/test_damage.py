"""Damaged files of every format: whatever byte is lost or flipped, a reader never gives wrong voxels silently."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from selfcfg.errors import SelfcfgError
from selfcfg.geometry import Geometry
from selfcfg.io import read_image, write_image
from selfcfg.io.inflate import ZLIB, inflate, inflate_start
from selfcfg.io.problems import FileProblem

GEOMETRY = Geometry(shape=(4, 9, 8), spacing=(2.0, 1.0, 1.0))
PIXELS = np.random.Generator(np.random.Philox(key=[7, 0])).integers(0, 255, (4, 9, 8), dtype=np.uint8)


def volume(path: Path) -> None:
    write_image(path, PIXELS[np.newaxis], GEOMETRY)


def uncompressed_volume(path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(PIXELS), str(path), useCompression=False)


def picture(path: Path) -> None:
    Image.fromarray(np.stack([PIXELS[0]] * 3, axis=-1)).save(path)


def stack(path: Path) -> None:
    tifffile.imwrite(path, PIXELS, photometric="minisblack")


def pages(path: Path) -> None:
    tifffile.imwrite(path, PIXELS, photometric="minisblack", compression="zlib")


MAKERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "nifti gz": (".nii.gz", volume),
    "nifti": (".nii", volume),
    "nrrd gzip": (".nrrd", volume),
    "nrrd raw": (".nrrd", uncompressed_volume),
    "mha zlib": (".mha", volume),
    "mha raw": (".mha", uncompressed_volume),
    "png": (".png", picture),
    "bmp": (".bmp", picture),
    "jpeg": (".jpg", picture),
    "tiff": (".tif", picture),
    "tiff stack": (".tiff", stack),
    "tiff pages": (".tif", pages),
}

CHECKSUMMED = ("nifti gz", "png")
"""Formats whose every byte is under a checksum."""

formats = pytest.mark.parametrize("name", MAKERS)


def made(tmp_path: Path, name: str) -> tuple[Path, bytes, np.ndarray[Any, Any]]:
    ending, maker = MAKERS[name]
    path = tmp_path / f"case_1{ending}"
    maker(path)
    return path, path.read_bytes(), read_image(path)[0]


@formats
def test_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    path, content, _ = made(tmp_path, name)
    # Some writers end a BMP and a TIFF with bytes that carry nothing; all before the last few do.
    places = {0, 1, 10, len(content) // 4, len(content) // 2, 3 * len(content) // 4, len(content) - 20}
    if name not in ("tiff", "tiff stack", "tiff pages", "bmp"):
        places |= {len(content) - 1, len(content) - 4}
    for place in places:
        path.write_bytes(content[:place])
        with pytest.raises(FileProblem, match="case_1"):
            read_image(path)


@formats
def test_flipped_bytes_never_pass_unseen(tmp_path: Path, name: str) -> None:
    """Where a checksum covers the byte the file is refused or nothing changed; elsewhere no other error comes out."""
    path, content, expected = made(tmp_path, name)
    rng = np.random.Generator(np.random.Philox(key=[8, 0]))
    n_refused = 0
    for place in rng.integers(0, len(content), 150):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            image, _ = read_image(path)
        except SelfcfgError as error:
            assert "case_1" in str(error)
            n_refused += 1
            continue
        if name in CHECKSUMMED:
            assert np.array_equal(image, expected)
    if name in CHECKSUMMED:
        assert n_refused > 100


@formats
def test_noise_is_refused(tmp_path: Path, name: str) -> None:
    path, content, _ = made(tmp_path, name)
    rng = np.random.Generator(np.random.Philox(key=[9, 0]))
    for size in (0, 3, 100, 5000):
        path.write_bytes(rng.bytes(size))
        with pytest.raises(FileProblem):
            read_image(path)
        path.write_bytes(content[:12] + rng.bytes(size))
        with pytest.raises(FileProblem):
            read_image(path)


@pytest.mark.parametrize("name", ["nifti gz", "nifti", "nrrd gzip", "nrrd raw", "mha zlib", "mha raw"])
def test_bytes_too_many_are_refused(tmp_path: Path, name: str) -> None:
    path, content, _ = made(tmp_path, name)
    path.write_bytes(content + b"something else")
    with pytest.raises(FileProblem):
        read_image(path)


def test_simpleitk_reads_half_a_file_and_we_do_not(tmp_path: Path) -> None:
    """The reason for all this: a cut .nii.gz comes back full of zeros without an error."""
    path = tmp_path / "a.nii.gz"
    big = np.random.Generator(np.random.Philox(key=[1, 1])).integers(0, 255, (40, 64, 64), dtype=np.uint8)
    write_image(path, big[np.newaxis], Geometry(shape=(40, 64, 64), spacing=(1, 1, 1)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).shape == big.shape
    with pytest.raises(FileProblem, match="cut short"):
        read_image(path)


def test_a_wrong_checksum_is_named(tmp_path: Path) -> None:
    path, content, _ = made(tmp_path, "nifti gz")
    path.write_bytes(content[:-6] + bytes([content[-6] ^ 1]) + content[-5:])
    with pytest.raises(FileProblem, match=r"damaged .wrong checksum or length."):
        read_image(path)
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    with pytest.raises(FileProblem, match=r"damaged .wrong checksum or length."):
        read_image(path)


def test_gzip_of_several_parts_and_zero_padding_are_whole(tmp_path: Path) -> None:
    path, content, expected = made(tmp_path, "nifti gz")
    plain = gzip.decompress(content)
    path.write_bytes(gzip.compress(plain[:400]) + gzip.compress(plain[400:]) + bytes(100))
    assert np.array_equal(read_image(path)[0], expected)


def test_a_plain_file_named_gz_is_read(tmp_path: Path) -> None:
    path, content, expected = made(tmp_path, "nifti gz")
    path.write_bytes(gzip.decompress(content))
    assert np.array_equal(read_image(path)[0], expected)


@pytest.mark.parametrize("size", [0, 1, 1000, 3 << 20])
def test_inflate_gives_exactly_the_bytes(size: int) -> None:
    content = np.random.Generator(np.random.Philox(key=[2, 2])).bytes(size)
    assert inflate(Path("a"), gzip.compress(content), size) == content
    assert inflate(Path("a"), zlib.compress(content), size, ZLIB) == content
    for wrong in (size + 1, size - 1):
        if wrong >= 0:
            with pytest.raises(FileProblem):
                inflate(Path("a"), gzip.compress(content), wrong)


def test_a_bomb_stops_at_what_was_promised() -> None:
    with pytest.raises(FileProblem, match="more than the 1000 bytes"):
        inflate(Path("a"), gzip.compress(bytes(200 << 20), 1), 1000)


def test_the_start_of_a_file_is_all_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(range(256)) * 1000)[:3000])
    assert inflate_start(tmp_path / "a.gz", 300) == (bytes(range(256)) * 2)[:300]


@pytest.mark.parametrize(
    ("ending", "header", "message"),
    [
        (
            ".nrrd",
            b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 9 8\nencoding: raw\ndata file: x.raw\n\n",
            "another file",
        ),
        (".nrrd", b"NRRD0004\ntype: block\ndimension: 3\nsizes: 4 9 8\nencoding: raw\n\n", "type 'block'"),
        (".nrrd", b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 0 8\nencoding: raw\n\n", "sizes '4 0 8'"),
        (".nrrd", b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 9 8\nencoding: raw\nbyte skip: 9\n\n", "skipped"),
        (".nrrd", b"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 9 8\nencoding: raw\n", "does not end"),
        (".nrrd", b"NRRD0004\ntype: short\ndimension: 3\nsizes: 1 2 3\nencoding: text\n\n1 2 3 4 5", "5 numbers"),
        (".mha", b"NDims = 3\nDimSize = 4 9 8\nElementType = MET_SHORT\nElementDataFile = x.raw\n", "another file"),
        (".mha", b"NDims = 3\nDimSize = 4 9 8\nElementType = MET_OTHER\nElementDataFile = LOCAL\n", "MET_OTHER"),
        (".mha", b"NDims = 3\nDimSize = 4 9 8\nHeaderSize = 9\nElementDataFile = LOCAL\n", "skipped"),
        (".mha", b"NDims = 3\nDimSize = 4 9 8\n", "does not end"),
    ],
)
def test_headers_that_cannot_be_verified_are_refused(tmp_path: Path, ending: str, header: bytes, message: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(header)
    with pytest.raises(FileProblem, match=message):
        read_image(path)
