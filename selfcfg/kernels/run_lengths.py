"""Masks as run lengths: pairs of a start and a length along the columns of a picture, as tables of masks hold them.

Pixels are counted down the first column, then down the second, and so on. In both codings a code is the list of all
pairs, one a run, in the order of the pixels:

- ``absolute``: the start is the number of the run's first pixel, the first pixel of the picture being 1.
- ``relative``: the start is the number of pixels between the end of the run before (at first, the beginning of the
  picture) and the run.

Source: the competitions' descriptions of their tables; relative: SIIM-ACR pneumothorax segmentation, 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Coding = Literal["relative", "absolute"]

CODINGS: tuple[Coding, ...] = ("relative", "absolute")


def decode_runs(code: Sequence[int], coding: Coding, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (Y, X) that a code stands for.

    Args:
        code: start and length of every run.
        coding: what a start counts from.
        shape: pixels (y, x) of the picture.

    Raises:
        ValueError: the code does not fit the picture; see `misfit`.
    """
    if found := misfit(code, coding, shape):
        raise ValueError(found)
    starts, ends = _bounds(code, coding)
    steps = np.zeros(shape[0] * shape[1] + 1, np.int8)
    np.add.at(steps, starts, 1)  # one run may begin where the last one ends
    np.add.at(steps, ends, -1)
    inside = np.cumsum(steps[:-1], dtype=np.int8).astype(bool)
    return inside.reshape(shape, order="F")


def misfit(code: Sequence[int], coding: Coding, shape: tuple[int, int]) -> str:
    """Why a code cannot stand for a mask of this shape (y, x), in words; empty when it can."""
    if len(code) % 2:
        return f"{len(code)} numbers, and each run needs two"
    starts, ends = _bounds(code, coding)
    before = np.concatenate([[0], ends[:-1]])
    wrong = (ends <= starts) | (starts < before) | (ends > shape[0] * shape[1])
    if not wrong.any():
        return ""
    at = int(np.argmax(wrong))
    start, length = code[2 * at], code[2 * at + 1]
    told = f"run {at + 1} ({start} {length})"
    if length < 1:
        return f"{told} has no length"
    if starts[at] < before[at]:
        if at == 0:
            return f"{told} begins before the first pixel"
        return f"{told} begins at pixel {starts[at] + 1}, but run {at} ends at pixel {before[at]}: they overlap"
    return f"{told} ends at pixel {ends[at]}, beyond the {shape[0] * shape[1]} pixels of {shape[1]} x {shape[0]}"


def _bounds(code: Sequence[int], coding: Coding) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first pixel of each run and the first one after it, both counted from 0."""
    pairs: NDArray[Any] = np.asarray(code, np.int64).reshape(-1, 2)
    starts, lengths = pairs[:, 0], pairs[:, 1]
    if coding == "absolute":
        return starts - 1, starts - 1 + lengths
    ends = np.cumsum(starts + lengths)
    return ends - lengths, ends
