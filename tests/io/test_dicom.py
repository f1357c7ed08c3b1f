"""DICOM pictures: numbers in the order of brightness, whatever type and photometric interpretation they have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfcfg.io.dicom import patient_of, read_picture
from selfcfg.io.images import picture_geometry
from selfcfg.io.problems import FileProblem, Unsupported
from tests.radiographs import draw_picture, sitk, write_dicom

Array = np.ndarray[Any, Any]
GRAY = draw_picture(0)


def invert(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b"MONOCHROME2 ") == 1
    path.write_bytes(content.replace(b"MONOCHROME2 ", b"MONOCHROME1 "))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (GRAY, np.uint8),
        (GRAY.astype(np.uint16) * 16, np.uint16),
        (GRAY.astype(np.int16), np.uint8),
        (GRAY.astype(np.int16) * 9, np.uint16),
        (GRAY.astype(np.int16) - 100, np.int32),
        (np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], -1), np.uint8),
    ],
    ids=["8 bits", "16 bits", "signed, small", "signed, larger", "negative", "colours"],
)
def test_the_stored_numbers_come_out(tmp_path: Path, stored: Array, expected: type) -> None:
    write_dicom(tmp_path / "a.dcm", stored)
    picture, geometry = read_picture(tmp_path / "a.dcm")
    colours = np.moveaxis(stored, -1, 0) if stored.ndim == 3 else stored[np.newaxis]
    assert picture.dtype == expected
    assert np.array_equal(picture[:, 0], colours)
    assert geometry == picture_geometry((1, *GRAY.shape))


@pytest.mark.parametrize(
    ("stored", "tags", "turned"),
    [
        (GRAY, {}, lambda pixels: 255 - pixels.astype(int)),
        (GRAY.astype(np.uint16) * 16, {}, lambda pixels: 65535 - pixels.astype(int)),
        (GRAY.astype(np.int16) - 100, {}, lambda pixels: -1 - pixels.astype(int)),
        (
            GRAY.astype(np.uint16),
            {"tag_0028_1052": "-10", "tag_0028_1053": "1"},
            lambda pixels: 65535 - 20 - pixels.astype(int),
        ),
    ],
    ids=["8 bits", "16 bits", "signed", "rescaled"],
)
def test_monochrome1_is_turned_round(
    tmp_path: Path, stored: Array, tags: dict[str, str], turned: Callable[[Array], Array]
) -> None:
    write_dicom(tmp_path / "a.dcm", stored, **tags)
    upright = read_picture(tmp_path / "a.dcm")[0]
    assert np.array_equal(upright[0, 0], stored)
    invert(tmp_path / "a.dcm")
    assert np.array_equal(read_picture(tmp_path / "a.dcm")[0][0, 0], turned(stored))


def test_patients(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", GRAY, "patient-7")
    write_dicom(tmp_path / "b.dcm", GRAY)
    assert patient_of(tmp_path / "a.dcm") == "patient-7"
    assert patient_of(tmp_path / "b.dcm") == ""


def test_several_frames_are_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", np.stack([GRAY, GRAY]))
    with pytest.raises(Unsupported, match=r"read .*a\.dcm: 2 pictures in one file; store one file a picture"):
        read_picture(tmp_path / "a.dcm")


def test_compressed_pictures(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", GRAY, compressed=True)
    assert b"\xfe\xff\xdd\xe0" in (tmp_path / "a.dcm").read_bytes(), "the mark that ends compressed pixels"
    assert np.array_equal(read_picture(tmp_path / "a.dcm")[0][0, 0], GRAY)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.995])
def test_cut_files_are_refused(tmp_path: Path, kept: float, compressed: bool) -> None:
    path = tmp_path / "a.dcm"
    write_dicom(path, GRAY, compressed=compressed)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(FileProblem, match=r"a\.dcm: (not a DICOM picture, or )?cut short[;:]"):
        read_picture(path)


def test_other_files_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.dcm").write_bytes(b"\x89PNG\r\n\x1a\n" * 90)
    for function in (read_picture, patient_of):
        with pytest.raises(FileProblem, match="not a DICOM picture, or cut short"):
            function(tmp_path / "a.dcm")
        with pytest.raises(FileProblem, match="there is no such file"):
            function(tmp_path / "b.dcm")
    assert capfd.readouterr().err == ""


def test_real_slices_have_the_numbers_of_their_series(real_data: Callable[[str], Path]) -> None:
    files = sorted((real_data("dicom") / "totalseg_ct_series" / "dicom").iterdir())
    assert files
    for path in files[:5]:
        picture, geometry = read_picture(path)
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        assert np.array_equal(picture[0], expected)
        assert geometry.dimensions == 2
        assert patient_of(path) == sitk.ReadImage(str(path)).GetMetaData("0010|0020").strip()


def test_every_length_is_within_its_file_before_memory_is_taken_for_it(tmp_path: Path) -> None:
    """Of a length changed anywhere, GDCM takes as much memory and leaks it."""
    from selfcfg.io.dicom_elements import verify_elements

    write_dicom(tmp_path / "a.dcm", GRAY)
    whole = (tmp_path / "a.dcm").read_bytes()
    verify_elements(tmp_path / "a.dcm", whole)
    place = whole.index(b"\xe0\x7f\x10\x00") + 4
    for at in (place, whole.index(b"\x08\x00\x16\x00") + 4):
        changed = whole[:at] + (0x2E000000).to_bytes(4, "little") + whole[at + 4 :]
        with pytest.raises(FileProblem, match="is no element that lies within it"):
            verify_elements(tmp_path / "a.dcm", changed)


SEQUENCE = b"\x08\x00\x40\x11SQ\0\0"
ITEM, ITEM_END, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
INNER = b"\x08\x00\x55\x11UI\x04\x001.2\0"
OPEN = b"\xff\xff\xff\xff"


def file_of(elements: bytes) -> bytes:
    syntax = b"1.2.840.10008.1.2.1\0"
    return bytes(128) + b"DICM" + b"\x02\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax + elements


@pytest.mark.parametrize(
    ("elements", "is_whole"),
    [
        (SEQUENCE + OPEN + ITEM + OPEN + INNER + ITEM_END + END + INNER, True),
        (SEQUENCE + OPEN + ITEM + (12).to_bytes(4, "little") + INNER + END, True),
        (SEQUENCE + (20).to_bytes(4, "little") + ITEM + (12).to_bytes(4, "little") + INNER, True),
        (b"\xe0\x7f\x10\x00OB\0\0" + OPEN + ITEM + bytes(4) + ITEM + b"\x02\0\0\0ab" + END, True),
        (INNER + bytes(30), True),
        (SEQUENCE + OPEN + ITEM + OPEN + INNER + ITEM_END, False),
        (SEQUENCE + OPEN + ITEM + (13).to_bytes(4, "little") + INNER + END, False),
        (SEQUENCE + (21).to_bytes(4, "little") + ITEM + (12).to_bytes(4, "little") + INNER, False),
        (INNER[:-1], False),
        ((SEQUENCE + OPEN + ITEM + OPEN) * 100, False),
    ],
)
def test_nested_elements_are_followed(elements: bytes, is_whole: bool) -> None:
    from selfcfg.io.dicom_elements import verify_elements

    if is_whole:
        verify_elements(Path("a.dcm"), file_of(elements))
    else:
        with pytest.raises(FileProblem):
            verify_elements(Path("a.dcm"), file_of(elements))
