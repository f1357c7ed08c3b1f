"""Each caution: data that must raise it, and ordinary data that must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.checks.cautions import cautions
from selfcfg.engine.checks.findings import Caution
from selfcfg.fingerprint import CaseFingerprint, ChannelStatistics, Fingerprint
from selfcfg.geometry import FLAT_SPACING
from selfcfg.planners.standard import plan

KIDNEYS = {"background": 0, "left kidney": 1, "right kidney": 2}


def statistics(low: float, high: float) -> ChannelStatistics:
    middle = (low + high) / 2
    return ChannelStatistics(
        max=high + 1, mean=middle, median=middle, min=low - 1, percentile_00_5=low, percentile_99_5=high, std=middle / 3
    )


def case(index: int, **changes: Any) -> CaseFingerprint:
    values = {
        "case": f"case_{index}",
        "subject": f"person_{index}",
        "shape": (100, 200, 200),
        "shape_after_crop": (100, 200, 200),
        "spacing": (1.0, 1.0, 1.0),
        "orientation": "SPL",
        "dimensions": 3,
        "intensities": (statistics(10, 200),),
        "voxels": {0: 100_000, 1: 4000, 2: 500},
        "source": "",
        "picture": "",
        "thickness": {1: (20.0, 20.0, 20.0), 2: (10.0, 10.0, 10.0)},
    }
    return CaseFingerprint(**(values | changes))


def found(
    cases: list[CaseFingerprint],
    *,
    labels: dict[str, Any] | None = None,
    channel: str = "MRI",
    spacing: tuple[float, float, float] | None = None,
    named: bool = True,
) -> list[Caution]:
    facts = Fingerprint(
        spacings=tuple(case.spacing for case in cases),
        shapes_after_crop=tuple(case.shape_after_crop for case in cases),
        foreground_intensity_properties_per_channel={"0": statistics(10, 200)},
        median_relative_size_after_cropping=1.0,
        cases=tuple(cases) if named else (),
    )
    description = DatasetDescription(
        channel_names={"0": channel},
        labels=labels or {"background": 0, "organ": 1, "lesion": 2},
        numTraining=len(cases),
        file_ending=".nii.gz",
    )
    return cautions(plan(facts, description, dataset="D", spacing=spacing), facts)


def only(cautions: list[Caution], kind: str) -> Caution:
    (caution,) = [caution for caution in cautions if caution.kind == kind]
    return caution


ORDINARY = [case(index) for index in range(10)]


def test_ordinary_data_is_not_remarked_on():
    assert found(ORDINARY) == []


def test_two_groups_of_spacings_are_named_with_what_to_do():
    mixed = [case(index, spacing=(1.0 if index < 6 else 5.0, 0.8, 0.8)) for index in range(10)]
    caution = only(found(mixed), "spacing")
    assert caution.severity == "warning"
    assert "1 mm in 6 cases" in caution.text
    assert "5 mm in 4 cases (case_6, case_7, case_8, case_9)" in caution.text
    assert "suits only one group" in caution.text
    assert "--spacing 5,0.8,0.8" in caution.remedy
    assert caution.cases == ("case_6", "case_7", "case_8", "case_9")


def test_a_target_of_the_coarse_group_is_not_proposed_again():
    mixed = [case(index, spacing=(1.0 if index < 6 else 5.0, 0.8, 0.8)) for index in range(10)]
    assert "--spacing 1,0.8,0.8 keeps all detail" in only(found(mixed, spacing=(5, 0.8, 0.8)), "spacing").remedy


def test_groups_along_both_axes_of_the_plane_are_one_caution():
    mixed = [case(index, spacing=(3.0, *[0.5 if index < 5 else 1.5] * 2)) for index in range(10)]
    assert "along y and x" in only(found(mixed), "spacing").text


def test_groups_are_found_without_the_names_of_cases():
    mixed = [case(index, spacing=(1.0 if index < 5 else 5.0, 0.8, 0.8)) for index in range(10)]
    caution = only(found(mixed, named=False), "spacing")
    assert caution.cases == ()
    assert "5 cases" in caution.text


@pytest.mark.parametrize(
    "along_z",
    [
        [0.7, 0.8, 1.0, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 5.0],  # one group that is wide: MSD liver
        [1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 1.25, 2.6],  # one case is an outlier: MSD lung
        [3.0, 3.0, 3.6, 3.6, 3.6, 3.6, 3.6, 4.0, 4.0, 4.0],  # several protocols that are close: MSD prostate
    ],
)
def test_ordinary_spread_of_spacings_is_not_a_group(along_z):
    spread = [case(index, spacing=(side, 0.8, 0.8)) for index, side in enumerate(along_z)]
    assert [caution for caution in found(spread) if caution.severity == "warning"] == []


def test_a_target_far_finer_than_most_cases():
    caution = only(
        found([case(index, spacing=(4.0, 1.0, 1.0)) for index in range(10)], spacing=(1, 1, 1)), "resampling"
    )
    assert "10 of 10 cases" in caution.text and "finer" in caution.text
    assert "--spacing 4,1,1" in caution.remedy


def test_a_target_far_coarser_than_many_cases():
    caution = only(found(ORDINARY, spacing=(4, 1, 1)), "resampling")
    assert "coarser" in caution.text
    assert "--spacing 1,1,1" in caution.remedy


def test_the_finer_target_of_thick_slices_is_not_remarked_on():
    thick = [case(index, spacing=(1.6 if index < 2 else 5.0 - index / 3, 0.8, 0.8)) for index in range(10)]
    assert [caution for caution in found(thick, named=False) if caution.kind == "resampling"] == []


def test_structures_lost_at_the_target_are_named():
    thin = [case(index, thickness={1: (20.0, 20.0, 20.0), 2: (3.0, 9.0, 9.0)}) for index in range(10)]
    caution = only(found(thin, spacing=(2, 1, 1)), "thin structure")
    assert caution.severity == "warning"
    assert "'lesion' along z (3 mm)" in caution.text
    assert "'organ'" not in caution.text
    assert found(thin) == []


def test_structures_thin_in_the_files_are_only_a_note():
    thin = [case(index, thickness={1: (20.0, 20.0, 20.0), 2: (1.2, 9.0, 9.0)}) for index in range(10)]
    caution = only(found(thin), "thin structure")
    assert caution.severity == "note"
    assert "'lesion' along z" in caution.text


def test_a_region_is_as_thick_as_its_thickest_part():
    thin = [case(index, thickness={1: (20.0, 20.0, 20.0), 2: (1.2, 9.0, 9.0)}) for index in range(10)]
    regions = DatasetDescription.parse(
        {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "whole": [1, 2], "core": [1]},
            "regions_class_order": [2, 1],
            "numTraining": 10,
            "file_ending": ".nii.gz",
        },
        "dataset.json",
    )
    facts = Fingerprint(
        spacings=tuple(case.spacing for case in thin),
        shapes_after_crop=tuple(case.shape_after_crop for case in thin),
        foreground_intensity_properties_per_channel={"0": statistics(10, 200)},
        median_relative_size_after_cropping=1.0,
        cases=tuple(thin),
    )
    assert cautions(plan(facts, regions, dataset="D"), facts) == []


def test_strokes_say_nothing_about_thickness():
    thin = [case(index, thickness={1: (1.0, 1.0, 1.0)}) for index in range(10)]
    assert found(thin, labels={"background": 0, "organ": 1, "ignore": 2}) == []


def test_axes_that_are_other_anatomical_lines():
    caution = only(found([*ORDINARY, case(10, orientation="LSP")]), "orientation")
    assert caution.severity == "warning"
    assert "left-right, superior-inferior, anterior-posterior in 1 case (case_10)" in caution.text
    assert caution.cases == ("case_10",)


def test_flipped_axes_are_only_a_note():
    caution = only(found([*ORDINARY, case(10, orientation="IPL")]), "orientation")
    assert caution.severity == "note"
    assert "inferior, posterior, left in 1 case (case_10)" in caution.text


@pytest.mark.parametrize(("orientation", "severity"), [("SPR", "warning"), ("IPL", "note")])
def test_flips_between_left_and_right_harm_classes_with_sides(orientation, severity):
    caution = only(found([*ORDINARY, case(10, orientation=orientation)], labels=KIDNEYS), "orientation")
    assert caution.severity == severity


def test_sides_without_a_known_orientation():
    caution = only(found(ORDINARY, labels=KIDNEYS, named=False), "left and right")
    assert caution.severity == "warning"
    assert "'left kidney' and 'right kidney'" in caution.text
    assert found(ORDINARY, labels=KIDNEYS) == []


def test_sides_in_pictures_are_only_a_note():
    flat = {"spacing": (FLAT_SPACING, 1.0, 1.0), "shape_after_crop": (1, 200, 200), "dimensions": 2}
    pictures = [case(index, **flat) for index in range(10)]
    assert only(found(pictures, labels=KIDNEYS), "left and right").severity == "note"


@pytest.mark.parametrize(
    "odd",
    [
        statistics(10 + 1024, 200 + 1024),  # stored without the rescale intercept
        statistics(0.01, 0.9),  # scaled to 0..1
        statistics(100, 4000),  # ten times too large
    ],
)
def test_ct_numbers_on_another_scale_are_named(odd):
    caution = only(found([*ORDINARY, case(10, intensities=(odd,))], channel="CT"), "intensities")
    assert caution.severity == "warning"
    assert caution.cases == ("case_10",)


def test_ct_numbers_in_two_equal_groups_are_named():
    halves = [case(index, intensities=(statistics(*((10, 200), (1034, 1224))[index % 2]),)) for index in range(10)]
    assert len(only(found(halves, channel="CT"), "intensities").cases) == 5


@pytest.mark.parametrize(
    "other",
    [
        statistics(-950, 100),  # mostly lung, beside soft tissue
        statistics(20, 1600),  # bone or metal in it
        statistics(-12, 18),  # a cyst
        None,  # no foreground
    ],
)
def test_other_tissue_is_not_another_scale(other):
    assert found([*ORDINARY, case(10, intensities=(other,))], channel="CT") == []


@pytest.mark.parametrize(("channel", "severity"), [("MRI", "note"), ("noNorm", "warning")])
def test_8_bit_beside_16_bit_harms_only_without_scaling_image_by_image(channel, severity):
    caution = only(found([*ORDINARY, case(10, intensities=(statistics(1000, 20000),))], channel=channel), "intensities")
    assert caution.severity == severity
    assert caution.cases == ("case_10",)


def test_warnings_come_first():
    several = [*ORDINARY, case(10, intensities=(statistics(1000, 20000),)), case(11, voxels={0: 9, 1: 4000})]
    turned = [*several, case(12, orientation="LSP")]
    assert [caution.severity for caution in found(turned)] == ["warning", "note", "note"]


def test_classes_that_the_same_cases_lack_are_one_note():
    labels = {"background": 0} | {f"class {value}": value for value in range(1, 5)}
    whole, part = {value: 500 for value in range(5)}, {0: 500, 1: 500}
    cases = [case(index, voxels=part if index > 7 else whole, thickness={}) for index in range(10)]
    assert only(found(cases, labels=labels), "odd cases").text == (
        "no 'class 2', 'class 3', 'class 4' in 2 cases: case_8, case_9"
    )


def test_notes_about_many_classes_come_to_an_end():
    labels = {"background": 0} | {f"class {value}": value for value in range(1, 41)}
    # each class is missing in another case
    cases = [
        case(index, voxels={value: 500 for value in range(41) if value != index + 1}, thickness={})
        for index in range(40)
    ]
    notes = found(cases, labels=labels)
    assert len(notes) == 9
    assert "more classes are missing in some cases" in notes[-1].text


def test_no_published_dataset_is_warned_of(real_data: Callable[[str], Path]) -> None:
    folders = [file.parent for file in real_data("nnunet_plans").glob("*__standard/fingerprint.json")]
    assert len(folders) == 10
    for folder in folders:
        facts = Fingerprint.read(folder / "fingerprint.json")
        description = DatasetDescription.read(folder / "dataset.json")
        assert cautions(plan(facts, description, dataset=folder.name), facts) == [], folder.name
