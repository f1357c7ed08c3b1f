from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfcfg.engine.data.inputs import doubts, find_inputs, label_ending, refuse_unfit
from selfcfg.engine.data.store import CaseInfo
from selfcfg.errors import DataError, UsageError
from selfcfg.fingerprint import ChannelStatistics, Fingerprint
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.io import write_image
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration, Plan
from selfcfg.topology import Topology

GEOMETRY = Geometry(shape=(4, 6, 8), spacing=(3.0, 1.0, 1.0))


def plan(*channels: str, scheme: str = "zscore", dimensions: int = 3, low: float = -50, high: float = 150) -> Plan:
    topology = Topology(
        features=(4,), kernel_sizes=((3, 3),), strides=((1, 1),), encoder_blocks=(1,), decoder_blocks=()
    )
    configuration = Configuration(
        spacing=(1.0, 1.0),
        patch_size=(8, 8),
        batch_size=2,
        median_shape=(6.0, 8.0),
        normalization=(scheme,) * len(channels),
        use_mask_for_norm=(False,) * len(channels),
        topology=topology,
        batch_dice=True,
    )
    statistics = ChannelStatistics(
        max=200, mean=50, median=50, min=-100, percentile_00_5=low, percentile_99_5=high, std=30
    )
    return Plan(
        dataset="Dataset001_Test",
        planner="standard",
        memory_gb=8,
        channels=channels,
        labels=LabelSchema(labels={"background": 0, "liver": 1}),
        axis_order=(0, 1, 2),
        median_spacing=(3.0, 1.0, 1.0),
        median_shape=(40.0, 60.0, 80.0),
        intensities=(statistics,) * len(channels),
        mirror_axes=(0, 1, 2)[-dimensions:],
        dimensions=dimensions,
        configurations={"2d": configuration},
    )


def volumes(folder: Path, *names: str) -> Path:
    for name in names:
        write_image(folder / name, np.ones((1, *GEOMETRY.shape), dtype=np.float32), GEOMETRY)
    return folder


def names(found: dict[str, tuple[Path, ...]]) -> dict[str, list[str]]:
    return {case: [file.name for file in files] for case, files in found.items()}


def test_numbered_files_are_the_channels_of_a_case(tmp_path: Path) -> None:
    folder = volumes(tmp_path, "b_0000.nii.gz", "b_0001.nii.gz", "a_0001.nii.gz", "a_0000.nii.gz")
    found = names(find_inputs(folder, plan("CT", "PET")))
    assert found == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"], "b": ["b_0000.nii.gz", "b_0001.nii.gz"]}


def test_a_missing_channel_is_listed_so_that_only_its_case_fails(tmp_path: Path) -> None:
    folder = volumes(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "c_0001.nii.gz")
    found = find_inputs(folder, plan("CT", "PET"))
    assert names(found)["a"] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert names(found)["c"] == ["c_0000.nii.gz", "c_0001.nii.gz"]
    assert [case for case, files in found.items() if all(file.exists() for file in files)] == ["b"]


def test_single_channel_files_need_no_number(tmp_path: Path) -> None:
    plain = volumes(tmp_path / "plain", "patient 1.nii.gz", "patient.2.nii.gz", "scan_001.nii.gz")
    assert names(find_inputs(plain, plan("MR"))) == {
        "patient 1": ["patient 1.nii.gz"],
        "patient.2": ["patient.2.nii.gz"],
        "scan_001": ["scan_001.nii.gz"],
    }
    numbered = volumes(tmp_path / "numbered", "a_0000.nii.gz", "b_0000.nii.gz")
    assert names(find_inputs(numbered, plan("MR"))) == {"a": ["a_0000.nii.gz"], "b": ["b_0000.nii.gz"]}


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = volumes(tmp_path, "a.nii.gz", ".hidden.nii.gz")
    (folder / "notes.txt").write_text("x")
    (folder / "metrics.json").write_text("{}")
    (folder / "sub.nii.gz").mkdir()
    assert list(find_inputs(folder, plan("MR"))) == ["a"]


def test_a_colour_picture_holds_all_its_channels(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        Image.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(tmp_path / name)
    rgb = plan("R", "G", "B", dimensions=2)
    assert names(find_inputs(tmp_path, rgb)) == {"one": ["one.png"], "two": ["two.png"]}
    for name in ("one", "two"):
        (tmp_path / f"{name}.png").rename(tmp_path / f"{name}_0000.png")
    assert names(find_inputs(tmp_path, rgb)) == {"one": ["one_0000.png"], "two": ["two_0000.png"]}


@pytest.mark.parametrize(
    ("files", "channels", "message"),
    [
        (("a_0000.nii.gz", "b.nii.gz"), ("MR",), "some names end in a channel number"),
        (("a_0000.nii.gz", "a_0001.nii.gz"), ("MR",), "'a_0001.nii.gz' ends like channel 1, the model has 1"),
        (("scan_0007.nii.gz", "scan_0008.nii.gz"), ("MR",), "ends like channel 7"),
        (("a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz"), ("CT", "PET"), "ends like channel 2, the model has 2"),
        (("a.nii.gz", "b.nii.gz"), ("CT", "PET"), r"holds 1 channel\(s\), the model expects 2 \(CT, PET\)"),
        (("a.nii.gz", "b.mha"), ("MR",), "several formats: 1 .nii.gz and 1 .mha"),
    ],
)
def test_names_with_two_meanings_are_refused(
    tmp_path: Path, files: tuple[str, ...], channels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        find_inputs(volumes(tmp_path, *files), plan(*channels))


def test_a_format_can_be_chosen(tmp_path: Path) -> None:
    folder = volumes(tmp_path, "a.nii.gz", "b.mha")
    assert list(find_inputs(folder, plan("MR"), ".mha")) == ["b"]


def test_one_case_given_file_by_file(tmp_path: Path) -> None:
    folder = volumes(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "ct.nii.gz", "pet.nii.gz", "x_0007.nii.gz")
    model = plan("CT", "PET")
    pair = [folder / "a_0000.nii.gz", folder / "a_0001.nii.gz"]
    assert names(find_inputs(pair, model)) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"]}
    assert names(find_inputs([folder / "ct.nii.gz", folder / "pet.nii.gz"], model)) == {
        "ct": ["ct.nii.gz", "pet.nii.gz"]
    }
    assert names(find_inputs(folder / "a_0000.nii.gz", plan("MR"))) == {"a": ["a_0000.nii.gz"]}
    assert names(find_inputs(folder / "x_0007.nii.gz", plan("MR"))) == {"x_0007": ["x_0007.nii.gz"]}
    with pytest.raises(UsageError, match="not in order"):
        find_inputs(pair[::-1], model)
    with pytest.raises(UsageError, match="a folder among files"):
        find_inputs([folder, pair[0]], model)


def test_nothing_to_predict_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        find_inputs(tmp_path / "nowhere", plan("MR"))
    with pytest.raises(UsageError, match="no image"):
        find_inputs(tmp_path, plan("MR"))
    (tmp_path / "a.dcm").write_bytes(b"x")
    with pytest.raises(UsageError, match="no supported format"):
        find_inputs(tmp_path / "a.dcm", plan("MR"))


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.nii.gz", ".nii.gz"), ("A.NII.GZ", ".nii.gz"), ("a.jpg", ".png"), ("a.bmp", ".bmp"), ("a.tiff", ".tiff")],
)
def test_labels_keep_the_ending_unless_it_is_lossy(name: str, ending: str) -> None:
    assert label_ending([Path(name)]) == ending


def test_an_image_the_network_cannot_take_is_refused() -> None:
    refuse_unfit("a", 1, GEOMETRY, plan("MR"))
    with pytest.raises(DataError, match=r"case 'a': 2 channels, the model was trained on 1 \(MR\)"):
        refuse_unfit("a", 2, GEOMETRY, plan("MR"))
    flat = Geometry(shape=(1, 6, 8), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
    with pytest.raises(DataError, match="a 2D image"):
        refuse_unfit("a", 1, flat, plan("MR"))


def info(
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0), cropped: tuple[int, int, int] = (40, 60, 80)
) -> CaseInfo:
    return CaseInfo.unchanged("a", Geometry(shape=cropped, spacing=spacing))


def usual_image() -> np.ndarray:
    return np.random.default_rng(0).uniform(-50, 150, (1, 10, 20, 20)).astype(np.float32)


def test_a_usual_image_raises_no_doubt() -> None:
    assert doubts(usual_image(), info(), plan("CT", scheme="ct")) == []
    assert doubts(usual_image(), info((4.0, 1.3, 0.8), (50, 80, 60)), plan("MR")) == []


def test_spacing_and_extent_are_compared_with_the_medians() -> None:
    found = doubts(usual_image(), info(spacing=(9.0, 1.0, 0.4)), plan("MR"))
    assert found[0] == "spacing along z is 9 mm, 3 times the median of the training cases (3 mm)"
    assert any("spacing along x is 0.4 mm, 2.5 times below the median" in doubt for doubt in found)
    large = doubts(usual_image(), info(cropped=(40, 240, 80)), plan("MR"))
    assert large == ["extent along y is 240 mm, 4 times the median of the training cases (60 mm)"]


def test_spacing_and_extent_are_compared_with_the_range_where_it_is_known() -> None:
    statistics = plan("MR").intensities[0]
    facts = Fingerprint(
        spacings=((3.0, 1.0, 1.0), (9.0, 1.0, 1.0)),
        shapes_after_crop=((40, 60, 80), (14, 60, 300)),
        foreground_intensity_properties_per_channel={"0": statistics},
        median_relative_size_after_cropping=1.0,
    )
    assert doubts(usual_image(), info(spacing=(9.0, 1.0, 1.0), cropped=(14, 60, 80)), plan("MR"), facts) == []
    found = doubts(usual_image(), info(spacing=(12.0, 1.0, 1.0), cropped=(11, 60, 80)), plan("MR"), facts)
    assert found == ["spacing along z is 12 mm, 1.3 times the largest of the training cases (9 mm)"]


def test_intensities_outside_of_training_are_named() -> None:
    scaled = doubts(usual_image() / 1000 + 500, info(), plan("MR"))
    assert len(scaled) == 1
    assert (
        "0.00% of the voxels of channel 0 (MR) lie within the foreground intensities of training (-50 to 150)"
        in scaled[0]
    )
    assert doubts(np.zeros((1, 4, 4, 4), dtype=np.float32), info(), plan("MR")) == ["channel 0 (MR) is zero everywhere"]
    assert "is 7 everywhere" in doubts(np.full((1, 4, 4, 4), 7, dtype=np.float32), info(), plan("MR"))[0]


def test_ct_without_negative_values_is_doubted() -> None:
    shifted = usual_image() + 1024
    shifted[0, 0] = 0
    found = doubts(shifted, info(), plan("CT", scheme="ct"))
    assert "Hounsfield" in found[0]


def test_a_volume_for_a_model_of_2d_images_is_doubted() -> None:
    found = doubts(usual_image(), info(), plan("MR", dimensions=2))
    assert any("40 slices" in doubt for doubt in found)


def test_a_large_image_is_judged_by_voxels_from_everywhere() -> None:
    image = np.full((1, 16, 256, 256), 1e4, dtype=np.float32)
    image[..., 100:200] = np.random.default_rng(0).uniform(-50, 150, (16, 256, 100))
    assert doubts(image, info(), plan("MR")) == []
    image[..., 100:200] = 1e4 + 1
    assert "0.00% of the voxels" in doubts(image, info(), plan("MR"))[0]
