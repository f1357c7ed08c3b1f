"""Components and their matches against a flood fill and a search of every matching."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfcfg.kernels.lesions import Neighbours, lesions

TOUCHING = {"faces": 1, "edges": 2, "corners": 3}


def flood(mask: np.ndarray, neighbours: Neighbours) -> list[frozenset[tuple[int, ...]]]:
    steps = [step for step in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= TOUCHING[neighbours]]
    left = {tuple(place) for place in np.argwhere(mask).tolist()}
    found = []
    while left:
        front, part = [left.pop()], set()
        while front:
            place = front.pop()
            part.add(place)
            near = {tuple(a + b for a, b in zip(place, step, strict=True)) for step in steps} & left
            left -= near
            front += near
        found.append(frozenset(part))
    return found


def best_matching(a: list[frozenset], b: list[frozenset], threshold: float) -> float:
    """The largest sum of IoU above the threshold of any matching of one to one."""
    few, many = sorted((a, b), key=len)
    iou = [[len(x & y) / len(x | y) for y in many] for x in few]
    return max(
        sum(value for i, j in enumerate(chosen) if (value := iou[i][j]) > threshold)
        for chosen in permutations(range(len(many)), len(few))
    )


@pytest.mark.parametrize("neighbours", ["faces", "edges", "corners"])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 6, 7)])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]))
def test_components_and_overlaps_are_those_of_a_flood_fill(
    shape: tuple[int, ...], neighbours: Neighbours, seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    reference, prediction = (rng.random(shape) < share for _ in range(2))
    a, b = flood(reference, neighbours), flood(prediction, neighbours)
    found = lesions(reference, prediction, neighbours)
    assert (found.n_reference, found.n_prediction) == (len(a), len(b))
    ious = sorted(len(x & y) / len(x | y) for x in a for y in b if x & y)
    assert sorted(found.iou.tolist()) == pytest.approx(ious)
    touched = sum(any(x & y for y in b) for x in a), sum(any(x & y for x in a) for y in b)
    assert found.touched() == touched
    assert sorted(found.matched().tolist()) == pytest.approx([value for value in ious if value > 0.5])


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3])
def test_below_one_half_the_matching_is_the_best_of_all(threshold: float) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        reference, prediction = np.zeros((1, 5, 9), dtype=bool), np.zeros((1, 5, 9), dtype=bool)
        reference[0, rng.random((5, 9)) < 0.4] = True
        prediction[0, rng.random((5, 9)) < 0.4] = True
        a, b = flood(reference, "faces"), flood(prediction, "faces")
        if min(len(a), len(b)) > 5 or max(len(a), len(b)) > 9:
            reference[:, 2:], prediction[:, 2:] = False, False
            a, b = flood(reference, "faces"), flood(prediction, "faces")
        found = lesions(reference, prediction, "faces").matched(threshold)
        assert found.sum() == pytest.approx(best_matching(a, b, threshold))


def test_lesions_that_touch_by_a_corner_are_one_or_two() -> None:
    mask = np.zeros((2, 2, 2), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert [lesions(mask, mask, how).n_reference for how in ("corners", "edges", "faces")] == [1, 2, 2]
    flat = np.array([[[1, 0], [0, 1]]], dtype=bool)
    assert [lesions(flat, flat, how).n_reference for how in ("corners", "edges", "faces")] == [1, 1, 2]


def test_an_iou_of_one_half_is_no_match() -> None:
    a, b = np.array([[[1, 1, 0]]], dtype=bool), np.array([[[1, 0, 0]]], dtype=bool)
    assert lesions(a, b).iou.tolist() == [0.5]
    assert lesions(a, b).matched(0.5).size == 0
    assert lesions(a, b).matched(0.49).tolist() == [0.5]
