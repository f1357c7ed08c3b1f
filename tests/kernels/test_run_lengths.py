"""Run lengths stand for the masks that a loop over single pixels makes of them, in both codings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from selfcfg.kernels.run_lengths import CODINGS, Coding, decode_runs, misfit

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=9)
codings = pytest.mark.parametrize("coding", CODINGS)


def encode(mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]], coding: Coding) -> list[int]:
    """The code of a mask, pixel by pixel, as the tables' authors describe it."""
    pixels = [bool(mask[y, x]) for x in range(mask.shape[1]) for y in range(mask.shape[0])]
    code: list[int] = []
    end = 0
    for number, inside in enumerate(pixels):
        if inside and (number == 0 or not pixels[number - 1]):
            code += [number + 1 if coding == "absolute" else number - end, 0]
        if inside:
            code[-1] += 1
            end = number + 1
    return code


def paint(code: list[int], coding: Coding, shape: tuple[int, int]) -> list[list[bool]] | None:
    """The mask of a code, pixel by pixel; None where it leaves the picture, meets itself, or makes no sense."""
    height, width = shape
    mask = [[False] * width for _ in range(height)]
    position = 0
    if len(code) % 2:
        return None
    for start, length in zip(code[::2], code[1::2], strict=True):
        first = start - 1 if coding == "absolute" else position + start
        if first < position or length < 1:
            return None
        for pixel in range(first, first + length):
            if pixel >= height * width:
                return None
            mask[pixel % height][pixel // height] = True
        position = first + length
    return mask


@codings
@given(mask=SHAPES.flatmap(lambda shape: arrays(bool, shape)))
def test_what_was_encoded_comes_back(coding: Coding, mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> None:
    found = decode_runs(encode(mask, coding), coding, mask.shape)
    assert found.dtype == bool
    assert np.array_equal(found, mask)


@codings
@given(code=st.lists(st.integers(-1, 6), max_size=8), shape=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_any_numbers_are_painted_or_refused_as_by_hand(coding: Coding, code: list[int], shape: tuple[int, int]) -> None:
    expected = paint(code, coding, shape)
    assert (misfit(code, coding, shape) == "") == (expected is not None)
    if expected is not None:
        assert decode_runs(code, coding, shape).tolist() == expected


@codings
def test_columns_are_counted_down_first(coding: Coding) -> None:
    mask = np.array([[0, 1, 0], [1, 0, 0]], bool)  # pixels 2 and 3 of six
    assert decode_runs([2, 2] if coding == "absolute" else [1, 2], coding, (2, 3)).tolist() == mask.tolist()


def test_runs_that_touch_are_no_overlap() -> None:
    assert decode_runs([1, 2, 3, 1], "absolute", (2, 2)).sum() == 3
    assert decode_runs([0, 2, 0, 1], "relative", (2, 2)).sum() == 3


@pytest.mark.parametrize(
    ("code", "coding", "words"),
    [
        ([1, 2, 3], "relative", "3 numbers, and each run needs two"),
        ([0, 2], "absolute", r"run 1 \(0 2\) begins before the first pixel"),
        ([-1, 2], "relative", r"run 1 \(-1 2\) begins before the first pixel"),
        ([1, 4, 3, 2], "absolute", r"run 2 \(3 2\) begins at pixel 3, but run 1 ends at pixel 4: they overlap"),
        ([1, 4, -1, 2], "relative", r"run 2 \(-1 2\) begins at pixel 5, but run 1 ends at pixel 5: they overlap"),
        ([1, 2, 4, 0], "relative", r"run 2 \(4 0\) has no length"),
        ([5, 9], "absolute", r"run 1 \(5 9\) ends at pixel 13, beyond the 12 pixels of 4 x 3"),
        ([4, 2, 4, 3], "relative", r"run 2 \(4 3\) ends at pixel 13, beyond the 12 pixels of 4 x 3"),
        ([999_999_999_999, 999_999_999_999], "relative", "beyond the 12 pixels"),
    ],
)
def test_codes_that_do_not_fit_say_why(code: list[int], coding: Coding, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_runs(code, coding, (3, 4))
