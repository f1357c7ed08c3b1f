"""Fingerprints beside values worked out from the arrays that were written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from selfcfg.dataset import Dataset
from selfcfg.engine.measure import measure
from selfcfg.errors import DataError
from selfcfg.fingerprint import Fingerprint

LABELS = {"background": 0, "organ": 1, "lesion": 2}
SPACING = (3.0, 0.7, 0.9)


def save(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> None:
    """Writes a (z, y, x) array as NIfTI, whose first axis is x."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), np.diag([*spacing[::-1], 1.0])), path)


def make_case(seed: int, shape: tuple[int, int, int] = (8, 12, 10)) -> tuple[list[np.ndarray], np.ndarray]:
    """Two channels with an empty border and a label with both classes inside it."""
    rng = np.random.default_rng(seed)
    inside = (slice(1, -2), slice(2, -1), slice(3, -1))
    channels = []
    for scale in (10, 1000):
        channel = np.zeros(shape, dtype=np.float32)
        channel[inside] = rng.normal(5, 1, channel[inside].shape) * scale
        channels.append(channel)
    label = np.zeros(shape, dtype=np.uint8)
    label[2:5, 4:8, 4:7] = 1
    label[3, 5, 5] = 2
    return channels, label


def write_dataset(root: Path, cases: Mapping[str, tuple[list[np.ndarray], np.ndarray]], **changes: object) -> Dataset:
    for name, (channels, label) in cases.items():
        for index, channel in enumerate(channels):
            save(root / "imagesTr" / f"{name}_{index:04d}.nii.gz", channel)
        save(root / "labelsTr" / f"{name}.nii.gz", label)
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": LABELS,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
        **changes,
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return Dataset.open(root)


@pytest.fixture
def cases() -> dict[str, tuple[list[np.ndarray], np.ndarray]]:
    return {"a": make_case(0), "b": make_case(1, (9, 14, 11)), "c": make_case(2)}


def test_values_of_each_case(tmp_path, cases):
    found = measure(write_dataset(tmp_path, cases), jobs=1)
    assert [case.case for case in found.cases] == ["a", "b", "c"]
    for case in found.cases:
        channels, label = cases[case.case]
        assert case.shape == label.shape
        assert case.shape_after_crop == (label.shape[0] - 3, label.shape[1] - 3, label.shape[2] - 4)
        assert case.spacing == pytest.approx(SPACING)
        assert case.orientation == "SAR"
        assert case.dimensions == 3
        assert case.voxels == {0: label.size - 36, 1: 35, 2: 1}
        # 3 x 4 x 3 voxels with one missing in the middle of a plane, along which stretches are then cut in two
        assert case.thickness[1] == pytest.approx((35 / 13 * 3.0, 35 / 10 * 0.7, 35 / 13 * 0.9))
        assert case.thickness[2] == pytest.approx(SPACING)
        for channel, statistics in zip(channels, case.intensities, strict=True):
            values = channel[label > 0].astype(np.float64)
            assert statistics is not None
            assert statistics.mean == pytest.approx(values.mean())
            assert statistics.std == pytest.approx(values.std(), rel=1e-6)
            assert statistics.median == pytest.approx(np.median(values))
            assert (statistics.min, statistics.max) == (values.min(), values.max())


def test_values_of_the_dataset(tmp_path, cases):
    found = measure(write_dataset(tmp_path, cases), jobs=1)
    assert found.spacings == tuple(case.spacing for case in found.cases)
    assert found.shapes_after_crop == tuple(case.shape_after_crop for case in found.cases)
    shares = [np.prod(case.shape_after_crop) / np.prod(case.shape) for case in found.cases]
    assert found.median_relative_size_after_cropping == pytest.approx(np.median(shares))
    for index in (0, 1):
        values = np.concatenate([channels[index][label > 0].astype(np.float64) for channels, label in cases.values()])
        statistics = found.foreground_intensity_properties_per_channel[str(index)]
        assert statistics.mean == pytest.approx(values.mean())
        assert statistics.std == pytest.approx(values.std(), rel=1e-6)
        assert (statistics.min, statistics.max) == (values.min(), values.max())


def test_the_file_can_be_read_by_nnunet(tmp_path, cases):
    measure(write_dataset(tmp_path, cases), jobs=1).write(tmp_path / "fingerprint.json")
    content = json.loads((tmp_path / "fingerprint.json").read_text())
    assert len(content["spacings"]) == len(content["shapes_after_crop"]) == 3
    assert set(content["foreground_intensity_properties_per_channel"]["1"]) == {
        "max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std",
    }  # fmt: skip
    assert isinstance(content["median_relative_size_after_cropping"], float)


def test_unchanged_cases_are_not_read_again(tmp_path, cases):
    dataset = write_dataset(tmp_path, cases)
    first = measure(dataset, jobs=1)
    assert measure(dataset, jobs=1, known=first) == first
    marked = first.model_copy(
        update={"cases": tuple(case.model_copy(update={"orientation": "???"}) for case in first.cases)}
    )
    save(tmp_path / "imagesTr" / "b_0001.nii.gz", cases["b"][0][1] * 2)
    again = measure(dataset, jobs=1, known=marked)
    assert [case.orientation for case in again.cases] == ["???", "SAR", "???"]
    assert again.cases[1].intensities[1].mean == pytest.approx(2 * first.cases[1].intensities[1].mean)


def test_adding_a_case_gives_what_measuring_all_gives(tmp_path, cases):
    first = measure(write_dataset(tmp_path, {name: cases[name] for name in "ab"}), jobs=1)
    dataset = write_dataset(tmp_path, cases)
    stored = Fingerprint.parse(json.loads(first.model_dump_json()), "stored")
    assert measure(dataset, jobs=1, known=stored) == measure(dataset, jobs=1)


def test_values_of_another_label_schema_are_not_reused(tmp_path, cases):
    first = measure(write_dataset(tmp_path, cases), jobs=1)
    ignoring = write_dataset(tmp_path, cases, labels={"background": 0, "organ": 1, "ignore": 2})
    found = measure(ignoring, jobs=1, known=first)
    assert found == measure(ignoring, jobs=1)
    channels, label = cases["a"]
    assert found.cases[0].intensities[0].mean == pytest.approx(channels[0][label == 1].mean(dtype=np.float64))
    assert found.cases[0].voxels[2] == 1


def test_a_case_without_foreground(tmp_path, cases):
    channels, label = cases["b"]
    dataset = write_dataset(tmp_path, {**cases, "b": (channels, np.zeros_like(label))})
    found = measure(dataset, jobs=1)
    assert found.cases[1].intensities == (None, None)
    assert found.cases[1].voxels == {0: label.size}
    assert Fingerprint.parse(json.loads(found.model_dump_json()), "stored") == found


def test_no_foreground_at_all(tmp_path, cases):
    empty = {name: (channels, np.zeros_like(label)) for name, (channels, label) in cases.items()}
    with pytest.raises(DataError, match="no case has a labelled voxel"):
        measure(write_dataset(tmp_path, empty), jobs=1)


def test_an_empty_image_is_not_cropped(tmp_path, cases):
    channels, label = cases["b"]
    found = measure(write_dataset(tmp_path, {**cases, "b": ([c * 0 for c in channels], label)}), jobs=1)
    assert found.cases[1].shape_after_crop == label.shape


def test_every_bad_case_is_named(tmp_path, cases):
    cases = {name: make_case(index) for index, name in enumerate(["good", "nan", "cut", "value", "channel", "shifted"])}
    cases["nan"][0][1][4, 5, 5] = np.nan
    cases["value"][1][4, 5, 5] = 7
    dataset = write_dataset(tmp_path, cases)
    cut = tmp_path / "imagesTr" / "cut_0000.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-200])
    (tmp_path / "imagesTr" / "channel_0001.nii.gz").unlink()
    save(tmp_path / "labelsTr" / "shifted.nii.gz", cases["shifted"][1], (3.0, 0.7, 2.0))
    dataset = Dataset.open(tmp_path)
    with pytest.raises(DataError) as caught:
        measure(dataset, jobs=1)
    message = str(caught.value)
    assert "5 cases cannot be used" in message
    for name in ("nan", "cut", "value", "channel", "shifted"):
        assert f"case '{name}'" in message
    assert "good" not in message
    assert "[7]" in message
    assert "selfcfg check" in message


def test_several_processes_give_the_same(tiny_dataset):
    assert measure(tiny_dataset, jobs=2) == measure(tiny_dataset, jobs=1)


def test_real_cases(real_data: Callable[[str], Path], tmp_path):
    folder = real_data("hippocampus")
    names = [path.name for path in sorted((folder / "labels").glob("*.nii.gz"))[:4]]
    listing = {
        name.split(".")[0]: {"images": [str(folder / "images" / name)], "label": str(folder / "labels" / name)}
        for name in names
    }
    content = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": 4, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "dataset": listing}))
    found = measure(Dataset.open(tmp_path), jobs=1)
    for name, case in zip(names, found.cases, strict=True):
        image, label = (np.asanyarray(nib.load(folder / part / name).dataobj) for part in ("images", "labels"))
        assert case.shape == image.T.shape
        assert case.voxels == {int(value): int((label == value).sum()) for value in np.unique(label)}
        assert case.intensities[0].mean == pytest.approx(image[label > 0].mean(dtype=np.float64), rel=1e-6)
