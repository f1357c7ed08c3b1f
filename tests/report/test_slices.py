"""Slices within the page: outlines exact to the pixel, pictures of nothing but pixels, and a budget that holds."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfcfg.convert.synthetic import make_synthetic
from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.report.names import PLAIN
from selfcfg.report.page.render import TEMPLATES
from selfcfg.report.page.shown import Chosen, viewers_of
from selfcfg.report.page.slices import BUDGET, LADDER, outline, slices_of
from tests.report.pages import pictured


def filled(path: str, shape: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    """The pixels whose centre is inside path data, by the even-odd rule."""
    from matplotlib.path import Path as Polygon

    rows, columns = np.indices(shape)
    centres = np.stack([(columns.ravel() + 0.5) * scale[1], (rows.ravel() + 0.5) * scale[0]], axis=-1)
    inside = np.zeros(len(centres), bool)
    for part in re.findall(r"M(-?\d+) (-?\d+)l([^z]*)z", path):
        steps = np.array(part[2].split(), dtype=int).reshape(-1, 2)
        corners = np.cumsum(np.vstack([np.array(part[:2], dtype=int), steps]), axis=0)
        inside ^= Polygon(corners).contains_points(centres)
    return inside.reshape(shape)


@pytest.mark.parametrize("seed", range(6))
def test_an_outline_holds_just_the_pixels_of_its_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((14, 19)) < (0.3, 0.5, 0.8)[seed % 3]
    assert (filled(outline(mask, (40.0, 55.0)), mask.shape, (40.0, 55.0)) == mask).all()
    assert outline(np.zeros((3, 3), bool), (1, 1)) == ""


def test_every_slice_is_there_with_the_outlines_of_both_maps() -> None:
    case = pictured()
    made = slices_of(case, 10**6)
    assert len(made.frames) == made.total == 9 and made.plane == "axial"
    assert made.edges == ("R", "L", "A", "P")
    assert made.channels == ("channel 0", "channel 1") and made.classes == ("liver", "spleen")
    scale = (made.height / 24, made.width / 30)
    for frame in made.frames:
        for name, outlines in zip(made.maps, frame.outlines, strict=True):
            for value, path in zip(case.classes, outlines, strict=True):
                assert (filled(path, (24, 30), scale) == (case.maps[name][frame.number - 1] == value)).all()
    assert made.shown.number == 4, "the first of the slices that hold most of the reference"


def test_the_focus_holds_all_that_is_outlined_and_has_the_shape_of_a_slice() -> None:
    made = slices_of(pictured((9, 48, 60)), 10**6)
    assert made.focus is not None
    left, top, width, height = made.focus
    for frame in made.frames:
        for path in "".join("".join(outlines) for outlines in frame.outlines).split("M")[1:]:
            x, y = map(int, path.partition("l")[0].split())
            assert left <= x <= left + width and top <= y <= top + height
    assert width / height == pytest.approx(made.width / made.height, rel=0.01)
    assert left >= 0 and left + width <= made.width and top + height <= made.height
    whole = replace(pictured(), maps={"reference": np.ones((9, 24, 30), np.int16)})
    assert slices_of(whole, 10**6).focus is None


def test_a_picture_holds_pixels_and_nothing_else() -> None:
    for frame in slices_of(pictured(), 10**6).frames:
        for uri in frame.pictures:
            picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
            assert picture.size == (30, 24) and picture.mode == "L"
            assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"} and not picture.getexif()


def test_a_colour_picture_is_one_slice_without_letters() -> None:
    case = pictured((1, 40, 30), channels=3)
    label = np.zeros((1, 40, 30), np.int16)
    label[0, 4:9, 5:9] = 1
    flat = Geometry(shape=(1, 40, 30), spacing=(FLAT_SPACING, 1, 1), dimensions=2)
    made = slices_of(replace(case, geometry=flat, maps={"reference": label, "prediction": label}), 10**6)
    assert len(made.frames) == 1 and not made.edges and made.channels == ("colours",)
    (uri,) = made.shown.pictures
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).mode == "RGB"


@pytest.mark.parametrize("budget", [60_000, 20_000, 5_000])
def test_a_case_stays_within_its_budget_and_keeps_its_central_slice(budget: int) -> None:
    case = pictured((40, 96, 96), channels=1)
    whole, made = slices_of(case, 10**7), slices_of(case, budget)
    assert whole.size > 60_000 and len(whole.frames) == 40
    assert made.size <= budget
    assert made.shown.number == whole.shown.number
    numbers = [frame.number for frame in made.frames]
    assert numbers == sorted(numbers)
    assert len(slices_of(case, 1).frames) == 1, "even without any room the central slice is there"


def test_the_ladder_goes_down() -> None:
    assert all(b[0] <= a[0] and b[1] <= a[1] and a != b for a, b in pairwise(LADDER))


def test_fifty_cases_share_the_budget_of_a_page(tmp_path: Path) -> None:
    dataset = make_synthetic(tmp_path / "Dataset001_Many", n_cases=2, mean_shape=(6, 32, 32))
    cases = [case for case in dataset.cases for _ in range(25)]
    chosen = [
        Chosen(case.id, "worst", "", {"reference": case.label, "model": case.label}, case.images)
        for case in cases
        if case.label
    ]
    budget = 250_000
    viewers = viewers_of(chosen, dataset.labels, dataset.description.channels, PLAIN, budget)
    assert len(viewers) == 50 and all(viewer.slices and viewer.slices.shown.pictures for viewer in viewers)
    assert sum(viewer.slices.size for viewer in viewers if viewer.slices) <= budget
    room = sum(file.stat().st_size for file in TEMPLATES.iterdir())
    assert room < 100_000 and BUDGET < 15_000_000, "tables and plots have the rest of 20 MB"


def test_a_case_whose_image_lies_elsewhere_is_shown_without_it(tmp_path: Path) -> None:
    dataset = make_synthetic(tmp_path / "Dataset001_Two", n_cases=2, mean_shape=(6, 20, 20))
    one, other = dataset.cases
    assert one.label and other.label
    maps = {"reference": one.label, "model": one.label}
    chosen = [
        Chosen("a", "worst", "", maps, other.images),
        Chosen("b", "worst", "", {"reference": one.label, "model": tmp_path / "gone.nii.gz"}),
    ]
    first, second = viewers_of(chosen, dataset.labels, dataset.description.channels, PLAIN)
    assert first.slices and not first.slices.shown.pictures and "outlines alone" in first.problem
    assert second.slices is None and "cannot be shown" in second.problem
    assert str(tmp_path) not in first.problem + second.problem
