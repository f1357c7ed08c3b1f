"""The page and its pictures as files: what there is for which data, and that none of it outlives its plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.intensities import describe
from selfcfg.errors import UsageError
from selfcfg.fingerprint import CaseFingerprint, Fingerprint
from selfcfg.geometry import FLAT_SPACING
from selfcfg.plan import Plan
from selfcfg.planners.standard import plan
from selfcfg.report.plan_files import remove_page, write_page

LINK = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")


def dataset(
    n_cases: int, *, n_classes: int = 2, channels: tuple[str, ...] = ("MRI",), is_flat: bool = False
) -> tuple[Plan, Fingerprint]:
    """A plan and the facts it was made from, with sizes, volumes and intensities that vary from case to case."""
    rng = np.random.default_rng(0)
    cases = []
    for index in range(n_cases):
        shape = (1 if is_flat else 20 + index % 5, 60 + index % 7, 50)
        found = [describe(rng.lognormal(3 + index % 4, 0.5, 400).astype(np.float32)) for _ in channels]
        case: dict[str, Any] = {
            "case": f"case_{index}",
            "subject": f"person_{index}",
            "shape": shape,
            "shape_after_crop": shape,
            "spacing": (FLAT_SPACING if is_flat else 2.0 + index % 3 / 10, 1.0, 1.0),
            "orientation": "SPL",
            "dimensions": 2 if is_flat else 3,
            "intensities": tuple(statistics for statistics, _ in found),
            "quantiles": tuple(text for _, text in found),
            "voxels": {0: 1000} | {value: 5 + index * value for value in range(1, n_classes + 1)},
            "source": "",
            "picture": "",
        }
        cases.append(CaseFingerprint(**case))
    facts = Fingerprint(
        spacings=tuple(case.spacing for case in cases),
        shapes_after_crop=tuple(case.shape_after_crop for case in cases),
        foreground_intensity_properties_per_channel=dict(
            zip(map(str, range(len(channels))), cases[0].intensities, strict=True)
        ),
        median_relative_size_after_cropping=1.0,
        cases=tuple(cases),
    )
    description = DatasetDescription(
        channel_names=dict(zip(map(str, range(len(channels))), channels, strict=True)),
        labels={"background": 0} | {f"class {value} of $many$": value for value in range(1, n_classes + 1)},
        numTraining=n_cases,
        file_ending=".png" if is_flat else ".nii.gz",
    )
    return plan(facts, description, dataset="Dataset007_Many"), facts


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(
    "what",
    [
        {"n_cases": 1},
        {"n_cases": 200, "channels": ("CT", "PET", "T1", "T2")},
        {"n_cases": 3, "n_classes": 120},
        {"n_cases": 5, "channels": ("R", "G", "B"), "is_flat": True},
    ],
    ids=["one case", "many cases and channels", "many classes", "colour pictures"],
)
def test_the_page_shows_every_picture_that_is_written(tmp_path, what):
    page = write_page(tmp_path / "standard.json", *dataset(**what), [])
    assert page == tmp_path / "standard.md"
    shown = LINK.findall(page.read_text(encoding="utf-8"))
    assert names(tmp_path) == sorted([*shown, "standard.md"])
    assert len(shown) == 3
    for name in shown:
        picture = matplotlib.image.imread(tmp_path / name)
        assert picture.shape[1] <= 1100
        assert picture[..., :3].std() > 0.01


def test_the_same_data_gives_the_same_pictures(tmp_path):
    first, second = (write_page(tmp_path / name / "a.json", *dataset(20), []).parent for name in "pq")
    assert {file.name: file.read_bytes() for file in first.iterdir()} == {
        file.name: file.read_bytes() for file in second.iterdir()
    }


def test_without_single_cases_only_sizes_are_drawn(tmp_path):
    made, facts = dataset(5)
    write_page(tmp_path / "plan.json", made, facts.model_copy(update={"cases": ()}), [])
    assert names(tmp_path) == ["plan-space.png", "plan.md"]


def test_cases_without_foreground_or_label_are_left_out(tmp_path):
    made, facts = dataset(3)
    empty = facts.cases[0].model_copy(update={"voxels": {}, "intensities": (None,), "quantiles": ("",)})
    write_page(tmp_path / "plan.json", made, facts.model_copy(update={"cases": (empty, *facts.cases[1:])}), [])
    assert "plan-intensities.png" in names(tmp_path)


def test_a_page_goes_with_its_pictures_and_nothing_else(tmp_path):
    made, facts = dataset(3)
    for name in ("standard.json", "standard-24GB.json"):
        write_page(tmp_path / name, made, facts, [])
    (tmp_path / "standard.json").write_text("{}")
    remove_page(tmp_path / "standard.json")
    assert [name for name in names(tmp_path) if not name.startswith("standard-24GB")] == ["standard.json"]
    assert len(names(tmp_path)) == 5


def test_a_file_of_the_user_is_neither_removed_nor_overwritten(tmp_path):
    page = tmp_path / "plan.md"
    page.write_text("# My notes\n")
    remove_page(tmp_path / "plan.json")
    with pytest.raises(UsageError, match="selfcfg did not write"):
        write_page(tmp_path / "plan.json", *dataset(2), [])
    assert names(tmp_path) == ["plan.md"]
    assert page.read_text() == "# My notes\n"
