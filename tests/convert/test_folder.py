"""Folders of images and labels become a dataset that is whole, checked and readable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from selfcfg.convert.folder import FolderRequest, convert_folder
from selfcfg.dataset import Dataset
from selfcfg.engine.checks.check import check
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.geometry import Geometry
from selfcfg.io import read_case, read_image, read_label, write_image, write_label

SHAPE = (5, 8, 7)
PLACE = Geometry(shape=SHAPE, spacing=(3.0, 1.0, 1.0), origin=(1.0, 2.0, 3.0))


def noise(number: int, shape: tuple[int, ...] = (1, *SHAPE), high: int = 200) -> np.ndarray[Any, Any]:
    return np.random.Generator(np.random.Philox(key=[number, 4])).integers(0, high, shape, dtype=np.uint8)


def volumes(root: Path, values: tuple[int, ...] = (0, 1, 2), ending: str = ".nii.gz") -> FolderRequest:
    for number in range(3):
        write_image(root / "images" / f"p{number}_scan{ending}", noise(number), PLACE)
        label = np.array(values, np.int16)[noise(number + 50)[0] % len(values)]
        write_image(root / "labels" / f"p{number}_scan{ending}", label[np.newaxis], PLACE)
    return FolderRequest(images=(root / "images",), labels=root / "labels")


def pictures(root: Path, image_ending: str = ".png", label_ending: str = ".png", mode: str = "RGB") -> FolderRequest:
    for name in ("images", "labels"):
        (root / name).mkdir()
    for number in range(3):
        colours = Image.fromarray(noise(number, (9, 8, 3))).convert(mode)
        colours.save(root / "images" / f"p{number}{image_ending}")
        Image.fromarray((noise(number + 50, (9, 8)) > 100).astype(np.uint8) * 255).save(
            root / "labels" / f"p{number}{label_ending}"
        )
    return FolderRequest(images=(root / "images",), labels=root / "labels")


def labels_json(root: Path, content: Any) -> Path:
    (root / "labels.json").write_text(json.dumps(content))
    return root / "labels.json"


def good(dataset: Dataset) -> Dataset:
    assert [finding for finding in check(dataset.root, 1) if finding.severity == "error"] == []
    return dataset


def test_files_that_need_no_change_stay_byte_for_byte(tmp_path: Path) -> None:
    dataset = good(convert_folder(volumes(tmp_path), tmp_path / "raw" / "Dataset001_A"))
    assert dataset.description.labels == {"background": 0, "class_1": 1, "class_2": 2}
    assert dataset.description.selfcfg.label_map == {}
    for case in dataset.cases:
        assert case.images[0].read_bytes() == (tmp_path / "images" / f"{case.id}.nii.gz").read_bytes()
        assert case.label is not None
        assert case.label.read_bytes() == (tmp_path / "labels" / f"{case.id}.nii.gz").read_bytes()
        assert case.label.stat().st_nlink == 1
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == ["Dataset001_A"]


def test_any_values_become_consecutive_and_the_map_is_recorded(tmp_path: Path) -> None:
    request = volumes(tmp_path, values=(0, 63, 255))
    dataset = good(convert_folder(request, tmp_path / "Dataset001_A"))
    assert dataset.description.selfcfg.label_map == {"0": 0, "63": 1, "255": 2}
    for case in dataset.cases:
        original, place = read_label(tmp_path / "labels" / f"{case.id}.nii.gz")
        assert case.label is not None
        found, found_place = read_label(case.label)
        assert np.array_equal(np.array([0, 63, 255])[found], original)
        assert found_place == place == PLACE


def test_names_regions_ignore_subjects_and_channels(tmp_path: Path) -> None:
    names = {"background": 0, "ignore": 5, "whole": [10, 20], "core": 20, "regions_class_order": [10, 20]}
    request = volumes(tmp_path, values=(0, 5, 10, 20)).model_copy(
        update={
            "labels_json": labels_json(tmp_path, names),
            "subject_pattern": r"p(\d)_",
            "channels": ("CT",),
        }
    )
    dataset = good(convert_folder(request, tmp_path / "Dataset001_A"))
    assert dataset.labels.labels == {"background": 0, "ignore": 3, "whole": (1, 2), "core": 2}
    assert dataset.labels.regions_class_order == (1, 2)
    assert dataset.description.selfcfg.label_map == {"0": 0, "10": 1, "20": 2, "5": 3}
    assert [case.subject for case in dataset.cases] == ["0", "1", "2"]
    assert dataset.description.channels == ("CT",)
    content = json.loads((dataset.root / "dataset.json").read_text())
    assert (content["labels"]["whole"], content["regions_class_order"], content["name"]) == ([1, 2], [1, 2], "A")


def test_undeclared_values_name_case_and_value(tmp_path: Path) -> None:
    request = volumes(tmp_path).model_copy(update={"labels_json": labels_json(tmp_path, {"organ": 1})})
    with pytest.raises(
        DataError, match=r"case 'p0_scan': its label has 2 \(\d+ voxels\), not declared in .*labels\.json"
    ):
        convert_folder(request, tmp_path / "raw" / "Dataset001_A")
    assert not (tmp_path / "raw").exists()


def test_several_folders_are_channels(tmp_path: Path) -> None:
    request = volumes(tmp_path)
    for number in range(3):
        write_image(tmp_path / "second" / f"p{number}_scan.nii.gz", noise(number + 9), PLACE)
    request = request.model_copy(update={"images": (tmp_path / "images", tmp_path / "second")})
    dataset = good(convert_folder(request, tmp_path / "Dataset001_A"))
    assert dataset.description.channels == ("image0", "image1")
    assert np.array_equal(read_case(dataset.case("p1_scan")).image, np.concatenate([noise(1), noise(10)]))


def test_a_fourth_axis_is_split_into_files(tmp_path: Path) -> None:
    request = volumes(tmp_path)
    for number in range(3):
        image = nib.Nifti1Image(noise(number, (7, 8, 5, 2)), np.diag([-1.0, -1, 3, 1]))
        image.set_qform(image.affine, 1)
        nib.save(image, tmp_path / "images" / f"p{number}_scan.nii.gz")
        _, place = read_image(tmp_path / "images" / f"p{number}_scan.nii.gz")
        write_label(tmp_path / "labels" / f"p{number}_scan.nii.gz", noise(number)[0] % 2, place)
    dataset = good(convert_folder(request, tmp_path / "Dataset001_A"))
    assert len(dataset.cases[0].images) == 2
    assert np.array_equal(read_case(dataset.case("p2_scan")).image, noise(2, (7, 8, 5, 2)).T)


def test_formats_that_differ_become_nifti(tmp_path: Path) -> None:
    request = volumes(tmp_path, ending=".nrrd")
    for number in range(3):
        path = tmp_path / "labels" / f"p{number}_scan.nrrd"
        label, place = read_label(path)
        write_label(path.with_suffix(".mha"), label, place)
        path.unlink()
    dataset = good(convert_folder(request, tmp_path / "Dataset001_A"))
    assert dataset.description.file_ending == ".nii.gz"
    assert read_case(dataset.cases[0]).geometry == PLACE


def test_colour_pictures_get_three_channel_names(tmp_path: Path) -> None:
    dataset = good(convert_folder(pictures(tmp_path), tmp_path / "Dataset001_A"))
    assert dataset.description.channels == ("R", "G", "B")
    assert dataset.description.labels == {"background": 0, "foreground": 1}
    assert dataset.description.selfcfg.label_map == {"0": 0, "255": 1}
    assert dataset.cases[0].images[0].read_bytes() == (tmp_path / "images" / "p0.png").read_bytes()
    found = read_case(dataset.cases[0])
    assert np.array_equal(found.image[:, 0], np.moveaxis(noise(0, (9, 8, 3)), -1, 0))
    assert found.label is not None
    assert np.array_equal(found.label[0], noise(50, (9, 8)) > 100)


def test_jpeg_becomes_png_without_further_loss(tmp_path: Path) -> None:
    dataset = good(convert_folder(pictures(tmp_path, image_ending=".jpg"), tmp_path / "Dataset001_A"))
    assert dataset.description.file_ending == ".png"
    assert np.array_equal(read_image(dataset.cases[0].images[0])[0], read_image(tmp_path / "images" / "p0.jpg")[0])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_and_palettes_are_written_out_plainly(tmp_path: Path, mode: str) -> None:
    dataset = good(convert_folder(pictures(tmp_path, mode=mode), tmp_path / "Dataset001_A"))
    with Image.open(dataset.cases[0].images[0]) as stored:
        assert stored.mode == {"RGBA": "RGB", "LA": "L", "P": "RGB"}[mode]
    expected = read_image(tmp_path / "images" / "p0.png")[0]
    assert np.array_equal(read_image(dataset.cases[0].images[0])[0], expected)


def test_palette_labels_keep_their_indices(tmp_path: Path) -> None:
    request = pictures(tmp_path)
    for number in range(3):
        picture = Image.fromarray(noise(number, (9, 8)) % 3, mode="P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        picture.save(tmp_path / "labels" / f"p{number}.png")
    dataset = good(convert_folder(request, tmp_path / "Dataset001_A"))
    assert dataset.cases[1].label is not None
    with Image.open(dataset.cases[1].label) as stored:
        assert stored.mode == "L"
    assert np.array_equal(read_label(dataset.cases[1].label)[0][0], noise(1, (9, 8)) % 3)


def test_a_threshold_makes_masks_of_gray_labels(tmp_path: Path) -> None:
    request = pictures(tmp_path, label_ending=".jpg")
    with pytest.raises(DataError, match=r"case 'p0'.*JPEG changes label values.*--threshold"):
        convert_folder(request, tmp_path / "Dataset001_A")
    request = request.model_copy(update={"threshold": 127.0, "labels_json": labels_json(tmp_path, {"lung": 255})})
    dataset = good(convert_folder(request, tmp_path / "Dataset001_A"))
    assert dataset.description.labels == {"background": 0, "lung": 1}
    assert dataset.description.selfcfg.threshold == 127.0
    label, case = read_image(tmp_path / "labels" / "p1.jpg")[0][0], dataset.case("p1")
    assert case.label is not None
    assert np.array_equal(read_label(case.label)[0], label > 127)
    with pytest.raises(DataError, match="threshold 255: no voxel of any mask is above it"):
        convert_folder(request.model_copy(update={"threshold": 255.0}), tmp_path / "Dataset002_B")


def test_tiff_stacks_keep_their_spacing(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        for number in range(2):
            voxels = noise(number)[0] % (200 if name == "images" else 2)
            tifffile.imwrite(tmp_path / name / f"p{number}.tif", voxels, photometric="minisblack")
            (tmp_path / name / f"p{number}.json").write_text('{"spacing": [4, 0.5, 0.5]}')
    request = FolderRequest(images=(tmp_path / "images",), labels=tmp_path / "labels")
    dataset = good(convert_folder(request, tmp_path / "Dataset001_A"))
    assert dataset.description.file_ending == ".tif"
    assert read_case(dataset.cases[0]).geometry.spacing == (4.0, 0.5, 0.5)


def test_labels_scaled_by_their_writer_are_written_as_whole_numbers(tmp_path: Path) -> None:
    request = volumes(tmp_path)
    path = tmp_path / "labels" / "p1_scan.nii.gz"
    label, place = read_label(path)
    write_image(path, label[np.newaxis].astype(np.float64), place)
    dataset = good(convert_folder(request, tmp_path / "Dataset001_A"))
    found = read_image(dataset.root / "labelsTr" / "p1_scan.nii.gz")[0][0]
    assert found.dtype == np.uint8
    assert np.array_equal(found, label)


def test_every_bad_case_is_named_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    request = volumes(tmp_path)
    path = tmp_path / "images" / "p0_scan.nii.gz"
    path.write_bytes(path.read_bytes()[:-9])
    write_label(
        tmp_path / "labels" / "p2_scan.nii.gz", np.ones((4, 8, 7)), PLACE.model_copy(update={"shape": (4, 8, 7)})
    )
    with pytest.raises(DataError) as caught:
        convert_folder(request, tmp_path / "raw" / "Dataset001_A")
    message = str(caught.value)
    assert "2 cases cannot be used" in message
    assert "case 'p0_scan'" in message
    assert "cut short" in message
    assert "case 'p2_scan': compare its files: they differ in shape" in message
    assert not (tmp_path / "raw").exists()


def test_what_has_no_partner_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    request = volumes(tmp_path)
    (tmp_path / "labels" / "p1_scan.nii.gz").rename(tmp_path / "labels" / "other.nii.gz")
    dataset = convert_folder(request, tmp_path / "Dataset001_A")
    assert [case.id for case in dataset.cases] == ["p0_scan", "p2_scan"]
    said = capfd.readouterr().err
    assert "left out 1 image without a label: p1_scan" in said
    assert "left out 1 label without an image: other.nii.gz" in said


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"images": ()}, UsageError, "no folder of images"),
        ({"channels": ("CT", "PET")}, UsageError, "1 channel found; give 1 name"),
        ({"subject_pattern": "("}, UsageError, "not a regular expression"),
        ({"subject_pattern": "p1"}, UsageError, "it has no group; put brackets"),
        ({"subject_pattern": "(p1)"}, DataError, "not found in p0_scan, p2_scan; change the pattern"),
        ({"labels": Path("nowhere")}, UsageError, "there is no such folder"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path: Path, change: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        convert_folder(volumes(tmp_path).model_copy(update=change), tmp_path / "Dataset001_A")
    assert not (tmp_path / "Dataset001_A").exists()


def test_mixed_channels_and_mixed_kinds_are_refused(tmp_path: Path) -> None:
    request = pictures(tmp_path)
    Image.fromarray(noise(1, (9, 8))).save(tmp_path / "images" / "p1.png")
    with pytest.raises(DataError, match="1 in 1 cases such as p1; 3 in 2 cases such as p0; convert gray and colour"):
        convert_folder(request, tmp_path / "Dataset001_A")
    flat = Geometry(shape=(1, 9, 8), spacing=(999.0, 1, 1), dimensions=2)
    for number in range(3):
        write_label(tmp_path / "volumes" / f"p{number}.nii.gz", noise(number, (1, 9, 8)) % 2, flat)
    with pytest.raises(DataError, match=r"pictures .* and volumes .* are mixed"):
        convert_folder(request.model_copy(update={"labels": tmp_path / "volumes"}), tmp_path / "Dataset001_A")


def test_an_existing_dataset_is_never_written_over(tmp_path: Path) -> None:
    request = volumes(tmp_path)
    convert_folder(request, tmp_path / "Dataset001_A")
    with pytest.raises(UsageError, match="it exists already"):
        convert_folder(request, tmp_path / "Dataset001_A")


def test_a_destination_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(SelfcfgError, match=r"write .*raw.*Not a directory; choose another place"):
        convert_folder(volumes(tmp_path), tmp_path / "raw" / "Dataset001_A")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from selfcfg.convert.folder import FolderRequest, convert_folder
from selfcfg.errors import SelfcfgError
root = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    convert_folder(FolderRequest(images=(root / "images",), labels=root / "labels"), root / "raw" / "Dataset001_A")
except SelfcfgError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
@pytest.mark.parametrize("same_format", [True, False])
def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, same_format: bool) -> None:
    for number in range(3):
        voxels = noise(number, (1, 20, 20, 20))
        place = Geometry(shape=(20, 20, 20), spacing=(1, 1, 1))
        write_image(tmp_path / "images" / f"p{number}.nii.gz", voxels, place)
        write_label(tmp_path / "labels" / f"p{number}{'.nii.gz' if same_format else '.nrrd'}", voxels[0] % 2, place)
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert "File too large" in done.stdout
    assert "free some space" in done.stdout
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "raw").iterdir()) == []


def test_several_processes_do_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = volumes(tmp_path, values=(0, 9))
    one = convert_folder(request, tmp_path / "Dataset001_A")
    monkeypatch.setattr("selfcfg.convert.building._SMALL", 0)
    two = convert_folder(request, tmp_path / "Dataset002_A")
    for first, second in zip(one.cases, two.cases, strict=True):
        assert first.label is not None
        assert second.label is not None
        assert first.label.read_bytes() == second.label.read_bytes()


SCRIBBLES = {"background": 0, "RV": 1, "myo": 2, "LV": 3, "ignore": 4}
NESTED = {"background": 0, "PTV56": [1, 2, 3], "PTV63": [2, 3], "PTV70": 3, "regions_class_order": [1, 2, 3]}


@pytest.mark.parametrize(
    ("images", "labels", "names", "pattern", "n_subjects"),
    [
        ("acdc_cardiac_mr/images", "acdc_cardiac_mr/labels_scribble", SCRIBBLES, r"(patient\d+)_", 16),
        ("openkbp_headneck_ct/images", "openkbp_headneck_ct/labels_ptv", NESTED, None, 40),
        ("sts_sarcoma/ctpet_2ch/images", "sts_sarcoma/ctpet_2ch/labels", {"tumour": 1}, None, 4),
    ],
)
def test_real_folders(
    real_data: Any,
    tmp_path: Path,
    images: str,
    labels: str,
    names: dict[str, Any],
    pattern: str | None,
    n_subjects: int,
) -> None:
    request = FolderRequest(
        images=(real_data(images),),
        labels=real_data(labels),
        labels_json=labels_json(tmp_path, names),
        subject_pattern=pattern,
    )
    dataset = convert_folder(request, tmp_path / "Dataset001_Real")
    assert check(dataset.root, 1) == []
    assert len({case.subject for case in dataset.cases}) == n_subjects
