"""What a header says of a patient goes into no output: neither of a reader and a writer, nor of a conversion."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image, PngImagePlugin

from selfcfg.convert.folder import FolderRequest, convert_folder
from selfcfg.geometry import Geometry
from selfcfg.io import read_image, write_image, write_label
from selfcfg.io.notes import without_notes
from tests.radiographs import write_dicom

SECRET = "DOE^JANE"
VALUES = (np.arange(4 * 9 * 8) % 3).reshape(4, 9, 8).astype(np.uint8)
GEOMETRY = Geometry(shape=(4, 9, 8), spacing=(2.0, 1.0, 1.0), origin=(3.0, 2.0, 1.0))


def nifti(path: Path, kind: Any = nib.Nifti1Image) -> None:
    image = kind(VALUES.T, np.diag([1.0, 1.0, 2.0, 1.0]))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        if field in image.header.template_dtype.names:
            image.header[field] = SECRET
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET.encode() * 3))
    image.to_filename(path)


def big_endian(path: Path) -> None:
    image = nib.Nifti1Image(VALUES.T.astype(">i2"), np.eye(4), nib.Nifti1Header(endianness=">"))
    image.header["descrip"] = SECRET
    image.to_filename(path)


def named_gzip(path: Path) -> None:
    """A file whose image says nothing, but whose gzip header holds the name it had."""
    plain = path.with_name("plain.nii")
    write_image(plain, VALUES[np.newaxis], GEOMETRY)
    stream = io.BytesIO()
    with gzip.GzipFile(f"{SECRET}.nii", "wb", fileobj=stream) as packed:
        packed.write(plain.read_bytes())
    plain.unlink()
    path.write_bytes(stream.getvalue())


def by_itk(path: Path) -> None:
    image = sitk.GetImageFromArray(VALUES)
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetMetaData("0010|0010", SECRET)
    image.SetMetaData("PatientName", SECRET)
    sitk.WriteImage(image, str(path))


def noted_nrrd(path: Path) -> None:
    head = f"NRRD0004\n# {SECRET}\ntype: uchar\ndimension: 3\ncontent: {SECRET}\nsizes: 8 9 4\nencoding: raw\n"
    path.write_bytes(f"{head}name:={SECRET}\n\n".encode() + VALUES.tobytes())


def png(path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", SECRET)
    text.add_itxt("Comment", SECRET)
    exif = Image.Exif()
    exif[0x010E] = SECRET
    Image.fromarray(VALUES[0]).save(path, pnginfo=text, exif=exif)
    path.write_bytes(path.read_bytes() + SECRET.encode())


def tiff(path: Path) -> None:
    extra = [(315, "s", 0, SECRET, True), (65000, "s", 0, SECRET, True)]
    tifffile.imwrite(path, VALUES[0], photometric="minisblack", description=SECRET, software=SECRET, extratags=extra)


def stack(path: Path) -> None:
    tifffile.imwrite(path, VALUES, photometric="minisblack", metadata=None)
    path.with_suffix(".json").write_text(json.dumps({"spacing": [2, 1, 1], "patient": SECRET}))


def bmp(path: Path) -> None:
    Image.fromarray(VALUES[0]).save(path)
    path.write_bytes(path.read_bytes() + SECRET.encode())


def jpeg(path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = SECRET
    Image.fromarray(VALUES[0] * 90).save(path, exif=exif, comment=SECRET)


KINDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "NIfTI": ("a.nii", nifti),
    "NIfTI gz": ("a.nii.gz", nifti),
    "NIfTI-2": ("a.nii", lambda path: nifti(path, nib.Nifti2Image)),
    "NIfTI, big endian": ("a.nii.gz", big_endian),
    "NIfTI in a named gz": ("a.nii.gz", named_gzip),
    "MetaImage": ("a.mha", by_itk),
    "NRRD": ("a.nrrd", by_itk),
    "NRRD by hand": ("a.nrrd", noted_nrrd),
    "PNG": ("a.png", png),
    "TIFF": ("a.tif", tiff),
    "TIFF stack": ("a.tif", stack),
    "BMP": ("a.bmp", bmp),
    "JPEG": ("a.jpg", jpeg),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def told(file: Path) -> bytes:
    """All bytes of a file, decompressed where they are packed, and its name."""
    content = file.read_bytes()
    parts = [file.name.encode(), content]
    if content.startswith(b"\x1f\x8b"):
        parts.append(gzip.decompress(content))
    if content.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(content):
            (length,) = struct.unpack_from(">I", content, at)
            data = content[at + 8 : at + 8 + length]
            parts += [zlib.decompress(data[data.index(b"\0") + 2 :])] if content[at + 4 : at + 8] == b"zTXt" else []
            at += 12 + length
    return b"\n".join(parts)


@kinds
def test_a_conversion_leaves_it_behind(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, make = KINDS[kind]
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    source = tmp_path / "images" / name
    make(source)
    image, geometry = read_image(source)
    ending = ".png" if kind == "JPEG" else name[1:]
    write_label(tmp_path / "labels" / f"a{ending}", (image[0] > 0).astype(np.uint8), geometry)
    assert kind == "TIFF stack" or SECRET.encode() in told(source)
    dataset = convert_folder(FolderRequest(images=(tmp_path / "images",), labels=tmp_path / "labels"), tmp_path / "out")
    for file in (tmp_path / "out").rglob("*"):
        assert file.is_dir() or SECRET.encode() not in told(file), file.name
    assert SECRET not in "".join(capfd.readouterr())
    converted, placed = read_image(dataset.cases[0].images[0])
    assert converted.dtype == image.dtype and (converted == image).all()
    assert not placed.differences(geometry)


@kinds
def test_a_reader_and_a_writer_lose_it(kind: str, tmp_path: Path) -> None:
    name, make = KINDS[kind]
    make(tmp_path / name)
    image, geometry = read_image(tmp_path / name)
    write_image(tmp_path / f"out{name[1:]}", image, geometry)
    for file in tmp_path.glob("out*"):
        assert SECRET.encode() not in told(file)


def test_of_dicom_nothing_but_the_pixels_is_taken(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from selfcfg.convert.rle_csv import RleRequest, convert_rle_csv

    (tmp_path / "images").mkdir()
    for name in "ab":
        write_dicom(
            tmp_path / "images" / f"{name}.dcm", VALUES[0] * 80, tag_0010_0010=SECRET, tag_0010_0020=SECRET + name
        )
    (tmp_path / "t.csv").write_text("ImageId,EncodedPixels\na,1 3\nb,2 4\n")
    convert_rle_csv(
        RleRequest(images=tmp_path / "images", table=tmp_path / "t.csv", coding="absolute"), tmp_path / "out"
    )
    assert all(SECRET.encode() not in told(file) for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".png"])
def test_a_file_of_ours_has_no_notes_and_is_copied_as_it_is(ending: str, tmp_path: Path) -> None:
    flat = Geometry(shape=(1, 9, 8), spacing=(999.0, 1.0, 1.0), dimensions=2)
    image, geometry = (VALUES[np.newaxis, :1], flat) if ending == ".png" else (VALUES[np.newaxis], GEOMETRY)
    write_image(tmp_path / f"a{ending}", image, geometry)
    assert without_notes(tmp_path / f"a{ending}") is None
