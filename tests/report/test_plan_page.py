"""The page of a plan, read as a user would: which facts and names must stand on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.planner import Alternative, other_memories
from selfcfg.fingerprint import CaseFingerprint, ChannelStatistics, Fingerprint
from selfcfg.planners.standard import plan
from selfcfg.report.plan_page import WIDTH, plan_page


def statistics(mean: float) -> ChannelStatistics:
    return ChannelStatistics(
        max=5 * mean, mean=mean, median=mean, min=0, percentile_00_5=0.1 * mean, percentile_99_5=3 * mean, std=mean / 2
    )


def case(index: int, **changes: object) -> CaseFingerprint:
    values = {
        "case": f"case_{index}",
        "subject": f"person_{index // 2}",
        "shape": (40, 60, 50),
        "shape_after_crop": (40, 60, 50),
        "spacing": (2.0, 1.0, 0.5),
        "orientation": "SPL",
        "dimensions": 3,
        "intensities": (statistics(100.0),),
        "voxels": {0: 100_000, 1: 4000 + 2 * index, 2: 500 + index},
        "source": "",
        "picture": "",
    }
    return CaseFingerprint(**(values | changes))


def fingerprint(cases: Sequence[CaseFingerprint]) -> Fingerprint:
    return Fingerprint(
        spacings=tuple(case.spacing for case in cases),
        shapes_after_crop=tuple(case.shape_after_crop for case in cases),
        foreground_intensity_properties_per_channel={"0": statistics(100.0)},
        median_relative_size_after_cropping=1.0,
        cases=tuple(cases),
    )


def describe(channel: str = "MRI", ending: str = ".nii.gz") -> DatasetDescription:
    return DatasetDescription(
        channel_names={"0": channel},
        labels={"background": 0, "liver": 1, "tumour|cyst": 2},
        numTraining=10,
        file_ending=ending,
    )


def page_of(cases: Sequence[CaseFingerprint], channel: str = "MRI") -> str:
    facts = fingerprint(cases)
    return plan_page(plan(facts, describe(channel), dataset="Dataset007_Liver"), facts)


def line_with(page: str, text: str) -> str:
    (found,) = [line for line in page.splitlines() if text in line]
    return found


def flowing(page: str) -> str:
    """The page without line breaks, for sentences that were wrapped."""
    return " ".join(page.split())


REGULAR = [case(index) for index in range(10)]


def test_every_decision_is_on_the_page():
    facts = fingerprint(REGULAR)
    made = plan(facts, describe(), dataset="Dataset007_Liver")
    page = flowing(plan_page(made, facts))
    for reasons in (made.reasons, *(configuration.reasons for configuration in made.configurations.values())):
        for reason in reasons:
            for text in (reason.what, reason.value, reason.why, reason.change):
                assert " ".join(text.split()) in page
    for name in made.configurations:
        assert f"### {name}" in page


def test_the_first_lines_sum_up():
    start = flowing(page_of(REGULAR))[:600]
    assert "10 volumes of 5 subjects with 1 channel (MRI) and 2 classes (liver, tumour|cyst)" in start
    assert "8 GB of accelerator memory" in start
    assert "3d_fullres" in start


def test_volumes_are_in_millilitres():
    # 4000, 4002 .. 4018 voxels of 2 x 1 x 0.5 mm
    row = line_with(page_of(REGULAR), "| liver")
    assert "| 10 of 10 |" in row
    assert [part.strip() for part in row.split("|")[3:6]] == ["4", "4.009", "4.018"]


def test_regular_data_has_nothing_to_look_at():
    page = page_of(REGULAR)
    assert "No case stands out." in page
    assert "Worth a look" not in page


def test_outliers_are_named():
    page = flowing(page_of([*REGULAR, case(10, spacing=(9.0, 1.0, 0.5)), case(11, shape_after_crop=(40, 15, 50))]))
    assert "Unusual spacing along z (median 2 mm): case_10 (9)." in page
    assert "Unusual size along y (median 60 voxels): case_11 (15)." in page


def test_unusual_volumes_are_named():
    page = flowing(page_of([*REGULAR, case(10, voxels={0: 9, 1: 20, 2: 500})]))
    assert "Unusual volume of 'liver' (median 4.008 ml): case_10 (0.02)." in page


def test_small_differences_are_not_outliers():
    assert "No case stands out." in page_of([*REGULAR, case(10, spacing=(2.3, 1.0, 0.5))])


def test_missing_and_tiny_classes_are_named():
    page = flowing(page_of([*REGULAR, case(10, voxels={0: 9, 2: 500}), case(11, voxels={0: 9, 1: 4000, 2: 3})]))
    assert "No 'liver' in 1 case: case_10." in page
    assert "Fewer than 10 voxels of 'tumour|cyst': case_11." in page


def test_turned_volumes_are_named():
    page = flowing(page_of([*REGULAR, case(10, orientation="PSR")]))
    assert "superior-inferior, anterior-posterior, left-right in 10 cases" in page
    assert "anterior-posterior, superior-inferior, left-right in 1 case (case_10)" in page


def test_notes_say_what_was_found_and_what_it_means():
    page = flowing(page_of([*REGULAR, case(10, intensities=(statistics(2000.0),))]))
    worth_a_look = page.split("Worth a look:")[1]
    assert "The intensities of MRI are on different scales" in worth_a_look
    assert "Each image is scaled on its own, which evens that out." in worth_a_look
    assert "## Warnings" not in page


def test_warnings_come_before_the_measurements():
    halves = [case(index, spacing=(1.0 if index < 5 else 5.0, 0.5, 0.5)) for index in range(10)]
    page = flowing(page_of(halves))
    warnings = page.split("## Warnings")[1].split("## What was measured")[0]
    assert "The spacings along z are 2 groups far apart" in warnings
    assert "--spacing 5,0.5,0.5" in warnings


def test_other_accelerators_are_compared():
    facts = fingerprint([case(index, shape_after_crop=(200, 300, 300)) for index in range(10)])
    made = plan(facts, describe(), dataset="D", memory_gb=10)
    page = plan_page(made, facts, other_memories(made, facts, describe()))
    table = [line.split("|") for line in page.split("### On other accelerators")[1].split("###")[0].splitlines()]
    rows = {row[1].strip(): [value.strip() for value in row[2:-1]] for row in table if len(row) > 2}
    chosen = made.configurations["3d_fullres"]
    assert rows["10 (this plan)"][0] == " x ".join(map(str, chosen.patch_size))
    assert rows["10 (this plan)"][2] == str(chosen.batch_size)
    larger = plan(facts, describe(), dataset="D", memory_gb=80).configurations["3d_fullres"]
    assert rows["80"][0] == " x ".join(map(str, larger.patch_size)) != rows["10 (this plan)"][0]
    assert rows["4"][3] == "yes"


def test_a_memory_that_is_too_small_says_so():
    facts = fingerprint(REGULAR)
    made = plan(facts, describe(), dataset="D")
    page = plan_page(made, facts, [Alternative(1, None, "no network fits"), Alternative(8, made)])
    assert line_with(page, "not planned: no network fits").startswith("| 1 ")


def test_memory_that_changes_nothing_is_said_to():
    facts = fingerprint(REGULAR)
    made = plan(facts, describe(), dataset="D")
    page = plan_page(made, facts, [Alternative(memory, made) for memory in (4, 8, 80)])
    assert "Memory is not what limits this dataset" in flowing(page)


def test_advice_is_only_given_where_it_helps():
    small, large = (
        plan(fingerprint([case(0, shape_after_crop=(edge, edge, edge))] * 20), describe(), dataset="D")
        for edge in (40, 400)
    )

    def advice(made, what):
        (found,) = [r.change for r in made.configurations["3d_fullres"].reasons if r.what == what]
        return found

    assert "--memory" not in advice(small, "patch size")
    assert "--memory" in advice(large, "patch size")
    patch = ",".join(map(str, large.configurations["3d_fullres"].patch_size))
    assert f"patch_size={patch}" in advice(large, "patch size")


def test_cases_without_labels_or_foreground():
    page = page_of([*REGULAR, case(10, intensities=(None,), voxels={}), case(11, intensities=(None,), voxels={0: 9})])
    assert "| 10 of 11 |" in line_with(page, "| liver")
    assert "No 'liver', 'tumour|cyst' in 1 case: case_11." in flowing(page)


def test_pictures():
    flat = {
        "spacing": (999.0, 1.0, 1.0),
        "shape": (1, 100, 200),
        "shape_after_crop": (1, 100, 200),
        "dimensions": 2,
        "voxels": {0: 15_000, 1: 5000, 2: 10},
    }
    page = page_of([case(index, **flat) for index in range(10)])
    assert "10 pictures" in page
    assert "999" not in page
    assert "along z" not in page
    assert "% of the picture" in page
    assert [part.strip() for part in line_with(page, "| liver").split("|")[3:6]] == ["25"] * 3
    assert "mm" not in page.replace("--spacing", "").split("### 2d")[0].split("### For all")[0]


def test_a_fingerprint_of_nnunet_has_a_shorter_page():
    facts = fingerprint(REGULAR).model_copy(update={"cases": ()})
    page = plan_page(plan(facts, describe(), dataset="D"), facts)
    assert "no values of single cases" in flowing(page)
    assert "| liver" not in page
    assert "voxels along z" in page


@pytest.mark.parametrize("extra", [case(10, spacing=(9.0, 1.0, 0.5)), case(10, shape_after_crop=(400, 600, 500))])
def test_it_is_tidy_on_a_terminal(extra):
    page = page_of([*REGULAR, extra])
    lines = page.splitlines()
    assert max(len(line) for line in lines if not line.startswith("|")) <= WIDTH
    tables = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    for table in filter(None, (table.strip() for table in tables)):
        rows = table.splitlines()
        assert len({len(row) for row in rows}) == 1
        assert len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize("name", ["msd_003_Liver__standard", "msd_005_Prostate__standard"])
def test_published_fingerprints(real_data: Callable[[str], Path], name):
    folder = real_data("nnunet_plans") / name
    facts = Fingerprint.read(folder / "fingerprint.json")
    made = plan(facts, DatasetDescription.read(folder / "dataset.json"), dataset=name)
    page = plan_page(made, facts)
    assert all(f"### {configuration}" in page for configuration in made.configurations)
