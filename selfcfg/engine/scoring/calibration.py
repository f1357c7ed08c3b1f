"""Whether the probabilities beside label maps come true: scores of each case, and reliability of all together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.probabilities import read_probabilities
from selfcfg.engine.scoring.extras import MARGIN
from selfcfg.engine.scoring.tables import aligned
from selfcfg.geometry import Geometry
from selfcfg.kernels.calibration import Tally, one_class, pair, top_label
from selfcfg.kernels.morphology import dilate, extent
from selfcfg.labels import LabelSchema
from selfcfg.records import Record
from selfcfg.sheets import comma_separated

TABLE = "calibration.csv"
OVERALL = "(decision)"
"""In the table, what is believed most at each voxel, whatever the class; no class is likely to be called so."""

_BLOCK = 1 << 18
"""Voxels at a time, so that double precision needs little memory."""

Labels = NDArray[np.integer]


class LabelMaps(NamedTuple):
    """Two label maps of one case, (Z, Y, X) declared values, and where they lie."""

    reference: Labels
    prediction: Labels
    geometry: Geometry


@dataclass(frozen=True)
class CaseTallies:
    """What the probabilities of one case are worth.

    Args:
        overall: of what is believed most at each voxel; of regions, of each decision whether a voxel is in one.
        classes: of each class or region against the rest.
    """

    overall: Tally
    classes: dict[str, Tally]

    def __add__(self, other: CaseTallies) -> CaseTallies:
        classes = {name: tally + other.classes[name] for name, tally in self.classes.items()}
        return CaseTallies(self.overall + other.overall, classes)


class Reliability(Record):
    """Scores of probabilities over all voxels that count, and the reliability curve; a score of no voxel is None.

    Args:
        ece: expected calibration error.
        brier: mean squared error.
        nll: mean negative log likelihood, nats.
        count: voxels by bin of the confidence; the bins are equally wide from 0 to 1, closed at their upper end.
        confidence: sum of the confidence by bin.
        hits: voxels by bin where what was believed is true.
        squared: sum of the squared errors.
        log: sum of the negative log likelihoods.
    """

    ece: float | None
    brier: float | None
    nll: float | None
    count: tuple[float, ...]
    confidence: tuple[float, ...]
    hits: tuple[float, ...]
    squared: float
    log: float

    @classmethod
    def of(cls, tally: Tally) -> Self:
        """The scores of a tally."""
        sums = {name: tuple(getattr(tally, name).tolist()) for name in ("count", "confidence", "hits")}
        return cls(ece=tally.ece, brier=tally.brier, nll=tally.nll, squared=tally.squared, log=tally.log, **sums)

    @property
    def tally(self) -> Tally:
        """The sums it was made of."""
        count, confidence, hits = (np.array(sums) for sums in (self.count, self.confidence, self.hits))
        return Tally(count, confidence, hits, self.squared, self.log)

    def bins(self) -> list[tuple[float, float, int, float | None, float | None]]:
        """The reliability curve: lower and upper end of a bin, its voxels, their mean confidence and accuracy."""
        total = len(self.count)
        return [
            (index / total, (index + 1) / total, round(n), *((sums / n, hits / n) if n else (None, None)))
            for index, (n, sums, hits) in enumerate(zip(self.count, self.confidence, self.hits, strict=True))
        ]


class Calibration(Record):
    """How far the probabilities of a set of predictions can be trusted, all voxels of all cases together.

    Args:
        margin: mm (pixels for pictures) around reference and prediction within which voxels count.
        overall: of what is believed most at each voxel; of regions, of each decision whether a voxel is in one.
        classes: of each class or region against the rest.
    """

    margin: float
    overall: Reliability
    classes: dict[str, Reliability]

    @classmethod
    def of(cls, tallies: CaseTallies, margin: float) -> Self:
        """The scores of the tallies of all cases together."""
        classes = {name: Reliability.of(tally) for name, tally in tallies.classes.items()}
        return cls(margin=margin, overall=Reliability.of(tallies.overall), classes=classes)

    @property
    def tallies(self) -> CaseTallies:
        """The sums it was made of."""
        return CaseTallies(self.overall.tally, {name: one.tally for name, one in self.classes.items()})

    def csv(self) -> str:
        """The reliability curves: one row a class and bin."""
        heads = ("class", "bin", "low", "high", "count", "confidence", "accuracy")
        curves = {OVERALL: self.overall, **self.classes}
        rows = ((name, index + 1, *row) for name, curve in curves.items() for index, row in enumerate(curve.bins()))
        return comma_separated(heads, rows)

    def text(self) -> str:
        """The scores as a table: one row a class, then the decisions."""
        rows = [
            (name, *("-" if score is None else f"{score:.4f}" for score in (one.ece, one.brier, one.nll)))
            for name, one in (*self.classes.items(), (OVERALL, self.overall))
        ]
        lines = aligned(("probabilities of all cases", "ECE", "Brier", "NLL"), rows, last_apart=True)
        voxels = f"{self.overall.tally.n:.0f} decisions within {self.margin:g} of reference or prediction"
        return "\n".join([*lines, voxels])


def pooled_calibration(tallies: Iterable[CaseTallies], margin: float) -> Calibration | None:
    """The calibration of several cases together; None without any."""
    together: CaseTallies | None = None
    for one in tallies:
        together = one if together is None else together + one
    return None if together is None else Calibration.of(together, margin)


def calibration_of_case(
    file: Path, asked: str, maps: LabelMaps, labels: LabelSchema, margin: float = MARGIN
) -> CaseTallies:
    """What the probabilities in the file of a case are worth.

    Args:
        file: as `predict --save-probabilities` writes it.
        asked: for messages, with the name of the case.
        maps: the reference, and the label map of the same probabilities.
        labels: meaning of the values.
        margin: see `counted_voxels`.

    Raises:
        DataError: see `selfcfg.engine.prediction.probabilities.read_probabilities`.
    """
    probabilities = read_probabilities(file, asked, labels, maps.reference.shape)
    values, truth = counted_voxels(probabilities, maps, labels, margin)
    return tallies_of(values, truth, labels)


def counted_voxels(
    probabilities: NDArray[np.floating[Any]], maps: LabelMaps, labels: LabelSchema, margin: float = MARGIN
) -> tuple[NDArray[np.floating[Any]], Labels]:
    """The probabilities (n_outputs, n) and the references (n,) of the voxels that count.

    These are the voxels within a margin of the foreground of either label map that are annotated. Over a whole image,
    background that nobody would doubt makes any probabilities look right (our choice of the region).

    Args:
        probabilities: (n_outputs, Z, Y, X).
        maps: the reference and the label map.
        labels: meaning of the values.
        margin: mm; pixels for pictures.
    """
    reference, prediction, geometry = maps
    foreground = (prediction != 0) | (reference != 0)
    if labels.ignore is not None:
        foreground &= (reference != labels.ignore) | (prediction != 0)
    box = extent(foreground, math.ceil(margin / min(geometry.spacing)) + 1)
    if box is None:
        return probabilities[:, :0, 0, 0], reference[:0, 0, 0]
    near = dilate(foreground[box], margin, geometry.spacing)
    if labels.ignore is not None:
        near &= reference[box] != labels.ignore
    return probabilities[:, *box][:, near], reference[box][near]


def tallies_of(probabilities: NDArray[Any], reference: Labels, labels: LabelSchema) -> CaseTallies:
    """The tallies of voxels: probabilities (n_outputs, n) and declared values (n,)."""
    found = CaseTallies(Tally.empty(), dict.fromkeys(labels.targets, Tally.empty()))
    for start in range(0, len(reference), _BLOCK):
        part = slice(start, start + _BLOCK)
        found = found + _tallies(probabilities[:, part], reference[part], labels)
    return found


def decisions(
    probabilities: NDArray[Any], reference: Labels, labels: LabelSchema
) -> tuple[NDArray[Any], NDArray[np.integer]]:
    """What was decided at voxels: probabilities (K, m) of classes that exclude each other, and the true ones (m,).

    Classes are decided once a voxel; regions each by itself, one after the other.
    """
    if not labels.has_regions:
        return probabilities, reference
    truths = [np.isin(reference, values).astype(np.intp) for values in labels.targets.values()]
    return np.concatenate([pair(one) for one in probabilities], 1), np.concatenate(truths)


def _tallies(probabilities: NDArray[Any], reference: Labels, labels: LabelSchema) -> CaseTallies:
    classes = {
        name: one_class(probabilities[output_of(labels, name)], np.isin(reference, values))
        for name, values in labels.targets.items()
    }
    return CaseTallies(top_label(*decisions(probabilities, reference, labels)), classes)


def output_of(labels: LabelSchema, name: str) -> int:
    """The output that a class or region has the probabilities of."""
    return list(labels.targets).index(name) if labels.has_regions else labels.targets[name][0]


def case_scores(tally: Tally) -> Mapping[str, float | None]:
    """The metrics of one class of one case."""
    return {"ece": tally.ece, "brier": tally.brier, "nll": tally.nll}
