"""The components of all cases' predictions as tables, on which every trial of post-processing is arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.averaging import add_weighted, decoded, read_probabilities
from selfcfg.engine.prediction.postprocessing import Components, Part, components_of, inherit, parts_of, voxel_size
from selfcfg.engine.scoring.pairs import SMALL_BYTES
from selfcfg.engine.selection.trials import CaseFiles, Tallies, bytes_needed, reference_of, total_size
from selfcfg.errors import SelfcfgError
from selfcfg.io import read_label
from selfcfg.labels import LabelSchema
from selfcfg.parallel import run_cases
from selfcfg.progress import progress

Left = list[NDArray[np.bool_]]
"""Of each part, which components are left."""


@dataclass(frozen=True)
class Predicted:
    """A case, and how what experiments say of it is put together.

    Args:
        files: of the case.
        weights: of each experiment in `files`; 0 of those that are not used.
    """

    files: CaseFiles
    weights: tuple[float, ...]


@dataclass(frozen=True)
class PartTable:
    """The components of one part in all cases.

    Args:
        components: numbers about them; `parent` counts over all cases, too.
        tp: voxels of each that the reference has in the part; 0 for all foreground, which is not scored.
        fp: those that it does not have there, voxels without annotation left out.
    """

    components: Components
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]


@dataclass(frozen=True)
class ComponentTables:
    """The components of all cases.

    Args:
        labels: what is predicted.
        parts: see `parts_of`.
        tables: one a part.
        reference: voxels of each case and class, (cases, classes).
    """

    labels: LabelSchema
    parts: tuple[Part, ...]
    tables: tuple[PartTable, ...]
    reference: NDArray[np.int64]

    @property
    def components(self) -> list[Components]:
        """Of each part."""
        return [table.components for table in self.tables]

    def everything(self) -> Left:
        """Of each part, all components."""
        return [np.ones(len(table.tp), dtype=bool) for table in self.tables]

    def tallies(self, left: Left, name: str | None = None) -> Tallies:
        """(cases, classes, 3) of the label maps with just these components; of one class alone where it is named."""
        cases = len(self.reference)
        wanted = [other for other in self.labels.targets if name in (None, other)]
        found = np.zeros((cases, len(wanted), 3), dtype=np.int64)
        for part, table, stays in zip(self.parts, self.tables, left, strict=True):
            if part.name not in wanted:
                continue
            column, case = wanted.index(part.name), table.components.case[stays]
            for which, voxels in ((0, table.tp), (1, table.fp)):
                sums = np.bincount(case, weights=voxels[stays], minlength=cases)
                found[:, column, which] = sums.astype(np.int64)
        reference = self.reference[:, [list(self.labels.targets).index(other) for other in wanted]]
        found[:, :, 2] = reference - found[:, :, 0]
        return found

    def inherited(self, left: Left, changed: int, stays: NDArray[np.bool_]) -> Left:
        """The components that are left where of one part only some stay."""
        found = [stays if place == changed else one for place, one in enumerate(left)]
        inherit(self.parts, self.components, found)
        return found


def component_tables(cases: Sequence[Predicted], labels: LabelSchema, dimensions: int, jobs: int) -> ComponentTables:
    """The components of the predictions of all cases, each read once.

    Args:
        cases: in order.
        labels: what is predicted.
        dimensions: 2 for pictures, whose sizes are areas, else 3.
        jobs: processes at most.

    Raises:
        DataError: a file is not usable, or components of these regions cannot be removed.
    """
    parts = parts_of(labels)
    tasks = {case.files.case: case for case in cases}
    jobs = 1 if total_size(case.files for case in cases) < SMALL_BYTES else jobs
    work = partial(_of_case, labels=labels, dimensions=dimensions)
    found: dict[str, _CaseTable] = {}
    with progress("components", len(tasks)) as step:
        for case, outcome in run_cases(work, tasks, jobs=jobs, doing="select", memory=_memory):
            if isinstance(outcome, SelfcfgError):
                raise outcome
            found[case] = outcome
            step(case)
    every = [found[case.files.case] for case in cases]
    tables: list[PartTable] = []
    for place, part in enumerate(parts):
        before = None if part.parent is None else [len(one.tables[part.parent].tp) for one in every]
        tables.append(_joined([one.tables[place] for one in every], before))
    return ComponentTables(labels, parts, tuple(tables), np.stack([one.reference for one in every]))


@dataclass(frozen=True)
class _CaseTable:
    """The tables of one case, and the voxels of each class in its reference."""

    tables: tuple[PartTable, ...]
    reference: NDArray[np.int64]


def _memory(task: Predicted) -> int:
    return bytes_needed(task.files)


def _of_case(task: Predicted, labels: LabelSchema, dimensions: int) -> _CaseTable:
    files = task.files
    used = [(one, weight) for one, weight in zip(files.said, task.weights, strict=True) if weight]
    predicted, geometry = read_label(used[0][0].labels)
    stack = read_probabilities(used[0][0].probabilities)
    if len(used) > 1:
        mean = np.zeros(stack.shape, dtype=np.float32)
        for one, weight in used:
            add_weighted(mean, read_probabilities(one.probabilities), weight)
        predicted = decoded(mean, labels)
    reference = reference_of(files, predicted.shape, labels)
    parts = parts_of(labels)
    found = components_of(predicted, stack if len(used) == 1 else mean, voxel_size(geometry, dimensions), parts)
    tables = tuple(
        PartTable(components, *_overlap(places, len(components.size), reference, part, labels))
        for part, (places, components) in zip(parts, found, strict=True)
    )
    voxels = [np.isin(reference, values).sum() for values in labels.targets.values()]
    return _CaseTable(tables, np.array(voxels, dtype=np.int64))


def _overlap(
    places: NDArray[np.int32], count: int, reference: NDArray[np.integer], part: Part, labels: LabelSchema
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True and false positive voxels of each component."""
    inside = np.flatnonzero(places)
    owner, truth = places.reshape(-1)[inside] - 1, reference.reshape(-1)[inside]
    right = np.isin(truth, part.values)
    wrong = ~right if labels.ignore is None else ~right & (truth != labels.ignore)
    if part.name is None:
        right = wrong = np.zeros(len(owner), dtype=bool)
    return np.bincount(owner[right], minlength=count), np.bincount(owner[wrong], minlength=count)


def _joined(tables: Sequence[PartTable], parents: Sequence[int] | None) -> PartTable:
    """The tables of all cases one after the other; `parents` says how many components the parent part has in each."""
    case = np.repeat(np.arange(len(tables)), [len(one.tp) for one in tables])
    start = np.concatenate([[0], np.cumsum(parents)[:-1]]) if parents is not None else np.zeros(len(tables), dtype=int)
    every: Mapping[str, NDArray[np.float64]] = {
        name: np.concatenate([getattr(one.components, name) for one in tables]) for name in ("size", "mean", "highest")
    }
    parent = np.concatenate([one.components.parent for one in tables]) + start[case]
    components = Components(case.astype(np.intp), parent.astype(np.intp), **every)
    return PartTable(components, np.concatenate([one.tp for one in tables]), np.concatenate([one.fp for one in tables]))
