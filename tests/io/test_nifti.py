"""NIfTI against SimpleITK: the same voxels and the same place, for every orientation and every way to say it."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import nifti, read_header, read_image, read_label, write_image, write_label
from selfcfg.io.problems import BadLabel, BadSpacing, FileProblem, Unsupported

ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


def direction_of(axes: tuple[int, ...], signs: tuple[float, ...]) -> np.ndarray[Any, Any]:
    matrix = np.zeros((3, 3))
    for column, (row, sign) in enumerate(zip(axes, signs, strict=True)):
        matrix[row, column] = sign
    return matrix


def rotation(angles: Any) -> np.ndarray[Any, Any]:
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        cosine, sine = np.cos(angle), np.sin(angle)
        one, two = [row for row in range(3) if row != axis]
        step = np.eye(3)
        step[one, one], step[two, two], step[one, two], step[two, one] = cosine, cosine, -sine, sine
        result = step @ result
    return result


def itk_image(direction: np.ndarray[Any, Any], spacing: tuple[float, ...] = (0.7, 1.3, 2.5)) -> Any:
    image = sitk.GetImageFromArray(np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5))
    image.SetDirection(direction.reshape(-1).tolist())
    image.SetSpacing(spacing)
    image.SetOrigin((10.5, -3.25, 7.125))
    return image


def same_as_simpleitk(path: Path) -> Geometry:
    expected = sitk.ReadImage(str(path))
    image, geometry = read_image(path)
    assert np.array_equal(sitk.GetArrayFromImage(expected), image[0])
    assert geometry.spacing == pytest.approx(expected.GetSpacing()[::-1], abs=1e-12)
    assert geometry.origin == pytest.approx(expected.GetOrigin(), abs=1e-12)
    assert geometry.direction == pytest.approx(expected.GetDirection(), abs=1e-6)
    return geometry


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_all_48_orientations_agree_with_simpleitk_and_come_back(
    tmp_path: Path, axes: tuple[int, ...], signs: tuple[float, ...], ending: str
) -> None:
    path, again = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    sitk.WriteImage(itk_image(direction_of(axes, signs)), str(path))
    geometry = same_as_simpleitk(path)
    image, _ = read_image(path)
    write_image(again, image, geometry)
    assert same_as_simpleitk(again) == geometry
    assert read_header(again) == (1, geometry)


@pytest.mark.parametrize("seed", range(40))
def test_oblique_images_come_back(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spacing = tuple(float(side) for side in np.exp(rng.uniform(np.log(0.05), np.log(20), 3)))
    direction = rotation(rng.uniform(-3, 3, 3)) @ np.diag([1.0, 1.0, rng.choice([1.0, -1.0])])
    for ending in (".nii.gz", ".nrrd"):
        path, again = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
        sitk.WriteImage(itk_image(direction, spacing), str(path))
        geometry = same_as_simpleitk(path)
        write_label(again, np.ones(geometry.shape, np.int16), geometry)
        assert not same_as_simpleitk(again).differences(geometry, tolerance=1e-6)


@pytest.mark.parametrize("codes", list(itertools.product((0, 1, 2, 4), repeat=2)))
@pytest.mark.parametrize("moved", [0.0, 1e-6, 0.5])
@pytest.mark.parametrize("unit", ["mm", "micron", "meter", "unknown"])
def test_qform_and_sform_are_preferred_as_simpleitk_does(
    tmp_path: Path, codes: tuple[int, int], moved: float, unit: str
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation((0.3, -1.2, 2.1)) * [0.7, 1.3, 2.5]
    affine[:3, 3] = [4.0, -5.0, 6.0]
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine)
    image.set_qform(affine, codes[0])
    affine[:3, 3] += moved
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units(unit)
    path = tmp_path / "a.nii"
    nib.save(image, path)
    if unit in ("mm", "unknown"):
        same_as_simpleitk(path)
    else:
        assert read_image(path)[1].spacing == pytest.approx(sitk.ReadImage(str(path)).GetSpacing()[::-1])


def test_both_codes_are_set_and_both_matrices_agree(tmp_path: Path) -> None:
    geometry = Geometry(
        shape=(3, 4, 5), spacing=(2.5, 1.3, 0.7), origin=(1, 2, 3), direction=_tuple(rotation((1, 2, 3)))
    )
    write_label(tmp_path / "a.nii.gz", np.ones((3, 4, 5)), geometry)
    header: Any = nib.load(tmp_path / "a.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    assert np.allclose(header.get_qform(), header.get_sform(), atol=1e-5)
    assert header.get_xyzt_units()[0] == "mm"


def _tuple(matrix: np.ndarray[Any, Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in matrix.reshape(-1))


def test_the_same_voxels_give_the_same_bytes(tmp_path: Path) -> None:
    geometry = Geometry(shape=(3, 4, 5), spacing=(2.5, 1.3, 0.7))
    for name in ("a", "b"):
        write_label(tmp_path / f"{name}.nii.gz", np.ones((3, 4, 5)), geometry)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize(("high", "kind"), [(1, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_labels_take_the_smallest_type(tmp_path: Path, high: int, kind: type) -> None:
    label = np.zeros((2, 3, 4), np.int32)
    label[0, 0, 0] = high
    write_label(tmp_path / "a.nii.gz", label, Geometry(shape=(2, 3, 4), spacing=(1, 1, 1)))
    stored, _ = read_image(tmp_path / "a.nii.gz")
    assert stored.dtype == kind
    assert np.array_equal(read_label(tmp_path / "a.nii.gz")[0], label)


@pytest.mark.parametrize(
    "kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
)
def test_types_and_byte_orders_are_kept(tmp_path: Path, kind: type) -> None:
    voxels = np.arange(24).astype(kind).reshape(4, 3, 2)
    for order in ("<", ">"):
        header = nib.Nifti1Header(endianness=order)
        header.set_data_dtype(kind)
        nib.Nifti1Image(voxels, np.eye(4), header).to_filename(tmp_path / "a.nii")
        image, _ = read_image(tmp_path / "a.nii")
        assert image.dtype == kind
        assert np.array_equal(image[0], voxels.T)
    write_image(tmp_path / "b.nii.gz", image, Geometry(shape=(2, 3, 4), spacing=(1, 1, 1)))
    assert read_image(tmp_path / "b.nii.gz")[0].dtype == kind


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(4, 3, 2), np.eye(4))
    image.header.set_slope_inter(0.5, -10)
    nib.save(image, tmp_path / "a.nii.gz")
    expected = np.asarray(nib.load(tmp_path / "a.nii.gz").get_fdata()).T  # type: ignore[attr-defined]
    found, _ = read_image(tmp_path / "a.nii.gz")
    assert np.allclose(found[0], expected)
    assert found.dtype == np.float32


def test_a_label_scaled_by_its_writer_is_still_whole(tmp_path: Path) -> None:
    label = np.array([0.0, 1, 2, 3] * 6).reshape(4, 3, 2)
    image = nib.Nifti1Image(label, np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    assert nifti.read_header(tmp_path / "a.nii.gz").slope != 1.0
    assert np.array_equal(read_label(tmp_path / "a.nii.gz")[0], label.T)


def test_two_dimensional_nifti(tmp_path: Path) -> None:
    flat = sitk.GetImageFromArray(np.arange(12, dtype=np.int16).reshape(3, 4))
    flat.SetSpacing((0.5, 0.8))
    flat.SetOrigin((3.0, 4.0))
    sitk.WriteImage(flat, str(tmp_path / "a.nii.gz"))
    image, geometry = read_image(tmp_path / "a.nii.gz")
    assert image.shape == (1, 1, 3, 4)
    assert geometry.dimensions == 2
    assert geometry.spacing == pytest.approx((FLAT_SPACING, 0.8, 0.5))
    write_image(tmp_path / "b.nii.gz", image, geometry)
    again = sitk.ReadImage(str(tmp_path / "b.nii.gz"))
    assert (again.GetDimension(), again.GetSize()) == (2, (4, 3))
    assert again.GetSpacing() == pytest.approx((0.5, 0.8))
    assert again.GetOrigin() == pytest.approx((3.0, 4.0))
    assert read_image(tmp_path / "b.nii.gz")[1] == geometry


def test_a_fourth_axis_is_channels(tmp_path: Path) -> None:
    voxels = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    image, geometry = read_image(tmp_path / "a.nii.gz")
    assert image.shape == (5, 4, 3, 2)
    assert np.array_equal(image, voxels.T)
    assert read_header(tmp_path / "a.nii.gz") == (5, geometry)


def test_rgb_is_three_channels(tmp_path: Path) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    voxels = np.zeros((2, 3, 4), kind)
    voxels["R"], voxels["G"] = 7, np.arange(24).reshape(2, 3, 4)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    image, _ = read_image(tmp_path / "a.nii.gz")
    assert image.shape == (3, 4, 3, 2)
    assert (image[0] == 7).all()
    assert np.array_equal(image[1], np.arange(24).reshape(2, 3, 4).T)


def test_an_axis_beyond_nifti1_becomes_nifti2(tmp_path: Path) -> None:
    geometry = Geometry(shape=(1, 2, 40000), spacing=(1.0, 1.0, 0.5))
    write_label(tmp_path / "a.nii.gz", np.ones((1, 2, 40000)), geometry)
    label, found = read_label(tmp_path / "a.nii.gz")
    assert (label.sum(), found) == (80000, geometry)


def saved(path: Path, change: dict[str, Any]) -> Path:
    """A small NIfTI file with header fields overwritten afterwards."""
    nib.save(nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([1.5, 2, 3, 1])), path)
    content = bytearray(path.read_bytes())
    header: Any = nib.Nifti1Header(bytes(content[:348]), check=False)
    for key, value in change.items():
        header[key] = value
    path.write_bytes(header.binaryblock + bytes(content[348:]))
    return path


def test_zero_spacing_is_refused(tmp_path: Path) -> None:
    for side in (0.0, float("nan"), float("inf")):
        with pytest.raises(BadSpacing, match="spacing"):
            read_image(saved(tmp_path / "a.nii", {"pixdim": [1, side, 1, 1, 1, 1, 1, 1]}))


def test_singular_axes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSpacing, match="run the same way"):
        read_image(saved(tmp_path / "a.nii", {"srow_x": [1.5, 1.5, 0, 0], "srow_y": [0, 0, 0, 0]}))
    with pytest.raises(BadSpacing, match="directions of its axes"):
        read_image(saved(tmp_path / "a.nii", {"srow_y": [0, 0, 0, 0]}))
    with pytest.raises(BadSpacing, match="not a number"):
        read_image(saved(tmp_path / "a.nii", {"srow_y": [1.5, float("nan"), 0, 0]}))


def test_sheared_axes_are_read_with_a_doubt(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", {"srow_x": [1.5, 1.0, 0, 0], "qform_code": 0})
    assert any("sheared" in doubt for doubt in nifti.read_header(path).doubts)


def test_contradictions_within_a_header_are_doubts(tmp_path: Path) -> None:
    unset = saved(tmp_path / "a.nii", {"qform_code": 0, "sform_code": 0})
    assert any("neither qform nor sform" in doubt for doubt in nifti.read_header(unset).doubts)
    other = saved(tmp_path / "b.nii", {"pixdim": [1, 9, 2, 3, 1, 1, 1, 1]})
    assert any("by pixdim" in doubt for doubt in nifti.read_header(other).doubts)
    assert nifti.read_header(saved(tmp_path / "c.nii", {})).doubts == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": [3, 300, 4, 5, 1, 1, 1, 1]}, "its header promises"),
        ({"dim": [3, 2, 4, 5, 1, 1, 1, 1]}, "its header promises"),
        ({"dim": [3, -3, 4, 5, 1, 1, 1, 1]}, "without voxels"),
        ({"dim": [0, 3, 4, 5, 1, 1, 1, 1]}, "0 axes"),
        ({"dim": [5, 3, 2, 1, 2, 5, 1, 1]}, "more than one axis"),
        ({"datatype": 32}, "data type 32"),
        ({"magic": b"ni1"}, "header and voxels in one"),
        ({"vox_offset": 400}, "its header promises"),
    ],
)
def test_headers_that_cannot_be_true(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(FileProblem, match=message):
        read_image(saved(tmp_path / "a.nii", change))


def test_a_header_that_promises_the_impossible_takes_no_memory(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", {"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]})
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(FileProblem, match="cannot hold them"):
        read_image(tmp_path / "b.nii.gz")


def test_other_files_are_not_nifti(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"hello" * 200))
    (tmp_path / "b.nii").write_bytes(b"too short")
    for name, message in (("a.nii.gz", "not a NIfTI file"), ("b.nii", "too few"), ("c.nii", "no such file")):
        with pytest.raises(FileProblem, match=message):
            read_image(tmp_path / name)
    with pytest.raises(FileProblem, match=r"did you mean '\.nii\.gz'"):
        read_image(tmp_path / "d.nii.gzz")


def test_complex_numbers_are_unsupported(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.complex64), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(Unsupported, match="data type 32"):
        read_image(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 0.5, 1.0, 2.0], "1 voxels are not whole numbers, such as 0.5"),
        ([0.0, float("nan"), 1.0, 2.0], "1 voxels are NaN"),
        ([0.0, float("inf"), 1.0, 2.0], "1 voxels are NaN or infinite"),
    ],
)
def test_labels_must_be_whole_numbers(tmp_path: Path, values: list[float], message: str) -> None:
    nib.save(nib.Nifti1Image(np.array(values, np.float32).reshape(2, 2, 1), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(BadLabel, match=message):
        read_label(tmp_path / "a.nii")


def test_a_label_with_channels_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2, 3), np.uint8), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(BadLabel, match="3 channels"):
        read_label(tmp_path / "a.nii")


def test_every_real_nifti_agrees_with_simpleitk(real_data: Any) -> None:
    for folder in (
        "hippocampus/images",
        "openkbp_headneck_ct/labels",
        "sts_sarcoma/ctpet_2ch/images",
        "ct_misc/images",
    ):
        for path in sorted(real_data(folder).glob("*.nii.gz"))[:10]:
            same_as_simpleitk(path)


def test_the_real_rgb_nifti(real_data: Any) -> None:
    path = real_data("reader_formats") / "rgb_test_file.nii.gz"
    image, geometry = read_image(path)
    expected = sitk.ReadImage(str(path))
    assert np.array_equal(np.moveaxis(sitk.GetArrayFromImage(expected), -1, 0), image)
    assert geometry.direction == pytest.approx(expected.GetDirection())
