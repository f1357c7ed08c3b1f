"""Pictures with a table of run lengths become a dataset that is whole, checked, readable, and names no patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfcfg.cli import main
from selfcfg.convert.code_table import image_name, read_codes
from selfcfg.convert.rle_csv import RleRequest, convert_rle_csv
from selfcfg.dataset import Dataset
from selfcfg.engine.checks.check import check
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.io import read_case
from tests.radiographs import draw_mask, draw_picture, encode_absolute, encode_relative, uid, write_dicom, write_siim

MASKS = {number: draw_mask(number) for number in range(4)}


def siim(root: Path, n_images: int = 6, **changes: Any) -> RleRequest:
    n_patients = changes.pop("n_patients", None)
    write_siim(root, n_images, n_patients=n_patients)
    return RleRequest(images=root / "dicom-images-train", table=root / "train-rle.csv", **changes)


def pictures(root: Path, heading: str = "ImageId,EncodedPixels", ending: str = ".png", **changes: Any) -> RleRequest:
    """Four PNG pictures a, b, c, d; c has no mask. Columns beside the two that matter hold nothing."""
    (root / "images").mkdir()
    columns = heading.split(",")
    rows = [heading]
    for number, name in enumerate("abcd"):
        Image.fromarray(draw_picture(number)).save(root / "images" / f"{name}{ending}")
        cells = [f"{name}{ending}", encode_absolute(MASKS[number]) if name != "c" else ""]
        rows.append(",".join([*cells, *[""] * (len(columns) - 2)]))
    (root / "masks.csv").write_text("\n".join(rows))
    return RleRequest(images=root / "images", table=root / "masks.csv", **changes)


def write_table(request: RleRequest, *rows: str) -> RleRequest:
    request.table.write_text("\n".join(["ImageId,EncodedPixels", *rows]))
    return request


def good(dataset: Dataset) -> Dataset:
    assert [finding for finding in check(dataset.root, 1) if finding.severity == "error"] == []
    return dataset


def label(dataset: Dataset, case: str) -> np.ndarray[Any, Any]:
    found = read_case(dataset.case(case)).label
    assert found is not None
    return found[0]


def test_siim_becomes_pictures_and_masks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    request = siim(tmp_path, label_name="pneumothorax")
    dataset = good(convert_rle_csv(request, tmp_path / "raw" / "Dataset006_Pneumothorax"))
    assert [case.id for case in dataset.cases] == [uid(number) for number in (0, 1, 3, 4, 5)]
    for number in (0, 1, 3, 4, 5):
        expected = np.zeros_like(MASKS[0]) if number % 3 == 0 else draw_mask(number)
        if number in (1, 4):
            expected = expected | draw_mask(number + 500)
        assert np.array_equal(label(dataset, uid(number)), expected)
        assert np.array_equal(read_case(dataset.case(uid(number))).image[0, 0], draw_picture(number))
    assert dataset.description.labels == {"background": 0, "pneumothorax": 1}
    assert (dataset.description.file_ending, dataset.description.channels) == (".png", ("image",))
    said = capfd.readouterr().err
    assert f"left out 1 image without a row: {uid(2)} (to take them as without a mask: --unlisted empty)" in said
    assert "5 masks (relative run lengths) in 3 of 5 images, 5 subjects" in said


def test_no_file_and_no_message_names_a_patient(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    request = siim(tmp_path / "source", 9, n_patients=3)
    dataset = good(convert_rle_csv(request, tmp_path / "Dataset006_A"))
    subjects = {number: dataset.case(uid(number)).subject for number in range(9) if number != 2}
    assert subjects == {number: f"patient_000{(0, 1, 2)[number % 3] + 1}" for number in subjects}
    written = [path for path in dataset.root.rglob("*") if path.is_file()]
    assert len(written) == 2 * 8 + 1
    for path in written:
        assert b"secret" not in path.read_bytes()
        assert b"Jane" not in path.read_bytes()
    captured = capfd.readouterr()
    assert "secret" not in captured.out + captured.err


def test_subjects_are_the_same_whenever_the_same_images_are_converted(tmp_path: Path) -> None:
    request = siim(tmp_path / "source", 9, n_patients=4)
    first = convert_rle_csv(request, tmp_path / "Dataset006_A")
    second = convert_rle_csv(request, tmp_path / "Dataset007_A")
    assert [case.subject for case in first.cases] == [case.subject for case in second.cases]


def test_one_patient_id_for_all_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = convert_rle_csv(siim(tmp_path, n_patients=1), tmp_path / "Dataset006_A")
    assert [case.subject for case in dataset.cases] == [case.id for case in dataset.cases]
    assert dataset.description.selfcfg.subjects == {}
    assert "the PatientID of 5 images is the same: each image is taken as a subject of its own" in (
        capfd.readouterr().err
    )


def test_images_without_patient_id_stand_for_themselves(tmp_path: Path) -> None:
    request = siim(tmp_path, n_patients=2)
    write_dicom(next(request.images.rglob(f"{uid(4)}.dcm")), draw_picture(4))
    dataset = convert_rle_csv(request, tmp_path / "Dataset006_A")
    found = {case.id: case.subject for case in dataset.cases}
    assert found[uid(4)] == uid(4)
    assert found[uid(0)] == "patient_0001"
    assert found[uid(1)] == found[uid(3)] == found[uid(5)] == "patient_0002"


def test_a_pattern_goes_before_the_patient_id(tmp_path: Path) -> None:
    request = siim(tmp_path, n_patients=2, subject_pattern=r"\.(\d+)$")
    dataset = convert_rle_csv(request, tmp_path / "Dataset006_A")
    assert [case.subject for case in dataset.cases] == [str(258080 + number) for number in (0, 1, 3, 4, 5)]


def test_images_without_a_row_may_be_empty(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = good(convert_rle_csv(siim(tmp_path, unlisted="empty"), tmp_path / "Dataset006_A"))
    assert len(dataset.cases) == 6
    assert not label(dataset, uid(2)).any()
    assert f"1 image without a row, taken as without a mask: {uid(2)}" in capfd.readouterr().err


def test_rows_without_a_file_are_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    request = siim(tmp_path)
    next(request.images.rglob(f"{uid(4)}.dcm")).unlink()
    dataset = convert_rle_csv(request, tmp_path / "Dataset006_A")
    assert [case.id for case in dataset.cases] == [uid(number) for number in (0, 1, 3, 5)]
    assert f"left out 1 image of the table without a file: {uid(4)}" in capfd.readouterr().err


def test_png_pictures_stay_byte_for_byte_and_absolute_codes_are_told_apart(tmp_path: Path) -> None:
    dataset = good(convert_rle_csv(pictures(tmp_path), tmp_path / "Dataset006_A"))
    assert [case.id for case in dataset.cases] == ["a", "b", "c", "d"]
    for number, case in enumerate(dataset.cases):
        assert case.images[0].read_bytes() == (tmp_path / "images" / f"{case.id}.png").read_bytes()
        assert np.array_equal(label(dataset, case.id), MASKS[number] & (case.id != "c"))
    assert "absolute run lengths" in dataset.description.selfcfg.source


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif"])
def test_every_kind_of_picture(tmp_path: Path, ending: str) -> None:
    dataset = good(convert_rle_csv(pictures(tmp_path, ending=ending), tmp_path / "Dataset006_A"))
    assert dataset.description.file_ending == (".png" if ending == ".jpg" else ending)
    assert np.array_equal(label(dataset, "b"), MASKS[1])


def test_dicom_and_png_side_by_side_become_png(tmp_path: Path) -> None:
    request = pictures(tmp_path)
    (tmp_path / "images" / "b.png").unlink()
    write_dicom(tmp_path / "images" / "deep" / "er" / "b.DCM", draw_picture(1).astype(np.uint16) * 9)
    (tmp_path / "images" / "._b.png").write_bytes(b"mac")
    dataset = good(convert_rle_csv(request, tmp_path / "Dataset006_A"))
    assert dataset.description.file_ending == ".png"
    assert np.array_equal(read_case(dataset.case("b")).image[0, 0], draw_picture(1).astype(int) * 9)
    assert np.array_equal(label(dataset, "b"), MASKS[1])


def test_negative_numbers_become_tiff(tmp_path: Path) -> None:
    request = pictures(tmp_path)
    (tmp_path / "images" / "b.png").unlink()
    write_dicom(tmp_path / "images" / "b.dcm", draw_picture(1).astype(np.int16) - 1000)
    dataset = good(convert_rle_csv(request, tmp_path / "Dataset006_A"))
    assert dataset.description.file_ending == ".tif"
    assert np.array_equal(read_case(dataset.case("b")).image[0, 0], draw_picture(1).astype(int) - 1000)


@pytest.mark.parametrize(
    ("heading", "changes"),
    [
        ("image_id,rle", {}),
        ("Image,Mask", {}),
        ("img,rle,height,width", {}),
        ("ID,EncodedPixels", {}),
        ("picture,pixels", {"id_column": "picture", "code_column": "pixels"}),
        ("picture,rle,ImageId,mask", {"id_column": " picture "}),
    ],
)
def test_columns(tmp_path: Path, heading: str, changes: dict[str, str]) -> None:
    request = pictures(tmp_path, heading, **changes)
    assert len(good(convert_rle_csv(request, tmp_path / "Dataset006_A")).cases) == 4


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_a_byte_order_mark_quotes_and_empty_lines(tmp_path: Path, delimiter: str) -> None:
    rows = [["ImageId", "EncodedPixels"], ['"x/y/a.png"', '"3 4"'], [], ["b.dcm", "-1"], ["", ""], ["b", ""]]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8-sig")
    found = read_codes(tmp_path / "t.csv")
    assert {name: (image.codes, image.empty_rows) for name, image in found.items()} == {
        "a": ({2: (3, 4)}, []),
        "b": ({}, [4, 6]),
    }


def test_a_code_may_be_of_any_length(tmp_path: Path) -> None:
    code = tuple(range(60_000))
    (tmp_path / "t.csv").write_text("ImageId,EncodedPixels\na," + " ".join(map(str, code)))
    assert read_codes(tmp_path / "t.csv")["a"].codes == {2: code}


@pytest.mark.parametrize(
    ("text", "name"),
    [("1.2.3.4", "1.2.3.4"), ("1.2.3.4.dcm", "1.2.3.4"), (" a/b/c.PNG ", "c"), (r"x\y.jpeg", "y"), ("a.DICOM", "a")],
)
def test_names(text: str, name: str) -> None:
    assert image_name(text) == name


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("a,1 2 3", "b,1 1"), "1 codes.*\n.*row 2, image 'a': 3 numbers, and each run needs two"),
        (("a,1 2 1 1", "b,5 0"), "row 3, image 'b': run 1 .5 0. has no length"),
        (("a,1900 30", "b,1 1"), "row 2, image 'a': run 1 .1900 30. ends at pixel 19[23].*beyond the 1920 pixels"),
        (("a,9 9 30 1", "b,1 2 2 1 9 1", "a,5 9999"), "row 4, image 'a': run 1 .5 9999. ends at pixel 1000"),
    ],
)
def test_codes_that_fit_neither_way_are_named(tmp_path: Path, rows: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        convert_rle_csv(write_table(pictures(tmp_path), *rows), tmp_path / "raw" / "Dataset006_A")
    assert not (tmp_path / "raw").exists()


def test_the_other_coding_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        convert_rle_csv(pictures(tmp_path, coding="relative"), tmp_path / "Dataset006_A")
    message = str(caught.value)
    assert "masks.csv as relative run lengths: 3 codes cannot be used" in message
    assert "row 2, image 'a': run " in message
    assert "beyond the 1920 pixels of 48 x 40" in message
    assert "they all fit with --coding absolute" in message
    with pytest.raises(DataError, match=r"overlap(.|\n)*they all fit with --coding relative"):
        convert_rle_csv(siim(tmp_path, coding="absolute"), tmp_path / "Dataset006_A")


def test_codes_that_fit_both_ways_need_the_option(tmp_path: Path) -> None:
    request = write_table(pictures(tmp_path), "a,5 9", "b,-1")
    with pytest.raises(UsageError, match="fit both --coding relative and --coding absolute; give the one"):
        convert_rle_csv(request, tmp_path / "Dataset006_A")
    for number, (coding, first) in enumerate((("relative", 5), ("absolute", 4))):
        asked = request.model_copy(update={"coding": coding})
        dataset = convert_rle_csv(asked, tmp_path / f"Dataset00{number + 1}_A")
        assert np.flatnonzero(label(dataset, "a").ravel(order="F")).tolist() == list(range(first, first + 9))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("a,1 2", "b,1 x"), "1 rows.*\n.*row 3, image 'b': 'x' is not a whole number"),
        (("a,1 2.0",), "row 2, image 'a': '2.0' is not a whole number"),
        (("a,1 " + "9" * 60,), "'9999.*' is not a whole number"),
        (("a",), "row 2: 1 values in 2 columns"),
        (("a,1 2,3",), "row 2: 3 values in 2 columns"),
        ((",1 2",), "row 2: no image is named"),
        (("a,1 2", "b,-1", "a,-1"), "image 'a': row 4 says that there is no mask, row 2 holds one"),
        ((), "it has no row below its heading"),
        (("a,-1", "b,"), "no image has one; check the table"),
        (("x,1 2", "y,-1"), "no name fits: rows of images such as x, y, files such as a, b, c and 1 more"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, rows: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        convert_rle_csv(write_table(pictures(tmp_path), *rows), tmp_path / "raw" / "Dataset006_A")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", DataError, "it is empty"),
        (b"\n\n", DataError, "it is empty"),
        (b"ImageId,EncodedPixels\n\xff\xfe,1 2\n", DataError, "not a table in UTF-8"),
        (b"a,1 2\nb,3 4\n", UsageError, "named a, 1 2; say with --id-column which it is"),
        (b"ImageId,stuff\na,3 4\n", UsageError, "named ImageId, stuff; say with --code-column which it is"),
        (None, UsageError, "there is no such file; check the path"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, content: bytes | None, kind: type[SelfcfgError], words: str) -> None:
    request = pictures(tmp_path)
    request.table.unlink() if content is None else request.table.write_bytes(content)
    with pytest.raises(kind, match=words):
        convert_rle_csv(request, tmp_path / "Dataset006_A")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id_column": "ImageID"}, r"columns of .*: there is no 'ImageID'; did you mean 'ImageId'"),
        ({"code_column": "pixels"}, r"columns of .*: there is no 'pixels'; .*known: EncodedPixels, ImageId"),
        ({"images": Path("nowhere")}, "read nowhere: there is no such folder"),
        ({"images": Path()}, r"no picture in it \(.png, .*.dcm"),
        ({"label_name": "Background"}, "label name 'Background': not a name of what masks show"),
        ({"label_name": " "}, "not a name of what masks show"),
        ({"channels": ("X", "Y")}, "1 channel found; give 1 name"),
        ({"subject_pattern": "("}, "not a regular expression"),
    ],
)
def test_requests_that_cannot_be_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    request = pictures(tmp_path).model_copy(update=change)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match=words):
        convert_rle_csv(request, tmp_path / "Dataset006_A")
    assert not (tmp_path / "Dataset006_A").exists()


def test_two_files_of_one_name(tmp_path: Path) -> None:
    request = pictures(tmp_path)
    write_dicom(tmp_path / "images" / "deep" / "b.dcm", draw_picture(1))
    with pytest.raises(DataError, match=r"image 'b': both .*b\.png and .*b\.dcm are of this name; keep one"):
        convert_rle_csv(request, tmp_path / "Dataset006_A")


def test_every_bad_image_is_named_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    request = siim(tmp_path)
    first, third = (next(request.images.rglob(f"{uid(number)}.dcm")) for number in (0, 3))
    first.write_bytes(first.read_bytes()[:900])
    write_dicom(third, np.stack([draw_picture(3)] * 2))
    with pytest.raises(DataError) as caught:
        convert_rle_csv(request, tmp_path / "raw" / "Dataset006_A")
    assert "2 cases cannot be used" in str(caught.value)
    assert f"case '{uid(0)}': read {first}: not a DICOM picture, or cut short" in str(caught.value)
    assert "2 pictures in one file" in str(caught.value)
    assert not (tmp_path / "raw").exists()


def test_stacks_are_refused(tmp_path: Path) -> None:
    import tifffile

    request = pictures(tmp_path, ending=".tif")
    tifffile.imwrite(tmp_path / "images" / "b.tif", np.zeros((3, 40, 48), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="3 slices; a code stands for one flat picture"):
        convert_rle_csv(request, tmp_path / "Dataset006_A")


def test_an_existing_dataset_is_never_written_over(tmp_path: Path) -> None:
    request = pictures(tmp_path)
    convert_rle_csv(request, tmp_path / "Dataset006_A")
    with pytest.raises(UsageError, match="it exists already"):
        convert_rle_csv(request, tmp_path / "Dataset006_A")


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    request = siim(tmp_path)
    command = ["convert", "rle-csv", "--images", str(request.images), "--csv", str(request.table)]
    command += ["--id", "6", "--name", "Pneumothorax", "--workspace", str(tmp_path / "w")]
    assert main([*command, "--coding", "relative", "--unlisted", "empty", "--label-name", "air"]) == 0
    said = capfd.readouterr()
    assert "converted 6 cases to" in said.out
    assert "next: selfcfg check Dataset006_Pneumothorax" in said.out
    assert main(command) == 2
    dataset = Dataset.open(tmp_path / "w" / "raw" / "Dataset006_Pneumothorax")
    assert dataset.labels.targets == {"air": (1,)}
    assert encode_relative(label(dataset, uid(5)).astype(bool)) == encode_relative(draw_mask(5))
