"""One temperature for the probabilities of an experiment, fitted on cases that its networks did not train on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfcfg.engine.prediction.probabilities import read_probabilities
from selfcfg.engine.scoring.calibration import LabelMaps, Reliability, counted_voxels, decisions
from selfcfg.engine.scoring.extras import MARGIN
from selfcfg.errors import DataError
from selfcfg.fixes import Fixes
from selfcfg.io import read_label
from selfcfg.kernels.calibration import Tally, fit_temperature, log_probabilities, tempered_top_label
from selfcfg.labels import LabelSchema
from selfcfg.progress import progress
from selfcfg.records import Record

VALUES = 10_000_000
"""Probabilities that are held at once, of all cases together: 80 MB."""

FEWEST, MOST = 500, 20_000
"""Voxels that are drawn of a case, within what `VALUES` leaves for each."""

_GROUPS = 5
"""Into so many parts subjects are dealt out where there is but one fold."""


@dataclass(frozen=True)
class OutOfFold:
    """A case that was predicted by a network that did not train on it.

    Args:
        case: its id.
        subject: whose it is.
        fold: name of the fold.
        probabilities: the file with them.
        prediction: the label map of the same network.
        reference: the file that is held to be true.
    """

    case: str
    subject: str
    fold: str
    probabilities: Path
    prediction: Path
    reference: Path


class Temperature(Record):
    """The temperature of an experiment, and what it is worth on cases that it was not fitted on.

    Args:
        temperature: that logits are divided by; 1 where fitting one does not raise the likelihood of other cases.
        fitted: the temperature of the highest likelihood on all cases.
        by_group: temperature that was fitted without each part of the cases, which is what that part is scored with.
        before: of the decisions as the networks make them.
        after: the same with the temperatures of `by_group`.
        n_cases: it was fitted on.
        n_voxels: of these, within the margin of reference or prediction.
        n_drawn: of these, looked at; each stands for as many as its case has for each that was drawn.
        margin: mm; pixels for pictures.
        seed: of the draw.
        reason: in words.
        weights: hash of the final weights of each fold, by folder name.
    """

    temperature: float
    fitted: float
    by_group: dict[str, float]
    before: Reliability
    after: Reliability
    n_cases: int
    n_voxels: int
    n_drawn: int
    margin: float
    seed: int
    reason: str
    weights: dict[str, str] = {}


class _Drawn(NamedTuple):
    """Decisions of some cases: log probabilities (K, m), true classes (m,), and of how many each is one (m,)."""

    logs: NDArray[np.float64]
    target: NDArray[np.integer]
    weights: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[_Drawn]) -> _Drawn:
        logs, target, weights = zip(*parts, strict=True)
        return cls(np.concatenate(logs, 1), np.concatenate(target), np.concatenate(weights))


def temperature_of(
    cases: Sequence[OutOfFold],
    labels: LabelSchema,
    *,
    margin: float = MARGIN,
    seed: int = 0,
    fixes: Fixes | None = None,
) -> Temperature:
    """The temperature with the highest likelihood on cases that were predicted out of fold.

    What is told of its worth is cross-fitted: each fold is scored with the temperature of the other ones. Where there
    is but one fold, its subjects are dealt out into five parts.

    Args:
        cases: of two subjects at least.
        labels: meaning of the outputs.
        margin: see `selfcfg.engine.scoring.calibration.counted_voxels`.
        seed: of the voxels that are drawn.
        fixes: recorded corrections of the headers of the references.

    Raises:
        DataError: there are too few subjects, or a file cannot be used.

    Source: Guo et al. 2017, section 4.2; the voxels that count, drawing some of each case, and that a temperature that
        does not help elsewhere is not used: our choice.
    """
    groups = _groups(cases)
    most = min(MOST, max(FEWEST, VALUES // (len(cases) * labels.n_outputs)))
    drawn: dict[str, list[_Drawn]] = {group: [] for group in groups.values()}
    n_voxels = n_drawn = 0
    with progress("calibrate", len(cases)) as step:
        for case in cases:
            values, truth = read_counted(case, labels, margin, fixes or Fixes())
            chosen = _chosen(case.case, len(truth), most, seed)
            n_voxels, n_drawn = n_voxels + len(truth), n_drawn + len(chosen)
            decided, target = decisions(values[:, chosen], truth[chosen], labels)
            share = np.full(len(target), len(truth) / max(1, len(chosen)))
            part = _Drawn(log_probabilities(decided), target, share)
            drawn[groups[case.subject]].append(part)
            step(case.case)
    parts = {group: joined for group, some in drawn.items() if len((joined := _Drawn.joined(some)).target)}
    if len(parts) < 2:
        found = f"fewer than two parts of the {len(cases)} cases hold foreground"
        raise DataError("fit a temperature", found, "train more folds, or give more cases")
    by_group = {group: _fitted([parts[other] for other in parts if other != group]) for group in parts}
    before, after = Tally.empty(), Tally.empty()
    for group, part in parts.items():
        before = before + tempered_top_label(*part, 1.0)
        after = after + tempered_top_label(*part, by_group[group])
    fitted = _fitted(list(parts.values()))
    helps = after.log < before.log
    return Temperature(
        temperature=fitted if helps else 1.0,
        fitted=fitted,
        by_group=by_group,
        before=Reliability.of(before),
        after=Reliability.of(after),
        n_cases=len(cases),
        n_voxels=n_voxels,
        n_drawn=n_drawn,
        margin=margin,
        seed=seed,
        reason=_reason(fitted, before, after, helps=helps),
    )


def _reason(fitted: float, before: Tally, after: Tally, *, helps: bool) -> str:
    scores = (
        f"the negative log likelihood goes from {before.nll:.4f} to {after.nll:.4f} and the calibration error from "
        f"{before.ece:.4f} to {after.ece:.4f} on cases that it was not fitted on"
    )
    if not helps:
        return f"probabilities stay as they are: with a temperature of {fitted:.3f}, {scores}"
    said = "less" if fitted > 1 else "more"
    return f"with a temperature of {fitted:.3f} probabilities are {said} sure: {scores}"


def _groups(cases: Sequence[OutOfFold]) -> dict[str, str]:
    """By subject, the part of the cases that it is scored with."""
    folds = {case.subject: case.fold for case in cases}
    if len(set(folds.values())) > 1:
        return folds
    if len(folds) < 2:
        raise DataError("fit a temperature", f"cases of {len(folds)} subject", "two at least are needed")
    return {subject: f"part {index % _GROUPS}" for index, subject in enumerate(sorted(folds))}


def _fitted(parts: Sequence[_Drawn]) -> float:
    return fit_temperature(*_Drawn.joined(parts))


def _chosen(case: str, count: int, most: int, seed: int) -> NDArray[np.intp]:
    """Places of the voxels of a case that are drawn; all of a few."""
    if count <= most:
        return np.arange(count)
    rng = np.random.default_rng([seed, zlib.crc32(case.encode())])
    return rng.choice(count, most, replace=False)


def read_counted(
    case: OutOfFold, labels: LabelSchema, margin: float, fixes: Fixes
) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """The probabilities (n_outputs, n) and references (n,) of the voxels of a case that count.

    Raises:
        DataError: a file cannot be used.
    """
    asked = f"calibrate case '{case.case}'"
    reference, stored = read_label(case.reference)
    geometry = fixes.corrected(case.case, None, stored)
    prediction, other = read_label(case.prediction)
    if differences := geometry.differences(other):
        raise DataError(asked, f"reference and prediction differ in {', '.join(differences)}", "train it again")
    probabilities = read_probabilities(case.probabilities, asked, labels, reference.shape)
    return counted_voxels(probabilities, LabelMaps(reference, prediction, geometry), labels, margin)


def same_weights(noted: Mapping[str, str], found: Mapping[str, str]) -> bool:
    """Whether all weights that are in use are those that something was fitted on, by folder name of the fold."""
    return all(noted.get(name) == value for name, value in found.items())
