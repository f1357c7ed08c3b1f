from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from selfcfg.geometry import FLAT_SPACING, Geometry
from selfcfg.report.pictures import choose_view, overlay

SHAPE, SPACING = (6, 9, 7), (3.0, 1.0, 1.5)
BLUE, ORANGE = (0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00)


def marked_volume() -> np.ndarray:
    """A volume in which every voxel has a value of its own, z, y, x in LPS."""
    return np.arange(np.prod(SHAPE)).reshape(SHAPE)


def stored_as(volume: np.ndarray, order: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[np.ndarray, Geometry]:
    """The same body stored with other axes: array axis k is axis order[k] of `volume`, turned round where flips[k]."""
    turned = np.flip(volume.transpose(order), [axis for axis in range(3) if flips[axis]])
    direction = np.zeros((3, 3))
    for axis in range(3):
        direction[2 - order[axis], 2 - axis] = -1 if flips[axis] else 1
    spacing = tuple(SPACING[order[axis]] for axis in range(3))
    return turned, Geometry(shape=turned.shape, spacing=spacing, direction=tuple(direction.ravel()))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_body_looks_the_same_however_its_axes_are_stored(order: tuple[int, ...]) -> None:
    volume = marked_volume()
    plain = choose_view(volume >= 4 * 63, volume < 0, Geometry(shape=SHAPE, spacing=SPACING))
    assert plain.cut(volume).tolist() == volume[4].tolist()
    assert plain.edges == ("R", "L", "A", "P") and plain.pixel_mm == (1.0, 1.5)
    for flips in product((False, True), repeat=3):
        turned, geometry = stored_as(volume, order, flips)
        view = choose_view((turned >= 4 * 63) & (turned < 5 * 63), turned < 0, geometry)
        assert view.cut(turned).tolist() == volume[4].tolist()
        assert (view.edges, view.pixel_mm) == (plain.edges, plain.pixel_mm)


def test_oblique_volumes_have_another_pair_of_letters_along_each_axis() -> None:
    volume = np.zeros((4, 5, 6), bool)
    for rotation in Rotation.random(200, random_state=0).as_matrix():
        direction = tuple(float(value) for value in rotation.ravel())
        geometry = Geometry(shape=volume.shape, spacing=(1.0, 1.0, 1.0), direction=direction)
        assert sorted("LPS"["LPSRAI".index(one) % 3] for one in geometry.orientation) == ["L", "P", "S"]
        assert choose_view(volume, volume, geometry).edges


def test_isotropic_volumes_are_cut_axially_and_thick_slices_along_the_slices() -> None:
    sagittal = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    empty = np.zeros((4, 5, 6), bool)
    thick = Geometry(shape=(4, 5, 6), spacing=(5.0, 1.0, 1.0), direction=sagittal)
    assert thick.orientation == "LSP"
    view = choose_view(empty, empty, thick)
    assert (view.axis, view.index, view.edges) == (0, 2, ("A", "P", "S", "I"))
    even = choose_view(empty, empty, thick.model_copy(update={"spacing": (1.0, 1.0, 1.0)}))
    assert (even.axis, even.edges) == (1, ("R", "L", "A", "P"))


def test_the_slice_is_the_one_with_most_reference_foreground() -> None:
    reference, prediction = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    reference[1, :2], prediction[5] = True, True
    geometry = Geometry(shape=SHAPE, spacing=SPACING)
    assert choose_view(reference, prediction, geometry).index == 1
    assert choose_view(np.zeros(SHAPE, bool), prediction, geometry).index == 5


def test_pictures_are_neither_cut_nor_turned() -> None:
    geometry = Geometry(shape=(1, 3, 4), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
    plane = np.arange(12).reshape(1, 3, 4)
    view = choose_view(plane > 3, plane > 3, geometry)
    assert view.cut(plane).tolist() == plane[0].tolist() and view.edges == ()


def above_the_legend(file: Path) -> np.ndarray:
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
    return pixels[: -pixels.shape[0] // 6]


def has_color(file: Path, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(above_the_legend(file) - color).max(axis=-1) < 12).any())


@pytest.mark.parametrize("n_channels", [1, 2, 4])
def test_both_outlines_are_drawn(tmp_path: Path, n_channels: int) -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((5, 40, 50), np.uint8)
    label[2, 10:20, 10:20], label[2, 25:30, 10:15] = 1, 2
    geometry = Geometry(shape=label.shape, spacing=(4.0, 1.0, 1.0))
    image = rng.normal(size=(n_channels, *label.shape)).astype(np.float32)
    overlay(image, label, np.roll(label, 4, axis=2), geometry, tmp_path / "both.png")
    overlay(image, label, np.zeros_like(label), geometry, tmp_path / "missed.png")
    overlay(image, np.zeros_like(label), label, geometry, tmp_path / "invented.png")
    overlay(image, label, np.roll(label, 4, axis=2), geometry, tmp_path / "ignored.png", classes={3: "c"})
    drawn = {file.stem: (has_color(file, BLUE), has_color(file, ORANGE)) for file in tmp_path.iterdir()}
    assert drawn == {
        "both": (True, True),
        "missed": (True, False),
        "invented": (False, True),
        "ignored": (False, False),
    }


def test_a_stray_prediction_is_seen_in_the_overview(tmp_path: Path) -> None:
    reference = np.zeros((1, 200, 200), np.uint8)
    reference[0, 20:60, 20:60] = 1
    prediction = reference.copy()
    prediction[0, 185:190, 185:190] = 1
    geometry = Geometry(shape=(1, 200, 200), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
    overlay(np.zeros((1, 1, 200, 200), np.float32), reference, prediction, geometry, tmp_path / "a.png")
    overlay(np.zeros((1, 1, 200, 200), np.float32), reference, reference, geometry, tmp_path / "b.png")
    left = [above_the_legend(tmp_path / name)[:, :330] for name in ("a.png", "b.png")]
    colored = [(picture.max(axis=-1) - picture.min(axis=-1) > 60).sum() for picture in left]
    assert colored[0] > 20 > colored[1] == 0


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1e30, 65535.0])
def test_any_image_can_be_drawn(tmp_path: Path, value: float) -> None:
    image = np.full((3, 1, 12, 10), value, np.float32)
    label = np.zeros((1, 12, 10), np.uint8)
    geometry = Geometry(shape=(1, 12, 10), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
    overlay(image, label, label, geometry, tmp_path / "color.png", title="$not_math$ <b>")
    overlay(image[:1], label, label, geometry, tmp_path / "gray.png")
    assert {file.name for file in tmp_path.iterdir()} == {"color.png", "gray.png"}
