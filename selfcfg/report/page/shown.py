"""The cases that a page shows: read from their files, and made into viewers within the budget of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from selfcfg.dataset import Case
from selfcfg.engine.comparison.alignment import MEAN, Aligned
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.errors import DataError, SelfcfgError
from selfcfg.fixes import Fixes
from selfcfg.geometry import Geometry
from selfcfg.io import read_case, read_label
from selfcfg.labels import LabelSchema
from selfcfg.progress import progress
from selfcfg.report.cases import N_WORST
from selfcfg.report.names import Names
from selfcfg.report.page.blocks import Viewer
from selfcfg.report.page.slices import BUDGET, Pictured, Slices, slices_of
from selfcfg.report.pictures import Image, Label

REFERENCE = "reference"
MOST = 12
"""Cases shown at most."""


@dataclass(frozen=True)
class Chosen:
    """A case to show, and its files.

    Args:
        case: its id.
        why: in a word.
        about: its scores.
        maps: label map of the reference and of each system, the reference first.
        images: a file a channel; none where there are none.
        fixes: recorded corrections of headers.
    """

    case: str
    why: str
    about: str
    maps: Mapping[str, Path]
    images: tuple[Path, ...] = ()
    fixes: Fixes = field(default_factory=Fixes)


def viewers_of(
    chosen: Sequence[Chosen], labels: LabelSchema, channels: tuple[str, ...], names: Names, budget: int = BUDGET
) -> tuple[Viewer, ...]:
    """A viewer a case; what one leaves of its share of the budget is for those after it.

    A case whose files cannot be read has none, and says so.

    Args:
        chosen: in order.
        labels: meaning of the values.
        channels: names of the channels of the images.
        names: what cases are called.
        budget: bytes for all of them.
    """
    left, viewers = budget, []
    with progress("show cases", len(chosen)) as step:
        for place, case in enumerate(chosen):
            slices, problem = _slices(case, labels, channels, left // (len(chosen) - place))
            left -= slices.size if slices is not None else 0
            title = f"{case.why}: {names.case(case.case)}"
            viewers.append(Viewer(f"case-{place + 1}", title, case.about, slices, problem))
            step(case.case)
    return tuple(viewers)


def chosen_cases(scores: Aligned) -> list[tuple[str, str]]:
    """Cases with the word for each: worst, median and best by the main metric; of several systems also where they part.

    Of several systems, a case counts by the mean of all.
    """
    metric = next(iter(scores.values))
    values, which = scores.of(metric, MEAN)
    order = np.argsort(METRICS[metric].sign * values.mean(0), kind="stable")
    ranked = [scores.cases[which[place]] for place in order]
    if len(ranked) <= N_WORST:
        return [(case, f"{rank + 1} of {len(ranked)}, worst first") for rank, case in enumerate(ranked)]
    found = {case: "worst" for case in ranked[:N_WORST]}
    if len(values) > 1:
        apart = np.argsort(-np.ptp(values, axis=0), kind="stable")
        for place in apart[:N_WORST]:
            found.setdefault(scores.cases[which[place]], "systems differ most")
    found.setdefault(ranked[len(ranked) // 2], "median")
    found.setdefault(ranked[-1], "best")
    return list(found.items())


def scores_in_words(scores: Aligned, case: str) -> str:
    """The main metric of a case, by class and system."""
    metric = next(iter(scores.values))
    row, title = scores.cases.index(case), METRICS[metric].title
    told = []
    for place, system in enumerate(scores.systems):
        values = scores.values[metric][place, row]
        each = [f"{name} {_number(value, metric)}" for name, value in zip(scores.classes, values, strict=True)]
        told.append((f"{system}: " if len(scores.systems) > 1 else "") + ", ".join(each))
    return f"{title} {'; '.join(told)}"


def _number(value: float, metric: str) -> str:
    return "-" if np.isnan(value) else f"{value:.{min(3, METRICS[metric].digits)}f}"


def _slices(case: Chosen, labels: LabelSchema, channels: tuple[str, ...], budget: int) -> tuple[Slices | None, str]:
    """The slices of a case, or why there are none."""
    try:
        pictured = _read(case, labels, channels)
    except SelfcfgError:
        return None, "It cannot be shown: its label maps cannot be read, or do not lie in the same place."
    problem = ""
    if case.images and pictured.image is None:
        problem = "The image could not be read, or does not lie where its label does: outlines alone are shown."
    return slices_of(pictured, budget), problem


def _read(case: Chosen, labels: LabelSchema, channels: tuple[str, ...]) -> Pictured:
    """The case with its image where that can be read, else without."""
    maps: dict[str, Label] = {}
    geometry: Geometry | None = None
    for name, file in case.maps.items():
        label, found = read_label(file)
        if geometry is not None and found.shape != geometry.shape:
            raise DataError(f"show case '{case.case}'", f"{name} has the shape {found.shape}", "")
        geometry, maps[name] = geometry or found, label
    if geometry is None:
        raise DataError(f"show case '{case.case}'", "it has no label map", "")
    image: Image | None = None
    if case.images:
        try:
            arrays = read_case(Case(id=case.case, images=case.images, label=None, subject=""), case.fixes)
            image = arrays.image if arrays.image.shape[1:] == geometry.shape else None
            geometry = arrays.geometry if image is not None else geometry
        except SelfcfgError:
            image = None
    named = channels if image is not None and len(channels) == len(image) else ()
    given = named or tuple(f"channel {place}" for place in range(0 if image is None else len(image)))
    return Pictured(image, given, maps, geometry, labels.value_names)
