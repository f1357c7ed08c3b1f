"""Which case, which patch, and what is read of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from selfcfg.engine.data.sampling import (
    ANNOTATED,
    OUTSIDE_IMAGE,
    OUTSIDE_LABEL,
    OneChannel,
    PatchWish,
    draw_case,
    draw_corner,
    draw_domain,
    draw_sequence,
    draw_shifts,
    is_foreground,
    read_box,
)
from selfcfg.engine.randomness import generator
from selfcfg.engine.trainer import Need


@dataclass
class InMemory:
    """A preprocessed case held in arrays."""

    image: np.ndarray
    label: np.ndarray
    locations: Mapping[str, np.ndarray] = field(default_factory=dict)


def case_of(shape: tuple[int, int, int], **voxels: list[tuple[int, int, int]]) -> InMemory:
    label = np.zeros(shape, np.int16)
    flat = {
        name: np.array([np.ravel_multi_index(at, shape) for at in places], np.uint32) for name, places in voxels.items()
    }
    return InMemory(np.zeros((1, *shape), np.float32), label, flat)


def corners(case: InMemory, wish: PatchWish, count: int = 400) -> np.ndarray:
    rng = generator(0, "test")
    return np.array([draw_corner(rng, case, wish) for _ in range(count)])


@pytest.mark.parametrize(
    ("batch", "forced"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (12, 4), (20, 7), (100, 33)]
)
def test_the_last_third_of_a_batch_is_foreground(batch: int, forced: int) -> None:
    chosen = [is_foreground(place, batch, 0.33) for place in range(batch)]
    assert sum(chosen) == forced and chosen == sorted(chosen)


def test_every_case_is_equally_likely() -> None:
    rng = generator(0, "test")
    found = [draw_case(rng, ("a", "b", "c")) for _ in range(3000)]
    assert all(found.count(name) == pytest.approx(1000, abs=110) for name in "abc")


def test_a_free_patch_lies_inside_and_reaches_both_ends() -> None:
    found = corners(case_of((10, 20, 30)), PatchWish((4, 20, 8)))
    assert found.min(0).tolist() == [0, 0, 0] and found.max(0).tolist() == [6, 0, 22]
    assert np.bincount(found[:, 0]).min() > 30


def test_a_case_smaller_than_the_patch_lies_in_its_middle() -> None:
    found = corners(case_of((10, 9, 8)), PatchWish((16, 12, 8)))
    assert set(found[:, 0]) == {-3} and set(found[:, 1]) == {-2, -1} and set(found[:, 2]) == {0}


def test_a_foreground_patch_is_centred_and_moved_in_at_the_lower_border_only() -> None:
    case = case_of((20, 20, 20), a=[(10, 1, 19)])
    assert {*map(tuple, corners(case, PatchWish((8, 8, 8), foreground=True), 5))} == {(6, 0, 15)}
    small = case_of((6, 20, 20), a=[(1, 10, 10)])
    assert {*map(tuple, corners(small, PatchWish((9, 8, 8), foreground=True), 5))} == {(-2, 6, 6)}


def test_classes_that_are_there_are_equally_likely_whatever_their_size() -> None:
    many = [(z, y, 4) for z in range(10) for y in range(10)]
    case = case_of((40, 40, 40), big=many, small=[(30, 30, 30)], absent=[])
    found = corners(case, PatchWish((2, 2, 2), foreground=True), 1000)
    assert (found[:, 0] == 29).sum() == pytest.approx(500, abs=70)
    assert len({*map(tuple, found[found[:, 0] != 29])}) > 60


def test_without_foreground_a_forced_patch_lies_anywhere() -> None:
    assert len({*map(tuple, corners(case_of((9, 9, 9), a=[]), PatchWish((4, 4, 4), foreground=True)))}) > 100


def test_free_patches_keep_to_annotated_voxels() -> None:
    case = case_of((20, 20, 20), **{"a": [(3, 3, 3)], ANNOTATED: [(12, 12, 12), (15, 15, 15)]})
    free = corners(case, PatchWish((4, 4, 4), annotated=True))
    assert {*map(tuple, free)} == {(10, 10, 10), (13, 13, 13)}
    forced = corners(case, PatchWish((4, 4, 4), foreground=True, annotated=True))
    assert {*map(tuple, forced)} == {(1, 1, 1)}
    empty = case_of((20, 20, 20), **{"a": [], ANNOTATED: [(12, 12, 12)]})
    assert {*map(tuple, corners(empty, PatchWish((4, 4, 4), foreground=True, annotated=True)))} == {(10, 10, 10)}
    assert (
        len({*map(tuple, corners(case_of((20, 20, 20), **{ANNOTATED: []}), PatchWish((4, 4, 4), annotated=True)))}) > 9
    )


def test_a_box_that_hangs_over_is_padded() -> None:
    rng = np.random.default_rng(0)
    image, label = rng.standard_normal((2, 5, 6, 7)).astype(np.float16), rng.integers(0, 3, (5, 6, 7), dtype=np.int16)
    for _ in range(100):
        corner = tuple(int(at) for at in rng.integers(-6, 8, 3))
        box = [(int(start), int(start + size)) for start, size in rng.integers((-3, 1), (3, 9), (3, 2))]
        reach = 40
        wide = np.pad(image.astype(np.float32), [(0, 0)] + [(reach, reach)] * 3)
        wide_label = np.pad(label, reach, constant_values=-1)
        place = tuple(slice(reach + at + a, reach + at + b) for at, (a, b) in zip(corner, box, strict=True))
        found, found_label = read_box(image, corner, box, OUTSIDE_IMAGE), read_box(label, corner, box, OUTSIDE_LABEL)
        assert found.numpy().dtype == np.float32 and found_label.numpy().dtype == np.int16
        np.testing.assert_array_equal(found, wide[(slice(None), *place)])
        np.testing.assert_array_equal(found_label, wide_label[place])


def test_what_is_read_has_its_own_memory() -> None:
    image = np.zeros((1, 4, 4, 4), np.float32)
    read_box(image, (0, 0, 0), [(0, 4)] * 3, OUTSIDE_IMAGE).fill_(1)
    assert not image.any()


# --- sequences, shifts, channels, domains -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "depth", "count", "step"),
    [
        (20, 1, 3, 1),  # neighbouring slices
        (40, 8, 4, 4),  # slabs that overlap by half
        (17, 8, 4, 3),  # slabs that overlap more
        (9, 8, 4, 1),  # hardly longer than one slab
        (2, 1, 3, 1),  # fewer slices than asked for
        (5, 8, 3, 1),  # shorter than one slab
    ],
)
def test_a_sequence_goes_along_the_first_axis_in_even_steps(length: int, depth: int, count: int, step: int) -> None:
    found = draw_sequence(generator(0, "test"), case_of((length, 9, 9)), PatchWish((depth, 4, 4)), count)
    assert len(found) == count
    assert set(np.diff([z for z, _, _ in found])) == {step}
    assert len({(y, x) for _, y, x in found}) == 1


@pytest.mark.parametrize(("length", "depth", "count"), [(20, 1, 3), (40, 8, 4), (20, 8, 4)])
def test_a_sequence_lies_inside_and_reaches_both_ends(length: int, depth: int, count: int) -> None:
    rng, case = generator(0, "test"), case_of((length, 9, 9))
    found = [draw_sequence(rng, case, PatchWish((depth, 4, 4)), count) for _ in range(300)]
    assert min(first for (first, _, _), *_ in found) == 0
    assert max(last for *_, (last, _, _) in found) == length - depth


def test_a_case_shorter_than_the_sequence_lies_in_its_middle() -> None:
    found = draw_sequence(generator(0, "test"), case_of((2, 9, 9)), PatchWish((1, 4, 4)), 4)
    assert [z for z, _, _ in found] == [-1, 0, 1, 2]


def test_a_sequence_of_one_is_the_patch_itself() -> None:
    case, wish = case_of((20, 20, 20), a=[(10, 1, 19)]), PatchWish((8, 8, 8), foreground=True)
    assert draw_sequence(generator(0, "test"), case, wish, 1) == [draw_corner(generator(0, "test"), case, wish)]


def test_all_views_but_the_first_are_moved_by_a_share_of_the_patch() -> None:
    rng, need = generator(0, "test"), Need(views=3, shift=0.25)
    found = np.array([draw_shifts(rng, (4, 16, 30), need) for _ in range(400)])
    assert not found[:, 0].any()
    assert found[:, 1:].min((0, 1)).tolist() == [-1, -4, -7] and found[:, 1:].max((0, 1)).tolist() == [1, 4, 7]
    assert (found[:, 1] != found[:, 2]).any()


def test_slices_are_moved_in_their_plane_alone() -> None:
    found = np.array(draw_shifts(generator(0, "test"), (16, 16), Need(views=50, shift=0.5)))
    assert not found[:, 0].any() and found[:, 1:].any()


def test_where_there_is_no_choice_nothing_is_drawn() -> None:
    rng = generator(0, "test")
    assert draw_domain(rng, (3,)) == 3
    assert draw_shifts(rng, (8, 8, 8), Need(views=2)) == [(0, 0, 0)] * 2
    assert rng.random() == generator(0, "test").random()


def test_every_domain_is_equally_likely() -> None:
    rng = generator(0, "test")
    found = [draw_domain(rng, (0, 2)) for _ in range(1000)]
    assert set(found) == {0, 2} and found.count(2) == pytest.approx(500, abs=70)


def test_of_one_channel_no_other_is_read() -> None:
    class Noting:
        shape = (3, 4, 5, 6)

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            asked.append(key[0])
            return np.arange(360, dtype=np.float32).reshape(self.shape)[key]

    asked: list[slice] = []
    found = read_box(OneChannel(Noting(), 2), (1, 1, 1), ((0, 2), (0, 4), (0, 5)), OUTSIDE_IMAGE)
    assert asked == [slice(2, 3)]
    assert found.shape == (1, 2, 4, 5) and found[0, 0, 0, 0] == 2 * 120 + 30 + 6 + 1


@pytest.mark.parametrize(
    ("depth", "length", "step"), [(1, 20, 1), (1, 4, 1), (8, 60, 4), (8, 20, 4), (8, 14, 2), (8, 9, 1), (8, 6, 1)]
)
def test_sequences_are_slices_in_a_row_or_slabs_that_overlap(depth: int, length: int, step: int) -> None:
    case, rng = case_of((length, 12, 12)), generator(0, "test")
    for _ in range(50):
        found = draw_sequence(rng, case, PatchWish((depth, 8, 8)), 4)
        assert {b[0] - a[0] for a, b in itertools.pairwise(found)} == {step}
        assert len({corner[1:] for corner in found}) == 1
        if length >= depth + 3 * step:
            assert found[0][0] >= 0 and found[-1][0] + depth <= length


def test_views_of_a_sequence_are_moved_in_the_plane_only() -> None:
    rng = generator(0, "test")
    shifts = np.array([draw_shifts(rng, (8, 8, 8), Need(views=2, sequence=4, shift=0.25))[1] for _ in range(50)])
    assert not shifts[:, 0].any() and set(shifts[:, 1]) == set(range(-2, 3))
    free = np.array([draw_shifts(rng, (8, 8, 8), Need(views=2, shift=0.25))[1] for _ in range(50)])
    assert set(free[:, 0]) == set(range(-2, 3))
