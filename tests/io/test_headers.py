"""NRRD and MetaImage as we read them: the same voxels in the same place as ITK has them, whatever way they are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from selfcfg.geometry import Geometry
from selfcfg.io import read_header, read_image
from selfcfg.io.itk import unpack
from selfcfg.io.problems import FileProblem

DIRECTION = (0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8)


def numbers(dtype: str, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(3).normal(0, 40, shape)
    return np.abs(values).astype(dtype) if dtype.startswith("u") else values.astype(dtype)


def agrees(path: Path) -> tuple[np.ndarray[Any, Any], Geometry]:
    """What we read, which is what ITK reads."""
    image, geometry = read_image(path)
    expected, placed, _ = unpack(path, sitk.ReadImage(str(path)))
    assert image.shape == expected.shape and image.dtype == expected.dtype
    assert np.array_equal(image, expected)
    assert geometry == placed
    assert read_header(path) == (len(image), geometry)
    return image, geometry


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_of_number(dtype: str, compressed: bool, ending: str, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(numbers(dtype))
    image.SetSpacing((0.5, 0.7, 2.0))
    image.SetOrigin((-3.0, 20.5, 7.0))
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"), useCompression=compressed)
    assert np.array_equal(agrees(tmp_path / f"a{ending}")[0][0], numbers(dtype))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4, 5)])
def test_other_numbers_of_axes(shape: tuple[int, ...], ending: str, tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(numbers("f4", shape), isVector=False), str(tmp_path / f"a{ending}"))
    agrees(tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("shape", [(4, 5, 3), (3, 4, 5, 2)])
def test_several_numbers_a_voxel(shape: tuple[int, ...], ending: str, tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(numbers("i2", shape), isVector=True), str(tmp_path / f"a{ending}"))
    assert len(agrees(tmp_path / f"a{ending}")[0]) == shape[-1]


RAW = numbers("i2")
NRRD = {
    "nothing said": "",
    "spacings": "spacings: 0.5 0.7 2\n",
    "spacings and beginnings": "spacings: 0.5 0.7 2\naxis mins: 1 2 3\ncenters: cell cell cell\n",
    "left": "space: left-posterior-superior\nspace directions: (0.5,0,0) (0,.7,0) (0,0,2)\nspace origin: (1,-2,3e0)\n",
    "right": "space: right-anterior-superior\nspace directions: (0.5,0,0) (0,.7,0) (0,0,2)\nspace origin: (1,-2,3)\n",
    "short": "space: LAS\nspace directions: (1,0,0) (0,.7,0) (0,0,2)\nspace origin: (1,-2,3)\nkinds: space ??? space\n",
    "turned": "space: RAS\nspace directions: (0,0.5,0) (0,0,-0.7) (2,0,0)\nspace origin: (1,-2,3)\n",
    "units": 'space: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nspace units: "mm" "mm" "mm"\n',
    "a space of no name": "space dimension: 3\nspace directions: (0.5,0,0) (0,.7,0) (0,0,2)\n# said\nwho:=somebody\n",
}  # fmt: skip


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("said", NRRD)
def test_where_an_nrrd_lies(said: str, endian: str, tmp_path: Path) -> None:
    head = f"NRRD0005\ntype: short\ndimension: 3\nsizes: 5 4 3\nendian: {endian}\nencoding: raw\n"
    data = RAW.astype("<i2" if endian == "little" else ">i2").tobytes()
    (tmp_path / "a.nrrd").write_bytes((head + NRRD[said]).encode() + b"\n" + data)
    assert np.array_equal(agrees(tmp_path / "a.nrrd")[0][0], RAW)


@pytest.mark.parametrize(
    ("sizes", "kinds"), [("2 5 4 3", "vector domain domain domain"), ("5 4 3 2", "space space space list")]
)
def test_channels_of_an_nrrd_at_either_end(sizes: str, kinds: str, tmp_path: Path) -> None:
    directions = "none (1,0,0) (0,1,0) (0,0,2)" if kinds.startswith("vector") else "(1,0,0) (0,1,0) (0,0,2) none"
    head = f"NRRD0005\ntype: short\ndimension: 4\nspace: LPS\nsizes: {sizes}\nspace directions: {directions}\n"
    data = numbers("i2", (120,)).astype("<i2").tobytes()
    (tmp_path / "a.nrrd").write_bytes(f"{head}kinds: {kinds}\nendian: little\nencoding: raw\n\n".encode() + data)
    assert len(agrees(tmp_path / "a.nrrd")[0]) == 2


META = {
    "nothing said": "",
    "spacing": "ElementSpacing = 0.5 0.7 2\nOffset = 1 2 3\n",
    "other words": "ElementSize = 0.5 0.7 2\nPosition = 1 2 3\nOrientation = 0 1 0 0 0 1 1 0 0\n",
    "turned": "TransformMatrix = 0 -1 0 0.8 0 0.6 -0.6 0 0.8\nOffset = 1 2 3\nCenterOfRotation = 0 0 0\n"
    "AnatomicalOrientation = RAI\nElementSpacing = 0.5 0.7 2\nComment = said\n",
    "notes twice": "Window = 1\nWindow = 2\nElementSpacing = 0.5 0.7 2\nWindow = 1\n",
    "blank lines": "\n\nElementSpacing = 0.5 0.7 2\n\n  \t\nOffset = 1 2 3\n\n",
    "lines of Windows": "ElementSpacing = 0.5 0.7 2\r\n\r\nOffset = 1 2 3\r\n",
}


@pytest.mark.parametrize("msb", ["True", "False"])
@pytest.mark.parametrize("said", META)
def test_where_a_metaimage_lies(said: str, msb: str, tmp_path: Path) -> None:
    head = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {msb}\nCompressedData = False\n"
    rest = "DimSize = 5 4 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    data = RAW.astype(">i2" if msb == "True" else "<i2").tobytes()
    (tmp_path / "a.mha").write_bytes((head + META[said] + rest).encode() + data)
    assert np.array_equal(agrees(tmp_path / "a.mha")[0][0], RAW)


@pytest.mark.parametrize("twice", ["Offset = 1 2 3", "DimSize = 5 4 3", "CompressedData = False", "NDims = 3"])
def test_a_metaimage_that_says_twice_where_it_lies_is_refused(twice: str, tmp_path: Path) -> None:
    head = "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\nOffset = 1 2 3\n"
    rest = f"{twice}\nDimSize = 5 4 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes((head + rest).encode() + RAW.tobytes())
    with pytest.raises(FileProblem, match="stands twice in its header"):
        read_image(tmp_path / "a.mha")


def test_numbers_that_are_spelt_out(tmp_path: Path) -> None:
    text = " ".join(map(str, RAW.ravel()))
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nencoding: text\n\n"
    (tmp_path / "a.nrrd").write_bytes((head + text).encode())
    assert np.array_equal(agrees(tmp_path / "a.nrrd")[0][0], RAW)


HEAD = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 4 3\nencoding: raw\n"
ODD = {
    "a number of 5000 digits": f"space directions: (0{'9' * 5000},0,0) (0,1,0) (0,0,1)\n",
    "too few vectors": "space: LPS\nspace directions: (1,0,0) (0,1,0)\n",
    "words for numbers": "spacings: 1 %n 1\n",
    "a size twice": "sizes: 5 4 30000\n",
    "a voxel file": "data file: /etc/passwd\n",
    "no field": f"{'x' * 3000}\n",
    "words of no form": "kinds: a b c:d\n",
}


@pytest.mark.parametrize("kind", ODD)
def test_headers_that_no_program_writes(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes((HEAD + ODD[kind] + "\n").encode() + bytes(60))
    for read in (read_header, read_image):
        with pytest.raises(FileProblem):
            read(tmp_path / "a.nrrd")


def test_what_itk_does_not_stand_is_never_shown_to_it(tmp_path: Path) -> None:
    """Comments and pairs of any length, which its parser ends the process at, say nothing of the image."""
    long = "# " + " " * 3000 + "(" * 40 + "\n" + "key:=" + "9" * 9000 + "\n"
    (tmp_path / "a.nrrd").write_bytes((HEAD + long * 3 + "\n").encode() + bytes(60))
    assert read_image(tmp_path / "a.nrrd")[0].shape == (1, 3, 4, 5)
