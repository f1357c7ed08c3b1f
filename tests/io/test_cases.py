"""Whole cases: channels stacked, everything on one grid, messages that name the case."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfcfg.dataset import Case, Dataset
from selfcfg.errors import DataError
from selfcfg.fixes import Fixes, GeometryFix, displacement
from selfcfg.geometry import Geometry
from selfcfg.io import FileProblem, hash_case, hash_images, read_case, write_image, write_label

PLACE = Geometry(shape=(4, 6, 5), spacing=(2.0, 1.0, 1.5), origin=(3.0, 4.0, 5.0))


def voxels(seed: int) -> np.ndarray[Any, Any]:
    return np.random.Generator(np.random.Philox(key=[seed, 0])).normal(size=(1, 4, 6, 5)).astype(np.float32)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    for channel in range(2):
        write_image(tmp_path / f"a_000{channel}.nii.gz", voxels(channel), PLACE)
    write_label(tmp_path / "a.nii.gz", (voxels(0)[0] > 0) * 2, PLACE)
    images = (tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz")
    return Case(id="a", images=images, label=tmp_path / "a.nii.gz", subject="a")


def test_channels_are_stacked_and_types_are_fixed(case: Case) -> None:
    found = read_case(case)
    assert np.array_equal(found.image, np.concatenate([voxels(0), voxels(1)]))
    assert (found.image.dtype, found.geometry) == (np.float32, PLACE)
    assert found.label is not None
    assert (found.label.dtype, sorted(np.unique(found.label))) == (np.int16, [0, 2])
    assert read_case(case.model_copy(update={"label": None})).label is None


def test_a_float_image_in_a_large_unit_is_not_called_infinite(case: Case) -> None:
    write_image(case.images[0], voxels(0).astype(np.float64) * 1e30, PLACE)
    assert np.isfinite(read_case(case).image).all()
    write_image(case.images[0], voxels(0).astype(np.float64) * 1e300, PLACE)
    with pytest.raises(DataError, match="NaN or infinite"):
        read_case(case)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_with_its_count(case: Case, value: float) -> None:
    image = voxels(1)
    image[0, 1, 2, 3:5] = value
    write_image(case.images[1], image, PLACE)
    with pytest.raises(
        DataError, match=r"case 'a': read .*a_0001\.nii\.gz: 2 voxels are NaN or infinite; replace them"
    ):
        read_case(case)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": (2.0, 1.0, 1.6)}, "spacing"),
        ({"origin": (3.0, 4.5, 5.0)}, "origin"),
        ({"direction": (-1.0, 0, 0, 0, 1, 0, 0, 0, 1)}, "direction"),
    ],
)
def test_another_place_is_refused(case: Case, change: dict[str, Any], message: str) -> None:
    elsewhere = PLACE.model_copy(update=change)
    write_image(case.images[1], voxels(1), elsewhere)
    with pytest.raises(DataError, match=f"case 'a'.*a_0001.*differs from the first channel: {message}.*selfcfg check"):
        read_case(case)
    write_image(case.images[1], voxels(1), PLACE)
    assert case.label is not None
    write_label(case.label, np.ones(PLACE.shape), elsewhere)
    with pytest.raises(DataError, match=f"case 'a'.*a.nii.gz: differs from the first channel: {message}"):
        read_case(case)


def test_another_shape_is_refused(case: Case) -> None:
    write_image(case.images[1], voxels(1)[:, 1:], Geometry(shape=(3, 6, 5), spacing=PLACE.spacing, origin=PLACE.origin))
    with pytest.raises(DataError, match=r"shape \(3, 6, 5\) and \(4, 6, 5\)"):
        read_case(case)


def test_a_recorded_fix_holds_as_long_as_the_header_stays(case: Case) -> None:
    drifted = PLACE.model_copy(update={"origin": (3.0, 4.01, 5.0)})
    write_image(case.images[1], voxels(1), drifted)
    fix = GeometryFix(file="a_0001.nii.gz", channel=1, found=drifted, used=PLACE, difference="origin")
    fixes = Fixes(geometry={"a": (fix,)})
    assert read_case(case, fixes).geometry == PLACE
    with pytest.raises(DataError):
        read_case(case, Fixes(geometry={"b": (fix,)}))
    write_image(case.images[1], voxels(1), PLACE.model_copy(update={"origin": (3.0, 4.02, 5.0)}))
    with pytest.raises(DataError, match="origin"):
        read_case(case, fixes)


def test_missing_and_damaged_files_name_the_case(case: Case) -> None:
    content = case.images[0].read_bytes()
    case.images[0].write_bytes(content[:-30])
    with pytest.raises(DataError, match=r"case 'a': read .*a_0000\.nii\.gz: cut short.*copy or export"):
        read_case(case)
    case.images[0].unlink()
    with pytest.raises(DataError, match=r"case 'a'.*no such file"):
        read_case(case)
    with pytest.raises(DataError, match=r"case 'a'.*there are none"):
        read_case(case.model_copy(update={"images": ()}))


def test_label_values_beyond_16_bits_are_refused(case: Case) -> None:
    assert case.label is not None
    write_label(case.label, np.full(PLACE.shape, 40000), PLACE)
    with pytest.raises(DataError, match="label values from 40000 to 40000"):
        read_case(case)


def test_the_hash_follows_content_and_nothing_else(case: Case, tmp_path: Path) -> None:
    before = hash_case(case), hash_images(case)
    shutil.copytree(tmp_path, tmp_path / "copy")
    moved = Case(
        id="b",
        images=tuple(tmp_path / "copy" / path.name for path in case.images),
        label=tmp_path / "copy" / "a.nii.gz",
        subject="b",
    )
    assert (hash_case(moved), hash_images(moved)) == before
    assert hash_case(case.model_copy(update={"images": case.images[::-1]})) != before[0]
    assert case.label is not None
    write_label(case.label, np.ones(PLACE.shape), PLACE)
    assert hash_case(case) != before[0]
    assert hash_images(case) == before[1]
    with pytest.raises(DataError, match="no_such"):
        hash_case(case.model_copy(update={"label": tmp_path / "no_such.nii.gz"}))


def test_the_spacing_beside_a_tiff_is_part_of_the_hash(tmp_path: Path) -> None:
    stack = Geometry(shape=(4, 6, 5), spacing=(2.0, 1.0, 1.5))
    write_image(tmp_path / "a_0000.tif", np.ones((1, 4, 6, 5), np.uint8), stack)
    case = Case(id="a", images=(tmp_path / "a_0000.tif",), label=None, subject="a")
    before = hash_case(case)
    (tmp_path / "a_0000.json").write_text('{"spacing": [9, 9, 9]}')
    assert hash_case(case) != before


def test_a_problem_survives_the_way_from_a_worker() -> None:
    problem = FileProblem("read x", "cut short", "copy it again")
    again = pickle.loads(pickle.dumps(problem))
    assert (type(again), str(again)) == (FileProblem, "read x: cut short; copy it again")


def test_displacement_of_the_farthest_corner_by_hand() -> None:
    assert displacement(PLACE, PLACE) == 0
    moved = PLACE.model_copy(update={"origin": (3.0, 4.25, 5.0)})
    assert displacement(PLACE, moved) == pytest.approx(0.25)
    # 0.01 mm more a slice over 3 steps, in voxels of 1 mm.
    wider = PLACE.model_copy(update={"spacing": (2.01, 1.0, 1.5)})
    assert displacement(PLACE, wider) == pytest.approx(0.03)
    # A half turn about z moves the corner at (x=6, y=5) mm to (-6, -5).
    turned = PLACE.model_copy(update={"direction": (-1.0, 0, 0, 0, -1, 0, 0, 0, 1)})
    assert displacement(PLACE, turned) == pytest.approx(2 * (6**2 + 5**2) ** 0.5)


def test_a_jpeg_dataset_has_png_labels(tmp_path: Path) -> None:
    from PIL import Image

    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.full((6, 5), 9, np.uint8)).save(tmp_path / "imagesTr" / "a_0000.jpg")
    Image.fromarray(np.eye(6, 5, dtype=np.uint8)).save(tmp_path / "labelsTr" / "a.png")
    (tmp_path / "dataset.json").write_text(
        '{"channel_names": {"0": "x"}, "labels": {"background": 0, "a": 1}, "numTraining": 1, "file_ending": ".jpg"}'
    )
    dataset = Dataset.open(tmp_path)
    assert dataset.description.label_ending == ".png"
    found = read_case(dataset.cases[0])
    assert found.label is not None
    assert (found.image.shape, found.label.sum()) == ((1, 1, 6, 5), 5)


def test_every_real_case_can_be_read(real_data: Any) -> None:
    folder = real_data("sts_sarcoma/ctpet_2ch")
    images = tuple(sorted((folder / "images").glob("STS_008_*.nii.gz")))
    case = Case(id="STS_008", images=images, label=folder / "labels" / "STS_008.nii.gz", subject="STS_008")
    found = read_case(case)
    assert found.label is not None
    assert (len(found.image), found.label.max()) == (2, 1)
    assert found.image[1].min() >= 0
    assert found.image[0].min() < -500
