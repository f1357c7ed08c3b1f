"""Where the classes of a label map lie: a sample of voxel indices of each, for choosing patches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MINIMUM = 10_000
"""Voxels kept of each class at least, as far as it has them."""
FRACTION = 0.01
"""Share of a class's voxels that is kept, where that is more."""

_SLAB = 1 << 22

Indices = NDArray[np.unsignedinteger[Any]]


def sample_locations(label: NDArray[np.int16], targets: Mapping[str, tuple[int, ...]], seed: str) -> dict[str, Indices]:
    """Sorted flat indices (C order) of voxels of each target, drawn without replacement; uint32 where they fit.

    Args:
        label: (Z, Y, X).
        targets: name to the label values that belong to it.
        seed: what the draw depends on, such as the case's id; another target never changes the draw of this one.

    Returns:
        An array a target, empty where it has no voxel, else with max(`MINIMUM`, `FRACTION` of its voxels) entries or
        all it has.

    Source: nnU-Net v2.8.1, ``_sample_foreground_locations``; read in slabs here, so that no list of all voxels exists.
    """
    counts = _count(label)
    picks = {name: _pick(counts, values, f"{seed}/{name}") for name, values in targets.items()}
    found: dict[str, list[NDArray[np.intp]]] = {name: [] for name in targets}
    wanted = {value for values in targets.values() for value in values if counts.get(value)}
    passed = dict.fromkeys(wanted, 0)
    flat = label.reshape(-1)
    for start in range(0, flat.size, _SLAB):
        for value, places in _places(flat[start : start + _SLAB], wanted).items():
            for name, of_values in picks.items():
                if value in of_values:
                    first, last = np.searchsorted(of_values[value], (passed[value], passed[value] + len(places)))
                    found[name].append(places[of_values[value][first:last] - passed[value]] + start)
            passed[value] += len(places)
    none = np.empty(0, np.intp)
    dtype: type[np.unsignedinteger[Any]] = np.uint32 if label.size <= np.iinfo(np.uint32).max else np.uint64
    return {name: np.sort(np.concatenate([none, *parts])).astype(dtype) for name, parts in found.items()}


def _count(label: NDArray[np.int16]) -> dict[int, int]:
    low = int(label.min())
    counts = np.zeros(int(label.max()) - low + 1, dtype=np.int64)
    for part in label:
        counts += np.bincount(part.reshape(-1).astype(np.intp) - low, minlength=len(counts))
    return {low + offset: int(count) for offset, count in enumerate(counts)}


def _pick(counts: Mapping[int, int], values: tuple[int, ...], key: str) -> dict[int, NDArray[np.int64]]:
    """Which occurrences of each value are kept, as sorted ranks among that value's voxels in C order."""
    sizes = [counts.get(value, 0) for value in values]
    total = sum(sizes)
    wanted = max(min(MINIMUM, total), int(np.ceil(total * FRACTION)))
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    ranks = np.sort(generator.choice(total, wanted, replace=False, shuffle=False)) if total else np.empty(0, np.int64)
    bounds = np.cumsum([0, *sizes])
    places = np.searchsorted(ranks, bounds)
    return {value: ranks[places[index] : places[index + 1]] - bounds[index] for index, value in enumerate(values)}


def _places(flat: NDArray[np.int16], wanted: set[int]) -> dict[int, NDArray[np.intp]]:
    """The positions of each wanted value."""
    candidates = np.flatnonzero(flat >= min(wanted)) if wanted else np.empty(0, np.intp)
    if not len(candidates):
        return {}
    values = flat[candidates]
    order = np.argsort(values, kind="stable")
    present, starts = np.unique(values[order], return_index=True)
    groups = np.split(candidates[order], starts[1:])
    return {int(value): group for value, group in zip(present, groups, strict=True) if int(value) in wanted}
